"""JetStream's own requests, as both adapters that stand on streams need them: its API, a publication, an atomic batch.

What a server refuses is `Refused` with its code, which an adapter translates; everything else leaves as an error of ours.
No responder and no connection mean that nothing was done: that is tried again, with jitter, until time is up, for an election
of a few seconds looks like this. An answer that doesn't come is an unknown outcome: reads are repeated, a publication is not.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from ...core.errors import CommitUnknown, InvalidConfig, NodeUnreachable, StoreError, StoreFull, StoreUnavailable, TooLarge, WireTimeout
from .connection import Connection
from .protocol import headers_of, parse_headers

MAX_BATCH = 1_000
"""Messages in an atomic batch: the server's limit."""
ATTEMPT_S = 2.0
PATIENT_AFTER, MOST_DOUBLINGS = 4, 2
"""An election swallows questions for some seconds, and whoever renews a lease must be among the first after it. Who hears nothing for longer asks a
server that is only slow: it is waited for twice as long each time, since each question makes it slower."""
PAUSE_S = (0.02, 0.2)

WRONG_SEQUENCE = 10071
"""Decided: the last sequence isn't the expected one."""
IN_FLIGHT = 10164
"""Not decided: another conditional write on that subject is under way."""
INCOMPLETE_BATCH = 10176
"""The batch is unknown to this leader: too many are in flight, or its beginning went to another one."""
NO_MESSAGE = 10037
NO_STREAM = 10059
NO_CONSUMER = 10014
NOT_LEADER = -1
"""No code of the server's, which gives none: the stream's Raft group has another leader, and this server is about to hear of it."""
NOT_NOW = {10005, 10008, 10009, 10013, 10023, 10074, INCOMPLETE_BATCH, NOT_LEADER}  # no leader, peers missing, resources short for the moment
FULL = {10047, 10077, 10122, 10123, 10028}


