"""The lines of the NATS protocol that we write ourselves, a publication with or without headers, and headers as we read them."""

from __future__ import annotations

from collections.abc import Mapping

NO_RESPONDERS = "503"


def headers_of(headers: Mapping[str, str]) -> bytes:
    """Headers as they go over the wire; `ValueError` for what would end a line."""
    lines = ["NATS/1.0"]
    for name, value in headers.items():
        if not name or ":" in name or not (name.isprintable() and value.isprintable()):
            raise ValueError(f"{name!r}: {value!r} can't be a header")
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode()


def parse_headers(raw: bytes) -> dict[str, str]:
    """Headers as they came; what the first line says more than the protocol's name are `Status` and `Description`."""
    first, *lines = raw.decode("utf-8", "replace").split("\r\n")
    headers: dict[str, str] = {}
    if len(first) > len("NATS/1.0 "):
        status, _, description = first[len("NATS/1.0 ") :].partition(" ")
        headers["Status"] = status
        if description:
            headers["Description"] = description
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name] = value.strip()
    return headers


def publication(subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> bytes:
    """A message to a subject. The subjects are known to be legal."""
    if headers:
        return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, reply, len(headers), len(headers) + len(payload), headers, payload)
    return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload)
