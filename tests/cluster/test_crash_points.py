"""Node processes that die by SIGKILL at named points of our own code, at most a few times each: the simulation does it more often."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

pytest.importorskip("nats", reason="the extra `cluster` isn't installed")

from jidosystem.backends.nats.server import NatsCluster
from tests.faults.points import POINTS

from .nodes import NodeProcess, node_cluster
from .traffic import Traffic, traffic

ROOT = Path(__file__).resolve().parents[2]
REACHED_S = 6.0
IN_CI = ("commit, sent", "commit, durable and nobody told", "outbox, an event appended", "claim, written")


def make_mortal(node: NodeProcess, folder: Path) -> None:
    """From its next start on it can be told where to die."""
    node.command = (*node.command[:-2], Path(__file__).with_name("dying.py"))  # instead of `-m jidosystem`
    node.environment["CRASH_FILE"] = str(folder / f"{node.name}.point")
    node.environment["PYTHONPATH"] = os.pathsep.join(map(str, [ROOT, ROOT / "src"]))


async def crash(node: NodeProcess, load: Traffic, point: str, skip: int) -> bool:
    """Let a node die at a point, when it has passed it so often, and come back; whether it got there."""
    file, began = Path(node.environment["CRASH_FILE"]), load.recording.now()
    file.write_text(f"{skip} {point}")
    os.kill(node.pid, signal.SIGUSR1)
    with suppress(TimeoutError):
        async with asyncio.timeout(REACHED_S):
            await node.ended()
    file.write_text("")
    if node.running:
        os.kill(node.pid, signal.SIGUSR1)
        return False
    await node.start()
    load.recording.fault("crash", f"{node.name}: {point}", start=began, effect="it died there")
    return True


@pytest.mark.parametrize("points", [pytest.param(IN_CI, id="some"), pytest.param(tuple(POINTS), id="all", marks=pytest.mark.torture)])
@pytest.mark.timeout(1200)
async def test_node_processes_that_die_at_points_of_our_code_lose_nothing(
    points: tuple[str, ...], one_server: NatsCluster, tmp_path: Path, seed: int
) -> None:
    random, missed = Random(seed), set[str]()
    async with node_cluster(one_server, tmp_path) as cluster:
        for name in ("n1", "n2", "n3"):
            make_mortal(cluster.add(name), tmp_path)
        await cluster.start()
        async with traffic(cluster, seed=seed) as load:
            for point in points:
                if not await crash(random.choice([*cluster.nodes.values()]), load, point, random.choice([0, 0, 2, 10])):
                    missed.add(point)
    load.judge()
    assert len(missed) < len(points) / 2, missed
