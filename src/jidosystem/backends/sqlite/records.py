"""Records in a SQLite file: `Records` on top of the writer's and the reader's threads."""

from __future__ import annotations

import asyncio
import sqlite3
from asyncio import Future
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, Literal
from zlib import crc32

from ...core.clock import Clock, SystemClock
from ...core.codec import seal, unseal
from ...core.errors import InvalidConfig, RecordUnreadable, StoreError, StoreUnavailable, TooLarge
from ...core.events import Event, decode_event
from ...core.near import one_of
from ...core.outside import Outside, outside_of
from ...core.records import Committed, Record, Records, Row, Settled, StoredRow, Told
from .file import UNLISTED, FileLock, open_file, translate
from .log import SqliteLog
from .reader import Reader, resolve, unsealed
from .statements import Call, Head, Item, Outcome, SealedRow, Write, remove_rows, size_of
from .writer import Writer

PAGE = 1_000
WATCH_BEHIND = 1_000
WRITER = "the writer of the SQLite file"
EXPIRED = "SELECT agent, kind, name FROM rows WHERE expires <= ? ORDER BY expires LIMIT ?"


async def open_store(
    path: str, *, durability: Literal["full", "relaxed"] = "full", max_page_count: int | None = None, clock: Clock | None = None
) -> SqliteRecords:
    """Open a file, made if it isn't there, and own it until `close`.

    `durability="full"`: a commit is fsynced before it returns. "relaxed": a power cut may lose the last commits (a crash
    of the process loses none). Raises `StoreLocked` (another process owns it), `StoreVersion`, `StoreCorrupt`, `StoreUnavailable`.
    """
    if durability not in ("full", "relaxed"):
        raise InvalidConfig(
            f"durability={durability!r}: {one_of(durability, ('full', 'relaxed'))}",
            path="infrastructure.durability",
            value=durability,
            allowed="'full', 'relaxed'",
        )
    loop = asyncio.get_running_loop()
    opening = loop.run_in_executor(None, _open, path, durability, max_page_count, loop, clock or SystemClock())
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:  # a thread can't be stopped: what it has opened is closed again
        await asyncio.wait([opening])
        if opening.exception() is None:
            await opening.result().close()
        raise


def _open(path: str, durability: str, max_page_count: int | None, loop: asyncio.AbstractEventLoop, clock: Clock) -> SqliteRecords:
    lock = FileLock(path)
    try:
        connection = open_file(path, durability, max_page_count)
        try:
            return SqliteRecords(path, lock, connection, loop, clock)
        except sqlite3.Error as error:
            connection.close()
            raise translate(error, path) from error
    except BaseException:
        lock.release()
        raise


