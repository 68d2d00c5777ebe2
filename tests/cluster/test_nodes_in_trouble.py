"""Nodes that live and are in trouble: blocked, out of memory, with clocks that jump, beside others of an older protocol."""

from __future__ import annotations

import asyncio
import resource
import struct
import sys
from pathlib import Path

import pytest

pytest.importorskip("nats", reason="the extra `cluster` isn't installed")

from jidosystem.backends.nats.server import NatsCluster
from tests.faults.shims import built

from .asking import agent_on, ask_once
from .nodes import NodeCluster, NodeProcess, node_cluster
from .test_nodes_that_fail import LOST
from .test_servers_that_fail import answered
from .traffic import PATIENCE_S, Traffic, traffic

HOUR_S = 3600
JUMPS = ((HOUR_S, 0), (-HOUR_S, 0), (0, 60), (0, 2 * HOUR_S))
"""Of the clock on the wall, and of the one since boot, which jumps when a machine was suspended."""
CLOCK = Path(__file__).with_name("clock.c")
OLD = Path(__file__).with_name("old.py")
pytestmark = pytest.mark.timeout(180)


async def burden_on(node: NodeProcess) -> str:
    """The path of an agent that lives on a node."""
    return "/v1/agents/" + await agent_on(node, "Burden", "hoard", {"size": 0})


async def block_loop(cluster: NodeCluster, load: Traffic, name: str, seconds: float, *, within_s: float = PATIENCE_S) -> bool:
    """As if the node stood still, but that its other threads and its connections live; whether it is seen to be declared dead in time."""
    node, said = cluster.nodes[name], len(cluster.said(LOST))
    path, began = await burden_on(node), load.recording.now()
    told = await ask_once(node, f"{path}/block", {"seconds": seconds})
    try:
        async with asyncio.timeout(within_s):
            while len(cluster.said(LOST)) == said:
                await asyncio.sleep(0.1)
    except TimeoutError:
        return False
    finally:
        load.recording.fault("blocked loop", name, start=began, effect=f"its caller was told: {told.value or told.outcome}")
    return True


async def exhaust_memory(node: NodeProcess, load: Traffic) -> None:
    """For a while there is none; then the node is killed, as the kernel does sooner or later."""
    path, began = await burden_on(node), load.recording.now()
    resource.prlimit(node.pid, resource.RLIMIT_AS, (address_space_of(node) + 64 * 1024**2,) * 2)
    refused = [size for size in (8 * 1024**2, 1024**2, 64 * 1024) if await is_full(node, path, size)]
    await answered(load, 50)
    await node.kill()
    await node.start()
    load.recording.fault("no memory", node.name, start=began, effect=f"no room for {refused[0]} bytes" if refused else "")


def give_clock(node: NodeProcess, library: Path, folder: Path) -> None:
    """From its next start on it has a clock of its own."""
    file = folder / f"{node.name}.clock"
    file.write_bytes(struct.pack("qq", 0, 0))
    node.environment |= {"LD_PRELOAD": str(library), "CLOCK_FILE": str(file)}


async def jump(node: NodeProcess, load: Traffic, wall_s: int, boot_s: int) -> None:
    """Its clock on the wall is so many seconds off, and so many have passed since it was booted."""
    began = load.recording.now()
    with Path(node.environment["CLOCK_FILE"]).open("r+b") as file:
        file.write(struct.pack("qq", wall_s, boot_s))
    await answered(load, 20)
    load.recording.fault("clock jump", node.name, start=began, effect=f"wall {wall_s:+d} s, boot {boot_s:+d} s")


async def test_a_node_whose_event_loop_is_blocked_is_as_one_that_stands_still(one_server: NatsCluster, tmp_path: Path, seed: int) -> None:
    async with node_cluster(one_server, tmp_path, "n1", "n2", "n3") as cluster, traffic(cluster, seed=seed, clients=12) as load:
        await answered(load, 50)
        assert await block_loop(cluster, load, "n1", 10.0)
        await asyncio.sleep(2.0)
    assert "Burden" in "".join(cluster.said("block")), "the watchdog names who it was"
    load.judge()


async def test_a_node_without_memory_tells_nothing_wrong_and_is_replaced(one_server: NatsCluster, tmp_path: Path, seed: int) -> None:
    async with node_cluster(one_server, tmp_path, "n1", "n2", "n3") as cluster, traffic(cluster, seed=seed) as load:
        await answered(load, 50)
        await exhaust_memory(cluster.nodes["n1"], load)
        await asyncio.sleep(1.0)
    load.judge()


def address_space_of(node: NodeProcess) -> int:
    return int(Path(f"/proc/{node.pid}/statm").read_text().split()[0]) * resource.getpagesize()


async def is_full(node: NodeProcess, path: str, size: int) -> bool:
    """Take memory until there is none for a piece of a size, or the node is gone."""
    for _ in range(1000):
        told = await ask_once(node, f"{path}/hoard", {"size": size})
        if told.outcome != "ok":
            return "Memory" in str(told.value)
    raise AssertionError("there is memory without end")


async def test_clocks_that_jump_change_no_answer_and_void_no_lease(one_server: NatsCluster, tmp_path: Path, seed: int) -> None:
    library = built(CLOCK, tmp_path)
    async with node_cluster(one_server, tmp_path) as cluster:
        for name in ("n1", "n2", "n3"):
            give_clock(cluster.add(name), library, tmp_path)
        await cluster.start()
        async with traffic(cluster, seed=seed) as load:
            for wall_s, boot_s in JUMPS:
                await answered(load, 20)
                await jump(cluster.nodes["n1"], load, wall_s, boot_s)
    assert not cluster.said(LOST)
    load.judge()


async def test_a_node_of_an_older_protocol_is_told_apart_and_goes_on_when_it_is_renewed(one_server: NatsCluster, tmp_path: Path, seed: int) -> None:
    async with node_cluster(one_server, tmp_path) as cluster:
        for name in ("n1", "n2", "old"):
            cluster.add(name)
        node = cluster.nodes["old"]
        node.command = (sys.executable, OLD)
        await cluster.start()
        async with traffic(cluster, seed=seed) as load:
            began, path = load.recording.now(), await burden_on(node)
            told = await ask_once(cluster.nodes["n1"], f"{path}/hoard", {"size": 0})
            assert told.outcome == "failed", "nothing was sent"
            assert "version" in str(told.value)
            await answered(load, 50)
            node.taking = False
            assert await node.stop() == 0, node.log()
            node.command = cluster.nodes["n1"].command
            await node.start()
            load.recording.fault("old protocol", "old", start=began, effect=str(told.value))
            assert (await ask_once(cluster.nodes["n1"], f"{path}/hoard", {"size": 0})).outcome == "ok"
            await answered(load, 50)
    load.judge()
