"""Looking at agents, and ordering them about, from nodes on which they don't live."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from jidosystem import Agent, action
from jidosystem.api.http.gateway import gateway
from jidosystem.distribution.frames import NodeFrame
from jidosystem.testing import ClusterNode
from tests.runtime.cluster import Cluster, cluster

pytestmark = pytest.mark.jido


class Counter(Agent):
    value: int = 0

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value


KEYS = [f"k{n:02}" for n in range(30)]


async def fill(there: Cluster) -> None:
    a = there.now["a"]
    for key in KEYS:
        await there.at(a, a.agent(Counter, key).add(7))


async def test_every_node_lists_the_agents_of_all_with_state_and_node() -> None:
    async with cluster("a", "b", "c", agents=[Counter]) as there:
        await fill(there)
        a, b = there.now["a"], there.now["b"]
        await there.at(b, b.agents.pause(b.agent(Counter, KEYS[0])))
        await there.at(b, b.agents.stop(b.agent(Counter, KEYS[1])))
        expected: dict[str, Any] = {key: ("live", there.where(Counter, key)[0]) for key in KEYS[2:]}
        for node in there.now.values():
            listed = await there.at(node, node.agents.list(type=Counter))
            assert [info.key for info in listed] == KEYS
            assert {info.key: (info.state, info.node) for info in listed[2:]} == expected
            assert [info.state for info in listed[:2]] == ["paused", "passive"]
        of_b = await there.at(a, a.agents.list(type=Counter, node="b", state="live"))
        assert {info.key for info in of_b} == {key for key in KEYS[2:] if there.where(Counter, key) == ["b"]}
        assert of_b


async def test_a_list_asks_each_other_node_once_and_not_once_an_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster("a", "b", "c", agents=[Counter]) as there:
        await fill(there)
        asked: list[NodeFrame] = []
        for node in there.now.values():
            tell = node._node.asked["live"]

            async def counted(frame: NodeFrame, tell: Any = tell) -> bytes:
                asked.append(frame)
                answer: bytes = await tell(frame)
                return answer

            monkeypatch.setitem(node._node.asked, "live", counted)
        a = there.now["a"]
        assert len(await there.at(a, a.agents.list(type=Counter))) == len(KEYS)
        assert len(asked) == 2


async def test_a_node_that_does_not_answer_is_told_of_by_the_records() -> None:
    async with cluster("a", "b", agents=[Counter]) as there:
        await fill(there)
        theirs = {key for key in KEYS if there.where(Counter, key) == ["b"]}
        there.kill("b")
        a = there.now["a"]
        listed = await there.at(a, a.agents.list(type=Counter))
        assert {info.key for info in listed if info.state == "passive" and info.node == "b"} == theirs
        assert len(listed) == len(KEYS)


async def test_describe_and_watch_give_the_same_from_every_node() -> None:
    async with cluster("a", "b", "c", agents=[Counter]) as there:
        await fill(there)
        for node in there.now.values():
            for key in KEYS[:6]:
                info = await there.at(node, node.agents.describe(node.agent(Counter, key)))
                assert (info.state, info.node, info.fields) == ("live", there.where(Counter, key)[0], {"value": 7})

        async def seen(node: ClusterNode, key: str) -> list[int]:
            values: list[int] = []
            async for fields, _revision in node.agents.watch(node.agent(Counter, key)):
                assert fields is not None
                values.append(fields["value"])
                if fields["value"] >= 10:
                    break
            return values

        watches = [there.at(node, seen(node, key)) for node in there.now.values() for key in KEYS[:6]]
        await there.pass_time(0.1)
        c = there.now["c"]
        for key in KEYS[:6]:
            await there.at(c, c.agent(Counter, key).add(3))
        assert {tuple(values) for values in await asyncio.gather(*watches)} == {(7, 10)}


async def test_orders_reach_an_agent_that_lives_where_it_would_not_be_placed_today() -> None:
    async with cluster("a", "b", agents=[Counter]) as there:
        await fill(there)
        await there.start("c")
        c = there.now["c"]
        key = next(key for key in KEYS if c.belongs_here(Counter, key))
        lives = there.where(Counter, key)
        assert lives != ["c"]
        info = await there.at(c, c.agents.describe(c.agent(Counter, key)))
        assert (info.state, info.node) == ("live", lives[0])
        await there.at(c, c.agents.stop(c.agent(Counter, key)))
        assert there.where(Counter, key) == []


async def test_the_http_api_of_any_node_answers_for_agents_of_all() -> None:
    async with cluster("a", "b", agents=[Counter]) as there:
        await fill(there)
        b = there.now["b"]
        key = next(key for key in KEYS if there.where(Counter, key) == ["a"])
        app = gateway(b, "secret", closing=asyncio.Event())

        async def ask(method: str, path: str, **options: Any) -> Any:
            headers = {"Authorization": "Bearer secret", "Host": "127.0.0.1", "Content-Type": "application/json"}
            async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://127.0.0.1", headers=headers) as client:
                response = await client.request(method, path, **options)
                assert response.status_code == 200, response.text
                return response.json()

        page = await there.at(b, ask("GET", "/v1/agents?limit=7"))
        assert [(info["key"], info["state"]) for info in page["agents"]] == [(key, "live") for key in KEYS[:7]]
        assert page["totals"] == {"Counter": {"stored": len(KEYS), "live": len(KEYS)}}
        assert (await there.at(b, ask("GET", f"/v1/agents/Counter/{key}")))["node"] == "a"
        assert await there.at(b, ask("POST", f"/v1/agents/Counter/{key}/add", content=b'{"amount": 1}')) == 8
        paused = await there.at(b, ask("POST", f"/v1/operations/pause/Counter/{key}"))
        assert (paused["state"], paused["node"]) == ("paused", "a")
        await there.at(b, ask("DELETE", f"/v1/agents/Counter/{key}"))
        assert (await there.at(b, b.agents.describe(b.agent(Counter, key)))).fields == {"value": 0}
