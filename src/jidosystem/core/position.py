"""The position of a durable subscription, kept in a record of its own: `jido.subscription/<name>`.

Where several nodes have the same subscription the record also says which of them runs it: that one has claimed it by
compare-and-set, and writes on condition that it is still its own, so that nobody moves the position of another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import msgspec

from .codec import decode, encode
from .errors import CommitUnknown, Conflict, RecordUnreadable, StoreError
from .observability import Log
from .records import Committed, Record, Records

TYPE = "jido.subscription"


class Runner(NamedTuple):
    """The node that runs a subscription, and which life of that node."""

    node: str
    incarnation: int


class Sharing(Protocol):
    """What is asked of the cluster by subscriptions that several nodes have."""

    @property
    def runner(self) -> Runner:
        """This node."""
        ...

    def is_mine(self, name: str) -> bool:
        """Whether of all nodes that have announced a subscription this one is to run it."""
        ...

    def announce(self, name: str) -> Awaitable[None]:
        """This node has a subscription of that name; returns when the others can know."""
        ...

    def withdraw(self, name: str) -> Awaitable[None]:
        """It has it no more."""
        ...

    def is_over(self, runner: Runner) -> Awaitable[bool]:
        """Whether that life of that node has certainly ended."""
        ...

    def may_serve(self) -> bool:
        """Whether this node's lease lets it serve."""
        ...

    def wait_serving(self) -> Awaitable[None]:
        """Wait until this node's lease lets it serve."""
        ...

    def on_change(self, call: Callable[[], None]) -> Callable[[], None]:
        """Call when something of this may have become another; what is returned ends that."""
        ...


class KeptPosition:
    """Written by compare-and-set; a write that its waiter was cancelled in is never forgotten. `lost` is set when another node has claimed what this
    one had: nothing is written any more.
    """

    __slots__ = ("_address", "_lines", "_records", "_revision", "_stored_by", "_storing", "lost", "runner", "stored")

    def __init__(self, name: str, records: Records, lines: Log) -> None:
        self._address = f"{TYPE}/{name}"
        self._records = records
        self._lines = lines
        self._revision = 0
        self._storing: tuple[asyncio.Future[Committed], int, Runner | None] | None = None  # a commit that is under way
        self._stored_by: Runner | None = None  # this node, if the record says so
        self.runner: Runner | None = None  # who has it, as far as this node is concerned; None: nobody, or there is no cluster
        self.lost = asyncio.Event()
        self.stored = 0

    async def find(self, first: Callable[[], Awaitable[int]]) -> int:
        """The stored position. The first time it is what `first` says, and stored when this returns."""
        record = await self._records.read(self._address)
        if record is not None and record.head is not None:
            self._take(record)
            return self.stored
        position = await first()
        try:
            committed = await self._records.commit(self._address, 0 if record is None else record.revision, encode(position))
        except Conflict:  # another node has just found its first position
            if (record := await self._records.read(self._address)) is None or record.head is None:
                raise
            self._take(record)
        else:
            self.stored, self._revision = position, committed.revision
        return self.stored

    async def claim(self, sharing: Sharing) -> bool:
        """Make it this node's to run. False: another that lives has it, or somebody is quicker."""
        record = await self._records.read(self._address)
        if record is None or record.head is None:
            return False
        self.lost.clear()
        self._storing = None  # of an earlier time: whatever became of it is read
        by, mine = self._take(record), sharing.runner
        self._stored_by = None
        if by is not None and by != mine and not await sharing.is_over(by):
            return False
        try:
            committed = await self._records.commit(self._address, self._revision, _encoded(self.stored, mine))
        except Conflict:
            return False
        except CommitUnknown:
            self._stored_by = mine  # perhaps: it has to be let go if it isn't wanted
            raise
        self._revision, self._stored_by, self.runner = committed.revision, mine, mine
        return True

    @property
    def unreleased(self) -> bool:
        """Whether this node has it in the store, and mustn't any more."""
        return self.runner is None and self._stored_by is not None and not self.lost.is_set()

    def let_go(self) -> None:
        """The next `store` says that nobody runs it."""
        self.runner = None

    async def store(self, newest: Callable[[], int]) -> None:
        """Store what `newest` says if that isn't stored already. Fails as `Records.commit` does."""
        while not self.lost.is_set() and ((left_over := self._storing is not None) or newest() != self.stored or self.runner != self._stored_by):
            if self._storing is None:
                position = newest()
                self._storing = self._records.commit(self._address, self._revision, _encoded(position, self.runner)), position, self.runner
            future, position, runner = self._storing
            try:
                committed = await asyncio.shield(future)  # whoever waits may be cancelled; the commit happens all the same
            except Conflict as error:  # a commit whose outcome was unknown, or a second subscription of this name
                record = await self._records.read(self._address)
                self._storing = None
                self._meet(record, error)
            except StoreError:
                self._storing = None
                raise
            else:
                self._storing, self._revision, self.stored, self._stored_by = None, committed.revision, position, runner
                if not left_over:
                    return

    def _meet(self, record: Record | None, error: Conflict) -> None:
        """Somebody else has written it; that may have been we."""
        revision = 0 if record is None else record.revision
        if self._stored_by is not None:
            _position, by = (0, None) if record is None or record.head is None else self._read(record.head)
            if by != self._stored_by:
                self.lost.set()
                return
        self._revision = revision
        self._lines.warning("a subscription's position was written meanwhile", revision=error.actual)

    def _take(self, record: Record) -> Runner | None:
        """Go on from a record; who runs it by that."""
        assert record.head is not None
        self.stored, runner = self._read(record.head)
        self._revision = record.revision
        return runner

    def _read(self, head: bytes) -> tuple[int, Runner | None]:
        try:
            stored: Any = decode(head)
        except msgspec.MsgspecError as error:
            raise RecordUnreadable(f"{self._address} can't be read: {error}; nothing was changed", agent=self._address) from error
        if type(stored) is int:
            return stored, None
        with suppress(msgspec.ValidationError):
            position, node, incarnation = msgspec.convert(stored, tuple[int, str, int])
            return position, Runner(node, incarnation)
        raise RecordUnreadable(f"{self._address} holds {stored!r}, no position; nothing was changed", agent=self._address)


def _encoded(position: int, runner: Runner | None) -> bytes:
    return encode(position if runner is None else [position, *runner])
