"""Retry: what is repeated, what never is, and how long it takes."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jidosystem.core import errors
from jidosystem.infrastructure.retry import NEVER, Retry, delay_s, should_retry

FORBIDDEN = (
    errors.InvalidArguments("no"),
    errors.Rejected("no"),
    errors.Conflict("lost", expected=1, actual=2),
    errors.CallTimeout("late", uncertain=True),
    errors.TurnTimeout("late"),
    errors.OutcomeUnknown("who knows"),
    errors.WireTimeout("who knows"),
    errors.CommitUnknown("who knows"),
    errors.DefinitionError("no"),
    errors.CallCycle("round", chain=()),
)

policies = st.builds(
    Retry.exponential,
    max_attempts=st.integers(1, 1000),
    initial=st.floats(0, 10),
    maximum=st.floats(10, 3600),
    factor=st.floats(1, 1000),
    jitter=st.floats(0, 1),
)


@pytest.mark.parametrize("error", [errors.Transient(), ConnectionError(), ConnectionResetError(), TimeoutError()])
def test_passing_faults_are_repeated_by_default(error: Exception) -> None:
    policy = Retry.exponential(max_attempts=3)
    assert [should_retry(policy, error, attempt) for attempt in (1, 2, 3, 4)] == [True, True, False, False]


@pytest.mark.parametrize("error", [ValueError(), OSError(), Exception(), KeyboardInterrupt(), asyncio.CancelledError()])
def test_anything_else_is_not(error: BaseException) -> None:
    assert not should_retry(Retry.exponential(), error, 1)


@pytest.mark.parametrize("error", FORBIDDEN, ids=lambda error: type(error).__name__)
def test_what_must_not_be_repeated_never_is_whatever_is_asked_for(error: Exception) -> None:
    assert not should_retry(Retry.exponential(on=(Exception,)), error, 1)


def test_a_subclass_of_both_kinds_is_not_repeated() -> None:
    class Refused(errors.Rejected, ConnectionError):
        pass

    assert not should_retry(Retry.exponential(), Refused("no"), 1)


def test_no_retries() -> None:
    assert not should_retry(Retry.none(), ConnectionError(), 1)


def test_delays_double_up_to_the_maximum() -> None:
    policy = Retry.exponential(initial=0.1, maximum=1.0, factor=2, jitter=0)
    assert [delay_s(policy, attempt, 0.5) for attempt in range(1, 7)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


def test_fixed_delays_stay_the_same() -> None:
    policy = Retry.fixed(delay=0.3)
    assert [delay_s(policy, attempt, 0.9) for attempt in (1, 5, 900)] == [0.3, 0.3, 0.3]


@given(policies, st.integers(1, 1000), st.floats(0, 1))
def test_a_delay_lies_between_its_share_and_the_maximum_and_never_shrinks(policy: Retry, attempt: int, random01: float) -> None:
    delay = delay_s(policy, attempt, random01)
    longest = delay_s(policy, attempt, 0.0)
    assert math.isfinite(delay)
    assert longest * (1 - policy.jitter) <= delay * (1 + 1e-9)
    assert delay <= longest <= policy.maximum
    assert longest <= delay_s(policy, attempt + 1, 0.0) * (1 + 1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": 0},
        {"max_attempts": -1},
        {"max_attempts": 1.5},
        {"max_attempts": True},
        {"max_attempts": 10**9},
        {"initial": -0.1},
        {"initial": math.nan},
        {"initial": math.inf},
        {"initial": "0.1"},
        {"maximum": math.inf},
        {"factor": 0.5},
        {"factor": math.nan},
        {"jitter": 1.1},
        {"jitter": -0.1},
        {"on": ConnectionError},
        {"on": [ConnectionError]},
        {"on": ("ConnectionError",)},
        {"on": (KeyboardInterrupt,)},
        {"on": (asyncio.CancelledError,)},
    ],
)
def test_what_cannot_be_is_refused_by_name(options: dict[str, object]) -> None:
    (name,) = options
    with pytest.raises(errors.DefinitionError, match=rf"Retry\({name}="):
        Retry.exponential(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [*NEVER, errors.WireTimeout])
def test_asking_for_what_is_never_repeated_is_refused(kind: type[Exception]) -> None:
    with pytest.raises(errors.DefinitionError, match=f"{kind.__name__} is never repeated"):
        Retry.exponential(on=(kind,))


def test_a_first_delay_beyond_the_maximum_is_refused() -> None:
    with pytest.raises(errors.DefinitionError, match="less than the first delay"):
        Retry.exponential(initial=10, maximum=1)
