"""Platforms of several nodes on one loop of virtual time, one store and one wire, and what can happen to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from jidosystem import Agent, Platform
from jidosystem.backends.memory import MemoryRecords, MemoryWire
from jidosystem.core.config import Config
from jidosystem.core.ids import Ids
from jidosystem.core.records import Records
from jidosystem.core.wire import Wire
from jidosystem.testing import Faults, FaultyWire, VirtualLoop
from jidosystem.testing.nodes import Nodes, NodeWire
from jidosystem.testing.platform import VirtualClock
from tests.distribution.cluster import NodeRecords

T = TypeVar("T")


class ClusterNode(Platform):
    """One node's platform."""

    def __init__(self, cluster: Cluster, name: str, process: str, agents: Iterable[type[Agent]], **options: Any) -> None:
        super().__init__(agents=agents, name=name, clock=VirtualClock(cluster.loop, 1_800_000_000.0), **options)
        self.process = process
        self.faults = Faults(seed=len(cluster.ever))
        self.records = NodeRecords(cluster.records, self.faults, owns=False)
        self.wire = NodeWire(FaultyWire(cluster.wire, self.faults), cluster.nodes, process)
        self._lease_clock = cluster.loop.time
        self.leaving = asyncio.Event()
        self.ready = asyncio.Event()
        self.life: asyncio.Task[None]

    def _new_ids(self) -> Ids:
        return Ids(self.process)

    async def _open_records(self, config: Config) -> Records:
        return self.records

    async def _open_wire(self) -> Wire | None:
        return self.wire

    async def live(self) -> None:
        async with self:
            self.ready.set()
            await self.leaving.wait()

    def alive(self, cls: type[Agent]) -> dict[str, Any]:
        return self._node.hosts[cls.__name__].live

    def belongs_here(self, cls: type[Agent], key: str) -> bool:
        return self._node.router.elsewhere(self._node.host_of(cls), key) is None

    def serves(self) -> bool:
        return self._node.ownership.cluster.may_serve()


class Cluster:
    """Nodes by name: those that are there now. `ever`: all that there were."""

    def __init__(self, loop: VirtualLoop, agents: Iterable[type[Agent]]) -> None:
        self.loop, self.agents = loop, list(agents)
        self.nodes = Nodes(loop)
        self.records, self.wire = MemoryRecords(VirtualClock(loop, 1_800_000_000.0)), MemoryWire()
        self.now: dict[str, ClusterNode] = {}
        self.ever: list[ClusterNode] = []

    async def start(self, *names: str, agents: Iterable[type[Agent]] | None = None, **options: Any) -> list[ClusterNode]:
        started: list[ClusterNode] = []
        for name in names:
            again = sum(node.name == name for node in self.ever)
            node = ClusterNode(self, name, f"{name}#{again}" if again else name, self.agents if agents is None else list(agents), **options)
            self.ever.append(node)
            node.life = self.nodes.start(node.process, node.live())
            ready = asyncio.ensure_future(node.ready.wait())
            await asyncio.wait([ready, node.life], return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            if node.life.done():
                await node.life
            self.now[name] = node
            started.append(node)
        await self.pass_time(0.1)
        return started

    def at(self, node: ClusterNode, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do something on behalf of a node."""
        return self.nodes.start(node.process, work)

    async def leave(self, name: str) -> None:
        """In order."""
        node = self.now.pop(name)
        node.leaving.set()
        await node.life

    def kill(self, name: str) -> None:
        """It is gone: it runs nothing, serves nothing, writes nothing."""
        node = self.now.pop(name)
        self.nodes.pause(node.process)
        node.records.die()
        node.wire.die()

    def where(self, cls: type[Agent], key: str) -> list[str]:
        return [name for name, node in self.now.items() if key in node.alive(cls)]

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.loop.idle()

    async def until(self, what: Callable[[], Any], within_s: float = 60.0) -> float:
        """Let time pass until something is so; how long that took."""
        began = self.loop.time()
        await self.loop.idle()
        while not what():
            if self.loop.time() - began > within_s:
                raise AssertionError(f"not within {within_s:g} s")
            await self.loop.moved()
            await self.loop.idle()
        return self.loop.time() - began

    async def end(self) -> None:
        self.nodes.end()
        for node in self.now.values():
            node.records.silent, node.records.stale = False, None
            node.faults.stop()
            node.leaving.set()
        await asyncio.gather(*(node.life for node in self.now.values()))
        dead = [node.life for node in self.ever if not node.life.done()]
        for life in dead:
            life.cancel()


@asynccontextmanager
async def cluster(*names: str, agents: Iterable[type[Agent]]) -> AsyncIterator[Cluster]:
    """A cluster whose nodes have joined."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    there = Cluster(loop, agents)
    try:
        await there.start(*names)
        yield there
    finally:
        await there.end()
