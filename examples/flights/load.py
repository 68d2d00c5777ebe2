"""The node: a platform with the agents in it, and the loader that feeds it. Run by the demo, killed by the demo.

Says on its standard output, a JSON object a line, how far it is. The loader begins with the first row every time it is
started, and knows nothing of what earlier ones did: each call carries its flight's key, so it takes effect once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from importlib.util import find_spec
from itertools import groupby
from typing import NamedTuple

from jidosystem import Platform

from .agents import AGENTS, Aircraft, Airline, Airport
from .corrupt import corrupted
from .rows import Flight, RefusedRow, open_lines, read_flights

MESSAGES = 200
"""How often a run says how far it is."""
END_TIMEOUT_S = 60.0
"""How long the airports and airlines may take to close their books after the last flight."""


class Job(NamedTuple):
    """What to do."""

    store: str
    name: str
    months: frozenset[int]
    days: int
    callers: int
    corrupt: int
    seed: int


class Cast(NamedTuple):
    """The agents that the flights are about."""

    aircraft: Sequence[str]
    airports: Sequence[str]
    airlines: Sequence[str]


def say(**message: object) -> None:
    """Tell the parent."""
    print(json.dumps(message), flush=True)


def read(job: Job) -> tuple[list[Flight], list[RefusedRow]]:
    """The flights in their order, and what was refused."""
    with open_lines() as lines:
        spoiled = corrupted(lines, job.corrupt, job.seed, job.months, job.days) if job.corrupt else lines
        return read_flights(spoiled, job.months, job.days)


def cast_of(flights: Sequence[Flight]) -> Cast:
    """Who appears in the flights. A cancelled flight is no business of its destination."""
    airports = {flight.origin for flight in flights} | {flight.dest for flight in flights if flight.dep_delay is not None}
    return Cast(sorted({flight.tail for flight in flights}), sorted(airports), sorted({flight.carrier for flight in flights}))


class Seen:
    """How many flights are in the log. In one file they are there with the commit of their turn; on a cluster the log is another engine, to which
    what turns emitted is brought after their commits, by another node perhaps if theirs has died.
    """

    def __init__(self) -> None:
        self._count, self._more = 0, asyncio.Event()

    async def read(self, platform: Platform) -> None:
        """Count, without end."""
        async for _ in platform.events.follow("flights.*", after=0):
            self._count += 1
            self._more.set()

    async def wait(self, count: int) -> None:
        """Until so many are there."""
        while self._count < count:
            self._more.clear()
            await self._more.wait()


@asynccontextmanager
async def seen(platform: Platform, store: str) -> AsyncGenerator[Seen | None]:
    """What is needed on a cluster."""
    if not store.startswith("nats:"):
        yield None
        return
    log = Seen()
    reading = asyncio.create_task(log.read(platform))
    try:
        yield log
    finally:
        reading.cancel()
        await asyncio.wait({reading})


class Feeder:
    """Calls `fly` for every flight, many callers at a time.

    They take the flights in their order and nobody waits for the answer of the one before, also not for one of the same
    aircraft: an agent takes its calls in the order in which they were made. On a cluster, where a call may have to be made again, they wait: then
    `log` is given.
    """

    def __init__(self, platform: Platform, flights: Sequence[Flight], log: Seen | None = None) -> None:
        self._platform, self._log = platform, log
        self._lines = {flight.tail: asyncio.Lock() for flight in flights} if log is not None else {}
        self._aircraft = {tail: platform.agent(Aircraft, tail) for tail in {flight.tail for flight in flights}}
        self._flights = flights
        self._done = 0
        self._say_every = max(1, len(flights) // MESSAGES)

    async def run(self, callers: int) -> None:
        """Feed all flights, day by day: a day begins when the day before is in the log, so there the days are in order."""
        for _day, of_day in groupby(self._flights, key=lambda flight: flight.day):
            share = iter(list(of_day))
            async with asyncio.TaskGroup() as group:
                for _ in range(callers):
                    group.create_task(self._caller(share))
            if self._log is not None:
                await self._log.wait(self._done)
        say(done=self._done)

    async def _caller(self, share: Iterator[Flight]) -> None:
        for flight in share:
            async with self._lines.get(flight.tail) or nullcontext():
                await self._platform.call(self._aircraft[flight.tail].fly, flight, idempotency_key=flight.key)
            self._done += 1
            if self._done % self._say_every == 0:
                say(done=self._done)


async def close_books(platform: Platform, cast: Cast) -> None:
    """Say that this was all, and wait until every airport and airline has said that its books are closed.

    The end is an event like any other: each agent sees it after all its flights, because a subscription keeps the order
    of the log. The airports' last reminders fire meanwhile.
    """
    ended = await platform.events.publish("flights.ended", {"airports": cast.airports, "airlines": cast.airlines})
    awaited = {f"Airport/{code}" for code in cast.airports} | {f"Airline/{code}" for code in cast.airlines}
    try:
        async with asyncio.timeout(END_TIMEOUT_S):
            async for event in platform.events.follow("books.closed", after=ended.position):
                awaited.discard(event.source)
                say(open_books=len(awaited))
                if not awaited:
                    return
    except TimeoutError:
        some = ", ".join(sorted(awaited)[:10])
        raise SystemExit(f"after {END_TIMEOUT_S:.0f} s {len(awaited)} agents haven't closed their books: {some} …") from None


async def gather_books(platform: Platform, cast: Cast) -> dict[str, dict[str, int]]:
    """What every agent has in its books."""
    books = {f"Aircraft/{key}": await platform.agent(Aircraft, key).book() for key in cast.aircraft}
    books.update({f"Airport/{key}": await platform.agent(Airport, key).book() for key in cast.airports})
    books.update({f"Airline/{key}": await platform.agent(Airline, key).book() for key in cast.airlines})
    return books


async def run(job: Job) -> None:
    """The whole job, from the first row."""
    async with Platform(job.store, agents=AGENTS, name=job.name) as platform, seen(platform, job.store) as log:
        flights, refused = await asyncio.to_thread(read, job)
        cast = cast_of(flights)
        say(flights=len(flights), refused=refused, agents={name: len(keys) for name, keys in cast._asdict().items()})
        await Feeder(platform, flights, log).run(job.callers)
        await close_books(platform, cast)
        say(books=await gather_books(platform, cast))


def parse_job(arguments: Sequence[str]) -> Job:
    """The job that a command line describes."""
    parser = argparse.ArgumentParser(prog="python -m examples.flights.load", description="One life of the flights node.")
    parser.add_argument("--store", default=os.environ.get("JIDO_STORE", "sqlite:///flights.db"), help="by default JIDO_STORE")
    parser.add_argument("--name", default="flights")
    parser.add_argument("--months", default="1", help="numbers with commas between them")
    parser.add_argument("--days", type=int, default=31)
    parser.add_argument("--callers", type=int, default=1_000)
    parser.add_argument("--corrupt", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    months = frozenset(map(int, given.months.split(",")))
    return Job(given.store, given.name, months, given.days, given.callers, given.corrupt, given.seed)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed."""
    if find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop


def main(arguments: Sequence[str]) -> None:
    """Run the job in an event loop of its own."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run(parse_job(arguments)))


if __name__ == "__main__":
    main(sys.argv[1:])
