"""Routes on events: publish, list, follow, replay; and on what could not be delivered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from ...core.dead_letters import SOURCES, Source
from ...core.errors import InvalidArguments, StoreUnavailable
from ...core.events import MAX_STREAM_CHARS, Event, matcher
from .answers import answer, as_from_afar, json_of, object_of

if TYPE_CHECKING:
    from ..platform import Platform

MAX_PAGE = 1_000
QUIET_S = 10.0
"""How long a stream of events says nothing before it shows that it is alive."""
PUBLISHED = {"type": str, "data": object, "metadata": dict[str, Any] | None, "stream": str | None, "expected": int | None}


class EventRoutes:
    """See the module. `closing` ends the streams that are being followed."""

    def __init__(self, platform: Platform, closing: asyncio.Event) -> None:
        self._bus = platform.events
        self._letters = platform.dead_letters
        self._closing = closing

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(prefix="/v1", tags=["events"])
        router.add_api_route("/events", self.publish, methods=["POST"])
        router.add_api_route("/events", self.page, methods=["GET"])
        router.add_api_route("/events/follow", self.follow, methods=["GET"])
        router.add_api_route("/events/replay", self.replay, methods=["GET"])
        router.add_api_route("/dead-letters", self.letters, methods=["GET"])
        router.add_api_route("/dead-letters", self.clear, methods=["DELETE"])
        router.add_api_route("/dead-letters/{id}/redrive", self.redrive, methods=["POST"])
        return router

    async def publish(self, request: Request) -> Response:
        """Publish an event: `type` and, if wanted, `data`, `metadata`, `stream` and `expected`. The answer is the event as it is stored."""
        given = object_of(await request.body(), PUBLISHED, frozenset({"type"}))
        return answer((await self._bus.publish(**given)).to_cloudevent(), 201)

    async def page(
        self,
        pattern: str = Query("**", description="Which types of events."),
        stream: str | None = Query(None, description="Only events of this stream."),
        after: int = Query(0, ge=0, lt=2**63, description="The position after which to begin: the `next` of the page before."),
        limit: int = Query(100, ge=1, le=MAX_PAGE),
    ) -> Response:
        """A page of stored events in order. `next` is the position to go on from; null at the end."""
        found: list[Event] = []
        async for event in self._stored(pattern, stream, after):
            found.append(event)
            if len(found) > limit:
                break
        shown = found[:limit]
        return answer({"events": [e.to_cloudevent() for e in shown], "next": shown[-1].position if len(found) > limit else None})

    async def replay(self, stream: str = Query(), after: int = Query(0, ge=0, lt=2**63)) -> Response:
        """All events of a stream, one JSON value a line, ending at the last one that is present now."""
        if not 0 < len(stream) <= MAX_STREAM_CHARS:
            raise InvalidArguments(f"stream: text of 1 to {MAX_STREAM_CHARS:,} characters", path="$.stream")

        async def lines() -> AsyncIterator[bytes]:
            async for event in self._bus.read(stream, after):
                yield _line(event)

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def follow(
        self,
        request: Request,
        pattern: str = Query("**"),
        stream: str | None = Query(None),
        after: int | None = Query(None, ge=0, lt=2**63, description="A position; by default only events to come."),
    ) -> Response:
        """Events as they are stored, without end: server-sent events if the client accepts them, else one JSON value a line.

        A client that comes back says `Last-Event-ID`. A comment, or an empty line, shows every 10 seconds that the node is alive.
        """
        as_sse = "text/event-stream" in request.headers.get("accept", "")
        last = request.headers.get("last-event-id", "")
        if last.isdigit() and len(last) < 19:
            after = int(last)
        matcher(pattern)
        events = self._bus.follow(pattern, after)
        told = self._told(events, stream, _sse if as_sse else _line, b": alive\n\n" if as_sse else b"\n")
        return StreamingResponse(told, media_type="text/event-stream" if as_sse else "application/x-ndjson", headers={"Cache-Control": "no-store"})

    async def _told(self, events: AsyncIterator[Event], stream: str | None, tell: Any, alive: bytes) -> AsyncIterator[bytes]:
        closing = asyncio.ensure_future(self._closing.wait())
        coming: asyncio.Future[Event] | None = None
        try:
            yield alive  # the client knows that it is being followed from here on
            while True:
                coming = coming or asyncio.ensure_future(anext(events))
                await asyncio.wait((coming, closing), timeout=QUIET_S, return_when=asyncio.FIRST_COMPLETED)
                if closing.done():
                    return
                if not coming.done():
                    yield alive
                    continue
                try:
                    event = coming.result()
                except (StoreUnavailable, StopAsyncIteration):
                    return
                coming = None
                if stream is None or event.stream == stream:
                    yield tell(event)
        finally:
            for task in (closing, coming):
                if task is not None and not task.done():
                    task.cancel()
                    with suppress(asyncio.CancelledError, StoreUnavailable):
                        await task

    async def _stored(self, pattern: str, stream: str | None, after: int) -> AsyncIterator[Event]:
        fits = matcher(pattern)
        async for event in self._bus.read_all(pattern, after) if stream is None else self._bus.read(stream, after):
            if fits(event.type):
                yield event

    # -- dead letters ------------------------------------------------------------------------------------------

    async def letters(
        self,
        source: str | None = Query(None, description="event, cast, reminder or sensor."),
        name: str | None = Query(None),
        limit: int = Query(100, ge=1, le=MAX_PAGE),
    ) -> Response:
        """The dead letters, the oldest first."""
        return answer({"dead_letters": await self._letters.list(_source(source), name=name, limit=limit)})

    async def redrive(self, id: str) -> Response:  # noqa: A002
        """Run a dead letter again; it is removed once that has worked."""
        with as_from_afar():
            await self._letters.redrive(id)
        return answer({"redriven": id})

    async def clear(self, source: str | None = Query(None)) -> Response:
        """Remove the dead letters of one source, or all."""
        return answer({"cleared": await self._letters.clear(_source(source))})


def _source(name: str | None) -> Source | None:
    if name is not None and name not in SOURCES:
        raise InvalidArguments(f"source={name!r}: one of {', '.join(SOURCES)}", path="$.source")
    return name


def _line(event: Event) -> bytes:
    return json_of(event.to_cloudevent()) + b"\n"


def _sse(event: Event) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.position, event.type.encode(), json_of(event.to_cloudevent()))
