"""Events: CloudEvents 1.0 values, their stored form and the patterns that choose among their types.

Attribute names are those of CloudEvents 1.0 (https://github.com/cloudevents/spec); `stream`, `position`, `metadata`,
`correlation_id`, `causation_id` and `traceparent` are extensions. `data` is plain builtins: what goes in as a
dataclass comes out as a dictionary, for every subscriber alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any
from zlib import crc32

import msgspec

from .clock import utc_from
from .codec import from_bytes, seal, to_builtins, unseal
from .errors import InvalidPattern, RecordUnreadable
from .shown import one_line, short, table

MAX_TYPE_CHARS = 255
MAX_STREAM_CHARS = 1_000
_TYPE = re.compile(r"[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]+)*")
_PATTERN = re.compile(r"(?:[A-Za-z0-9_\-]+|\*\*?)(?:\.(?:[A-Za-z0-9_\-]+|\*\*?))*")


class Event(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A CloudEvents 1.0 value; frozen. `emit` and `publish` make them, `data` and `metadata` are plain builtins for every reader alike.

    Attributes:
        id: unique; drop one that you have seen
        type: dotted words, `orders.eu.placed`
        source: who emitted it: `type/key` of an agent, or "platform"
        subject: key of the emitting agent; "" if none did
        time_s: when, seconds since the epoch
        data: what was handed over: a dataclass comes out as a dictionary
        stream: what it is ordered in
        metadata: the publisher's own
        correlation_id: the same for everything that one request caused
        causation_id: id of the event that led to it, through calls, casts, reminders and timers too; None if a call from outside began it
        traceparent: W3C trace context
        position: in the log; 0 until it is stored
    """

    id: str
    type: str
    source: str
    subject: str
    time_s: float
    data: Any
    stream: str
    metadata: Mapping[str, Any] = {}
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None
    position: int = 0

    def __repr__(self) -> str:
        where = f" at {self.position}" if self.position else ""
        return one_line(f"<Event {self.type}{where} from {self.source}, stream {self.stream}: {short(self.data)}>")

    def _repr_html_(self) -> str:
        rows = [
            (name, value)
            for name in self.__struct_fields__
            if name not in ("type", "time_s") and (value := getattr(self, name)) not in (None, {}, "")
        ]
        return table(self.type, [("time", self.time), *rows])

    @property
    def time(self) -> str:
        """`time_s` as an RFC 3339 timestamp in UTC."""
        return utc_from(self.time_s).isoformat().replace("+00:00", "Z")

    def to_cloudevent(self) -> dict[str, Any]:
        """The event in the JSON format of CloudEvents 1.0, as a dictionary; extensions are `stream`, `position`, `correlationid`, `causationid`,
        `traceparent`, `metadata`.
        """
        attributes: dict[str, Any] = {
            "specversion": "1.0", "id": self.id, "type": self.type, "source": self.source, "subject": self.subject,
            "time": self.time, "datacontenttype": "application/json", "data": self.data, "stream": self.stream,
            "position": self.position, "correlationid": self.correlation_id, "causationid": self.causation_id,
            "traceparent": self.traceparent,
        }  # fmt: skip
        if self.metadata:
            attributes["metadata"] = dict(self.metadata)
        return {name: value for name, value in attributes.items() if value is not None and value != ""}


_encode = msgspec.msgpack.Encoder(enc_hook=to_builtins).encode
_decode = msgspec.msgpack.Decoder(Event).decode
set_field = msgspec.structs.force_setattr


def encode_event(event: Event) -> bytes:
    """The stored form: checksum and MessagePack. Fails with one of `NOT_CARRIED` if the data can't be carried."""
    return seal(_encode(event))


def decode_event(blob: bytes, position: int) -> Event:
    """The event of a stored form, its position set; `RecordUnreadable` naming the position if it is damaged."""
    return decode_events(blob, [(position, len(blob))])[0]


def decode_events(blobs: bytes, places: Iterable[tuple[int, int]]) -> list[Event]:
    """Events whose stored forms stand behind each other; of each its position and size. Errors as of `decode_event`."""
    events: list[Event] = []
    whole, start = memoryview(blobs), 0
    decode, checksum, number, set_position, add = _decode, crc32, from_bytes, set_field, events.append
    for position, size in places:
        end = start + size
        try:  # what `unseal` does, written out: whoever replays a log does little else
            payload = whole[start + 4 : end]
            if checksum(payload) != number(whole[start : start + 4], "big"):
                unseal(blobs[start:end])
            event = decode(payload)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise RecordUnreadable(f"the event at position {position} can't be read: {error}", position=position) from error
        set_position(event, "position", position)
        add(event)
        start = end
    return events


def _fits(form: re.Pattern[str], text: object) -> bool:
    return isinstance(text, str) and len(text) <= MAX_TYPE_CHARS and form.fullmatch(text) is not None


def check_event_type(name: str) -> str:
    """The type itself, or `InvalidPattern`: dotted tokens of letters, digits, `_` and `-`, at most 255 characters."""
    if not _fits(_TYPE, name):
        raise InvalidPattern(f"{name!r} can't be an event type: dotted words of letters, digits, '_' and '-', for example 'orders.eu.placed'")
    return name


def matcher(pattern: str) -> Callable[[str], bool]:
    """A predicate on event types. `*` stands for one token, `**` for any number of tokens, also none.

    `orders.*.placed` takes `orders.eu.placed`; `orders.**` takes `orders` and `orders.eu.placed`. Answers are
    remembered for the last 10,000 types.
    """
    if not _fits(_PATTERN, pattern):
        raise InvalidPattern(f"{pattern!r} can't be a pattern: dotted words, '*' for one of them, '**' for any number")
    tokens = pattern.split(".")
    if tokens == ["**"]:
        return _always
    if "*" not in pattern:
        return pattern.__eq__
    return lru_cache(maxsize=10_000)(lambda name: _matches(tokens, name.split(".")))


def _always(_name: str) -> bool:
    return True


def _matches(pattern: list[str], tokens: list[str]) -> bool:
    # The greedy glob algorithm with one point of return: linear in practice, no recursion, any number of "**".
    p = t = 0
    star, back = -1, 0
    while t < len(tokens):
        if p < len(pattern) and pattern[p] == "**":
            star, back = p, t
            p += 1
        elif p < len(pattern) and pattern[p] in ("*", tokens[t]):
            p += 1
            t += 1
        elif star >= 0:
            back += 1
            p, t = star + 1, back
        else:
            return False
    return all(token == "**" for token in pattern[p:])
