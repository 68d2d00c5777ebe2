"""The event bus on several nodes: what is published anywhere is seen everywhere, and a named subscription runs on one node at a time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from jidosystem import Agent, Event, Subscription
from jidosystem.testing import ClusterNode
from tests.runtime.cluster import Cluster, cluster

pytestmark = pytest.mark.jido


class Nothing(Agent):
    pass


class Seen:
    """What handlers on several nodes were given: (node, stream, number) in order. `busy`: more than one event of a stream was handled at once."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.takes_s = takes_s
        self.all: list[tuple[str, str, int]] = []
        self.busy: set[str] = set()
        self.overlaps = 0

    def on(self, node: str) -> Callable[[Event], Coroutine[Any, Any, None]]:
        async def handle(event: Event) -> None:
            self.overlaps += event.stream in self.busy
            self.busy.add(event.stream)
            if self.takes_s:
                await asyncio.sleep(self.takes_s)
            self.all.append((node, event.stream, event.data))
            self.busy.discard(event.stream)

        return handle

    def by_stream(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        for _node, stream, number in self.all:
            found[stream].append(number)
        return found

    def nodes(self) -> set[str]:
        return {node for node, _stream, _number in self.all}


async def publish(there: Cluster, node: ClusterNode, numbers: range, streams: int = 3) -> None:
    for number in numbers:
        await there.at(node, node.events.publish("number.told", number, stream=f"s{number % streams}"))


def of_streams(numbers: range, streams: int = 3) -> dict[str, list[int]]:
    return {f"s{stream}": [number for number in numbers if number % streams == stream] for stream in range(streams)}


async def subscribe(there: Cluster, seen: Seen, *names: str, **options: Any) -> list[Subscription]:
    return [
        await there.at(node, node.events.subscribe("number.*", seen.on(name), **options))
        for name, node in there.now.items()
        if name in names or not names
    ]


async def test_live_subscriptions_on_every_node_see_the_events_of_all_nodes_in_one_order() -> None:
    async with cluster("a", "b", "c", agents=[Nothing]) as there:
        seen = Seen()
        await subscribe(there, seen)
        for number, node in enumerate(there.now.values()):
            await publish(there, node, range(number * 10, number * 10 + 10))
        await there.until(lambda: len(seen.all) == 90, 5)
        for name in "abc":
            assert [number for node, _stream, number in seen.all if node == name] == [*range(30)]


@pytest.mark.parametrize("options", [{"durable": "books"}, {"group": "books"}, {"durable": "books", "group": "one"}], ids=str)
async def test_a_name_that_several_nodes_subscribe_gets_each_event_once_and_in_order_of_its_stream(options: dict[str, Any]) -> None:
    async with cluster("a", "b", "c", agents=[Nothing]) as there:
        seen = Seen()
        await subscribe(there, seen, **options)
        for number, node in enumerate(there.now.values()):
            await publish(there, node, range(number * 10, number * 10 + 10))
        await there.until(lambda: len(seen.all) == 30, 5)
        await there.pass_time(5)
        assert seen.by_stream() == of_streams(range(30))
        assert len(seen.nodes()) == 1


async def test_names_are_spread_over_the_nodes_that_have_subscribed_them() -> None:
    async with cluster("a", "b", "c", agents=[Nothing]) as there:
        seen = Seen()
        for number in range(12):
            await subscribe(there, seen, "a", "b", durable=f"books{number}")
        await there.pass_time(2)
        await publish(there, there.now["c"], range(1))
        await there.until(lambda: len(seen.all) == 12, 5)
        assert seen.nodes() == {"a", "b"}


async def test_another_node_goes_on_where_one_left_in_order_was_and_nothing_is_handled_twice() -> None:
    async with cluster("a", "b", agents=[Nothing]) as there:
        seen = Seen(takes_s=0.3)
        subscriptions = dict(zip("ab", await subscribe(there, seen, durable="books"), strict=True))
        a, b = there.now["a"], there.now["b"]
        await publish(there, a, range(30))
        await there.until(lambda: len(seen.all) >= 3, 5)
        (first,) = seen.nodes()
        other = "b" if first == "a" else "a"
        await there.at(there.now[first], subscriptions[first].close())
        await there.until(lambda: len(seen.all) == 30, 20)
        assert seen.nodes() == {first, other}
        assert seen.by_stream() == of_streams(range(30))
        assert not seen.overlaps
        await subscribe(there, seen, first, durable="books")  # it comes back, and by rendezvous it is its turn again
        await publish(there, b, range(30, 60))
        await there.until(lambda: len(seen.all) == 60, 20)
        assert seen.by_stream() == of_streams(range(60))
        assert not seen.overlaps


async def test_a_node_that_drains_hands_its_subscriptions_over() -> None:
    async with cluster("a", "b", agents=[Nothing]) as there:
        seen = Seen(takes_s=0.2)
        await subscribe(there, seen, group="books")
        await publish(there, there.now["a"], range(30))
        await there.until(lambda: len(seen.all) >= 3, 5)
        (first,) = seen.nodes()
        await there.leave(first)
        await there.until(lambda: len(seen.all) == 30, 20)
        assert seen.by_stream() == of_streams(range(30))
        assert len(seen.nodes()) == 2


async def test_a_name_goes_on_when_its_node_is_lost_and_no_event_is() -> None:
    async with cluster("a", "b", "c", agents=[Nothing]) as there:
        seen = Seen(takes_s=0.1)
        await subscribe(there, seen, "a", "b", durable="books")
        await publish(there, there.now["c"], range(60))
        await there.until(lambda: len(seen.all) >= 6, 5)
        (first,) = seen.nodes()
        there.kill(first)
        await there.until(lambda: {number for _n, _s, number in seen.all} == {*range(60)}, 20)
        for numbers in seen.by_stream().values():
            again = list(dict.fromkeys(numbers))
            assert again == sorted(again)


async def test_a_node_that_stood_still_handles_nothing_of_a_name_that_another_has_by_now() -> None:
    async with cluster("a", "b", "c", agents=[Nothing]) as there:
        seen = Seen()
        await subscribe(there, seen, "a", "b", durable="books")
        c = there.now["c"]
        await publish(there, c, range(3))
        await there.until(lambda: len(seen.all) == 3, 5)
        (first,) = seen.nodes()
        await there.pass_time(2)  # its position is stored
        there.cut_off(first, 600)
        await there.pass_time(8)
        await publish(there, c, range(3, 30))
        await there.pass_time(5)
        there.heal()
        await there.pass_time(10)
        assert seen.by_stream() == of_streams(range(30))


async def test_a_forwarder_that_every_node_has_sends_each_event_once() -> None:
    sent: list[int] = []

    class Forwarder:
        name, pattern = "outside", "number.*"

        async def forward(self, events: list[Event]) -> None:
            sent.extend(event.data for event in events)

    async with cluster("a", "b", "c", agents=[Nothing]) as there:
        for node in there.now.values():
            await there.at(node, node.events.forward(Forwarder()))
        for number, node in enumerate(there.now.values()):
            await publish(there, node, range(number * 10, number * 10 + 10))
        await there.pass_time(5)
        assert sent == [*range(30)]
