"""Records on JetStream: a stream for each partition, a subject for each head and row, one message a subject.

The revision of a record is the sequence of its head's message, so the server's own check of the last sequence is
the compare-and-set. What a commit needs besides is in the modules beside: `subjects` (where things lie), `stored` (what a message holds),
`committing` (sending and deciding), `reading`, `listing`, `removal`, `watching`.
"""

from __future__ import annotations

import asyncio
import os
from asyncio import Future
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from ...core.clock import Clock, SystemClock
from ...core.errors import RecordUnreadable, StoreError, StoreUnavailable, TooLarge, UsageError
from ...core.events import Event
from ...core.records import Committed, Record, Records, Row, Settled, StoredRow
from .committing import Committer
from .connection import Connection
from .jetstream import JetStream, Stored
from .listing import Listing
from .partitions import RecordsSettings, open_partitions
from .places import SWEEP, Subjects, is_head, is_part, name_in, root_of
from .reading import Reading, gathered
from .removal import Removal
from .stored import BELOW, GONE, NONCE_BYTES, head_of, row_of
from .subjects import text_of
from .submission import Commit, Cutter, Piece
from .watching import Watching

PAGE = 1_000
MAX_ROWS = 900
ROOM_BYTES = 8 * 1024
"""What a message has around its value at most: headers, names, the codec."""
A_FEW = 256
T = TypeVar("T")


async def open_records(connection: Connection, settings: RecordsSettings | None = None, *, clock: Clock | None = None) -> NatsRecords:
    """The records of the connection's cluster; its streams are made if they aren't there. The connection stays its owner's. Raises
    `InvalidConfig`, `StoreVersion`, `StoreUnavailable`."""
    settings = settings or RecordsSettings()
    jetstream = JetStream(connection, settings.read_timeout_s)
    return NatsRecords(jetstream, await open_partitions(jetstream, settings), settings, clock or SystemClock())


