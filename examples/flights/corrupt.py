"""Nonsense for the demonstration: rows that look like the file's and can't be flights, put in at random places.

Real rows stay as they are, so the totals of the file remain what the agents must arrive at, and every inserted row must
be refused. The same seed inserts the same rows at the same places.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from random import Random

from .rows import ALL_MONTHS, is_left_out


def _with(index: int, text: str) -> Callable[[list[str]], list[str]]:
    return lambda cells: [*cells[:index], text, *cells[index + 1 :]]


SPOILERS: dict[str, Callable[[list[str]], list[str]]] = {
    "cut off": lambda cells: cells[:7],
    "one cell too many": lambda cells: [*cells, "0"],
    "empty": lambda _: [""],
    "a month that isn't": _with(1, "13"),
    "a day that isn't": _with(2, "32"),
    "words for a number": _with(15, "far"),
    "a negative distance": _with(15, "-700"),
    "a number beyond all bounds": _with(14, "9" * 5000),
    "no airport": _with(13, "??"),
    "to where it came from": lambda cells: [*cells[:13], cells[12], *cells[14:]],
    "another hour than scheduled": lambda cells: [*cells[:16], str((int(cells[16]) + 1) % 24), *cells[17:]],
    "another moment than scheduled": _with(18, "2001-01-01T00:00:00Z"),
    "arrived without departing": lambda cells: [*cells[:3], "NA", *cells[4:5], "NA", "1200", *cells[7:14], "90", *cells[15:]],
    "a stray quotation mark": _with(9, '"UA'),
    "bytes that are no text": _with(11, "N\udcff\udc80\x00"),
    "the row before again": lambda cells: cells,
}


def corrupted(lines: Iterable[bytes], count: int, seed: int, months: Collection[int] = ALL_MONTHS, days: int = 31) -> Iterator[bytes]:
    """The lines with `count` nonsense rows put in after random rows of the given months and days, every kind in turn."""
    every = list(lines)
    places = [at for at, line in enumerate(every) if at and not is_left_out(line.decode().split(",", 3), months, days)]
    random = Random(seed)
    kinds = list(SPOILERS.values())
    random.shuffle(kinds)
    after: dict[int, list[bytes]] = {}
    for n, place in enumerate(random.choices(places, k=count)):
        cells = kinds[n % len(kinds)](every[place].decode().rstrip("\r\n").split(","))
        after.setdefault(place, []).append(",".join(cells).encode("utf-8", "surrogateescape") + b"\n")
    for at, line in enumerate(every):
        yield line
        yield from after.get(at, ())
