"""A way to a NATS server on which a leader that is none any more answers first: it refuses a write that the server then takes.

Seen on three servers whose leader was stopped and went on: for a moment a write reaches both, and the first answer is the stopped one's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import msgspec

from jidosystem.backends.nats.settings import NatsSettings

_SIZED = {b"PUB", b"HPUB", b"MSG", b"HMSG"}


class Overtaken:
    """Refuses the next writes.

    Attributes:
        refusals: what is left to say: code and text of an error each
        said: how many were said
        deaf_to: what is asked of subjects that begin so gets lost
        slow_to: what is asked of subjects that begin so is under way for `slow_s`
    """

    def __init__(self) -> None:
        self.refusals: list[tuple[int, str]] = []
        self.said = 0
        self.deaf_to = self.slow_to = b"\n"
        self.slow_s = 0.0
        self._writers: list[asyncio.StreamWriter] = []

    async def carry(self, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until one of its ends hangs up."""
        back, there = await asyncio.open_connection(host, port)
        self._writers += [writer, there]
        pumps = [asyncio.ensure_future(self._pump(reader, there, writer)), asyncio.ensure_future(self._pump(back, writer, None))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            return  # the test is over
        finally:
            writer.close()
            there.close()

    def end(self) -> None:
        """Hang up."""
        for writer in self._writers:
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asker: asyncio.StreamWriter | None) -> None:
        """Carry frame by frame, so that a frame of ours goes between two."""
        inboxes: dict[bytes, bytes] = {}
        while line := await reader.readline():
            words = line.split()
            body = await reader.readexactly(int(words[-1]) + 2) if words[0] in _SIZED else b""
            if words[0] == b"SUB":
                inboxes[words[1].rstrip(b"*>")] = words[-1]
            if asker is not None and words[0] == b"HPUB" and len(words) == 5:  # a batch's last message, or one alone
                self._refuse(words[2], inboxes, asker)
            asked = words[1] if asker is not None and words[0] in _SIZED else b""
            if asked.startswith(self.slow_to):
                asyncio.get_running_loop().call_later(self.slow_s, writer.write, line + body)
            elif not asked.startswith(self.deaf_to):
                writer.write(line + body)

    def _refuse(self, reply: bytes, inboxes: dict[bytes, bytes], asker: asyncio.StreamWriter) -> None:
        if self.refusals:
            code, text = self.refusals.pop(0)
            said = msgspec.json.encode({"error": {"code": 400, "err_code": code, "description": text}, "stream": "", "seq": 0})
            number = next(number for inbox, number in inboxes.items() if reply.startswith(inbox))
            asker.write(b"MSG %s %s %d\r\n%s\r\n" % (reply, number, len(said), said))
            self.said += 1


@asynccontextmanager
async def overtaken(settings: NatsSettings) -> AsyncGenerator[tuple[Overtaken, NatsSettings]]:
    """Such a way to the first server, and the settings of who goes it."""
    way = Overtaken()
    host, _, port = settings.servers[0].removeprefix("nats://").partition(":")

    server = await asyncio.start_server(partial(way.carry, host, int(port)), "127.0.0.1", 0)
    try:
        yield way, msgspec.structs.replace(settings, servers=(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}",))
    finally:
        server.close()
        way.end()
