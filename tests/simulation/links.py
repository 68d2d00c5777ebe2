"""Our own `Connection`, over a client that speaks to simulated servers: it writes what goes over the wire, and reads what comes."""

from __future__ import annotations

import asyncio
from typing import Any

from jidosystem.backends.nats.client import Take
from jidosystem.backends.nats.connection import Connection
from jidosystem.backends.nats.settings import NatsSettings
from tests.simulation.jetstream import HOP_S, Sent, Server, Servers, at

NOTICED_S = (2.0, 3.0)
"""So long a client takes to see that its server doesn't answer."""
AGAIN_S = (0.05, 0.5)
MAX_PAYLOAD = 1024 * 1024


class SimulatedClient:
    """In the place of nats-py's: what `Connection` uses of it. `servers` are those that it may connect to."""

    is_closed = is_stuck = False
    last_error: Exception | None = None

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._takers: dict[int, tuple[str, Take]] = {}
        self._last_arrival_s = 0.0
        self._pending_data_size = 0
        self._max_payload = self.max_payload = MAX_PAYLOAD
        self._server_info = {"server_name": "simulated", "version": "2.12.0", "cluster": "simulated", "jetstream": True}
        self.server: Server | None = None
        self._session = 0
        servers.clients.append(self)
        self._connect()

    @property
    def is_connected(self) -> bool:
        """Whether it believes so."""
        return self.server is not None

    def put(self, command: bytes) -> None:
        """A publication as it is written."""
        line, _, rest = command.partition(b"\r\n")
        words = line.split()
        verb, subject = words[0], words[1].decode()
        sizes = 2 if verb == b"HPUB" else 1
        reply = words[2].decode() if len(words) == 3 + sizes else ""
        header_bytes = int(words[-2]) if sizes == 2 else 0
        self._send(self._servers.arrive, Sent(self, subject, reply, rest[:header_bytes], rest[header_bytes : int(words[-1])]))

    def _send(self, what: Any, *args: Any) -> None:
        """In the order in which it is put."""
        now = asyncio.get_running_loop().time()
        self._last_arrival_s = max(self._last_arrival_s + 1e-6, now + self._servers.random.uniform(*HOP_S))
        at(self._last_arrival_s - now, what, self.server, *args)

    async def take(self, subject: str, group: str, take: Take) -> int:
        """Subscribe."""
        number = len(self._takers) + 1
        self._takers[number] = (subject.rstrip("*"), take)
        return number

    async def leave(self, number: int, timeout_s: float) -> None:
        """Unsubscribe."""
        self._takers.pop(number, None)

    async def round_trip(self, timeout_s: float) -> bool:
        """Whether the server answers."""
        pong = asyncio.get_running_loop().create_future()
        self._send(self._ping, pong)
        done, _ = await asyncio.wait({pong}, timeout=timeout_s)
        return bool(done)

    def _ping(self, server: Server | None, pong: asyncio.Future[None]) -> None:
        if server is not None and server.up and not server.stopped and not pong.done():
            pong.set_result(None)

    def deliver(self, subject: str, payload: bytes, headers: dict[str, str] | None) -> None:
        """Of a server."""
        for prefix, take in list(self._takers.values()):
            if subject.startswith(prefix):
                take(subject.encode(), b"", payload, headers)

    def hung_up(self) -> None:
        """The server has gone: to another one."""
        self.server, self._session = None, self._session + 1
        at(self._servers.random.uniform(*AGAIN_S), self._connect)

    def stands_still(self) -> None:
        """The server doesn't answer; that is noticed later."""
        at(self._servers.random.uniform(*NOTICED_S), self._notice, self._session)

    def _notice(self, session: int) -> None:
        if session == self._session and self.server is not None and self.server.stopped:
            self.hung_up()

    def _connect(self) -> None:
        able = [server for server in self._servers.all if server.up and not server.stopped]
        if not able:
            at(self._servers.random.uniform(*AGAIN_S), self._connect)
            return
        self.server = self._servers.random.choice(able)

    def forget_pending(self) -> None:
        """Nothing is pending."""

    abort = forget_pending

    async def close(self) -> None:
        """Gone."""
        if self in self._servers.clients:
            self._servers.clients.remove(self)


async def connected(servers: Servers, cluster: str) -> Connection:
    """A connection to them."""

    class Link(Connection):
        async def _connect(self, timeout_s: float) -> Any:
            return SimulatedClient(servers)

    return await Link.open(NatsSettings(servers=("nats://simulated:4222",), cluster=cluster))
