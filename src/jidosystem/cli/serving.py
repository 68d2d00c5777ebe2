"""A node at work: a platform with a program's agents, and its HTTP API."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from ..api.http.gateway import gateway
from ..api.http.loopback import listen
from ..api.http.server import HttpServer
from ..api.platform import Platform
from ..core.records import Records
from ..runtime.definition import AgentType
from ..runtime.head import decode_head
from ..runtime.loading import check_version, current_state
from .program import Program


class Place(NamedTuple):
    """What stays the same while programs come and go: names, store and token."""

    name: str
    target: str
    store: str
    token: str


class Node:
    """A platform being served. Closed in two steps, in which nobody who is being served is cut off."""

    def __init__(self, platform: Platform, server: HttpServer, closing: asyncio.Event) -> None:
        self._platform, self._server, self._closing = platform, server, closing

    async def close(self) -> None:
        """Accept nothing more and close the platform: its store is free when this returns."""
        self._closing.set()
        self._server.accept_no_more()
        await self._platform.__aexit__(None, None, None)

    async def close_connections(self) -> None:
        """Let the last answers go out; after `close`."""
        await self._server.stop()

    async def __aenter__(self) -> Node:
        return self

    async def __aexit__(self, *_error: object) -> None:
        try:
            await self.close()
        finally:
            await self.close_connections()


class _Checked(Platform):
    """A platform for `jido dev`: before it touches the store it looks whether its classes can read what is there."""

    async def _open_records(self, config: Any) -> Records:
        records = await super()._open_records(config)
        try:
            for cls in self._classes:
                await _check_stored(records, cls.__jido_type__)
        except BaseException:
            await records.close()
            raise
        return records


async def _check_stored(records: Records, kind: AgentType) -> None:
    """`StateMismatch`, or whatever else keeps an agent of the first page from being activated: a migration that is missing, say."""
    async for page in records.scan_agents(kind.name):
        for record in page:
            if record.head is not None and record.damage is None:
                head = decode_head(record.head, record.agent)
                check_version(kind, head, record.agent)
                if head.state is not None:
                    kind.codec.mapping(current_state(kind, head, record.agent), record.agent)
        return


async def serve(place: Place, program: Program, listening: socket.socket, *, developing: bool = False) -> Node:
    """Open everything."""
    platform_class = _Checked if developing else Platform
    platform = platform_class(place.store, agents=program.agents, name=place.name, checking=True if developing else None)
    closing = asyncio.Event()
    async with AsyncExitStack() as opening:
        await opening.enter_async_context(platform)
        server = HttpServer(gateway(platform, place.token, closing=closing, program=place.target), listening)
        await server.start()
        opening.pop_all()
    return Node(platform, server, closing)


def rehearse() -> None:
    """Import and compile what opening a node needs, by opening one that nobody sees: the next one is there at once."""

    async def once(folder: str) -> int:
        async with Platform(f"sqlite:///{folder}/rehearsal.db") as platform:
            with listen(port=0) as listening:
                server = HttpServer(gateway(platform, "", closing=asyncio.Event()), listening)
                await server.start()
                server.accept_no_more()
                await server.stop()
        return 0

    with tempfile.TemporaryDirectory() as folder:
        run_loop(once(folder))


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run to the end, on uvloop where that is installed."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
