"""Names and identifiers.

An agent's *address* is `type/key`: a type name holds no "/", so the first one divides. Identifiers of events and
runs are a random prefix of the process and a counter: unique without a system call each.
"""

from __future__ import annotations

import os
import re
from itertools import count

from .errors import DefinitionError, InvalidArguments, InvalidKey

MAX_KEY_BYTES = 512
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TYPE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,127}")
_NODE_NAME = re.compile(r"[A-Za-z0-9_\-]+(\.[A-Za-z0-9_\-]+)*")
MAX_NODE_NAME = 128


def is_unicode(text: str) -> bool:
    """Whether a text can be stored and sent: half of a surrogate pair can't."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_key(key: object) -> str:
    """The key itself, or `InvalidKey` saying what is wrong with it."""
    if type(key) is not str:
        if isinstance(key, str):
            return check_key(str.__str__(key))
        raise InvalidKey(f"an agent's key is a string, not {type(key).__name__}: {key!r}", key=key)
    if key.isascii() and key.isprintable() and 0 < len(key) <= MAX_KEY_BYTES:
        return key
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidKey(f"an agent's key must be valid Unicode: {key!r}", key=key) from None
    if not 0 < size <= MAX_KEY_BYTES:
        raise InvalidKey(f"an agent's key is 1 to {MAX_KEY_BYTES} bytes of UTF-8, this one has {size}", key=key)
    if _CONTROL.search(key):
        raise InvalidKey(f"an agent's key holds no control characters: {key!r}", key=key)
    return key


def check_type_name(name: object) -> str:
    """The type name itself, or `DefinitionError`: letters, digits, `_`, `-` and `.`, at most 128, no "/"."""
    if not isinstance(name, str) or not _TYPE_NAME.fullmatch(name):
        raise DefinitionError(f"{name!r} can't name an agent type: use letters, digits, '_', '-' and '.', at most 128")
    return name


def check_node_name(name: object) -> str:
    """The node's name itself, or `InvalidArguments`: it is part of subjects, so it is made of letters, digits, `_`, `-` and single dots."""
    if not isinstance(name, str) or len(name) > MAX_NODE_NAME or not _NODE_NAME.fullmatch(name):
        raise InvalidArguments(
            f"{name!r} can't name a node: use letters, digits, '_', '-' and single dots between them, at most {MAX_NODE_NAME}", path="$.name"
        )
    return name


def address_of(type_name: str, key: str) -> str:
    """`type/key`."""
    return f"{type_name}/{key}"


def split_address(address: str) -> tuple[str, str]:
    """(type, key) of an address."""
    type_name, _, key = address.partition("/")
    return type_name, key


class Ids:
    """Identifiers that are unique across processes: `prefix-n`, the prefix 64 random bits."""

    __slots__ = ("_next", "_prefix")

    def __init__(self, prefix: str | None = None) -> None:
        self._prefix = prefix if prefix is not None else os.urandom(8).hex()
        self._next = count(1).__next__

    def __call__(self) -> str:
        """The next identifier."""
        return f"{self._prefix}-{self._next():x}"
