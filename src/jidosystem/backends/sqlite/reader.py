"""The one thread that reads: questions asked within one turn of the event loop are answered by a few statements together.

The interpreter's lock is lost and won again for every row that a statement returns, and a busy event loop gives it
back only every few milliseconds. What many rows hold is therefore packed into one row, with their sizes beside it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from ...core.clock import Clock
from ...core.codec import unseal
from ...core.errors import RecordUnreadable, StoreError, StoreUnavailable
from ...core.outside import outside_of
from ...core.records import Record
from .file import connect, translate

T = TypeVar("T")
Told = Callable[[Any, BaseException | None], None]
Question = tuple[str, Any, Told]
Answer = tuple[Told, Any, BaseException | None]
CHUNK = 256
READER = "the reader of the SQLite file"
_make = tuple.__new__  # past the Python of NamedTuple's constructor: this runs for every agent that wakes


class Reader:
    """See the module. It has a connection of its own, which sees every transaction that was committed before a question was asked."""

    def __init__(self, path: str, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._loop = loop
        self._outside = outside_of(loop)
        self._connection = connect(path, read_only=True)
        self._waiting: list[Question] = []
        self._queue: SimpleQueue[list[Question] | None] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="jido-sqlite-reader", daemon=True)
        self._thread.start()

    def ask(self, kind: str, what: Any) -> asyncio.Future[Any]:
        """Ask for a "head" (an agent), a "row" ((agent, kind, name)), or call a function of the connection ("call")."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self.put(kind, what, partial(resolve, future))
        return future

    def put(self, kind: str, what: Any, told: Told) -> None:
        """The same, told by a call."""
        if self._closed:
            told(None, StoreUnavailable(f"{self._path} is closed"))
            return
        self._waiting.append((kind, what, told))
        if kind == "call":  # on its way at once, so that it is under way while the loop is busy
            self._hand_over()
        elif len(self._waiting) == 1:
            self._loop.call_soon(self._hand_over)

    async def call(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function with the connection, on its thread."""
        value: T = await self.ask("call", function)
        return value

    def stop(self) -> None:
        """Take no more questions; what was asked is answered. Called on the loop's thread, as whatever asks is."""
        self._closed = True
        self._hand_over()
        self._queue.put(None)

    def close(self) -> None:
        """Wait until a reader that was told to stop has ended. Blocks."""
        self._thread.join()
        self._connection.close()

    def _hand_over(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            if self._outside is not None:
                self._outside.began(READER)
            self._queue.put(waiting)

    def _run(self) -> None:
        while (questions := self._queue.get()) is not None:
            answers: list[Answer] = []
            heads = [q for q in questions if q[0] == "head"]
            rows = [q for q in questions if q[0] == "row"]
            for start in range(0, len(heads), CHUNK):
                answers += self._records(heads[start : start + CHUNK])
            for start in range(0, len(rows), CHUNK):
                answers += self._values(rows[start : start + CHUNK])
            for kind, function, told in questions:
                if kind == "call":
                    answers.append(self._one(function, told))
            try:
                self._loop.call_soon_threadsafe(self._tell, answers)
            except RuntimeError:  # the loop is closed: nobody waits for the answers any more
                continue

    def _tell(self, answers: list[Answer]) -> None:
        for told, value, error in answers:
            try:
                told(value, error)
            except Exception as failure:  # one who asked must not keep the others from their answers
                self._loop.call_exception_handler({"message": "what was read couldn't be told", "exception": failure})
        if self._outside is not None:
            self._outside.ended(READER)

    def _many(self, questions: Sequence[Question], read: Callable[[list[Any]], dict[Any, Any]]) -> list[Answer]:
        try:
            found = read([what for _kind, what, _told in questions])
        except Exception as error:  # nothing that is asked may end the thread: all the others would wait for ever
            refused = self._refusal(error)
            return [(told, None, refused) for _kind, _what, told in questions]
        return [(told, found.get(what), None) for _kind, what, told in questions]

    def _one(self, function: Callable[[sqlite3.Connection], Any], told: Told) -> Answer:
        try:
            return told, function(self._connection), None
        except Exception as error:  # as above
            return told, None, self._refusal(error)

    def _refusal(self, error: Exception) -> StoreError:
        if isinstance(error, StoreError):
            return error
        return translate(error, self._path) if isinstance(error, sqlite3.Error) else StoreError(f"{self._path} can't be asked that: {error}")

    def _records(self, questions: Sequence[Question]) -> list[Answer]:
        answers: list[Answer] = []
        for (_kind, agent, _told), (told, found, error) in zip(questions, self._many(questions, self._heads), strict=True):
            if found is None:
                answers.append((told, None, error))
                continue
            try:
                head = None if found[1] is None else bytes(unseal(found[1]))
            except (ValueError, TypeError) as damaged:
                answers.append((told, None, _unreadable(f"the record of {agent}", damaged)))
            else:
                answers.append((told, _make(Record, (agent, found[0], head, None)), None))
        return answers

    def _values(self, questions: Sequence[Question]) -> list[Answer]:
        answers: list[Answer] = []
        now_s = self._clock.time_s()
        for (_kind, (agent, kind, name), _told), (told, found, error) in zip(questions, self._many(questions, self._rows), strict=True):
            if found is None or (found[1] is not None and found[1] <= now_s):
                answers.append((told, None, error))
                continue
            try:
                answers.append((told, bytes(unseal(found[0])), None))
            except (ValueError, TypeError) as damaged:
                answers.append((told, None, _unreadable(f"the row {kind}/{name} of {agent}", damaged)))
        return answers

    def _heads(self, agents: list[str]) -> dict[Any, Any]:
        marks = ", ".join("?" * _padded(len(agents)))
        padded = agents + agents[:1] * (_padded(len(agents)) - len(agents))
        sizes, names, heads = self._connection.execute(
            "SELECT group_concat(length(CAST(agent AS BLOB)) || ' ' || revision || ' ' || coalesce(length(head), -1), ' '),"
            " CAST(group_concat(agent, '') AS BLOB), CAST(group_concat(coalesce(head, x''), x'') AS BLOB)"
            f" FROM heads WHERE agent IN ({marks})",
            padded,
        ).fetchone()
        if sizes is None:
            return {}
        found: dict[Any, Any] = {}
        numbers = iter(map(int, sizes.split()))
        at_name = at_head = 0
        for name_bytes, revision, head_bytes in zip(numbers, numbers, numbers, strict=True):
            name = names[at_name : at_name + name_bytes].decode()
            at_name += name_bytes
            found[name] = (revision, None if head_bytes < 0 else heads[at_head : at_head + head_bytes])
            at_head += max(head_bytes, 0)
        return found

    def _rows(self, places: list[tuple[str, str, str]]) -> dict[Any, Any]:
        count = _padded(len(places))
        padded = places + places[:1] * (count - len(places))
        values = ", ".join(["(?, ?, ?)"] * count)
        # CROSS JOIN fixes the order: asked for with IN, the planner reads the whole table once there are a few places.
        found = self._connection.execute(
            f"WITH asked (a, k, n) AS (VALUES {values}) SELECT agent, kind, name, value, expires"
            " FROM asked CROSS JOIN rows ON agent = a AND kind = k AND name = n",
            [part for place in padded for part in place],
        ).fetchall()
        return {(agent, kind, name): (value, expires) for agent, kind, name, value, expires in found}


def unsealed(blob: bytes | None, what: str) -> bytes | None:
    """The payload of a sealed blob; `RecordUnreadable` saying what it was, if it is damaged."""
    if blob is None:
        return None
    try:
        return bytes(unseal(blob))
    except (ValueError, TypeError) as error:
        raise _unreadable(what, error) from error


def _unreadable(what: str, error: Exception) -> RecordUnreadable:
    return RecordUnreadable(f"{what} can't be read: {error}; nothing was changed")


def _padded(count: int) -> int:
    """The next of few sizes, so that statements stay prepared."""
    return next(size for size in (1, 4, 16, 64, CHUNK) if size >= count)


def resolve(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    """Tell whoever still waits."""
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
