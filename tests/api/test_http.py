"""The node's HTTP API, asked over a socket by somebody else's client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx2
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jidosystem import Agent, DefinitionError, Event, HttpRequest, Platform, Rejected, action, errors, field, on_event, sensor
from jidosystem.api.http.answers import STATUS
from jidosystem.api.http.gateway import gateway
from jidosystem.api.http.guard import MAX_BODY_BYTES
from jidosystem.api.http.loopback import listen, url_of
from jidosystem.api.http.server import HttpServer
from jidosystem.core.errors import InvalidConfig
from tests.runtime.harness import until_async

TOKEN = "right-token"
JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists)


@dataclass
class Point:
    x: int
    y: float = 0.0


class Order(pydantic.BaseModel):
    number: int
    lines: list[str] = []


class Desk(Agent):
    """Takes anything."""

    value: int = 0
    point: Point | None = None

    @action
    async def add(self, amount: int = 1) -> int:
        """Add to the value."""
        self.value += amount
        self.emit("desk.added", {"value": self.value})
        return self.value

    @action
    async def put(self, point: Point, when: datetime | None = None) -> Point:
        self.point = point
        return point

    @action
    async def order(self, order: Order) -> Order:
        return order

    @action(readonly=True)
    async def look(self) -> int:
        return self.value

    @action
    async def refuse(self) -> None:
        raise Rejected("no", why="because")

    @action
    async def fail(self) -> None:
        raise ValueError("a mistake")

    @action
    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @action
    async def anything(self, value: Any = None) -> Any:
        return value


class Deaf(Agent):
    """Fails on every event."""

    @on_event("deaf.*", key="data.key", max_attempts=1)
    async def heard(self, event: Event) -> None:
        raise ValueError("deaf")


@asynccontextmanager
async def serving(platform: Platform, **options: Any) -> AsyncIterator[httpx2.AsyncClient]:
    closing = asyncio.Event()
    with listen(port=0) as listening:
        server = HttpServer(gateway(platform, TOKEN, closing=closing, **options), listening)
        await server.start()
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx2.AsyncClient(base_url=url_of(listening), headers=headers, timeout=20) as client:
            yield client
        closing.set()
        await server.accept_no_more()
        await server.stop()


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    async with Platform(agents=[Desk, Deaf], name="one") as running:
        yield running


@pytest.fixture
async def client(platform: Platform) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(platform, program="desk.py") as asked:
        yield asked


def code_of(response: httpx2.Response) -> str:
    return str(response.json()["error"]["code"])


# -- who may, and where from ------------------------------------------------------------------------------------------


async def test_health_needs_no_token_and_everything_else_does(client: httpx2.AsyncClient) -> None:
    anonymous = {"Authorization": ""}
    assert (await client.get("/health", headers=anonymous)).json() == {"status": "ok"}
    for path in ("/v1/node", "/v1/agents", "/v1/openapi.json", "/", "/health/", "/v1/types"):
        for wrong in ("", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"bearer {TOKEN}", TOKEN, f"Bearer {TOKEN}x"):
            refused = await client.get(path, headers={"Authorization": wrong})
            assert (refused.status_code, code_of(refused)) == (401, "unauthorized"), (path, wrong)
    assert (await client.post("/v1/agents/Desk/a/add", headers=anonymous)).status_code == 401
    assert (await client.get("/v1/agents/Desk/a")).json()["turns"] == 0


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example:1", "0.0.0.0", "[::2]:1", ""])
async def test_a_name_that_only_resolves_to_loopback_is_refused(client: httpx2.AsyncClient, host: str) -> None:
    refused = await client.get("/health", headers={"Host": host})
    assert refused.status_code in (400, 421)  # an empty one may be refused by the server already


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:99", "127.0.0.1", "[::1]", "[::1]:80"])
async def test_names_of_loopback_are_taken(client: httpx2.AsyncClient, host: str) -> None:
    assert (await client.get("/health", headers={"Host": host})).status_code == 200


async def test_no_answer_lets_another_origin_read_it(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/node", headers={"Origin": "http://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org", "", "localhost"])
def test_only_a_loopback_address_is_listened_at(host: str) -> None:
    with pytest.raises(InvalidConfig, match="security layer"):
        listen(host)


def test_a_port_that_is_taken_is_named_and_a_free_one_stands_in_for_the_usual() -> None:
    with listen(port=0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidConfig, match=f"port {port}"):
            listen(port=port)
    with listen() as first, listen() as second:
        assert url_of(first) != url_of(second)


# -- calling ---------------------------------------------------------------------------------------------------------


async def test_an_action_is_called_with_arguments_by_name(client: httpx2.AsyncClient) -> None:
    assert (await client.post("/v1/agents/Desk/a/add", json={"amount": 2})).json() == 2
    assert (await client.post("/v1/agents/Desk/a/add")).json() == 3
    assert (await client.post("/v1/agents/Desk/a/put", json={"point": {"x": 1, "y": 2.5}, "when": "2026-01-02T03:04:05Z"})).json() == {
        "x": 1,
        "y": 2.5,
    }
    assert (await client.post("/v1/agents/Desk/a/order", json={"order": {"number": 1, "lines": ["a"]}})).json() == {"number": 1, "lines": ["a"]}
    described = (await client.get("/v1/agents/Desk/a")).json()
    assert described["fields"] == {"value": 3, "point": {"x": 1, "y": 2.5}}


@pytest.mark.parametrize("key", ["a/b", "/a", "a/", "//", "a b?c#d", "ü€😀", "..", "%2F", "a%20b", "add", "x/add", "+"])
async def test_a_key_may_hold_anything_that_keys_hold(client: httpx2.AsyncClient, key: str) -> None:
    encoded = "".join(f"%{byte:02X}" for byte in key.encode())
    assert (await client.post(f"/v1/agents/Desk/{encoded}/add")).json() == 1
    assert (await client.get(f"/v1/agents/Desk/{encoded}")).json()["key"] == key
    assert [a["key"] for a in (await client.get("/v1/agents")).json()["agents"]] == [key]
    assert (await client.post(f"/v1/operations/stop/Desk/{encoded}")).json()["state"] == "passive"
    assert (await client.delete(f"/v1/agents/Desk/{encoded}")).json() == {"deleted": f"Desk/{key}"}
    assert (await client.get(f"/v1/agents/Desk/{encoded}")).json()["fields"]["value"] == 0


async def test_a_key_makes_a_repetition_take_effect_once(client: httpx2.AsyncClient) -> None:
    headers = {"Idempotency-Key": "k"}
    assert [(await client.post("/v1/agents/Desk/a/add", headers=headers)).json() for _ in range(3)] == [1, 1, 1]
    conflict = await client.post("/v1/agents/Desk/a/add", headers=headers, json={"amount": 5})
    assert (conflict.status_code, code_of(conflict)) == (409, "idempotency-conflict")


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("Desk/a/add", b"{", 400, "invalid-arguments"),
        ("Desk/a/add", b"[]", 400, "invalid-arguments"),
        ("Desk/a/add", b"[" * 100_000, 400, "invalid-arguments"),
        ("Desk/a/anything", b'{"value": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "invalid-arguments"),
        ("Desk/a/add", b'{"amount": NaN}', 400, "invalid-arguments"),
        ("Desk/a/add", b'{"amount": "2"}', 400, "invalid-arguments"),
        ("Desk/a/add", b'{"amount": 1.5}', 400, "invalid-arguments"),
        ("Desk/a/add", b'{"amount": null}', 400, "invalid-arguments"),
        ("Desk/a/add", b'{"amont": 1}', 400, "invalid-arguments"),
        ("Desk/a/add", b'{"amount": 1' + b"0" * 5000 + b"}", 400, "invalid-arguments"),
        ("Desk/a/add", b'\xff\xfe{"amount": 1}', 400, "invalid-arguments"),
        ("Desk/a/put", b"{}", 400, "invalid-arguments"),
        ("Desk/a/put", b'{"point": {"x": "no"}}', 400, "invalid-arguments"),
        ("Desk/a/order", b'{"order": {}}', 400, "invalid-arguments"),
        ("Desk/a/add?timeout=-1", b"", 400, "invalid-arguments"),
        ("Desk/a/add?timeout=inf", b"", 400, "invalid-arguments"),
        ("Desk/a/add?timeout=nan", b"", 400, "invalid-arguments"),
        ("Desk/a/add?timeout=soon", b"", 400, "invalid-arguments"),
        ("Desk/a%00/add", b"", 400, "invalid-key"),
        ("Desk//add", b"", 400, "invalid-key"),
        (f"Desk/{'k' * 513}/add", b"", 400, "invalid-key"),
        ("Desk/%FF/add", b"", 400, "invalid-path"),
        ("Dusk/a/add", b"", 404, "no-host"),
        ("jido.sender/a/add", b"", 404, "no-host"),
        ("Desk/a/ad", b"", 404, "not-an-action"),
        ("Desk/a/_jido", b"", 404, "not-an-action"),
        ("Desk/a/stop", b"", 404, "not-an-action"),
        ("Desk/a/refuse", b"", 422, "rejected"),
        ("Desk/a/fail", b"", 500, "action-failed"),
        ("Desk/a/wait?timeout=0.05", b'{"seconds": 60}', 504, "call-timeout"),
    ],
)
async def test_what_can_not_be_called_is_one_clear_error(client: httpx2.AsyncClient, path: str, body: bytes, status: int, code: str) -> None:
    refused = await client.post(f"/v1/agents/{path}", content=body)
    assert (refused.status_code, code_of(refused)) == (status, code)
    assert refused.json()["error"]["message"]


async def test_an_integer_that_no_record_carries_fails_its_turn_and_changes_nothing(client: httpx2.AsyncClient) -> None:
    refused = await client.post("/v1/agents/Desk/a/add", content=b'{"amount": 1%s}' % (b"0" * 30))
    assert 400 <= refused.status_code < 600
    assert code_of(refused)
    assert (await client.post("/v1/agents/Desk/a/look")).json() == 0


async def test_near_names_are_suggested(client: httpx2.AsyncClient) -> None:
    assert "'Desk'" in (await client.post("/v1/agents/Dask/a/add")).json()["error"]["message"]
    assert "'add'" in (await client.post("/v1/agents/Desk/a/ad")).json()["error"]["message"]
    assert "'live'" in (await client.get("/v1/agents?state=liv")).json()["error"]["message"]
    assert "'restart'" in (await client.post("/v1/operations/restrat/Desk/a")).json()["error"]["message"]


async def test_errors_carry_their_facts(client: httpx2.AsyncClient) -> None:
    error = (await client.post("/v1/agents/Desk/a/refuse")).json()["error"]
    assert error == {"code": "rejected", "type": "Rejected", "message": "no", "outcome_known": True, "fields": {"why": "because"}}
    error = (await client.post("/v1/agents/Desk/a/fail")).json()["error"]
    assert error["fields"]["type"] == "ValueError"
    assert "a mistake" in error["fields"]["remote_traceback"]
    error = (await client.post("/v1/agents/Desk/a/put", json={"point": {"x": "no"}})).json()["error"]
    assert error["fields"]["path"] == "$.point.x"


async def test_a_body_over_the_limit_is_refused_before_it_is_read(client: httpx2.AsyncClient) -> None:
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    head = f"POST /v1/agents/Desk/a/anything HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    writer.write(f"{head}Content-Length: {MAX_BODY_BYTES + 1}\r\n\r\n".encode())
    answer = await reader.read()
    assert b" 413 " in answer
    assert b"too-large" in answer
    writer.close()


async def test_a_body_without_a_length_is_read_up_to_the_limit(client: httpx2.AsyncClient) -> None:
    async def chunks(size: int) -> AsyncIterator[bytes]:
        yield b'{"value": "'
        for _ in range(size // 65536):
            yield b"x" * 65536
        yield b'"}'

    assert (await client.post("/v1/agents/Desk/a/anything", content=chunks(MAX_BODY_BYTES // 2))).status_code == 200
    try:
        refused = await client.post("/v1/agents/Desk/a/anything", content=chunks(2 * MAX_BODY_BYTES))
    except httpx2.TransportError:
        pass  # it was closed on the rest of it
    else:
        assert (refused.status_code, code_of(refused)) == (413, "too-large")


@settings(max_examples=4)
@given(bodies=st.lists(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()), min_size=20, max_size=60))
def test_no_body_brings_the_node_down(bodies: list[bytes]) -> None:
    async def ask() -> None:
        async with Platform(agents=[Desk]) as platform, serving(platform) as asked:
            for body in bodies:
                answer = await asked.post("/v1/agents/Desk/a/add", content=body)
                assert answer.status_code in (200, 400)
                answer = await asked.post("/v1/agents/Desk/a/anything", content=b'{"value": %s}' % body)
                assert answer.status_code in (200, 400)
            assert (await asked.post("/v1/agents/Desk/b/add")).json() == 1

    asyncio.run(ask())


def test_every_error_has_a_status_by_whose_fault_it_is() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.JidoError)]
    for kind in kinds:
        status = next((status for base, status in STATUS if issubclass(kind, base)), 500)
        if issubclass(kind, errors.RefusedError):
            assert status == 503
        elif issubclass(kind, errors.OutcomeError):
            assert status == 504
        elif issubclass(kind, errors.ActionError):
            assert status in (422, 500)
    assert next((status for base, status in STATUS if issubclass(DefinitionError, base)), 500) == 500


# -- looking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["memory", "sqlite"])
async def test_pages_show_every_agent_once_in_order(url: str, tmp_path: Any) -> None:
    where = "memory://" if url == "memory" else f"sqlite:///{tmp_path}/a.db"
    async with Platform(where, agents=[Desk, Deaf]) as platform, serving(platform) as asked:
        keys = [f"{i:03d}" for i in range(0, 60, 2)]
        await asyncio.gather(*(platform.agent(Desk, key).add() for key in keys))
        for key in ("001", "031", "999"):
            await platform.agent(Desk, key).look()  # live, but without a record
        seen: list[str] = []
        after = ""
        while True:
            page = (await asked.get("/v1/agents", params={"limit": 7, "after": after})).json()
            assert len(page["agents"]) <= 7
            seen += [agent["key"] for agent in page["agents"]]
            assert page["totals"] == {"Deaf": {"stored": 0, "live": 0}, "Desk": {"stored": 30, "live": 33}}
            if page["next"] is None:
                break
            after = page["next"]
        assert seen == sorted([*keys, "001", "031", "999"])
        await platform.agents.pause(platform.agent(Desk, "004"))
        paused = (await asked.get("/v1/agents", params={"state": "paused", "type": "Desk", "totals": False})).json()
        assert [agent["key"] for agent in paused["agents"]] == ["004"]
        assert paused["totals"] is None


async def test_types_tell_their_fields_actions_and_schemas(client: httpx2.AsyncClient) -> None:
    kind = (await client.get("/v1/types/Desk")).json()
    assert kind["description"] == "Takes anything."
    assert kind["fields"]["value"] == "int"
    add = kind["actions"]["add"]
    assert add["signature"] == "(amount: int = 1) -> int"
    assert add["arguments"]["properties"] == {"amount": {"type": "integer"}}
    assert kind["actions"]["refuse"]["signature"] == "() -> None"
    assert kind["actions"]["look"]["readonly"]
    assert "number" in kind["actions"]["order"]["arguments"]["properties"]["order"]["properties"]
    names = [kind["name"] for kind in (await client.get("/v1/types")).json()["types"]]
    assert names == ["Deaf", "Desk"]


async def test_agents_are_operated(client: httpx2.AsyncClient) -> None:
    states = [(await client.post(f"/v1/operations/{name}/Desk/a")).json()["state"] for name in ("start", "pause", "resume", "restart", "stop")]
    assert states == ["live", "paused", "live", "live", "passive"]
    node = (await client.get("/v1/node")).json()
    assert (node["name"], node["program"]) == ("one", "desk.py")
    assert "jido_turns_total" in (await client.get("/v1/metrics")).text


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /nowhere", 404),
        ("PATCH /v1/agents", 405),
        ("GET /v1/agents?limit=0", 400),
        ("GET /v1/agents?limit=x", 400),
        ("GET /v1/events?after=-1", 400),
        (f"GET /v1/events?after={2**63}", 400),
        ("GET /v1/events?pattern=..", 400),
        ("GET /v1/events/replay", 400),
    ],
)
async def test_paths_and_queries_that_can_not_be_are_refused_in_the_same_shape(client: httpx2.AsyncClient, request_line: str, status: int) -> None:
    refused = await client.request(*request_line.split(" "))
    assert refused.status_code == status
    assert code_of(refused)


# -- events ----------------------------------------------------------------------------------------------------------


async def test_events_are_published_listed_and_replayed(client: httpx2.AsyncClient) -> None:
    published = await client.post("/v1/events", json={"type": "a.b", "data": {"n": 1}, "stream": "s", "expected": 0})
    assert published.status_code == 201
    assert published.json()["data"] == {"n": 1}
    assert code_of(await client.post("/v1/events", json={"type": "a.b", "stream": "s", "expected": 0})) == "stream-conflict"
    for body in ({}, {"type": 1}, {"type": "a b"}, {"type": "a", "dat": 1}, {"type": "a", "expected": "x"}, [], 5):
        refused = await client.post("/v1/events", json=body)
        assert refused.status_code == 400, body
    for n in range(5):
        await client.post("/v1/events", json={"type": f"a.n{n % 2}", "data": n, "stream": "s"})
    page = (await client.get("/v1/events", params={"limit": 2, "pattern": "a.n0"})).json()
    assert [event["data"] for event in page["events"]] == [0, 2]
    rest = (await client.get("/v1/events", params={"pattern": "a.n0", "after": page["next"]})).json()
    assert ([event["data"] for event in rest["events"]], rest["next"]) == ([4], None)
    replayed = (await client.get("/v1/events/replay", params={"stream": "s"})).text.splitlines()
    assert len(replayed) == 6


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
async def test_followed_events_come_as_they_are_stored(client: httpx2.AsyncClient, accept: str) -> None:
    async with client.stream("GET", "/v1/events/follow", params={"pattern": "desk.**", "stream": "Desk/a"}, headers={"Accept": accept}) as following:
        lines = following.aiter_lines()
        await anext(lines)  # it is following
        for key in ("b", "a", "a"):
            await client.post(f"/v1/agents/Desk/{key}/add")
        found: list[Any] = []
        while len(found) < 2:
            line = (await anext(lines)).removeprefix("data: ")
            if line.startswith("{"):
                found.append(json.loads(line))
        assert [event["data"] for event in found] == [{"value": 1}, {"value": 2}]
    again = {"Accept": "text/event-stream", "Last-Event-ID": str(found[0]["position"])}
    async with client.stream("GET", "/v1/events/follow", params={"stream": "Desk/a"}, headers=again) as following:
        async for line in following.aiter_lines():
            if line.startswith("data: "):
                assert json.loads(line.removeprefix("data: "))["data"] == {"value": 2}
                break


async def test_followers_are_let_go_when_the_node_closes(platform: Platform) -> None:
    closing = asyncio.Event()
    with listen(port=0) as listening:
        server = HttpServer(gateway(platform, TOKEN, closing=closing), listening)
        await server.start()
        headers = {"Authorization": f"Bearer {TOKEN}"}
        client = httpx2.AsyncClient(base_url=url_of(listening), headers=headers)
        async with client, client.stream("GET", "/v1/events/follow") as following:
            lines = following.aiter_lines()
            await anext(lines)
            closing.set()
            await server.accept_no_more()
            await server.stop()
            assert [line async for line in lines if line.strip()] == []


async def test_dead_letters_are_listed_redriven_and_cleared(platform: Platform, client: httpx2.AsyncClient) -> None:
    await platform.events.publish("deaf.one", {"key": "k"})
    await until_async(platform.dead_letters.list)
    letters = (await client.get("/v1/dead-letters")).json()["dead_letters"]
    assert letters[0]["source"] == "event"
    assert (await client.post(f"/v1/dead-letters/{letters[0]['id']}/redrive")).status_code >= 400
    assert (await client.post("/v1/dead-letters/none/redrive")).status_code == 400
    assert code_of(await client.get("/v1/dead-letters?source=evnt")) == "invalid-arguments"
    assert (await client.delete("/v1/dead-letters", params={"source": "cast"})).json() == {"cleared": 0}
    assert (await client.delete("/v1/dead-letters")).json() == {"cleared": 1}


# -- configuration ---------------------------------------------------------------------------------------------------


async def test_the_configuration_is_read_changed_and_rolled_back(client: httpx2.AsyncClient) -> None:
    path = "/v1/config/agents.default_timeout"
    assert (await client.get(path)).json()["value"] == 30
    assert (await client.put(path, json=12)).json() == {"path": "agents.default_timeout", "value": 12.0, "version": 1}
    assert (await client.get("/v1/config")).json()["agents"]["default_timeout"] == 12
    refused = await client.put(path, json="soon")
    assert (refused.status_code, code_of(refused), refused.json()["error"]["fields"]["path"]) == (400, "invalid-config", "agents.default_timeout")
    assert (await client.put(path, content=b"{")).status_code == 400
    assert "default_timeout" in (await client.get("/v1/config/agents.default_timeot")).json()["error"]["message"]
    assert (await client.post("/v1/config/rollback", json={"version": 0})).json() == {"version": 2}
    assert (await client.get(path)).json()["value"] == 30
    assert [v["version"] for v in (await client.get("/v1/config/history")).json()["versions"]] == [1, 2]
    for body in ({"version": 77}, {"version": "1"}, {}, {"version": 10**30}):
        assert (await client.post("/v1/config/rollback", json=body)).status_code == 400


# -- sources of work -------------------------------------------------------------------------------------------------


class Shop(Agent):
    """Takes orders from a webhook."""

    orders: list[int] = field(default_factory=list)

    @sensor(http="/hooks/{key}", action="order")
    async def hook(self, request: HttpRequest) -> AsyncIterator[int]:
        for number in request.json():
            yield number

    @action
    async def order(self, number: int) -> None:
        self.orders.append(number)

    @action(readonly=True)
    async def get(self) -> list[int]:
        return self.orders


async def test_a_sensor_takes_requests_to_its_path_behind_the_same_door(platform: Platform) -> None:
    shop = platform.agent(Shop, "a")  # hosted from now on, although the routes are made before
    async with serving(platform) as asked:
        assert (await asked.post("/hooks/a", json=[1, 2])).status_code == 204
        assert (await asked.post("/hooks/a", headers={"Authorization": ""}, json=[3])).status_code == 401
        assert (await asked.post("/hooks/a", json=["x"])).status_code == 422
        assert (await asked.get("/health")).status_code == 200
    assert await shop.get() == [1, 2]
