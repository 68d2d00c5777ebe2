"""What the nodes of these tests run: agents whose every answer can be judged from outside."""

from __future__ import annotations

import time
from dataclasses import field

from jidosystem import Agent, Event, action, on_event


class Register(Agent):
    """A value. Who writes without a key may be told that the outcome is unknown."""

    value: str = ""

    @action
    async def write(self, value: str) -> None:
        self.value = value

    @action(readonly=True)
    async def read(self) -> str:
        return self.value


class Counter(Agent):
    """Counts, and says each time in the log what it counted."""

    value: int = 0

    @action
    async def add(self, op: str) -> int:
        self.value += 1
        self.emit("counter.added", {"counter": self.key, "op": op})
        return self.value

    @action(readonly=True)
    async def read(self) -> int:
        return self.value


class Ledger(Agent):
    """All that a counter has said, in the order in which it came."""

    ops: list[str] = field(default_factory=list)

    @on_event("counter.added", key="data.counter")
    async def note(self, event: Event) -> None:
        self.ops.append(event.data["op"])

    @action(readonly=True)
    async def read(self) -> list[str]:
        return self.ops


class Sentry(Agent, resident=True):
    """Is there although nobody calls."""

    posted: int = 0

    @action
    async def post(self) -> int:
        self.posted += 1
        return self.posted

    @action
    async def parrot(self, size: int) -> str:
        """As many letters: an answer that takes room."""
        return "x" * size


HOARD: list[bytearray] = []


class Burden(Agent):
    """Is bad for the node on which it lives."""

    @action
    async def block(self, seconds: float) -> None:
        """Nothing else goes on meanwhile in this process."""
        time.sleep(seconds)  # noqa: ASYNC251 - that is what it is for

    @action
    async def hoard(self, size: int) -> None:
        """Takes memory, and never gives it back."""
        HOARD.append(bytearray(size))
