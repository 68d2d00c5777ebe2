"""Watching records: a hint says when to look, a look says what is there.

Whatever is written to a head passes its subject, and a plain subscription to it costs the servers nothing and is made again by the
client after every loss. It may come before the write is done, be for one that is refused, or not come at all; so it only
says when to read, and a watched record is read every `period_s` besides. Commits of this node are shown as they are acknowledged.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from ...core.errors import StoreError, StoreUnavailable
from ...core.records import Record
from .client import Headers
from .connection import Connection, Subscription

BEHIND = 1_000
AGAIN_S = (0.0, 0.02, 0.1)
"""A hint may come before what it is of: how long after it is looked."""
Read = Callable[[str], Awaitable[Record | None]]


class _Watched:
    """An agent with at least one watcher."""

    def __init__(self) -> None:
        self.watchers: list[tuple[deque[Record], asyncio.Event]] = []
        self.hinted = asyncio.Event()
        self.last = 0
        self.looking: asyncio.Task[None] | None = None


class Watching:
    """See the module."""

    def __init__(self, connection: Connection, subject_of: Callable[[str], str], read: Read, period_s: float) -> None:
        self._connection, self._subject_of, self._read, self._period_s = connection, subject_of, read, period_s
        self._watched: dict[str, _Watched] = {}
        self._closed = False

    def show(self, agent: str, revision: int, head: bytes | None) -> None:
        """A commit of this node is durable."""
        if (watched := self._watched.get(agent)) is not None:
            self._show(watched, Record(agent, revision, head))

    async def watch(self, agent: str) -> AsyncIterator[Record]:
        """See `Records.watch`."""
        self._check_open()
        seen: deque[Record] = deque(maxlen=BEHIND)
        grown = asyncio.Event()
        watched = self._watched.get(agent)
        if watched is None:
            watched = self._watched[agent] = _Watched()
            watched.looking = asyncio.get_running_loop().create_task(self._look(agent, watched), name=f"watch of {agent}")
        watched.watchers.append((seen, grown))
        last = 0
        try:
            present = await self._read(agent)
            if present is not None:
                last = present.revision
                yield present
            while True:
                if not seen:
                    self._check_open()
                    grown.clear()
                    await grown.wait()
                    continue
                record = seen.popleft() if len(seen) < BEHIND else seen.pop()
                if len(seen) >= BEHIND - 1:
                    seen.clear()
                if record.revision > last:
                    last = record.revision
                    yield record
        finally:
            watched.watchers.remove((seen, grown))
            if not watched.watchers:
                await self._end(agent, watched)

    async def close(self) -> None:
        """End all watches: their watchers hear that the store is closed."""
        self._closed = True
        for agent, watched in list(self._watched.items()):
            await self._end(agent, watched)
            for _seen, grown in watched.watchers:
                grown.set()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the records are closed")

    async def _end(self, agent: str, watched: _Watched) -> None:
        if self._watched.get(agent) is watched:
            del self._watched[agent]
        if watched.looking is not None:
            watched.looking.cancel()
            await asyncio.wait({watched.looking})

    def _show(self, watched: _Watched, record: Record) -> None:
        if record.revision <= watched.last:
            return
        watched.last = record.revision
        for seen, grown in watched.watchers:
            seen.append(record)
            grown.set()

    async def _look(self, agent: str, watched: _Watched) -> None:
        """Read when something hints at a change, and every so often."""

        def hint(_subject: bytes, _reply: bytes, _data: bytes, _headers: Headers) -> None:
            watched.hinted.set()

        subscription: Subscription | None = None
        try:
            while True:
                if subscription is None:
                    with suppress(StoreError, OSError):
                        subscription = await self._connection.subscribe(self._subject_of(agent), hint)
                hinted = True
                try:
                    async with asyncio.timeout(self._period_s):
                        await watched.hinted.wait()
                except TimeoutError:
                    hinted = False
                watched.hinted.clear()
                before = watched.last
                for pause_s in AGAIN_S if hinted else AGAIN_S[:1]:
                    await asyncio.sleep(pause_s)
                    with suppress(StoreError):  # it can't be read just now, or not at all: whoever acts on it will hear why
                        record = await self._read(agent)
                        if record is not None:
                            self._show(watched, record)
                    if watched.last > before:
                        break
        finally:
            if subscription is not None:
                await subscription.close()
