"""`EventLog` on one JetStream stream: a position is a sequence of the stream, a stream of events a subject in it.

Readers take pages by direct gets (`paging.py`), appends go in atomic batches (`appending.py`). There is no consumer on the
server that could fall silent, lose its place or be left behind. Followers wait for hints: whoever appended says so on a core
subject, and once a second the leader is asked how far the log goes; a hint that is lost costs that second, nothing else.

Nothing is ever removed: the stream denies deletes and purges, and refuses new events when it is full.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
from nats.nuid import NUID

from ...core.errors import NodeUnreachable, RecordUnreadable, StoreUnavailable, StreamConflict
from ...core.events import Event, decode_event
from ...core.log import LogApart
from .appending import HEADER_BYTES, KNOWN_STREAMS, PARTS, Append, Appender, Names
from .client import Headers
from .connection import Connection, Notice, Subscription
from .jetstream import MAX_BATCH, JetStream
from .paging import PAGE_MESSAGES, Raw, page
from .settings import NatsSettings
from .subjects import token

FIRST_PAGE = 200
LOOK_S = 1.0
LAG_S = (0.005, 0.2)
HINT_STREAMS = 8


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the log of a new cluster lies.

    Attributes:
        max_bytes: of all events; past it appends fail with `StoreFull`. Every server that holds them reserves so much
        replicas: servers that hold it, 1, 3 or 5; None: three in a cluster of servers, otherwise one
        append_timeout_s: how long an append is tried
        read_timeout_s: how long a page is tried
    """

    max_bytes: int = 4 * 1024**3
    replicas: int | None = None
    append_timeout_s: float = 30.0
    read_timeout_s: float = 15.0


_hint = msgspec.json.Decoder(tuple[str, int, dict[str, int], bool]).decode


class _Follower:
    """Somebody who waits for events of one stream (a subject), or of all."""

    __slots__ = ("grown", "subject", "wanted")

    def __init__(self, subject: str | None) -> None:
        self.subject = subject
        self.grown = asyncio.Event()
        self.wanted = 0  # it is known that there are events up to here


