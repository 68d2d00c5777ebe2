"""Forwarders: matching events to the outside, each under a durable position, retried, buried if they keep failing.

At least once, in the order of the log: whoever receives drops what it has had by the event's id. Webhooks are signed as
Standard Webhooks asks for (https://github.com/standard-webhooks/standard-webhooks): the headers `webhook-id`,
`webhook-timestamp` and `webhook-signature`, HMAC-SHA256 over `id.timestamp.body`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ..core.clock import Clock, SystemClock
from ..core.errors import ForwardFailed, ForwardUnavailable, InvalidArguments, StoreUnavailable, Undeliverable, UsageError, describe
from ..core.events import Event, matcher

MAX_ANSWER_BYTES = 64 * 1024
_LATER = frozenset({408, 425, 429, 502, 503, 504})  # not now: no attempt of the event's
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]*")


class WebhookForwarder:
    """POSTs events as CloudEvents 1.0 in JSON: each alone (structured mode), or with `batch=True` up to 100 in one request. Signed as Standard
    Webhooks asks for: `webhook-id` (the event's id), `webhook-timestamp`, `webhook-signature`. Needs the extra `server`.

    2xx is success. Unreachable, 408, 425, 429, 502, 503, 504: away (`ForwardUnavailable`; a `Retry-After` is heeded). Other 5xx and no
    answer in time: failed (`ForwardFailed`). Anything else: never (`Undeliverable`). Redirects aren't followed. Raises `InvalidPattern`,
    `InvalidArguments`, and `UsageError` without the extra.

    Args:
        url: http:// or https://. Its user, password and query never stand in a log
        secret: "whsec_" and base64, or any text; several, the newest first, while one is being replaced; None: unsigned
        headers: to be sent along; none that begins with `webhook-`
        timeout: seconds for an answer, more than 0, at most 3,600
        name: what the position is kept under; by default made from the URL
    """

    def __init__(
        self,
        url: str,
        *,
        pattern: str = "**",
        secret: str | Sequence[str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 10.0,
        batch: bool = False,
        name: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        matcher(pattern)
        self.pattern: str = pattern
        self._url, self._shown = url, _shown(url)
        self.name: str = name or f"webhook-{hashlib.blake2b(url.encode(), digest_size=6).hexdigest()}"
        self._headers = _checked_headers(headers or {})
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= 3_600:
            raise InvalidArguments(f"timeout={timeout!r}: seconds, more than 0 and at most an hour", path="$.timeout")
        self._timeout_s = float(timeout)
        self._batch = batch
        self._clock = clock or SystemClock()
        self._keys = [_key_of(one) for one in ((secret,) if isinstance(secret, str) else secret or ())]
        self._sent: set[str] = set()  # ids of a batch that failed later on
        self._client: Any = None
        if importlib.util.find_spec("httpx2") is None:
            raise UsageError("webhooks need the extra `server`: pip install 'jidosystem[server]'")

    async def forward(self, events: Sequence[Event]) -> None:
        """What the bus calls. What was taken before a failure isn't sent again in this process."""
        if self._client is None:
            self._client = await asyncio.to_thread(_new_client)  # it reads certificates
        todo = [event for event in events if event.id not in self._sent]
        if self._batch and len(todo) > 1:
            digest = hashlib.sha256("\n".join(event.id for event in todo).encode()).hexdigest()
            body = b"[" + b",".join(_json(event) for event in todo) + b"]"
            await self._post(digest, body, "application/cloudevents-batch+json", f"{len(todo)} events from {todo[0].id}")
        else:
            for event in todo:
                await self._post(event.id, _json(event), "application/cloudevents+json", f"event {event.id}")
                self._sent.add(event.id)
        self._sent.difference_update(event.id for event in events)

    async def close(self) -> None:
        """Close the connections; the bus calls it."""
        client, self._client = self._client, None
        self._sent.clear()
        if client is not None:
            await client.aclose()

    async def _post(self, message_id: str, body: bytes, content_type: str, what: str) -> None:
        import httpx2

        try:
            async with asyncio.timeout(self._timeout_s):
                status, retry_after = await self._exchange(message_id, body, content_type)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError) as error:
            raise ForwardUnavailable(f"{self._shown} can't be reached: {describe(error)}", retry_after_s=0.0) from error
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise ForwardFailed(f"{self._shown} didn't answer to {what} within {self._timeout_s:g} s") from error
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise ForwardFailed(f"{self._shown} broke off while being sent {what}: {describe(error)}") from error
        if 200 <= status < 300:
            return
        told = f"{self._shown} answered {status} to {what}"
        if status in _LATER:
            raise ForwardUnavailable(told, status=status, retry_after_s=_seconds(retry_after, self._clock.time_s()))
        if status >= 500:
            raise ForwardFailed(told, status=status)
        raise Undeliverable(told, status=status)

    async def _exchange(self, message_id: str, body: bytes, content_type: str) -> tuple[int, str | None]:
        headers = {"content-type": content_type, **self._headers, **self._signed(message_id, body)}
        async with self._client.stream("POST", self._url, content=body, headers=headers) as response:
            size = 0
            async for part in response.aiter_raw():  # read, so that the connection can be used again; within reason
                size += len(part)
                if size > MAX_ANSWER_BYTES:
                    break
            return response.status_code, response.headers.get("retry-after")

    def _signed(self, message_id: str, body: bytes) -> dict[str, str]:
        timestamp = str(int(self._clock.time_s()))
        headers = {"webhook-id": message_id, "webhook-timestamp": timestamp}
        if self._keys:
            signed = f"{message_id}.{timestamp}.".encode() + body
            made = (hmac.new(key, signed, hashlib.sha256).digest() for key in self._keys)
            headers["webhook-signature"] = " ".join(f"v1,{base64.b64encode(signature).decode()}" for signature in made)
        return headers


