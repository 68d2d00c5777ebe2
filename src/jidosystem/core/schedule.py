"""When reminders are due: a schedule is a value, and the next due time a pure function of it and the present.

`every` keeps the grid of its first occurrence and doesn't drift. `cron` is five fields in an IANA time zone, computed by
`cronsim`: what falls into the hour that a zone skips runs at the next instant that exists, what falls into the hour that it repeats runs once.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Any

import msgspec

from .errors import InvalidArguments

MIN_EVERY_S = 0.001
MAX_CRON_MISSED = 10_000


class Schedule(msgspec.Struct, frozen=True, array_like=True):
    """`first_s`: the first occurrence (seconds since the epoch). `every_s`: then each so many seconds. `cron` with `tz`: then by that
    expression. Neither: once. `wall`: it follows the wall clock (`at`, `cron`) rather than elapsed time (`after`, `every`)."""

    first_s: float
    every_s: float = 0.0
    cron: str = ""
    tz: str = "UTC"
    wall: bool = False


def make_schedule(
    *,
    after: float | None = None,
    at: datetime | float | None = None,
    every: float | None = None,
    cron: str | None = None,
    tz: str = "UTC",
    now_s: float,
) -> Schedule:
    """A schedule from what a user gave: one of `after`, `at`, `every`, `cron`; `every` may have `after` or `at` as its first occurrence."""
    given = [name for name, value in (("after", after), ("at", at), ("every", every), ("cron", cron)) if value is not None]
    if given not in (["after"], ["at"], ["every"], ["cron"], ["after", "every"], ["at", "every"]):
        raise InvalidArguments(f"give one of after=, at=, every=, cron= (every= also with after= or at= as its beginning), not {given or 'none'}", path="$")
    if cron is not None:
        return Schedule(_next_cron(cron, tz, now_s), cron=cron, tz=tz, wall=True)
    if tz != "UTC":
        raise InvalidArguments("tz= goes with cron=; give at= as an aware datetime", path="$.tz")
    first_s = now_s
    if after is not None:
        first_s = now_s + _number("after", after, 0.0)
    elif at is not None:
        first_s = _instant(at)
    if every is None:
        return Schedule(first_s, wall=at is not None)
    every_s = _number("every", every, MIN_EVERY_S)
    return Schedule(first_s if after is not None or at is not None else now_s + every_s, every_s, wall=at is not None)


def first_due(schedule: Schedule, now_s: float) -> float:  # noqa: ARG001 - the counterpart of next_due
    """The first occurrence; it may be past, and is due at once then."""
    return schedule.first_s


def next_due(schedule: Schedule, due_s: float, now_s: float) -> tuple[int, float | None]:
    """(missed, next) when the occurrence of `due_s` fires at `now_s`: how many later ones are past as well, and the first after now; None: no more."""
    now_s = max(now_s, due_s)
    if schedule.every_s:
        missed = math.floor((now_s - due_s) / schedule.every_s)
        following = due_s + (missed + 1) * schedule.every_s
        while following <= now_s:  # the rounding of large numbers
            missed += 1
            following += schedule.every_s
        return missed, following
    if schedule.cron:
        missed, following = 0, _next_cron(schedule.cron, schedule.tz, due_s)
        while following <= now_s and missed < MAX_CRON_MISSED:
            missed += 1
            following = _next_cron(schedule.cron, schedule.tz, following)
        return missed, following if following > now_s else _next_cron(schedule.cron, schedule.tz, now_s)
    return 0, None


def follows_wall_clock(schedule: Schedule) -> bool:
    """Whether a jump of the wall clock moves it."""
    return schedule.wall


def _number(name: str, value: Any, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < least:
        raise InvalidArguments(f"{name}={value!r}: seconds, a finite number of at least {least:g}", path=f"$.{name}")
    return float(value)


def _instant(at: datetime | float) -> float:
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise InvalidArguments(f"at={at!r} has no time zone; write datetime(…, tzinfo=UTC) or datetime.now(UTC) + …", path="$.at")
        return at.timestamp()
    return _number("at", at, 0.0)


@lru_cache(maxsize=1_000)
def _zone(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError) as error:
        raise InvalidArguments(f"tz={name!r} is no IANA time zone, such as 'Europe/Berlin'", path="$.tz") from error


def _next_cron(expression: str, tz: str, after_s: float) -> float:
    from cronsim import CronSim, CronSimError

    if not isinstance(expression, str) or len(expression.split()) != 5:
        raise InvalidArguments(f"cron={expression!r}: five fields, such as '30 6 * * 1-5'", path="$.cron")
    try:
        start = datetime.fromtimestamp(after_s, UTC).astimezone(_zone(tz))
        return float(next(CronSim(expression, start)).timestamp())
    except StopIteration:
        raise InvalidArguments(f"cron={expression!r} never comes", path="$.cron") from None
    except (CronSimError, OverflowError, OSError) as error:
        raise InvalidArguments(f"cron={expression!r} can't be read: {error}", path="$.cron") from error
