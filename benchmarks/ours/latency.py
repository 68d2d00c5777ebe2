"""How long a durable call takes when the node is half busy."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from statistics import median
from time import perf_counter

from ..measure import Run
from .agents import Counter, on_disk, plain, share

TICK_S = 0.001


async def half_load(run: Run) -> None:
    """10,000 agents, durable `add(1)`; p50 and p99 in milliseconds at half of the rate that 1,000 callers reached.

    Calls arrive by the clock, whether or not earlier ones were answered, and each is timed from the moment when it was
    due: a node that falls behind is not spared. The callers, too, make a task for each call and time it, since that takes
    as much of the loop's time here as the call itself.
    """
    agents = run.some(10_000, 200)
    async with plain(on_disk(run.scratch / "bench.db"), Counter) as platform:
        counters = [platform.agent(Counter, f"agent-{number:05}") for number in range(agents)]
        load = Load(lambda number: counters[number * 7919 % agents].add(1))
        rates = []
        for _ in range(1 + run.repetitions):
            gc.collect()
            n, began = run.some(20_000, 500), perf_counter()
            await share(1_000, range(n), load.one_in_a_task)
            rates.append(n / (perf_counter() - began))
        rate = median(rates[1:]) / 2
        run.note(f"half load is {rate:,.0f} calls/s")
        for repetition in range(run.repetitions + 1):
            gc.collect()
            taken_s = await load.at_rate(rate, run.some(3, 1))
            if repetition:
                run.record(taken_s[len(taken_s) // 2] * 1_000, "p50")
                run.record(taken_s[len(taken_s) * 99 // 100] * 1_000, "p99")


class Load:
    """Calls, each in a task of its own that notes how long it took."""

    def __init__(self, call: Callable[[int], Awaitable[object]]) -> None:
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._taken_s: list[float] = []

    def start(self, number: int, due: float) -> asyncio.Task[None]:
        """Make a call that was due at a time of `perf_counter`."""
        task = self._loop.create_task(self._one(number, due))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _one(self, number: int, due: float) -> None:
        await self._call(number)
        self._taken_s.append(perf_counter() - due)

    async def one_in_a_task(self, number: int) -> None:
        """Make a call now and wait for it."""
        await self.start(number, perf_counter())

    async def at_rate(self, rate: float, seconds: float) -> list[float]:
        """So many calls a second by the clock; how long each took, sorted."""
        self._taken_s = []
        number, began = 0, perf_counter()
        while (now := perf_counter() - began) < seconds:
            while number / rate <= now:
                self.start(number, began + number / rate)
                number += 1
            await asyncio.sleep(TICK_S)
        await asyncio.gather(*self._tasks)
        return sorted(self._taken_s)
