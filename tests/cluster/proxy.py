"""A way over TCP that a test can cut, hold up and reset: it stands between one node and a NATS server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

READ_BYTES = 64 * 1024


class Proxy:
    """Carries connections to one place.

    Attributes:
        url: where it listens
        carried: bytes so far
        held: bytes that came to a cut way
    """

    def __init__(self, host: str, port: int, seed: int = 0) -> None:
        self._host, self._port, self._random = host, port, Random(seed)
        self.url = ""
        self.carried = self.held = 0
        self._delay_s = (0.0, 0.0)
        self._open = {"there": asyncio.Event(), "back": asyncio.Event()}
        self._writers: set[asyncio.StreamWriter] = set()
        self.mend()

    def cut(self, *ways: str) -> None:
        """From now on nothing passes, nobody is told, and new connections hang: both ways, or only "there" or "back"."""
        for way in ways or self._open:
            self._open[way].clear()

    def mend(self) -> None:
        """What was held up goes on its way."""
        for opened in self._open.values():
            opened.set()

    def delay(self, least_s: float, most_s: float) -> None:
        """So long each piece is on its way from now on; the order of a connection stays."""
        self._delay_s = (least_s, most_s)

    def reset(self) -> int:
        """Break every connection with a reset; how many there were."""
        writers = list(self._writers)
        for writer in writers:
            writer.transport.abort()
        return len(writers) // 2

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its beginning to its end."""
        there: asyncio.StreamWriter | None = None
        self._writers.add(writer)
        try:
            back, there = await asyncio.open_connection(self._host, self._port)
            self._writers.add(there)
            await asyncio.wait(
                [asyncio.ensure_future(self._pump("there", reader, there)), asyncio.ensure_future(self._pump("back", back, writer))],
                return_when=asyncio.ALL_COMPLETED,
            )
        except OSError:
            return  # nobody listens there just now
        finally:
            for each in (writer, there):
                if each is not None:
                    each.close()
                    self._writers.discard(each)

    async def _pump(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(READ_BYTES):
                if not self._open[way].is_set():
                    self.held += len(data)
                    await self._open[way].wait()
                if self._delay_s[1]:
                    await asyncio.sleep(self._random.uniform(*self._delay_s))
                self.carried += len(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # an end of it is gone, and so is the other one now
        finally:
            writer.close()


@asynccontextmanager
async def proxy_to(url: str, seed: int = 0) -> AsyncIterator[Proxy]:
    """A proxy to the server at a URL."""
    host, _, port = url.partition("://")[2].rpartition(":")
    proxy = Proxy(host, int(port), seed)
    server = await asyncio.start_server(proxy.carry, "127.0.0.1", 0)
    proxy.url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        proxy.mend()
        proxy.reset()
