"""Node processes that are killed, stand still, start again and fight for agents, while clients ask: no answer may be wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("nats", reason="the extra `cluster` isn't installed")

from jidosystem.backends.nats.server import NatsCluster

from .asking import Line, live_agents, owner_of
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


@pytest.mark.parametrize(
    ("seconds", "times"),
    [pytest.param(8.0, 1, id="8 s"), pytest.param(30.0, 3, id="half a minute", marks=[pytest.mark.torture, pytest.mark.timeout(600)])],
)
async def test_a_node_that_stood_still_answers_nothing_that_is_old_and_lets_go_of_what_it_lost(
    seconds: float, times: int, one_server: NatsCluster, tmp_path: Path, seed: int
) -> None:
    async with node_cluster(one_server, tmp_path, "n1", "n2", "n3") as cluster, traffic(cluster, seed=seed, clients=12) as load:
        for _ in range(times):
            await asyncio.sleep(2.0)
            assert await stand_still(cluster, load, "n1", seconds)
        await asyncio.sleep(3.0)
    load.judge()


async def stand_still(cluster: NodeCluster, load: Traffic, name: str, seconds: float, *, within_s: float = PATIENCE_S) -> bool:
    """A node is paused until others have its agents; whether that is seen in time: where much else goes wrong it may come back before."""
    node = cluster.nodes[name]
    said, had = len(cluster.said(LOST)), await live_agents(node)
    began = load.recording.now()
    node.pause()
    await asyncio.sleep(seconds)
    resumed = load.recording.now()
    node.resume()
    told = f"it stood still for {seconds:g} s"
    try:
        async with asyncio.timeout(within_s):
            while had and await live_agents(node) >= had:
                await asyncio.sleep(0.01)
            told = f"{had} agents: {load.measured('from its return until a node has let go of its agents', resumed)}"
            while len(cluster.said(LOST)) == said:
                await asyncio.sleep(0.1)
    except TimeoutError:
        return False
    finally:
        load.recording.fault("pause", name, start=began, effect=told)
    return True


async def test_all_nodes_are_killed_at_once(one_server: NatsCluster, tmp_path: Path, seed: int) -> None:
    async with node_cluster(one_server, tmp_path, "n1", "n2", "n3") as cluster, traffic(cluster, seed=seed) as load:
        await asyncio.sleep(2.0)
        began = load.recording.now()
        await asyncio.gather(*(node.kill() for node in cluster.nodes.values()))
        await asyncio.gather(*(node.start() for node in cluster.nodes.values()))
        load.recording.fault("kill", "all nodes", start=began, effect="other processes")
        await asyncio.sleep(2.0)
    load.judge()


async def restart(node: NodeProcess, load: Traffic) -> None:
    """In order."""
    began = load.recording.now()
    node.taking = False  # whoever spreads the calls is told first
    await asyncio.sleep(0.2)
    assert await node.stop() == 0, node.log()
    await node.start()
    load.recording.fault("restart", node.name, start=began, effect="another process")


async def test_all_nodes_are_restarted_one_after_another_and_no_call_fails(one_server: NatsCluster, tmp_path: Path, seed: int) -> None:
    async with node_cluster(one_server, tmp_path, "n1", "n2", "n3") as cluster, traffic(cluster, seed=seed) as load:
        for node in cluster.nodes.values():
            await asyncio.sleep(1.0)
            await restart(node, load)
        await asyncio.sleep(3.0)  # agents go back to whom they belong
    assert not load.failed
    assert not load.unknown
    load.judge()


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=[pytest.mark.torture, pytest.mark.timeout(900)])])
async def test_two_nodes_claim_the_same_agents_at_once_and_each_has_one_owner(count: int, one_server: NatsCluster, tmp_path: Path) -> None:
    async with node_cluster(one_server, tmp_path, "n1", "n2") as cluster:
        nodes, lines = list(cluster.nodes.values()), [Line() for _ in range(16)]
        answers: dict[str, list[int]] = {f"k{number}": [] for number in range(count)}

        async def caller(number: int) -> None:
            node, line = nodes[number % 2], lines[number]
            for key in [*answers][number // 2 :: 8]:  # two callers a key, one on each node
                told = await line.ask(node, f"/v1/agents/Sentry/{key}/post", {})
                assert told.outcome == "ok", told
                answers[key].append(told.value)

        await asyncio.gather(*map(caller, range(16)))
        assert {tuple(sorted(told)) for told in answers.values()} == {(1, 2)}
        for key in [*answers][:: count // 20]:
            assert len({await owner_of(node, f"Sentry/{key}") for node in nodes}) == 1
        for line in lines:
            line.close()
