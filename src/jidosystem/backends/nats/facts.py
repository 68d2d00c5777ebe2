"""What the servers say of how they are set up, as far as a client can see it.

Version and JetStream stand in every server's greeting. Whether writes are synced before they are acknowledged only the
system account and the monitoring endpoint tell; the configuration that we ship lets our account ask for it under
`$JIDO.SERVERS`, and all servers of the cluster answer. Set up otherwise, it can't be seen from here: `synced` is None.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import msgspec

from .client import Headers
from .connection import Connection
from .protocol import NO_RESPONDERS
from .server_config import SERVERS_SUBJECT


class ServerFacts(NamedTuple):
    """One server.

    Attributes:
        name: its own
        version: of the program
        synced: whether a write is on the disk before it is acknowledged (`sync_interval: always`)
    """

    name: str
    version: str
    synced: bool


async def servers_of(connection: Connection, *, timeout_s: float = 1.0) -> list[ServerFacts] | None:
    """All servers that answer, or None if this account may not ask them. Waits until time is up, for nobody says how many there are
    (but not longer than it takes the one to answer that isn't part of a cluster)."""
    found: dict[str, ServerFacts] = {}
    done = asyncio.Event()
    alone = not connection.server.get("cluster")
    refused = False

    def take(_subject: bytes, _reply: bytes, data: bytes, headers: Headers) -> None:
        nonlocal refused
        if headers is not None and headers.get("Status") == NO_RESPONDERS:
            refused = True
        else:
            facts = _facts(msgspec.json.decode(data))
            found[facts.name] = facts
        if refused or alone:
            done.set()

    number, inbox = connection.listen(take)
    try:
        connection.publish(SERVERS_SUBJECT, reply=inbox)
        async with asyncio.timeout(timeout_s):
            await done.wait()
    except TimeoutError:
        pass
    finally:
        connection.deafen(number)
    return None if refused else sorted(found.values())


def weaknesses(servers: list[ServerFacts] | None) -> list[str]:
    """A sentence for everything that a promise of ours rests on and that isn't so, or can't be seen."""
    if servers is None:
        return [_UNSEEN]
    return [
        f"the NATS server {server.name!r} acknowledges writes before they are on its disk: a power cut may lose them; "
        "set `jetstream { sync_interval: always }`"
        for server in servers
        if not server.synced
    ]


_UNSEEN = (
    "the NATS servers don't tell this account how they are set up: whether they sync writes before they acknowledge them "
    "(`jetstream { sync_interval: always }`) can't be seen from here"
)


def _facts(told: Any) -> ServerFacts:
    jetstream = told.get("statsz", {}).get("jetstream") or {}
    return ServerFacts(str(told["server"]["name"]), str(told["server"].get("ver", "")), bool((jetstream.get("config") or {}).get("sync_always")))
