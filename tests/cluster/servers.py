"""Which NATS server leads what, as the servers' own monitoring tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from jidosystem.backends.nats.server import NatsCluster, NatsServer

RECORDS = "jido-records-0"
ELECTION_S = 30.0
LOOK_S = 0.1


def leader_of(servers: NatsCluster, stream: str) -> NatsServer | None:
    """The living server that leads a stream, if any says that it does."""
    for server in servers.servers:
        if server.pid and _leads(server, stream):
            return server
    return None


def _leads(server: NatsServer, stream: str) -> bool:
    try:
        told: Any = server.monitoring("/jsz?accounts=true&streams=true", timeout_s=0.5)
    except OSError:
        return False
    for account in told.get("account_details", ()):
        for detail in account.get("stream_detail", ()):
            if detail["name"] == stream:
                return bool(detail.get("cluster", {}).get("leader") == server.peer.name)
    return False


async def start(servers: Sequence[NatsServer]) -> None:
    """Start some and wait until they serve. Not in a thread: the kernel ends servers together with the thread that started them."""
    for server in servers:
        server.start()
    await asyncio.gather(*(asyncio.to_thread(server.wait_ready, 60.0) for server in servers))


async def await_leader(servers: NatsCluster, stream: str, *, other_than: NatsServer | None = None) -> NatsServer:
    """The leader, once there is one that isn't the one before."""
    async with asyncio.timeout(ELECTION_S):
        while (leader := await asyncio.to_thread(leader_of, servers, stream)) is None or leader is other_than:
            await asyncio.sleep(LOOK_S)  # the servers tell nobody
    return leader
