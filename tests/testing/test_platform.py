"""A platform under virtual time: dates, rest, crashes, restarts, and what a test gets to see, on both stores."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest

from jidosystem import Agent, CircuitBreaker, Event, Lifecycle, Resilience, Retry, Transient, action, errors, on_event
from jidosystem.core.errors import CallTimeout, InvalidArguments, OutcomeUnknown, TurnTimeout
from jidosystem.testing import DueReminder, PendingCast, Stuck, TestPlatform, run
from jidosystem.testing.loop import virtual_loop

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)


class Membership(Agent):
    """Is billed on the first of each month."""

    bills: int = 0
    warned: bool = False

    @action
    async def join(self) -> None:
        self.remind("bill", cron="0 9 1 * *", action=self.bill)

    @action
    async def bill(self) -> int:
        self.bills += 1
        self.emit("member.billed", {"member": self.key, "number": self.bills})
        return self.bills

    @action
    async def soon(self, seconds: float) -> None:
        self.after(seconds, self.warn)

    @action
    async def warn(self) -> None:
        self.warned = True

    @action
    async def ask(self, other: str) -> None:
        self.cast(self.agent(Membership, other).bill)

    @action
    async def hang(self) -> None:
        await asyncio.Event().wait()

    @action
    async def sleep(self, seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds


class Accounts(Agent):
    """Adds up the bills."""

    total: int = 0

    @on_event("member.billed", key=lambda _event: "all")
    async def billed(self, event: Event) -> None:
        self.total += 1


class Clumsy(Agent):
    """Fails as often as it is told."""

    resilience = Resilience(retry=Retry.exponential(max_attempts=4), circuit_breaker=CircuitBreaker(threshold=3, timeout=600))

    tries: int = 0
    _left = 0

    @action
    async def set(self, failures: int) -> None:
        self._left = failures

    @action
    async def attempt(self) -> str:
        if self._left > 0:
            self._left -= 1
            raise Transient("not yet")
        return "done"


class Brief(Agent):
    """Goes soon when idle, and may not take long."""

    lifecycle = Lifecycle(idle_timeout=60, turn_timeout=10)

    @action
    async def dawdle(self) -> None:
        await asyncio.sleep(3600)

    @action
    def compute(self) -> int:
        return threading.get_ident()


ALL = [Membership, Accounts, Clumsy, Brief]


@pytest.fixture(params=["memory://", "sqlite://"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def on_platform(url: str, main: Callable[[TestPlatform], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def body() -> None:
        async with TestPlatform(url, agents=ALL, **options) as platform:
            await main(platform)

    run(body(), patience_s=15.0)


def test_a_year_passes_with_all_that_is_due_in_it(url: str) -> None:
    async def main(platform: TestPlatform) -> None:
        member = platform.agent(Membership, "ann")
        await member.join()
        assert await platform.due_reminders() == [DueReminder("Membership/ann", "bill", "bill", datetime(2026, 1, 1, 9, tzinfo=UTC))]
        await platform.advance(days=365)
        await platform.at_rest()
        assert platform.now == datetime(2027, 1, 1, tzinfo=UTC)
        assert await platform.state(member) == {"bills": 12, "warned": False}
        assert await platform.state(platform.agent(Accounts, "all")) == {"total": 12}
        times = [datetime.fromtimestamp(event.time_s, UTC) for event in platform.published("member.*")]
        assert times == [datetime(2026, month, 1, 9, tzinfo=UTC) for month in range(1, 13)]

    on_platform(url, main)


def test_time_passes_by_itself_while_the_test_waits(url: str) -> None:
    async def main(platform: TestPlatform) -> None:
        member = platform.agent(Membership, "ann")
        assert await platform.call(member.sleep, 200.0, timeout=10_000.0) == 200.0
        assert (platform.now - JANUARY).total_seconds() == pytest.approx(200.0)
        with pytest.raises(CallTimeout):
            await member.hang()
        with pytest.raises(TurnTimeout):
            await platform.agent(Brief, "b").dawdle()
        assert (platform.now - JANUARY).total_seconds() == pytest.approx(240.0, abs=0.1)

    on_platform(url, main)


def test_timers_idle_times_retries_and_breakers_follow_the_clock(url: str) -> None:
    async def main(platform: TestPlatform) -> None:
        member, brief, clumsy = platform.agent(Membership, "ann"), platform.agent(Brief, "b"), platform.agent(Clumsy, "c")
        await member.soon(100.0)
        assert await brief.compute() != threading.get_ident()
        await platform.advance(seconds=59)
        assert (await platform.agents.describe(brief)).state == "live"
        await platform.advance(seconds=40)
        assert (await platform.agents.describe(brief)).state == "passive"
        assert not (await platform.state(member))["warned"]
        await platform.advance(seconds=2)
        assert (await platform.state(member))["warned"]
        await clumsy.set(3)
        assert await clumsy.attempt() == "done"
        await clumsy.set(12)
        for _ in range(3):
            with pytest.raises(Transient):
                await clumsy.attempt()
        with pytest.raises(errors.CircuitOpen):
            await clumsy.attempt()
        await platform.advance(minutes=10)
        assert await clumsy.attempt() == "done"

    on_platform(url, main)


def test_after_a_crash_what_was_committed_is_there_and_the_rest_is_told_as_unknown(url: str) -> None:
    async def main(platform: TestPlatform) -> None:
        member = platform.agent(Membership, "ann")
        await member.join()
        await member.bill()
        await platform.agents.pause(platform.agent(Membership, "bob"))
        await member.ask("bob")
        hanging = asyncio.create_task(member.hang())
        waiting = asyncio.create_task(member.bill())
        await asyncio.sleep(1.0)
        await platform.crash()
        assert platform.crashed
        for call in (hanging, waiting):
            with pytest.raises(OutcomeUnknown, match="crashed"):
                await call
        await platform.restart()
        assert not platform.crashed
        assert await platform.state(platform.agent(Membership, "ann")) == {"bills": 1, "warned": False}
        assert await platform.pending_casts() == [PendingCast("Membership/ann", "Membership/bob", "bill")]
        await platform.agents.resume(platform.agent(Membership, "bob"))
        await platform.at_rest()
        assert await platform.state(platform.agent(Membership, "bob")) == {"bills": 1, "warned": False}
        await platform.advance(days=31)
        assert await platform.state(platform.agent(Membership, "ann")) == {"bills": 2, "warned": False}

    on_platform(url, main)


def test_a_restart_in_order_keeps_everything_and_may_bring_other_classes(url: str) -> None:
    class Newer(Agent, name="Membership"):
        """The next release."""

        bills: int = 0
        warned: bool = False
        grade: str = "silver"

    async def main(platform: TestPlatform) -> None:
        await platform.agent(Membership, "ann").bill()
        await platform.restart()
        assert (await platform.state(platform.agent(Membership, "ann")))["bills"] == 1
        await platform.restart(agents=[Newer])
        assert await platform.state(platform.agent(Newer, "ann")) == {"bills": 1, "warned": False, "grade": "silver"}
        await platform.crash()
        await platform.crash()
        await platform.restart(agents=ALL)
        assert [event.data["number"] for event in platform.published()] == [1]

    on_platform(url, main)


def test_rest_waits_for_what_comes_again_and_for_no_future_reminder(url: str) -> None:
    async def main(platform: TestPlatform) -> None:
        seen: list[int] = []

        async def moody(event: Event) -> None:
            seen.append(event.position)
            if len(seen) < 4:
                raise ValueError("not now")

        await platform.events.subscribe("member.**", moody, durable="moody")
        member = platform.agent(Membership, "ann")
        await member.join()
        await member.ask("bob")
        await platform.at_rest()
        assert len(seen) == 4
        assert (platform.now - JANUARY).total_seconds() < 60.0

    on_platform(url, main)


def test_what_never_rests_is_named(url: str) -> None:
    async def main(platform: TestPlatform) -> None:
        member = platform.agent(Membership, "ann")
        hanging = asyncio.create_task(platform.call(member.hang, timeout=1e6))
        await asyncio.sleep(0)
        with pytest.raises(Stuck, match=r"not at rest within(.|\n)*Membership/ann is in hang"):
            await platform.at_rest(within_s=200.0)
        hanging.cancel()

    on_platform(url, main)


def test_who_hangs_on_an_agent_is_told_which(url: str) -> None:
    async def main(platform: TestPlatform) -> None:
        await platform.agents.pause(platform.agent(Membership, "ann"))
        with pytest.raises(Stuck, match=r"test_platform\.py"):
            await asyncio.Event().wait()

    on_platform(url, main)


def test_a_failing_test_says_its_seed_and_what_was_made_to_fail() -> None:
    async def main(platform: TestPlatform) -> None:
        platform.faults.schedule("fail", agent="Membership/ann")
        await platform.agent(Membership, "ann").bill()

    with pytest.raises(errors.StoreUnavailable) as raised:
        on_platform("memory://", main, seed=77)
    [note] = [note for note in raised.value.__notes__ if note.startswith("under virtual time")]
    assert "seed=77" in note
    assert "of Membership/ann: fail" in note


@pytest.mark.parametrize("start", ["yesterday", "2026-01-01T00:00", datetime(2026, 1, 1)])  # noqa: DTZ001 - that is the mistake
def test_a_start_that_is_no_moment_is_refused(start: Any) -> None:
    with pytest.raises(InvalidArguments, match="start="):
        TestPlatform(start=start)


async def test_a_loop_of_real_time_is_refused_with_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"testing.run\(main\(\)\)"):
        async with TestPlatform():
            pass


def test_a_file_of_the_tests_own_is_kept(tmp_path: Any) -> None:
    async def main(platform: TestPlatform) -> None:
        await platform.agent(Membership, "ann").bill()

    async def look(platform: TestPlatform) -> None:
        assert (await platform.state(platform.agent(Membership, "ann")))["bills"] == 1
        assert platform.published() == []

    on_platform(f"sqlite:///{tmp_path}/t.db", main)
    on_platform(f"sqlite:///{tmp_path}/t.db", look)


def test_looking_at_the_wall_clock_leaves_no_timers_behind() -> None:
    async def main(platform: TestPlatform) -> None:
        await platform.agent(Membership, "ann").join()
        for _ in range(20):
            await platform.advance(seconds=30)
        timers = [handle for _when, _number, handle in virtual_loop()._timers if "Reminders" in repr(handle) and not handle.cancelled()]
        assert len(timers) == 1

    on_platform("memory://", main)
