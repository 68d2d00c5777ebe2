"""What the tests of the bus share: a store that fails or waits on demand, dead letters, a bus, and one way to wait.

`Store` is the memory adapter; only when it is told to does it fail, wait or lie about an outcome.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from jidosystem.backends.memory import MemoryRecords
from jidosystem.core.bus import EventBus
from jidosystem.core.clock import SystemClock
from jidosystem.core.codec import decode
from jidosystem.core.dead_letters import DeadLetters
from jidosystem.core.events import Event, matcher
from jidosystem.core.ids import Ids
from jidosystem.core.records import Committed, Row
from jidosystem.core.subscriptions import DurableSubscription

PATIENCE_S = 10.0


async def until(fits: Callable[[], Any], what: str = "it") -> Any:
    """Wait until something holds, and return it; the test fails if it never does."""
    for _ in range(int(PATIENCE_S / 0.002)):
        value = fits()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        await asyncio.sleep(0.002)
    raise AssertionError(f"{what} didn't happen within {PATIENCE_S:g} s")


class Store(MemoryRecords):
    """Memory whose commits can be made to fail, to wait, or to happen although they say they failed."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: Exception | None = None
        self.lying: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.commits: list[str] = []

    def commit(self, agent: str, expected: int, head: bytes | None, rows: Sequence[Row] = (), events: Sequence[Event] = ()) -> Future[Committed]:
        self.commits.append(agent)
        failed: Future[Committed] = asyncio.get_running_loop().create_future()
        if self.failing is not None:
            failed.set_exception(self.failing)
            return failed
        done = super().commit(agent, expected, head, rows, events)
        if self.lying is not None:
            failed.set_exception(self.lying)
            return failed
        gate = self.gate
        if gate is None:
            return done

        async def later() -> Committed:
            await gate.wait()
            return await done

        return asyncio.ensure_future(later())


class Bench:
    """A store, its dead letters, a bus and the subscriptions made on them; `seen` is what `saw` was given."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.stack = stack
        self.records = Store()
        self.ids = Ids("test")
        self.letters = DeadLetters(self.records, clock=SystemClock())
        self.bus = self.new_bus()
        self.seen: list[tuple[str, Any]] = []

    def new_bus(self) -> EventBus:
        return EventBus(self.records.log, self.records, dead_letters=self.letters, ids=self.ids, clock=SystemClock())

    async def emit(self, *data: Any, stream: str = "s", of: str = "a.b", metadata: dict[str, Any] | None = None) -> list[int]:
        """Append events, as an agent's turn would."""
        events = [Event(self.ids(), of, "test", "", 0.0, one, stream, metadata or {}) for one in data]
        return list(await self.records.log.append(events))

    async def saw(self, lane: str, events: Sequence[Event]) -> None:
        """A receiver that remembers."""
        self.seen += [(lane, event.data) for event in events]

    async def until_seen(self, count: int) -> None:
        await until(lambda: len(self.seen) >= count, f"{count} deliveries")
        assert len(self.seen) == count

    async def until_letters(self, count: int) -> None:
        async def there() -> bool:
            return len(await self.letters.list()) == count

        await until(there, f"{count} dead letters")

    async def subscribe(
        self,
        deliver: Callable[[str, Sequence[Event]], Awaitable[None]] | None = None,
        *,
        name: str = "one",
        lane_of: Callable[[Event], str | Iterable[str] | None] = lambda event: event.stream,
        start: str | int = "beginning",
        pattern: str = "**",
        **rest: Any,
    ) -> DurableSubscription:
        """A durable subscription below the bus, closed at the end."""
        subscription = DurableSubscription(
            name, self.records.log, self.records, lane_of=lane_of, deliver=deliver or self.saw, matches=matcher(pattern), start=start,
            dead_letters=self.letters, clock=SystemClock(), **rest,
        )  # fmt: skip
        await subscription.start()
        self.stack.push_async_callback(subscription.close, 0.01)
        return subscription

    async def stored(self, name: str = "one") -> int | None:
        """The position that is stored under a name."""
        record = await self.records.read(f"jido.subscription/{name}")
        return None if record is None or record.head is None else decode(record.head)