class NatsLog(LogApart):
    """See the module. Made by `NatsLog.open`, which gives it a connection of its own."""

    max_event_bytes = 64 * 1024 * 1024
    max_append_events = MAX_BATCH

    def __init__(self, connection: Connection, settings: LogSettings) -> None:
        cluster = connection.settings.cluster
        self._names = Names(f"{cluster}_events", f"{cluster}.e.", f"{cluster}.p", f"{cluster}.o.")
        self._hints = f"{cluster}.n.events"
        self._connection, self._settings = connection, settings
        self._jetstream = JetStream(connection, settings.read_timeout_s)
        self._appender = Appender(self._jetstream, self._names, settings.append_timeout_s, self._grew)
        self._followers: dict[_Follower, None] = {}
        self._looking: asyncio.Task[None] | None = None
        self._hinted: Subscription | None = None
        self._fetching: dict[tuple[str, int], asyncio.Future[list[Raw]]] = {}
        self._marks: dict[str, tuple[int, int]] = {}
        """Of emitters that this node appended for last, as far as it knows: their last numbers, and where these stand."""
        self._me = NUID().next().decode()
        self._closed = False

    @classmethod
    async def open(cls, settings: NatsSettings, log: LogSettings | None = None, *, told: Callable[[Notice], None] | None = None) -> NatsLog:
        """Connect, and make the stream if it isn't there. Errors as of `Connection.open` and `JetStream.ensure_stream`."""
        connection = await Connection.open(settings, name=f"jido {settings.cluster} log", told=told)
        self = cls(connection, log or LogSettings())
        try:
            await self._jetstream.ensure_stream(self._stream())
            self._hinted = await connection.subscribe(self._hints, self._hint)
        except BaseException:
            await connection.close()
            raise
        return self

    def append(self, events: Sequence[Event], expected: int | None = None) -> Future[Sequence[int]]:
        room_bytes = self._connection.max_payload_bytes - HEADER_BYTES
        append = Append(events, expected, self._names, token, room_bytes, self.max_event_bytes)
        if self._closed:
            append.failed(StoreUnavailable("the log is closed; nothing was written"))
        elif not events:
            append.future.set_result(())
        else:
            self._appender.put(append)
        return append.future

    async def append_once(self, emitter: str, number: int, events: Sequence[Event]) -> None:
        """An emitter's last number lies under a subject of its own and changes in the batch of its events, by compare-and-set."""
        subject = self._names.marks + token(emitter)
        while True:
            self._check_open()
            last, sequence = self._marks.pop(subject, (0, 0))
            if last != number - 1 or not last:  # an emitter that has skipped numbers has emitted elsewhere, or something else
                last, sequence = await self._mark_of(subject)
            if last >= number:
                return
            room_bytes = self._connection.max_payload_bytes - HEADER_BYTES
            append = Append(events, None, self._names, token, room_bytes, self.max_event_bytes)
            append.mark(emitter, subject, number, sequence)
            self._appender.put(append)
            try:
                positions = await append.future
            except StreamConflict:  # the same, by an earlier attempt or another node; or what was read was old
                continue
            if positions:
                self._marks[subject] = number, positions[-1] + 1  # the mark stands behind its events
            if len(self._marks) > KNOWN_STREAMS:
                del self._marks[next(iter(self._marks))]
            return

    async def _mark_of(self, subject: str) -> tuple[int, int]:
        """An emitter's last number, and the sequence of the message that says so."""
        found = await self._jetstream.last_of(self._names.stream, subject)
        return (0, 0) if found is None else (int(found.payload), found.sequence)

    async def read(self, after: int = 0, *, stream: str | None = None) -> AsyncIterator[Sequence[Event]]:
        end, pause_s, limit = await self.last(stream), LAG_S[0], FIRST_PAGE
        while after < end:
            events = await self._events(after, self._subject(stream), limit)
            limit = PAGE_MESSAGES
            events = [event for event in events if event.position <= end]
            if events:
                after, pause_s = events[-1].position, LAG_S[0]
                yield events
            else:  # the server that answered hasn't got that far
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LAG_S[1])

    async def follow(self, after: int = 0, *, stream: str | None = None) -> AsyncIterator[Sequence[Event]]:
        follower = _Follower(None if stream is None else self._subject(stream))
        self._followers[follower] = None
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look(), name="the NATS log's look at its end")
        pause_s = LAG_S[0]
        try:
            while True:
                follower.grown.clear()
                events = await self._events_some_time(after, self._subject(stream))
                if events:
                    after, pause_s = events[-1].position, LAG_S[0]
                    yield events
                elif follower.wanted > after:  # as above
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, LAG_S[1])
                else:
                    await follower.grown.wait()
        finally:
            del self._followers[follower]

    async def last(self, stream: str | None = None) -> int:
        self._check_open()
        subject = self._subject(stream)
        known = self._appender.newest if stream is None else self._appender.last_known(subject)
        async for _ in self._jetstream.attempts(None, subject):
            found = await self._last_of(None if stream is None else subject)
            if found >= known:  # otherwise a server answered that was overtaken
                return found
        raise StoreUnavailable(f"the NATS servers don't know of {known}, which was acknowledged")

    async def close(self) -> None:
        """Finish what was accepted, then let go of the servers. Followers end with `StoreUnavailable`."""
        if self._closed:
            return
        self._closed = True
        for follower in self._followers:
            follower.grown.set()
        await self._appender.finish()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        if self._fetching:
            await asyncio.wait(self._fetching.values())
        await self._connection.close()

    # -- inside ----------------------------------------------------------------------------------------------------

    def _stream(self) -> dict[str, Any]:
        return {
            "name": self._names.stream, "subjects": [f"{self._names.events}>", self._names.parts, f"{self._names.marks}>"],
            "storage": "file", "retention": "limits",
            "discard": "new", "num_replicas": self._settings.replicas or self._jetstream.replicas, "max_bytes": self._settings.max_bytes,
            "deny_delete": True, "deny_purge": True, "allow_direct": True, "allow_atomic": True, "compression": "none",
        }  # fmt: skip

    def _subject(self, stream: str | None) -> str:
        return f"{self._names.events}>" if stream is None else self._names.events + token(stream)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the log is closed")

    async def _last_of(self, subject: str | None) -> int:
        # Not the stream's own last sequence: that may be of a mark, which no reader of events ever gets to.
        found = await self._jetstream.last_of(self._names.stream, subject or self._subject(None))
        return 0 if found is None else found.sequence

    async def _events_some_time(self, after: int, subject: str) -> list[Event]:
        """A page, however long the servers are away."""
        while True:
            self._check_open()
            try:
                return await self._events(after, subject, PAGE_MESSAGES)
            except StoreUnavailable as error:
                self._check_open()
                self._connection.tell("error", f"a follower of the log waits for the NATS servers: {error}")

    async def _events(self, after: int, subject: str, limit: int) -> list[Event]:
        """The next page, [] if the server that answered has none."""
        return [await self._event(raw) for raw in await self._page(subject, after + 1, limit)]

    async def _page(self, subject: str, first: int, limit: int) -> list[Raw]:
        """Followers that stand at the same place ask together: each page is fetched once for all of them."""
        fetching = self._fetching.get((subject, first))
        if fetching is None:
            fetching = self._fetching[subject, first] = asyncio.ensure_future(self._fetch(subject, first, limit))
            fetching.add_done_callback(lambda ended: self._fetched(ended, (subject, first)))
        return await asyncio.shield(fetching)

    def _fetched(self, ended: asyncio.Future[list[Raw]], place: tuple[str, int]) -> None:
        del self._fetching[place]
        if not ended.cancelled():
            ended.exception()  # whoever asked may have gone

    async def _fetch(self, subject: str, first: int, limit: int) -> list[Raw]:
        async for attempt in self._jetstream.attempts(None, subject):
            try:
                found = await page(self._connection, self._names.stream, subject, first, limit, attempt)
            except NodeUnreachable:
                continue
            if found is not None:
                return found
        raise StoreUnavailable("no NATS server answers for the log")

    async def _event(self, raw: Raw) -> Event:
        parts = raw.headers.get(PARTS)
        return decode_event(raw.payload if parts is None else await self._joined(raw.sequence, int(parts)), raw.sequence)

    async def _joined(self, position: int, count: int) -> bytes:
        """A large event: its parts lie right before it."""
        parts: list[bytes] = []
        while len(parts) < count:
            first = position - count + len(parts)
            found = await self._page(self._names.parts, first, count - len(parts))
            expected = range(first, first + len(found))
            if not found or [raw.sequence for raw in found] != list(expected):
                raise RecordUnreadable(f"parts of the event at position {position} aren't where they must be", position=position)
            parts += [raw.payload for raw in found]
        return b"".join(parts)

    def _grew(self, ends: dict[str, int]) -> None:
        """Our own events are stored: followers here are woken, those elsewhere are told."""
        self._wake(ends)
        told = dict(list(ends.items())[-HINT_STREAMS:]) if len(ends) > HINT_STREAMS else ends
        hint = msgspec.json.encode([self._me, max(ends.values()), told, len(told) == len(ends)])
        try:
            self._connection.publish(self._hints, hint)
        except NodeUnreachable:
            return  # they look themselves within a second

    def _hint(self, _subject: bytes, _reply: bytes, data: bytes, _headers: Headers) -> None:
        who, end, ends, complete = _hint(data)
        if who != self._me:
            self._wake(ends if complete else None, end)

    def _wake(self, ends: dict[str, int] | None, end: int = 0) -> None:
        """Wake followers: of which streams something is known, or (None) all of them."""
        end = max(end, *ends.values()) if ends else end
        for follower in self._followers:
            if follower.subject is None:
                follower.wanted = max(follower.wanted, end)
            elif ends is not None:
                if follower.subject not in ends:
                    continue
                follower.wanted = max(follower.wanted, ends[follower.subject])
            follower.grown.set()

    async def _look(self) -> None:
        seen = 0
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._followers:
                continue
            try:
                end = await self._last_of(None)
            except StoreUnavailable:
                continue  # the followers ask, and tell, themselves
            if end > seen:
                seen = end
                self._wake(None, end)
