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

from .disks import Disk
from .servers import RECORDS, await_leader, start
from .site import Site, site_or_skip
from .test_servers_that_fail import answered, check_nobody_was_declared_dead
from .traffic import PATIENCE_S, Traffic, traffic

FULL = "no space left on device"
pytestmark = pytest.mark.timeout(300)


async def fill(disk: Disk, server: NatsServer) -> None:
    """Until a write has failed."""
    said = server.log().count(FULL)
    async with asyncio.timeout(PATIENCE_S):
        while server.log().count(FULL) == said:
            disk.fill()
            await asyncio.sleep(0.1)


async def restart(disk: Disk, server: NatsServer) -> None:
    """As an operator does who has made room."""
    disk.empty()
    await asyncio.to_thread(server.stop)
    await start([server])


async def fill_the_leader(there: Site, load: Traffic) -> None:
    """Another one leads, and when there is room again the full one comes back."""
    leader, began = await await_leader(there.servers, RECORDS), load.recording.now()
    disk = there.disks[there.servers.servers.index(leader)]
    await fill(disk, leader)
    other = await await_leader(there.servers, RECORDS, other_than=leader)
    await answered(load, 50)
    await restart(disk, leader)
    load.recording.fault("disk full", leader.peer.name, start=began, effect=f"{other.peer.name} leads")


async def test_the_leader_of_three_servers_is_full_and_another_one_leads(tmp_path: Path, seed: int) -> None:
    async with site_or_skip(tmp_path, seed, "n1", "n2", "n3", disks=True) as there:
        async with traffic(there.cluster, seed=seed) as load:
            await answered(load, 100)
            await fill_the_leader(there, load)
            await answered(load, 50)
        check_nobody_was_declared_dead(there.cluster)
    load.judge()


async def test_the_only_server_is_full_and_nobody_is_told_that_anything_was_done(tmp_path: Path, seed: int) -> None:
    async with site_or_skip(tmp_path, seed, "n1", "n2", "n3", count=1, disks=True) as there:
        async with traffic(there.cluster, seed=seed) as load:
            await answered(load, 100)
            began, server, disk = load.recording.now(), there.servers.servers[0], there.disks[0]
            await fill(disk, server)
            await asyncio.sleep(0.5)
            before = load.changed
            await asyncio.sleep(4.0)
            assert load.changed == before, "there is no room for any change"
            await restart(disk, server)
            load.recording.fault("disk full", server.peer.name, start=began, effect=FULL)
            await answered(load, 100)
        check_nobody_was_declared_dead(there.cluster)
    load.judge()
