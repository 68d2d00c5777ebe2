"""The one thread that writes: all commits that wait become one transaction, one fsync.

The interpreter's lock is lost and won again at every step of a statement, and a busy event loop gives it back
only every few milliseconds. Statements here therefore carry many commits each: a batch of hundreds costs a handful of steps.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any

from ...core.clock import Clock
from ...core.errors import CommitUnknown, Conflict, RowExists, StoreError, StreamConflict
from ...core.records import Committed
from .file import UNLISTED, VERSION, LogSpace, translate
from .statements import EVENT, HEAD, NEW_ROW, PUT, REMOVE, Call, Head, Item, Mismatch, Outcome, Step, Write, head_values, of_heads, together

DOUBT_S = 0.1
"""How often a file whose last commit is in doubt is tried again while nothing else is asked of it."""
MAX_BATCH = 2_000
MAX_BATCH_BYTES = 16 * 1024 * 1024
CROWD = 16
Told = tuple[Callable[[Any], None], Sequence[Any]]
"""Who is told on the loop what came of a transaction, and what."""


NOT_BOUND = (ValueError, TypeError, OverflowError)
"""What the driver raises for a value that the engine can't hold: a string that is no valid Unicode, for example."""


class Writer:
    """See the module. What came of each transaction is told on the loop, in order: `written` hears of heads that all are
    durable, `settled` of anything else."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: str,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        written: Callable[[Sequence[Head]], None],
        settled: Callable[[Sequence[Outcome]], None],
    ) -> None:
        self._connection = connection
        self._path = path
        self._loop = loop
        self._clock = clock
        self._written, self._settled = written, settled
        self._log_space = LogSpace(path)
        self._waiting: list[Item | None] = []
        self._asleep = False
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._doubtful: list[tuple[Sequence[Item], int, sqlite3.Error]] = []
        self._last_position: int = connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()[0]
        self._thread = threading.Thread(target=self._run, name="jido-sqlite-writer", daemon=True)
        self._thread.start()

    def put(self, item: Item | None) -> None:
        """Have something written; None: it is the last thing."""
        self._waiting.append(item)
        if self._asleep:
            self._asleep = False
            self._bell.put(None)

    def close(self) -> None:
        """Finish what was accepted, then end. Blocks."""
        self.put(None)
        self._thread.join()
        self._connection.close()
        self._log_space.close()

    def _run(self) -> None:
        ended, took_s = 0.0, 0.0
        while True:
            if not self._waiting:
                self._sleep()
            began = perf_counter()
            # Who waited for work a third of the time that it takes, and now finds a crowd, would be waited for by all of
            # it, and then wait for all of it. From halves on the loop's thread prepares the one while the other is written.
            waiting, open_ = self._take_waiting(halve=began - ended > took_s / 3)
            alone = len(waiting) == 1 and type(waiting[0]) is Head
            for batch in (waiting,) if alone else _of_bearable_size(waiting):
                try:
                    tell, outcomes = self._transact_alone(batch) if alone else self._transact(batch)
                except Exception as defect:  # one of ours must not leave everybody waiting for ever: reading back tells them what happened
                    self._roll_back()
                    tell, outcomes = self._settled, self._still_unknown(batch, defect)
                ended = perf_counter()
                took_s = ended - began
                self._log_space.make(len(batch) + 1)  # gives the interpreter's lock up: nothing may between telling and the next transaction
                self._tell(tell, outcomes)
            if not open_:
                break
        for writes, _before, error in self._doubtful:
            self._tell(self._settled, self._still_unknown(writes, error))

    def _sleep(self) -> None:
        """Until there is something to write. A bell that rang too late for its sleep only ends the next one early."""
        while not self._waiting:
            doubtful = bool(self._doubtful) and not self._end_doubt()
            self._asleep = True
            if not self._waiting:
                with suppress(Empty):
                    self._bell.get(timeout=DOUBT_S if doubtful else None)
            self._asleep = False

    def _tell(self, tell: Callable[[Any], None], outcomes: Sequence[Any]) -> None:
        try:
            self._loop.call_soon_threadsafe(tell, outcomes)
        except RuntimeError:  # the loop is closed: nobody waits for the answers any more
            return

    # -- a commit that failed while it was made durable --------------------------------------------------------
    #
    # No reader sees it, but its bytes may lie in the file, and would count after a crash. Nobody is told "it didn't
    # happen" before that can't come true any more: before another transaction was written over them. Until then nothing
    # else is written either, and its callers wait.

    def _end_doubt(self) -> bool:
        """Write a transaction that changes nothing over what may lie there; whether that worked."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(f"PRAGMA user_version = {VERSION}")
            self._connection.execute("COMMIT")
            ended = [(writes, error, self._is_there(writes[0], before)) for writes, before, error in self._doubtful]
        except sqlite3.Error:  # still failing: the next attempt tells
            self._roll_back()
            return False
        self._doubtful = []
        for writes, error, there in ended:
            failed = translate(error, self._path)
            self._tell(self._settled, self._still_unknown(writes, error) if there else [(write, None, failed) for write in writes])
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

    def _take_waiting(self, *, halve: bool) -> tuple[list[Item], bool]:
        """What is written next; False with it: nothing comes after it."""
        waiting = self._waiting
        count = len(waiting)
        limit = (count + 1) // 2 if halve and count >= CROWD else min(count, MAX_BATCH)
        batch = waiting[:limit]
        del waiting[:limit]  # the loop's thread may have added more meanwhile
        if batch[-1] is None:
            return batch[:-1], False  # type: ignore[return-value]
        return batch, True  # type: ignore[return-value]

    def _transact_alone(self, batch: list[Item]) -> Told:
        """The commit of a lone caller's turn, who waits for every line of it; whatever is wrong with it is sorted as with others."""
        if not self._doubtful:
            step: Any = (HEAD[1], head_values(batch[0]), 1)
            with suppress(Mismatch, sqlite3.IntegrityError, *NOT_BOUND):
                return self._in_one_step(step, batch, batch, self._last_position, plain=True)
        return self._transact(batch)

    def _transact(self, batch: list[Item]) -> Told:
        if self._doubtful and not self._end_doubt():
            refused = translate(self._doubtful[0][2], self._path)
            return self._settled, [(item, None, refused) for item in batch]
        kinds = {*map(type, batch)}
        if Call not in kinds:
            return self._write(batch, plain=len(kinds) == 1 and Head in kinds)  # type: ignore[arg-type]
        outcomes: list[Outcome] = []
        for is_call, items in groupby(batch, lambda item: isinstance(item, Call)):
            outcomes += map(self._call, items) if is_call else self._write([*items], plain=False)[1]  # type: ignore[arg-type,list-item]  # noqa: B031 - taken once
        return self._settled, outcomes

    def _call(self, item: Call) -> Outcome:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            value = item.function(self._connection)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            return item, None, translate(error, self._path)
        return item, value, None

    def _write(self, writes: Sequence[Head | Write], *, plain: bool) -> Told:
        """Write a batch as one transaction; `plain`: there are only heads in it."""
        connection, before = self._connection, self._last_position
        outcomes: Sequence[Any] = writes
        try:
            try:
                if plain:
                    steps = of_heads(writes)  # type: ignore[arg-type]
                else:
                    outcomes, steps, self._last_position = together(writes, before, self._clock.time_s())
                if len(steps) == 1:
                    return self._in_one_step(steps[0], writes, outcomes, before, plain=plain)
                connection.execute("BEGIN IMMEDIATE")
                for step in steps:
                    self._take(step)
            except (Mismatch, sqlite3.IntegrityError, *NOT_BOUND):
                self._roll_back()
                self._last_position = before
                connection.execute("BEGIN IMMEDIATE")
                outcomes, plain = [self._alone(write) for write in writes], False
        except sqlite3.Error as error:
            return self._all_failed(writes, before, translate(error, self._path))
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction or _is_full(error):  # it wasn't written to its end: nothing of it counts
                return self._all_failed(writes, before, translate(error, self._path))
            return self._doubt(writes, before, error)
        return self._written if plain else self._settled, outcomes

    def _in_one_step(self, step: Step, writes: Sequence[Item], outcomes: Sequence[Any], before: int, *, plain: bool) -> Told:
        """A statement that does all or nothing is a transaction by itself: the lock is given up and won again once."""
        try:
            self._take(step)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR:  # while writing it, or while making it durable
                return self._doubt(writes, before, error)
            return self._all_failed(writes, before, translate(error, self._path))
        return self._written if plain else self._settled, outcomes

    def _doubt(self, writes: Sequence[Item], before: int, error: sqlite3.Error) -> Told:
        self._roll_back()
        self._doubtful.append((writes, before, error))  # positions that it took stay unused, if it didn't happen
        return self._settled, []

    def _all_failed(self, writes: Sequence[Item], before: int, error: StoreError) -> Told:
        self._last_position = before
        self._roll_back()
        return self._settled, [(write, None, error) for write in writes]

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            # The engine rolls an open transaction back itself when the next one begins on a mended file.
            return

    def _take(self, step: Step) -> None:
        statement, values, changes = step
        if self._connection.execute(statement, values).rowcount != changes and changes is not None:
            raise Mismatch

    # -- one at a time, when somebody conflicts ----------------------------------------------------------------

    def _alone(self, item: Head | Write) -> Outcome:
        write = item if isinstance(item, Write) else Write(item.settled, item.agent, item.revision, item.head)
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
            raise Conflict(f"{agent} is at revision {actual}, not {expected}; nothing was written", agent=agent, expected=expected, actual=actual)
        execute(HEAD[1], (agent, actual + 1, write.head))
        if write.head is None:
            execute("DELETE FROM rows WHERE agent = ?", (agent,))
        now_s = self._clock.time_s()
        for row in write.rows:
            if row.value is None:
                execute(REMOVE[1], (agent, row.kind, row.name))
                continue
            values = (agent, row.kind, row.name, row.value, row.expires_s, int(row.kind not in UNLISTED))
            if not row.create:
                execute(PUT[1], values)
            elif execute(NEW_ROW[1], (*values, now_s)).rowcount != 1:
                raise RowExists(f"{agent} has a row {row.kind}/{row.name} already", agent=agent, kind=row.kind, name=row.name)
        return Committed(actual + 1, self._append(write))

    def _append(self, write: Write) -> Sequence[int]:
        if write.stream_expected is not None and write.events:
            stream = write.events[0][0]
            actual = self._connection.execute("SELECT coalesce(max(position), 0) FROM events WHERE stream = ?", (stream,)).fetchone()[0]
            if actual != write.stream_expected:
                raise StreamConflict(
                    f"stream {stream!r} ends at {actual}, not at {write.stream_expected}; nothing was written",
                    stream=stream,
                    expected=write.stream_expected,
                    actual=actual,
                )
        first = self._last_position + 1
        for stream, blob in write.events:
            self._last_position += 1
            self._connection.execute(EVENT[1], (self._last_position, stream, blob))
        return range(first, self._last_position + 1)


def _is_full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def _of_bearable_size(items: list[Item]) -> Iterator[list[Item]]:
    """What waits, in parts that a transaction may have."""
    sizes = [*map(_size_bytes, items)]
    if sum(sizes) <= MAX_BATCH_BYTES:
        if items:
            yield items
        return
    part: list[Item] = []
    size_bytes = 0
    for item, item_bytes in zip(items, sizes, strict=True):
        if part and size_bytes + item_bytes > MAX_BATCH_BYTES:
            yield part
            part, size_bytes = [], 0
        part.append(item)
        size_bytes += item_bytes
    yield part


def _size_bytes(item: Item) -> int:
    return len(item.head) if isinstance(item, Head) else item.size_bytes if isinstance(item, Write) else 0
