"""A node's way to a `SimulatedNats`: `Records` and `EventLog`, real adapters of their contracts. With nothing wrong they keep all of them."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from ..backends.memory import MemoryRecords
from ..core.errors import CommitUnknown, StoreError, StoreFull, StoreUnavailable, UsageError
from ..core.events import Event
from ..core.log import EventLog, LogApart
from ..core.records import Committed, Record, Records, Row, StoredRow
from .nats_model import SimulatedNats, at

T = TypeVar("T")


class _Way:
    """What records and log of one node have in common: how what they ask gets to the store and back."""

    def __init__(self, nats: SimulatedNats, node: str) -> None:
        self.nats, self.link = nats, nats.link(node)
        self.closed = False

    # -- writing ---------------------------------------------------------------------------------------------

    def write(self, what: str, go: Callable[[], Future[T]]) -> Future[T]:
        """Send a write: applied when it arrives, acknowledged if that gets back, unknown if it doesn't in time."""
        nats, link, loop = self.nats, self.link, asyncio.get_running_loop()
        future: Future[T] = loop.create_future()
        what = f"{link.node}: {what}"
        if self.closed or link.closed:
            future.set_exception(StoreUnavailable("the store is closed; nothing was written"))
        elif nats.is_leaderless() and nats.draws(nats.odds.at_once):
            self._refuse(future, StoreUnavailable("no leader; nothing was written"), what)
        elif nats.draws(nats.odds.refused):
            self._refuse(future, StoreUnavailable("refused for the moment; nothing was written"), what)
        else:
            deadline_s = loop.time() + nats.timeout_s
            if nats.draws(nats.odds.unknown):
                self._later(go, future, what, deadline_s)
            else:
                arrival_s = nats.arrival_s(link, writes=True)
                if arrival_s + nats.odds.latency_s >= deadline_s:
                    at(deadline_s, self._give_up, future, what)
                at(arrival_s, self._arrive, go, future, what, deadline_s)
        return future

    def _refuse(self, future: Future[Any], error: StoreError, what: str) -> None:
        self.nats.note(f"{what}: {error}")
        at(asyncio.get_running_loop().time() + self.nats.odds.latency_s, _settle, future, error)

    def _give_up(self, future: Future[Any], what: str) -> None:
        if not future.done():
            self.nats.note(f"{what}: unknown")
            future.set_exception(CommitUnknown(f"{what} wasn't acknowledged within {self.nats.timeout_s:g} s and may have happened"))

    def _later(self, go: Callable[[], Future[T]], future: Future[T], what: str, deadline_s: float) -> None:
        """It isn't acknowledged; perhaps it is applied when nobody expects it any more."""
        at(deadline_s, self._give_up, future, what)
        self._some_time(go, what)

    def _some_time(self, go: Callable[[], Future[T]], what: str) -> None:
        when = self.nats.late_s(self.link)
        if when is not None:
            at(when, self._arrive_late, go, what)

    def _arrive_late(self, go: Callable[[], Future[T]], what: str) -> None:
        if self.nats.is_leaderless():
            self._some_time(go, what)
            return
        error = go().exception()
        self.nats.note(f"{what}: arrives late, {'applied' if error is None else type(error).__name__}")

    def _arrive(self, go: Callable[[], Future[T]], future: Future[T], what: str, deadline_s: float) -> None:
        nats, disk = self.nats, self.nats.disk()
        if not nats.reaches(self.link):
            self._later(go, future, what, deadline_s)
        elif disk in ("full", "failing"):
            full = StoreFull("the disk is full; nothing was written") if disk == "full" else StoreUnavailable("the disk fails; nothing was written")
            self._refuse(future, full, what)
        else:
            done = go()
            at(asyncio.get_running_loop().time() + nats.odds.latency_s / 2, self._acknowledge, done, future, what, deadline_s)

    def _acknowledge(self, done: Future[T], future: Future[T], what: str, deadline_s: float) -> None:
        """If it doesn't get back, the sender gives up, and doesn't know."""
        if not self.nats.reaches(self.link):
            self.nats.note(f"{what}: {'applied' if done.exception() is None else 'decided'}, and the answer is lost")
            at(deadline_s, self._give_up, future, what)
        elif (error := done.exception()) is not None:
            _settle(future, error)
        elif not future.done():
            future.set_result(done.result())

    # -- reading ---------------------------------------------------------------------------------------------

    def read(self, what: str, go: Callable[[MemoryRecords], Future[T]]) -> Future[T]:
        """Ask for something: answered by the store, or by an old leader."""
        future: Future[T] = asyncio.get_running_loop().create_future()
        self._ask(what, future, lambda store: _pass_on(go(store), future))
        return future

    async def there(self, what: str) -> MemoryRecords:
        """What answers a longer read: raises if nothing does."""
        future: Future[MemoryRecords] = asyncio.get_running_loop().create_future()
        self._ask(what, future, future.set_result)
        return await future

    def _ask(self, what: str, future: Future[Any], told: Callable[[MemoryRecords], object]) -> None:
        nats, now = self.nats, asyncio.get_running_loop().time()
        if self.closed or self.link.closed:
            future.set_exception(StoreUnavailable("the store is closed; nothing was written"))
        elif now >= self.link.stale_until and nats.is_leaderless() and nats.draws(nats.odds.at_once):
            self._refuse(future, StoreUnavailable("no leader; nothing can be read"), self._reading(what))
        elif nats.draws(nats.odds.read_fail):
            self._refuse(future, StoreUnavailable("nothing can be read for the moment"), self._reading(what))
        else:
            arrival_s, deadline_s = nats.arrival_s(self.link, writes=False) + nats.odds.latency_s / 2, now + nats.timeout_s
            if arrival_s >= deadline_s:
                at(deadline_s, self._unanswered, future, what)
            at(arrival_s, self._answer, future, told, what, deadline_s)

    def _answer(self, future: Future[Any], told: Callable[[MemoryRecords], object], what: str, deadline_s: float) -> None:
        if future.done():
            return
        if asyncio.get_running_loop().time() < self.link.stale_until and self.link.old is not None:
            self.nats.note(f"{self._reading(what)}: answered by the old leader")
            self.nats.felt["cut_with_old_leader", self.link.node] += 1
            told(self.link.old)
        elif self.nats.reaches(self.link):
            told(self.nats.store)
        else:
            at(deadline_s, self._unanswered, future, what)

    def _unanswered(self, future: Future[Any], what: str) -> None:
        if not future.done():
            future.set_exception(StoreUnavailable(f"{self._reading(what)} wasn't answered within {self.nats.timeout_s:g} s"))

    def _reading(self, what: str) -> str:
        return f"{self.link.node}: a read of {what}"

    async def pages(self, what: str, pages: Callable[[MemoryRecords], AsyncIterator[T]]) -> AsyncIterator[T]:
        """The pages of a longer read: all of them from one store, late perhaps, never a part."""
        async for page in pages(await self.there(what)):
            yield page

    async def watched(self, going_on: AsyncIterator[T]) -> AsyncIterator[T]:
        """What is watched, when the node's watches hear of it: never too little, perhaps much too late."""
        async for one in going_on:
            await self.nats.heard(self.link)
            if self.closed:
                raise StoreUnavailable("the store is closed; nothing was written")
            yield one


