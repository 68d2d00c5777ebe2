"""Records in memory: dictionaries, and commits that are done when they return."""

from __future__ import annotations

import asyncio
from asyncio import Future
from bisect import bisect_left, insort
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

from ...core.clock import Clock, SystemClock
from ...core.errors import Conflict, RowExists, StoreError, StoreUnavailable, TooLarge
from ...core.events import Event
from ...core.records import Committed, Record, Records, Row, Settled, StoredRow
from .log import MemoryLog

PAGE = 1_000
WATCH_BEHIND = 1_000

_Stored = tuple[bytes, float | None]


def _never_later(_committed: Committed | None, _error: BaseException | None) -> None:
    """Memory is as durable as it will ever be when `submit` returns."""


class MemoryRecords(Records):
    """The log is part of it: both change in one step. `apart`: it has none, as where records and log are two engines."""

    at_once = True
    max_head_bytes = 64 * 1024 * 1024

    def __init__(self, clock: Clock | None = None, *, apart: bool = False) -> None:
        self._clock = clock or SystemClock()
        self._log, self._apart = MemoryLog(), apart
        self._heads: dict[str, tuple[int, bytes | None]] = {}
        self._rows: dict[str, dict[tuple[str, str], _Stored]] = {}  # agent -> (kind, name) -> row
        self._names: dict[str, list[tuple[str, str]]] = {}  # kind -> sorted (name, agent)
        self._watchers: dict[str, list[tuple[deque[Record], asyncio.Event]]] = {}
        self._new_future: Any = None
        self._closed = False

    @property
    def events(self) -> MemoryLog:
        """The log that lies beside the records, whether it commits with them or not."""
        return self._log

    @property
    def log(self) -> MemoryLog | None:
        return None if self._apart else self._log

    def copy(self) -> MemoryRecords:
        """A store of its own that holds what this one holds now; nobody watches it."""
        other = MemoryRecords(self._clock)
        other._log = self._log.copy()
        other._heads = dict(self._heads)
        other._rows = {agent: dict(rows) for agent, rows in self._rows.items()}
        other._names = {kind: list(names) for kind, names in self._names.items()}
        return other

    def commit(self, agent: str, expected: int, head: bytes | None, rows: Sequence[Row] = (), events: Sequence[Event] = ()) -> Future[Committed]:
        future: Future[Any] = (self._new_future or self._bind())()
        try:
            committed = self.submit(agent, expected, head, rows, events, _never_later)
        except StoreError as error:
            future.set_exception(error)
        else:
            future.set_result(committed)
        return future

    def submit(
        self, agent: str, expected: int, head: bytes | None, rows: Sequence[Row], events: Sequence[Event], settled: Settled
    ) -> Committed | None:
        present = self._heads.get(agent)
        actual = 0 if present is None else present[0]
        if actual != expected or rows or events or self._closed or head is None or len(head) > self.max_head_bytes:
            return self._commit_all(agent, expected, actual, head, rows, events)
        revision = actual + 1
        self._heads[agent] = (revision, head)
        if self._watchers:
            self._tell(agent, revision, head)
        return Committed(revision, ())

    def _bind(self) -> Any:
        self._new_future = asyncio.get_running_loop().create_future
        return self._new_future

    def _commit_all(self, agent: str, expected: int, actual: int, head: bytes | None, rows: Sequence[Row], events: Sequence[Event]) -> Committed:
        if self._closed:
            raise StoreUnavailable("the store is closed; nothing was written")
        if actual != expected:
            raise Conflict(f"{agent} is at revision {actual}, not {expected}; nothing was written", agent=agent, expected=expected, actual=actual)
        if head is not None and len(head) > self.max_head_bytes:
            raise TooLarge(
                f"the record of {agent} has {len(head)} bytes, over {self.max_head_bytes}; nothing was written",
                agent=agent,
                limit=self.max_head_bytes,
            )
        for row in rows:
            if row.create and head is not None and self._find(agent, row.kind, row.name) is not None:
                raise RowExists(f"{agent} has a row {row.kind}/{row.name} already", agent=agent, kind=row.kind, name=row.name)
        if events and self._apart:
            raise StoreError(f"{agent}: events don't commit with records here; nothing was written")
        blobs = self._log.prepare(events) if events else []
        if head is None:
            self._drop_rows(agent)
        for row in rows:
            self._put(agent, row)
        positions = self._log.add(events, blobs) if events else ()
        self._heads[agent] = (actual + 1, head)
        if self._watchers:
            self._tell(agent, actual + 1, head)
        return Committed(actual + 1, positions)

    def _put(self, agent: str, row: Row) -> None:
        of_agent = self._rows.get(agent)
        place = (row.kind, row.name)
        if row.value is None:
            if of_agent is not None and of_agent.pop(place, None) is not None:
                self._unname(agent, row.kind, row.name)
            return
        if of_agent is None:
            of_agent = self._rows[agent] = {}
        if place not in of_agent:
            insort(self._names.setdefault(row.kind, []), (row.name, agent))
        of_agent[place] = (row.value, row.expires_s)

    def _unname(self, agent: str, kind: str, name: str) -> None:
        names = self._names[kind]
        del names[bisect_left(names, (name, agent))]

    def _drop_rows(self, agent: str) -> None:
        for kind, name in self._rows.pop(agent, {}):
            self._unname(agent, kind, name)

    def _find(self, agent: str, kind: str, name: str) -> bytes | None:
        stored = self._rows.get(agent, {}).get((kind, name))
        if stored is None or (stored[1] is not None and stored[1] <= self._clock.time_s()):
            return None
        return stored[0]

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed; nothing was written")

    def read(self, agent: str) -> Future[Record | None]:
        future: Future[Record | None] = (self._new_future or self._bind())()
        if self._closed:
            future.set_exception(StoreUnavailable("the store is closed; nothing was written"))
            return future
        present = self._heads.get(agent)
        future.set_result(None if present is None else Record(agent, *present))
        return future

    def read_row(self, agent: str, kind: str, name: str) -> Future[bytes | None]:
        future: Future[bytes | None] = (self._new_future or self._bind())()
        if self._closed:
            future.set_exception(StoreUnavailable("the store is closed; nothing was written"))
        else:
            future.set_result(self._find(agent, kind, name))
        return future

    async def read_rows(self, agent: str, kind: str) -> Sequence[StoredRow]:
        self._check_open()
        names = sorted(name for k, name in self._rows.get(agent, {}) if k == kind)
        found = ((name, self._find(agent, kind, name)) for name in names)
        return [StoredRow(agent, kind, name, value) for name, value in found if value is not None]

    async def scan(self, kind: str, start: str = "", end: str | None = None) -> AsyncIterator[Sequence[StoredRow]]:
        self._check_open()
        names = self._names.get(kind, [])
        stop = len(names) if end is None else bisect_left(names, (end, ""))
        chosen = names[bisect_left(names, (start, "")) : stop]
        for first in range(0, len(chosen), PAGE):
            page = []
            for name, agent in chosen[first : first + PAGE]:
                value = self._find(agent, kind, name)
                if value is not None:
                    page.append(StoredRow(agent, kind, name, value))
            if page:
                yield page

    async def scan_agents(self, type_name: str, after: str = "") -> AsyncIterator[Sequence[Record]]:
        self._check_open()
        prefix = f"{type_name}/"
        addresses = sorted(a for a, (_revision, head) in self._heads.items() if a.startswith(prefix) and a > after and head is not None)
        for first in range(0, len(addresses), PAGE):
            page = [Record(a, *self._heads[a]) for a in addresses[first : first + PAGE]]
            if page:
                yield page

    async def watch(self, agent: str) -> AsyncIterator[Record]:
        self._check_open()
        seen: deque[Record] = deque(maxlen=WATCH_BEHIND)
        grown = asyncio.Event()
        watchers = self._watchers.setdefault(agent, [])
        watchers.append((seen, grown))
        try:
            present = await self.read(agent)
            if present is not None:
                yield present
            while True:
                if not seen:
                    self._check_open()
                    grown.clear()
                    await grown.wait()
                    continue
                if len(seen) == WATCH_BEHIND:  # fell behind: skip to the newest
                    newest = seen[-1]
                    seen.clear()
                    yield newest
                else:
                    yield seen.popleft()
        finally:
            watchers.remove((seen, grown))
            if not watchers and self._watchers.get(agent) is watchers:
                del self._watchers[agent]

    def _tell(self, agent: str, revision: int, head: bytes | None) -> None:
        for seen, grown in self._watchers.get(agent, ()):
            seen.append(Record(agent, revision, head))
            grown.set()

    async def remove_expired(self, now_s: float, limit: int = 1_000) -> int:
        expired = [
            (agent, kind, name)
            for agent, rows in self._rows.items()
            for (kind, name), (_value, expires_s) in rows.items()
            if expires_s is not None and expires_s <= now_s
        ][:limit]
        for agent, kind, name in expired:
            del self._rows[agent][kind, name]
            self._unname(agent, kind, name)
        return len(expired)

    async def verify(self) -> Sequence[str]:
        self._check_open()
        return []

    async def close(self) -> None:
        self._closed = True
        self._log.end()
        for watchers in self._watchers.values():
            for _seen, grown in watchers:
                grown.set()
