"""Dead letters on several nodes: one list, wherever they were buried, and one limit."""

from __future__ import annotations

import asyncio

import pytest

from jidosystem import Agent, Event, InvalidArguments, action, on_event
from jidosystem.core.errors import DeadLettersFull
from tests.runtime.cluster import ClusterNode, cluster

pytestmark = pytest.mark.jido


class Picky(Agent):
    """It takes events once it is told to."""

    takes: bool = False
    taken: int = 0

    @on_event("number.told", key="data.key", max_attempts=1)
    async def count(self, event: Event) -> None:
        if not self.takes:
            raise ValueError("not yet")
        self.taken += event.data["number"]

    @action
    async def open(self) -> None:
        self.takes = True

    @action(readonly=True)
    async def get(self) -> int:
        return self.taken


async def bury(node: ClusterNode, number: int) -> str:
    letters = node.dead_letters
    return await letters.bury("event", "durable/x", None, {}, series="s", number=number, attempts=1, error=ValueError("no"))


async def test_letters_of_all_nodes_are_listed_redriven_and_cleared_from_any() -> None:
    async with cluster("a", "b", "c", agents=[Picky]) as there:
        nodes = list(there.now.values())
        keys = [f"k{n}" for n in range(6)]
        for number, key in enumerate(keys, 1):
            node = nodes[number % 3]
            await there.at(node, node.events.publish("number.told", {"key": key, "number": number}))
        await there.pass_time(5)
        for key in keys:
            await there.at(nodes[0], nodes[0].agent(Picky, key).open())
        for node, first, last in ((nodes[0], 0, 2), (nodes[1], 2, 4), (nodes[2], 4, 5)):
            listed = await there.at(node, node.dead_letters.list("event"))
            assert [letter.agent for letter in listed] == [f"Picky/{key}" for key in keys[first:]]
            await there.at(node, node.dead_letters.redrive(*(letter.id for letter in listed[: last - first])))
        for number, key in enumerate(keys[:5], 1):
            assert await there.at(nodes[1], nodes[1].agent(Picky, key).get()) == number
        assert await there.at(nodes[1], nodes[1].dead_letters.clear()) == 1
        assert await there.at(nodes[2], nodes[2].dead_letters.list()) == []


async def test_a_letter_of_a_named_subscription_is_redriven_by_the_node_that_runs_it_and_told_if_none_does() -> None:
    async with cluster("a", "b", "c", agents=[Picky]) as there:
        seen: list[int] = []
        failing = True

        async def handle(event: Event) -> None:
            if failing:
                raise ValueError("not yet")
            seen.append(event.data)

        a, b, c = there.now.values()
        subscriptions = [await there.at(node, node.events.subscribe("n", handle, durable="x", max_attempts=1)) for node in (a, b)]
        await there.at(c, c.events.publish("n", 7))
        await there.pass_time(5)
        (letter,) = await there.at(c, c.dead_letters.list())
        for node in (a, b, c):
            with pytest.raises(Exception, match="not yet"):
                await there.at(node, node.dead_letters.redrive(letter.id))
        failing = False
        await there.at(c, c.dead_letters.redrive(letter.id))
        assert seen == [7]
        assert await there.at(a, a.dead_letters.list()) == []
        failing = True
        await there.at(c, c.events.publish("n", 8))
        await there.pass_time(5)
        (letter,) = await there.at(c, c.dead_letters.list())
        for node, subscription in zip((a, b), subscriptions, strict=True):
            await there.at(node, subscription.close())
        with pytest.raises(InvalidArguments, match="nobody takes"):
            await there.at(c, c.dead_letters.redrive(letter.id))


async def test_the_same_letter_buried_by_all_nodes_at_once_is_stored_once() -> None:
    async with cluster("a", "b", "c", agents=[Picky]) as there:
        ids = await asyncio.gather(*(there.at(node, bury(node, number)) for number in range(20) for node in there.now.values()))
        assert len(set(ids)) == 20
        a = there.now["a"]
        assert {letter.id for letter in await there.at(a, a.dead_letters.list())} == set(ids)


async def test_the_limit_holds_although_all_nodes_bury_at_once_and_who_was_told_that_it_is_stored_finds_it() -> None:
    async with cluster("a", "b", "c", agents=[Picky]) as there:
        for node in there.now.values():
            node.dead_letters._limit = 10
        for _ in range(5):
            tries = [there.at(node, bury(node, number)) for number in range(10) for node in there.now.values()]
            tries += [there.at(node, bury(node, 100 * n + number)) for n, node in enumerate(there.now.values(), 1) for number in range(10)]
            told = await asyncio.gather(*tries, return_exceptions=True)
            assert all(isinstance(one, str | DeadLettersFull) for one in told)
            a = there.now["a"]
            stored = {letter.id for letter in await there.at(a, a.dead_letters.list())}
            assert len(stored) <= 10
            assert {one for one in told if isinstance(one, str)} <= stored
        c = there.now["c"]
        await there.at(c, c.dead_letters.clear())
        assert await there.at(a, bury(a, 1_000))
