"""`Records`: what is stored of each agent, written by compare-and-set.

A record is a *head* (bytes that the runtime encodes: owner, state, counters) and small *rows* beside it, found by
(kind, name). One commit changes head, rows and, where the log lives in the same engine, appends events: all of it
or nothing, and only if the head's revision is the expected one. What a commit returned is durable.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import msgspec

from .errors import CommitUnknown, StoreUnavailable
from .events import Event
from .log import EventLog


class Row(NamedTuple):
    """One change to a row, as `commit` takes it.

    Attributes:
        kind: `pending`, `due`, `key`, `from`, `sub`, `redrive`, `child`
        name: its name within kind and agent
        value: None removes it; no error if it isn't there
        expires_s: from then on (seconds since the epoch) the row is as if it weren't there
        create: the commit fails with `RowExists` if an unexpired row of that kind and name is there
    """

    kind: str
    name: str
    value: bytes | None
    expires_s: float | None = None
    create: bool = False


class StoredRow(NamedTuple):
    """A row as it is found.

    Attributes:
        agent: address of its agent
        kind: as it was written
        name: as it was written
        value: as it was written
        damage: in a scan of many agents: why this one can't be read; None: it can
    """

    agent: str
    kind: str
    name: str
    value: bytes
    damage: str | None = None


class Record(NamedTuple):
    """An agent's head.

    Attributes:
        agent: its address, `type/key`
        revision: grows with each commit
        head: None is a tombstone
        damage: in a scan of many agents: why this one can't be read; None: it can
    """

    agent: str
    revision: int
    head: bytes | None
    damage: str | None = None


class Committed(msgspec.Struct, frozen=True, gc=False):
    """What a commit did; made at every turn that changes something, for which a struct takes a third of the time of a tuple with names.

    Attributes:
        revision: the head's new one
        positions: of each event, in the order given
    """

    revision: int
    positions: Sequence[int]


Settled = Callable[[Committed | None, BaseException | None], None]
Told = Callable[[Record | None, BaseException | None], None]


class Records(Protocol):
    """What is stored of each agent, written by compare-and-set. `max_head_bytes` is the largest head that it takes, `at_once` whether `submit`
    never waits. What every adapter promises:

    - Of any number of commits that race with the same expected revision exactly one succeeds; the others fail with `Conflict`.
    - A revision is a positive integer, larger than every earlier one of that agent, also across deletion. 0: no record ever.
    - A failed commit changed nothing, unless it failed with `CommitUnknown`. It fails with `Conflict`, `RowExists`, `StoreUnavailable`,
      `StoreFull`, `CommitUnknown` or `TooLarge`.
    - One that was accepted is decided without its caller: cancelling the wait doesn't undo it.
    - Commits made in one turn of the event loop share one durable write where the engine can.
    - A read sees every commit that returned before it. Damage found while reading is `RecordUnreadable` naming the agent; a scan of many
      agents goes on and marks what is damaged.
    """

    max_head_bytes: int
    at_once: bool = False
    """Whether `submit` always returns what it committed, or raises: it never calls `settled`."""

    @property
    def log(self) -> EventLog | None:
        """The log whose events commit in the same transaction as a record; None: records and log are apart."""
        ...

    def commit(self, agent: str, expected: int, head: bytes | None, rows: Sequence[Row] = (), events: Sequence[Event] = ()) -> Future[Committed]:
        """Write head, rows and events, all or nothing, if the record's revision is `expected`. `head=None` leaves a tombstone and removes every
        row but those given. `events` must be empty where `log` is None. The future is resolved on the event loop after the write is durable, in
        the order in which commits became durable (in a store of several partitions, those of a partition).
        """
        ...

    def submit(
        self, agent: str, expected: int, head: bytes | None, rows: Sequence[Row], events: Sequence[Event], settled: Settled
    ) -> Committed | None:
        """`commit` for whoever makes thousands a second. What is durable at once is returned; what is refused at once, and
        certainly not written, is raised; of anything else `settled(committed, None)` or `settled(None, error)` is called later,
        on the loop, in the order in which commits became durable."""
        future = self.commit(agent, expected, head, rows, events)
        if future.done() and not future.cancelled() and future.exception() is None:
            return future.result()
        future.add_done_callback(partial(_settle, settled))
        return None

    def read(self, agent: str) -> Future[Record | None]:
        """The newest head, or None if there was never one. Reads asked for together are answered together."""
        ...

    def fetch(self, agent: str, told: Told) -> None:
        """`read` for whoever makes thousands a second: `told(record, None)` or `told(None, error)` is called on the loop, perhaps at once. An
        adapter that derives from `Records` has it made from `read`.
        """
        future = self.read(agent)
        if future.done():
            _tell(told, future)
        else:
            future.add_done_callback(partial(_tell, told))

    def read_row(self, agent: str, kind: str, name: str) -> Future[bytes | None]:
        """One unexpired row's value, or None. Reads asked for together are answered together, in the order of asking."""
        ...

    async def read_rows(self, agent: str, kind: str) -> Sequence[StoredRow]:
        """The unexpired rows of one kind of one agent, in order of their names by code points."""
        ...

    def scan(self, kind: str, start: str = "", end: str | None = None) -> AsyncIterator[Sequence[StoredRow]]:
        """Pages of the unexpired rows of one kind, `start <= name < end`, of all agents, ordered by (name, agent);
        never touches heads. Rows committed before the scan began are all seen; later ones may be. A damaged row stops
        its agent, not the scan: it is listed with its `damage`."""
        ...

    def scan_agents(self, type_name: str, after: str = "") -> AsyncIterator[Sequence[Record]]:
        """Pages of the records (no tombstones) of one agent type in order of address, those after the given address. A damaged
        one is listed with its `damage` and an empty head."""
        ...

    async def count_agents(self, type_name: str) -> int:
        """How many records (no tombstones) there are of an agent type; their heads stay unread where the engine can do without."""
        return sum([len(page) async for page in self.scan_agents(type_name)])

    def watch(self, agent: str) -> AsyncIterator[Record]:
        """The present record (if any), then every later one as it is committed, in order. A watcher that is more
        than 1,000 records behind skips to the newest, and one on another node than the writer may skip too; it never misses the last one."""
        ...

    async def remove_expired(self, now_s: float, limit: int = 1_000) -> int:
        """Physically remove up to `limit` rows whose time (seconds since the epoch) has come; how many."""
        ...

    async def verify(self) -> Sequence[str]:
        """Read everything once; a sentence for each thing that is damaged, naming it. Empty: all is well."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, then let go of the store. Later calls fail with `StoreUnavailable`."""
        ...


def _tell(told: Told, future: Future[Record | None]) -> None:
    if future.cancelled():
        told(None, StoreUnavailable("the read was cancelled"))
    elif (error := future.exception()) is not None:
        told(None, error)
    else:
        told(future.result(), None)


def _settle(settled: Settled, future: Future[Committed]) -> None:
    if future.cancelled():
        settled(None, CommitUnknown("the commit was cancelled and may have happened"))
    elif (error := future.exception()) is not None:
        settled(None, error)
    else:
        settled(future.result(), None)