class NatsRecords(Records):
    """See the module; made by `open_records`."""

    max_head_bytes = 16 * 1024 * 1024

    def __init__(self, jetstream: JetStream, subjects: Subjects, settings: RecordsSettings, clock: Clock) -> None:
        self._jetstream, self._subjects, self._settings, self._clock = jetstream, subjects, settings, clock
        self._loop = asyncio.get_running_loop()
        connection = jetstream.connection
        self._cutter = Cutter(subjects, lambda: connection.max_payload_bytes - ROOM_BYTES)
        self._reading = Reading(jetstream, subjects, clock)
        self._listing = Listing(jetstream, subjects, self._reading)
        self._removal = Removal(jetstream, subjects, self._reading, self._listing, self._cutter)
        self._watching = Watching(connection, lambda agent: subjects.place(agent).head, self._read, settings.watch_period_s)
        self._committers = [
            Committer(jetstream, subjects.stream(number), settings, self._removal, self._committed, self._failed)
            for number in range(subjects.partitions)
        ]
        self._reads: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def log(self) -> None:
        return None

    @property
    def partitions(self) -> int:
        """Over how many streams the records are spread."""
        return self._subjects.partitions

    # -- committing ------------------------------------------------------------------------------------------------

    def commit(self, agent: str, expected: int, head: bytes | None, rows: Sequence[Row] = (), events: Sequence[Event] = ()) -> Future[Committed]:
        future: Future[Any] = self._loop.create_future()
        try:
            self.submit(agent, expected, head, rows, events, partial(_resolve, future))
        except StoreError as error:
            future.set_exception(error)
        return future

    def submit(self, agent: str, expected: int, head: bytes | None, rows: Sequence[Row], events: Sequence[Event], settled: Settled) -> None:
        self._check_open()
        if events:
            raise UsageError("records and log are apart here: events are appended to the log, not committed with a record")
        if head is not None and len(head) > self.max_head_bytes:
            text = f"the record of {agent} has {len(head)} bytes, over {self.max_head_bytes}; nothing was written"
            raise TooLarge(text, agent=agent, limit=self.max_head_bytes)
        place = self._subjects.place(agent)
        nonce = os.urandom(NONCE_BYTES)
        message, before = self._cutter.head(agent, place, nonce, expected, head)
        if rows:
            before += self._pieces(agent, rows, new=head is not None)
        deadline_s = self._loop.time() + self._settings.commit_timeout_s
        commit = Commit(agent, place, expected, message, before, nonce, settled, deadline_s, is_deletion=head is None)
        commit.value = head
        self._committers[place.partition].submit(commit)

    def _pieces(self, agent: str, rows: Sequence[Row], *, new: bool) -> list[Piece]:
        pieces: list[Piece] = []
        for row in {(row.kind, row.name): row for row in rows}.values():
            if row.value is not None and len(row.value) > self.max_head_bytes:
                text = f"the row {row.kind}/{row.name} of {agent} has {len(row.value)} bytes, over {self.max_head_bytes}; nothing was written"
                raise TooLarge(text, agent=agent, limit=self.max_head_bytes)
            pieces += self._cutter.row(agent, row, new=new and row.create)
        if len(pieces) > MAX_ROWS:
            text = f"a commit of {agent} changes {len(pieces)} rows, over {MAX_ROWS}; nothing was written"
            raise TooLarge(text, agent=agent, limit=MAX_ROWS)
        return pieces

    def _committed(self, commit: Commit, revision: int) -> None:
        partition = commit.place.partition
        self._reading.floor[partition] = max(self._reading.floor[partition], revision)
        self._watching.show(commit.agent, revision, commit.value)

    def _failed(self, failure: Exception) -> None:
        self._loop.call_exception_handler({"message": "what a commit's outcome was told to failed", "exception": failure})

    # -- reading ---------------------------------------------------------------------------------------------------

    def read(self, agent: str) -> Future[Record | None]:
        return self._ask(self._read(agent))

    def read_row(self, agent: str, kind: str, name: str) -> Future[bytes | None]:
        return self._ask(self._reading.row(agent, kind, name))

    def _ask(self, reading: Coroutine[Any, Any, T]) -> Future[T]:
        if self._closed:
            reading.close()
            future: Future[T] = self._loop.create_future()
            future.set_exception(StoreUnavailable("the records are closed"))
            return future
        task = self._loop.create_task(reading)
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)
        return task

    async def _read(self, agent: str) -> Record | None:
        found = await self._reading.head(agent)
        if found is None:
            return None
        record, stored = found
        self._cutter.saw(self._subjects.place(agent).head, stored.parts)
        return record

    async def read_rows(self, agent: str, kind: str) -> Sequence[StoredRow]:
        self._check_open()
        partition = self._subjects.place(agent).partition
        pattern = self._subjects.rows_of(agent, kind)
        names = await self._reading.names(partition, pattern)
        if len(names) > A_FEW:
            found = list((await self._listing.newest(partition, [pattern])).values())
        else:
            found = await self._reading.all_of(partition, names)
        below = await self._reading.below(agent) if found else 0
        rows = [await self._row(partition, one) for one in found if self._reading.is_live(one.headers) and one.sequence >= below]
        if damaged := next((row for row in rows if row is not None and row.damage is not None), None):
            raise RecordUnreadable(damaged.damage or "")
        return sorted((row for row in rows if row is not None), key=lambda row: row.name)

    async def scan(self, kind: str, start: str = "", end: str | None = None) -> AsyncIterator[Sequence[StoredRow]]:
        self._check_open()
        rows: list[StoredRow] = []
        for part_of in await gathered([self._scan(number, kind, start, end) for number in range(self.partitions)]):
            rows += part_of
        rows.sort(key=lambda row: (row.name, row.agent))
        for first in range(0, len(rows), PAGE):
            yield rows[first : first + PAGE]

    async def _scan(self, partition: int, kind: str, start: str, end: str | None) -> list[StoredRow]:
        def may_be(subject: str) -> bool:
            name = name_in(subject)
            return f".{SWEEP}." in subject or name is None or _between(name, start, end)

        found = await self._listing.newest(partition, [self._subjects.rows(partition, kind), self._subjects.sweeps(partition)], wanted=may_be)
        below = {root_of(subject): int(found.pop(subject).headers[BELOW]) for subject in [*found] if f".{SWEEP}." in subject}
        rows = []
        async for one in _in_turns(found.values()):
            name = name_in(one.subject)
            dead = bool(below) and one.sequence < below.get(root_of(one.subject), 0)
            if not dead and (name is None or _between(name, start, end)) and self._reading.is_live(one.headers):
                row = await self._row(partition, one)
                if row is not None and (row.damage is not None or _between(row.name, start, end)):
                    rows.append(row)
        return rows

    async def _row(self, partition: int, one: Stored) -> StoredRow | None:
        """The row of a message that was listed; None if it is no more."""
        try:
            stored = row_of(one.payload, self._subjects.describe(one.subject))
            if not stored.parts:
                return StoredRow(stored.agent, stored.kind, stored.name, stored.value)
            value = await self._reading.row(stored.agent, stored.kind, stored.name)
        except RecordUnreadable as error:
            kind = text_of(one.subject.split(".")[4]) or ""
            return StoredRow(self._subjects.agent_in(one.subject), kind, name_in(one.subject) or "", b"", str(error))
        return None if value is None else StoredRow(stored.agent, stored.kind, stored.name, value)

    async def scan_agents(self, type_name: str, after: str = "") -> AsyncIterator[Sequence[Record]]:
        self._check_open()
        records: list[Record] = []
        for part_of in await gathered([self._heads(number, type_name, after) for number in range(self.partitions)]):
            records += part_of
        records.sort(key=lambda record: record.agent)
        for first in range(0, len(records), PAGE):
            yield records[first : first + PAGE]

    async def _heads(self, partition: int, type_name: str, after: str) -> list[Record]:
        found = await self._listing.newest(partition, [self._subjects.heads(partition, type_name)])
        records = []
        async for one in _in_turns(found.values()):
            if GONE not in one.headers:
                record = await self._head(one)
                if record is not None and record.agent > after and record.agent.startswith(f"{type_name}/"):
                    records.append(record)
        return records

    async def _head(self, one: Stored) -> Record | None:
        try:
            stored = head_of(one.payload, self._subjects.describe(one.subject))
            if not stored.parts:
                return Record(stored.agent, one.sequence, stored.head)
            record = await self._read(stored.agent)
        except RecordUnreadable as error:
            return Record(self._subjects.agent_in(one.subject), one.sequence, b"", str(error))
        return record if record is not None and record.head is not None else None

    async def count_agents(self, type_name: str) -> int:
        self._check_open()
        counted = [self._listing.newest(number, [self._subjects.heads(number, type_name)], headers_only=True) for number in range(self.partitions)]
        return sum(GONE not in one.headers for found in await gathered(counted) for one in found.values())

    def watch(self, agent: str) -> AsyncIterator[Record]:
        return self._watching.watch(agent)

    # -- keeping house ---------------------------------------------------------------------------------------------

    async def remove_expired(self, now_s: float, limit: int = 1_000) -> int:
        self._check_open()
        removed = 0
        for number in range(self.partitions):
            removed += await self._removal.remove_expired(number, now_s, limit - removed)
            if removed >= limit:
                break
        return removed

    async def verify(self) -> Sequence[str]:
        self._check_open()
        problems: list[str] = []
        for number in range(self.partitions):
            async for one in _in_turns((await self._listing.everything(number)).values()):
                problems += await self._checked(number, one)
        return problems

    async def _checked(self, partition: int, one: Stored) -> list[str]:
        try:
            if is_head(one.subject):
                stored = head_of(one.payload, self._subjects.describe(one.subject))
                if self._subjects.place(stored.agent).head != one.subject:
                    return [f"the record at {one.subject} is that of {stored.agent}"]
                if stored.parts:
                    await self._reading.head(stored.agent)
            elif not is_part(one.subject) and f".{SWEEP}." not in one.subject:
                row = row_of(one.payload, self._subjects.describe(one.subject))
                if self._subjects.row(row.agent, row.kind, row.name) != one.subject:
                    return [f"the row at {one.subject} is {row.kind}/{row.name} of {row.agent}"]
                if row.parts:
                    await self._reading.row(row.agent, row.kind, row.name)
        except RecordUnreadable as error:
            return [str(error)]
        return []

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for committer in self._committers:
            await committer.close()
        await self._watching.close()
        if self._reads:
            await asyncio.wait(self._reads)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the records are closed; nothing was written")


async def _in_turns(many: Iterable[Stored]) -> AsyncIterator[Stored]:
    """All of them, with a pause for everybody else now and then."""
    for number, one in enumerate(many):
        if number % A_FEW == 0:
            await asyncio.sleep(0)
        yield one


def _between(name: str, start: str, end: str | None) -> bool:
    return start <= name and (end is None or name < end)


def _resolve(future: Future[Any], value: Any, error: BaseException | None) -> None:
    """Tell whoever still waits."""
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
