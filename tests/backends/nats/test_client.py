"""The client's parser finds in what was read the messages that the library's own finds, however they were cut."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from jidosystem.backends.nats.client import DirectClient
from jidosystem.backends.nats.protocol import message_line

TAKEN, OTHER = 7, 8
"""A subscription with a taker, and one of the library's own kind."""
_words = st.binary(max_size=40)
_names = st.text("abc.-_=~19", min_size=1, max_size=30).map(str.encode)
_headers = st.none() | st.dictionaries(st.sampled_from("abc"), st.text("xyz 12", max_size=8), min_size=1)


def _written(subject: bytes, number: int, reply: bytes, headers: dict[str, str] | None, data: bytes) -> bytes:
    to = b"%b %d%b" % (subject, number, b" " + reply if reply else b"")
    if headers is None:
        return b"MSG %b %d\r\n%b\r\n" % (to, len(data), data)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"NATS/1.0\r\n{lines}\r\n".encode()
    return b"HMSG %b %d %d\r\n%b%b\r\n" % (to, len(head), len(head) + len(data), head, data)


_messages = st.builds(_written, _names, st.sampled_from((TAKEN, OTHER)), st.just(b"") | _names, _headers, _words)
_lines = st.lists(st.one_of(_messages, _messages, st.sampled_from((b"PING\r\n", b"PONG\r\n", b"+OK\r\n"))), max_size=12)


class Listening(DirectClient):
    """A client that isn't connected and notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Any] = []

    def hand_over(self, number: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> bool:
        if number == TAKEN:
            self.heard.append((number, subject, reply, data, headers or b""))
        return number == TAKEN

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        self.heard.append((sid, subject, reply, data, headers or b""))

    async def _process_ping(self) -> None:
        self.heard.append("ping")

    async def _process_pong(self) -> None:
        self.heard.append("pong")


async def _heard(blob: bytes, cuts: list[int], *, by_the_library: bool) -> list[Any]:
    client = Listening()
    parser = Parser(client) if by_the_library else client._ps
    at = 0
    for cut in [*sorted(cuts), len(blob)]:
        if at < cut <= len(blob):
            await parser.parse(blob[at:cut])
            at = cut
    assert not parser.buf, "nothing is left of whole messages"
    return client.heard


@given(_lines, st.lists(st.integers(0, 1_000), max_size=12))
@example([b"MSG a 7 5\r\nhello\r\n"] * 3, list(range(100)))
@example([b"MSG a 7 18\r\nMSG b 7 5\r\nhello\r\n\r\n", b"HMSG a 7 b 12 12\r\nNATS/1.0\r\n\r\n\r\n"], [30])
def test_what_was_read_is_cut_as_the_library_cuts_it(lines: list[bytes], cuts: list[int]) -> None:
    blob = b"".join(lines)
    ours = asyncio.run(_heard(blob, cuts, by_the_library=False))
    assert ours == asyncio.run(_heard(blob, cuts, by_the_library=True))
    assert len(ours) == sum(line != b"+OK\r\n" for line in lines)


@pytest.mark.parametrize("line", [b"MSG a 7 -5", b"MSG a", b"MSG a 7 x", b"HELLO"])
def test_a_line_that_is_wrong_is_the_librarys_to_complain_of(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        asyncio.run(_heard(line + b"\r\nhello\r\n", [], by_the_library=False))


@given(st.binary(max_size=60) | st.lists(st.sampled_from((b"MSG", b"HMSG", b"a", b"7", b"x1", b"-")), max_size=7).map(b" ".join))
def test_a_line_that_is_no_messages_is_left_to_the_library(line: bytes) -> None:
    told = message_line(line)
    assert told is None or (line.split()[0] in (b"MSG", b"HMSG") and told[0] == line.split()[1] and told[-1] == int(line.split()[-1]))