class LogFileForwarder:
    """Appends each event as a line of CloudEvents JSON; it counts as sent when it is on the disk. The file is turned over before it would grow
    past `max_bytes`; `keep` old ones stay, `path.1` the youngest. A line that a crash left unfinished is removed: its event comes again.
    `name`: by default `file-` and the file's name. Raises `InvalidPattern`, `InvalidArguments`.
    """

    def __init__(self, path: str | Path, *, pattern: str = "**", max_bytes: int = 100 * 1024 * 1024, keep: int = 5, name: str | None = None) -> None:
        for option, value, least in (("max_bytes", max_bytes, 1), ("keep", keep, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidArguments(f"{option}={value!r}: a whole number, at least {least}", path=f"$.{option}")
        matcher(pattern)
        self.pattern: str = pattern
        self.path: Path = Path(path)
        self.name: str = name or f"file-{self.path.name}"
        self._max_bytes, self._keep = max_bytes, keep

    async def forward(self, events: Sequence[Event]) -> None:
        """What the bus calls. `StoreUnavailable` while the disk doesn't take them."""
        lines = [_json(event) + b"\n" for event in events]
        try:
            await asyncio.to_thread(self._write, lines)
        except OSError as error:
            raise StoreUnavailable(f"{self.path} can't be written: {error}", path=str(self.path)) from error

    def _write(self, lines: Sequence[bytes]) -> None:
        size = _whole_lines(self.path)
        together: list[bytes] = []
        for line in lines:
            if size and size + len(line) > self._max_bytes:
                self._append(together)
                self._turn_over()
                together, size = [], 0
            together.append(line)
            size += len(line)
        self._append(together)

    def _append(self, lines: Sequence[bytes]) -> None:
        if not lines:
            return
        is_new = not self.path.exists()
        with self.path.open("ab") as file:
            start = file.tell()
            try:
                file.write(b"".join(lines))
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                file.truncate(start)  # a half line would be read as one
                raise
        if is_new:
            self._sync_directory()

    def _turn_over(self) -> None:
        if not self.path.exists():
            return
        for number in range(self._keep - 1, 0, -1):
            old = self._numbered(number)
            if old.exists():
                old.replace(self._numbered(number + 1))
        if self._keep:
            self.path.replace(self._numbered(1))
        else:
            self.path.unlink()
        self._sync_directory()

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _sync_directory(self) -> None:
        """A file's name is on the disk only when its directory is."""
        if os.name == "posix":
            directory = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)


def _whole_lines(path: Path) -> int:
    """The size of a file, 0 if it isn't there; what follows its last line is cut off."""
    try:
        file = path.open("r+b")
    except FileNotFoundError:
        return 0
    with file:
        size = end = file.seek(0, os.SEEK_END)
        while end > 0:
            begin = max(0, end - 64 * 1024)
            file.seek(begin)
            newline = file.read(end - begin).rfind(b"\n")
            if newline >= 0:
                end = begin + newline + 1
                break
            end = begin
        if end != size:
            file.truncate(end)
            os.fsync(file.fileno())
        return end


def _json(event: Event) -> bytes:
    """The event as CloudEvents JSON: bytes in base64, times in ISO 8601, numbers that aren't finite as null."""
    try:
        return msgspec.json.encode(event.to_cloudevent())
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Undeliverable(f"event {event.id} can't be written as JSON: {describe(error)}") from error


def _new_client() -> Any:
    import httpx2

    return httpx2.AsyncClient(timeout=None, follow_redirects=False)


def _shown(url: str) -> str:
    """The URL as it may stand in a log: without a user's name, a password or a query."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except (ValueError, AttributeError, TypeError):
        raise InvalidArguments(f"{url!r} is no URL", path="$.url") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable() or " " in url:
        raise InvalidArguments("a webhook's URL is http:// or https://, with a host", path="$.url")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path}"


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str) or not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise InvalidArguments(f"{name!r} can't be a header", path="$.headers")
        if name.lower().startswith("webhook-"):
            raise InvalidArguments(f"the header {name!r} is the forwarder's own", path="$.headers")
    return {name.lower(): value for name, value in headers.items()}


def _key_of(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True) if secret.startswith("whsec_") else secret.encode()
    except ValueError:
        raise InvalidArguments("the webhook's secret isn't base64 after 'whsec_'", path="$.secret") from None
    if not key:
        raise InvalidArguments("the webhook's secret is empty", path="$.secret")
    return key


def _seconds(retry_after: str | None, now_s: float) -> float:
    """The value of a Retry-After header, seconds or a date, as seconds from now; 0 if there is none that can be read."""
    if retry_after is None:
        return 0.0
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - now_s)
    except (ValueError, TypeError, OverflowError):
        return 0.0
