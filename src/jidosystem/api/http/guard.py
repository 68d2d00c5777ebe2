"""The door in front of every route: whose request it is, where it was sent to, and how large it says that it is.

A web page that a browser shows can send requests to loopback too. It doesn't know the token; a name that resolves to
loopback isn't taken for it (`Host`); and no answer allows another origin to read it.
"""

from __future__ import annotations

import hmac
from urllib.parse import unquote_to_bytes

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from .answers import plain_refusal

MAX_BODY_BYTES = 4 * 1024 * 1024
OPEN = frozenset({"/health"})
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


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
        await (refused or self._app)(scope, receive, send)

    def _refused(self, scope: Scope, headers: dict[bytes, bytes]) -> Response | None:
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] if ":" in host else host
        if name not in LOOPBACK:
            return plain_refusal("wrong-host", f"Host: {host or 'none'}; this node answers to {', '.join(sorted(LOOPBACK))} only", 421)
        if scope["path"] not in OPEN and not hmac.compare_digest(headers.get(b"authorization", b""), self._expected):
            told = "the node's token is missing or wrong; `jido run` writes it for its own user, or set JIDO_TOKEN"
            return plain_refusal("unauthorized", told, 401, {"WWW-Authenticate": "Bearer"})
        try:
            unquote_to_bytes(scope.get("raw_path") or b"").decode()
        except UnicodeDecodeError:
            return plain_refusal("invalid-path", "the path is no UTF-8 once its percent signs are decoded", 400)
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            return too_large()
        return None


def too_large() -> Response:
    """What a body over the limit is answered, before it is read to its end."""
    return plain_refusal("too-large", f"the body is over the limit of {MAX_BODY_BYTES:,} bytes", 413, {"Connection": "close"})
