"""Reminders: durable, ringing also for passive agents, told what was missed, and silent once forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jidosystem import Agent, InvalidArguments, Platform, action, on_start
from tests.runtime.harness import Crashable, FakeClock, settle, until, until_async


class Bell(Agent):
    rung: int = 0
    missed: int = 0
    starts: int = 0

    @on_start
    async def begin(self) -> None:
        self.starts += 1
        self.emit("bell.started", self.key)

    @action
    async def set(self, name: str, after: float | None = None, every: float | None = None, at: float | None = None, strokes: int = 1) -> None:
        self.remind(name, action=self.ring, after=after, every=every, at=at, args={"strokes": strokes})

    @action
    async def set_hourly(self, tz: str) -> None:
        self.remind("hourly", action=self.ring, cron="0 * * * *", tz=tz)

    @action
    async def set_and_fail(self) -> None:
        self.remind("never", action=self.ring, after=0)
        raise ValueError("no")

    @action
    async def forget_it(self, name: str) -> None:
        self.forget(name)

    @action
    async def ring(self, strokes: int = 1, missed: int = 0) -> None:
        self.rung += strokes
        self.missed += missed

    @action(readonly=True)
    async def names(self) -> list[str]:
        return sorted(self.reminders)


@pytest.fixture
async def timed(url: str, clock: FakeClock) -> AsyncIterator[Platform]:
    async with Platform(url, agents=[Bell], clock=clock) as platform:
        yield platform


async def fields(platform: Platform, key: str) -> tuple[int, int]:
    found = (await platform.agents.describe(platform.agent(Bell, key))).fields
    assert found is not None
    return found["rung"], found["missed"]


async def until_rung(platform: Platform, rung: int, missed: int = 0, key: str = "a") -> None:
    async def it() -> bool:
        return await fields(platform, key) == (rung, missed)

    await until_async(it, f"{rung} strokes, {missed} missed")


async def test_it_rings_once_when_it_is_due_and_not_before(timed: Platform, clock: FakeClock) -> None:
    ref = timed.agent(Bell, "a")
    await ref.set("tea", after=10, strokes=3)
    assert await ref.names() == ["tea"]
    await clock.advance(timed, 9)
    assert await fields(timed, "a") == (0, 0)
    await clock.advance(timed, 2)
    await until_rung(timed, 3)
    assert await ref.names() == []


async def test_it_wakes_a_passive_agent(timed: Platform, clock: FakeClock) -> None:
    ref = timed.agent(Bell, "a")
    await ref.set("tea", after=10)
    await timed.agents.stop(ref)
    await clock.advance(timed, 11)
    await until_rung(timed, 1)


async def test_one_in_the_past_rings_at_once(timed: Platform, clock: FakeClock) -> None:
    await timed.agent(Bell, "a").set("gone", at=clock.wall_s - 3_600)
    await clock.advance(timed, 0)
    await until_rung(timed, 1)


async def test_the_same_name_replaces_it(timed: Platform, clock: FakeClock) -> None:
    ref = timed.agent(Bell, "a")
    await ref.set("tea", after=10, strokes=1)
    await ref.set("tea", after=20, strokes=100)
    await clock.advance(timed, 11)
    assert await fields(timed, "a") == (0, 0)
    await clock.advance(timed, 10)
    await until_rung(timed, 100)


async def test_a_turn_that_fails_sets_none(timed: Platform, clock: FakeClock) -> None:
    ref = timed.agent(Bell, "a")
    with pytest.raises(ValueError, match="no"):
        await ref.set_and_fail()
    assert await ref.names() == []
    await clock.advance(timed, 60)
    assert await fields(timed, "a") == (0, 0)


async def test_what_was_missed_comes_as_one_call(tmp_path: Path, clock: FakeClock) -> None:
    url = f"sqlite:///{tmp_path}/bells.db"
    async with Platform(url, agents=[Bell], clock=clock) as platform:
        await platform.agent(Bell, "a").set("pulse", every=10)
    clock.pass_by(55)
    async with Platform(url, agents=[Bell], clock=clock) as platform:
        await clock.advance(platform, 0)
        await until_rung(platform, 1, missed=4)
        await clock.advance(platform, 10)
        await until_rung(platform, 2, missed=4)


async def test_a_cron_expression_counts_in_its_zone(timed: Platform, clock: FakeClock) -> None:
    ref = timed.agent(Bell, "a")
    await ref.set_hourly("Asia/Kolkata")  # half an hour off
    due = (await timed.agents.describe(ref)).reminders
    assert due == ("hourly",)
    await timed.agents.stop(ref)
    minute = datetime.fromtimestamp(clock.wall_s, UTC).minute
    await clock.advance(timed, ((30 - minute) % 60) * 60 + 1)
    await until_rung(timed, 1)


async def test_a_forgotten_one_wakes_nobody(timed: Platform, clock: FakeClock) -> None:
    ref = timed.agent(Bell, "a")
    await ref.set("tea", after=10)
    await ref.forget_it("tea")
    await ref.forget_it("never set")
    await timed.agents.stop(ref)
    await clock.advance(timed, 60)
    await settle()
    assert (await timed.agents.describe(ref)).state == "passive"


async def test_a_deleted_agent_isnt_brought_to_life_by_one(timed: Platform, clock: FakeClock) -> None:
    ref = timed.agent(Bell, "a")
    await ref.set("tea", after=10)
    await timed.agents.delete(ref)
    await clock.advance(timed, 60)
    await settle()
    assert await timed.agents.list(type=Bell) == []
    assert [event.data async for event in timed.events.read_all("bell.started")] == ["a"]


async def test_arguments_are_checked_when_it_is_set(timed: Platform) -> None:
    class Careless(Agent):
        @action
        async def set(self) -> None:
            self.remind("r", action=self.ring, after=1, args={"strokes": "many"})

        @action
        async def ring(self, strokes: int) -> None: ...

    with pytest.raises(InvalidArguments, match=r"argument 'strokes' doesn't fit: Expected `int`, got `str`"):
        await timed.agent(Careless, "a").set()


async def test_a_call_of_an_action_and_arguments_without_names_are_told_apart_from_other_slips() -> None:
    """What was called is closed as well: the suite takes a coroutine that is never awaited for an error."""

    class Slips(Agent):
        @action
        async def call_it(self) -> None:
            self.remind("r", after=1, action=self.ring(3))  # type: ignore[arg-type]

        @action
        async def name_nothing(self) -> None:
            self.remind("r", after=1, action=self.ring, args=(3,))  # type: ignore[arg-type]

        @action
        async def ring(self, strokes: int) -> None: ...

    with pytest.raises(InvalidArguments, match=r"give the action itself, action=self\.ring, and its arguments as args="):
        await Slips().call_it()
    with pytest.raises(InvalidArguments, match=r"args=\(3,\): arguments go by name, for example args=\{'strokes': …\}"):
        await Slips().name_nothing()


async def test_what_is_more_than_a_minute_off_is_a_wall_clock_time_and_the_last_minute_isnt(timed: Platform, clock: FakeClock) -> None:
    ref = timed.agent(Bell, "a")
    await ref.set("far", after=600)
    clock.jump(300)
    await clock.advance(timed, 290)  # now it is within reach, by the clock that was put forward
    await until(lambda: timed._node.reminders._relative, "its row being read")  # type: ignore[union-attr]
    assert await fields(timed, "a") == (0, 0)
    clock.jump(3_600)
    await clock.advance(timed, 5)
    assert await fields(timed, "a") == (0, 0)
    await clock.advance(timed, 6)
    await until_rung(timed, 1)


async def test_a_cron_series_lives_through_both_changes_of_the_clocks(tmp_path: Path) -> None:
    class Cock(Agent):
        crowed: int = 0
        missed: int = 0

        @action
        async def set(self) -> None:
            self.remind("dawn", cron="30 2 * * *", tz="Europe/Berlin", action=self.crow)

        @action
        async def crow(self, missed: int = 0) -> None:
            self.crowed += 1
            self.missed += missed

    for before in (datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 10, 24, 12, tzinfo=UTC)):
        clock = FakeClock(before.timestamp())
        async with Platform(agents=[Cock], clock=clock) as platform:
            ref = platform.agent(Cock, "c")
            await ref.set()
            crowed = []
            for _hour in range(36):
                await clock.advance(platform, 3_600)
                await settle()
                found = (await platform.agents.describe(ref)).fields
                assert found is not None
                crowed.append(found["crowed"])
            assert found["missed"] == 0
            assert crowed[-1] == 1  # the night of the change neither skips nor doubles it


async def test_a_clock_put_back_rings_no_date_twice(timed: Platform, clock: FakeClock) -> None:
    ref = timed.agent(Bell, "a")
    await ref.set("appointment", at=clock.wall_s + 10)
    await clock.advance(timed, 11)
    await until_rung(timed, 1)
    clock.jump(-3_600)
    for _ in range(4):
        await clock.advance(timed, 1_000)
    await clock.advance(timed, 0)
    assert await fields(timed, "a") == (1, 0)
    assert await ref.names() == []


async def test_a_storm_rings_everybody_once(timed: Platform, clock: FakeClock) -> None:
    await asyncio.gather(*(timed.agent(Bell, f"s{number}").set("all at once", after=10) for number in range(1_500)))
    await clock.advance(timed, 11)

    async def all_rang() -> bool:
        timed._node.reminders._tick()
        return all([await fields(timed, f"s{number}") == (1, 0) for number in range(0, 1_500, 100)])

    await until_async(all_rang, "the storm")
    for number in range(1_500):
        await until_rung(timed, 1, key=f"s{number}")


async def test_a_reminder_whose_type_is_not_hosted_is_named_at_the_start_long_before_it_is_due(
    world: Crashable, caplog: pytest.LogCaptureFixture
) -> None:
    platform = await world.start([Bell])
    for days in (3, 4):
        await platform.agent(Bell, "a").set(f"in {days}", after=days * 86_400)
    await world.crash()
    await world.start()
    await until(lambda: "isn't hosted here" in caplog.text, "its name in the log")
    told = [record.getMessage() for record in caplog.records if "isn't hosted here" in record.getMessage()]
    assert len(told) == 1
    assert '"agent_type": "Bell"' in told[0] and '"agent": "Bell/a"' in told[0]
