"""Reminders of agents that have failed or are paused wait for their restart or resumption, and hold up nobody else's."""

from __future__ import annotations

from typing import Any

import pytest

from jidosystem import Agent, AgentCrashed, AgentFailed, Platform, Supervision, action, on_start
from jidosystem.runtime.reminders import MAX_FIRING
from tests.runtime.harness import FakeClock, until_async

broken = {"now": False}


class Frail(Agent):
    """Can't start while it is broken."""

    supervision = Supervision(max_restarts=0)
    rung: int = 0

    @on_start
    async def begin(self) -> None:
        if broken["now"]:
            raise RuntimeError("broken")

    @action
    async def set(self, after: float) -> None:
        self.remind("ring", after=after, action=self.ring)

    @action
    async def ring(self) -> None:
        self.rung += 1

    @action
    async def nothing(self) -> None: ...


class Sound(Agent):
    """Has a reminder too."""

    rung: int = 0

    @action
    async def set(self, after: float) -> None:
        self.remind("ring", after=after, action=self.ring)

    @action
    async def ring(self) -> None:
        self.rung += 1


async def rung(platform: Platform, ref: Any) -> bool:
    return bool((await platform.agents.describe(ref)).fields["rung"])  # type: ignore[index]


async def test_a_storm_of_reminders_of_failed_agents_holds_up_nobody_and_waits_for_their_restart(clock: FakeClock) -> None:
    async with Platform(agents=[Frail, Sound], clock=clock) as platform:
        frail = [platform.agent(Frail, str(i)) for i in range(MAX_FIRING + 1)]
        for ref in frail:
            await ref.set(10)
            await platform.agents.stop(ref)
        broken["now"] = True
        try:
            for ref in frail:
                with pytest.raises((AgentCrashed, AgentFailed)):
                    await ref.nothing()
            sound = platform.agent(Sound, "s")
            await sound.set(11)
            await clock.advance(platform, 12)
            await until_async(lambda: rung(platform, sound))
        finally:
            broken["now"] = False
        await platform.agents.restart(frail[7])
        await until_async(lambda: rung(platform, frail[7]))


async def test_a_storm_of_reminders_of_paused_agents_holds_up_nobody_and_waits_for_their_resumption(clock: FakeClock) -> None:
    async with Platform(agents=[Sound], clock=clock) as platform:
        paused = [platform.agent(Sound, f"p{i}") for i in range(MAX_FIRING + 1)]
        for ref in paused:
            await ref.set(10)
            await platform.agents.pause(ref)
        awake = platform.agent(Sound, "awake")
        await awake.set(11)
        await clock.advance(platform, 12)
        await until_async(lambda: rung(platform, awake))
        assert not await rung(platform, paused[0])
        await platform.agents.resume(paused[0])
        await until_async(lambda: rung(platform, paused[0]))
        assert not await rung(platform, paused[1])
