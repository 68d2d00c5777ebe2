"""The event log in the same file as the records: a row an event, found by position and by stream."""

from __future__ import annotations

import asyncio
import sqlite3
from asyncio import Future
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

from ...core.errors import StoreUnavailable, TooLarge
from ...core.events import Event, decode_events, encode_event
from ...core.log import EventLog
from .reader import Reader, resolve
from .statements import Write

FIRST_PAGE, MAX_PAGE, PAGE_BYTES = 200, 8_000, 2 * 1024 * 1024
SLICE = 1_000
"""Events that are decoded before the loop gets to do something else."""


class SqliteLog(EventLog):
    """Readers and followers take pages from the file; a follower is woken when a transaction that appended is durable."""

    max_event_bytes = 64 * 1024 * 1024

    def __init__(self, reader: Reader, loop: asyncio.AbstractEventLoop, put: Callable[[Write], None], path: str) -> None:
        self._reader = reader
        self._loop = loop
        self._put = put
        self._path = path
        self._followers: set[asyncio.Event] = set()
        self._closed = False

    def append(self, events: Sequence[Event], expected: int | None = None) -> Future[Sequence[int]]:
        future: Future[Any] = self._loop.create_future()
        if self._closed:
            future.set_exception(StoreUnavailable(f"{self._path} is closed; nothing was written"))
            return future
        encoded = self.encode(events)
        self._put(Write(partial(resolve, future), "", 0, None, (), encoded, expected, sum(len(blob) for _stream, blob in encoded)))
        return future

    def encode(self, events: Sequence[Event]) -> list[tuple[str, bytearray]]:
        """(stream, blob) of each event; `TypeError` or `TooLarge` before anything is queued."""
        encoded = [(event.stream, bytearray(encode_event(event))) for event in events]
        for stream, blob in encoded:
            if len(blob) > self.max_event_bytes:
                raise TooLarge(
                    f"an event of stream {stream!r} has {len(blob)} bytes, over {self.max_event_bytes}; nothing was written",
                    limit=self.max_event_bytes,
                )
        return encoded

    async def read(self, after: int = 0, *, stream: str | None = None) -> AsyncIterator[Sequence[Event]]:
        async for page in self._pages(after, await self.last(), stream):
            yield page

    async def _pages(self, after: int, end: int, stream: str | None) -> AsyncIterator[Sequence[Event]]:
        asked = self._reader.ask("call", _page_query(after, end, stream, FIRST_PAGE)) if after < end else None
        while asked is not None:
            sizes, blobs = await asked
            if sizes is None:
                return
            numbers = [*map(int, sizes.split())]
            after = numbers[-2]  # the next page is read while this one is decoded and used
            limit = _next_limit(len(numbers) // 2, len(blobs))
            asked = self._reader.ask("call", _page_query(after, end, stream, limit)) if after < end else None
            start = 0
            for first in range(0, len(numbers), 2 * SLICE):
                part = numbers[first : first + 2 * SLICE]
                size_bytes = sum(part[1::2])
                yield decode_events(blobs[start : start + size_bytes], zip(part[::2], part[1::2], strict=True))
                start += size_bytes
                await asyncio.sleep(0)  # whoever reads a long log must not keep others from running

    async def follow(self, after: int = 0, *, stream: str | None = None) -> AsyncIterator[Sequence[Event]]:
        grown = asyncio.Event()
        self._followers.add(grown)
        try:
            while True:
                grown.clear()
                end = await self.last()
                async for page in self._pages(after, end, stream):
                    yield page
                after = max(after, end)
                await grown.wait()
                if self._closed:
                    raise StoreUnavailable(f"{self._path} is closed; nothing was written")
        finally:
            self._followers.discard(grown)

    async def last(self, stream: str | None = None) -> int:
        def ask(connection: sqlite3.Connection) -> int:
            query = "SELECT max(position) FROM events" if stream is None else "SELECT max(position) FROM events WHERE stream = ?"
            return connection.execute(query, () if stream is None else (stream,)).fetchone()[0] or 0

        return await self._reader.call(ask)

    def grew(self) -> None:
        """Events became durable: wake the followers."""
        for follower in self._followers:
            follower.set()

    def close(self) -> None:
        """End the followers."""
        self._closed = True
        self.grew()


def _next_limit(count: int, size_bytes: int) -> int:
    """How many events to read at once, after a page of so many of so many bytes: a way to the reader's thread and back is shared by all of them."""
    return max(1, min(MAX_PAGE, PAGE_BYTES * count // max(size_bytes, 1)))


def _page_query(after: int, end: int, stream: str | None, limit: int) -> Callable[[sqlite3.Connection], Any]:
    where = "position > ? AND position <= ?" if stream is None else "stream = ? AND position > ? AND position <= ?"
    query = (
        "SELECT group_concat(position || ' ' || length(event), ' '), CAST(group_concat(event, x'') AS BLOB)"
        f" FROM (SELECT position, event FROM events WHERE {where} ORDER BY position LIMIT ?)"
    )
    values = (after, end, limit) if stream is None else (stream, after, end, limit)
    return lambda connection: connection.execute(query, values).fetchone()
