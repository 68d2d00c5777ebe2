"""Calls whose answer comes after the fsync: SQLite, `synchronous=FULL`, by turns with the bare writer."""

from __future__ import annotations

from ..measure import Run
from ..writer import LIMIT, UPSERT, bare_writer
from .agents import Counter, on_disk, plain, together


async def _calls(run: Run, callers: int, each: int, agents: int) -> None:
    async with plain(on_disk(run.scratch / "bench.db")) as platform:
        counters = [platform.agent(Counter, f"agent-{number}") for number in range(agents)]
        with bare_writer(run, UPSERT, callers, each) as bare:
            await run.by_turns(callers * each, {"": lambda: together(callers, each, lambda number: counters[number % agents].add(1)), LIMIT: bare})
        assert await counters[0].get() == callers // agents * each * (len(run.values[""]) + 1)


async def call_1(run: Run) -> None:
    """One caller."""
    await _calls(run, 1, run.some(1_500, 50), 1)


async def call_64(run: Run) -> None:
    """64 callers, 64 agents."""
    await _calls(run, 64, run.some(300, 10), 64)


async def call_64_on_one(run: Run) -> None:
    """64 callers, one agent."""
    await _calls(run, 64, run.some(200, 10), 1)


async def call_1000(run: Run) -> None:
    """1,000 callers, 1,000 agents."""
    await _calls(run, 1_000, run.some(30, 2), 1_000)
