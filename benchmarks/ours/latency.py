"""How long a durable call takes when the node is half busy."""

from __future__ import annotations

import asyncio
import gc
from time import perf_counter

from ..measure import Run
from .agents import Counter, on_disk, plain, share

TICK_S = 0.001


async def half_load(run: Run) -> None:
    """10,000 agents, durable `add(1)`; p50 and p99 in milliseconds at half of the rate that 1,000 callers reached.

    Calls arrive by the clock, whether or not earlier ones were answered, and each is timed from the moment when it was
    due: a node that falls behind is not spared.
    """
    agents = run.some(10_000, 200)
    async with plain(on_disk(run.scratch / "bench.db"), Counter) as platform:
        counters = [platform.agent(Counter, f"agent-{number:05}") for number in range(agents)]

        async def add(number: int) -> None:
            await counters[number % agents].add(1)

        await share(1_000, range(agents), add)
        gc.collect()
        began = perf_counter()
        n = run.some(60_000, 1_000)
        await share(1_000, range(n), add)
        rate = n / (perf_counter() - began) / 2
        run.note(f"half load is {rate:,.0f} calls/s")
        for repetition in range(run.repetitions + 1):
            gc.collect()
            taken_s = await _open_loop(rate, run.some(3, 1), lambda number: counters[number * 7919 % agents].add(1))
            if repetition:
                run.record(taken_s[len(taken_s) // 2] * 1_000, "p50")
                run.record(taken_s[len(taken_s) * 99 // 100] * 1_000, "p99")


async def _open_loop(rate: float, seconds: float, call) -> list[float]:  # type: ignore[no-untyped-def]
    loop = asyncio.get_running_loop()
    taken_s: list[float] = []

    async def one(number: int, due: float) -> None:
        await call(number)
        taken_s.append(perf_counter() - due)

    tasks: set[asyncio.Task[None]] = set()
    began = perf_counter()
    number = 0
    while (now := perf_counter() - began) < seconds:
        while number / rate <= now:
            task = loop.create_task(one(number, began + number / rate))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        await asyncio.sleep(TICK_S)
    await asyncio.gather(*tasks)
    return sorted(taken_s)
