"""Parents and children on different nodes: crashes, restarts, failures, stops and deletions reach each other."""

from __future__ import annotations

from collections import Counter as Counts

import pytest

from jidosystem import Agent, AgentFailed, Supervision, action, field, on_child_failed, on_start
from jidosystem.testing import ClusterNode
from tests.runtime.cluster import Cluster, cluster

pytestmark = pytest.mark.jido


class Trouble(Exception):
    """An error that these tests count as a crash."""


STARTS: Counts[str] = Counts()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    STARTS.clear()


class Child(Agent):
    supervision = Supervision(max_restarts=2, crash_on=(Trouble,))
    value: int = 0

    @on_start
    async def begin(self) -> None:
        STARTS[self.key] += 1

    @action
    async def add(self) -> int:
        self.value += 1
        return self.value

    @action
    async def crash(self) -> None:
        raise Trouble("a leak")


class Looper(Agent):
    """It crashes whenever it starts."""

    supervision = Supervision(max_restarts=2)

    @on_start
    async def begin(self) -> None:
        STARTS[self.key] += 1
        raise Trouble("never")

    @action
    async def add(self) -> int:
        return 1


class Parent(Agent):
    supervision = Supervision(strategy="one_for_all")
    failed: list[str] = field(default_factory=list)

    @on_child_failed
    async def told(self, child: Child, error: AgentFailed) -> None:
        self.failed = [*self.failed, f"{child.key}: {error.cause}"]

    @action
    async def grow(self, name: str) -> str:
        child = self.child(Child, name)
        await child.add()
        return child.key

    @action(readonly=True)
    async def look(self) -> list[str]:
        return self.failed


class Mother(Agent):
    """Without a hook: a child that fails takes it along."""

    @on_start
    async def begin(self) -> None:
        STARTS[self.key] += 1

    @action
    async def grow(self, name: str) -> str:
        child = self.child(Child, name)
        await child.add()
        return child.key


ALL = [Child, Parent, Mother, Looper]
NAMES = [f"c{n}" for n in range(8)]


async def family(there: Cluster, parent: type[Parent | Mother]) -> tuple[ClusterNode, list[str], list[str]]:
    """A parent with children on its node and on others; the parent's node, and the keys of both kinds."""
    a = there.now["a"]
    keys = [await there.at(a, a.agent(parent, "p").grow(name)) for name in NAMES]
    (home,) = there.where(parent, "p")
    near = [key for key in keys if there.where(Child, key) == [home]]
    far = [key for key in keys if key not in near]
    assert near
    assert far
    return there.now[home], near, far


async def crash(there: Cluster, key: str) -> None:
    a = there.now["a"]
    with pytest.raises(Exception, match="leak"):
        await there.at(a, a.agent(Child, key).crash())


async def test_a_crash_on_another_node_restarts_the_siblings_wherever_they_are() -> None:
    async with cluster("a", "b", "c", agents=ALL) as there:
        _home, near, far = await family(there, Parent)
        await crash(there, far[0])
        await there.until(lambda: all(STARTS[key] == 2 for key in near + far), 5)
        await there.pass_time(3)
        assert {STARTS[key] for key in near + far} == {2}
        a = there.now["a"]
        for key in near + far:
            assert await there.at(a, a.agent(Child, key).add()) == 2


async def test_a_parent_is_told_once_of_a_child_that_has_failed_on_another_node() -> None:
    async with cluster("a", "b", "c", agents=ALL) as there:
        _home, _near, far = await family(there, Parent)
        for _ in range(3):
            await crash(there, far[0])
        await there.pass_time(3)
        a = there.now["a"]
        assert await there.at(a, a.agent(Parent, "p").look()) == [f"{far[0]}: Trouble: a leak"]


async def test_a_parent_without_a_hook_crashes_with_its_child_on_another_node() -> None:
    async with cluster("a", "b", "c", agents=ALL) as there:
        _home, _near, far = await family(there, Mother)
        assert STARTS["p"] == 1
        for _ in range(3):
            await crash(there, far[0])
        await there.until(lambda: STARTS["p"] == 2, 5)


async def test_a_parent_that_is_stopped_takes_its_children_along_from_all_nodes() -> None:
    async with cluster("a", "b", "c", agents=ALL) as there:
        home, near, far = await family(there, Parent)
        other = next(node for node in there.now.values() if node is not home)
        await there.at(other, other.agents.stop(other.agent(Parent, "p")))
        assert [key for key in near + far if there.where(Child, key)] == []
        await there.at(other, other.agent(Child, far[0]).add())
        await there.at(other, other.agents.stop(other.agent(Parent, "p")))  # it is passive: its children are in its record
        assert there.where(Child, far[0]) == []


async def test_a_parent_that_is_deleted_takes_its_children_along_from_all_nodes() -> None:
    async with cluster("a", "b", "c", agents=ALL) as there:
        home, near, far = await family(there, Parent)
        other = next(node for node in there.now.values() if node is not home)
        await there.at(other, other.agents.delete(other.agent(Parent, "p")))
        await there.pass_time(3)
        assert await there.at(other, other.agents.list(type=Child)) == []
        for key in near + far:
            assert await there.at(other, other.agent(Child, key).add()) == 1


async def test_an_agent_that_crashes_whenever_it_starts_is_failed_on_all_nodes_and_stays_so() -> None:
    async with cluster("a", "b", "c", agents=ALL) as there:
        a = there.now["a"]
        key = next(f"k{n}" for n in range(50) if not a.belongs_here(Looper, f"k{n}"))
        for node in there.now.values():
            with pytest.raises(AgentFailed, match="never"):
                await there.at(node, node.agent(Looper, key).add())
        assert STARTS[key] == 3
        info = await there.at(a, a.agents.describe(a.agent(Looper, key)))
        assert (info.state, info.cause) == ("failed", "Trouble: never")
        assert info.node is not None
        there.kill(info.node)
        await there.pass_time(10)
        with pytest.raises(AgentFailed, match="never"):
            await there.at(a, a.agent(Looper, key).add())
        assert STARTS[key] == 3
        with pytest.raises(AgentFailed):
            await there.at(a, a.agents.restart(a.agent(Looper, key)))
        assert STARTS[key] == 6
