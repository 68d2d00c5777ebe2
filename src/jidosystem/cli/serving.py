"""A node at work: a platform with a program's agents, its HTTP API, and the file by which commands find it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from ..api.http.gateway import gateway
from ..api.http.loopback import url_of
from ..api.http.server import HttpServer
from ..api.platform import Platform
from . import node
from .program import Program


class Place(NamedTuple):
    """What stays the same while programs come and go: names, store and token."""

    name: str
    target: str
    store: str
    token: str


async def serve(place: Place, program: Program, listening: socket.socket, stack: AsyncExitStack, *, checking: bool | None = None) -> Platform:
    """Open everything; closing the stack closes it in an order in which nobody who is being served is cut off."""
    platform = Platform(place.store, agents=program.agents, name=place.name, checking=checking)
    closing = asyncio.Event()
    async with AsyncExitStack() as opening:
        await opening.enter_async_context(platform)
        server = HttpServer(gateway(platform, place.token, closing=closing, program=place.target), listening)
        await server.start()
        opening.push_async_callback(server.stop)
        stack.push_async_exit(opening.pop_all())
    written = node.NodeFile(place.name, url_of(listening), os.getpid(), place.target, place.token)

    async def close() -> None:
        closing.set()
        server.accept_no_more()
        await platform.__aexit__(None, None, None)
        await server.stop()

    stack.push_async_callback(close)
    await asyncio.to_thread(node.write, written)
    stack.push_async_callback(asyncio.to_thread, node.remove, written)
    return platform


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run to the end, on uvloop where that is installed."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
