"""`make torture-cluster`: four nodes and three servers, hurt at random for hours; what was found goes to `benchmarks/faults.jsonl`.

One installation, and one run after another on it: each has agents of its own, and is judged when it is over. Where network namespaces, loop
devices or a compiler are missing, the faults that need them are left out.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random

import pytest

pytest.importorskip("nats", reason="the extra `cluster` isn't installed")

from tests.faults.points import POINTS
from tests.faults.shims import built

from .nodes import NodeProcess
from .report import note, told, total
from .servers import start
from .site import SERVERS, Site, site
from .test_crash_points import crash, make_mortal
from .test_disk_full import fill_the_leader
from .test_nodes_in_trouble import CLOCK, HOUR_S, block_loop, exhaust_memory, give_clock, jump
from .test_nodes_that_fail import restart, stand_still
from .test_partitions import CUTS, cut, lose_packets, reset
from .test_power import lose_power
from .test_servers_that_fail import answered, lose_leader
from .traffic import Traffic, traffic

NAMES = ("n1", "n2", "n3", "n4")
RUN_S = 120.0
CLIENTS, KEYS = 64, 160
"""Enough that a node which is away holds up some, and the others go on."""
LEAST_A_SECOND = 1.0
SEEN_S = 10.0
"""So long a node that stood still is watched for letting go of its agents."""
Hurt = Callable[[], Awaitable[object]]


class Torturer:
    """Does one thing after another, and mends it."""

    def __init__(self, there: Site, load: Traffic, random: Random) -> None:
        self._there, self._load, self._random = there, load, random
        self._nodes = [*there.cluster.nodes.values()]

    def heavy(self) -> list[Hurt]:
        """What takes its time, one after another; what is done more often several times."""
        kinds: list[Hurt] = [self.kill, self.kill, self.pause, self.restart, self.leader, self.leader, self.kill_servers, self.block, self.memory]
        kinds += [self.crash] * 8
        kinds += [self.cut] * 4 if self._there.network is not None else []
        return kinds + ([self.power, self.disk] if self._there.disks else [])

    def light(self) -> list[Hurt]:
        """What can go on beside it."""
        kinds: list[Hurt] = [self.clock] if "CLOCK_FILE" in self._nodes[0].environment else []
        return kinds + ([self.reset, self.reset, self.loss] if self._there.network is not None else [])

    async def hurt(self) -> None:
        """One fault, or some at once, felt and over."""
        light = self._random.sample(self.light(), min(self._random.choice([0, 1, 1, 2]), len(self.light())))
        await asyncio.gather(self._random.choice(self.heavy())(), *(some() for some in light))
        await asyncio.gather(*(node.start() for node in self._nodes if not node.running))
        await answered(self._load, 20)

    async def kill(self) -> None:
        await self._kill(self._random.sample(self._nodes, self._random.choice([1, 1, 2, 4])))

    async def _kill(self, victims: Sequence[NodeProcess]) -> None:
        began = self._load.recording.now()
        await asyncio.gather(*(node.kill() for node in victims))
        await asyncio.sleep(self._random.uniform(0, 5))
        await asyncio.gather(*(node.start() for node in victims))
        self._load.recording.fault("kill", " ".join(node.name for node in victims), start=began, effect="other processes")

    async def pause(self) -> None:
        await stand_still(self._there.cluster, self._load, self._some().name, self._random.choice([6.0, 6.0, 8.0, 12.0, 30.0]), within_s=SEEN_S)

    async def restart(self) -> None:
        await restart(self._some(), self._load)

    async def crash(self) -> None:
        node = self._some()
        if not await crash(node, self._load, self._random.choice([*POINTS]), self._random.choice([0, 0, 1, 5])):
            await self._kill([node])  # somewhere else, then

    async def block(self) -> None:
        await block_loop(self._there.cluster, self._load, self._some().name, 10.0, within_s=SEEN_S)

    async def memory(self) -> None:
        await exhaust_memory(self._some(), self._load)

    async def clock(self) -> None:
        await jump(self._some(), self._load, self._random.choice([-HOUR_S, 0, HOUR_S]), self._random.choice([0, 0, 60]))

    async def leader(self) -> None:
        await lose_leader(self._there.servers, self._load, self._random.choice(["killed", "paused"]))

    async def kill_servers(self) -> None:
        victims, began = self._random.sample(self._there.servers.servers, self._random.choice([2, 3])), self._load.recording.now()
        await asyncio.gather(*(asyncio.to_thread(server.kill) for server in victims))
        await asyncio.sleep(self._random.uniform(1, 6))
        await start(victims)
        self._load.recording.fault("servers killed", f"{len(victims)} of 3", start=began, effect="other processes")

    async def cut(self) -> None:
        await cut(self._there, self._load, self._random.choice([*CUTS]), self._random.uniform(2, 12))

    async def reset(self) -> None:
        await reset(self._there, self._load, self._random.choice([*NAMES, *SERVERS]))

    async def loss(self) -> None:
        await lose_packets(self._there, self._load, self._random.uniform(0.01, 0.1), self._random.uniform(2, 8))

    async def power(self) -> None:
        await lose_power(self._there, self._load)

    async def disk(self) -> None:
        await fill_the_leader(self._there, self._load)

    def _some(self) -> NodeProcess:
        return self._random.choice(self._nodes)


@asynccontextmanager
async def installation(folder: Path, seed: int) -> AsyncIterator[Site]:
    """With machines and disks of their own, if this one gives that."""
    async with AsyncExitStack() as stack:
        try:
            there = await stack.enter_async_context(site(folder, seed, *NAMES, apart=True, disks=True))
        except OSError as error:
            print(f"no machines and disks of their own here, so no cuts, no resets, no power cuts: {error}")
            there = await stack.enter_async_context(site(folder, seed, *NAMES))
        try:
            library = built(CLOCK, folder)
        except pytest.skip.Exception as error:
            print(f"no clocks that jump here: {error}")
        else:
            for node in there.cluster.nodes.values():
                give_clock(node, library, folder)
        for node in there.cluster.nodes.values():
            make_mortal(node, folder)
        await there.cluster.start()
        yield there


@pytest.mark.torture
@pytest.mark.timeout(0)
async def test_whatever_is_done_to_nodes_and_servers_no_answer_is_wrong(tmp_path: Path, seed: int) -> None:
    until, run = time.monotonic() + float(os.environ.get("CLUSTER_SECONDS", "300")), 0
    async with installation(tmp_path, seed) as there:
        while time.monotonic() < until:
            run += 1
            await one_run(there, seed, run, min(RUN_S, until - time.monotonic()))
    print(total())


async def one_run(there: Site, seed: int, run: int, seconds: float) -> None:
    """Agents that are new, hurt for a while, and judged."""
    random, began = Random(f"{seed} {run}"), time.monotonic()
    load: Traffic | None = None
    try:
        async with traffic(there.cluster, seed=seed, clients=CLIENTS, keys=KEYS, pause_s=0.0, prefix=f"r{run}.") as load:
            torturer = Torturer(there, load, random)
            while time.monotonic() - began < seconds:
                await torturer.hurt()
                await asyncio.sleep(random.uniform(0.1, 1.0))
    except BaseException as error:
        if load is not None:
            await asyncio.to_thread(note, seed, run, time.monotonic() - began, load, [], f"broken off: {error!r}")
        raise
    least = int(seconds * LEAST_A_SECOND)
    line = await asyncio.to_thread(lambda: note(seed, run, time.monotonic() - began, load, load.verdicts(operations=least)))
    print(told(line), flush=True)
    load.judge(operations=least)
