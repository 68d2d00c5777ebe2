"""The program that is killed: agents that leave a trace of everything they do, in their state and in the log alike.

Every turn that changes an agent notes one thing: it counts it, folds it into the state's `trace`, and emits it. State
and log therefore tell the same story or something was lost, doubled or torn.
"""

from __future__ import annotations

from dataclasses import field
from time import time
from zlib import crc32

from jidosystem import Agent, Event, Rejected, action, on_event

ACCOUNTS = 12
TICK_S = 0.05
CONFIG = {"agents.max_live": 10, "agents.idle_timeout": 0.2, "platform.shutdown_timeout": 5}
"""Few may live and none for long: agents come and go all the time."""


def fold(trace: int, what: str, op: int) -> int:
    """The trace after one more thing; depends on all things and their order."""
    return crc32(f"{what} {op}".encode(), trace)


class Noting(Agent):
    """Notes what it does."""

    count: int = 0
    trace: int = 0

    def _note(self, what: str, op: int, **more: object) -> int:
        self.count += 1
        self.trace = fold(self.trace, what, op)
        self.emit(f"t.{what}", {"op": op, "n": self.count, **more})
        return self.count


class Account(Noting):
    """Holds money, sends it to others, promises things for later."""

    balance: int = 0

    @action
    async def deposit(self, op: int, amount: int) -> int:
        self.balance += amount
        return self._note("deposited", op, amount=amount)

    @action
    async def transfer(self, op: int, to: str, amount: int) -> int:
        self.balance -= amount
        self.cast(self.agent(Account, to).receive, op, amount)
        return self._note("sent", op, to=to, amount=amount)

    @action
    async def receive(self, op: int, amount: int) -> int:
        self.balance += amount
        return self._note("received", op, amount=amount)

    @action
    async def relay(self, op: int, path: list[str]) -> int:
        if path:
            self.cast(self.agent(Account, path[0]).relay, op, path[1:])
        return self._note("relayed", op, path=path)

    @action
    async def promise(self, op: int, delay_s: float) -> int:
        due_s = time() + delay_s
        self.remind(f"p{op}", after=delay_s, action=self.keep, args={"op": op})
        return self._note("promised", op, due_s=due_s)

    @action
    async def keep(self, op: int) -> None:
        self._note("kept", op)

    @action
    async def nest(self, op: int, other: str) -> int:
        inner = await self.call(self.agent(Account, other).deposit, op, 1, idempotency_key=f"n{op}")
        return self._note("nested", op, other=other, inner=inner)

    @action
    async def refuse(self, op: int, to: str) -> int:
        self.balance -= 1
        self._note("never", op)
        self.cast(self.agent(Account, to).receive, op, 1)
        self.remind(f"p{op}", after=0.01, action=self.keep, args={"op": op})
        raise Rejected("no")


class Ticker(Noting):
    """Ticks, and counts the ticks that nobody was there for."""

    ticks: int = 0

    @action
    async def begin(self) -> None:
        if not self.reminders:
            self.remind("tick", every=TICK_S, action=self.tick)
            self._note("began", 0)

    @action
    async def tick(self, missed: int) -> None:
        self.ticks += 1 + missed
        self._note("ticked", missed, ticks=self.ticks)


class Tally(Agent):
    """Follows what one account notes."""

    count: int = 0
    trace: int = 0
    kinds: dict[str, int] = field(default_factory=dict)

    @on_event("t.*", key="source", batch=20)
    async def follow(self, events: list[Event]) -> None:
        for event in events:
            what = event.type.removeprefix("t.")
            self.count += 1
            self.trace = fold(self.trace, what, event.data["op"])
            self.kinds[what] = self.kinds.get(what, 0) + 1
        self.emit("tally", {"of": self.key, "count": self.count})


AGENTS = (Account, Ticker, Tally)


def account(number: int) -> str:
    """The key of an account."""
    return f"a{number:02d}"
