"""Calls whose answer comes after the fsync: SQLite, `synchronous=FULL`."""

from __future__ import annotations

from ..measure import Run
from .agents import Counter, on_disk, plain, together


async def _calls(run: Run, callers: int, each: int, agents: int) -> None:
    async with plain(on_disk(run.scratch / "bench.db")) as platform:
        counters = [platform.agent(Counter, f"agent-{number}") for number in range(agents)]
        await run.repeat(callers * each, lambda: together(callers, each, lambda number: counters[number % agents].add(1)))
        assert await counters[0].get() == callers // agents * each * (run.repetitions + 1)


async def call_1(run: Run) -> None:
    """One caller."""
    await _calls(run, 1, run.some(4_000, 50), 1)


async def call_64(run: Run) -> None:
    """64 callers, 64 agents."""
    await _calls(run, 64, run.some(1_000, 10), 64)


async def call_64_on_one(run: Run) -> None:
    """64 callers, one agent."""
    await _calls(run, 64, run.some(500, 10), 1)


async def call_1000(run: Run) -> None:
    """1,000 callers, 1,000 agents."""
    await _calls(run, 1_000, run.some(60, 2), 1_000)
