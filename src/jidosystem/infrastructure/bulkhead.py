"""The bulkhead: so many at a time, so many more may wait in turn, and one more is refused.

A place that is free costs no trip through the event loop (`try_acquire`). Those who wait are served in order; one who
gives up, even in the moment when the place is handed over, leaves no place behind that nobody can take.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ..core.blame import block
from ..core.checks import check_whole
from ..core.errors import BulkheadFull


@block
@dataclass(frozen=True, slots=True)
class Bulkhead:
    """So many turns of the agent type run at a time on this node; `max_waiting` more wait, in order, and any further call gets `BulkheadFull`."""

    max_concurrent: int = 100
    max_waiting: int = 1_000

    def __post_init__(self) -> None:
        check_whole("Bulkhead", "max_concurrent", self.max_concurrent, 1)
        check_whole("Bulkhead", "max_waiting", self.max_waiting, 0)


class BulkheadState:
    """The places of one bulkhead; `name` is whose they are, for the messages. Only for one event loop's thread."""

    __slots__ = ("_name", "_policy", "_waiters", "running")

    def __init__(self, policy: Bulkhead, name: str) -> None:
        self._policy = policy
        self._name = name
        self._waiters: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self.running = 0

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiters)

    def try_acquire(self) -> bool:
        """Take a place if one is free, which it only is while nobody waits; each True needs one `release`."""
        if self.running < self._policy.max_concurrent:
            self.running += 1
            return True
        return False

    async def acquire(self) -> None:
        """Take a place, waiting in turn for one; `BulkheadFull` at once if too many wait. Needs one `release`."""
        if self.try_acquire():
            return
        if len(self._waiters) >= self._policy.max_waiting:
            raise BulkheadFull(
                f"{self._name}: {self.running} at a time run and {len(self._waiters)} wait, the limits of its bulkhead; try again later",
                agent=self._name,
                running=self.running,
                waiting=len(self._waiters),
            )
        place = asyncio.get_running_loop().create_future()
        self._waiters[place] = None
        try:
            await place
        except BaseException:
            if place.done() and not place.cancelled():
                self.release()  # handed over and given up in the same moment
            else:
                self._waiters.pop(place, None)
            raise

    def release(self) -> None:
        """Give a place back: it goes to whoever has waited longest."""
        if self.running == 0:
            raise RuntimeError(f"{self._name}: release() without a place taken")
        while self._waiters:
            place, _ = self._waiters.popitem(last=False)
            if not place.done():
                place.set_result(None)
                return
        self.running -= 1

    @asynccontextmanager
    async def place(self) -> AsyncGenerator[None]:
        """`async with bulkhead.place():` takes a place for the block."""
        await self.acquire()
        try:
            yield
        finally:
            self.release()
