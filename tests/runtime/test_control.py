"""Operations on one agent that meet: each ends, and what it was asked for holds; a timer that fails is told in the log."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import ClassVar

import pytest

from jidosystem import Agent, Platform, action, on_start
from tests.runtime.harness import settle, until

PATIENCE_S = 5.0


class Counter(Agent):
    value: int = 0
    gate: ClassVar[asyncio.Event]
    waiting: ClassVar[bool] = False

    @on_start
    async def begin(self) -> None:
        """Starting takes a turn, in which others come to wait."""

    @action
    async def add(self) -> int:
        self.value += 1
        return self.value

    @action
    async def wait(self) -> None:
        type(self).waiting = True
        await self.gate.wait()
        type(self).waiting = False

    @action
    async def add_soon(self) -> None:
        self.after(0, self.fail)

    @action
    async def fail(self) -> None:
        raise ValueError("the bell is cracked")


async def test_deletions_that_meet_all_end(platform: Platform) -> None:
    ref = platform.agent(Counter, "a")
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(platform.agents.start(Counter, "a") for _ in range(20)))
        await asyncio.gather(*(platform.agents.delete(ref) for _ in range(5)))
    assert await platform.agents.list() == []
    assert await ref.add() == 1


async def test_a_pause_that_meets_a_stop_holds(platform: Platform) -> None:
    ref = platform.agent(Counter, "a")
    await ref.add()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(platform.agents.stop(ref), platform.agents.pause(ref), platform.agents.stop(ref))
    assert (await platform.agents.describe(ref)).state == "paused"
    await platform.agents.resume(ref)
    assert await ref.add() == 2


async def test_all_of_them_together_end(platform: Platform) -> None:
    agents, ref = platform.agents, platform.agent(Counter, "a")
    for _ in range(5):
        async with asyncio.timeout(PATIENCE_S):
            every = (agents.pause, agents.delete, agents.resume, agents.stop, agents.restart, agents.pause, agents.delete, agents.resume)
            await asyncio.gather(*(operation(ref) for operation in every))
        await agents.resume(ref)
        assert await ref.add() >= 1


async def test_operations_on_a_paused_agent_overtake_the_calls_that_wait_for_it(platform: Platform) -> None:
    agents, ref = platform.agents, platform.agent(Counter, "a")
    await agents.pause(ref)
    waiting = asyncio.ensure_future(ref.add())
    for _ in range(5):
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(operation(ref) for operation in (agents.stop, agents.pause, agents.stop, agents.restart, agents.pause)))
    assert not waiting.done()
    async with asyncio.timeout(PATIENCE_S):
        await agents.resume(ref)
        assert await waiting == 1


@pytest.mark.parametrize("operation", ["stop", "delete", "restart", "pause", "resume"])
async def test_whoever_gives_up_waiting_leaves_no_agent_half_way(operation: str, platform: Platform) -> None:
    agents, ref = platform.agents, platform.agent(Counter, "a")
    Counter.gate = asyncio.Event()
    busy = asyncio.ensure_future(ref.wait())
    await until(lambda: Counter.waiting)
    asked = asyncio.ensure_future(getattr(agents, operation)(ref))
    await settle()
    asked.cancel()
    with suppress(asyncio.CancelledError):
        await asked
    Counter.gate.set()
    async with asyncio.timeout(PATIENCE_S):
        await busy
        await settle()
        await agents.resume(ref)
        assert await ref.add() >= 1


async def test_a_timer_whose_action_fails_is_told_in_the_log(platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    await platform.agent(Counter, "a").add_soon()
    await until(lambda: "the bell is cracked" in caplog.text)
    assert "a timer's action failed" in caplog.text
    assert "Counter/a" in caplog.text
