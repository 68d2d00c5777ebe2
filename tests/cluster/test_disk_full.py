"""A disk fills up under the servers: nothing that was acknowledged is lost, and with room again all goes on.

A server whose disk is full answers no publication any more, and goes on so until it is started again, whatever room there is (2.15.1; its
`/healthz` says so). In a cluster another one leads meanwhile.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("nats", reason="the extra `cluster` isn't installed")

from jidosystem.backends.nats.server import NatsServer

from .disks import SmallDisk, disks_under
from .nodes import node_cluster
from .servers import await_leader
from .test_power import made
from .test_servers_that_fail import RECORDS, answered, check_nobody_was_declared_dead, start
from .traffic import PATIENCE_S, traffic

pytestmark = pytest.mark.timeout(300)


async def fill(disk: SmallDisk, server: NatsServer) -> str:
    """Until a write has failed, in the server's words."""
    async with asyncio.timeout(PATIENCE_S):
        while "no space left" not in server.log():
            disk.fill()
            await asyncio.sleep(0.1)
    return "no space left on device"


async def restart(disk: SmallDisk, server: NatsServer) -> None:
    """As an operator does who has made room."""
    disk.empty()
    await asyncio.to_thread(server.stop)
    await start([server])


async def test_the_only_server_is_full_and_nobody_is_told_that_anything_was_done(tmp_path: Path, seed: int) -> None:
    servers = made(tmp_path, 1)
    with disks_under(servers, SmallDisk) as (disk,):
        await start(servers.servers)
        async with node_cluster(servers, tmp_path, "n1", "n2", "n3") as cluster, traffic(cluster, seed=seed) as load:
            await answered(load, 100)
            began, server = load.recording.now(), servers.servers[0]
            effect = await fill(disk, server)
            await asyncio.sleep(0.5)
            before = load.changed
            await asyncio.sleep(4.0)
            assert load.changed == before, "there is no room for any change"
            await restart(disk, server)
            load.recording.fault("disk full", "the server", start=began, effect=effect)
            await answered(load, 100)
        check_nobody_was_declared_dead(cluster)
    load.judge()


async def test_the_leader_of_three_servers_is_full_and_another_one_leads(tmp_path: Path, seed: int) -> None:
    servers = made(tmp_path, 3)
    with disks_under(servers, SmallDisk) as disks:
        await start(servers.servers)
        async with node_cluster(servers, tmp_path, "n1", "n2", "n3") as cluster, traffic(cluster, seed=seed) as load:
            await answered(load, 100)
            leader, began = await await_leader(servers, RECORDS), load.recording.now()
            disk = disks[servers.servers.index(leader)]
            await fill(disk, leader)
            other = await await_leader(servers, RECORDS, other_than=leader)
            await answered(load, 100)
            await restart(disk, leader)
            load.recording.fault("disk full", leader.peer.name, start=began, effect=f"{other.peer.name} leads")
            await answered(load, 100)
        check_nobody_was_declared_dead(cluster)
    load.judge()
