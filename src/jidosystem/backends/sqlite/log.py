"""The event log in the same file as the records: a row an event, found by position and by stream."""

from __future__ import annotations

import asyncio
import sqlite3
from asyncio import Future
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

from ...core.errors import StoreUnavailable, TooLarge
from ...core.events import Event, decode_event, encode_event
from ...core.log import EventLog
from .reader import Reader, resolve
from .writer import Write

PAGE = 2_000


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
            future.set_exception(StoreUnavailable(f"{self._path} is closed"))
            return future
        encoded = self.encode(events)
        self._put(Write(partial(resolve, future), "", 0, None, (), encoded, expected, sum(len(blob) for _stream, blob in encoded)))
        return future

    def encode(self, events: Sequence[Event]) -> list[tuple[str, bytes]]:
        """(stream, blob) of each event; `TypeError` or `TooLarge` before anything is queued."""
        encoded = [(event.stream, encode_event(event)) for event in events]
        for stream, blob in encoded:
            if len(blob) > self.max_event_bytes:
                raise TooLarge(f"an event of stream {stream!r} has {len(blob)} bytes, over {self.max_event_bytes}")
        return encoded

    async def read(self, after: int = 0, *, stream: str | None = None) -> AsyncIterator[Sequence[Event]]:
        async for page in self._pages(after, await self.last(), stream):
            yield page

    async def _pages(self, after: int, end: int, stream: str | None) -> AsyncIterator[Sequence[Event]]:
        asked = self._reader.ask("call", _page_query(after, end, stream)) if after < end else None
        while asked is not None:
            sizes, blobs = await asked
            if sizes is None:
                return
            numbers = [*map(int, sizes.split())]
            after = numbers[-2]  # the next page is read while this one is decoded and used
            asked = self._reader.ask("call", _page_query(after, end, stream)) if after < end else None
            yield _decode_page(numbers, blobs)

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
                    raise StoreUnavailable(f"{self._path} is closed")
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


def _page_query(after: int, end: int, stream: str | None) -> Callable[[sqlite3.Connection], Any]:
    where = "position > ? AND position <= ?" if stream is None else "stream = ? AND position > ? AND position <= ?"
    query = (
        "SELECT group_concat(position || ' ' || length(event), ' '), CAST(group_concat(event, x'') AS BLOB)"
        f" FROM (SELECT position, event FROM events WHERE {where} ORDER BY position LIMIT {PAGE})"
    )
    values = (after, end) if stream is None else (stream, after, end)
    return lambda connection: connection.execute(query, values).fetchone()


def _decode_page(numbers: list[int], blobs: bytes) -> list[Event]:
    """The events of a page that was packed into one row (see the reader for why): position and size of each, and all their bytes."""
    events: list[Event] = []
    start = 0
    pairs = iter(numbers)
    for position, size in zip(pairs, pairs, strict=True):
        events.append(decode_event(blobs[start : start + size], position))
        start += size
    return events
