"""An agent whose turn ends its process: after a few nodes it is failed, and the cluster goes on."""

from __future__ import annotations

import asyncio
from collections import Counter as Counts

import pytest

from jidosystem import Agent, AgentFailed, action, on_start
from jidosystem.core.records import Record
from jidosystem.distribution.members import Member, View
from jidosystem.runtime.head import Owner, Trial, decode_head
from jidosystem.runtime.trials import MAX_DEATHS, WINDOW_S, judged
from jidosystem.testing import ClusterNode, TestCluster
from tests.runtime.cluster import cluster

pytestmark = pytest.mark.jido
ME, OTHER = Owner("a", 7), Owner("b", 3)
RUNS: Counts[str] = Counts()
THERE: list[TestCluster] = []


class Poison(Agent):
    """Kills the node that runs it, as a segfault does."""

    value: int = 0

    @action
    async def drink(self) -> int:
        RUNS[self.key] += 1
        (there,) = THERE
        (name,) = there.where(Poison, self.key)
        there.kill(name)
        there.nodes.start("ambulance", _again(there, name))
        await asyncio.sleep(3600)
        return 0

    @action
    async def add(self) -> int:
        self.value += 1
        return self.value

    @action(readonly=True)
    async def look(self) -> int:
        return self.value


async def _again(there: TestCluster, name: str) -> None:
    await asyncio.sleep(1)
    there.begin(name)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    RUNS.clear()
    THERE.clear()


# -- the decision --------------------------------------------------------------------------------------------------


def view_of(*members: Member) -> View:
    return View(nodes={member.name: member for member in members})


DEAD = view_of(Member("b", 3, void=True))
C, D = Owner("c", 9), Owner("d", 10)


def test_what_was_handed_over_in_order_is_on_no_trial() -> None:
    assert judged(None, None, ME, 0.0, DEAD, runs=True) is None
    assert judged(Trial(0.0, (OTHER,), on=True), None, ME, 1.0, DEAD, runs=True) is None


def test_a_node_that_dies_counts_only_if_the_agent_was_on_trial() -> None:
    first = judged(None, OTHER, ME, 0.0, DEAD, runs=True)
    assert first == Trial(0.0, (), on=True)
    second = judged(first, C, ME, 5.0, DEAD, runs=True)
    assert second == Trial(5.0, (C,), on=True)
    assert judged(second, D, ME, 9.0, DEAD, runs=False) == Trial(9.0, (C, D), on=False)
    assert judged(Trial(5.0, (C,), on=False), OTHER, ME, 9.0, DEAD, runs=True) == Trial(9.0, (C,), on=True)
    assert judged(None, OTHER, ME, 0.0, DEAD, runs=False) is None


def test_deaths_that_are_far_apart_do_not_add_up() -> None:
    before = Trial(0.0, (C,), on=True)
    assert judged(before, OTHER, ME, WINDOW_S + 1, DEAD, runs=True) == Trial(WINDOW_S + 1, (OTHER,), on=True)


def test_a_node_that_left_in_order_or_lost_its_lease_and_is_back_did_not_die() -> None:
    before = Trial(0.0, (C,), on=True)
    left = Member("b", 3, void=True, draining=True)
    for back, dead in (
        (left, (C,)),
        (Member("b", 12, began=3), (C,)),
        (Member("b", 12, began=12), (C, OTHER)),
        (Member("b", 12, began=3, void=True), (C, OTHER)),
    ):
        assert judged(before, OTHER, ME, 5.0, view_of(back), runs=True) == Trial(5.0, dead, on=True)
    assert judged(before, D, ME, 5.0, view_of(Member("c", 12, began=2), Member("d", 11, began=10)), runs=False) is None


def test_what_is_this_nodes_already_stays_as_it_was() -> None:
    before = Trial(0.0, (C,), on=True)
    assert judged(before, ME, ME, 5.0, DEAD, runs=False) == before._replace(on=False)
    assert judged(None, ME, ME, 5.0, DEAD, runs=True) is None


# -- on a cluster --------------------------------------------------------------------------------------------------


async def calls(there: TestCluster, key: str) -> None:
    """A cast that is repeated until it was taken."""
    a = there.now["a"]
    await there.at(a, a.cast(a.agent(Poison, key).drink, durable=True))


