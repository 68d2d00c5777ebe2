"""What commits come to as statements: a batch of hundreds is a handful, so that all of it costs a handful of steps.

Values and pure functions; the writer's thread runs what they return. A statement does all that it carries, or changes
fewer rows than it carries, which is how a conflict is noticed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from ...core.errors import StoreError
from ...core.records import Committed
from .file import UNLISTED

SIZES = (1, 4, 16, 32, 64, 128, 256, 512, 1024)
"""Rows a statement carries: few sizes, so that all of them stay prepared; what is missing is filled with zeros that do nothing.

Values are of classes that the driver binds as they are: for any other, such as bytes, a bool or None, it first looks for an
adapter, which takes longer than all the rest, with the interpreter's lock held.
"""

Settled = Callable[[Any, BaseException | None], None]
"""Called on the loop with what came of it, or the error."""


class SealedRow(NamedTuple):
    """A row as it is bound: `core.records.Row` with its value sealed."""

    kind: str
    name: str
    value: bytearray | None
    expires_s: float | None
    create: bool


class Head(msgspec.Struct, frozen=True, gc=False):
    """The commonest commit, a turn that leaves a new state and nothing else: an agent's head, sealed."""

    settled: Settled
    agent: str
    revision: int
    """That the agent will have: one more than it must have."""
    head: bytearray


class Write(NamedTuple):
    """Any other commit, or (agent "") one append; head and rows sealed, events encoded as (stream, blob)."""

    settled: Settled
    agent: str
    revision: int
    head: bytearray | None
    rows: Sequence[SealedRow] = ()
    events: Sequence[tuple[str, bytearray]] = ()
    stream_expected: int | None = None
    size_bytes: int = 0


class Call(NamedTuple):
    """Something else to be done with the writer's connection, in a transaction of its own."""

    settled: Settled
    function: Callable[[sqlite3.Connection], Any]


Item = Head | Write | Call
Outcome = tuple[Item, Any, StoreError | None]
Step = tuple[str, tuple[Any, ...], int | None]
"""A statement, its values, and how many rows it must change (None: any number)."""

head_values = attrgetter("agent", "revision", "head")
"""What is bound of a head."""


class Mismatch(Exception):
    """A statement changed fewer rows than it carried: somebody in the batch must be refused."""


def together(writes: Sequence[Head | Write], position: int, now_s: float) -> tuple[Sequence[Outcome], list[Step], int]:
    """The whole batch in a few statements, and the position of its last event; `Mismatch` if anybody in it needs care."""
    heads: list[Any] = []
    steps: list[Step] = []
    rows: list[Any] = []
    new_rows: list[Any] = []
    gone: list[Any] = []
    events: list[Any] = []
    outcomes: list[Outcome] = []
    agents: set[str] = set()
    for write in writes:
        agent, revision, head = head_values(write)
        changed_rows, new_events, stream_expected = (write.rows, write.events, write.stream_expected) if isinstance(write, Write) else ((), (), None)
        if stream_expected is not None or (agent and (head is None or agent in agents)):
            raise Mismatch
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
                (new_rows if row.create else rows).extend((agent, row.kind, row.name, row.value, row.expires_s, int(row.kind not in UNLISTED)))
        outcomes.append((write, Committed(revision, positions), None))
    steps += _steps(HEAD, heads, 3)
    steps += [(statement, values, None) for statement, values, _rows in _steps(REMOVE, gone, 3)]
    steps += _steps(PUT, rows, 6)
    steps += _steps(NEW_ROW, new_rows, 6, (now_s,))
    steps += _steps(EVENT, events, 3)
    return outcomes, steps, position


def of_heads(heads: Sequence[Head]) -> list[Step]:
    """What `together` comes to where there is nothing else, without Python for each: who waits is waited for by everybody."""
    return _steps(HEAD, [*chain.from_iterable(map(head_values, heads))], 3)


def remove_rows(connection: sqlite3.Connection, places: Iterable[tuple[str, str, str]]) -> None:
    """Remove rows by (agent, kind, name), in few statements."""
    for statement, values, _rows in _steps(REMOVE, [part for place in places for part in place], 3):
        connection.execute(statement, values)


def _steps(statements: dict[int, str], values: list[Any], width: int, tail: tuple[Any, ...] = ()) -> list[Step]:
    steps: list[Step] = []
    rows = len(values) // width
    largest = max(statements)
    for start in range(0, rows, largest):
        count = min(rows - start, largest)
        size = next(size for size in statements if size >= count)
        padded = (*values[start * width : (start + count) * width], *(0,) * ((size - count) * width), *tail)
        steps.append((statements[size], padded, count))
    return steps


def _sized(template: str, row: str) -> dict[int, str]:
    return {size: template.format(values=", ".join([row] * size)) for size in SIZES}


# Written without WITH: the driver counts changed rows only for statements that begin with their verb.
# A head that isn't of the revision expected gets the revision NULL, and one that isn't there at all is refused by a
# trigger: either undoes the whole statement.
HEAD = _sized(
    "INSERT INTO heads (agent, revision, head) SELECT * FROM (VALUES {values}) WHERE column1 IS NOT 0 ON CONFLICT (agent)"
    " DO UPDATE SET revision = CASE revision WHEN excluded.revision - 1 THEN excluded.revision END, head = excluded.head",
    "(?, ?, ?)",
)
HEAD[1] = HEAD[1].replace("SELECT * FROM (VALUES (?, ?, ?)) WHERE column1 IS NOT 0", "VALUES (?, ?, ?)")
# Not `IN (VALUES …)`: from a few places on, the planner then reads the whole table.
REMOVE = {size: "DELETE FROM rows WHERE " + " OR ".join(["(agent = ? AND kind = ? AND name = ?)"] * size) for size in SIZES[:5]}
_COLUMNS = "INSERT INTO rows (agent, kind, name, value, expires, listed) SELECT * FROM (VALUES {values}) WHERE column1 IS NOT 0"
_OVERWRITE = " ON CONFLICT (agent, kind, name) DO UPDATE SET value = excluded.value, expires = excluded.expires"
PUT = _sized(_COLUMNS + _OVERWRITE, "(?, ?, ?, ?, ?, ?)")
NEW_ROW = _sized(_COLUMNS + _OVERWRITE + " WHERE rows.expires <= ?", "(?, ?, ?, ?, ?, ?)")
EVENT = _sized("INSERT INTO events (position, stream, event) SELECT * FROM (VALUES {values}) WHERE column1 IS NOT 0", "(?, ?, ?)")


def size_of(head: bytearray | None, rows: Iterable[SealedRow], events: Iterable[tuple[str, bytearray]]) -> int:
    """Roughly the bytes that a write carries."""
    return len(head or b"") + sum(len(row.value or b"") for row in rows) + sum(len(blob) for _stream, blob in events)
