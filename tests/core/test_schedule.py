"""Schedules: what can be asked for, when it is due, and what becomes of occurrences that nobody fired."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from jidosystem.core.errors import InvalidArguments
from jidosystem.core.schedule import MAX_CRON_COUNTED, MAX_TIME_S, Cron, Every, Once, Schedule, first_due, follows_wall_clock, make_schedule, next_due

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
BERLIN = ZoneInfo("Europe/Berlin")

times = st.floats(0, 4e9)
periods = st.floats(0.001, 1e7)
expressions = st.sampled_from(
    [
        "* * * * *",
        "*/7 * * * *",
        "30 2 * * *",
        "0 9 * * MON-FRI",
        "0,30 1-3 * * *",
        "15 14 1 * *",
        "0 0 29 2 *",
        "0 12 * * 5L",
        "*/20 * * * * *",
        "0 0 L * *",
    ]
)
zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Santiago"])


def at(*parts: int, zone: ZoneInfo = BERLIN, fold: int = 0) -> float:
    return datetime(*parts, tzinfo=zone, fold=fold).timestamp()


def occurrences(expression: str, start_s: float, count: int, tz: str = "Europe/Berlin") -> list[float]:
    schedule = make_schedule(cron=expression, tz=tz, now_s=start_s)
    found = [first_due(schedule, start_s)]
    while len(found) < count:
        _, following = next_due(schedule, found[-1], found[-1])
        assert following is not None
        found.append(following)
    return found


# -- what can be asked for --------------------------------------------------------------------------------------


def test_after_and_at_are_due_once() -> None:
    for schedule, due in (
        (make_schedule(after=90, now_s=NOW), NOW + 90),
        (make_schedule(at=NOW + 5, now_s=NOW), NOW + 5),
        (make_schedule(at=datetime(2026, 7, 1, 9, tzinfo=BERLIN), now_s=NOW), at(2026, 7, 1, 9)),
        (make_schedule(at=NOW - 1000, now_s=NOW), NOW - 1000),
        (make_schedule(after=0, now_s=NOW), NOW),
    ):
        assert isinstance(schedule, Once)
        assert first_due(schedule, NOW) == due
        assert next_due(schedule, due, due + 1e6) == (0, None)


def test_every_begins_one_period_ahead_unless_told_otherwise() -> None:
    assert first_due(make_schedule(every=60, now_s=NOW), NOW) == NOW + 60
    assert first_due(make_schedule(every=60, after=5, now_s=NOW), NOW) == NOW + 5
    assert first_due(make_schedule(every=60, at=NOW - 7, now_s=NOW), NOW) == NOW - 7


def test_dates_and_cron_follow_the_wall_clock_and_the_others_do_not() -> None:
    assert follows_wall_clock(make_schedule(at=NOW, now_s=NOW))
    assert follows_wall_clock(make_schedule(at=NOW, every=60, now_s=NOW))
    assert follows_wall_clock(make_schedule(cron="* * * * *", now_s=NOW))
    assert not follows_wall_clock(make_schedule(after=1, now_s=NOW))
    assert not follows_wall_clock(make_schedule(every=1, now_s=NOW))
    assert not follows_wall_clock(make_schedule(after=1, every=1, now_s=NOW))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"after": 1, "at": NOW},
        {"after": 1, "cron": "* * * * *"},
        {"every": 1, "cron": "* * * * *"},
        {"after": 1, "at": 1, "every": 1},
        {"after": 1, "at": 1, "every": 1, "cron": "* * * * *"},
    ],
)
def test_exactly_one_way_of_saying_when(arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidArguments, match="exactly one of after=, at=, every=, cron="):
        make_schedule(**arguments, now_s=NOW)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("after", "every", "at") for value in (-1, math.nan, math.inf, -math.inf, 10**400, True, "5", 1.7e12, b"", [])),
        ("every", 0),
        ("every", 0.0009),
        ("after", timedelta(seconds=5)),
        ("at", datetime(2026, 1, 1)),  # noqa: DTZ001 - that is what is refused
        ("cron", ""),
        ("cron", "* * * *"),
        ("cron", "61 * * * *"),
        ("cron", "0 0 31 2 *"),
        ("cron", "a b c d e"),
        ("cron", "* " * 2000),
        ("cron", 5),
        ("cron", ["* * * * *"]),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidArguments, match=f"{name}=") as refused:
        make_schedule(**{name: value}, now_s=NOW)
    assert refused.value.path == f"$.{name}"


def test_a_timedelta_is_told_as_the_seconds_to_write() -> None:
    with pytest.raises(InvalidArguments, match=r"after=.*: seconds as a number, for this 1209600\.0"):
        make_schedule(after=timedelta(days=14), now_s=NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "zone", ["Mars/Olympus", "", "America", "../../etc/passwd", "/etc/localtime", "Europe/Berlin\0", "\ud800", None, 5, "x" * 5000]
)
def test_a_zone_that_is_none_is_refused_by_name(zone: object) -> None:
    with pytest.raises(InvalidArguments, match="tz=") as refused:
        make_schedule(cron="0 9 * * *", tz=zone, now_s=NOW)  # type: ignore[arg-type]
    assert refused.value.path == "$.tz"


def test_a_zone_without_cron_is_refused_rather_than_ignored() -> None:
    with pytest.raises(InvalidArguments, match="tz="):
        make_schedule(every=5, tz="Europe/Berlin", now_s=NOW)


@given(st.text(alphabet="0123456789*/,-#LWSUNMO ²", max_size=24) | st.text(max_size=40), zones)
@example("1#2/3 * * * *", "UTC")
@example("* * * * 1L/2", "UTC")
@example("* * LW/3,5/2 * *", "UTC")
def test_any_text_is_an_expression_or_refused(text: str, tz: str) -> None:
    try:
        schedule = make_schedule(cron=text, tz=tz, now_s=NOW)
    except InvalidArguments as refused:
        assert refused.path == "$.cron"  # noqa: PT017 - most texts are refused, some are expressions
    else:
        assert first_due(schedule, NOW) > NOW


async def test_a_zone_can_be_asked_for_on_the_event_loop() -> None:
    assert first_due(make_schedule(cron="0 9 * * *", tz="Pacific/Chatham", now_s=NOW), NOW) > NOW


@given(st.one_of(st.builds(Once, times, st.booleans()), st.builds(Every, times, periods, st.booleans()), st.builds(Cron, expressions, zones, times)))
def test_a_schedule_is_carried_unchanged(schedule: Schedule) -> None:
    class Holder(msgspec.Struct, array_like=True):
        schedule: Schedule

    blob = msgspec.msgpack.encode(Holder(schedule))
    assert msgspec.msgpack.decode(blob, type=Holder).schedule == schedule


# -- the grid ----------------------------------------------------------------------------------------------------


@given(times, periods, st.floats(0, 1e9), st.integers(0, 1_000_000))
def test_the_next_point_of_a_grid_is_the_first_after_now(start_s: float, every_s: float, late_s: float, fired: int) -> None:
    schedule = Every(start_s, every_s, wall=False)
    due_s = start_s + fired * every_s
    now_s = due_s + late_s
    assume(now_s < MAX_TIME_S / 2)
    missed, next_s = next_due(schedule, due_s, now_s)
    assert next_s is not None
    assert next_s > now_s
    assert missed >= 0
    # The point before it isn't later than now: nothing is left out, nothing comes twice.
    index = fired + missed + 1
    assert next_s == start_s + index * every_s
    assert start_s + (index - 1) * every_s <= now_s


@given(periods, st.lists(st.floats(0, 1e5), min_size=1, max_size=20))
def test_a_grid_never_drifts_however_late_it_is_served(every_s: float, lateness: list[float]) -> None:
    schedule = make_schedule(every=every_s, now_s=NOW)
    due, index = first_due(schedule, NOW), 1
    for late_s in lateness:
        missed, following = next_due(schedule, due, due + late_s)
        assert following is not None
        due, index = following, index + missed + 1
        assert due == first_due(schedule, NOW) + (index - 1) * every_s


def test_millions_of_missed_points_are_counted_by_arithmetic() -> None:
    schedule = make_schedule(every=0.001, now_s=NOW)
    missed, following = next_due(schedule, first_due(schedule, NOW), NOW + 1e9)
    assert missed == pytest.approx(1e12, rel=1e-9)
    assert following is not None
    assert 0 < following - (NOW + 1e9) <= 0.0011


def test_a_clock_that_went_back_fires_nothing_twice() -> None:
    for schedule in (make_schedule(every=60, now_s=NOW), make_schedule(cron="* * * * *", now_s=NOW)):
        due = first_due(schedule, NOW)
        assert next_due(schedule, due, due - 3600) == next_due(schedule, due, due) == (0, due + 60)


def test_a_series_ends_where_time_does() -> None:
    schedule = make_schedule(every=1e10, now_s=NOW)
    due: float | None = first_due(schedule, NOW)
    seen = 0
    while due is not None:
        seen += 1
        _, due = next_due(schedule, due, due)
    assert seen == 9
    for endless in (make_schedule(every=1, now_s=NOW), make_schedule(cron="0 0 1 1 *", now_s=NOW)):
        _, following = next_due(endless, first_due(endless, NOW), 1e300)
        assert following is None


# -- cron --------------------------------------------------------------------------------------------------------


def test_a_missed_week_comes_as_one_call() -> None:
    schedule = make_schedule(cron="0 9 * * *", tz="Europe/Berlin", now_s=at(2026, 3, 1))
    due = first_due(schedule, at(2026, 3, 1))
    assert due == at(2026, 3, 1, 9)
    assert next_due(schedule, due, at(2026, 3, 8, 8, 59)) == (6, at(2026, 3, 8, 9))
    assert next_due(schedule, due, at(2026, 3, 8, 9)) == (7, at(2026, 3, 9, 9))


def test_six_fields_count_seconds() -> None:
    assert occurrences("*/20 * * * * *", at(2026, 3, 1, 12), 3) == [at(2026, 3, 1, 12, 0, second) for second in (20, 40)] + [at(2026, 3, 1, 12, 1)]


def test_a_fixed_time_that_the_clocks_skip_comes_right_after_the_gap() -> None:
    # In Berlin 2026-03-29 02:00 is followed by 03:00.
    assert occurrences("30 2 * * *", at(2026, 3, 28, 12), 2) == [at(2026, 3, 29, 3), at(2026, 3, 30, 2, 30)]
    assert occurrences("0,30 2 * * *", at(2026, 3, 29), 2) == [at(2026, 3, 29, 3), at(2026, 3, 30, 2)]


def test_a_fixed_time_that_the_clocks_repeat_comes_once() -> None:
    # In Berlin 2026-10-25 03:00 is followed by 02:00.
    assert occurrences("30 2 * * *", at(2026, 10, 24, 12), 2) == [at(2026, 10, 25, 2, 30), at(2026, 10, 26, 2, 30)]
    in_the_repeated_hour = at(2026, 10, 25, 2, 15, fold=1)
    assert occurrences("30 2 * * *", in_the_repeated_hour, 1) == [at(2026, 10, 26, 2, 30)]


def test_wildcards_count_real_time_over_a_change_of_clocks() -> None:
    assert occurrences("0 * * * *", at(2026, 3, 29, 1), 2) == [at(2026, 3, 29, 3), at(2026, 3, 29, 4)]
    start = at(2026, 10, 25, 1)
    assert occurrences("0 * * * *", start, 4) == [start + 3600 * n for n in (1, 2, 3, 4)]


def test_the_29th_of_february_is_found_years_ahead() -> None:
    assert occurrences("0 0 29 2 *", at(2026, 3, 1), 2, tz="UTC") == [at(2028, 2, 29, zone=ZoneInfo("UTC")), at(2032, 2, 29, zone=ZoneInfo("UTC"))]


def test_counting_what_cron_missed_is_bounded() -> None:
    schedule = make_schedule(cron="* * * * *", now_s=NOW)
    missed, following = next_due(schedule, NOW + 60, NOW + 60 * 600_000)
    assert missed == MAX_CRON_COUNTED
    assert following == NOW + 60 * 600_001


@given(expressions, zones, st.floats(0, 3e9), st.floats(0, 3e5))
def test_cron_is_always_later_than_now_and_counts_what_it_passes(expression: str, tz: str, start_s: float, late_s: float) -> None:
    schedule = make_schedule(cron=expression, tz=tz, now_s=start_s)
    due = first_due(schedule, start_s)
    assert due > start_s
    now_s = due + late_s
    missed, following = next_due(schedule, due, now_s)
    assert following is not None
    assert following > now_s
    # One by one leads to the same place.
    assume(missed <= 300)
    step: float | None = due
    for _ in range(missed + 1):
        assert step is not None
        none, step = next_due(schedule, step, step)
        assert none == 0
    assert step == following
