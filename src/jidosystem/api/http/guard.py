"""The door in front of every route: whose request it is, where it was sent to, and how large it may be.

A web page that a browser shows can send requests to loopback too. It doesn't know the token; a name that resolves to
loopback isn't taken for it (`Host`); and no answer allows another origin to read it.
"""

from __future__ import annotations

import hmac
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .answers import plain_refusal

MAX_BODY_BYTES = 4 * 1024 * 1024
OPEN = frozenset({"/health"})
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


class BodyTooLarge(Exception):  # noqa: D101 - it never leaves this module
    pass


class Guard:
    """An ASGI application in front of another."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or let through."""
        if scope["type"] != "http":
            return
        refused = self._refused(scope, dict(scope["headers"]))
        if refused is not None:
            await refused(scope, receive, send)
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, _bounded(receive), sending)
        except BodyTooLarge:
            if started:
                raise
            await _too_large()(scope, receive, send)

    def _refused(self, scope: Scope, headers: dict[bytes, bytes]) -> Any:
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] if ":" in host else host
        if name not in LOOPBACK:
            return plain_refusal("WRONG_HOST", f"Host: {host or 'none'}; this node answers to {', '.join(sorted(LOOPBACK))} only", 421)
        if scope["path"] not in OPEN and not hmac.compare_digest(headers.get(b"authorization", b""), self._expected):
            told = "the node's token is missing or wrong; `jido run` writes it for its own user, or set JIDO_TOKEN"
            return plain_refusal("UNAUTHORIZED", told, 401, {"WWW-Authenticate": "Bearer"})
        try:
            unquote_to_bytes(scope.get("raw_path") or b"").decode()
        except UnicodeDecodeError:
            return plain_refusal("INVALID_PATH", "the path is no UTF-8 once its percent signs are decoded", 400)
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            return _too_large()
        return None


def _too_large() -> Any:
    return plain_refusal("TOO_LARGE", f"the body is over the limit of {MAX_BODY_BYTES:,} bytes", 413, {"Connection": "close"})


def _bounded(receive: Receive) -> Receive:
    size_bytes = 0

    async def receiving() -> Message:
        nonlocal size_bytes
        message = await receive()
        size_bytes += len(message.get("body", b""))
        if size_bytes > MAX_BODY_BYTES:
            raise BodyTooLarge
        return message

    return receiving
