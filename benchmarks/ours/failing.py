"""How long a cluster is away when a part of it fails: nodes and servers are processes, killed or ended while others call.

Three NATS servers, replicated and fsynced, and the nodes, all on this machine.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from itertools import count, islice
from statistics import median
from threading import Thread
from time import perf_counter
from typing import Any

from jidosystem import Agent, Platform

from ..measure import Run
from .cluster import Ledger, raw, servers, url_of

PATIENCE_S = 15.0
LOOK_S = 0.02
BETWEEN_S = 3.0
"""How long a cluster is left alone after a node has come, so that agents are where they belong."""


class Sentry(Agent, resident=True):
    """Is always there."""

    value: int = 0


class NodeProcess:
    """A node in a process of its own. `live`: how many sentries it has, as it said last."""

    def __init__(self, url: str, name: str) -> None:
        self.name, self.live = name, 0
        self._process = subprocess.Popen([sys.executable, "-m", "benchmarks.ours.failing", url, name], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError(f"node {name} didn't start")
        Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.live = int(line)

    def end(self, how: signal.Signals) -> None:
        """Send it a signal, and wait until it is gone."""
        self._process.send_signal(how)
        self._process.wait()


@contextmanager
def node(url: str, name: str) -> Iterator[NodeProcess]:
    """One that is gone afterwards."""
    process = NodeProcess(url, name)
    try:
        yield process
    finally:
        process.end(signal.SIGKILL)


@asynccontextmanager
async def caller(url: str, nodes: int) -> AsyncIterator[Platform]:
    """A platform that hosts nothing, once it sees so many nodes that host ledgers."""
    async with Platform(url, agents=[], name="caller") as platform:
        await _see(platform, nodes)
        yield platform


async def _see(platform: Platform, nodes: int) -> None:
    membership = platform._node.router.cluster.membership
    while sum("Ledger" in member.types for member in membership.view.living()) != nodes:
        await membership.wait_changed(membership.view)


def _on(platform: Platform, cls: type[Agent], name: str, prefix: str) -> Iterator[str]:
    """Keys of agents that belong on a node."""
    router, host = platform._node.router, platform._node.host_of(cls)
    for key in (f"{prefix}{number}" for number in count()):
        member = router.elsewhere(host, key)
        if member is not None and member.name == name:
            yield key


# -- workloads -----------------------------------------------------------------------------------------------------


async def kill_node(run: Run) -> None:
    """SIGKILL of a node that has agents: how long until each of them answers."""
    waits: list[float] = []
    with servers(run) as cluster, node(url_of(cluster), "one"), node(url_of(cluster), "two"):
        async with caller(url_of(cluster), 2) as platform:
            for number in range(run.some(8, 1)):
                name = f"victim{number}"
                with node(url_of(cluster), name) as victim:
                    await _see(platform, 3)
                    agents = [platform.agent(Ledger, key) for key in islice(_on(platform, Ledger, name, f"{number}-"), 25)]
                    await asyncio.gather(*(agent.add() for agent in agents))
                    await asyncio.to_thread(victim.end, signal.SIGKILL)
                    waits += await asyncio.gather(*map(_until_answered, agents))
                    await _see(platform, 2)
    waits.sort()
    run.record(median(waits))
    run.record(waits[int(len(waits) * 0.99)], "p99")
    run.note(f"{len(waits)} agents of {run.some(8, 1)} nodes")


async def _until_answered(agent: Ledger) -> float:
    began = perf_counter()
    assert await agent.get() == 1
    return perf_counter() - began


async def kill_residents(run: Run) -> None:
    """SIGKILL of a node with 10,000 agents that are always there: how long until the two others have them."""
    many = run.some(10_000, 200)
    with servers(run) as cluster, ExitStack() as stack:
        url = url_of(cluster)
        victim, *survivors = [stack.enter_context(node(url, name)) for name in ("victim", "one", "two")]
        async with caller(url, 3) as platform:
            keys = _on(platform, Sentry, victim.name, "s")

            async def start() -> None:
                for key in islice(keys, many // 200):
                    await platform.agents.start(Sentry, key)

            await asyncio.gather(*(start() for _ in range(200)))
            await asyncio.to_thread(victim.end, signal.SIGKILL)
            began = perf_counter()
            while sum(one.live for one in survivors) < many:  # noqa: ASYNC110 - other processes say so
                await asyncio.sleep(LOOK_S)
            run.record(perf_counter() - began)


async def kill_leader(run: Run) -> None:
    """SIGKILL of the NATS server that leads the records, while 16 callers write: the longest that one of them waited."""
    with servers(run) as cluster, node(url_of(cluster), "one"), node(url_of(cluster), "two"):
        async with caller(url_of(cluster), 2) as platform:
            nodes = dict(platform._node.router.cluster.membership.view.voided)
            for _ in range(run.some(3, 1)):
                async with raw(cluster) as connection:
                    leader = (await connection.jetstream().stream_info("jido-records-0")).cluster.leader
                server = next(one for one in cluster.servers if one.peer.name == leader)
                load = Load(platform)
                await asyncio.sleep(1.0)
                await asyncio.to_thread(server.kill)
                await asyncio.sleep(12.0)
                run.record(await load.end())
                await asyncio.to_thread(server.start)
                await asyncio.to_thread(server.wait_ready)
                async with raw(cluster) as connection:
                    await _see_copies(connection.jetstream())
            assert dict(platform._node.router.cluster.membership.view.voided) == nodes, "a node was declared dead"


async def _see_copies(jetstream: Any) -> None:
    """Wait until every server has all that it is to hold: without that, the death of another is a second failure."""
    while True:
        replicas = [replica for stream in await jetstream.streams_info() for replica in stream.cluster.replicas]
        if replicas and all(replica.current for replica in replicas):
            break
        await asyncio.sleep(0.5)
    await asyncio.sleep(BETWEEN_S)


async def roll(run: Run) -> None:
    """All nodes are ended in order and started again, one after another, while 16 callers write: the longest that one of them waited."""
    names = ("one", "two", "three")
    with servers(run) as cluster, ExitStack() as stack:
        url = url_of(cluster)
        nodes = {name: NodeProcess(url, name) for name in names}
        stack.callback(lambda: [one.end(signal.SIGKILL) for one in nodes.values()])
        async with caller(url, 3) as platform:
            load = Load(platform)
            for name in names:
                await asyncio.sleep(BETWEEN_S)
                await asyncio.to_thread(nodes[name].end, signal.SIGTERM)
                nodes[name] = await asyncio.to_thread(NodeProcess, url, name)
                await _see(platform, 3)
            await asyncio.sleep(BETWEEN_S)
            run.record(await load.end())
            run.note(f"{load.done} calls, none failed")


class Load:
    """16 callers, each of an agent of its own, one call after another, without keys; a call that fails, is lost or happens twice ends it all."""

    def __init__(self, platform: Platform, callers: int = 16) -> None:
        self._ended, self._longest_s, self.done = False, 0.0, 0
        self._tasks = [asyncio.create_task(self._call(platform, number)) for number in range(callers)]

    async def _call(self, platform: Platform, number: int) -> None:
        agent = platform.agent(Ledger, f"load{number}")
        value = await agent.get()
        while not self._ended:
            began, value = perf_counter(), value + 1
            assert await platform.call(agent.add, timeout=PATIENCE_S) == value
            self._longest_s = max(self._longest_s, perf_counter() - began)
            self.done += 1

    async def end(self) -> float:
        """The longest call, in seconds."""
        self._ended = True
        await asyncio.gather(*self._tasks)
        return self._longest_s


# -- the nodes -----------------------------------------------------------------------------------------------------


async def _be(url: str, name: str) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with Platform(url, agents=[Ledger, Sentry], name=name) as platform:
        print("ready", flush=True)
        live, told = platform._node.host_of(Sentry).live, 0
        while not ended.is_set():
            if len(live) != told:
                told = len(live)
                print(told, flush=True)
            await asyncio.sleep(LOOK_S)


if __name__ == "__main__":
    asyncio.run(_be(*sys.argv[1:]))
