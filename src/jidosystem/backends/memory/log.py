"""The event log in memory: encoded events in a list, so that readers get values of their own."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import AsyncIterator, Sequence

from ...core.errors import StoreUnavailable, StreamConflict, TooLarge
from ...core.events import Event, decode_event, encode_event
from ...core.log import LogApart

PAGE = 1_000


class MemoryLog(LogApart):
    """A position is an event's place in the list, from 1."""

    max_event_bytes = 64 * 1024 * 1024

    def __init__(self) -> None:
        self._blobs: list[bytes] = []
        self._streams: dict[str, list[int]] = {}
        self._emitted: dict[str, int] = {}  # the last number of each emitter
        self._followers: dict[asyncio.Event, None] = {}  # in the order in which they came, so that a run can be had again
        self._closed = False

    def copy(self) -> MemoryLog:
        """A log of its own that holds what this one holds now; nobody follows it."""
        other = MemoryLog()
        other._blobs = list(self._blobs)
        other._streams = {stream: list(positions) for stream, positions in self._streams.items()}
        return other

    def append(self, events: Sequence[Event], expected: int | None = None) -> Future[Sequence[int]]:
        future: Future[Sequence[int]] = asyncio.get_running_loop().create_future()
        try:
            blobs = self.prepare(events, expected)
        except (StoreUnavailable, StreamConflict, TooLarge) as error:
            future.set_exception(error)
        else:
            future.set_result(self.add(events, blobs))
        return future

    async def append_once(self, emitter: str, number: int, events: Sequence[Event]) -> None:
        self.add_once(emitter, number, events)

    def add_once(self, emitter: str, number: int, events: Sequence[Event]) -> None:
        """`append_once`, done when it returns."""
        if self._emitted.get(emitter, 0) < number:
            self.add(events, self.prepare(events))
            self._emitted[emitter] = number

    def prepare(self, events: Sequence[Event], expected: int | None = None) -> list[bytes]:
        """Encode and check; raises what refuses the append, before anything is changed."""
        if self._closed:
            raise StoreUnavailable("the store is closed; nothing was written")
        if expected is not None and events:
            actual = self._last_of(events[0].stream)
            if actual != expected:
                raise StreamConflict(
                    f"stream {events[0].stream!r} ends at {actual}, not at {expected}; nothing was written",
                    stream=events[0].stream,
                    expected=expected,
                    actual=actual,
                )
        blobs = [encode_event(event) for event in events]
        for event, blob in zip(events, blobs, strict=True):
            if len(blob) > self.max_event_bytes:
                raise TooLarge(
                    f"event {event.type!r} has {len(blob)} bytes, over {self.max_event_bytes}; nothing was written", limit=self.max_event_bytes
                )
        return blobs

    def add(self, events: Sequence[Event], blobs: Sequence[bytes]) -> Sequence[int]:
        """Append what was prepared; cannot fail."""
        first = len(self._blobs) + 1
        self._blobs.extend(blobs)
        for position, event in enumerate(events, first):
            stream = self._streams.get(event.stream)
            if stream is None:
                stream = self._streams[event.stream] = []
            stream.append(position)
        for follower in self._followers:
            follower.set()
        return range(first, first + len(blobs))

    async def read(self, after: int = 0, *, stream: str | None = None) -> AsyncIterator[Sequence[Event]]:
        end = len(self._blobs)
        async for page in self._pages(after, end, stream):
            yield page

    async def _pages(self, after: int, end: int, stream: str | None) -> AsyncIterator[Sequence[Event]]:
        if stream is None:
            for start in range(max(after, 0), end, PAGE):
                stop = min(start + PAGE, end)
                yield [decode_event(blob, position) for position, blob in enumerate(self._blobs[start:stop], start + 1)]
        else:
            positions = [p for p in self._streams.get(stream, ()) if after < p <= end]
            for start in range(0, len(positions), PAGE):
                yield [decode_event(self._blobs[p - 1], p) for p in positions[start : start + PAGE]]

    async def follow(self, after: int = 0, *, stream: str | None = None) -> AsyncIterator[Sequence[Event]]:
        grown = asyncio.Event()
        self._followers[grown] = None
        try:
            while True:
                grown.clear()
                end = len(self._blobs)
                async for page in self._pages(after, end, stream):
                    yield page
                after = max(after, end)
                if self._closed:
                    raise StoreUnavailable("the store is closed; nothing was written")
                if len(self._blobs) == end:
                    await grown.wait()
        finally:
            del self._followers[grown]

    async def last(self, stream: str | None = None) -> int:
        return len(self._blobs) if stream is None else self._last_of(stream)

    def _last_of(self, stream: str) -> int:
        positions = self._streams.get(stream)
        return positions[-1] if positions else 0

    async def close(self) -> None:
        self.end()

    def end(self) -> None:
        """End the followers."""
        self._closed = True
        for follower in self._followers:
            follower.set()
