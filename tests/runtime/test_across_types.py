"""Nodes that host different types: what is asked of a node that doesn't host a type is done by one that does."""

from __future__ import annotations

import pytest

from jidosystem import Agent, AgentFailed, Supervision, action, field, on_child_failed
from jidosystem.core.errors import NoHost
from jidosystem.testing import ClusterNode
from tests.runtime.cluster import Cluster, cluster

pytestmark = pytest.mark.jido
KEYS = [f"k{n}" for n in range(12)]


class Trouble(Exception):
    """An error that these tests count as a crash."""


class Box(Agent):
    supervision = Supervision(max_restarts=0, crash_on=(Trouble,))
    taken: list[str] = field(default_factory=list)

    @action
    async def put(self, thing: str) -> int:
        self.taken = [*self.taken, thing]
        return len(self.taken)

    @action(readonly=True)
    async def look(self) -> list[str]:
        return self.taken

    @action
    async def crash(self) -> None:
        raise Trouble("a leak")


class Packer(Agent):
    """Sends to boxes, and has some."""

    failed: list[str] = field(default_factory=list)

    @action
    async def pack(self, key: str, thing: str) -> None:
        self.cast(self.agent(Box, key).put, thing)

    @action
    async def ask(self, key: str, thing: str) -> int:
        return await self.agent(Box, key).put(thing)

    @action
    async def grow(self, name: str) -> str:
        child = self.child(Box, name)
        await child.put("first")
        return child.key

    @on_child_failed
    async def told(self, child: Box, error: AgentFailed) -> None:
        self.failed = [*self.failed, child.key]

    @action(readonly=True)
    async def look(self) -> list[str]:
        return self.failed


class Nobodys(Agent):
    @action
    async def ask(self) -> None: ...


async def mixed(there: Cluster) -> tuple[ClusterNode, ClusterNode]:
    """A node that hosts boxes alone, and one that hosts nothing, beside those that host packers."""
    await there.start("boxes", agents=[Box])
    await there.start("client", agents=[])
    return there.now["boxes"], there.now["client"]


async def test_a_node_that_hosts_nothing_calls_casts_and_looks_and_is_given_no_agent() -> None:
    async with cluster("a", "b", agents=[Box]) as there:
        (client,) = await there.start("client", agents=[])
        for key in KEYS:
            box = client.agent(Box, key)
            assert await there.at(client, box.put("one")) == 1
            await there.at(client, client.cast(box.put, "two", durable=True))
        await there.pass_time(1)
        for key in KEYS:
            box = client.agent(Box, key)
            assert await there.at(client, box.look()) == ["one", "two"]
            assert (await there.at(client, client.agents.describe(box))).node in ("a", "b")
            assert there.where(Box, key) in (["a"], ["b"])
        assert len(await there.at(client, client.agents.list(type=Box))) == len(KEYS)
        await there.at(client, client.agents.stop(client.agent(Box, KEYS[0])))
        assert there.where(Box, KEYS[0]) == []
        there.kill("a")
        for key in KEYS:
            assert await there.at(client, client.agent(Box, key).put("three")) == 3
            assert there.where(Box, key) == ["b"]


async def test_a_type_that_no_node_hosts_is_refused_by_its_name_and_those_of_the_nodes() -> None:
    async with cluster("a", "b", agents=[Box]) as there:
        a = there.now["a"]
        with pytest.raises(NoHost, match=r"no node of the cluster hosts Nobodys: there are a, b"):
            await there.at(a, a.agent(Nobodys, "x").ask())
        await there.start("late", agents=[Nobodys])
        await there.at(a, a.agent(Nobodys, "x").ask())
        assert there.where(Nobodys, "x") == ["late"]


async def test_turns_call_and_cast_to_types_that_their_node_does_not_host() -> None:
    async with cluster("a", "b", agents=[Packer]) as there:
        boxes, client = await mixed(there)
        for key in KEYS:
            packer = client.agent(Packer, key)
            assert await there.at(client, packer.ask(key, "asked")) == 1
            await there.at(client, packer.pack(key, "cast"))
        await there.pass_time(1)
        for key in KEYS:
            assert await there.at(client, client.agent(Box, key).look()) == ["asked", "cast"]
            assert there.where(Box, key) == [boxes.name]


async def test_a_cast_waits_for_a_node_that_hosts_its_receiver_and_goes_there() -> None:
    async with cluster("a", "b", agents=[Packer]) as there:
        a = there.now["a"]
        for key in KEYS:
            await there.at(a, a.agent(Packer, key).pack(key, "cast"))
        there.kill("b")  # those that it had are taken up by a node that has never heard of the type
        await there.pass_time(8)
        (boxes,) = await there.start("boxes", agents=[Box])
        await there.pass_time(5)
        for key in KEYS:
            assert await there.at(boxes, boxes.agent(Box, key).look()) == ["cast"]


async def test_parents_and_children_may_be_of_types_that_different_nodes_host() -> None:
    async with cluster("a", "b", agents=[Packer]) as there:
        _boxes, client = await mixed(there)
        packer = client.agent(Packer, "p")
        first, second = [await there.at(client, packer.grow(name)) for name in ("first", "second")]
        with pytest.raises(Exception, match="leak"):
            await there.at(client, client.agent(Box, first).crash())
        await there.pass_time(2)
        assert await there.at(client, packer.look()) == [first]
        assert there.where(Box, second) == ["boxes"]
        await there.at(client, client.agents.stop(packer))
        assert there.where(Box, second) == []
