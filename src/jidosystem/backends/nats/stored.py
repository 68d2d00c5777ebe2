"""What the messages of the records hold, sealed: whatever is read is checked first.

A message is one publication, so what is larger than the server takes is cut: the message then names the digest of the
whole and the number of its parts, which lie beside it and change with it, in the same batch. A reader that finds other
parts than the digest names has read while they changed, and reads again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import msgspec

from ...core.codec import encode, seal, unseal
from ...core.errors import RecordUnreadable

GONE = "Jido-Gone"
"""Header of what is no more: a tombstone, or the message in the place of a row that was removed, which the server then forgets."""
EXPIRES = "Jido-Expires"
"""Header of a row that expires: when, in seconds since the epoch."""
PARTS = "Jido-Parts"
"""Header of a message whose value lies in parts: how many."""
BELOW = "Jido-Below"
"""Header of a sweep: rows of its agent below that sequence are dead."""
DIGEST_BYTES = 16
NONCE_BYTES = 12


class StoredHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An agent's head.

    Attributes:
        agent: its address
        nonce: of the commit that wrote it
        base: the revision that it replaced
        head: None is a tombstone
        parts: so many parts hold the head
        digest: of the whole, if there are parts
    """

    agent: str
    nonce: bytes
    base: int
    head: bytes | None
    parts: int = 0
    digest: bytes = b""


class Kept(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A row.

    Attributes:
        agent: address of its agent
        kind: as it was given
        name: as it was given
        value: as it was given
        expires_s: from then on it isn't there
        parts: so many parts hold the value
        digest: of the whole, if there are parts
    """

    agent: str
    kind: str
    name: str
    value: bytes
    expires_s: float | None = None
    parts: int = 0
    digest: bytes = b""


_head = msgspec.msgpack.Decoder(StoredHead).decode
_row = msgspec.msgpack.Decoder(Kept).decode


def sealed(stored: StoredHead | Kept) -> bytes:
    """As it is stored."""
    return seal(encode(stored))


def head_of(payload: bytes, what: str) -> StoredHead:
    """The head of a message; `RecordUnreadable` saying what it was, if it can't be read."""
    try:
        return _head(unseal(payload))
    except (msgspec.MsgspecError, ValueError) as error:
        raise unreadable(what, error) from error


def row_of(payload: bytes, what: str) -> Kept:
    """The row of a message; `RecordUnreadable` as `head_of`."""
    try:
        return _row(unseal(payload))
    except (msgspec.MsgspecError, ValueError) as error:
        raise unreadable(what, error) from error


def unreadable(what: str, error: object) -> RecordUnreadable:
    """The error that says what can't be read."""
    return RecordUnreadable(f"{what} can't be read: {error}; nothing was changed")


def digest_of(value: bytes) -> bytes:
    """What a message with parts calls the whole."""
    return blake2b(value, digest_size=DIGEST_BYTES).digest()


def cut(value: bytes, size_bytes: int) -> list[bytes]:
    """A value as parts, each sealed with the digest of the whole before it."""
    digest = digest_of(value)
    return [seal(digest + value[start : start + size_bytes]) for start in range(0, len(value), size_bytes)]


def joined(parts: Sequence[bytes | None], digest: bytes, what: str) -> bytes | None:
    """The whole, or None if a part is of another whole: they changed while they were read. `RecordUnreadable` if one is damaged."""
    found = bytearray()
    for one in parts:
        try:
            payload = None if one is None else unseal(one)
        except ValueError as error:
            raise unreadable(f"a part of {what}", error) from error
        if payload is None or payload[:DIGEST_BYTES] != digest:
            return None
        found += payload[DIGEST_BYTES:]
    whole = bytes(found)
    if digest_of(whole) != digest:
        raise unreadable(what, "its parts don't make the whole that it names")
    return whole


def expired(headers: Mapping[str, str], now_s: float) -> bool:
    """Whether a row's time has come, by its headers."""
    told = headers.get(EXPIRES)
    return told is not None and float(told) <= now_s
