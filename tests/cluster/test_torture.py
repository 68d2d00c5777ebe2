"""`make torture-cluster`: four nodes and three servers, hurt at random for minutes; what was found goes to `benchmarks/faults.jsonl`."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

pytest.importorskip("nats", reason="the extra `cluster` isn't installed")

from jidosystem.backends.nats.server import NatsCluster

from .nodes import NodeCluster, node_cluster
from .servers import await_leader
from .test_nodes_that_fail import stand_still
from .test_servers_that_fail import RECORDS, answered, start
from .traffic import Traffic, traffic

FAULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "faults.jsonl"
NAMES = ("n1", "n2", "n3", "n4")


class Torturer:
    """Does one thing after another, and mends it."""

    def __init__(self, servers: NatsCluster, cluster: NodeCluster, load: Traffic, random: Random) -> None:
        self._servers, self._cluster, self._load, self._random = servers, cluster, load, random

    async def hurt(self) -> None:
        """One fault, felt and over."""
        kinds: list[Callable[[], Awaitable[None]]] = [self.kill, self.kill, self.pause, self.restart, self.kill_leader, self.kill_servers]
        await self._random.choice(kinds)()
        await answered(self._load, 50)

    async def kill(self) -> None:
        recording = self._load.recording
        victims = self._random.sample([*self._cluster.nodes.values()], self._random.choice([1, 1, 2]))
        began = recording.now()
        await asyncio.gather(*(node.kill() for node in victims))
        await asyncio.sleep(self._random.uniform(0, 5))
        await asyncio.gather(*(node.start() for node in victims))
        recording.fault("kill", " ".join(node.name for node in victims), start=began, effect="other processes")

    async def pause(self) -> None:
        await stand_still(self._cluster, self._load, self._random.choice(NAMES), self._random.uniform(5.5, 12))

    async def restart(self) -> None:
        node, began = self._cluster.nodes[self._random.choice(NAMES)], self._load.recording.now()
        node.taking = False
        await asyncio.sleep(0.2)
        assert await node.stop() == 0, node.log()
        await node.start()
        self._load.recording.fault("restart", node.name, start=began, effect="another process")

    async def kill_leader(self) -> None:
        leader, began = await await_leader(self._servers, RECORDS), self._load.recording.now()
        await asyncio.to_thread(leader.kill)
        other = await await_leader(self._servers, RECORDS, other_than=leader)
        await answered(self._load)
        await start([leader])
        self._load.recording.fault("kill of the leader", leader.peer.name, start=began, effect=f"{other.peer.name} leads")

    async def kill_servers(self) -> None:
        victims, began = self._random.sample(self._servers.servers, self._random.choice([2, 3])), self._load.recording.now()
        await asyncio.gather(*(asyncio.to_thread(server.kill) for server in victims))
        await asyncio.sleep(self._random.uniform(1, 6))
        await start(victims)
        self._load.recording.fault("kill of servers", f"{len(victims)} of 3", start=began, effect="other processes")


@pytest.mark.torture
@pytest.mark.timeout(0)
async def test_whatever_is_done_to_nodes_and_servers_no_answer_is_wrong(three_servers: NatsCluster, tmp_path: Path, seed: int) -> None:
    length_s = float(os.environ.get("CLUSTER_SECONDS", "300"))
    async with node_cluster(three_servers, tmp_path, *NAMES) as cluster, traffic(cluster, seed=seed, clients=16, keys=40) as load:
        torturer, until = Torturer(three_servers, cluster, load, Random(seed)), time.monotonic() + length_s
        while time.monotonic() < until:
            await torturer.hurt()
            await asyncio.sleep(1.0)
    verdicts = load.verdicts(operations=int(length_s))
    note(seed, length_s, load, verdicts)
    load.judge(operations=int(length_s))


def note(seed: int, length_s: float, load: Traffic, verdicts: list[Any]) -> None:
    """Append what this run did and found."""
    history = load.recording.history()
    counts: dict[str, int] = {}
    for fault in history.faults:
        counts[fault.kind] = counts.get(fault.kind, 0) + 1
    line = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"), "seed": seed, "seconds": length_s, "operations": len(history),
        "faults": counts, "unknown": len(load.unknown), "failed": len(load.failed), "longest_wait_s": round(load.held_s, 2),
        "verdict": "nothing wrong" if all(verdicts) else [str(verdict) for verdict in verdicts if not verdict],
    }  # fmt: skip
    with FAULTS.open("ab") as file:
        file.write(msgspec.json.encode(line) + b"\n")
