"""The circuit breaker: opens after failures in a row, finds out with one call, and isn't fooled by late answers."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from jidosystem.core import errors
from jidosystem.infrastructure.breaker import BreakerState, CircuitBreaker, Permit

FAULT = RuntimeError("boom")
NEUTRAL = (
    errors.Rejected("no"),
    errors.MailboxFull("full"),
    errors.CircuitOpen("open", retry_after_s=1),
    errors.InvalidArguments("bad"),
    asyncio.CancelledError(),
)


def breaker(threshold: int = 3, timeout: float = 30.0) -> BreakerState:
    return BreakerState(CircuitBreaker(threshold=threshold, timeout=timeout), "Payments/eu")


def opened(threshold: int = 3, at: float = 0.0) -> BreakerState:
    state = breaker(threshold)
    for _ in range(threshold):
        state.settle(state.admit(at), FAULT, at)
    assert state.state(at) == "open"
    return state


def refused(state: BreakerState, now: float) -> errors.CircuitOpen:
    with pytest.raises(errors.CircuitOpen) as caught:
        state.admit(now)
    return caught.value


def test_it_opens_after_so_many_failures_in_a_row_and_names_whom_it_protects() -> None:
    state = opened(threshold=3, at=100)
    error = refused(state, 110)
    assert error.retry_after_s == 20
    assert "Payments/eu" in str(error)
    assert error.agent == "Payments/eu"  # type: ignore[attr-defined]


def test_a_success_in_between_starts_the_count_again() -> None:
    state = breaker(threshold=2)
    for outcome in (FAULT, None, FAULT, None, FAULT):
        state.settle(state.admit(0), outcome, 0)
    assert state.state(0) == "closed"


@pytest.mark.parametrize("error", NEUTRAL, ids=lambda error: type(error).__name__)
def test_refusals_and_cancellations_are_no_failures_and_no_successes(error: BaseException) -> None:
    state = breaker(threshold=2)
    for outcome in (FAULT, error, error, error):
        state.settle(state.admit(0), outcome, 0)
    assert state.state(0) == "closed"
    state.settle(state.admit(0), FAULT, 0)
    assert state.state(0) == "open"


@pytest.mark.parametrize("error", [FAULT, errors.Transient(), errors.TurnTimeout("late"), TimeoutError(), errors.ActionFailed("far")])
def test_faults_of_the_agent_count(error: BaseException) -> None:
    assert BreakerState.counts(error)


def test_half_open_lets_one_call_through_at_a_time() -> None:
    state = opened(at=0)
    assert refused(state, 29.9).retry_after_s == pytest.approx(0.1)
    assert state.admit(30).probe
    assert state.state(30) == "half_open"
    assert refused(state, 31).retry_after_s == 29
    assert "finding out" in str(refused(state, 31))


def test_the_probes_success_closes_and_its_failure_opens_for_the_whole_time_again() -> None:
    state = opened(at=0)
    state.settle(state.admit(30), FAULT, 35)
    assert refused(state, 64.9).retry_after_s == pytest.approx(0.1)
    state.settle(state.admit(65), None, 66)
    assert state.state(66) == "closed"
    for _ in range(2):  # the count begins anew
        state.settle(state.admit(66), FAULT, 66)
    assert state.state(66) == "closed"


@pytest.mark.parametrize("error", NEUTRAL, ids=lambda error: type(error).__name__)
def test_a_probe_that_told_nothing_leaves_its_place_to_the_next(error: BaseException) -> None:
    state = opened(at=0)
    state.settle(state.admit(30), error, 31)
    assert state.admit(31).probe
    refused(state, 32)


def test_a_probe_that_is_never_heard_of_again_does_not_keep_it_open_for_ever() -> None:
    state = opened(at=0)
    lost = state.admit(30)
    refused(state, 59)
    second = state.admit(60)
    assert second.probe
    state.settle(lost, None, 61)  # it was only slow: it has found out all the same
    assert state.state(61) == "closed"
    state.settle(second, FAULT, 62)
    assert state.state(62) == "closed"


def test_a_late_success_closes_nothing_and_a_late_failure_counts_nowhere() -> None:
    state = breaker(threshold=2)
    early = [state.admit(0) for _ in range(10)]
    state.settle(early[0], FAULT, 1)
    state.settle(early[1], FAULT, 1)
    state.settle(early[2], None, 2)
    assert state.state(2) == "open"
    probe = state.admit(31)
    state.settle(early[3], None, 32)
    assert state.state(32) == "half_open"
    state.settle(early[4], FAULT, 32)
    assert state.state(32) == "half_open"
    state.settle(probe, None, 33)
    for permit in early[5:]:
        state.settle(permit, FAULT, 34)
    assert state.state(34) == "closed"


def test_a_call_from_before_the_breaker_existed_counts_until_it_has_changed() -> None:
    state = breaker(threshold=2)
    state.settle(None, FAULT, 0)
    state.settle(None, FAULT, 0)
    assert state.state(0) == "open"
    state.settle(None, None, 1)
    assert state.state(1) == "open"


def test_a_clock_that_goes_back_makes_nobody_wait_longer_than_the_timeout() -> None:
    state = opened(at=1_000)
    assert refused(state, 0).retry_after_s == 30


async def test_on_its_own_it_guards_a_block_of_code() -> None:
    now = 0.0
    state = breaker(threshold=2)

    async def call(outcome: BaseException | None) -> None:
        with state.watch(lambda: now):
            await asyncio.sleep(0)
            if outcome is not None:
                raise outcome

    for _ in range(2):
        with pytest.raises(RuntimeError, match="boom"):
            await call(FAULT)
    with pytest.raises(errors.CircuitOpen):
        await call(None)
    now = 30.0
    with pytest.raises(asyncio.CancelledError):
        await call(asyncio.CancelledError())
    await call(None)
    assert state.state(now) == "closed"


@pytest.mark.parametrize(
    "options",
    [{"threshold": 0}, {"threshold": 1.5}, {"threshold": True}, {"timeout": 0}, {"timeout": math.inf}, {"timeout": math.nan}, {"timeout": "30"}],
)
def test_what_cannot_be_is_refused_by_name(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(errors.DefinitionError, match=rf"CircuitBreaker\({name}="):
        CircuitBreaker(**options)


class Breaker(RuleBasedStateMachine):
    """Calls that begin and end in any order, as time passes."""

    THRESHOLD, TIMEOUT = 3, 10.0

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.state = breaker(self.THRESHOLD, self.TIMEOUT)
        self.under_way: list[tuple[Permit, float]] = []
        self.opened_at = -math.inf
        self.probed_at = -math.inf

    def phase(self) -> str:
        return self.state.state(self.now)

    @rule(seconds=st.floats(0, 15))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def begin(self) -> None:
        before = self.phase()
        try:
            permit = self.state.admit(self.now)
        except errors.CircuitOpen as error:
            assert before != "closed"
            assert 0 < error.retry_after_s <= self.TIMEOUT  # noqa: PT017 - both outcomes are checked
            return
        assert permit.probe == (before != "closed")
        assert before != "open"
        if permit.probe:
            assert self.now - self.opened_at >= self.TIMEOUT * (1 - 1e-9)
            assert self.now - self.probed_at >= self.TIMEOUT * (1 - 1e-9), "two probes at a time"
            self.probed_at = self.now
        self.under_way.append((permit, self.now))

    @rule(which=st.integers(0, 100), outcome=st.sampled_from([None, FAULT, NEUTRAL[0]]))
    def end(self, which: int, outcome: BaseException | None) -> None:
        if not self.under_way:
            return
        permit, begun = self.under_way.pop(which % len(self.under_way))
        before = self.phase()
        self.state.settle(permit, outcome, self.now)
        after = self.phase()
        if before == "closed" and after == "open":
            assert outcome is FAULT
            self.opened_at = self.now
        if before == "half_open" and after == "open":
            assert outcome is FAULT
            assert permit.probe
            self.opened_at = self.now
        if before != "closed" and after == "closed":
            assert outcome is None
            assert permit.probe
            assert begun >= self.opened_at, "a late success closed it"
        if permit.probe and outcome is not None and outcome is not FAULT:
            self.probed_at = -math.inf
        if after in ("closed", "open"):
            self.probed_at = -math.inf if after == "closed" or before != after else self.probed_at

    @invariant()
    def an_open_breaker_opens_its_door_in_time(self) -> None:
        if self.phase() == "open":
            assert self.now - self.opened_at < self.TIMEOUT


TestBreaker = Breaker.TestCase
