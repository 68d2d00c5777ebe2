"""`FaultyRecords`: any store, with faults. A real adapter: with none it keeps every promise of the contract, whatever is inside."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from ..core.errors import CommitUnknown, StoreUnavailable
from ..core.events import Event
from ..core.log import EventLog
from ..core.records import Committed, Record, Records, Row, StoredRow
from .faults import Fate, Faults

T = TypeVar("T")
Heard = Callable[[Sequence[Event], Sequence[int]], None]


class FaultyRecords(Records):
    """Any store, and its log, with what `faults` says. A real adapter of `Records`: without faults it passes the conformance suite. `crash` is
    called where a crash is scheduled, `heard` with events that have become durable and their positions. `owns`: closing it closes what is
    inside, `inner`.
    """

    def __init__(
        self, inner: Records, faults: Faults, *, crash: Callable[[], None] | None = None, heard: Heard | None = None, owns: bool = True
    ) -> None:  # fmt: skip
        self.inner = inner
        self.max_head_bytes = inner.max_head_bytes
        self.dead = False
        self._faults, self._crash, self._heard, self._owns = faults, crash, heard, owns
        self._log = FaultyLog(inner.log, self) if inner.log is not None else None

    @property
    def log(self) -> EventLog | None:
        """The inner store's log, with faults."""
        return self._log

    def die(self) -> None:
        """From now on nothing is answered and nothing reaches the inside: the process is gone, as far as the store can tell. `dead` says so."""
        self.dead = True

    def _end(self) -> None:
        self.die()
        if self._crash is not None:
            self._crash()

    # -- writing ---------------------------------------------------------------------------------------------

    def commit(self, agent: str, expected: int, head: bytes | None, rows: Sequence[Row] = (), events: Sequence[Event] = ()) -> Future[Committed]:
        """See `Records.commit`."""
        return self._write(agent, partial(self._commit, agent, expected, head, rows, events))

    def _commit(self, agent: str, expected: int, head: bytes | None, rows: Sequence[Row], events: Sequence[Event]) -> Future[Committed]:
        done = self.inner.commit(agent, expected, head, rows, events)
        if events:
            self._hear_of(done, events, lambda committed: committed.positions)
        return done

    def _hear_of(self, done: Future[T], events: Sequence[Event], positions: Callable[[T], Sequence[int]]) -> None:
        """Tell of events once they are durable."""

        def tell(ended: Future[T]) -> None:
            if self._heard is not None and not ended.cancelled() and ended.exception() is None:
                self._heard(events, positions(ended.result()))

        if done.done():
            tell(done)
        else:
            done.add_done_callback(tell)

    def _write(self, agent: str, go: Callable[[], Future[T]]) -> Future[T]:
        """Do what changes the store as its fate says."""
        loop = asyncio.get_running_loop()
        future: Future[T] = loop.create_future()
        if self.dead:
            return future
        fate = self._faults.of_commit(agent, loop.time())
        if fate is None:
            self._go(go, future, None)
        elif fate.kind == "slow":
            loop.call_later(fate.delay_s, self._go, go, future, None)
        elif fate.kind == "crash-before":
            self._end()
        elif fate.kind == "fail":
            future.set_exception(StoreUnavailable(f"the store doesn't work just now; the commit of {agent} didn't happen (a fault of the test)"))
        elif fate.kind == "lost":
            future.set_exception(_unknown(agent))
        else:
            self._go(go, future, partial(self._after, agent, fate))
        return future

    def _after(self, agent: str, fate: Fate, future: Future[Any]) -> None:
        """It has happened, and its caller isn't to know."""
        if fate.kind == "crash-after":
            self._end()
        else:
            future.set_exception(_unknown(agent))

    def _go(self, go: Callable[[], Future[T]], future: Future[T], instead: Callable[[Future[T]], None] | None) -> None:
        if self.dead:
            return
        try:
            done = go()
        except Exception as error:  # a mistake of the caller's, as the inner store tells it
            if not future.done():
                future.set_exception(error)
            return
        if done.done():
            self._pass_on(future, instead, done)
        else:
            done.add_done_callback(partial(self._pass_on, future, instead))

    def _pass_on(self, future: Future[T], instead: Callable[[Future[T]], None] | None, done: Future[T]) -> None:
        error = None if done.cancelled() else done.exception()
        if self.dead or future.done():
            return
        if done.cancelled():
            future.cancel()
        elif error is not None:
            future.set_exception(error)
        elif instead is not None:
            instead(future)
        else:
            future.set_result(done.result())

    # -- reading ---------------------------------------------------------------------------------------------

    def read(self, agent: str) -> Future[Record | None]:
        """See `Records.read`."""
        return self._read(agent, partial(self.inner.read, agent))

    def read_row(self, agent: str, kind: str, name: str) -> Future[bytes | None]:
        """See `Records.read_row`."""
        return self._read(agent, partial(self.inner.read_row, agent, kind, name))

    def _read(self, agent: str, go: Callable[[], Future[T]]) -> Future[T]:
        loop = asyncio.get_running_loop()
        future: Future[T] = loop.create_future()
        if self.dead:
            return future
        fate = self._faults.of_read(agent, loop.time())
        if fate is None:
            self._go(go, future, None)
        elif fate.kind == "slow":
            loop.call_later(fate.delay_s, self._go, go, future, None)
        else:
            future.set_exception(_unreadable(agent))
        return future

    async def _reading(self, what: str) -> None:
        """Wait, raise or hang, as the fate of a longer read says."""
        loop = asyncio.get_running_loop()
        if self.dead:
            await loop.create_future()
        fate = self._faults.of_read(what, loop.time())
        if fate is not None and fate.kind == "slow":
            await asyncio.sleep(fate.delay_s)
        elif fate is not None:
            raise _unreadable(what)

    async def _pages(self, what: str, inner: AsyncIterator[T]) -> AsyncIterator[T]:
        """The pages of a longer read, none of them after the end of the process."""
        await self._reading(what)
        try:
            async for page in inner:
                if self.dead:
                    await asyncio.get_running_loop().create_future()
                yield page
        finally:
            if isinstance(inner, AsyncGenerator):
                await inner.aclose()

    async def read_rows(self, agent: str, kind: str) -> Sequence[StoredRow]:
        """See `Records.read_rows`."""
        await self._reading(agent)
        return await self.inner.read_rows(agent, kind)

    def scan(self, kind: str, start: str = "", end: str | None = None) -> AsyncIterator[Sequence[StoredRow]]:
        """See `Records.scan`."""
        return self._pages(f"rows of kind {kind}", self.inner.scan(kind, start, end))

    def scan_agents(self, type_name: str, after: str = "") -> AsyncIterator[Sequence[Record]]:
        """See `Records.scan_agents`."""
        return self._pages(f"agents of type {type_name}", self.inner.scan_agents(type_name, after))

    def watch(self, agent: str) -> AsyncIterator[Record]:
        """See `Records.watch`."""
        return self._pages(agent, self.inner.watch(agent))

    # -- keeping house ---------------------------------------------------------------------------------------

    async def remove_expired(self, now_s: float, limit: int = 1_000) -> int:
        """See `Records.remove_expired`."""
        await self._reading("expired rows")
        return await self.inner.remove_expired(now_s, limit)

    async def verify(self) -> Sequence[str]:
        """See `Records.verify`."""
        return await self.inner.verify()

    async def close(self) -> None:
        """See `Records.close`."""
        if self._owns:
            await self.inner.close()


