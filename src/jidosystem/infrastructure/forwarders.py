"""Forwarders: matching events to the outside, each under a durable position, retried, buried if they keep failing.

Webhooks are signed as Standard Webhooks asks for (https://github.com/standard-webhooks/standard-webhooks): the headers
`webhook-id`, `webhook-timestamp` and `webhook-signature`, HMAC-SHA256 over `id.timestamp.body`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import ActionError, DefinitionError, StoreUnavailable
from ..core.events import Event, matcher


class ForwardFailed(ActionError):
    """The other side didn't take the events."""

    code = "FORWARD_FAILED"


class WebhookForwarder:
    """POSTs each event as CloudEvents 1.0 in structured JSON mode. A 2xx answer is success; `timeout` in seconds.

    `secret`: "whsec_" and base64, or any text; without one requests aren't signed. Needs the extra `server`.
    """

    def __init__(
        self,
        url: str,
        *,
        pattern: str = "**",
        secret: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 10.0,
        name: str | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise DefinitionError(f"WebhookForwarder({url!r}): an http:// or https:// URL")
        matcher(pattern)
        self.pattern = pattern
        self.name = name or f"webhook-{hashlib.blake2b(url.encode(), digest_size=6).hexdigest()}"
        self._url, self._headers, self._timeout_s = url, dict(headers or {}), timeout
        self._key = _key_of(secret) if secret is not None else None
        self._client: Any = None

    async def forward(self, events: Sequence[Event]) -> None:
        """Send the events one by one, in order."""
        client = self._open()
        for event in events:
            body = json.dumps(event.to_cloudevent(), default=str, separators=(",", ":")).encode()
            try:
                response = await client.post(self._url, content=body, headers=self._signed(event.id, body))
            except _http().HTTPError as error:
                raise ForwardFailed(f"{self._url} can't be reached: {type(error).__name__}: {error}", url=self._url) from error
            if not 200 <= response.status_code < 300:
                raise ForwardFailed(f"{self._url} answered {response.status_code} to event {event.id}", url=self._url, status=response.status_code)

    def _open(self) -> Any:
        if self._client is None:
            self._client = _http().AsyncClient(timeout=self._timeout_s)
        return self._client

    def _signed(self, event_id: str, body: bytes) -> dict[str, str]:
        headers = {
            "content-type": "application/cloudevents+json",
            **self._headers,
            "webhook-id": event_id,
            "webhook-timestamp": str(int(time.time())),
        }
        if self._key is not None:
            signed = f"{event_id}.{headers['webhook-timestamp']}.".encode() + body
            headers["webhook-signature"] = "v1," + base64.b64encode(hmac.new(self._key, signed, hashlib.sha256).digest()).decode()
        return headers

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None


class LogFileForwarder:
    """Appends each event as a line of CloudEvents JSON, fsynced before it counts as sent; turned over at `max_bytes`, `keep` old files."""

    def __init__(self, path: str | Path, *, pattern: str = "**", max_bytes: int = 100 * 1024 * 1024, keep: int = 5, name: str | None = None) -> None:
        if max_bytes < 1 or keep < 0:
            raise DefinitionError(f"LogFileForwarder(max_bytes={max_bytes!r}, keep={keep!r}): at least 1 and 0")
        matcher(pattern)
        self.pattern = pattern
        self.path = Path(path)
        self.name = name or f"file-{self.path.name}"
        self._max_bytes, self._keep = max_bytes, keep

    async def forward(self, events: Sequence[Event]) -> None:
        """Write the events."""
        lines = b"".join(json.dumps(event.to_cloudevent(), default=str, separators=(",", ":")).encode() + b"\n" for event in events)
        try:
            await asyncio.to_thread(self._write, lines)
        except OSError as error:
            raise StoreUnavailable(f"{self.path} can't be written: {error}", path=str(self.path)) from error

    def _write(self, lines: bytes) -> None:
        if self.path.exists() and self.path.stat().st_size + len(lines) > self._max_bytes:
            self._turn_over()
        with self.path.open("ab") as file:
            start = file.tell()
            try:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                file.truncate(start)  # a half line would be read as one
                raise

    def _turn_over(self) -> None:
        for number in range(self._keep - 1, 0, -1):
            old = self.path.with_name(f"{self.path.name}.{number}")
            if old.exists():
                old.replace(self.path.with_name(f"{self.path.name}.{number + 1}"))
        if self._keep:
            self.path.replace(self.path.with_name(f"{self.path.name}.1"))
        else:
            self.path.unlink()

    async def close(self) -> None:
        """Nothing is held open between writes."""


def _key_of(secret: str) -> bytes:
    if secret.startswith("whsec_"):
        try:
            return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except ValueError as error:
            raise DefinitionError(f"the webhook's secret isn't base64 after 'whsec_': {error}") from None
    return secret.encode()


def _http() -> Any:
    try:
        import httpx2
    except ModuleNotFoundError:
        raise DefinitionError("webhooks need the extra `server`: pip install 'jidosystem[server]'") from None
    return httpx2
