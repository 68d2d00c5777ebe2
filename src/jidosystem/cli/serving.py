"""A node at work: a platform with a program's agents, the program's lifespan within it, and the HTTP API within that.

A lifespan begins and ends in the task that serves: a `TaskGroup` may be held in it, and what fails there ends the node.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

from ..api.assembly import check_url, shown
from ..api.http.gateway import gateway
from ..api.http.loopback import listen
from ..api.http.server import HttpServer
from ..api.platform import Platform
from ..core.records import Records
from ..runtime.definition import AgentType
from ..runtime.head import decode_head
from ..runtime.loading import check_version, current_state
from .program import LIFESPAN, Lifespan, Program, failed


class Place(NamedTuple):
    """What stays the same while programs come and go: names, store and token."""

    name: str
    target: str
    store: str
    token: str


class Node:
    """A platform being served. Closed in two steps, in which nobody who is being served is cut off.

    Attributes:
        cluster: as in its file
    """

    def __init__(self, cluster: str, opened: AsyncExitStack, server: HttpServer, closing: asyncio.Event) -> None:
        self.cluster = cluster
        self._opened, self._server, self._closing = opened, server, closing

    async def close(self, error: BaseException | None = None) -> None:
        """Accept nothing more, end the lifespan and close the platform: its store is free when this returns, or raises what the lifespan did."""
        self._closing.set()
        await self._server.accept_no_more()
        await self._opened.__aexit__(type(error) if error is not None else None, error, None)

    async def close_connections(self) -> None:
        """Let the last answers go out; after `close`."""
        await self._server.stop()

    async def __aenter__(self) -> Node:
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        try:
            await self.close(error)
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
        if program.lifespan is not None:
            await opening.enter_async_context(_within(program.lifespan, platform, place.target))
        server = HttpServer(gateway(platform, place.token, closing=closing, program=place.target), listening)
        await server.start()
        cluster = f"{platform.config.platform.cluster_name} at {shown(place.store)}" if check_url(place.store)[0] == "nats" else ""
        return Node(cluster, opening.pop_all(), server, closing)


@asynccontextmanager
async def _within(lifespan: Lifespan, platform: Platform, target: str) -> AsyncGenerator[None]:
    """A program's lifespan; what it raises by itself is told with its author's lines."""
    ours: BaseException | None = None
    try:
        async with lifespan(platform):
            try:
                yield
            except BaseException as error:
                ours = error
                raise
    except (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        if error is ours:
            raise
        raise failed(f"{LIFESPAN} of {target} failed", error) from error


def rehearse() -> None:
    """Import and compile what opening a node needs, by opening one that nobody sees: the next one is there at once."""

    async def once(folder: str) -> int:
        async with Platform(f"sqlite:///{folder}/rehearsal.db") as platform:
            with listen(port=0) as listening:
                server = HttpServer(gateway(platform, "", closing=asyncio.Event()), listening)
                await server.start()
                await server.accept_no_more()
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
