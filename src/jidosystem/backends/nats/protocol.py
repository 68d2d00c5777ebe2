"""The lines of the NATS protocol that we write ourselves, a publication with or without headers, and those that we read: messages, headers."""

from __future__ import annotations

from collections.abc import Mapping

NO_RESPONDERS = "503"
CRLF = b"\r\n"


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


def message_line(line: bytes) -> tuple[bytes, int, bytes, int, int] | None:
    """What a line says of the message after it: subject, number of the subscription, where an answer goes (b"": nowhere), how many bytes of what
    follows are headers, and how many follow in all. None if it is another line, or none at all."""
    fields = line.split()
    many = len(fields)
    try:
        if many == 4 and fields[0] == b"MSG":
            return fields[1], int(fields[2]), b"", 0, int(fields[3])
        if many == 5 and fields[0] == b"MSG":
            return fields[1], int(fields[2]), fields[3], 0, int(fields[4])
        if many in (5, 6) and fields[0] == b"HMSG":
            return fields[1], int(fields[2]), fields[3] if many == 6 else b"", int(fields[-2]), int(fields[-1])
    except ValueError:  # whoever reads other lines says what is wrong with it
        pass
    return None
