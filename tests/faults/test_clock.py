"""The wall clock jumps an hour, forward and back: nothing rings twice, nothing too early, no key is forgotten."""

from __future__ import annotations

from dataclasses import field
from datetime import UTC, datetime

import pytest

from jidosystem import Agent, action
from jidosystem.backends.memory import MemoryRecords
from tests.runtime.harness import FakeClock, PlatformOn, Store

HOUR_S = 3600.0


class Ringer(Agent):
    """Rings in every way there is."""

    rung: list[str] = field(default_factory=list)
    calls: int = 0

    @action
    async def set_all(self, at_s: float) -> None:
        self.remind("after", after=30.0, action=self.ring, args={"what": "after"})
        self.remind("every", every=20.0, action=self.ring, args={"what": "every"})
        self.remind("at", at=datetime.fromtimestamp(at_s, UTC), action=self.ring, args={"what": "at"})

    @action
    async def ring(self, what: str) -> None:
        self.rung = [*self.rung, what]

    @action
    async def count(self) -> int:
        self.calls += 1
        return self.calls

    @action(readonly=True)
    async def heard(self) -> dict[str, int]:
        return {what: self.rung.count(what) for what in ("after", "every", "at")}


async def start(clock: FakeClock) -> PlatformOn:
    return PlatformOn(Store(MemoryRecords(clock)), [Ringer], clock=clock)


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
async def test_reminders_that_count_seconds_arent_moved_and_those_of_a_date_follow_the_clock(jump_s: float) -> None:
    clock = FakeClock()
    async with await start(clock) as platform:
        ref = platform.agent(Ringer, "a")
        await ref.set_all(clock.wall_s + 50.0)
        await clock.advance(platform, 10.0)
        clock.jump(jump_s)
        await clock.advance(platform, 0.0)
        assert await ref.heard() == {"after": 0, "every": 0, "at": int(jump_s > 0)}
        await clock.advance(platform, 12.0)
        await clock.advance(platform, 12.0)
        assert await ref.heard() == {"after": 1, "every": 1, "at": int(jump_s > 0)}
        clock.jump(-jump_s)
        for _ in range(3):
            await clock.advance(platform, 10.0)
        assert (await ref.heard())["after"] == 1
        assert (await ref.heard())["at"] == 1


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
async def test_a_series_goes_on_after_a_jump_in_its_old_step(jump_s: float) -> None:
    clock = FakeClock()
    async with await start(clock) as platform:
        ref = platform.agent(Ringer, "a")
        await ref.set_all(clock.wall_s + 10 * HOUR_S)
        for _ in range(3):
            await clock.advance(platform, 20.5)
        before = (await ref.heard())["every"]
        assert before == 3
        clock.jump(jump_s)
        for _ in range(6):
            await clock.advance(platform, 10.5)
        assert (await ref.heard())["every"] in (before + 3, before + 4)


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
async def test_keys_are_remembered_over_a_jump(jump_s: float) -> None:
    clock = FakeClock()
    async with await start(clock) as platform:
        ref = platform.agent(Ringer, "a")
        assert await platform.call(ref.count, idempotency_key="k") == 1
        clock.jump(jump_s)
        assert await platform.call(ref.count, idempotency_key="k") == 1
        clock.jump(-2 * jump_s)
        await platform.agents.stop(ref)
        assert await platform.call(ref.count, idempotency_key="k") == 1


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
async def test_a_callers_patience_isnt_the_wall_clocks(jump_s: float) -> None:
    clock = FakeClock()
    async with await start(clock) as platform:
        ref = platform.agent(Ringer, "a")
        for expected in range(1, 20):
            clock.jump(jump_s if expected % 2 else -jump_s)
            assert await platform.call(ref.count, timeout=5.0) == expected
