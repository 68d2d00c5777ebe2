"""Serving on loopback, in the platform's own event loop.

The order of an end: nothing new is accepted, the platform closes while the answers of what still runs are written, then the
connections go. Nobody who was being served is cut off in mid-answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import Any

import uvicorn

LAST_ANSWERS_S = 2
FIRST_REQUEST_S, LOOK_EVERY_S = 0.25, 0.005


class _Uvicorn(uvicorn.Server):
    """Leaves the process's signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class HttpServer:
    """An application being served on a listening socket, which stays its owner's."""

    def __init__(self, app: Any, listening: socket.socket) -> None:
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", ws="none", interface="asgi3", server_header=False, proxy_headers=False,
            timeout_graceful_shutdown=LAST_ANSWERS_S, h11_max_incomplete_event_size=64 * 1024,
        )  # fmt: skip
        self._server = _Uvicorn(config)
        self._socket = listening.dup()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Accept connections from now on."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            if self._task.done():
                await self._task
            await asyncio.sleep(0)

    async def accept_no_more(self) -> None:
        """Leave new connections in the socket's queue. Those that wait for an answer get it, then they are closed, idle ones at once;
        one that was taken just now gets a moment to say what it wants: its request is on the way, and would be lost with it."""
        for server in self._server.servers:
            server.close()
        connections = self._server.server_state.connections
        until = asyncio.get_running_loop().time() + FIRST_REQUEST_S
        while asyncio.get_running_loop().time() < until:
            await asyncio.sleep(LOOK_EVERY_S)  # uvicorn tells nobody of a request's beginning; the first look is after what was accepted is known
            if all(connection.cycle is not None for connection in connections):  # type: ignore[union-attr]
                break
        for connection in tuple(connections):
            connection.shutdown()

    async def stop(self) -> None:
        """End: what is being answered gets two seconds."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
