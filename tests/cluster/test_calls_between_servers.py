"""Calls without a key while a NATS server is killed through which requests and answers go: each is done once, and none waits for its deadline."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("nats", reason="the extra `cluster` isn't installed")

from jidosystem.backends.nats.server import NatsCluster

from .asking import Line
from .nodes import NodeCluster, node_cluster
from .servers import RECORDS, await_leader, start

pytestmark = pytest.mark.timeout(240)
PATIENCE_S = 60.0


async def _count(cluster: NodeCluster, key: str, ending: asyncio.Event) -> float:
    """Call a counter of its own through one node until the end; each answer is the number of the call. The longest of them, in seconds."""
    line, loop, number, longest_s = Line(), asyncio.get_running_loop(), 0, 0.0
    try:
        while not ending.is_set():
            number += 1
            began = loop.time()
            told = await line.ask(cluster.nodes["n1"], f"/v1/agents/Counter/{key}/add", {"op": f"{key}.{number}"}, timeout_s=PATIENCE_S)
            assert told == ("ok", number)
            longest_s = max(longest_s, loop.time() - began)
    finally:
        line.close()
    assert number > 1
    return longest_s


async def test_a_server_is_killed_under_calls_without_a_key(three_servers: NatsCluster, tmp_path: Path) -> None:
    async with node_cluster(three_servers, tmp_path, "n1", "n2") as cluster:
        for time in range(3):
            ending = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                callers = [group.create_task(_count(cluster, f"k{time}-{number}", ending)) for number in range(16)]
                await asyncio.sleep(1.5)
                leader = await await_leader(three_servers, RECORDS)
                await asyncio.to_thread(leader.kill)
                await await_leader(three_servers, RECORDS, other_than=leader)
                await asyncio.sleep(3.0)
                ending.set()
            assert max(caller.result() for caller in callers) < PATIENCE_S / 2
            await start([leader])
