"""How one workload is measured, inside the process that it has to itself.

Only the standard library is imported here: the peers' environment has no JidoSystem in it. A workload takes a `Run`,
does its work through `repeat`, and the run keeps one value for each repetition. The first round warms up and counts for
nothing. The collector runs before each round, and stays on during it, as it is in production.
"""

from __future__ import annotations

import gc
import json
import statistics
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

REPETITIONS = 5
QUICK_REPETITIONS = 2
TURNS = 3
"""So many times as many repetitions, each of them shorter, where something is measured by turns with its limit."""
MARK = "benchmark-result: "
"""What a child writes before its result, so that whatever else it prints does no harm."""


class Absent(Exception):
    """What the workload needs isn't on this machine: the row is "not run", never passed."""


class Figure(NamedTuple):
    """The median of the repetitions, and the lowest and highest of them."""

    median: float
    low: float
    high: float
    repetitions: int

    @classmethod
    def of(cls, values: list[float]) -> Figure:
        """The figure that some repetitions amount to."""
        return cls(statistics.median(values), min(values), max(values), len(values))

    @property
    def spread(self) -> float:
        """The distance between the extremes, as a part of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


class Run:
    """One process's measurements. `quick`: a look, not a figure. `scratch`: an empty directory on the disk being measured."""

    def __init__(self, scratch: Path, *, quick: bool = False, repetitions: int | None = None) -> None:
        self.scratch = scratch
        self.quick = quick
        self.repetitions = repetitions or (QUICK_REPETITIONS if quick else REPETITIONS)
        self.values: dict[str, list[float]] = {}
        self.notes: list[str] = []

    def some(self, full: int, quick: int) -> int:
        """How many to take of something."""
        return quick if self.quick else full

    def record(self, value: float, name: str = "") -> None:
        """Keep one repetition's value. A workload with several figures names them."""
        self.values.setdefault(name, []).append(value)

    def note(self, text: str) -> None:
        """Say something that belongs beside the figure."""
        if text not in self.notes:
            self.notes.append(text)

    async def repeat(self, operations: int, once: Callable[[], Awaitable[object]], name: str = "") -> None:
        """Warm up, then measure the rate of `once`, which does that many operations."""
        await once()
        for _ in range(self.repetitions):
            gc.collect()
            began = perf_counter()
            await once()
            self.record(operations / (perf_counter() - began), name)

    async def by_turns(self, operations: int, each: Mapping[str, Callable[[], Awaitable[object]]]) -> None:
        """As `repeat`, for things that are held against each other: on a shared machine the disk of a minute ago is another one."""
        for once in each.values():
            await once()
        for _ in range(self.repetitions * TURNS):
            for name, once in each.items():
                gc.collect()
                began = perf_counter()
                await once()
                self.record(operations / (perf_counter() - began), name)

    def repeat_sync(self, operations: int, once: Callable[[], object], name: str = "") -> None:
        """As `repeat`, for what doesn't await."""
        once()
        for _ in range(self.repetitions):
            gc.collect()
            began = perf_counter()
            once()
            self.record(operations / (perf_counter() - began), name)

    def result(self) -> dict[str, Any]:
        """What the parent gets."""
        return {"values": self.values, "notes": self.notes}


def resident_bytes() -> int:
    """The memory of this process that is in RAM, freed blocks given back first."""
    import ctypes

    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    status = Path("/proc/self/smaps_rollup")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
    raise Absent("resident memory is read from /proc/self/smaps_rollup, which this system lacks")


def encode_result(result: dict[str, Any]) -> str:
    """A result as the line that the parent looks for."""
    return MARK + json.dumps(result)


def decode_result(output: str) -> dict[str, Any] | None:
    """The result in a child's output."""
    for line in reversed(output.splitlines()):
        if line.startswith(MARK):
            found: dict[str, Any] = json.loads(line[len(MARK) :])
            return found
    return None
