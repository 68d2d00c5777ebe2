"""A forwarder to subjects of NATS. It stands here and not with the others since only `assembly` knows backends."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Sequence

import msgspec

from ..core.errors import InvalidArguments, Undeliverable, UsageError, describe
from ..core.events import Event, matcher
from ..core.ids import check_key
from .assembly import open_publisher, shown

_SUBJECT = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")
MAX_SUBJECT_CHARS = 200


class NatsForwarder:
    """Publishes each event to a subject of a NATS server, as CloudEvents 1.0 in JSON (structured mode). The header `Nats-Msg-Id` is the event's id: a
    stream drops what comes twice within its window, others drop it by the id. Needs the extra `cluster`.

    No connection, no server that takes it, no stream on the subject (`stored=True`): away (`ForwardUnavailable`). Refused by the stream: failed
    (`ForwardFailed`). Larger than the server takes: never (`Undeliverable`). Raises `InvalidPattern`, `InvalidArguments`, `InvalidConfig` for a
    URL that is none, and `UsageError` without the extra.

    Args:
        url: `nats://user:password@host:4222`, with what a [cluster's URL](../how-to/run-a-cluster.md) may name. Its password never stands in a log
        subject: where to; `{type}` in it is the event's type, whose dots part tokens as those of a subject do
        stored: wait until a stream of JetStream has stored it. False: until the server has it, which hands it to whoever listens at that moment
        timeout: seconds for an answer, more than 0, at most 3,600
        name: what the position is kept under; by default made from URL and subject
    """

    def __init__(
        self, url: str, subject: str = "{type}", *, pattern: str = "**", stored: bool = True, timeout: float = 10.0, name: str | None = None
    ) -> None:
        matcher(pattern)
        self.pattern: str = pattern
        if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_CHARS or not _SUBJECT.fullmatch(subject):
            told = f"subject={subject!r}: tokens with dots between, 1 to {MAX_SUBJECT_CHARS} characters without spaces, '*' and '>'"
            raise InvalidArguments(told, path="$.subject")
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= 3_600:
            raise InvalidArguments(f"timeout={timeout!r}: seconds, more than 0 and at most an hour", path="$.timeout")
        if importlib.util.find_spec("nats") is None:
            raise UsageError("forwarding to NATS needs the extra `cluster`: pip install 'jidosystem[cluster]'")
        self._subject, self._shown = subject, shown(url)
        digest = hashlib.blake2b(f"{self._shown} {subject}".encode(), digest_size=6).hexdigest()
        self.name: str = check_key(name) if name is not None else f"nats-{digest}"
        self._publisher = open_publisher(url, stored=stored, timeout_s=float(timeout))

    def __repr__(self) -> str:
        return f"<NatsForwarder {self.pattern} to {self._subject} at {self._shown}>"

    async def forward(self, events: Sequence[Event]) -> None:
        """What the bus calls."""
        await self._publisher.send([(self._subject.replace("{type}", event.type), _json(event), _headers(event)) for event in events])

    async def close(self) -> None:
        """Close the connection; the bus calls it."""
        await self._publisher.close()


def _headers(event: Event) -> dict[str, str]:
    return {"Nats-Msg-Id": event.id, "content-type": "application/cloudevents+json"}


def _json(event: Event) -> bytes:
    try:
        return msgspec.json.encode(event.to_cloudevent())
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Undeliverable(f"event {event.id} can't be written as JSON: {describe(error)}") from error
