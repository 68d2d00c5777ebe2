"""Memberships of several nodes on one loop of virtual time, one store and one wire, and what can happen to them."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, TypeVar

from jidosystem.backends.memory import MemoryRecords, MemoryWire
from jidosystem.core.events import Event
from jidosystem.core.ids import Ids
from jidosystem.core.records import Committed, Record, Row
from jidosystem.distribution.leases import LeaseTimes
from jidosystem.distribution.members import Occurrence
from jidosystem.distribution.membership import Membership
from jidosystem.testing import Faults, FaultyRecords, FaultyWire, VirtualLoop
from jidosystem.testing.nodes import Nodes, NodeWire, on_its_way

T = TypeVar("T")
TIMES = LeaseTimes()


class NodeRecords(FaultyRecords):
    """A node's way to the store. What it has sent arrives, whether the node goes on or not; `silent`: nothing arrives and nothing is answered.
    `held`: nothing is answered, and what was to be written arrives when it is over, in an order of its own.

    `stale`: reads are answered with what was stored when it was set, and writes by nobody, as a leader does that was cut off.
    """

    silent = False
    held: list[Callable[[], object]] | None = None
    stale: dict[str, Record] | None = None

    def commit(self, agent: str, expected: int, head: bytes | None, rows: Sequence[Row] = (), events: Sequence[Event] = ()) -> Future[Committed]:
        if self.held is not None:
            self.held.append(lambda: self.inner.commit(agent, expected, head, rows, events).exception())
        if self.silent or self.held is not None or self.stale is not None:
            return asyncio.get_running_loop().create_future()
        return on_its_way(super().commit, agent, expected, head, rows, events)

    def let_go(self, random: Random) -> None:
        """What was held arrives."""
        held, self.held = self.held or [], None
        random.shuffle(held)
        for write in held:
            write()

    def read(self, agent: str) -> Future[Record | None]:
        if self.silent or self.held is not None:
            return asyncio.get_running_loop().create_future()
        if self.stale is not None:
            future: Future[Record | None] = asyncio.get_running_loop().create_future()
            future.set_result(self.stale.get(agent))
            return future
        return on_its_way(super().read, agent)

    async def scan_agents(self, type_name: str, after: str = "") -> AsyncIterator[Sequence[Record]]:
        if self.silent or self.held is not None:
            await asyncio.get_running_loop().create_future()
        if self.stale is not None:
            yield [record for record in self.stale.values() if record.head is not None]
            return
        async for page in super().scan_agents(type_name, after):
            yield page

    async def freeze(self) -> None:
        """Be the leader that was cut off."""
        names = [record.agent async for page in self.inner.scan_agents("jido.node") for record in page]
        self.stale = {name: record for name in names if (record := await self.inner.read(name)) is not None}


class Node:
    """One node: its store, its wire, its membership, and what it was told. A clock that runs at `rate`."""

    def __init__(self, cluster: Cluster, name: str, *, rate: float = 1.0, types: dict[str, int] | None = None) -> None:
        loop = cluster.loop
        self.cluster, self.name, self.rate = cluster, name, rate
        again = sum(node.name == name for node in cluster.ever)
        self.process = f"{name}#{again}" if again else name
        self.faults = Faults(seed=hash((cluster.seed, len(cluster.ever))))
        self.records = NodeRecords(cluster.records, self.faults, owns=False)
        self.wire = NodeWire(FaultyWire(cluster.wire, self.faults), cluster.nodes, self.process)
        self.events: list[Occurrence] = []
        self.lost: list[int] = []
        self.dead = False
        self.membership = Membership(
            self.records, self.wire, name=name, types=types or {"Counter": 1}, on_event=self.events.append, on_lost=self._lost,
            now=lambda: loop.time() * rate, ids=Ids(f"{name}.{len(cluster.ever)}"),
        )  # fmt: skip

    def _lost(self, incarnation: int) -> None:
        self.lost.append(incarnation)
        if self.cluster.when_lost is not None:
            self.cluster.when_lost(self)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something on behalf of the node."""
        return await self.cluster.nodes.start(self.process, work)

    async def join(self, **options: Any) -> int:
        return await self.run(self.membership.join(**options))

    def pause(self) -> None:
        self.cluster.nodes.pause(self.process)

    def resume(self) -> None:
        self.cluster.nodes.resume(self.process)

    def kill(self) -> None:
        """It is gone: it runs nothing, serves nothing, writes nothing."""
        self.dead = True
        self.cluster.nodes.kill(self.process)
        self.records.die()
        self.wire.die()

    @property
    def serves(self) -> bool:
        """Whether it would let an answer leave now."""
        return not self.dead and self.membership.may_serve()

    def state_of(self, name: str) -> str:
        member = self.membership.view.get(name)
        return "unknown" if member is None else member.state.value


class Cluster:
    """Nodes by name: those that are there now. `ever`: all that there were."""

    def __init__(self, loop: VirtualLoop, seed: int = 0) -> None:
        self.loop, self.seed = loop, seed
        self.nodes = Nodes(loop)
        self.records, self.wire = MemoryRecords(), MemoryWire()
        self.now: dict[str, Node] = {}
        self.when_lost: Callable[[Node], object] | None = None
        self.ever: list[Node] = []

    def add(self, name: str, **options: Any) -> Node:
        node = self.now[name] = Node(self, name, **options)
        self.ever.append(node)
        return node

    def living(self) -> list[Node]:
        return [node for node in self.now.values() if not node.dead]

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.loop.idle()

    async def until(self, what: Callable[[], bool], within_s: float) -> float:
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
        for node in self.ever:
            if node.dead:
                continue
            node.records.silent, node.records.stale, node.records.held = False, None, None
            node.faults.stop()
            await node.run(node.membership.close())


@asynccontextmanager
async def cluster(*names: str, seed: int = 0, rates: Sequence[float] = ()) -> AsyncIterator[Cluster]:
    """A cluster whose nodes have joined."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    there = Cluster(loop, seed)
    try:
        for number, name in enumerate(names):
            await there.add(name, rate=rates[number] if rates else 1.0).join()
        await there.pass_time(0.1)
        yield there
    finally:
        await there.end()