async def trial_of(there: TestCluster, node: ClusterNode, address: str) -> Trial | None:
    """What the claim of an agent says of it."""

    async def read() -> Record | None:
        record: Record | None = await node._records.read(address)
        return record

    record = await there.at(node, read())
    assert record is not None
    assert record.head is not None
    return decode_head(record.head, address).trial


async def test_an_agent_that_takes_its_nodes_along_is_failed_and_others_go_on() -> None:
    async with cluster("a", "b", "c", agents=[Poison], store=TestCluster) as there:
        THERE.append(there)
        keys = [f"k{n}" for n in range(20)]
        for key in keys:
            await there.at(there.now["a"], there.now["a"].agent(Poison, key).add())
        bad = next(key for key in keys if there.where(Poison, key) == ["b"])
        await calls(there, bad)
        await there.pass_time(90)
        assert RUNS[bad] == MAX_DEATHS + 1
        node: ClusterNode = next(iter(there.now.values()))
        with pytest.raises(AgentFailed, match=f"Poison/{bad} has failed: the nodes .* died one after another, each in a turn of it"):
            await there.at(node, node.agent(Poison, bad).add())
        assert ("agent_failed", f"Poison/{bad}") in {(alert.kind, alert.about) for alert in await there.at(node, node.alerts.list())}
        for key in keys:
            if key != bad:
                assert await there.at(node, node.agent(Poison, key).add()) == 2
        assert len(await there.at(node, node.dead_letters.list("cast"))) == 1
        await there.at(node, node.agents.restart(node.agent(Poison, bad)))
        assert await there.at(node, node.agent(Poison, bad).add()) == 2


async def test_agents_of_nodes_that_die_again_and_again_are_not_suspected_for_that() -> None:
    async with cluster("a", "b", "c", agents=[Poison], store=TestCluster) as there:
        a = there.now["a"]
        keys = [f"k{n}" for n in range(20)]
        for number in range(5):
            for key in keys:
                if number == 0:
                    await there.at(a, a.agent(Poison, key).add())
                else:
                    assert await there.at(a, a.agent(Poison, key).look()) == 1
            await there.pass_time(3)
            assert [await trial_of(there, a, f"Poison/{key}") for key in keys] == [None] * len(keys)
            for name in ("b", "c"):
                there.kill(name)
            await there.pass_time(6)
            await there.start("b", "c")
        for key in keys:
            assert await there.at(a, a.agent(Poison, key).add()) == 2


class Starter(Agent, resident=True):
    """Something is to be done whenever it starts."""

    value: int = 0

    @on_start
    async def begin(self) -> None:
        RUNS[self.key] += 1

    @action
    async def add(self) -> int:
        self.value += 1
        return self.value


async def test_an_agent_that_starts_well_is_on_trial_no_more() -> None:
    async with cluster("a", "b", agents=[Starter], store=TestCluster) as there:
        a, b = there.now["a"], there.now["b"]
        key = next(f"k{n}" for n in range(50) if b.belongs_here(Starter, f"k{n}"))
        await there.at(a, a.agent(Starter, key).add())
        there.kill("b")
        await there.until(lambda: key in a.alive(Starter), 10)
        await there.pass_time(0.2)
        assert await trial_of(there, a, f"Starter/{key}") is not None
        await there.pass_time(3)
        assert await trial_of(there, a, f"Starter/{key}") is None
        assert await there.at(a, a.agent(Starter, key).add()) == 2


class Slow(Agent):
    """Is in a turn whenever its node loses the lease."""

    value: int = 0

    @action
    async def add(self) -> int:
        RUNS[self.key] += 1
        await asyncio.sleep(15)
        self.value += 1
        return self.value


async def test_an_agent_whose_nodes_only_lose_their_leases_is_not_failed() -> None:
    async with cluster("a", "b", "c", agents=[Slow], store=TestCluster) as there:
        a = there.now["a"]
        await there.at(a, a.cast(a.agent(Slow, "k").add, durable=True))
        for round_ in range(1, 6):
            await there.until(lambda: RUNS["k"] == round_, 60)  # noqa: B023 - it is waited for here
            (name,) = there.where(Slow, "k")
            there.nodes.pause(name)
            await there.until(lambda: there.where(Slow, "k") not in ([], [name]), 60)  # noqa: B023 - the same
            there.nodes.resume(name)
        await there.pass_time(60)
        assert await there.at(a, a.agent(Slow, "k").add()) == 2
