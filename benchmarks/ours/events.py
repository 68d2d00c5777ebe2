"""The event bus and the log."""

from __future__ import annotations

import asyncio
from typing import Any

from jidosystem import Platform

from ..measure import Run
from ..writer import APPEND, EVENT, LIMIT, bare_writer
from .agents import on_disk, plain, together


async def publish_64(run: Run) -> None:
    """64 publishers, each waiting until its event is durable; by turns with the bare writer."""
    each = run.some(200, 5)
    async with plain(on_disk(run.scratch / "bench.db")) as platform:
        with bare_writer(run, APPEND, 64, each, ("bench.happened", EVENT)) as bare:
            publish = lambda number: platform.events.publish("bench.happened", {"number": number})  # noqa: E731
            await run.by_turns(64 * each, {"": lambda: together(64, each, publish), LIMIT: bare})


async def fan_out(run: Run, subscribers: int, n: int, name: str = "") -> None:
    """Events stored in memory and handed to subscribers: half of them functions, half coroutines that don't wait.

    The publishers don't wait for each other, and the clock stops when the last subscriber has seen the last event.
    """
    seen = 0
    expected = 0
    all_seen = asyncio.Event()

    def function(_event: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == expected:
            all_seen.set()

    async def coroutine(_event: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == expected:
            all_seen.set()

    async with Platform() as platform:
        for number in range(subscribers):
            await platform.events.subscribe("bench.*", coroutine if number % 2 else function)

        async def once() -> None:
            nonlocal expected
            all_seen.clear()
            expected = seen + n * subscribers
            await together(10, n // 10, lambda number: platform.events.publish("bench.happened", {"number": number}))
            await all_seen.wait()

        await run.repeat(n * subscribers, once, name)


async def fan_out_100(run: Run) -> None:
    """100 subscribers."""
    await fan_out(run, 100, run.some(5_000, 50))


async def fill(platform: Platform, n: int) -> None:
    """Put so many events into the log."""
    await together(min(1_000, n), max(1, n // 1_000), lambda number: platform.events.publish("bench.happened", {"number": number}))


async def replay(run: Run) -> None:
    """Events read from the log by `read_all`."""
    n = run.some(200_000, 1_000)
    async with plain(on_disk(run.scratch / "bench.db")) as platform:
        await fill(platform, n)

        async def read() -> None:
            seen = 0
            async for _event in platform.events.read_all("bench.*"):
                seen += 1
            assert seen == n

        await run.repeat(n, read)


async def follow(run: Run) -> None:
    """Events that are stored already, followed from the beginning."""
    n = run.some(200_000, 1_000)
    async with plain(on_disk(run.scratch / "bench.db")) as platform:
        await fill(platform, n)

        async def read() -> None:
            seen = 0
            async for _event in platform.events.follow("bench.*", after=0):
                seen += 1
                if seen == n:
                    return

        await run.repeat(n, read)