class SimulatedRecords(Records):
    """A node's records on a `SimulatedNats`. Records and log are apart, as on NATS: `log` is None, and a commit takes no events."""

    max_head_bytes = MemoryRecords.max_head_bytes

    def __init__(self, nats: SimulatedNats, node: str) -> None:
        self._way = _Way(nats, node)
        self._store = nats.store
        self._closing = asyncio.Event()

    @property
    def log(self) -> EventLog | None:
        """None: the log is a store of its own."""
        return None

    def commit(self, agent: str, expected: int, head: bytes | None, rows: Sequence[Row] = (), events: Sequence[Event] = ()) -> Future[Committed]:
        """See `Records.commit`."""
        if events:
            raise UsageError(f"the commit of {agent} has events, and its store keeps no log: append them to the log")
        return self._way.write(f"a commit of {agent} at {expected}", partial(self._apply, agent, expected, head, tuple(rows)))

    def _apply(self, agent: str, expected: int, head: bytes | None, rows: Sequence[Row]) -> Future[Committed]:
        done = self._store.commit(agent, expected, head, rows)
        if done.exception() is None:
            for told in self._way.nats.on_commit:
                told(self._way.link.node, Record(agent, done.result().revision, head))
        return done

    def read(self, agent: str) -> Future[Record | None]:
        """See `Records.read`."""
        return self._way.read(agent, lambda store: store.read(agent))

    def read_row(self, agent: str, kind: str, name: str) -> Future[bytes | None]:
        """See `Records.read_row`."""
        return self._way.read(f"{agent}/{kind}/{name}", lambda store: store.read_row(agent, kind, name))

    async def read_rows(self, agent: str, kind: str) -> Sequence[StoredRow]:
        """See `Records.read_rows`."""
        return await (await self._way.there(f"{agent}/{kind}")).read_rows(agent, kind)

    def scan(self, kind: str, start: str = "", end: str | None = None) -> AsyncIterator[Sequence[StoredRow]]:
        """See `Records.scan`."""
        return self._way.pages(f"rows of kind {kind}", lambda store: store.scan(kind, start, end))

    def scan_agents(self, type_name: str, after: str = "") -> AsyncIterator[Sequence[Record]]:
        """See `Records.scan_agents`."""
        return self._way.pages(f"agents of type {type_name}", lambda store: store.scan_agents(type_name, after))

    async def watch(self, agent: str) -> AsyncIterator[Record]:
        """See `Records.watch`; it may hear nothing for a long time."""
        await self._way.there(f"{agent}, watched")
        async for record in self._way.watched(_until_closed(self._store.watch(agent), self._closing)):
            yield record

    async def remove_expired(self, now_s: float, limit: int = 1_000) -> int:
        """See `Records.remove_expired`."""
        await self._way.there("expired rows")
        return await self._store.remove_expired(now_s, limit)

    async def verify(self) -> Sequence[str]:
        """See `Records.verify`."""
        return await (await self._way.there("everything")).verify()

    async def close(self) -> None:
        """The node is gone; the store stays."""
        self._way.closed = True
        self._closing.set()


