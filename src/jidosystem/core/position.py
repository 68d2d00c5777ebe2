"""The position of a durable subscription, kept in a record of its own: `jido.subscription/<name>`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from .codec import decode, encode
from .errors import Conflict, RecordUnreadable, StoreError
from .observability import Log
from .records import Committed, Records

TYPE = "jido.subscription"


class KeptPosition:
    """Written by compare-and-set; a write that its waiter was cancelled in is never forgotten."""

    __slots__ = ("_address", "_lines", "_records", "_revision", "_storing", "stored")

    def __init__(self, name: str, records: Records, lines: Log) -> None:
        self._address = f"{TYPE}/{name}"
        self._records = records
        self._lines = lines
        self._revision = 0
        self._storing: tuple[asyncio.Future[Committed], int] | None = None  # a commit that is under way
        self.stored = 0

    async def find(self, first: Callable[[], Awaitable[int]]) -> int:
        """The stored position. The first time it is what `first` says, and stored when this returns."""
        record = await self._records.read(self._address)
        if record is not None and record.head is not None:
            self.stored, self._revision = self._read(record.head), record.revision
        else:
            position = await first()
            committed = await self._records.commit(self._address, 0 if record is None else record.revision, encode(position))
            self.stored, self._revision = position, committed.revision
        return self.stored

    async def store(self, newest: Callable[[], int]) -> None:
        """Store what `newest` says if that isn't stored already. Fails as `Records.commit` does."""
        while (left_over := self._storing is not None) or newest() != self.stored:
            if self._storing is None:
                position = newest()
                self._storing = self._records.commit(self._address, self._revision, encode(position)), position
            future, position = self._storing
            try:
                committed = await asyncio.shield(future)  # whoever waits may be cancelled; the commit happens all the same
            except Conflict as error:  # a commit whose outcome was unknown, or a second subscription of this name
                record = await self._records.read(self._address)
                self._storing, self._revision = None, 0 if record is None else record.revision
                self._lines.warning("a subscription's position was written meanwhile", revision=error.actual)
            except StoreError:
                self._storing = None
                raise
            else:
                self._storing, self._revision, self.stored = None, committed.revision, position
                if not left_over:
                    return

    def _read(self, head: bytes) -> int:
        try:
            position = decode(head)
        except msgspec.MsgspecError as error:
            raise RecordUnreadable(f"{self._address} can't be read: {error}; nothing was changed", agent=self._address) from error
        if type(position) is not int:
            raise RecordUnreadable(f"{self._address} holds {position!r}, no position; nothing was changed", agent=self._address)
        return position
