"""The lines of the NATS protocol that we write ourselves: a publication, with or without headers."""

from __future__ import annotations

from collections.abc import Mapping

NO_RESPONDERS = "503"


def headers_of(headers: Mapping[str, str]) -> bytes:
    """Headers as they go over the wire; `ValueError` for what would end a line."""
    lines = ["NATS/1.0"]
    for name, value in headers.items():
        if not name or ":" in name or any(ord(c) < 32 or ord(c) == 127 for c in name + value):
            raise ValueError(f"{name!r}: {value!r} can't be a header")
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode()


def publication(subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> bytes:
    """A message to a subject. The subjects are known to be legal."""
    if headers:
        return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, reply, len(headers), len(headers) + len(payload), headers, payload)
    return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload)
