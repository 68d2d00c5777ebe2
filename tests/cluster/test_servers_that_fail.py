"""NATS servers that are killed and stand still under a cluster at work: calls wait, nothing is lost, and no node is declared dead."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("nats", reason="the extra `cluster` isn't installed")

from jidosystem.backends.nats.server import NatsCluster

from .nodes import NodeCluster, node_cluster
from .servers import RECORDS, await_leader, start
from .test_nodes_that_fail import LOST
from .traffic import PATIENCE_S, Traffic, traffic

pytestmark = pytest.mark.timeout(240)


async def answered(load: Traffic, count: int = 20) -> None:
    """Wait until calls that change something are answered again."""
    before = load.changed
    async with asyncio.timeout(PATIENCE_S):
        while load.changed < before + count:
            await asyncio.sleep(0.1)


def check_nobody_was_declared_dead(cluster: NodeCluster) -> None:
    assert not cluster.said(LOST)


async def lose_leader(servers: NatsCluster, load: Traffic, how: str) -> None:
    """Until another one leads, and calls are answered again."""
    leader, began = await await_leader(servers, RECORDS), load.recording.now()
    await asyncio.to_thread(leader.kill if how == "killed" else leader.pause)
    other = await await_leader(servers, RECORDS, other_than=leader)
    load.recording.fault(f"leader {how}", leader.peer.name, start=began, effect=f"{other.peer.name} leads")
    await answered(load)
    if how == "killed":
        await start([leader])
    else:
        leader.resume()


@pytest.mark.parametrize("how", ["killed", "paused"])
async def test_the_server_that_leads_the_records_fails(how: str, three_servers: NatsCluster, tmp_path: Path, seed: int) -> None:
    async with node_cluster(three_servers, tmp_path, "n1", "n2", "n3") as cluster, traffic(cluster, seed=seed) as load:
        await asyncio.sleep(1.0)
        await lose_leader(three_servers, load, how)
        await answered(load, 100)
    load.judge()
    check_nobody_was_declared_dead(cluster)


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.torture), 3])
async def test_most_or_all_of_the_servers_are_killed_and_come_back(count: int, three_servers: NatsCluster, tmp_path: Path, seed: int) -> None:
    async with node_cluster(three_servers, tmp_path, "n1", "n2", "n3") as cluster, traffic(cluster, seed=seed) as load:
        await asyncio.sleep(1.0)
        leader = await await_leader(three_servers, RECORDS)
        victims = [leader, *(server for server in three_servers.servers if server is not leader)][:count]
        began = load.recording.now()
        await asyncio.gather(*(asyncio.to_thread(server.kill) for server in victims))
        await asyncio.sleep(0.5)
        before = load.changed
        await asyncio.sleep(4.0)
        effect = "" if load.changed != before else "nothing was changed meanwhile"
        load.recording.fault("killed", f"{count} servers", start=began, effect=effect)
        await start(victims)
        await answered(load, 100)
    check_nobody_was_declared_dead(cluster)
    load.judge()
