"""When a sensor runs next: pure functions, held to what a clock on a wall would say."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from jidosystem.core.schedule import Cron
from jidosystem.runtime.folders import changed
from jidosystem.runtime.occasions import AHEAD_S, cron_due_s

HOUR_S = 3600.0
TIMES = st.floats(1e9, 2e9)
HOURLY = Cron("0 * * * *", "UTC", 0.0)


@given(TIMES, TIMES)
def test_the_next_run_is_the_first_occurrence_after_the_last_good_one(ran_s: float, now_s: float) -> None:
    due_s = cron_due_s(HOURLY, ran_s, now_s)
    assert due_s % HOUR_S == 0
    if ran_s <= now_s + AHEAD_S:
        assert ran_s < due_s <= ran_s + HOUR_S
    else:  # noted by a clock that was wrong
        assert now_s < due_s <= now_s + HOUR_S


@given(TIMES, st.lists(st.floats(0, 10 * HOUR_S), max_size=20))
def test_no_occurrence_is_left_out_and_none_runs_twice(start_s: float, pauses: list[float]) -> None:
    """Whenever it is looked: a run belongs to the occurrences since the last one, of which there is at least one."""
    ran_s = now_s = start_s
    for pause_s in pauses:
        now_s += pause_s
        if cron_due_s(HOURLY, ran_s, now_s) <= now_s:
            assert now_s // HOUR_S > ran_s // HOUR_S
            ran_s = now_s
        else:
            assert now_s // HOUR_S == ran_s // HOUR_S


@given(TIMES, st.floats(0, AHEAD_S - 1))
def test_a_clock_that_is_set_back_repeats_nothing(ran_s: float, back_s: float) -> None:
    assert cron_due_s(HOURLY, ran_s, ran_s - back_s) > ran_s


FILES = st.dictionaries(st.sampled_from([Path(name) for name in "abcdef"]), st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)))


@given(FILES, FILES)
def test_what_is_new_or_changed_is_told_in_order_and_nothing_else(
    seen: dict[Path, tuple[int, int, int]], now: dict[Path, tuple[int, int, int]]
) -> None:
    told = changed(seen, now)
    assert told == sorted(told)
    assert set(told) == {path for path in now if path not in seen or seen[path] != now[path]}
    assert changed(now, now) == []
