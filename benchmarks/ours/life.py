"""Activation, what idle agents weigh, and coming back."""

from __future__ import annotations

import gc
import subprocess
import sys
from time import perf_counter, time

from ..measure import Run, resident_bytes
from .agents import Counter, Record, on_disk, plain, share


async def _activate(run: Run, n: int) -> None:
    async with plain(on_disk(run.scratch / "bench.db"), Counter) as platform:

        async def look(number: int) -> None:
            await platform.agent(Counter, f"agent-{number:07}").get()

        gc.collect()
        began = perf_counter()
        await share(1_000, range(n), look)
        run.record(n / (perf_counter() - began))


async def store(run: Run, n: int) -> None:
    """Make a file with so many stored agents."""
    async with plain(on_disk(run.scratch / "bench.db"), Counter) as platform:

        async def add(number: int) -> None:
            await platform.agent(Counter, f"agent-{number:07}").add(1)

        await share(1_000, range(n), add)


async def activate_new(run: Run) -> None:
    """Agents that nobody ever called, each called once; a new platform for each repetition."""
    n = run.some(100_000, 2_000)
    for _ in range(run.repetitions + 1):
        await _activate(run, n)
    del run.values[""][0]


async def activate_stored(run: Run) -> None:
    """Agents that have a record, each called once; a new platform for each repetition."""
    n = run.some(100_000, 2_000)
    await store(run, n)
    for _ in range(run.repetitions + 1):
        await _activate(run, n)
    del run.values[""][0]


async def weigh(run: Run, n: int) -> None:
    """Resident bytes of each of n idle live agents with three small fields, their records being in the file."""
    async with plain(on_disk(run.scratch / "bench.db"), Record, **{"infrastructure.durability": "relaxed"}) as platform:

        async def fill(number: int) -> None:
            await platform.agent(Record, f"agent-{number:07}").set(number)

        await share(100, range(2_000), fill)
        before = resident_bytes()
        await share(100, range(2_000, 2_000 + n), fill)
        run.record((resident_bytes() - before) / n)
        run.record(resident_bytes() / 1024**3, "process")


async def weigh_100k(run: Run) -> None:
    """100,000 agents."""
    await weigh(run, run.some(100_000, 5_000))


async def weigh_1m(run: Run) -> None:
    """1,000,000 agents, less the few that are there before."""
    await weigh(run, run.some(998_000, 20_000))


def _answer(run: Run, function: str, argument: int) -> float:
    """Seconds from exec to the answer of `benchmarks.ours.back FUNCTION`."""
    began = time()
    command = [sys.executable, "-m", "benchmarks.ours.back", function, str(run.scratch / "bench.db"), str(argument)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    return float(output.split()[-1]) - began


async def restart_1m(run: Run) -> None:
    """From exec to the first answered call, 1,000,000 agents being stored; seconds."""
    n = run.some(1_000_000, 5_000)
    await store(run, n)
    for repetition in range(run.repetitions + 1):
        taken_s = _answer(run, "first_answer", n // 2 + repetition)
        if repetition:
            run.record(taken_s)


async def residents_10k(run: Run) -> None:
    """From exec until 10,000 resident agents are live again; seconds."""
    n = run.some(10_000, 500)
    from .back import Resident

    async with plain(on_disk(run.scratch / "bench.db"), Resident) as platform:

        async def add(number: int) -> None:
            await platform.agent(Resident, f"agent-{number:05}").add(1)

        await share(1_000, range(n), add)
    for repetition in range(run.repetitions + 1):
        taken_s = _answer(run, "all_residents", n)
        if repetition:
            run.record(taken_s)
