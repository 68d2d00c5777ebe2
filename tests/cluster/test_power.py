"""The power fails for everything at once, and comes back: what was acknowledged is there, because the servers had synced it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nats", reason="the extra `cluster` isn't installed")

import nats
from nats.js.errors import NotFoundError

from jidosystem.backends.nats.server import NatsCluster

from .servers import start
from .site import Site, site_or_skip
from .test_servers_that_fail import answered
from .traffic import Traffic, traffic

pytestmark = pytest.mark.timeout(300)


async def lose_power(there: Site, load: Traffic) -> None:
    """The power fails, comes back, and everything starts."""
    began, nodes = load.recording.now(), there.cluster.nodes.values()
    for node in nodes:
        node.taking = False
        node.pause()
    cut(there)
    await asyncio.gather(*(node.kill() for node in nodes))
    for disk in there.disks:
        disk.come_back()
    started = load.recording.now()
    await start(there.servers.servers)
    await asyncio.gather(*(node.start() for node in nodes))
    await answered(load, 1)
    load.recording.fault(
        "power cut", "everything", start=began, effect=load.measured("from the start after a power cut to the first answer", started)
    )


def cut(there: Site) -> None:
    """All servers stop at one moment, and what they hadn't written is gone."""
    for server in there.servers.servers:
        server.pause()
    for disk in there.disks:
        disk.cut()
    for server in there.servers.servers:
        server.kill()


async def test_what_was_acknowledged_outlives_a_power_cut_of_everything(tmp_path: Path, seed: int) -> None:
    async with site_or_skip(tmp_path, seed, "n1", "n2", "n3", disks=True) as there, traffic(there.cluster, seed=seed) as load:
        await answered(load, 200)
        await lose_power(there, load)
        await answered(load, 100)
    load.judge()


async def test_without_the_sync_a_power_cut_takes_what_was_acknowledged(tmp_path: Path, seed: int) -> None:
    """That power is really cut in the test above: the same with a server as it comes."""
    async with site_or_skip(tmp_path, seed, count=1, disks=True) as there:
        (server,) = there.servers.servers
        await asyncio.to_thread(server.stop)
        server._text = server._text.replace("sync_interval: always", 'sync_interval: "2m"')
        await start([server])
        await publish(there.servers, 500)
        cut(there)
        there.disks[0].come_back()
        await start([server])
        assert await published(there.servers) < 500


async def publish(servers: NatsCluster, count: int) -> None:
    async with await nats.connect(**reached(servers)) as client:
        stream = client.jetstream()
        await stream.add_stream(name="told", subjects=["told"])
        for _ in range(count):
            await stream.publish("told", b"x" * 100)


async def published(servers: NatsCluster) -> int:
    async with await nats.connect(**reached(servers)) as client:
        try:
            return int((await client.jetstream().stream_info("told")).state.messages)
        except NotFoundError:
            return 0


def reached(servers: NatsCluster) -> dict[str, Any]:
    settings = servers.settings()
    return {"servers": list(settings.servers), "user": settings.user, "password": settings.password}
