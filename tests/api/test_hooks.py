"""Requests from a real client to sensors, through ASGI; over a socket where a server is installed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from jidosystem import Agent, HttpRequest, Platform, action, field, sensor
from jidosystem.api.hooks import MAX_BODY_BYTES
from tests.runtime.harness import until


class Shop(Agent):
    """Takes numbers, and notes what requests look like."""

    orders: list[int] = field(default_factory=list)

    @sensor(http="/hooks/{key}/orders", action="order")
    async def hook(self, request: HttpRequest) -> AsyncIterator[int]:
        requests.append(request)
        for number in request.json() if request.body else [int(request.query.get("number", "0"))]:
            yield number

    @action
    async def order(self, number: int) -> None:
        self.orders.append(number)

    @action(readonly=True)
    async def get(self) -> list[int]:
        return self.orders


requests: list[HttpRequest] = []


@pytest.fixture
async def shops(tmp_path: Any) -> AsyncIterator[Platform]:
    requests.clear()
    async with Platform(f"sqlite:///{tmp_path}/shops.db", agents=[Shop]) as platform:
        yield platform


async def client(app: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://node")


@pytest.mark.blocking
async def test_a_request_arrives_whole_and_is_answered_when_it_is_durable(shops: Platform) -> None:
    async with await client(shops.hooks()) as http:
        answer = await http.post("/hooks/caf%C3%A9%20no%201/orders?a=1&a=2&b=", json=[1, 2], headers=[("X-Token", "a"), ("X-Token", "b")])
        assert (answer.status_code, answer.content) == (204, b"")
        assert await shops.agent(Shop, "café no 1").get() == [1, 2]
        assert (await http.put("/hooks/a/orders?number=5")).status_code == 204
        assert (await http.post("/hooks/a/orders", content=b"{")).status_code == 422
        assert (await http.post("/hooks/a/orders", json=["x"])).status_code == 422
        assert (await http.post("/hooks/a/orders", content=b"x" * (MAX_BODY_BYTES + 1))).status_code == 413
        assert (await http.post("/elsewhere")).status_code == 404
    first = requests[0]
    assert (first.method, first.path, first.query, first.headers["x-token"]) == ("POST", "/hooks/café no 1/orders", {"a": "2", "b": ""}, "a, b")
    assert await shops.agent(Shop, "a").get() == [5]


@pytest.mark.blocking
async def test_what_no_sensor_takes_goes_to_the_application_behind(shops: Platform) -> None:
    asked: list[tuple[str, str]] = []

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        asked.append((scope["type"], scope["path"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"behind"})

    async with await client(shops.hooks(behind)) as http:
        assert (await http.get("/v1/agents")).text == "behind"
        assert (await http.post("/hooks/a/orders", json=[1])).status_code == 204
    assert asked == [("http", "/v1/agents")]


async def test_below_the_path_of_another_application_its_own_paths_count(shops: Platform) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"[7]"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/in/hooks/a/orders", "root_path": "/in", "headers": [], "query_string": b""}
    await shops.hooks()(scope, receive, send)
    assert sent[0]["status"] == 204
    assert await shops.agent(Shop, "a").get() == [7]


@pytest.mark.blocking
async def test_over_a_socket(shops: Platform) -> None:
    uvicorn = pytest.importorskip("uvicorn", reason="no ASGI server is installed")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(shops.hooks(), log_config=None))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        await until(lambda: server.started)
        port = listening.getsockname()[1]
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            answers = await asyncio.gather(*(http.post(f"/hooks/a{number % 3}/orders", json=[number]) for number in range(30)))
            assert {answer.status_code for answer in answers} == {204}
            assert (await http.get("/other")).status_code == 404
        server.should_exit = True
        await serving
    had = [number for key in range(3) for number in await shops.agent(Shop, f"a{key}").get()]
    assert sorted(had) == list(range(30))
