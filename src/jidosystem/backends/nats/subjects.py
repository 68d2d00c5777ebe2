"""Names of ours as NATS subjects: any text becomes one legal token, and each cluster has a first token of its own.

    jido.r.<subject>   requests of the wire
    jido.t.<subject>   such as go together (`gathering.py`)
    jido.m.<subject>   its messages
    jido.e.<stream>    events, by their stream
    jido.s<number>.…   records (`places.py`)

Letters, digits, `_` and `-` stay as they are, all else is written as `=XX` (bytes of UTF-8). What would be longer than 200
characters becomes `=~` and a digest: a line of the protocol has 4,096 bytes, and nobody reads such a name back from its token.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b

MAX_TOKEN_CHARS = 200
_UNSAFE = re.compile(rb"[^A-Za-z0-9_-]")


@lru_cache(maxsize=65_536)
def token(text: str) -> str:
    """The token of a text; two texts never share one."""
    raw = text.encode("utf-8", "surrogatepass")
    written = _UNSAFE.sub(lambda found: b"=%02X" % found[0][0], raw).decode() or "="
    return written if len(written) <= MAX_TOKEN_CHARS else f"=~{blake2b(raw, digest_size=24).hexdigest()}"


def text_of(written: str) -> str | None:
    """The text of a token; None if the token is a digest."""
    if written.startswith("=~"):
        return None
    if written == "=":
        return ""
    raw = re.sub(rb"=([0-9A-F]{2})", lambda found: bytes([int(found[1], 16)]), written.encode())
    return raw.decode("utf-8", "surrogatepass")