class SimulatedLog(LogApart):
    """A node's log on a `SimulatedNats`, apart from the records."""

    max_event_bytes = MemoryRecords().events.max_event_bytes

    def __init__(self, nats: SimulatedNats, node: str) -> None:
        self._way = _Way(nats, node)
        self._log = nats.store.events
        self._closing = asyncio.Event()

    def append(self, events: Sequence[Event], expected: int | None = None) -> Future[Sequence[int]]:
        """See `EventLog.append`."""
        stream = events[0].stream if events else ""
        return self._way.write(f"an append to {stream}", partial(self._log.append, tuple(events), expected))

    async def append_once(self, emitter: str, number: int, events: Sequence[Event]) -> None:
        """See `LogApart.append_once`."""
        await self._way.write(f"an append of {emitter}'s {number}", partial(self._add_once, emitter, number, tuple(events)))

    def _add_once(self, emitter: str, number: int, events: Sequence[Event]) -> Future[None]:
        future: Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._log.add_once(emitter, number, events)
        except StoreError as error:
            future.set_exception(error)
        else:
            future.set_result(None)
        return future

    def read(self, after: int = 0, *, stream: str | None = None) -> AsyncIterator[Sequence[Event]]:
        """See `EventLog.read`."""
        return self._way.pages("the log", lambda store: store.events.read(after, stream=stream))

    async def follow(self, after: int = 0, *, stream: str | None = None) -> AsyncIterator[Sequence[Event]]:
        """See `EventLog.follow`; it may hear nothing for a long time."""
        await self._way.there("the log, followed")
        async for page in self._way.watched(_until_closed(self._log.follow(after, stream=stream), self._closing)):
            yield page

    async def last(self, stream: str | None = None) -> int:
        """See `EventLog.last`."""
        return await (await self._way.there("the end of the log")).events.last(stream)

    async def close(self) -> None:
        """The node is gone; the log stays."""
        self._way.closed = True
        self._closing.set()


async def _until_closed(going_on: AsyncIterator[T], closing: asyncio.Event) -> AsyncIterator[T]:
    """What goes on for ever, until its reader's store is closed: `StoreUnavailable`."""
    iterator = aiter(going_on)
    closed = asyncio.ensure_future(closing.wait())
    following: asyncio.Future[T] | None = None
    try:
        while True:
            following = asyncio.ensure_future(anext(iterator))
            await asyncio.wait({following, closed}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                raise StoreUnavailable("the store is closed; nothing was written")
            yield following.result()
    finally:
        if isinstance(iterator, AsyncGenerator) and (following is None or following.done()):
            await iterator.aclose()
        left: list[asyncio.Future[Any]] = [future for future in (following, closed) if future is not None and not future.done()]
        for future in left:
            future.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _settle(future: Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _pass_on(done: Future[T], future: Future[T]) -> None:
    if (error := done.exception()) is not None:
        future.set_exception(error)
    else:
        future.set_result(done.result())
