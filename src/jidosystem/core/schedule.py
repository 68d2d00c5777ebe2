"""When a reminder is due: once, on a fixed grid, or by a cron expression.

A schedule is a frozen value that the codec carries; asking it is pure: times come in as seconds since the epoch and
go out so. Occurrences that nobody fired come as one: `next_due` says how many there were, and the next due time is
always later than now. A grid never drifts: its points are counted from its start.

Cron expressions have five fields (minute, hour, day of month, month, day of week) or six, with seconds in front, and
count in the time of their zone. Daylight saving as Debian's cron does it: with a fixed minute and hour (neither begins
with `*`, five fields) a time that the clocks skip comes right after the gap, and a time that they repeat comes once,
the first time; with wildcards a skipped hour has no occurrences and a repeated hour has them twice.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import TypeAlias

import msgspec

from .errors import InvalidArguments

MIN_EVERY_S = 0.001
MAX_TIME_S = 1e11
"""No due time lies at or beyond it (in the year 5138): what does is most likely milliseconds taken for seconds."""
MAX_CRON_COUNTED = 10_000
"""So many missed occurrences of a cron expression are counted one by one; more are reported as so many."""
_MAX_EXPRESSION_CHARS = 256


class Once(msgspec.Struct, frozen=True, array_like=True, tag="once", gc=False):
    """One occurrence. `wall`: it follows the wall clock, also when that jumps."""

    due_s: float
    wall: bool


class Every(msgspec.Struct, frozen=True, array_like=True, tag="every", gc=False):
    """Occurrences at `start_s`, `start_s + every_s`, and so on. `wall`: the start was given as a date."""

    start_s: float
    every_s: float
    wall: bool


class Cron(msgspec.Struct, frozen=True, array_like=True, tag="cron", gc=False):
    """Occurrences by a cron expression in an IANA time zone, after `start_s`."""

    expression: str
    tz: str
    start_s: float


Schedule: TypeAlias = Once | Every | Cron


def make_schedule(
    *,
    after: float | None = None,
    at: datetime | float | None = None,
    every: float | None = None,
    cron: str | None = None,
    tz: str = "UTC",
    now_s: float,
) -> Schedule:
    """The schedule that the arguments of `remind` ask for; `InvalidArguments` naming the one that can't be.

    Exactly one of the four, but `after` or `at` may say when `every` begins. `after` and `every` are seconds; `at` is an
    aware datetime or seconds since the epoch, and in the past means at once.
    """
    given = [name for name, value in (("after", after), ("at", at), ("every", every), ("cron", cron)) if value is not None]
    if given not in (["after"], ["at"], ["every"], ["cron"], ["after", "every"], ["at", "every"]):
        told = ", ".join(given) or "none"
        raise InvalidArguments(
            f"exactly one of after=, at=, every=, cron= says when (after= or at= may say when every= begins); given: {told}", path="$"
        )
    if cron is not None:
        return _make_cron(cron, tz, now_s)
    if tz != "UTC":
        raise InvalidArguments(f"tz={tz!r} is for cron=; give at= as an aware datetime", path="$.tz")
    start_s, wall = now_s, at is not None
    if after is not None:
        start_s = now_s + _number("after", after)
    elif at is not None:
        start_s = _time("at", at)
    if every is None:
        return Once(_within_reach("after" if after is not None else "at", start_s), wall)
    every_s = _number("every", every, least=MIN_EVERY_S)
    if len(given) == 1:
        start_s += every_s
    return Every(_within_reach(given[0], start_s), every_s, wall)


def follows_wall_clock(schedule: Schedule) -> bool:
    """Whether a jump of the wall clock moves the occurrences: dates and cron expressions, but not `after` and `every`."""
    return isinstance(schedule, Cron) or schedule.wall


def first_due(schedule: Schedule, now_s: float) -> float:
    """When the first occurrence is due; may lie in the past. `InvalidArguments` if there is none."""
    if isinstance(schedule, Once):
        return schedule.due_s
    if isinstance(schedule, Every):
        return schedule.start_s
    first_s = _cron_after(schedule, max(now_s, schedule.start_s))
    if first_s is None:
        raise InvalidArguments(f"cron={schedule.expression!r} never comes", path="$.cron")
    return first_s


def next_due(schedule: Schedule, due_s: float, now_s: float) -> tuple[int, float | None]:
    """Fire the occurrence of `due_s` now: how many later ones are past too, and when the next is due (None: never).

    The next one is the first strictly after `now_s`. A clock that stands before `due_s` is taken to stand at it.
    """
    now_s = max(now_s, due_s)
    if isinstance(schedule, Once):
        return 0, None
    if isinstance(schedule, Every):
        return _next_on_grid(schedule, due_s, now_s)
    next_s = _cron_after(schedule, now_s)
    until_s = MAX_TIME_S if next_s is None else next_s
    return _cron_count(schedule.expression, schedule.tz, due_s, until_s), next_s


def _next_on_grid(grid: Every, due_s: float, now_s: float) -> tuple[int, float | None]:
    start_s, every_s = grid.start_s, grid.every_s
    if now_s >= MAX_TIME_S:
        return 0, None
    following = math.floor((now_s - start_s) / every_s) + 1
    # The division is rounded: the points themselves decide.
    while start_s + following * every_s <= now_s:
        following += 1
    while following > 0 and start_s + (following - 1) * every_s > now_s:
        following -= 1
    fired = round((due_s - start_s) / every_s)
    next_s = start_s + following * every_s
    return max(0, following - fired - 1), next_s if next_s < MAX_TIME_S else None


# -- checks ----------------------------------------------------------------------------------------------------


def _number(name: str, value: object, least: float = 0.0) -> float:
    if isinstance(value, timedelta):
        raise InvalidArguments(f"{name}={value!r}: seconds as a number, for this {value.total_seconds()!r}", path=f"$.{name}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < MAX_TIME_S:
        raise InvalidArguments(f"{name}={value!r}: seconds, at least {least:g} and less than {MAX_TIME_S:,.0f}", path=f"$.{name}")
    return float(value)


def _time(name: str, value: object) -> float:
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise InvalidArguments(f"{name}={value!r} has no time zone: write datetime(…, tzinfo=ZoneInfo(…)) or datetime.now(UTC)", path=f"$.{name}")
        return max(0.0, value.timestamp())
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_TIME_S:
        raise InvalidArguments(f"{name}={value!r}: an aware datetime, or seconds since the epoch before the year 5138", path=f"$.{name}")
    return float(value)


def _within_reach(name: str, due_s: float) -> float:
    if due_s >= MAX_TIME_S:
        raise InvalidArguments(f"{name}= lies too far ahead: {due_s:g} s since the epoch is beyond the year 5138", path=f"$.{name}")
    return due_s


# -- cron ------------------------------------------------------------------------------------------------------


def _make_cron(expression: object, tz: object, now_s: float) -> Cron:
    from cronsim import CronSimError

    if not isinstance(expression, str) or len(expression) > _MAX_EXPRESSION_CHARS:
        raise InvalidArguments(f"cron={expression!r}: an expression of at most {_MAX_EXPRESSION_CHARS} characters", path="$.cron")
    if not isinstance(tz, str):
        raise InvalidArguments(f"tz={tz!r}: the name of an IANA time zone, for example 'Europe/Berlin'", path="$.tz")
    try:
        _zone(tz)
    except (KeyError, ValueError, OSError) as error:  # unknown, not a zone's name, a directory of zones
        raise InvalidArguments(f"tz={tz!r} is no IANA time zone; write for example 'Europe/Berlin'", path="$.tz") from error
    schedule = Cron(" ".join(expression.split()), tz, now_s)
    try:
        first_due(schedule, now_s)
    except CronSimError as error:
        raise InvalidArguments(
            f"cron={expression!r} is no cron expression: {error}; write minute hour day month weekday, for example '0 9 * * MON-FRI'", path="$.cron"
        ) from error
    return schedule


@lru_cache(maxsize=64)
def _zone(tz: str) -> tzinfo:
    if tz == "UTC":
        return UTC
    from zoneinfo import ZoneInfo

    return ZoneInfo(tz)


def _cron_after(schedule: Cron, time_s: float) -> float | None:
    return _first_after(schedule.expression, schedule.tz, math.floor(time_s)) if time_s < MAX_TIME_S else None


@lru_cache(maxsize=1024)
def _first_after(expression: str, tz: str, second: int) -> float | None:
    """The first occurrence strictly after a full second; remembered, for many agents ask the same at the same time."""
    from cronsim import CronSim

    for occurrence in CronSim(expression, datetime.fromtimestamp(second, _zone(tz))):
        # In an hour that is repeated cronsim may start a little before what it was given.
        if (found_s := occurrence.timestamp()) > second:
            return found_s if found_s < MAX_TIME_S else None
    return None


@lru_cache(maxsize=1024)
def _cron_count(expression: str, tz: str, due_s: float, until_s: float) -> int:
    """How many occurrences lie strictly between two times, at most `MAX_CRON_COUNTED`."""
    from cronsim import CronSim

    count, last_s = 0, due_s
    for occurrence in CronSim(expression, datetime.fromtimestamp(math.floor(due_s), _zone(tz))):
        found_s = occurrence.timestamp()
        if found_s >= until_s or count == MAX_CRON_COUNTED:
            break
        if found_s > last_s:
            count, last_s = count + 1, found_s
    return count
