"""Several nodes on one store and one wire: agents are found, called, claimed and taken over wherever they are."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from jidosystem import Agent, Event, OutcomeUnknown, action, migrate_state, on_event, on_terminate
from jidosystem.core.errors import CallTimeout, NoHost
from jidosystem.runtime.ownership import NEW_IN_A_ROW
from jidosystem.runtime.recovery import WAKES_AT_ONCE
from jidosystem.runtime.status import Status
from jidosystem.testing import ClusterNode, TestCluster
from tests.runtime.cluster import STORES, Start, cluster

pytestmark = [pytest.mark.jido, pytest.mark.parametrize("store", STORES.values(), ids=STORES)]


class Counter(Agent):
    value: int = 0

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        self.emit("counter.added", {"key": self.key, "amount": amount})
        return self.value

    @action(readonly=True)
    async def get(self) -> int:
        return self.value

    @action
    async def pass_on(self, to: str, amount: int) -> int:
        return await self.agent(Counter, to).add(amount)

    @action
    async def cast_on(self, to: str, amount: int) -> None:
        self.cast(self.agent(Counter, to).add, amount)

    @action
    async def ring(self, after: float) -> None:
        self.remind("rung", after=after, action=self.add, args={"amount": 100})


class Tally(Agent):
    total: int = 0

    @on_event("counter.*", key="data.key")
    async def count(self, event: Event) -> None:
        self.total += event.data["amount"]

    @action(readonly=True)
    async def get(self) -> int:
        return self.total


class Resident(Agent, resident=True):
    made: bool = False

    @action
    async def make(self) -> None:
        self.made = True


class Slow(Agent):
    value: int = 0

    @action
    async def add(self) -> int:
        await asyncio.sleep(20)
        self.value += 1
        return self.value

    @action(readonly=True)
    async def look(self) -> int:
        await asyncio.sleep(5)
        return self.value


ALL = [Counter, Tally, Resident, Slow]
KEYS = [f"k{n}" for n in range(20)]


def elsewhere(node: ClusterNode, cls: type[Agent]) -> str:
    """A key whose agent belongs on another node."""
    return next(key for key in KEYS if not node.belongs_here(cls, key))


async def is_soon(there: TestCluster, node: ClusterNode, cls: type[Any], key: str, value: int) -> None:
    for _ in range(100):
        if await there.at(node, node.agent(cls, key).get()) == value:
            return
        await there.pass_time(0.1)
    assert await there.at(node, node.agent(cls, key).get()) == value


async def test_an_agent_is_the_same_from_every_node_and_lives_on_one(store: Start) -> None:
    async with cluster("a", "b", "c", agents=ALL, store=store) as there:
        for node in there.now.values():
            for key in KEYS:
                await there.at(node, node.agent(Counter, key).add(1))
        for key in KEYS:
            a = there.now["a"]
            assert await there.at(a, a.agent(Counter, key).get()) == 3
            assert len(there.where(Counter, key)) == 1
        assert {name for key in KEYS for name in there.where(Counter, key)} == {"a", "b", "c"}


async def test_calls_casts_and_events_between_agents_cross_nodes(store: Start) -> None:
    async with cluster("a", "b", agents=ALL, store=store) as there:
        a, b = there.now["a"], there.now["b"]
        for key, to in pairwise(KEYS):
            assert await there.at(a, a.agent(Counter, key).pass_on(to, 10)) >= 10
            await there.at(b, b.agent(Counter, key).cast_on(to, 1))
            await there.at(b, b.cast(b.agent(Counter, to).add, 5))
            await there.at(b, b.cast(b.agent(Counter, to).add, 7, durable=True))
        for to in KEYS[1:]:
            await is_soon(there, b, Counter, to, 23)
            await is_soon(there, a, Tally, to, 23)


async def test_reminders_ring_on_the_node_of_their_agent(store: Start) -> None:
    async with cluster("a", "b", agents=ALL, store=store) as there:
        a, b = there.now["a"], there.now["b"]
        for key in KEYS:
            await there.at(a, a.agent(Counter, key).ring(1))
        for key in KEYS:
            await is_soon(there, b, Counter, key, 100)


async def test_agents_of_a_node_that_is_gone_are_taken_over_with_what_they_owe(store: Start) -> None:
    async with cluster("a", "b", "c", agents=ALL, store=store) as there:
        a = there.now["a"]
        for key in KEYS:
            await there.at(a, a.agent(Counter, key).add(1))
            await there.at(a, a.agent(Resident, key).make())
            await there.at(a, a.agent(Counter, key).ring(10))
        theirs = [key for key in KEYS if there.where(Resident, key) == ["b"]]
        there.kill("b")
        for key in KEYS:
            assert await there.at(a, a.agent(Counter, key).add(1)) == 2
        await there.until(lambda: all(there.where(Resident, key) for key in theirs), 5)
        for key in KEYS:
            await is_soon(there, a, Counter, key, 102)
            await is_soon(there, a, Tally, key, 102)


async def test_a_call_that_was_in_its_turn_on_a_node_that_goes_is_told_as_soon_as_that_is_known(store: Start) -> None:
    async with cluster("a", "b", agents=ALL, store=store) as there:
        a, b = there.now["a"], there.now["b"]
        key = elsewhere(a, Slow)
        plain = there.at(a, a.agent(Slow, key).add())
        await there.until(lambda: key in b.alive(Slow) and b.alive(Slow)[key].writer is not None)
        there.kill("b")
        began = there.loop.time()
        with pytest.raises(OutcomeUnknown):
            await plain
        assert 2 < there.loop.time() - began < 5, "not before the node is known to be gone, and not at the call's deadline"


async def test_calls_that_only_read_or_have_a_key_go_on_elsewhere_when_their_node_goes(store: Start) -> None:
    async with cluster("a", "b", agents=ALL, store=store) as there:
        a, b = there.now["a"], there.now["b"]
        key = elsewhere(a, Slow)
        reading = there.at(a, a.agent(Slow, key).look())
        await there.until(lambda: key in b.alive(Slow) and b.alive(Slow)[key].readers)
        keyed = there.at(a, a.call(a.agent(Slow, key).add, idempotency_key="once", timeout=60))
        await there.pass_time(0.5)
        there.kill("b")
        assert await reading in (0, 1), "before or after the other"
        assert await keyed == 1


async def test_a_node_that_leaves_in_order_fails_no_call(store: Start) -> None:
    async with cluster("a", "b", agents=ALL, store=store) as there:
        a = there.now["a"]
        stop = False

        async def callers(key: str) -> int:
            calls = 0
            while not stop:
                await a.agent(Counter, key).add(1)
                calls += 1
                await asyncio.sleep(0.01)
            return calls

        running = [there.at(a, callers(key)) for key in KEYS]
        await there.pass_time(1)
        await there.leave("b")
        await there.pass_time(1)
        stop = True
        for key, task in zip(KEYS, running, strict=True):
            assert await there.at(a, a.agent(Counter, key).get()) == await task


async def test_a_node_without_its_lease_answers_nothing_old_and_lets_go_of_its_agents(store: Start) -> None:
    async with cluster("a", "b", agents=ALL, store=store) as there:
        a, b = there.now["a"], there.now["b"]
        key = elsewhere(a, Counter)
        await there.at(a, a.agent(Counter, key).add(1))
        there.cut_off("b", 60)  # the store is out of its reach, the wire isn't
        await there.until(lambda: not b.serves())
        reading = there.at(b, b.agent(Counter, key).get())
        assert await there.at(a, a.agent(Counter, key).add(1)) == 2, "it hadn't begun, so it goes to whoever takes the agent over"
        assert there.where(Counter, key)[0] == "a"
        assert not reading.done()
        there.heal()
        assert await reading == 2
        await there.until(b.serves, 10)
        assert there.where(Counter, key) == ["a"]


async def test_a_node_that_stood_still_for_long_answers_nothing_old_and_joins_again(store: Start) -> None:
    async with cluster("a", "b", agents=ALL, store=store) as there:
        a, b = there.now["a"], there.now["b"]
        key = elsewhere(a, Counter)
        await there.at(a, a.agent(Counter, key).add(1))
        there.nodes.pause("b")
        reading = there.at(b, b.agent(Counter, key).get())
        await there.pass_time(10)
        for _ in range(3):
            await there.at(a, a.agent(Counter, key).add(1))
        there.nodes.resume("b")
        assert await reading == 4
        assert there.where(Counter, key) == ["a"]
        await there.until(b.serves, 10)


async def test_a_commit_that_was_under_way_when_its_node_stood_still_comes_too_late(store: Start) -> None:
    async with cluster("a", "b", agents=ALL, store=store) as there:
        a, b = there.now["a"], there.now["b"]
        key = elsewhere(a, Slow)
        adding = there.at(b, b.agent(Slow, key).add())
        await there.until(lambda: key in b.alive(Slow) and b.alive(Slow)[key].writer is not None)
        there.nodes.pause("b")
        await there.pass_time(10)
        assert await there.at(a, a.agent(Slow, key).look()) == 0
        there.nodes.resume("b")
        with pytest.raises(Exception, match=r"rolled back|written by somebody else|lost its lease"):
            await adding
        assert await there.at(a, a.agent(Slow, key).look()) == 0


async def test_what_is_done_to_agents_is_done_where_they_are(store: Start) -> None:
    async with cluster("a", "b", agents=ALL, store=store) as there:
        a, b = there.now["a"], there.now["b"]
        for key in KEYS:
            here, beyond = a.agent(Counter, key), b.agent(Counter, key)
            await there.at(a, here.add(3))
            info = await there.at(b, b.agents.describe(beyond))
            assert (info.state, info.fields, info.node) == ("live", {"value": 3}, there.where(Counter, key)[0])
            await there.at(b, b.agents.stop(beyond))
            assert there.where(Counter, key) == []
            await there.at(a, a.agents.start(Counter, key))
            await there.at(b, b.agents.pause(beyond))
            assert (await there.at(a, a.agents.describe(here))).state == "paused"
            await there.at(b, b.agents.resume(beyond))
            assert await there.at(a, here.get()) == 3
            await there.at(b, b.agents.restart(beyond))
            await there.at(b, b.agents.delete(beyond))
            assert await there.at(a, here.get()) == 0


async def test_idempotency_keys_hold_across_nodes(store: Start) -> None:
    async with cluster("a", "b", "c", agents=ALL, store=store) as there:
        for key in KEYS:
            calls = [
                there.at(node, node.call(node.agent(Counter, key).add, 1, idempotency_key="once")) for node in there.now.values() for _ in range(3)
            ]
            assert await asyncio.gather(*calls) == [1] * 9


class Held(Agent):
    """Counts its ends."""

    value: int = 0
    ends: int = 0

    @action
    async def add(self) -> int:
        await asyncio.sleep(0.05)
        self.value += 1
        return self.value

    @action(readonly=True)
    async def get(self) -> int:
        return self.value

    @on_terminate
    async def bye(self) -> None:
        self.ends += 1

    @action(readonly=True)
    async def ended(self) -> int:
        return self.ends


async def calls_all_the_while(node: ClusterNode, stop: asyncio.Event) -> dict[str, int]:
    """Adds to every agent, one call after another; how many were answered. Any that fails fails the test."""
    answered = dict.fromkeys(KEYS, 0)

    async def caller(key: str) -> None:
        while not stop.is_set():
            assert await node.agent(Held, key).add() == answered[key] + 1
            answered[key] += 1

    await asyncio.gather(*(caller(key) for key in KEYS))
    return answered


async def test_nodes_are_restarted_one_after_another_under_load_and_no_call_fails(store: Start) -> None:
    async with cluster("a", "b", "c", "d", agents=[*ALL, Held], store=store) as there:
        d, stop = there.now["d"], asyncio.Event()
        for key in KEYS:
            await there.at(d, d.agent(Resident, key).make())
        calling = there.at(d, calls_all_the_while(d, stop))
        for name in ("a", "b", "c"):
            await there.pass_time(3)
            assert any(there.where(Held, key) == [name] for key in KEYS)
            await there.leave(name)
            await there.until(lambda: all(there.where(Resident, key) for key in KEYS), 0.5)  # who is to live uncalled lives at once where it went
            await there.pass_time(1)
            await there.start(name)
        await there.pass_time(5)
        stop.set()
        answered = await calling
        for key in KEYS:
            assert await there.at(d, d.agent(Held, key).get()) == answered[key]


async def test_idle_agents_go_to_a_node_that_has_come(store: Start) -> None:
    async with cluster("a", "b", agents=[*ALL, Held], store=store) as there:
        a = there.now["a"]
        for key in KEYS:
            await there.at(a, a.agent(Held, key).add())
            await there.at(a, a.agent(Resident, key).make())
        busy = there.at(a, a.agent(Slow, "k0").add())
        (c,) = await there.start("c")
        theirs = [key for key in KEYS if c.belongs_here(Held, key)]
        assert theirs
        await there.until(lambda: all(there.where(Held, key) in ([], ["c"]) for key in theirs), 10)
        await there.until(lambda: all(there.where(Resident, key) == ["c"] for key in KEYS if c.belongs_here(Resident, key)), 10)
        for key in theirs:
            assert await there.at(a, a.agent(Held, key).get()) == 1
            assert await there.at(a, a.agent(Held, key).ended()) == 1
            assert there.where(Held, key) == ["c"]
        assert await busy == 1


async def test_a_node_that_drains_has_no_agent_any_more_and_goes_on_calling(store: Start) -> None:
    async with cluster("a", "b", agents=[*ALL, Held], store=store) as there:
        a, b = there.now["a"], there.now["b"]
        for key in KEYS:
            await there.at(a, a.agent(Held, key).add())
        slow = there.at(b, b.agent(Slow, elsewhere(a, Slow)).add())
        await there.pass_time(1)
        await there.at(b, b._node.ownership.cluster.drain())
        assert await slow == 1, "what runs ends first"
        assert not b.alive(Held)
        for key in KEYS:
            assert await there.at(b, b.agent(Held, key).add()) == 2
            assert there.where(Held, key) == ["a"]


async def test_a_passive_agent_whose_place_is_elsewhere_by_now_is_found_by_the_node_that_has_its_claim(store: Start) -> None:
    async with cluster("a", agents=ALL, store=store) as there:
        (a,) = there.now.values()
        for key in KEYS:
            await there.at(a, a.agent(Counter, key).add())
            await there.at(a, a.agents.stop(a.agent(Counter, key)))
        (b,) = await there.start("b")
        await there.pass_time(10)
        assert any(b.belongs_here(Counter, key) for key in KEYS)
        for key in KEYS:
            assert await there.at(a, a.call(a.agent(Counter, key).add, timeout=2)) == 2
            assert await there.at(b, b.call(b.agent(Counter, key).add, timeout=2)) == 3


async def test_agents_are_claimed_unread_after_many_new_ones_and_one_that_is_stored_keeps_its_state(
    store: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster("a", "b", agents=ALL, store=store) as there:
        a, b = there.now["a"], there.now["b"]
        for key in KEYS:
            await there.at(b, b.agent(Counter, key).add(7))
            await there.at(b, b.agents.stop(b.agent(Counter, key)))
        read: list[str] = []
        for node in (a, b):
            records = node._node.records
            monkeypatch.setattr(records, "read", lambda agent, records=records: read.append(agent) or type(records).read(records, agent))
        await asyncio.gather(*(there.at(a, a.agent(Counter, f"new{number}").add()) for number in range(4 * NEW_IN_A_ROW)))
        for number in range(6 * NEW_IN_A_ROW):
            assert await there.at(a, a.agent(Counter, f"newer{number}").add()) == 1
        assert sum("/newer" in agent for agent in read) == 0
        for key in KEYS:
            assert await there.at(a, a.agent(Counter, key).add()) == 8


class Grown(Agent, name="Counted"):
    value: int = 0

    @action
    async def add(self) -> int:
        self.value += 1
        return self.value


class GrownLater(Agent, name="Counted", version=2):
    value: int = 0
    label: str = "new"

    @staticmethod
    @migrate_state(from_version=1)
    def grow(state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "label": "old"}

    @action
    async def add(self) -> int:
        self.value += 1
        return self.value


async def test_what_newer_code_has_written_is_opened_where_that_code_is(store: Start) -> None:
    async with cluster(agents=[], store=store) as there:
        (old,) = await there.start("old", agents=[Grown])
        for key in KEYS:
            assert await there.at(old, old.agent(Grown, key).add()) == 1
        (new,) = await there.start("new", agents=[GrownLater])
        for key in KEYS:
            while await there.at(new, new.agent(GrownLater, key).add()) < 4:
                await there.pass_time(1)
            await there.at(new, new.agents.stop(new.agent(GrownLater, key)))
        written = [key for key in KEYS if (await there.at(new, new.agents.describe(new.agent(GrownLater, key)))).version == 2]
        assert written, "idle agents have gone to the new node, and were migrated there"
        for key in KEYS:
            assert await there.at(old, old.agent(Grown, key).add()) == 5
        await there.leave("new")
        for key in written:
            with pytest.raises(NoHost, match="version 2"):
                await there.at(old, old.agent(Grown, key).add())


class Lingering(Held):
    """Takes a while to go."""

    @on_terminate
    async def bye(self) -> None:
        await asyncio.sleep(1)


async def test_agents_that_are_going_when_yet_another_node_comes_have_gone_soon(store: Start) -> None:
    async with cluster("a", "b", agents=[*ALL, Lingering], store=store) as there:
        a = there.now["a"]
        for key in KEYS:
            await there.at(a, a.agent(Lingering, key).add())
        await there.start("c")
        await there.until(lambda: any(agent.status is Status.LEAVING for node in (a, there.now["b"]) for agent in node.alive(Lingering).values()))
        await there.start("d")
        for key in KEYS:
            assert await there.at(a, a.agent(Lingering, key).add()) == 2


async def test_what_is_owed_by_an_agent_in_no_memory_is_done_although_it_belongs_elsewhere_by_now(store: Start) -> None:
    async with cluster("a", "b", agents=ALL, store=store) as there:
        a = there.now["a"]
        for key in KEYS:
            await there.at(a, a.agent(Resident, key).make())
            await there.at(a, a.agents.stop(a.agent(Resident, key)))
        await there.start("c")
        await there.until(lambda: all(there.where(Resident, key) for key in KEYS), 5)


async def test_a_delivery_whose_answer_is_lost_is_made_again_and_counts_once(store: Start) -> None:
    async with cluster("a", "b", agents=ALL, store=store) as there:
        a, b = there.now["a"], there.now["b"]
        here = next(key for key in KEYS if a.belongs_here(Counter, key))
        there.cut("b", "a", both=False)
        await there.at(a, a.agent(Counter, here).cast_on(elsewhere(a, Counter), 5))
        await there.pass_time(0.5)
        there.heal()
        await is_soon(there, b, Counter, elsewhere(a, Counter), 5)
        await there.until(lambda: not a.alive(Counter)[here].extra.outbox.count, 60)
        await there.pass_time(40)
        assert await there.at(b, b.agent(Counter, elsewhere(a, Counter)).get()) == 5


async def test_a_node_that_still_joins_claims_agents_for_the_life_whose_lease_it_has(store: Start) -> None:
    async with cluster("a", "b", agents=ALL, store=store) as there:
        joining = there.begin("c")
        await there.until(joining.serves)
        cluster_of_it = joining._node.ownership.cluster
        assert joining._node.owner == ("c", cluster_of_it.membership.incarnation)
        await there.until(joining.ready.is_set)


async def test_residents_of_a_node_that_is_gone_are_claimed_some_at_a_time(store: Start) -> None:
    many = [f"r{number}" for number in range(3 * WAKES_AT_ONCE)]
    async with cluster("a", "b", agents=ALL, store=store) as there:
        a = there.now["a"]
        await asyncio.gather(*(there.at(a, a.agent(Resident, key).make()) for key in many))
        theirs = [key for key in many if there.where(Resident, key) == ["b"]]
        assert len(theirs) > WAKES_AT_ONCE
        there.kill("b")
        most = 0
        while not all(there.where(Resident, key) for key in theirs):
            most = max(most, sum(activation.status is Status.LOADING for activation in a.alive(Resident).values()))
            await there.loop.moved()
        assert most <= WAKES_AT_ONCE
        assert most > 0 or store is STORES["memory"], "where a claim takes no time none is seen"


async def test_an_agent_whose_caller_gave_up_while_the_lease_was_over_is_idle_when_it_is_renewed(store: Start) -> None:
    async with cluster("a", agents=[Counter], store=store) as there:
        node = there.now["a"]
        await there.at(node, node.agent(Counter, "x").add())
        there.cut_off("a", 6.0)
        await there.until(lambda: not node.serves())
        with pytest.raises(CallTimeout):
            await there.at(node, node.call(node.agent(Counter, "x").add, timeout=1.0))
        await there.until(node.serves)
        await there.at_rest(5.0)
        assert await there.at(node, node.agent(Counter, "x").get()) == 1
