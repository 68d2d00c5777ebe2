"""Calls and casts in memory."""

from __future__ import annotations

from jidosystem import Platform

from ..measure import Run
from .agents import Counter, together


async def read_only(run: Run) -> None:
    """A read-only action, one caller."""
    n = run.some(200_000, 5_000)
    async with Platform() as platform:
        counter = platform.agent(Counter, "a")

        async def once() -> None:
            for _ in range(n):
                await counter.get()

        await run.repeat(n, once)


async def changes_nothing(run: Run) -> None:
    """An action that may write and changes nothing, one caller."""
    n = run.some(200_000, 5_000)
    async with Platform() as platform:
        counter = platform.agent(Counter, "a")

        async def once() -> None:
            for _ in range(n):
                await counter.look()

        await run.repeat(n, once)


async def add(run: Run) -> None:
    """`add(1)`, one caller."""
    n = run.some(100_000, 5_000)
    async with Platform() as platform:
        counter = platform.agent(Counter, "a")

        async def once() -> None:
            for _ in range(n):
                await counter.add(1)

        await run.repeat(n, once)
        assert await counter.get() == n * (run.repetitions + 1)


async def add_100(run: Run) -> None:
    """`add(1)`, 100 callers over 100 agents."""
    n = run.some(100_000, 5_000)
    async with Platform() as platform:
        counters = [platform.agent(Counter, f"a{number}") for number in range(100)]

        await run.repeat(n, lambda: together(100, n // 100, lambda number: counters[number].add(1)))
        assert await counters[0].get() == n // 100 * (run.repetitions + 1)


async def cast(run: Run) -> None:
    """`add(1)` cast to one agent: bursts of 1,000, each followed by a call that waits for it."""
    n = run.some(200_000, 5_000)
    async with Platform() as platform:
        counter = platform.agent(Counter, "a")

        async def once() -> None:
            for _ in range(n // 1_000):
                for _ in range(1_000):
                    await platform.cast(counter.add, 1)
                await counter.add(0)

        await run.repeat(n, once)
        assert await counter.get() == n * (run.repetitions + 1)
