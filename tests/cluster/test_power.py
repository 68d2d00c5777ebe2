"""The power fails for everything at once, and comes back: what was acknowledged is there, because the servers had synced it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("nats", reason="the extra `cluster` isn't installed")

import nats
from nats.js.errors import NotFoundError

from jidosystem.backends.nats.server import NatsCluster

from .disks import Disk, disks_under
from .nodes import NodeCluster, node_cluster
from .test_servers_that_fail import answered, start
from .traffic import Traffic, traffic

pytestmark = pytest.mark.timeout(300)


def made(folder: Path, count: int, sync: str = "always") -> NatsCluster:
    """Servers that aren't started."""
    servers = NatsCluster(folder, count)
    servers._make()
    for server in servers.servers:
        server._text = server._text.replace("sync_interval: always", f'sync_interval: "{sync}"')
    return servers


def cut(servers: NatsCluster, disks: Sequence[Disk], cluster: NodeCluster | None = None) -> None:
    """All machines stop at one moment, and what they hadn't written is gone."""
    for node in cluster.nodes.values() if cluster is not None else ():
        node.pause()
    for server in servers.servers:
        server.pause()
    for disk in disks:
        disk.cut()
    for server in servers.servers:
        server.kill()


async def lose_power(servers: NatsCluster, disks: Sequence[Disk], cluster: NodeCluster, load: Traffic) -> None:
    """The power fails and comes back, and all start as machines do: at once."""
    began = load.recording.now()
    cut(servers, disks, cluster)
    await asyncio.gather(*(node.kill() for node in cluster.nodes.values()))
    for disk in disks:
        disk.come_back()
    started = load.recording.now()
    await start(servers.servers)
    await asyncio.gather(*(node.start() for node in cluster.nodes.values()))
    await answered(load, 1)
    load.recording.fault("power cut", "everything", start=began, effect=load.measured("from the start to the first answer", started))


async def test_what_was_acknowledged_outlives_a_power_cut_of_everything(tmp_path: Path, seed: int) -> None:
    servers = made(tmp_path, 3)
    with disks_under(servers, Disk) as disks:
        await start(servers.servers)
        async with node_cluster(servers, tmp_path, "n1", "n2", "n3") as cluster, traffic(cluster, seed=seed) as load:
            await answered(load, 200)
            await lose_power(servers, disks, cluster, load)
            await answered(load, 100)
    load.judge()


async def test_without_the_sync_a_power_cut_takes_what_was_acknowledged(tmp_path: Path) -> None:
    """That power is really cut in the test above: the same with servers as they come."""
    servers = made(tmp_path, 1, sync="2m")
    with disks_under(servers, Disk) as disks:
        await start(servers.servers)
        await publish(servers, 500)
        cut(servers, disks)
        disks[0].come_back()
        await start(servers.servers)
        assert await published(servers) < 500


async def publish(servers: NatsCluster, count: int) -> None:
    async with await nats.connect(**reached(servers)) as client:
        stream = client.jetstream()
        await stream.add_stream(name="told", subjects=["told"])
        for _ in range(count):
            await stream.publish("told", b"x" * 100)


async def published(servers: NatsCluster) -> int:
    async with await nats.connect(**reached(servers)) as client:
        try:
            return (await client.jetstream().stream_info("told")).state.messages
        except NotFoundError:
            return 0


def reached(servers: NatsCluster) -> dict[str, object]:
    settings = servers.settings()
    return {"servers": list(settings.servers), "user": settings.user, "password": settings.password}
