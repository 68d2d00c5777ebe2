"""What `jido bench` measures: this machine, in seconds, each figure beside the limit that was measured by turns with it.

A limit is the least that must be done for the same promise: the disk's fsync, the store without agents, a coroutine that is awaited.
Figures are medians of a few short turns; they say what to expect here, not which release is faster.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from ..core.events import Event
from ..core.records import Records
from ..runtime.agent import Agent
from ..runtime.definition import action
from .platform import Platform

TURNS = 3
TURN_S = 0.35
CROWD = 64
BLOCK = 100
"""Calls between two looks at the clock, where one takes no longer than the look."""
WOKEN = 500
"""Agents woken in one turn."""
PAGE, PAGES = os.urandom(4096), 1024

Once = Callable[[int, int], Awaitable[object]]
"""What caller `number` does for the `count`th time."""


class Figure(NamedTuple):
    """One row. `rate` and `limit_rate` are a second; `limit` says what the second is of, "" if there is none."""

    name: str
    rate: float
    limit: str = ""
    limit_rate: float = 0.0

    @property
    def share(self) -> float | None:
        """The part of the limit that is reached."""
        return self.rate / self.limit_rate if self.limit_rate else None


class BenchCounter(Agent, name="bench_counter"):
    """Counts, as the smallest agent there is."""

    value: int = 0

    @action
    async def add(self, amount: int) -> int:
        """Count."""
        self.value += amount
        return self.value

    @action
    async def look(self) -> int:
        """Look, through a turn."""
        return self.value


class Bare:
    """The limit of a call: an object with the same coroutine, and nobody between."""

    def __init__(self) -> None:
        self.value = 0

    async def look(self) -> int:
        """Look."""
        return self.value


async def measure(folder: Path, *, turn_s: float = TURN_S) -> AsyncIterator[Figure]:
    """Each figure as soon as it is there. What is written is in a folder of its own below `folder`, and gone at the end."""
    with tempfile.TemporaryDirectory(prefix=".jido-bench-", dir=folder) as scratch:
        place = Path(scratch)
        syncs = await asyncio.to_thread(fsyncs, place, turn_s * TURNS)
        yield Figure("fsyncs of 4 KiB", syncs)
        async with _platform(place) as platform:
            yield await _durable(platform, 1, turn_s)
            yield await _durable(platform, CROWD, turn_s)
            yield await _published(platform, turn_s)
        yield await _woken(place)
    async with Platform() as platform:
        yield await _in_memory(platform, turn_s)


def _platform(place: Path) -> AbstractAsyncContextManager[Platform]:
    return Platform(f"sqlite:///{place}/bench.db", agents=[BenchCounter], config={"infrastructure.durability": "full"})


def fsyncs(place: Path, seconds: float) -> float:
    """How often a second 4 KiB can be written into a file that has room for them, and made durable. Blocks."""
    with (place / "file").open("wb", buffering=0) as file:
        file.write(PAGE * PAGES)  # a file that grows costs more: its size has to be made durable too
        os.fsync(file.fileno())
        count, began = 0, perf_counter()
        while (took := perf_counter() - began) < seconds:
            os.pwrite(file.fileno(), PAGE, count % PAGES * len(PAGE))
            os.fsync(file.fileno())
            count += 1
    return count / took


# -- rows ----------------------------------------------------------------------------------------------------------


async def _durable(platform: Platform, callers: int, turn_s: float) -> Figure:
    agents = [platform.agent(BenchCounter, f"durable-{number}") for number in range(callers)]
    for agent in agents:
        await agent.add(1)
    records = platform._records
    sample = await records.read("bench_counter/durable-0")
    revisions = [await _fresh(records, f"bench_limit/{number}", sample.head) for number in range(callers)]

    async def bare(number: int, count: int) -> None:
        # Each head differs from the one before: nothing is written where bytes don't change.
        head = sample.head + count.to_bytes(8, "big")
        revisions[number] = (await records.commit(f"bench_limit/{number}", revisions[number], head)).revision

    ours, limit = await _by_turns(callers, turn_s, lambda number, _count: agents[number].add(1), bare)
    name = "durable calls, 1 caller" if callers == 1 else f"durable calls, {callers} callers"
    return Figure(name, ours, "the store alone", limit)


async def _fresh(records: Records, address: str, head: bytes) -> int:
    """The revision of an address that has a head."""
    found = await records.read(address)
    if found is not None:
        return found.revision
    return (await records.commit(address, 0, head)).revision


async def _published(platform: Platform, turn_s: float) -> Figure:
    events, log = platform.events, platform._records.log
    sample: Event = await events.publish("bench.happened", {"number": 0})

    async def publish(_number: int, count: int) -> None:
        await events.publish("bench.happened", {"number": count})

    ours, limit = await _by_turns(CROWD, turn_s, publish, lambda _number, _count: log.append([sample]))
    return Figure(f"events published, {CROWD} publishers", ours, "the log alone", limit)


async def _woken(place: Path) -> Figure:
    """Agents that a platform has just been opened on: each is read, made and called once."""
    total = WOKEN * TURNS
    async with _platform(place) as platform:
        await asyncio.gather(*(platform.agent(BenchCounter, f"woken-{number}").add(1) for number in range(total)))
    ours: list[float] = []
    limits: list[float] = []
    async with _platform(place) as platform:
        for first in range(0, total, WOKEN):
            names = [f"woken-{number}" for number in range(first, first + WOKEN)]
            limits.append(await _all_at_once([partial(platform._records.read, f"bench_counter/{name}") for name in names]))
            ours.append(await _all_at_once([platform.agent(BenchCounter, name).look for name in names]))
    return Figure("agents woken and called", statistics.median(ours), "their records read", statistics.median(limits))


async def _all_at_once(asked: list[Callable[[], Awaitable[object]]]) -> float:
    began = perf_counter()
    await asyncio.gather(*(ask() for ask in asked))
    return len(asked) / (perf_counter() - began)


async def _in_memory(platform: Platform, turn_s: float) -> Figure:
    agent, bare = platform.agent(BenchCounter, "memory"), Bare()

    async def ours(_number: int, _count: int) -> None:
        for _ in range(BLOCK):
            await agent.look()

    async def limit(_number: int, _count: int) -> None:
        for _ in range(BLOCK):
            await bare.look()
        await asyncio.sleep(0)  # Ctrl-C is heard between two blocks

    rate, limit_rate = await _by_turns(1, turn_s, ours, limit)
    return Figure("calls that change nothing, in memory", rate * BLOCK, "a coroutine awaited", limit_rate * BLOCK)


# -- measuring -----------------------------------------------------------------------------------------------------


async def _by_turns(callers: int, turn_s: float, ours: Once, limit: Once) -> tuple[float, float]:
    """The medians of two rates, measured by turns: on a shared machine the disk of a second ago is another one."""
    rates: tuple[list[float], list[float]] = ([], [])
    for turn in range(-1, TURNS):
        for kept, once in zip(rates, (ours, limit), strict=True):
            rate = await _rate(callers, turn_s if turn >= 0 else turn_s / 4, once)
            if turn >= 0:  # the first one warms up
                kept.append(rate)
    return statistics.median(rates[0]), statistics.median(rates[1])


async def _rate(callers: int, seconds: float, once: Once) -> float:
    began = perf_counter()

    async def caller(number: int) -> int:
        count = 0
        while perf_counter() - began < seconds:
            await once(number, count)
            count += 1
        return count

    counts = await asyncio.gather(*map(caller, range(callers)))
    return sum(counts) / (perf_counter() - began)
