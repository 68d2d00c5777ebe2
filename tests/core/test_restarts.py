"""Supervision: when a crashed agent starts again, after how long, when it is given up, and which siblings it takes along."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jidosystem.core.errors import DefinitionError, Rejected
from jidosystem.core.restarts import MAX_DELAY_S, Supervision, record_crash, siblings_to_restart

policies = st.builds(Supervision, max_restarts=st.integers(0, 50), within=st.floats(0.01, 1e6))
chances = st.floats(0, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "one_for_none"},
        {"strategy": None},
        {"max_restarts": -1},
        {"max_restarts": 1.5},
        {"max_restarts": True},
        {"max_restarts": "3"},
        {"max_restarts": 10**9},
        {"within": 0},
        {"within": -1},
        {"within": math.inf},
        {"within": math.nan},
        {"within": "5"},
        {"crash_on": OSError},
        {"crash_on": [OSError]},
        {"crash_on": ("OSError",)},
        {"crash_on": (int,)},
        {"crash_on": (asyncio.CancelledError,)},
        {"crash_on": (Rejected,)},
    ],
)
def test_what_cannot_be_is_refused_by_name(options: dict[str, object]) -> None:
    (name,) = options
    with pytest.raises(DefinitionError, match=rf"Supervision\({name}"):
        Supervision(**options)  # type: ignore[arg-type]


def test_the_listed_exceptions_are_crashes_but_never_a_refusal_or_a_cancellation() -> None:
    policy = Supervision(crash_on=(OSError, BaseException))
    assert policy.is_crash(ConnectionResetError())
    assert policy.is_crash(SystemExit())
    assert not policy.is_crash(Rejected("no"))
    assert not policy.is_crash(asyncio.CancelledError())
    assert not Supervision(crash_on=(OSError,)).is_crash(ValueError())


@given(policies, chances)
def test_an_agent_that_crashes_on_every_start_is_given_up_after_its_restarts(policy: Supervision, random01: float) -> None:
    times: tuple[float, ...] = ()
    now, restarts = 1_000.0, 0
    while True:
        times, verdict = record_crash(times, now, policy, random01)
        if not verdict.restart:
            break
        restarts += 1
        now += verdict.delay_s
        assert restarts <= policy.max_restarts
    assert restarts == policy.max_restarts


@given(policies, st.lists(st.floats(0, 1e6), max_size=200), chances)
def test_the_memory_of_crashes_is_bounded_and_holds_only_the_window(policy: Supervision, gaps: list[float], random01: float) -> None:
    times: tuple[float, ...] = ()
    now = 0.0
    for gap in gaps:
        now += gap
        times, verdict = record_crash(times, now, policy, random01)
        assert times[-1] == now
        assert len(times) <= policy.max_restarts + 1
        assert all(now - time <= policy.within for time in times)
        assert verdict.restart == (len(times) <= policy.max_restarts)
        assert 0 <= verdict.delay_s <= MAX_DELAY_S


def test_delays_grow_with_the_crashes_of_the_window_and_start_over_after_it() -> None:
    policy = Supervision(max_restarts=5, within=60)
    times: tuple[float, ...] = ()
    delays = []
    for now in (0, 1, 2, 3):
        times, verdict = record_crash(times, now, policy)
        delays.append(verdict.delay_s)
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8])
    _, later = record_crash(times, 1_000, policy)
    assert later.delay_s == pytest.approx(0.1)


def test_crashes_at_the_edge_of_the_window_still_count() -> None:
    policy = Supervision(max_restarts=1, within=5)
    times, _ = record_crash((), 10, policy)
    assert not record_crash(times, 15, policy)[1].restart
    assert record_crash(times, 15.001, policy)[1].restart


def test_no_restarts_at_all() -> None:
    _, verdict = record_crash((), 0, Supervision(max_restarts=0))
    assert not verdict.restart


def test_jitter_takes_away_up_to_half() -> None:
    longest = record_crash((), 0, Supervision(), 1.0)[1].delay_s
    assert record_crash((), 0, Supervision(), 0.0)[1].delay_s == longest / 2


def test_each_strategy_takes_its_siblings() -> None:
    order = ("a", "b", "c", "d")
    assert siblings_to_restart("one_for_one", order, "b") == ()
    assert siblings_to_restart("one_for_all", order, "b") == ("a", "c", "d")
    assert siblings_to_restart("rest_for_one", order, "b") == ("c", "d")
    assert siblings_to_restart("rest_for_one", order, "d") == ()


@given(st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"]))
def test_a_stranger_takes_nobody_along(strategy: str) -> None:
    assert siblings_to_restart(strategy, ("a", "b"), "x") == ()  # type: ignore[arg-type]
