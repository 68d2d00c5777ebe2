"""The main job of this release, whole: a year of flights, their events, and the books of airports and airlines."""

from __future__ import annotations

from time import perf_counter

from examples.flights.agents import AGENTS, BATCH
from examples.flights.load import Feeder, Job, cast_of, close_books, read
from jidosystem import Platform

from ..measure import Run
from .agents import on_disk

CALLERS = 1_000
REPETITIONS = 3
"""Fewer than elsewhere: each takes more than a minute."""


async def year(run: Run) -> None:
    """Flights a second, from the first call until every airport and airline has closed its books; a new file each time."""
    months = frozenset(range(1, 13)) if not run.quick else frozenset({1})
    flights, refused = read(Job("", "flights", months, days=31, callers=CALLERS, corrupt=0, seed=0))
    assert not refused
    run.note(f"{len(flights):,} flights, {CALLERS:,} callers, batch={BATCH}")
    for repetition in range(min(run.repetitions, REPETITIONS) + 1):
        some = flights[:5_000] if repetition == 0 else flights
        async with Platform(on_disk(run.scratch / f"flights-{repetition}.db"), agents=AGENTS) as platform:
            began = perf_counter()
            await Feeder(platform, some).run(CALLERS)
            fed = perf_counter()
            await close_books(platform, cast_of(some))
            if repetition:
                run.record(len(some) / (perf_counter() - began))
                run.record(len(some) / (fed - began), "calls alone")
        for file in run.scratch.glob(f"flights-{repetition}.db*"):
            file.unlink()
