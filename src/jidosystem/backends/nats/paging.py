"""Pages of a stream by batches of direct gets: a request, then messages as fast as they come, then a mark that it was all.

Any server that holds the stream may answer, so this works while a leader is being elected, and what it answers may be behind;
but a server applies a stream's messages in their order, so what it answers never has a hole. Messages that get lost on their way are
found by the sequence that each names as its predecessor's: what follows a gap is thrown away and asked for again.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import msgspec

from ...core.errors import NodeUnreachable
from .client import Headers
from .connection import Connection

PAGE_MESSAGES = 1_000
PAGE_BYTES = 2 * 1024 * 1024
SILENCE_S = (0.5, 8.0)
"""So long nothing comes: the server that was to answer is gone, or paused. Doubled with each attempt after the third, for it may only be slow, and
what it is asked again makes it slower."""


class Raw(NamedTuple):
    """A message of a page."""

    sequence: int
    payload: bytes
    headers: dict[str, str]


class _Page:
    """What has come of one page."""

    __slots__ = ("ended", "messages", "torn")

    def __init__(self) -> None:
        self.messages: list[Raw] = []
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.torn = False

    def take(self, _subject: bytes, _reply: bytes, data: bytes, headers: Headers) -> None:
        """A message, or the mark that there is none or no more."""
        if headers is None or "Nats-Sequence" not in headers:
            if not self.ended.done():
                self.ended.set_result((headers or {}).get("Status", ""))
            return
        before = self.messages[-1].sequence if self.messages else 0
        self.torn = self.torn or int(headers.get("Nats-Last-Sequence", before)) != before
        if not self.torn:
            self.messages.append(Raw(int(headers["Nats-Sequence"]), data, headers))


async def page(connection: Connection, stream: str, subject: str, first: int, limit: int = PAGE_MESSAGES, attempt: int = 1) -> list[Raw] | None:
    """The messages of a subject (a pattern) from a sequence on, as far as one page goes; [] if the server that answered has none, None if the
    answer got lost. `NodeUnreachable` if nobody answers."""
    least_s, most_s = SILENCE_S
    silence_s = min(least_s * (1 << min(max(attempt - 3, 0), 10)), most_s)
    wanted = {"seq": first, "batch": limit, "max_bytes": PAGE_BYTES, "next_by_subj": subject}
    got = _Page()
    number, inbox = connection.listen(got.take)
    try:
        connection.publish(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(wanted), reply=inbox)
        seen = -1
        while not got.ended.done() and len(got.messages) > seen:
            seen = len(got.messages)
            await asyncio.wait({got.ended}, timeout=silence_s)
    finally:
        connection.deafen(number)
    status = got.ended.result() if got.ended.done() else ""
    if status == "503":
        raise NodeUnreachable(f"no server answers for stream {stream}")
    if got.messages or status == "404":
        return got.messages
    return None
