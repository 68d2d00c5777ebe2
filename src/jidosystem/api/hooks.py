"""The way from HTTP to sensors, as an ASGI application: whatever serves ASGI serves it, alone or in front of another application.

It needs no framework. Requests to a path that no sensor takes go on to the other application, or are answered with 404.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from ..core.hooks import HttpRequest, HttpResponse, Receivers

MAX_BODY_BYTES = 4 * 1024 * 1024

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Message, Receive, Send], Awaitable[None]]


class Hooks:
    """See the module; `otherwise`: the application behind it."""

    __slots__ = ("_otherwise", "_receivers")

    def __init__(self, receivers: Receivers, otherwise: AsgiApp | None = None) -> None:
        self._receivers = receivers
        self._otherwise = otherwise

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One connection of ASGI."""
        path = str(scope.get("path", "")).removeprefix(str(scope.get("root_path", "")))
        if scope["type"] == "http" and self._receivers.find(path) is not None:
            await _answer(await self._take(scope, path, receive), send)
        elif self._otherwise is not None:
            await self._otherwise(scope, receive, send)
        elif scope["type"] == "http":
            await _answer(HttpResponse(404, b"nobody takes this path"), send)
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _take(self, scope: Message, path: str, receive: Receive) -> HttpResponse:
        body = await _body(receive)
        if body is None:
            return HttpResponse(413, f"the body is over the limit of {MAX_BODY_BYTES:,} bytes".encode(), {"connection": "close"})
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            told, more = name.decode("latin-1").lower(), value.decode("latin-1")
            headers[told] = f"{headers[told]}, {more}" if told in headers else more
        query = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True))
        request = HttpRequest(method=scope["method"], path=path, headers=headers, query=query, body=body)
        return await self._receivers.receive(request) or HttpResponse(404)


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None if it is too large. Raises `ConnectionError` if its sender has gone."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the sender went away before it had sent all of its request")
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY_BYTES:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _answer(response: HttpResponse, send: Send) -> None:
    headers = {"content-length": str(len(response.body)), **response.headers} if response.status != 204 else response.headers
    told = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": told})
    await send({"type": "http.response.body", "body": response.body})


async def _live(receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": f"{message['type']}.complete"})
