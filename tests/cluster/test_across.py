"""What works on one node works across nodes, on a real NATS server: configuration, named subscriptions, lists."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial

import httpx2
import pytest

pytest.importorskip("nats", reason="the extra `cluster` isn't installed")

from jidosystem import Agent, Event, Platform, action
from jidosystem.api.assembly import local_cluster
from jidosystem.api.http.gateway import gateway


class Counter(Agent):
    value: int = 0

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value


KEYS = [f"k{n}" for n in range(10)]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with local_cluster(tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest.fixture
async def two(url: str) -> AsyncIterator[tuple[Platform, Platform]]:
    async with Platform(url, agents=[Counter], name="a") as a, Platform(url, agents=[Counter], name="b") as b:
        yield a, b


async def test_configuration_events_and_lists_are_the_same_on_every_node(two: tuple[Platform, Platform]) -> None:
    a, b = two
    told = asyncio.Event()
    a.config.on_change("agents.default_timeout", lambda *_change: told.set())
    await b.config.update("agents.default_timeout", 12.0)
    async with asyncio.timeout(10):
        await told.wait()
    assert a.config.agents.default_timeout == 12.0

    seen: list[int] = []
    live: list[int] = []
    all_seen = asyncio.Event()

    def take(into: list[int], event: Event) -> None:
        into.append(event.data)
        if len(seen) >= 20 and len(live) >= 40:
            all_seen.set()

    for platform in two:
        await platform.events.subscribe("number.told", partial(take, seen), durable="books")
        await platform.events.subscribe("number.told", partial(take, live))
    for number in range(20):
        await two[number % 2].events.publish("number.told", number)
    async with asyncio.timeout(20):
        await all_seen.wait()
    assert seen == [*range(20)]

    for key in KEYS:
        await a.agent(Counter, key).add()
    for platform in two:
        listed = await platform.agents.list(type=Counter)
        assert {info.key: (info.state, info.node) for info in listed} == {
            key: ("live", "a" if key in a._node.hosts["Counter"].live else "b") for key in KEYS
        }
        for key in KEYS:
            info = await platform.agents.describe(platform.agent(Counter, key))
            assert (info.state, info.fields) == ("live", {"value": 1})


async def test_servers_that_sync_have_no_weakness_and_what_happens_to_nodes_is_an_event(two: tuple[Platform, Platform]) -> None:
    a, b = two
    assert await a._parts.weaknesses() == []
    up: set[str] = set()
    async with asyncio.timeout(20):
        async for event in b.events.follow("jido.node.up", after=0):
            up.add(event.data["node"])
            if up == {"a", "b"}:
                break


async def test_a_node_that_does_not_know_a_type_answers_for_it_over_http(url: str) -> None:
    async with Platform(url, agents=[Counter], name="hosts") as _hosts, Platform(url, agents=[], name="client") as client:
        transport = httpx2.ASGITransport(gateway(client, "token", closing=asyncio.Event()))
        headers = {"authorization": "Bearer token"}
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:1", headers=headers) as http:
            called = await http.post("/v1/agents/Counter/http/add", json={"amount": 2})
            assert (called.status_code, called.json()) == (200, 2)
            wrong = await http.post("/v1/agents/Counter/http/add", json={"amount": "two"})
            assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "invalid-arguments")
            assert (await http.get("/v1/types/Counter")).json()["fields"] == {"value": "int"}
            described = (await http.get("/v1/agents/Counter/http")).json()
            assert (described["node"], described["fields"]) == ("hosts", {"value": 2})
            stopped = await http.post("/v1/operations/stop/Counter/http")
            assert stopped.json()["state"] == "passive"
            nobody = await http.post("/v1/agents/Kounter/http/add", json={})
            assert nobody.status_code == 404
            assert "Kounter" in nobody.json()["error"]["message"]
            assert "client, hosts" in nobody.json()["error"]["message"]
