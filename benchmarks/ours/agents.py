"""The agents that the workloads call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from jidosystem import Agent, Platform, action


class Counter(Agent):
    """Counts: one small number."""

    value: int = 0

    @action(readonly=True)
    async def get(self) -> int:
        return self.value

    @action
    async def look(self) -> int:
        """An action that could write and changes nothing."""
        return self.value

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value


class Record(Agent):
    """Three small fields."""

    name: str = ""
    count: int = 0
    share: float = 0.0

    @action
    async def set(self, number: int) -> None:
        self.name, self.count, self.share = f"name-{number}", number + 1_000, number / 7


class Blob(Agent):
    """A state of any size."""

    content: bytes = b""
    value: int = 0

    @action
    async def fill(self, size_bytes: int) -> None:
        self.content = bytes(size_bytes)

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    @action(readonly=True)
    async def get(self) -> int:
        return self.value


def on_disk(path: Any) -> str:
    """The URL of a SQLite file."""
    return f"sqlite:///{path}"


async def together(callers: int, each: int, call: Callable[[int], Awaitable[object]]) -> None:
    """So many callers at once, each calling so often, one call after another."""

    async def caller(number: int) -> None:
        for _ in range(each):
            await call(number)

    await asyncio.gather(*map(caller, range(callers)))


async def share(callers: int, items: range, call: Callable[[int], Awaitable[object]]) -> None:
    """So many callers at once, who take the items from one list."""
    waiting = iter(items)

    async def caller() -> None:
        for item in waiting:
            await call(item)

    await asyncio.gather(*(caller() for _ in range(callers)))


def plain(url: str = "memory://", *classes: type[Agent], **config: Any) -> Platform:
    """A platform as users open it, but for what the workload needs."""
    return Platform(url, agents=classes, config=config or None)
