"""Retry, breaker and bulkhead where they guard agents: what is repeated, what is refused, and that no place is ever lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jidosystem import (
    Agent,
    AgentFailed,
    Bulkhead,
    BulkheadFull,
    CallTimeout,
    CircuitBreaker,
    CircuitOpen,
    Event,
    InvalidArguments,
    Lifecycle,
    Platform,
    Rejected,
    Resilience,
    Retry,
    ShuttingDown,
    Supervision,
    Transient,
    TurnTimeout,
    action,
    on_event,
    on_load,
)
from jidosystem.testing import TestPlatform, run
from tests.runtime.harness import Store, settle, until, until_async


class Outside:
    """The world that these agents depend on; set afresh for each test."""

    errors: list[BaseException]
    attempts: int
    inside: int
    most: int
    gate: asyncio.Event


@pytest.fixture(autouse=True)
async def outside() -> AsyncIterator[type[Outside]]:
    Outside.errors, Outside.attempts, Outside.inside, Outside.most, Outside.gate = [], 0, 0, 0, asyncio.Event()
    yield Outside
    Outside.gate.set()


async def attempt() -> None:
    Outside.attempts += 1
    if Outside.errors:
        raise Outside.errors.pop(0)


# -- retry ---------------------------------------------------------------------------------------------------------


class Persistent(Agent):
    resilience = Resilience(retry=Retry.exponential(max_attempts=3, initial=0.001))
    value: int = 0

    @action
    async def add(self) -> int:
        self.value += 1
        self.emit("persistent.added", self.value)
        await attempt()
        return self.value

    @action
    def add_in_a_thread(self) -> int:
        self.value += 1
        Outside.attempts += 1
        if Outside.errors:
            raise Outside.errors.pop(0)
        return self.value

    @action
    async def slow(self) -> None:
        Outside.attempts += 1
        await Outside.gate.wait()


class Hasty(Persistent):
    lifecycle = Lifecycle(turn_timeout=0.02)


class Patient(Persistent):
    resilience = Resilience(retry=Retry.fixed(max_attempts=3, delay=1_000.0))


@pytest.mark.parametrize("error", [Transient(), ConnectionError("gone"), TimeoutError("slow"), ConnectionResetError()])
async def test_what_may_work_the_next_time_is_repeated_from_the_state_before(platform: Platform, error: Exception) -> None:
    Outside.errors = [error, error]
    assert await platform.agent(Persistent, "a").add() == 1
    assert Outside.attempts == 3
    assert [event.data async for event in platform.events.read_all()] == [1]


async def test_a_plain_def_is_repeated_too(platform: Platform) -> None:
    Outside.errors = [ConnectionError()]
    assert await platform.agent(Persistent, "a").add_in_a_thread() == 1
    assert Outside.attempts == 2


async def test_the_caller_sees_the_last_outcome(platform: Platform) -> None:
    Outside.errors = [Transient("first"), Transient("second"), Transient("third")]
    with pytest.raises(Transient, match="third"):
        await platform.agent(Persistent, "a").add()
    assert Outside.attempts == 3


@pytest.mark.parametrize("error", [ValueError("a bug"), Rejected("no"), InvalidArguments("no", path="$")])
async def test_what_would_fail_again_isnt_repeated(platform: Platform, error: Exception) -> None:
    Outside.errors = [error]
    with pytest.raises(type(error)):
        await platform.agent(Persistent, "a").add()
    assert Outside.attempts == 1


async def test_a_turn_that_ran_too_long_isnt_repeated(platform: Platform) -> None:
    with pytest.raises(TurnTimeout):
        await platform.agent(Hasty, "a").slow()
    assert Outside.attempts == 1


async def test_what_cant_be_repeated_within_the_callers_patience_isnt(platform: Platform) -> None:
    Outside.errors = [Transient("busy")]
    ref = platform.agent(Patient, "a")
    with pytest.raises(Transient, match="busy"):  # at once, not after the timeout
        await platform.call(ref.add, timeout=5)
    assert Outside.attempts == 1


async def test_others_run_while_a_turn_waits_to_be_repeated(platform: Platform) -> None:
    Outside.errors = [Transient()]
    ref = platform.agent(Patient, "a")
    first = asyncio.ensure_future(platform.call(ref.add, timeout=5_000))
    await until(lambda: Outside.attempts == 1)
    assert await ref.add() == 1
    first.cancel()


async def test_a_call_that_waits_to_be_repeated_is_refused_when_the_platform_closes(url: str) -> None:
    Outside.errors = [Transient()]
    async with Platform(url) as platform:
        ref = platform.agent(Patient, "a")
        call = asyncio.ensure_future(platform.call(ref.add, timeout=5_000))
        await until(lambda: Outside.attempts == 1)
        await settle()
    with pytest.raises(ShuttingDown):
        await asyncio.wait_for(call, 1)


async def test_a_cast_is_repeated_too(platform: Platform) -> None:
    Outside.errors = [Transient(), Transient()]
    await platform.cast(platform.agent(Persistent, "a").add)
    await until(lambda: Outside.attempts == 3)
    assert await platform.agent(Persistent, "a").add() == 2


# -- breaker -------------------------------------------------------------------------------------------------------


class Fragile(Agent):
    resilience = Resilience(circuit_breaker=CircuitBreaker(threshold=2, timeout=1_000))
    value: int = 0

    @action
    async def add(self) -> int:
        self.value += 1
        await attempt()
        return self.value

    @action(readonly=True)
    async def get(self) -> int:
        await attempt()
        return self.value


class Recovering(Fragile):
    resilience = Resilience(circuit_breaker=CircuitBreaker(threshold=1, timeout=0.02))


class Both(Fragile):
    resilience = Resilience(circuit_breaker=CircuitBreaker(threshold=2, timeout=1_000), retry=Retry.fixed(3, delay=0))


async def fail(ref: Any, error: BaseException) -> None:
    Outside.errors.append(error)
    with pytest.raises(type(error)):
        await ref.add()


async def test_failures_in_a_row_open_it_and_calls_are_refused_without_a_turn(platform: Platform) -> None:
    ref = platform.agent(Fragile, "a")
    await fail(ref, OSError())
    await fail(ref, OSError())
    Outside.attempts = 0
    with pytest.raises(CircuitOpen) as caught:
        await ref.add()
    assert 0 < caught.value.retry_after_s <= 1_000
    assert caught.value.outcome_known
    with pytest.raises(CircuitOpen):
        await ref.get()
    with pytest.raises(CircuitOpen):
        await platform.cast(ref.add)
    with pytest.raises(CircuitOpen):
        await platform.call(ref.add, idempotency_key="k")
    assert Outside.attempts == 0


async def test_it_is_each_agents_own(platform: Platform) -> None:
    first, second = platform.agent(Fragile, "a"), platform.agent(Fragile, "b")
    await fail(first, OSError())
    await fail(first, OSError())
    assert await second.add() == 1


async def test_a_success_in_between_starts_the_count_again(platform: Platform) -> None:
    ref = platform.agent(Fragile, "a")
    for _ in range(4):
        await fail(ref, OSError())
        await ref.add()


@pytest.mark.parametrize("error", [Rejected("no"), InvalidArguments("no", path="$")])
async def test_refusals_dont_count(platform: Platform, error: Exception) -> None:
    ref = platform.agent(Fragile, "a")
    for _ in range(5):
        await fail(ref, error)
    assert await ref.add() == 1


async def test_after_a_while_one_call_finds_out(platform: Platform) -> None:
    ref = platform.agent(Recovering, "a")
    await fail(ref, OSError())
    with pytest.raises(CircuitOpen):
        await ref.add()
    assert await until_async(lambda: passes(ref)) == 1
    assert await ref.add() == 2


class Probed(Fragile):
    resilience = Resilience(circuit_breaker=CircuitBreaker(threshold=1, timeout=10))

    @on_event("probed", key="data")
    async def heard(self, _event: Event) -> None:
        await self.add()

    @action
    async def remind_me(self, after: float) -> None:
        self.remind("probe", after=after, action=self.add)


class Sends(Agent):
    @action
    async def send(self, to: str) -> None:
        self.cast(self.agent(Probed, to).add)


@pytest.mark.parametrize("works", [True, False])
@pytest.mark.parametrize("kind", ["event", "cast", "reminder"])
def test_a_delivery_may_be_what_finds_out(kind: str, works: bool) -> None:
    async def main() -> None:
        async with TestPlatform(agents=[Probed, Sends]) as platform:
            ref = platform.agent(Probed, "a")
            if kind == "reminder":
                await ref.remind_me(20)
            await fail(ref, OSError())
            await platform.advance(seconds=15)
            Outside.attempts = 0
            if not works:
                Outside.errors.append(OSError())
            if kind == "event":
                await platform.events.publish("probed", "a")
            elif kind == "cast":
                await platform.agent(Sends, "s").send("a")
            await platform.advance(seconds=7)
            assert Outside.attempts == 1
            if works:
                assert await ref.add() == 2  # closed
            else:
                with pytest.raises(CircuitOpen, match="1 failures in a row"):
                    await ref.add()
                await platform.advance(seconds=60)  # what was delivered comes again, and closes it
                assert await ref.add() == 2

    run(main(), patience_s=15.0)


async def passes(ref: Recovering) -> int:
    try:
        return await ref.add()
    except CircuitOpen:
        return 0


async def test_the_breaker_sees_only_the_last_outcome_of_a_retried_turn(platform: Platform) -> None:
    ref = platform.agent(Both, "a")
    for _ in range(3):
        Outside.errors = [Transient(), Transient()]
        await ref.add()
    assert await ref.add() == 4


# -- bulkhead ------------------------------------------------------------------------------------------------------


class Crowded(Agent):
    lifecycle = Lifecycle(turn_timeout=0.05)
    resilience = Resilience(bulkhead=Bulkhead(max_concurrent=2, max_waiting=3))
    value: int = 0

    @action
    async def enter(self) -> int:
        Outside.inside += 1
        Outside.most = max(Outside.most, Outside.inside)
        try:
            await Outside.gate.wait()
        finally:
            Outside.inside -= 1
        self.value += 1
        return self.value

    @action
    async def refuse_to_leave(self) -> None:
        while not Outside.gate.is_set():
            try:
                await Outside.gate.wait()
            except asyncio.CancelledError:
                continue


class Narrow(Crowded):
    lifecycle = Lifecycle()
    resilience = Resilience(bulkhead=Bulkhead(max_concurrent=1, max_waiting=10))


class Wide(Crowded):
    lifecycle = Lifecycle()
    resilience = Resilience(bulkhead=Bulkhead(max_concurrent=2, max_waiting=3))


async def test_so_many_turns_of_a_type_run_at_a_time_and_one_too_many_is_refused(platform: Platform) -> None:
    calls = [asyncio.ensure_future(platform.agent(Wide, str(n)).enter()) for n in range(5)]
    await until(lambda: Outside.inside == 2)
    await settle()
    assert Outside.inside == 2
    with pytest.raises(BulkheadFull, match="2 turns run and 3 agents wait"):
        await platform.agent(Wide, "late").enter()
    Outside.gate.set()
    assert await asyncio.gather(*calls) == [1] * 5
    assert Outside.most == 2
    assert await platform.agent(Wide, "late").enter() == 1


async def test_agents_that_are_still_being_loaded_count_among_those_who_wait(platform: Platform) -> None:
    calls = [asyncio.ensure_future(platform.agent(Wide, str(n)).enter()) for n in range(8)]
    await until(lambda: sum(call.done() for call in calls) == 3)
    Outside.gate.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert outcomes[:5] == [1] * 5
    assert [type(outcome) for outcome in outcomes[5:]] == [BulkheadFull] * 3


class Stillborn(Wide):
    supervision = Supervision(max_restarts=0)

    @on_load
    def check(self) -> None:
        if Outside.errors:
            raise Outside.errors[0]


async def test_agents_that_could_not_be_loaded_wait_no_more(platform: Platform) -> None:
    Outside.errors = [ValueError("not today")]
    Outside.gate.set()
    for n in range(8):
        with pytest.raises(AgentFailed, match="not today"):
            await platform.agent(Stillborn, str(n)).enter()
    Outside.errors = []
    assert await platform.agent(Stillborn, "a").enter() == 1


async def test_other_types_are_not_concerned(platform: Platform) -> None:
    calls = [asyncio.ensure_future(platform.agent(Wide, str(n)).enter()) for n in range(2)]
    await until(lambda: Outside.inside == 2)
    assert await platform.agent(Fragile, "a").add() == 1
    Outside.gate.set()
    await asyncio.gather(*calls)


async def enter_one_after_another(platform: Platform, count: int) -> list[asyncio.Future[int]]:
    """The first is inside, the others wait in order."""
    calls: list[asyncio.Future[int]] = []
    for n in range(count):
        calls.append(asyncio.ensure_future(platform.agent(Narrow, str(n)).enter()))
        await until(lambda: Outside.inside == 1)
        await settle()
    return calls


async def test_whoever_gives_up_waiting_doesnt_keep_the_next_from_its_place(platform: Platform) -> None:
    calls = await enter_one_after_another(platform, 3)
    calls[1].cancel()
    await settle()
    Outside.gate.set()
    assert await calls[0] == 1
    assert await asyncio.wait_for(calls[2], 2) == 1


async def test_a_caller_whose_patience_ends_leaves_no_gap_either(platform: Platform) -> None:
    calls = await enter_one_after_another(platform, 1)
    with pytest.raises(CallTimeout) as caught:
        await platform.call(platform.agent(Narrow, "b").enter, timeout=0.02)
    assert not caught.value.uncertain
    last = asyncio.ensure_future(platform.agent(Narrow, "c").enter())
    await settle()
    Outside.gate.set()
    assert await calls[0] == 1
    assert await asyncio.wait_for(last, 2) == 1


async def test_an_agent_that_goes_while_it_waits_leaves_no_gap(platform: Platform) -> None:
    calls = await enter_one_after_another(platform, 3)
    await platform.agents.pause(platform.agent(Narrow, "1"))
    Outside.gate.set()
    assert await asyncio.wait_for(calls[2], 2) == 1
    await platform.agents.resume(platform.agent(Narrow, "1"))
    assert await asyncio.wait_for(calls[1], 2) == 1


async def test_a_turn_that_fails_gives_its_place_back(platform: Platform) -> None:
    for n in range(5):
        with pytest.raises(TypeError):
            await platform.agent(Narrow, str(n)).enter("one too many")  # type: ignore[call-arg]
    Outside.gate.set()
    assert await platform.agent(Narrow, "a").enter() == 1


async def test_a_turn_whose_commit_fails_gives_its_place_back(on_store: Platform, store: Store) -> None:
    Outside.gate.set()
    store.fail_all()
    for n in range(3):
        with pytest.raises(Exception, match="the disk is gone"):
            await on_store.agent(Narrow, str(n)).enter()
    store.heal()
    assert await on_store.agent(Narrow, "0").enter() == 1


async def test_a_turn_that_is_given_up_gives_its_place_back() -> None:
    async with Platform() as platform:
        hung = [asyncio.ensure_future(platform.agent(Crowded, str(n)).refuse_to_leave()) for n in range(2)]
        outcomes = await asyncio.gather(*hung, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [TurnTimeout] * 2
        Outside.gate.set()
        assert await asyncio.wait_for(platform.agent(Crowded, "c").enter(), 2) == 1
