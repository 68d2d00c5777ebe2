"""Servers and nodes on machines of their own, between which packets are lost, cut off one way or both, and connections reset."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

pytest.importorskip("nats", reason="the extra `cluster` isn't installed")

from .namespaces import ApartServers, Network, network_of, ways
from .nodes import NodeCluster, node_cluster
from .servers import await_leader
from .test_servers_that_fail import RECORDS, answered, start
from .traffic import Traffic, traffic

SERVERS, NODES = ("s1", "s2", "s3"), ("n1", "n2", "n3")
pytestmark = pytest.mark.timeout(300)


class Site(NamedTuple):
    network: Network
    servers: ApartServers
    cluster: NodeCluster
    load: Traffic


@asynccontextmanager
async def site(folder: Path, seed: int) -> AsyncIterator[Site]:
    """Three servers and three nodes, under traffic."""
    with network_of(SERVERS + NODES, seed) as network:
        servers = ApartServers(folder, network)
        try:
            servers._make()
            await start(servers.servers)
            async with node_cluster(servers, folder) as cluster:
                for name in NODES:
                    node = cluster.add(name)
                    node.namespace = network.namespace(name)
                    node.command = network.command(name, *node.command)
                await cluster.start()
                async with traffic(cluster, seed=seed) as load:
                    await answered(load, 50)
                    yield Site(network, servers, cluster, load)
        finally:
            servers.stop()


Cut = Callable[[str, list[str]], set[tuple[str, str]]]
CUTS: dict[str, Cut] = {
    "the leader is alone": lambda leader, others: ways([leader], [*others, *NODES]),
    "the leader has the nodes and no server": lambda leader, others: ways([leader], others),
    "the leader is not heard by servers": lambda leader, others: ways([leader], others, back=False),
    "the leader does not hear servers": lambda leader, others: ways(others, [leader], back=False),
    "one server sees both others": lambda leader, others: ways([leader], others[:1]),
    "the leader is not heard by nodes": lambda leader, _others: ways([leader], NODES, back=False),
    "the leader does not hear nodes": lambda leader, _others: ways(NODES, [leader], back=False),
    "a node has no server": lambda leader, others: ways(["n1"], [leader, *others]),
    "a node is not heard": lambda leader, others: ways(["n1"], [leader, *others], back=False),
    "a node does not hear": lambda leader, others: ways([leader, *others], ["n1"], back=False),
    "a node lacks the leader": lambda leader, _others: ways(["n1"], [leader]),
    "a bridge": lambda leader, others: ways([leader, "n1"], [others[0], "n2"]),
    "no server sees another": lambda leader, others: ways([leader, *others], [leader, *others]),
}
IN_CI = {"the leader has the nodes and no server", "a bridge", "a node is not heard"}


@pytest.mark.parametrize("how", [pytest.param(how, marks=() if how in IN_CI else pytest.mark.torture) for how in CUTS])
async def test_whoever_is_cut_off_from_whom_no_answer_is_wrong(how: str, tmp_path: Path, seed: int) -> None:
    async with site(tmp_path, seed) as there:
        await cut(there, how, 8.0)
        await answered(there.load, 50)
    there.load.judge()


async def cut(there: Site, how: str, seconds: float) -> None:
    """For a while; and then everybody reaches everybody."""
    leader, began = (await await_leader(there.servers, RECORDS)).peer.name, there.load.recording.now()
    before = there.network.let(cut=CUTS[how](leader, [name for name in SERVERS if name != leader]))
    await asyncio.sleep(seconds)
    after = there.network.let()
    dropped = after.get("cut", 0) - before.get("cut", 0)
    there.load.recording.fault("cut", how, start=began, effect=f"{dropped} packets dropped" if dropped else "")


async def test_lost_packets_and_resets_cost_nothing_but_time(tmp_path: Path, seed: int) -> None:
    async with site(tmp_path, seed) as there:
        began = there.load.recording.now()
        there.network.let(loss=0.03, delay_s=(0.0, 0.005))
        resets = 0
        for machine in (*NODES, "s1"):
            await asyncio.sleep(1.5)
            resets += there.network.reset(machine)
        await answered(there.load, 50)
        lost = there.network.let().get("lost", 0)
        there.load.recording.fault("loss", "all", start=began, effect=f"{lost} packets lost" if lost else "")
        there.load.recording.fault("reset", "all", start=began, effect=f"{resets} connections" if resets else "")
    there.load.judge()
