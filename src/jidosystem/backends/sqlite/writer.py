"""The one thread that writes: all commits that wait become one transaction, one fsync.

The interpreter's lock is lost and won again at every step of a statement, and a busy event loop gives it back
only every few milliseconds. Statements here therefore carry many commits each: a batch of hundreds costs a handful of steps.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, groupby, repeat
from operator import itemgetter
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any, NamedTuple

from ...core.clock import Clock
from ...core.errors import CommitUnknown, Conflict, RowExists, StoreError, StreamConflict
from ...core.outside import Outside, outside_of
from ...core.records import Committed, Row
from .file import UNLISTED, VERSION, LogSpace, translate

DOUBT_S = 0.1
"""How often a file whose last commit is in doubt is tried again while nothing else is asked of it."""
MAX_BATCH = 2_000
MAX_BATCH_BYTES = 16 * 1024 * 1024
CROWD = 16
WRITER = "the writer of the SQLite file"
SIZES = (1, 4, 16, 32, 64, 128, 256, 512, 1024)
"""Rows a statement carries: few sizes, so that all of them stay prepared; what is missing is filled with NULLs that do nothing."""


Settled = Callable[[Any, BaseException | None], None]
"""Called on the loop with what came of it, or the error."""


class Write(NamedTuple):
    """Any commit, or (agent "") one append; head and rows sealed, events encoded as (stream, blob)."""

    settled: Settled
    agent: str
    revision: int
    """That the agent will have: one more than it must have."""
    head: bytes | None
    rows: Sequence[Row]
    events: Sequence[tuple[str, bytes]]
    stream_expected: int | None = None
    plain: bool = False
    """There is nothing to it but an agent's new head, as with most turns."""
    size_bytes: int = 0


class Call(NamedTuple):
    """Something else to be done with the writer's connection, in a transaction of its own."""

    settled: Settled
    function: Callable[[sqlite3.Connection], Any]
    size_bytes: int = 0


Item = Write | Call
Outcome = tuple[Item, Any, StoreError | None]
Step = tuple[str, tuple[Any, ...], int | None]
"""A statement, its values, and how many rows it must change (None: any number)."""


NOT_BOUND = (ValueError, TypeError, OverflowError)
"""What the driver raises for a value that the engine can't hold: a string that is no valid Unicode, for example."""
_make = tuple.__new__  # past the Python of NamedTuple's constructor: this runs for every commit
PLAIN = -2
"""The place of `Write.plain`; at it a `Call` has something else."""
_head_values, _revision, _is_plain, _size_bytes = itemgetter(1, 2, 3), itemgetter(2), itemgetter(PLAIN), itemgetter(-1)


class _Mismatch(Exception):
    """A statement changed fewer rows than it carried: somebody in the batch must be refused."""


