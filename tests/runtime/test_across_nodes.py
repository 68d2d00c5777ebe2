"""What happens to nodes, as events, metrics and over HTTP; draining one from another."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from jidosystem import Agent, Platform, action
from jidosystem.api.http.gateway import gateway
from jidosystem.runtime.recovery import LOOK_EVERY_S
from jidosystem.testing import NatsOdds, TestCluster
from tests.runtime.cluster import Cluster, ClusterNode, cluster

pytestmark = pytest.mark.jido


class Counter(Agent):
    value: int = 0

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value


KEYS = [f"k{n}" for n in range(20)]


async def told(there: Cluster, node: ClusterNode) -> list[tuple[str, str]]:
    async def read() -> list[tuple[str, str]]:
        return [(event.type.removeprefix("jido.node."), event.data["node"]) async for event in node.events.read_all("jido.node.*")]

    return await there.at(node, read())


async def ask(there: Cluster, node: Platform, method: str, path: str, status: int = 200) -> Any:
    app = gateway(node, "secret", closing=asyncio.Event())
    headers = {"Authorization": "Bearer secret", "Host": "127.0.0.1"}

    async def asked() -> Any:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://127.0.0.1", headers=headers) as client:
            response = await client.request(method, path)
            assert response.status_code == status, response.text
            return response.json()

    return await (there.at(node, asked()) if isinstance(node, ClusterNode) else asked())


async def test_what_happens_to_a_node_is_published_once_for_the_whole_cluster() -> None:
    async with cluster("a", "b", "c", agents=[Counter]) as there:
        a = there.now["a"]
        await there.pass_time(10)
        assert sorted(await told(there, a)) == [("up", "a"), ("up", "b"), ("up", "c")]
        there.kill("b")
        await there.pass_time(15)
        since = (await told(there, a))[3:]
        assert [one for one in since if one[0] != "suspect"] == [("down", "b")]
        assert len(since) <= 2
        await there.start("b")
        await there.pass_time(10)
        assert (await told(there, a))[3 + len(since) :] == [("up", "b")]
        await there.leave("c")
        await there.pass_time(10)
        ended = (await told(there, a))[4 + len(since) :]  # that it drained may not have been seen: it had no agents
        assert ended in ([("draining", "c"), ("down", "c")], [("down", "c")])


async def test_a_node_that_is_cut_off_is_suspected_and_heard_of_again_in_order() -> None:
    async with cluster("a", "b", "c", agents=[Counter]) as there:
        a, b = there.now["a"], there.now["b"]
        await there.pass_time(10)
        there.nodes.pause(b.process)
        await there.pass_time(2.4)
        there.nodes.resume(b.process)
        await there.pass_time(15)
        since = (await told(there, a))[3:]
        assert since in ([("suspect", "b"), ("recovered", "b")], [])
        assert {node.serves() for node in there.now.values()} == {True}


class Payer(Agent):
    opened: bool = False

    @action
    async def open(self) -> None:
        self.opened = True

    @action
    async def pay(self, to: str) -> None:
        self.cast(self.agent(Counter, to).add, 5)


async def test_what_a_dead_node_had_sent_is_done_although_it_is_stored_when_the_others_have_looked() -> None:
    async with TestCluster(["a", "b"], agents=[Counter, Payer], odds=NatsOdds(late=1.0)) as there:
        a, b = there.now["a"], there.now["b"]
        key = next(key for key in KEYS if a.belongs_here(Payer, key))
        await there.at(a, a.agent(Payer, key).open())
        there.cut_off("a", 20)
        paying = there.at(a, a.agent(Payer, key).pay("k"))
        await there.pass_time(0.1)
        there.kill("a")
        await there.pass_time(10)
        assert await there.at(b, b.agent(Counter, "k").add(0)) == 0, "the others have looked"
        await there.pass_time(20 + 2 * LOOK_EVERY_S)
        assert await there.at(b, b.agent(Counter, "k").add(0)) == 5
        assert not paying.done(), "and nobody has called its agent"


async def test_a_planned_end_is_told_apart_from_a_crash() -> None:
    async with cluster("a", "b", "c", agents=[Counter]) as there:
        a = there.now["a"]
        await there.leave("b")
        there.kill("c")
        await there.pass_time(15)

        async def read() -> dict[str, bool]:
            return {event.data["node"]: event.data["planned"] async for event in a.events.read_all("jido.node.down")}

        assert await there.at(a, read()) == {"b": True, "c": False}


async def test_the_gauges_count_the_nodes_by_state() -> None:
    async with cluster("a", "b", "c", agents=[Counter]) as there:
        await there.pass_time(5)
        metrics = there.now["a"].metrics()
        assert "jido_cluster_nodes_alive 3.0" in metrics
        assert "jido_cluster_nodes_draining 0.0" in metrics


async def test_a_node_is_drained_from_another_over_http_and_no_call_fails() -> None:
    async with cluster("a", "b", "c", agents=[Counter]) as there:
        a, b = there.now["a"], there.now["b"]
        for key in KEYS:
            await there.at(a, a.agent(Counter, key).add())
        status = await ask(there, a, "GET", "/v1/cluster")
        assert {node["name"]: node["agents"] for node in status["nodes"]} == {name: len(node.alive(Counter)) for name, node in there.now.items()}
        assert (status["node"], status["weaknesses"]) == ("a", [])
        assert there.now["b"].alive(Counter)
        assert await ask(there, a, "POST", "/v1/cluster/drain/b") == {"draining": "b"}
        for key in KEYS:
            assert await there.at(b, b.agent(Counter, key).add()) == 2
        await there.until(lambda: not b.alive(Counter), 10)
        await there.pass_time(1)
        status = await ask(there, b, "GET", "/v1/cluster")
        assert {node["name"]: node["state"] for node in status["nodes"]} == {"a": "alive", "b": "draining", "c": "alive"}
        await ask(there, a, "POST", "/v1/cluster/drain/a")
        await there.pass_time(2)
        assert ("draining", "b") in await told(there, a)
        refused = await ask(there, a, "POST", "/v1/cluster/drain/c", status=400)
        assert "no other node takes its agents" in refused["error"]["message"]
        refused = await ask(there, a, "POST", "/v1/cluster/drain/d", status=400)
        assert "there are a, b, c" in refused["error"]["message"]


async def test_a_node_of_no_cluster_says_so() -> None:
    async with Platform(agents=[Counter]) as platform:
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=gateway(platform, "secret", closing=asyncio.Event())), base_url="http://127.0.0.1",
            headers={"Authorization": "Bearer secret"},
        ) as client:  # fmt: skip
            response = await client.get("/v1/cluster")
        assert response.status_code == 400
        assert "isn't one of a cluster" in response.text
