"""The clusters that the tests run on: the simulated NATS, which has records and log apart, and one store in memory that has both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from jidosystem import Agent
from jidosystem.backends.memory import MemoryRecords
from jidosystem.core.log import LogApart
from jidosystem.core.records import Records
from jidosystem.testing import ClusterNode, Faults, TestCluster
from tests.distribution.cluster import NodeRecords

Start = Callable[..., TestCluster]


class Cluster(TestCluster):
    """All nodes on one store in memory, which commits events with records."""

    def __init__(self, *names: Any, **options: Any) -> None:
        super().__init__(*names, **options)
        self.records: MemoryRecords | None = None
        self.ways: dict[str, NodeRecords] = {}

    def open_records(self, node: ClusterNode) -> Records:
        if self.records is None:
            self.records = MemoryRecords(self.clock)
        way = self.ways[node.process] = NodeRecords(self.records, Faults(seed=self.draw()), owns=False)
        return way

    def open_log(self, node: ClusterNode) -> LogApart | None:
        return None

    def cut_off(self, name: str, seconds: float, *, old_leader: bool = False) -> None:
        way = self.ways[self.now[name].process]
        way.silent = True
        self.loop.call_later(seconds, setattr, way, "silent", False)

    def kill(self, name: str) -> None:
        way = self.ways[self.now[name].process]
        super().kill(name)
        way.die()

    def heal(self) -> None:
        super().heal()
        for way in self.ways.values():
            way.silent = False


STORES: dict[str, Start] = {"memory": Cluster, "nats": TestCluster}


@asynccontextmanager
async def cluster(*names: str, agents: Iterable[type[Agent]], store: Start = Cluster) -> AsyncIterator[TestCluster]:
    """A cluster whose nodes have joined."""
    async with store(names, agents=agents) as there:
        yield there