class SqliteRecords(Records):
    """See the module; made by `open_store`."""

    max_head_bytes = 64 * 1024 * 1024

    def __init__(self, path: str, lock: FileLock, connection: sqlite3.Connection, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._path = path
        self._lock = lock
        self._loop = loop
        self._clock = clock
        self._closed = False
        self._watchers: dict[str, list[tuple[deque[Record], asyncio.Event]]] = {}
        self._reader = Reader(path, loop, clock)
        try:
            outside = outside_of(loop)
            if outside is None:
                self._writer = Writer(connection, path, loop, clock, self._written, self._settled)
            else:
                written, settled = partial(_end, outside, self._written), partial(_end, outside, self._settled)
                self._writer = Writer(connection, path, loop, clock, written, settled)
        except sqlite3.Error:
            self._reader.stop()
            self._reader.close()
            raise
        self._put = self._writer.put if outside is None else partial(_begin, outside, self._writer.put)
        self._log = SqliteLog(self._reader, loop, self._put, path)

    @property
    def log(self) -> SqliteLog:
        return self._log

    def commit(self, agent: str, expected: int, head: bytes | None, rows: Sequence[Row] = (), events: Sequence[Event] = ()) -> Future[Committed]:
        future: Future[Any] = self._loop.create_future()
        try:
            self.submit(agent, expected, head, rows, events, partial(resolve, future))
        except StoreError as error:
            future.set_exception(error)
        return future

    def submit(self, agent: str, expected: int, head: bytes | None, rows: Sequence[Row], events: Sequence[Event], settled: Settled) -> None:
        if self._closed:
            raise StoreUnavailable(f"{self._path} is closed; nothing was written")
        if head is not None:
            if len(head) > self.max_head_bytes:
                raise TooLarge(
                    f"the record of {agent} has {len(head)} bytes, over {self.max_head_bytes}; nothing was written",
                    agent=agent,
                    limit=self.max_head_bytes,
                )
            if not rows and not events:
                self._put(Head(settled, agent, expected + 1, bytearray(crc32(head).to_bytes(4, "big") + head)))  # `seal`, without a call
                return
        blob = None if head is None else bytearray(seal(head))
        sealed = [_sealed(row) for row in rows]
        encoded = self._log.encode(events) if events else ()
        self._put(Write(settled, agent, expected + 1, blob, sealed, encoded, size_bytes=size_of(blob, sealed, encoded)))

    def _written(self, heads: Sequence[Head]) -> None:
        watchers = self._watchers
        for write in heads:
            committed = Committed(write.revision, ())
            if watchers and write.agent in watchers:
                self._show(write, committed)
            try:
                write.settled(committed, None)
            except Exception as failure:  # see `_tell`, which costs a call
                self._failed(failure)

    def _settled(self, outcomes: Sequence[Outcome]) -> None:
        grew = False
        for item, value, error in outcomes:
            if error is None and isinstance(item, Head | Write):
                grew = grew or (isinstance(item, Write) and bool(item.events))
                if item.agent in self._watchers:
                    self._show(item, value)
            self._tell(item.settled, value, error)
        if grew:
            self._log.grew()

    def _tell(self, settled: Settled, value: Any, error: BaseException | None) -> None:
        try:
            settled(value, error)
        except Exception as failure:  # one commit's owner must not keep the others from hearing of theirs
            self._failed(failure)

    def _failed(self, failure: Exception) -> None:
        self._loop.call_exception_handler({"message": "what a commit's outcome was told to failed", "exception": failure})

    def _show(self, write: Head | Write, committed: Committed) -> None:
        head = None if write.head is None else bytes(unseal(write.head))
        for seen, grown in self._watchers[write.agent]:
            seen.append(Record(write.agent, committed.revision, head))
            grown.set()

    # -- reading -----------------------------------------------------------------------------------------------

    def read(self, agent: str) -> Future[Record | None]:
        return self._reader.ask("head", agent)

    def fetch(self, agent: str, told: Told) -> None:
        self._reader.put("head", agent, told)

    def read_row(self, agent: str, kind: str, name: str) -> Future[bytes | None]:
        return self._reader.ask("row", (agent, kind, name))

    async def read_rows(self, agent: str, kind: str) -> Sequence[StoredRow]:
        now_s = self._clock.time_s()

        def ask(connection: sqlite3.Connection) -> list[tuple[str, bytes]]:
            query = "SELECT name, value FROM rows WHERE agent = ? AND kind = ? AND (expires IS NULL OR expires > ?) ORDER BY name"
            return connection.execute(query, (agent, kind, now_s)).fetchall()

        return [_stored_row(agent, kind, name, value) for name, value in await self._reader.call(ask)]

    async def scan(self, kind: str, start: str = "", end: str | None = None) -> AsyncIterator[Sequence[StoredRow]]:
        listed = "" if kind in UNLISTED else "listed = 1 AND "
        query = (
            f"SELECT name, agent, value FROM rows WHERE {listed}kind = ? AND (name, agent) > (?, ?) AND (? OR name < ?)"
            " AND (expires IS NULL OR expires > ?) ORDER BY name, agent LIMIT ?"
        )
        after = (start, "")
        while True:
            values = (kind, *after, end is None, end or "", self._clock.time_s(), PAGE)
            found = await self._reader.call(_query(query, values))
            if found:
                yield [_scanned_row(agent, kind, name, value) for name, agent, value in found]
                after = (found[-1][0], found[-1][1])
            if len(found) < PAGE:
                return

    async def scan_agents(self, type_name: str, after: str = "") -> AsyncIterator[Sequence[Record]]:
        first, end = f"{type_name}/", f"{type_name}0"  # "0" follows "/"
        query = "SELECT agent, revision, head FROM heads WHERE agent > ? AND agent < ? AND head IS NOT NULL ORDER BY agent LIMIT ?"
        after = max(after, first)
        while True:
            found = await self._reader.call(_query(query, (after, end, PAGE)))
            if found:
                yield [_scanned_record(agent, revision, head) for agent, revision, head in found]
                after = found[-1][0]
            if len(found) < PAGE:
                return

    async def count_agents(self, type_name: str) -> int:
        query = "SELECT count(*) FROM heads WHERE agent > ? AND agent < ? AND head IS NOT NULL"
        found = await self._reader.call(_query(query, (f"{type_name}/", f"{type_name}0")))
        return int(found[0][0])

    async def watch(self, agent: str) -> AsyncIterator[Record]:
        seen: deque[Record] = deque(maxlen=WATCH_BEHIND)
        grown = asyncio.Event()
        watchers = self._watchers.setdefault(agent, [])
        watchers.append((seen, grown))
        last = 0
        try:
            present = await self.read(agent)
            if present is not None:
                last = present.revision
                yield present
            while True:
                if self._closed and not seen:
                    raise StoreUnavailable(f"{self._path} is closed; nothing was written")
                if not seen:
                    grown.clear()
                    await grown.wait()
                    continue
                record = seen.popleft() if len(seen) < WATCH_BEHIND else seen.pop()
                if len(seen) >= WATCH_BEHIND - 1:
                    seen.clear()
                if record.revision > last:  # the read above may have seen it already
                    last = record.revision
                    yield record
        finally:
            watchers.remove((seen, grown))
            if not watchers and self._watchers.get(agent) is watchers:
                del self._watchers[agent]

    # -- keeping house -----------------------------------------------------------------------------------------

    async def remove_expired(self, now_s: float, limit: int = 1_000) -> int:
        def remove(connection: sqlite3.Connection) -> int:
            gone = connection.execute(EXPIRED, (now_s, limit)).fetchall()
            remove_rows(connection, gone)
            return len(gone)

        future: Future[Any] = self._loop.create_future()
        if self._closed:
            raise StoreUnavailable(f"{self._path} is closed; nothing was written")
        self._put(Call(partial(resolve, future), remove))
        removed: int = await future
        return removed

    async def verify(self) -> Sequence[str]:
        return await self._reader.call(verify)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._log.close()
        self._reader.stop()
        for watchers in self._watchers.values():
            for _seen, grown in watchers:
                grown.set()
        await self._loop.run_in_executor(None, self._let_go)

    def _let_go(self) -> None:
        """In a thread, to its end whoever waits for it: the file is nobody's then."""
        self._reader.close()
        self._writer.close()
        self._lock.release()


def _sealed(row: Row) -> SealedRow:
    return SealedRow(row.kind, row.name, None if row.value is None else bytearray(seal(row.value)), row.expires_s, row.create)


def _begin(outside: Outside, put: Callable[[Item], None], item: Item) -> None:
    outside.began(WRITER)
    put(item)


def _end(outside: Outside, tell: Callable[[Sequence[Any]], None], outcomes: Sequence[Any]) -> None:
    tell(outcomes)
    outside.ended(WRITER, len(outcomes))


def _query(query: str, values: tuple[Any, ...]) -> Callable[[sqlite3.Connection], list[Any]]:
    return lambda connection: connection.execute(query, values).fetchall()


def _stored_row(agent: str, kind: str, name: str, value: bytes) -> StoredRow:
    payload = unsealed(value, f"the row {kind}/{name} of {agent}")
    assert payload is not None
    return StoredRow(agent, kind, name, payload)


def _scanned_row(agent: str, kind: str, name: str, value: bytes) -> StoredRow:
    try:
        return _stored_row(agent, kind, name, value)
    except RecordUnreadable as error:
        return StoredRow(agent, kind, name, b"", str(error))


def _scanned_record(agent: str, revision: int, head: bytes) -> Record:
    try:
        return Record(agent, revision, unsealed(head, f"the record of {agent}"))
    except RecordUnreadable as error:
        return Record(agent, revision, b"", str(error))


def verify(connection: sqlite3.Connection) -> list[str]:
    """See `Records.verify`."""
    problems = [str(told) for (told,) in connection.execute("PRAGMA integrity_check(100)") if told != "ok"]
    for agent, head in connection.execute("SELECT agent, head FROM heads WHERE head IS NOT NULL"):
        problems += _checked(head, f"the record of {agent}")
    for agent, kind, name, value in connection.execute("SELECT agent, kind, name, value FROM rows"):
        problems += _checked(value, f"the row {kind}/{name} of {agent}")
    for position, blob in connection.execute("SELECT position, event FROM events"):
        try:
            decode_event(blob, position)
        except RecordUnreadable as error:
            problems.append(str(error))
    return problems


def _checked(blob: bytes, what: str) -> list[str]:
    try:
        unsealed(blob, what)
    except RecordUnreadable as error:
        return [str(error)]
    return []