class Writer:
    """See the module. `settled` is called on the loop with the outcomes of each transaction, in order."""

    def __init__(
        self, connection: sqlite3.Connection, path: str, loop: asyncio.AbstractEventLoop, clock: Clock, settled: Callable[[Iterable[Outcome]], None]
    ) -> None:
        self._connection = connection
        self._path = path
        self._loop = loop
        self._clock = clock
        outside = outside_of(loop)
        self._settled = settled if outside is None else partial(_end, outside, settled)
        self._log_space = LogSpace(path)
        self._queue: SimpleQueue[Item | None] = SimpleQueue()
        self._doubtful: list[tuple[Sequence[Item], int, sqlite3.Error]] = []
        self.put = self._queue.put if outside is None else partial(_begin, outside, self._queue.put)
        self._last_position: int = connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()[0]
        self._thread = threading.Thread(target=self._run, name="jido-sqlite-writer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish what was accepted, then end. Blocks."""
        self._queue.put(None)
        self._thread.join()
        self._connection.close()
        self._log_space.close()

    def _run(self) -> None:
        open_, ended, took_s = True, 0.0, 0.0
        while open_:
            first = self._queue.get() if not self._doubtful else self._get_in_doubt()
            began = perf_counter()
            alone = first is not None and first[PLAIN] is True and self._queue.empty()
            if alone:
                batches: Iterable[list[Item]] = ([first],)  # type: ignore[list-item]
            else:
                # Who waited for work a third of the time that it takes, and now finds a crowd, would be waited for by all of
                # it, and then wait for all of it. From halves on the loop's thread prepares the one while the other is written.
                waiting, open_ = self._take_waiting(first, halve=began - ended > took_s / 3)
                batches = _of_bearable_size(waiting)
            for batch in batches:
                try:
                    outcomes = self._transact_alone(batch) if alone else self._transact(batch)
                except Exception as defect:  # one of ours must not leave everybody waiting for ever: reading back tells them what happened
                    self._roll_back()
                    outcomes = self._still_unknown(batch, defect)
                ended = perf_counter()
                took_s = ended - began
                self._tell(outcomes)
                self._log_space.make(len(batch) + 1)
        for writes, _before, error in self._doubtful:
            self._tell(self._still_unknown(writes, error))

    def _tell(self, outcomes: Iterable[Outcome]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._settled, outcomes)
        except RuntimeError:  # the loop is closed: nobody waits for the answers any more
            return

    # -- a commit that failed while it was made durable --------------------------------------------------------
    #
    # No reader sees it, but its bytes may lie in the file, and would count after a crash. Nobody is told "it didn't
    # happen" before that can't come true any more: before another transaction was written over them. Until then nothing
    # else is written either, and its callers wait.

    def _get_in_doubt(self) -> Item | None:
        while not self._end_doubt():
            try:
                return self._queue.get(timeout=DOUBT_S)
            except Empty:
                continue
        return self._queue.get()

    def _end_doubt(self) -> bool:
        """Write a transaction that changes nothing over what may lie there; whether that worked."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(f"PRAGMA user_version = {VERSION}")
            self._connection.execute("COMMIT")
        except sqlite3.Error:  # still failing: the next attempt tells
            self._roll_back()
            return False
        doubtful, self._doubtful = self._doubtful, []
        for writes, before, error in doubtful:
            failed = translate(error, self._path)
            self._tell(self._still_unknown(writes, error) if self._is_there(writes[0], before) else [(write, None, failed) for write in writes])
        return True

    def _is_there(self, write: Item, before: int) -> bool:
        """Whether a transaction that failed is seen all the same, told by what its first write has changed."""
        if isinstance(write, Call):
            return False
        execute = self._connection.execute
        if write.agent:
            found = execute("SELECT revision FROM heads WHERE agent = ?", (write.agent,)).fetchone()
            return found is not None and found[0] >= write.revision
        return bool(execute("SELECT coalesce(max(position), 0) FROM events").fetchone()[0] > before)

    def _still_unknown(self, writes: Sequence[Item], error: Exception) -> list[Outcome]:
        unknown = CommitUnknown(f"{self._path}: the commit failed and may have happened: {error}")
        return [(write, None, unknown) for write in writes]

    def _take_waiting(self, item: Item | None, *, halve: bool) -> tuple[list[Item], bool]:
        """What is written next; False with it: nothing comes after it."""
        queue = self._queue
        others = queue.qsize()
        limit = (others + 1) // 2 if halve and others + 1 >= CROWD else MAX_BATCH
        batch = [item]
        if others:
            get = queue.get_nowait
            batch += [get() for _ in range(min(others, limit - 1))]
        if batch[-1] is None:
            return batch[:-1], False  # type: ignore[return-value]
        return batch, True  # type: ignore[return-value]

    def _transact_alone(self, batch: list[Item]) -> Iterable[Outcome]:
        """The commit of a lone caller's turn, who waits for every line of it; whatever is wrong with it is sorted as with others."""
        write: Any = batch[0]
        try:
            if self._connection.execute(_HEAD[1], write[1:4]).rowcount == 1:
                return ((write, _make(Committed, (write[2], ())), None),)
        except sqlite3.OperationalError as error:
            return self._failed_in_one_step(batch, self._last_position, error)
        except (sqlite3.Error, *NOT_BOUND):  # it is refused again, and told why
            return self._transact(batch)
        return self._transact(batch)

    def _transact(self, batch: list[Item]) -> Iterable[Outcome]:
        if self._doubtful and not self._end_doubt():
            refused = translate(self._doubtful[0][2], self._path)
            return [(item, None, refused) for item in batch]
        if Call not in map(type, batch):
            return self._write(batch)  # type: ignore[arg-type]
        outcomes: list[Outcome] = []
        for is_call, items in groupby(batch, lambda item: isinstance(item, Call)):
            outcomes += map(self._call, items) if is_call else self._write([*items])  # type: ignore[arg-type,list-item]  # noqa: B031 - taken once
        return outcomes

    def _call(self, item: Call) -> Outcome:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            value = item.function(self._connection)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            return item, None, translate(error, self._path)
        return item, value, None

    def _write(self, writes: list[Write]) -> Iterable[Outcome]:
        connection, before = self._connection, self._last_position
        try:
            try:
                outcomes, steps = _of_heads(writes) if all(map(_is_plain, writes)) else self._together(writes)
                if len(steps) == 1:
                    return self._in_one_step(steps[0], writes, outcomes, before)
                connection.execute("BEGIN IMMEDIATE")
                for step in steps:
                    self._take(step)
            except (_Mismatch, sqlite3.IntegrityError, *NOT_BOUND):
                self._roll_back()
                self._last_position = before
                connection.execute("BEGIN IMMEDIATE")
                outcomes = [self._alone(write) for write in writes]
        except sqlite3.Error as error:
            return self._all_failed(writes, before, translate(error, self._path))
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction or _is_full(error):  # it wasn't written to its end: nothing of it counts
                return self._all_failed(writes, before, translate(error, self._path))
            return self._doubt(writes, before, error)
        return outcomes

    def _in_one_step(self, step: Step, writes: Sequence[Write], outcomes: Iterable[Outcome], before: int) -> Iterable[Outcome]:
        """A statement that does all or nothing is a transaction by itself: the lock is given up and won again once."""
        try:
            self._take(step)
        except sqlite3.OperationalError as error:
            return self._failed_in_one_step(writes, before, error)
        return outcomes

    def _failed_in_one_step(self, writes: Sequence[Item], before: int, error: sqlite3.OperationalError) -> list[Outcome]:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR:  # while writing it, or while making it durable
            return self._doubt(writes, before, error)
        return self._all_failed(writes, before, translate(error, self._path))

    def _doubt(self, writes: Sequence[Item], before: int, error: sqlite3.Error) -> list[Outcome]:
        self._roll_back()
        self._doubtful.append((writes, before, error))  # positions that it took stay unused, if it didn't happen
        return []

    def _all_failed(self, writes: Sequence[Item], before: int, error: StoreError) -> list[Outcome]:
        self._last_position = before
        self._roll_back()
        return [(write, None, error) for write in writes]

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            # The engine rolls an open transaction back itself when the next one begins on a mended file.
            return

    # -- many at once ------------------------------------------------------------------------------------------

    def _together(self, writes: list[Write]) -> tuple[Iterable[Outcome], list[Step]]:
        """The whole batch in a few statements; `_Mismatch` if anybody in it needs care."""
        heads: list[Any] = []
        steps: list[Step] = []
        rows: list[Any] = []
        new_rows: list[Any] = []
        gone: list[Any] = []
        events: list[Any] = []
        outcomes: list[Outcome] = []
        agents: set[str] = set()
        position = self._last_position
        for write in writes:
            _settled, agent, revision, head, changed_rows, new_events, stream_expected, _plain, _size_bytes = write
            if stream_expected is not None or (agent and (head is None or agent in agents)):
                raise _Mismatch
            positions: Sequence[int] = ()
            if new_events:
                first = position + 1
                for stream, blob in new_events:
                    position += 1
                    events += (position, stream, blob)
                positions = range(first, position + 1)
            if not agent:
                outcomes.append((write, positions, None))
                continue
            agents.add(agent)
            heads += (agent, revision, head)
            for row in changed_rows:
                if row.value is None:
                    gone += (agent, row.kind, row.name)
                else:
                    (new_rows if row.create else rows).extend((agent, row.kind, row.name, row.value, row.expires_s, row.kind not in UNLISTED))
            outcomes.append((write, _make(Committed, (revision, positions)), None))
        steps += _steps(_HEAD, heads, 3)
        steps += [(statement, values, None) for statement, values, _rows in _steps(_REMOVE, gone, 3)]
        steps += _steps(_PUT, rows, 6)
        steps += _steps(_NEW_ROW, new_rows, 6, (self._clock.time_s(),))
        steps += _steps(_EVENT, events, 3)
        self._last_position = position
        return outcomes, steps

    def _take(self, step: Step) -> None:
        statement, values, changes = step
        if self._connection.execute(statement, values).rowcount != changes and changes is not None:
            raise _Mismatch

    # -- one at a time, when somebody conflicts ----------------------------------------------------------------

    def _alone(self, write: Write) -> Outcome:
        self._connection.execute("SAVEPOINT one")
        before = self._last_position
        try:
            value = self._commit_alone(write) if write.agent else self._append(write)
        except (StoreError, *NOT_BOUND) as error:
            refused = (
                error if isinstance(error, StoreError) else StoreError(f"{self._path} can't hold what {write.agent or 'an event'} writes: {error}")
            )
            self._connection.execute("ROLLBACK TO one")
            self._connection.execute("RELEASE one")
            self._last_position = before
            return write, None, refused
        self._connection.execute("RELEASE one")
        return write, value, None

    def _commit_alone(self, write: Write) -> Committed:
        execute, agent = self._connection.execute, write.agent
        found = execute("SELECT revision FROM heads WHERE agent = ?", (agent,)).fetchone()
        actual = 0 if found is None else found[0]
        expected = write.revision - 1
        if actual != expected:
            raise Conflict(f"{agent} is at revision {actual}, not {expected}", agent=agent, expected=expected, actual=actual)
        execute(_HEAD[1], (agent, actual + 1, write.head))
        if write.head is None:
            execute("DELETE FROM rows WHERE agent = ?", (agent,))
        now_s = self._clock.time_s()
        for row in write.rows:
            if row.value is None:
                execute(_REMOVE[1], (agent, row.kind, row.name))
                continue
            values = (agent, row.kind, row.name, row.value, row.expires_s, row.kind not in UNLISTED)
            if not row.create:
                execute(_PUT[1], values)
            elif execute(_NEW_ROW[1], (*values, now_s)).rowcount != 1:
                raise RowExists(f"{agent} has a row {row.kind}/{row.name} already", agent=agent, kind=row.kind, name=row.name)
        return Committed(actual + 1, self._append(write))

    def _append(self, write: Write) -> Sequence[int]:
        if write.stream_expected is not None and write.events:
            stream = write.events[0][0]
            actual = self._connection.execute("SELECT coalesce(max(position), 0) FROM events WHERE stream = ?", (stream,)).fetchone()[0]
            if actual != write.stream_expected:
                raise StreamConflict(
                    f"stream {stream!r} ends at {actual}, not at {write.stream_expected}",
                    stream=stream,
                    expected=write.stream_expected,
                    actual=actual,
                )
        first = self._last_position + 1
        for stream, blob in write.events:
            self._last_position += 1
            self._connection.execute(_EVENT[1], (self._last_position, stream, blob))
        return range(first, self._last_position + 1)


def _begin(outside: Outside, put: Callable[[Item], None], item: Item) -> None:
    outside.began(WRITER)
    put(item)


def _end(outside: Outside, settled: Callable[[Iterable[Outcome]], None], outcomes: Iterable[Outcome]) -> None:
    told = [*outcomes]
    settled(told)
    outside.ended(WRITER, len(told))


def _is_full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def _of_bearable_size(items: list[Item]) -> Iterator[list[Item]]:
    """What waits, in parts that a transaction may have."""
    if sum(map(_size_bytes, items)) <= MAX_BATCH_BYTES:
        if items:
            yield items
        return
    part: list[Item] = []
    size_bytes = 0
    for item in items:
        if part and size_bytes + item.size_bytes > MAX_BATCH_BYTES:
            yield part
            part, size_bytes = [], 0
        part.append(item)
        size_bytes += item.size_bytes
    yield part


def _of_heads(heads: Sequence[Write]) -> tuple[Iterable[Outcome], list[Step]]:
    """What `_together` comes to where there is nothing else, without Python for each: who waits is waited for by everybody."""
    revisions = zip(map(_revision, heads), repeat(()))
    outcomes = zip(heads, map(_make, repeat(Committed), revisions), repeat(None))
    return outcomes, _steps(_HEAD, [*chain.from_iterable(map(_head_values, heads))], 3)


def remove_rows(connection: sqlite3.Connection, places: Iterable[tuple[str, str, str]]) -> None:
    """Remove rows by (agent, kind, name), in few statements."""
    for statement, values, _rows in _steps(_REMOVE, [part for place in places for part in place], 3):
        connection.execute(statement, values)


def _steps(statements: dict[int, str], values: list[Any], width: int, tail: tuple[Any, ...] = ()) -> list[Step]:
    steps: list[Step] = []
    rows = len(values) // width
    largest = max(statements)
    for start in range(0, rows, largest):
        count = min(rows - start, largest)
        size = next(size for size in statements if size >= count)
        padded = (*values[start * width : (start + count) * width], *(None,) * ((size - count) * width), *tail)
        steps.append((statements[size], padded, count))
    return steps


def _sized(template: str, row: str) -> dict[int, str]:
    return {size: template.format(values=", ".join([row] * size)) for size in SIZES}


# Written without WITH: the driver counts changed rows only for statements that begin with their verb.
# A head that isn't of the revision expected gets the revision NULL, and one that isn't there at all is refused by a
# trigger: either undoes the whole statement.
_HEAD = _sized(
    "INSERT INTO heads (agent, revision, head) SELECT * FROM (VALUES {values}) WHERE column1 IS NOT NULL ON CONFLICT (agent)"
    " DO UPDATE SET revision = CASE revision WHEN excluded.revision - 1 THEN excluded.revision END, head = excluded.head",
    "(?, ?, ?)",
)
_HEAD[1] = _HEAD[1].replace("SELECT * FROM (VALUES (?, ?, ?)) WHERE column1 IS NOT NULL", "VALUES (?, ?, ?)")
# Not `IN (VALUES …)`: from a few places on, the planner then reads the whole table.
_REMOVE = {size: "DELETE FROM rows WHERE " + " OR ".join(["(agent = ? AND kind = ? AND name = ?)"] * size) for size in SIZES[:5]}
_COLUMNS = "INSERT INTO rows (agent, kind, name, value, expires, listed) SELECT * FROM (VALUES {values}) WHERE column1 IS NOT NULL"
_OVERWRITE = " ON CONFLICT (agent, kind, name) DO UPDATE SET value = excluded.value, expires = excluded.expires"
_PUT = _sized(_COLUMNS + _OVERWRITE, "(?, ?, ?, ?, ?, ?)")
_NEW_ROW = _sized(_COLUMNS + _OVERWRITE + " WHERE rows.expires <= ?", "(?, ?, ?, ?, ?, ?)")
_EVENT = _sized("INSERT INTO events (position, stream, event) SELECT * FROM (VALUES {values}) WHERE column1 IS NOT NULL", "(?, ?, ?)")


def size_of(head: bytes | None, rows: Iterable[Row], events: Iterable[tuple[str, bytes]]) -> int:
    """Roughly the bytes that a write carries."""
    return len(head or b"") + sum(len(row.value or b"") for row in rows) + sum(len(blob) for _stream, blob in events)