class FaultyLog(EventLog):
    """The log of a `FaultyRecords`; an append is a commit of `log/<stream>`."""

    def __init__(self, inner: EventLog, records: FaultyRecords) -> None:
        self._inner, self._records = inner, records
        self.max_event_bytes = inner.max_event_bytes

    def append(self, events: Sequence[Event], expected: int | None = None) -> Future[Sequence[int]]:
        """See `EventLog.append`."""
        return self._records._write(f"log/{events[0].stream if events else ''}", partial(self._append, events, expected))

    def _append(self, events: Sequence[Event], expected: int | None) -> Future[Sequence[int]]:
        done = self._inner.append(events, expected)
        self._records._hear_of(done, events, lambda positions: positions)
        return done

    def read(self, after: int = 0, *, stream: str | None = None) -> AsyncIterator[Sequence[Event]]:
        """See `EventLog.read`."""
        return self._records._pages("the log", self._inner.read(after, stream=stream))

    def follow(self, after: int = 0, *, stream: str | None = None) -> AsyncIterator[Sequence[Event]]:
        """See `EventLog.follow`."""
        return self._records._pages("the log", self._inner.follow(after, stream=stream))

    async def last(self, stream: str | None = None) -> int:
        """See `EventLog.last`."""
        await self._records._reading("the log")
        return await self._inner.last(stream)


def _unknown(agent: str) -> CommitUnknown:
    return CommitUnknown(f"the commit of {agent} may have happened (a fault of the test)")


def _unreadable(what: str) -> StoreUnavailable:
    return StoreUnavailable(f"the store can't be read just now: {what} (a fault of the test)")
