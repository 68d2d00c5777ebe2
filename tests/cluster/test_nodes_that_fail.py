"""Node processes that are killed, stand still, start again and fight for agents, while clients ask: no answer may be wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("nats", reason="the extra `cluster` isn't installed")

from jidosystem.backends.nats.server import NatsCluster

from .asking import Line, owner_of
from .nodes import NodeCluster, NodeProcess, node_cluster
from .traffic import PATIENCE_S, Traffic, traffic

LOST = "this node's lease is void"
pytestmark = pytest.mark.timeout(180)


async def moved_from(victim: NodeProcess, keys: list[str], load: Traffic, asked: NodeProcess) -> str:
    """Wait until agents that a node had are others'; in words."""
    async with asyncio.timeout(PATIENCE_S):
        while any(key in keys for key in await load.owned_by(victim, asked)):
            await asyncio.sleep(0.2)
    return f"{len(keys)} agents moved"


async def test_a_killed_node_loses_nothing_and_comes_back(one_server: NatsCluster, tmp_path: Path, seed: int) -> None:
    async with node_cluster(one_server, tmp_path, "n1", "n2", "n3") as cluster, traffic(cluster, seed=seed) as load:
        await asyncio.sleep(1.0)
        node, other = cluster.nodes["n2"], cluster.nodes["n1"]
        keys = await load.owned_by(node, other)
        began = load.recording.now()
        await node.kill()
        load.recording.fault("kill", "n2", start=began, effect=await moved_from(node, keys, load, other) if keys else "")
        await node.start()
        await asyncio.sleep(2.5)  # so that agents go back to it
    load.judge()


async def test_a_node_that_stood_still_longer_than_its_lease_answers_nothing_that_is_old(one_server: NatsCluster, tmp_path: Path, seed: int) -> None:
    async with node_cluster(one_server, tmp_path, "n1", "n2", "n3") as cluster, traffic(cluster, seed=seed, clients=12) as load:
        await asyncio.sleep(1.0)
        await stand_still(cluster, load, "n1", 6.0)
        await asyncio.sleep(3.0)
    load.judge()


@pytest.mark.torture
async def test_a_node_that_stood_still_for_half_a_minute(one_server: NatsCluster, tmp_path: Path, seed: int) -> None:
    async with node_cluster(one_server, tmp_path, "n1", "n2", "n3") as cluster, traffic(cluster, seed=seed, clients=12) as load:
        for _ in range(3):
            await asyncio.sleep(2.0)
            await stand_still(cluster, load, "n1", 30.0)
    load.judge()


async def stand_still(cluster: NodeCluster, load: Traffic, name: str, seconds: float) -> None:
    node, before = cluster.nodes[name], len(cluster.said(LOST))
    began = load.recording.now()
    node.pause()
    await asyncio.sleep(seconds)
    node.resume()
    async with asyncio.timeout(PATIENCE_S):
        while len(cluster.said(LOST)) == before:
            await asyncio.sleep(0.1)
    load.recording.fault("pause", name, start=began, effect=f"{name} was declared dead")


async def test_all_nodes_are_killed_at_once(one_server: NatsCluster, tmp_path: Path, seed: int) -> None:
    async with node_cluster(one_server, tmp_path, "n1", "n2", "n3") as cluster, traffic(cluster, seed=seed) as load:
        await asyncio.sleep(2.0)
        began = load.recording.now()
        await asyncio.gather(*(node.kill() for node in cluster.nodes.values()))
        await asyncio.gather(*(node.start() for node in cluster.nodes.values()))
        load.recording.fault("kill", "all nodes", start=began, effect="other processes")
        await asyncio.sleep(2.0)
    load.judge()


async def test_all_nodes_are_restarted_one_after_another_and_no_call_fails(one_server: NatsCluster, tmp_path: Path, seed: int) -> None:
    async with node_cluster(one_server, tmp_path, "n1", "n2", "n3") as cluster, traffic(cluster, seed=seed) as load:
        for node in cluster.nodes.values():
            await asyncio.sleep(1.0)
            began = load.recording.now()
            node.taking = False  # whoever spreads the calls is told first
            await asyncio.sleep(0.2)
            assert await node.stop() == 0, node.log()
            await node.start()
            load.recording.fault("restart", node.name, start=began, effect="another process")
        await asyncio.sleep(3.0)  # agents go back to whom they belong
    assert not load.failed
    assert not load.unknown
    load.judge()


async def test_two_nodes_claim_the_same_agents_at_once_and_each_has_one_owner(one_server: NatsCluster, tmp_path: Path) -> None:
    async with node_cluster(one_server, tmp_path, "n1", "n2") as cluster:
        nodes, lines = list(cluster.nodes.values()), [Line() for _ in range(16)]
        answers: dict[str, list[int]] = {f"k{number}": [] for number in range(400)}

        async def caller(number: int) -> None:
            node, line = nodes[number % 2], lines[number]
            for key in [*answers][number // 2 :: 8]:  # two callers a key, one on each node
                told = await line.ask(node, f"/v1/agents/Sentry/{key}/post", {})
                assert told.outcome == "ok", told
                answers[key].append(told.value)

        await asyncio.gather(*map(caller, range(16)))
        assert {tuple(sorted(told)) for told in answers.values()} == {(1, 2)}
        for key in [*answers][::20]:
            assert len({await owner_of(node, f"Sentry/{key}") for node in nodes}) == 1
        for line in lines:
            line.close()