class Refused(Exception):
    """A server said no; `code` is its error code. It wrote nothing. But where a write is in flight while leaders change, it reaches
    two: one that was paused refuses by what it last knew, and the other may store it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code


class Ack(NamedTuple):
    """What was stored.

    Attributes:
        sequence: of the last message; those of a batch stand right before it
        duplicate: the message id was known, nothing was stored
    """

    sequence: int
    duplicate: bool


class Entry(NamedTuple):
    """A message to be stored."""

    subject: str
    payload: bytes
    headers: Mapping[str, str] = {}


class Stored(NamedTuple):
    """A message as it is stored."""

    subject: str
    sequence: int
    payload: bytes
    headers: Mapping[str, str]


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _PubAck(msgspec.Struct):
    seq: int = 0
    duplicate: bool = False
    error: _Error | None = None


class _Message(msgspec.Struct):
    subject: str = ""
    seq: int = 0
    hdrs: bytes = b""  # base64 in JSON, decoded by msgspec
    data: bytes = b""


class _Got(msgspec.Struct):
    message: _Message | None = None
    error: _Error | None = None


_pub_ack = msgspec.json.Decoder(_PubAck).decode
_got = msgspec.json.Decoder(_Got).decode
_encode = msgspec.json.Encoder().encode


def refusal(refused: Refused, doing: str) -> StoreError:
    """The error of ours that a refusal is, if it is nothing that an adapter knows better."""
    if refused.code in FULL:
        return StoreFull(f"{doing}: the NATS servers are full: {refused}")
    return StoreUnavailable(f"{doing}: the NATS servers refuse: {refused}")


def creating(config: Mapping[str, Any]) -> str:
    """What is tried when a stream is made."""
    return f"creating stream {config['name']}, which reserves {config.get('max_bytes', 0):,} bytes (`records_bytes`, `log_bytes` in the URL)"


class JetStream:
    """The requests, over one connection."""

    def __init__(self, connection: Connection, timeout_s: float = 15.0) -> None:
        self.connection = connection
        self.timeout_s = timeout_s

    @property
    def replicas(self) -> int:
        """How many copies a stream gets: three in a cluster."""
        return 3 if self.connection.server.get("cluster") else 1

    async def api(self, path: str, body: Any = None, *, timeout_s: float | None = None) -> dict[str, Any]:
        """A request of the API, which may be repeated: `STREAM.INFO.name` and its like. `Refused`, or `StoreUnavailable` if nobody answers."""
        answer: dict[str, Any] = msgspec.json.decode(await self._ask(path, body, timeout_s))
        if (error := answer.get("error")) is not None:
            raise Refused(int(error.get("err_code", 0)), str(error.get("description", "")))
        return answer

    async def ensure_stream(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Create a stream, or check that it is there as it must be (every value given, but for sizes that were given more room); its
        description. `InvalidConfig` if it is there with other values."""
        name = str(config["name"])
        try:
            found = await self.api(f"STREAM.INFO.{name}")
        except Refused as refused:
            if refused.code != NO_STREAM:
                raise refusal(refused, f"stream {name}") from refused
            try:
                return await self.api(f"STREAM.CREATE.{name}", dict(config))
            except Refused as error:  # two that start at once ask for the same and both get it; another one got something else
                raise refusal(error, creating(config)) from error
        there = found["config"]
        other = {key: there.get(key) for key, wanted in config.items() if key != "max_bytes" and (there.get(key) or None) != (wanted or None)}
        if other:
            wanted = {key: config[key] for key in other}
            text = f"stream {name} is there with other settings: {other} instead of {wanted}"
            raise InvalidConfig(text, path="cluster", value=other, allowed=wanted)
        return found

    async def publish(self, entry: Entry, *, timeout_s: float | None = None, attempt_s: float = ATTEMPT_S) -> Ack:
        """Store a message. `Refused`, `StoreUnavailable` or `TooLarge`: nothing was written. `CommitUnknown`: read back."""
        headers = headers_of(entry.headers) if entry.headers else b""
        async for _ in self.attempts(timeout_s, entry.subject):
            try:
                answer = await self.connection.request(entry.subject, entry.payload, headers=headers, timeout_s=attempt_s)
            except NodeUnreachable:
                continue
            except WireTimeout as error:
                raise CommitUnknown(f"no acknowledgement of a write to {entry.subject} came within {attempt_s:g} s") from error
            return acknowledged(answer.data)
        raise StoreUnavailable(f"no NATS server takes writes to {entry.subject}; nothing was written")

    async def publish_batch(self, entries: Sequence[Entry], *, batch_id: str, timeout_s: float | None = None, attempt_s: float = ATTEMPT_S) -> Ack:
        """Store up to `MAX_BATCH` messages of one stream, all or nothing. Errors as of `publish`. Not remembered by its id: one that is sent
        again is stored again, unless an expected sequence forbids it."""
        if len(entries) == 1:
            return await self.publish(entries[0], timeout_s=timeout_s, attempt_s=attempt_s)
        if len(entries) > MAX_BATCH:
            raise TooLarge(f"{len(entries)} messages are more than a batch of {MAX_BATCH}; nothing was written", limit=MAX_BATCH)
        refused: Refused | None = None
        async for attempt in self.attempts(timeout_s, entries[0].subject):
            try:
                acknowledgement = self._send_batch(entries, f"{batch_id}.{attempt}", attempt_s)
                return acknowledged((await acknowledgement).data)
            except NodeUnreachable:
                continue  # the last message, which would have committed it, wasn't sent or found nobody
            except WireTimeout as error:
                raise CommitUnknown(f"no acknowledgement of a batch to {entries[0].subject} came within {attempt_s:g} s") from error
            except Refused as error:
                if error.code != INCOMPLETE_BATCH:
                    raise
                refused = error
        if refused is not None:  # by a leader that may be none any more; the one that is may have stored it
            raise CommitUnknown(f"no NATS server acknowledged a batch to {entries[0].subject}: {refused}") from refused
        raise StoreUnavailable(f"no NATS server takes batches to {entries[0].subject}; nothing was written")

    async def last_of(self, stream: str, subject: str) -> Stored | None:
        """The last message of a subject (or of a pattern of subjects), asked of the stream's leader."""
        what = {"last_by_subj": subject}
        try:  # once without a loop around it: this is how records are read
            got = _got((await self.connection.ask(f"$JS.API.STREAM.MSG.GET.{stream}", _encode(what), timeout_s=ATTEMPT_S)).data)
        except (NodeUnreachable, WireTimeout):
            return await self._get(stream, what)
        if got.error is not None and got.error.err_code != NO_MESSAGE:
            return await self._get(stream, what)
        return None if got.message is None else _stored(got.message)

    async def message(self, stream: str, sequence: int) -> Stored | None:
        """The message at a sequence, asked of the stream's leader."""
        return await self._get(stream, {"seq": sequence})

    async def next_of(self, stream: str, subject: str, first: int) -> Stored | None:
        """The first message of a subject from a sequence on, asked of the stream's leader."""
        return await self._get(stream, {"seq": first, "next_by_subj": subject})

    async def _get(self, stream: str, what: Mapping[str, Any]) -> Stored | None:
        got = _got(await self._ask(f"STREAM.MSG.GET.{stream}", what, None))
        if got.error is not None:
            if got.error.err_code == NO_MESSAGE:
                return None
            refused = Refused(got.error.err_code, got.error.description)
            raise refusal(refused, f"reading stream {stream}") from refused
        return _stored(got.message or _Message())

    def _send_batch(self, entries: Sequence[Entry], batch_id: str, attempt_s: float) -> asyncio.Future[Any]:
        for number, entry in enumerate(entries[:-1], 1):
            headers = headers_of({**entry.headers, "Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(number)})
            self.connection.publish(entry.subject, entry.payload, headers=headers)
        last = entries[-1]
        marks = {"Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(len(entries)), "Nats-Batch-Commit": "1"}
        return self.connection.ask(last.subject, last.payload, headers=headers_of({**last.headers, **marks}), timeout_s=attempt_s)

    async def _ask(self, path: str, body: Any, timeout_s: float | None) -> bytes:
        payload = b"" if body is None else msgspec.json.encode(body)
        why: Exception | None = None
        silent = 0
        async for _ in self.attempts(timeout_s, path):
            try:
                patience_s = ATTEMPT_S * (1 << min(max(silent - PATIENT_AFTER, 0), MOST_DOUBLINGS))
                answer = (await self.connection.request(f"$JS.API.{path}", payload, timeout_s=patience_s)).data
            except NodeUnreachable as error:
                why = error
                continue
            except WireTimeout as error:
                why = error
                silent += 1
                continue
            error_code = _got(answer).error if b'"error"' in answer else None
            if error_code is None or error_code.err_code not in NOT_NOW:
                return answer
            why = Refused(error_code.err_code, error_code.description)
        raise StoreUnavailable(f"JetStream doesn't answer {path}: {why}") from why

    async def attempts(self, timeout_s: float | None, subject: str) -> AsyncIterator[int]:
        """Numbers, with pauses between them, until time is up or the connection is closed."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (self.timeout_s if timeout_s is None else timeout_s)
        attempt = 0
        while not self.connection.closed:
            attempt += 1
            yield attempt
            left_s = deadline - loop.time()
            if left_s <= 0:
                return
            await asyncio.sleep(min(left_s, random.uniform(*PAUSE_S)))
        raise StoreUnavailable(f"the connection to NATS is closed; nothing was written to {subject}")


def _stored(message: _Message) -> Stored:
    return Stored(message.subject, message.seq, message.data, parse_headers(message.hdrs) if message.hdrs else {})


def acknowledged(data: bytes) -> Ack:
    """What an answer to a write says; `Refused` if it was refused."""
    ack = _pub_ack(data)
    if (error := ack.error) is not None:
        raise Refused(NOT_LEADER if not error.err_code and error.description.startswith("raft: ") else error.err_code, error.description)
    return Ack(ack.seq, ack.duplicate)
