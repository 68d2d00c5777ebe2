"""A process that comes back to a store: says at what time (seconds since the epoch) it was there.

python -m benchmarks.ours.back first_answer|all_residents FILE NUMBER
"""

from __future__ import annotations

import asyncio
import sys
from time import time

from jidosystem import Agent, Platform, action, on_load

from .agents import Counter, on_disk


class Resident(Agent, resident=True):
    """Activated at start without being called."""

    value: int = 0

    @on_load
    def count(self) -> None:
        BACK.arrived()

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value


class Back:
    """How many residents are there."""

    def __init__(self) -> None:
        self.missing = 0
        self.all = asyncio.Event()

    def arrived(self) -> None:
        self.missing -= 1
        if self.missing == 0:
            self.all.set()


BACK = Back()


async def first_answer(path: str, number: int) -> None:
    """Call one of the stored agents."""
    async with Platform(on_disk(path), agents=[Counter]) as platform:
        assert await platform.agent(Counter, f"agent-{number:07}").get() == 1
        print(time(), flush=True)


async def all_residents(path: str, number: int) -> None:
    """Wait for the residents."""
    BACK.missing = number
    async with Platform(on_disk(path), agents=[Resident]):
        await BACK.all.wait()
        print(time(), flush=True)


if __name__ == "__main__":
    asyncio.run({"first_answer": first_answer, "all_residents": all_residents}[sys.argv[1]](sys.argv[2], int(sys.argv[3])))
