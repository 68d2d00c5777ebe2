"""xoscar (https://github.com/xorbitsai/xoscar): actors in one process, by direct reference and by message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import xoscar

from ..measure import Run, resident_bytes


class Counter(xoscar.Actor):
    """xoscar's ordinary actor: one message at a time."""

    def __init__(self) -> None:
        self.value = 0

    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value


class Record(xoscar.Actor):
    def __init__(self, name: str, count: int, share: float) -> None:
        self.name, self.count, self.share = name, count, share


@asynccontextmanager
async def _pool() -> AsyncIterator[str]:
    pool = await xoscar.create_actor_pool("127.0.0.1", n_process=0)
    try:
        yield pool.external_address
    finally:
        await pool.stop()


async def _ask(run: Run, actors: int, *, direct: bool) -> None:
    n = run.some(100_000 if direct else 20_000, 2_000)
    async with _pool() as address:
        refs = [await xoscar.create_actor(Counter, address=address, uid=f"a{number}") for number in range(actors)]
        if direct:
            refs = [await xoscar.actor_ref(address=address, uid=f"a{number}") for number in range(actors)]

        async def caller(ref: Any) -> None:
            for _ in range(n // actors):
                await ref.add(1)

        async def once() -> None:
            await asyncio.gather(*map(caller, refs))

        await run.repeat(n, once)


async def ask_direct(run: Run) -> None:
    """One caller, a reference that finds its actor in the caller's own process."""
    await _ask(run, 1, direct=True)


async def ask_direct_100(run: Run) -> None:
    """100 callers, 100 actors."""
    await _ask(run, 100, direct=True)


async def ask_message(run: Run) -> None:
    """One caller, the reference that `create_actor` returns: through the router."""
    await _ask(run, 1, direct=False)


async def ask_message_100(run: Run) -> None:
    """100 callers, 100 actors."""
    await _ask(run, 100, direct=False)


async def one_way(run: Run) -> None:
    """`send` without waiting for the answer."""
    n = run.some(20_000, 1_000)
    async with _pool() as address:
        await xoscar.create_actor(Counter, address=address, uid="a")
        ref = await xoscar.actor_ref(address=address, uid="a")

        async def once() -> None:
            for _ in range(n):
                await ref.add.tell(1)
            await ref.add(1)

        await run.repeat(n, once)


async def memory(run: Run) -> None:
    """Bytes of an idle actor with three small fields."""
    n = run.some(100_000, 2_000)
    async with _pool() as address:
        await xoscar.create_actor(Record, "warm", 0, 0.0, address=address, uid="warm")
        before, began = resident_bytes(), perf_counter()
        for number in range(n):
            await xoscar.create_actor(Record, f"name-{number}", number + 1_000, number / 7, address=address, uid=f"a{number}")
        run.record(n / (perf_counter() - began), "spawn")
        run.record((resident_bytes() - before) / n)
