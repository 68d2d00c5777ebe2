"""How the figures grow: one workload each, a figure for each size. What history there is must not slow down what comes."""

from __future__ import annotations

import asyncio
import gc
from time import perf_counter, time
from typing import Any

from jidosystem import Agent, Event, Platform, action
from jidosystem.backends.sqlite import open_store
from jidosystem.core.clock import SystemClock

from ..measure import Run
from .agents import Blob, Counter, on_disk, plain, share, together
from .events import fan_out
from .life import store


def _sizes(run: Run, *sizes: int) -> list[int]:
    return [size for size in sizes if size <= 1_000] if run.quick else list(sizes)


async def agents(run: Run) -> None:
    """Stored agents called for the first time, and live ones again, by their number."""
    for n in _sizes(run, 1_000, 10_000, 100_000, 1_000_000):
        await store(run, n)
        for repetition in range(run.repetitions + 1):
            async with plain(on_disk(run.scratch / "bench.db"), Counter) as platform:

                async def look(number: int) -> None:
                    await platform.agent(Counter, f"agent-{number:07}").get()

                gc.collect()
                began = perf_counter()
                await share(1_000, range(n), look)
                first = perf_counter()
                for number in range(0, n * 7_919, n * 7_919 // min(n, 50_000)):
                    await platform.agent(Counter, f"agent-{number % n:07}").get()
                if repetition:
                    run.record(n / (first - began), f"activate {n:,}")
                    run.record(min(n, 50_000) / (perf_counter() - first), f"call {n:,}")


async def state(run: Run) -> None:
    """Durable `add(1)`, 64 callers, by the size of the state, which is written whole each time; live read-only calls beside it."""
    for size in _sizes(run, 100, 1_000, 10_000, 100_000, 1_000_000):
        each = max(3, min(run.some(300, 5), 3_000_000 // size))
        async with plain(on_disk(run.scratch / f"{size}.db")) as platform:
            blobs = [platform.agent(Blob, f"agent-{number}") for number in range(64)]
            for blob in blobs:
                await blob.fill(size)
            await run.repeat(64 * each, lambda: together(64, each, lambda number: blobs[number].add(1)), f"add {size:,} B")  # noqa: B023
            reads = run.some(20_000, 100)
            await run.repeat(reads, lambda: together(1, reads, lambda _: blobs[0].get()), f"get {size:,} B")  # noqa: B023


class Gate(Agent):
    """Lets calls wait in its mailbox until it is opened."""

    value: int = 0

    @action
    async def hold(self) -> None:
        await GATE[0].wait()

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value


GATE: list[asyncio.Event] = []


async def mailbox(run: Run) -> None:
    """Calls of one agent, in memory, by how many wait at once: from the first that waits until the last is answered."""
    async with Platform() as platform:
        gate = platform.agent(Gate, "a")
        for waiting in _sizes(run, 1, 10, 100, 1_000, 9_999):
            rounds = max(1, run.some(20_000, 200) // waiting)

            async def once(waiting: int = waiting, rounds: int = rounds) -> None:
                for _ in range(rounds):
                    GATE[:] = [asyncio.Event()]
                    calls = [asyncio.ensure_future(gate.hold()), *(asyncio.ensure_future(gate.add(1)) for _ in range(waiting))]
                    await asyncio.sleep(0)
                    GATE[0].set()
                    await asyncio.gather(*calls)

            await run.repeat(waiting * rounds, once, f"{waiting:,}")


async def subscribers(run: Run) -> None:
    """Deliveries a second by the number of live subscribers."""
    for count in _sizes(run, 1, 10, 100, 1_000):
        await fan_out(run, count, max(10, run.some(200_000, 500) // (count + 20) // 10 * 10), f"{count:,}")


async def _append(run: Run, already: int, upto: int) -> None:
    """Lengthen the log as fast as it goes: what matters is that the events are there."""
    records = await open_store(str(run.scratch / "bench.db"), durability="relaxed", clock=SystemClock())
    log: Any = records.log
    number = already
    while number < upto:
        pages = []
        for _ in range(10):
            few = min(1_000, upto - number)
            page = [_event(number + offset) for offset in range(few)]
            number += few
            if page:
                pages.append(log.append(page))
        await asyncio.gather(*pages)
    await records.close()


def _event(number: int) -> Event:
    return Event(f"{number:032x}", "bench.filled", "bench", "", time(), {"number": number}, f"stream-{number % 1_000}")


async def log(run: Run) -> None:
    """By the length of the log: 64 publishers; the last 1,000 events read; 2,000 stored agents activated."""
    already = 0
    few = run.some(2_000, 200)
    await store(run, few)
    for length in _sizes(run, 1_000, 10_000, 100_000, 1_000_000, 10_000_000):
        await _append(run, already, length)
        already = length
        async with plain(on_disk(run.scratch / "bench.db")) as platform:
            each = run.some(200, 5)
            publish = platform.events.publish
            last = await publish("bench.last", None)

            async def append(each: int = each, publish: Any = publish) -> None:
                await together(64, each, lambda number: publish("bench.happened", {"number": number}))

            await run.repeat(64 * each, append, f"append {length:,}")

            async def read() -> None:
                async for _event in platform.events.read_all("**", after=last.position):  # noqa: B023
                    pass

            events = 64 * each * (run.repetitions + 1)
            already += events + 1
            await run.repeat(events, read, f"read {length:,}")
        for repetition in range(run.repetitions + 1):
            async with plain(on_disk(run.scratch / "bench.db"), Counter) as platform:

                async def look(number: int) -> None:
                    await platform.agent(Counter, f"agent-{number:07}").get()

                began = perf_counter()
                await share(1_000, range(few), look)
                if repetition:
                    run.record(few / (perf_counter() - began), f"activate {length:,}")
