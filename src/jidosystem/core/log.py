"""`EventLog`: the one log of events, and what readers may rely on.

A position is an opaque growing integer of the one log; gaps are normal. A reader that has seen position p never
finds a new event at or below p later.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from .events import Event


class EventLog(Protocol):
    """The one log of events. `max_event_bytes` is the largest event that it takes, `max_append_events` the most in one `append` (`TooLarge`
    over either). What every adapter promises:

    - `append` is all or nothing, durable when it returns; its events are consecutive among the events of their stream.
    - Readers see events in the order of positions, without holes: once an event is visible, all before it are, and nobody who has seen
      position p finds a new event at or below p later.
    - Every event read has its `position` set and its checksum verified (`RecordUnreadable` otherwise).
    """

    max_event_bytes: int
    max_append_events: int = 1_000_000

    def append(self, events: Sequence[Event], expected: int | None = None) -> Future[Sequence[int]]:
        """Append, and return the positions. `expected`: the position of the last event of the stream of the first
        event (0: the stream is empty), else `StreamConflict`. Also fails as `Records.commit` does."""
        ...

    def read(self, after: int = 0, *, stream: str | None = None) -> AsyncIterator[Sequence[Event]]:
        """Pages (never empty) of events after a position, of one stream or all, ending at the last event that was
        present when the first page was asked for."""
        ...

    def follow(self, after: int = 0, *, stream: str | None = None) -> AsyncIterator[Sequence[Event]]:
        """Pages of events after a position, going on for ever: what is there, then what comes, as it becomes
        durable. Ends with `StoreUnavailable` when the log is closed. A slow follower reads from the store; nothing is lost."""
        ...

    async def last(self, stream: str | None = None) -> int:
        """The position of the last event, of a stream or of all; 0 if there is none."""
        ...


class LogApart(EventLog, Protocol):
    """A log whose appends don't commit with a record. What a turn emits waits beside its record and is appended afterwards, perhaps twice or by
    two nodes: so the log must know what it has.
    """

    async def append_once(self, emitter: str, number: int, events: Sequence[Event]) -> None:
        """Append what an emitter has emitted under a number, all or nothing, unless it has appended that number or a larger one before. Returns
        when it is known to be durable. Fails as `append` does; after `CommitUnknown` it may be called again.
        """
        ...

    async def close(self) -> None:
        """Finish what was accepted, then let go; followers end with `StoreUnavailable`."""
        ...
