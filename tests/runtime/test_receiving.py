"""Requests become turns, and are answered with success only when these are durable; whatever else is the sender's to send again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from jidosystem import Agent, HttpRequest, Item, Lifecycle, Platform, Rejected, action, field, sensor
from jidosystem.core.hooks import HttpResponse
from jidosystem.runtime import receiving
from tests.runtime.harness import PlatformOn, Store, settle, until


class Shop(Agent):
    """Takes orders from a webhook, each once."""

    orders: list[int] = field(default_factory=list)
    lifecycle = Lifecycle(idle_timeout=0.001)

    @sensor(http="/hooks/{key}", action="order")
    async def hook(self, request: HttpRequest, position: str | None) -> AsyncIterator[Item[int]]:
        if request.headers.get("x-token", "good") != "good":
            raise Rejected("bad_token")
        if request.headers.get("x-delivery") == position is not None:
            return
        for number in request.json():
            if number == 13:
                raise ConnectionError("the archive doesn't answer")
            yield Item(number, position=request.headers.get("x-delivery"))

    @sensor(http="/all", key="main", action="order")
    async def all(self, request: HttpRequest) -> AsyncIterator[int]:
        yield int(request.query["number"])

    @action
    async def order(self, number: int) -> None:
        if number == 0:
            raise OSError("no order has the number 0")
        if number < 0:
            raise Rejected("negative")
        self.orders.append(number)

    @action(readonly=True)
    async def get(self) -> list[int]:
        return self.orders


async def post(platform: Platform, key: str, body: object, **headers: str) -> HttpResponse:
    request = HttpRequest(
        method="POST",
        path=f"/hooks/{key}",
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        body=json.dumps(body).encode(),
    )
    answer = await platform._node.sensors.receivers.receive(request)
    assert answer is not None
    return answer


@pytest.fixture
async def shops(url: str) -> AsyncIterator[Platform]:
    async with Platform(url, agents=[Shop]) as platform:
        yield platform


async def test_a_request_is_answered_when_its_items_are_durable(store: Store) -> None:
    async with PlatformOn(store, [Shop]) as platform:
        store.hold()
        asking = asyncio.ensure_future(post(platform, "a", [1, 2]))
        await until(lambda: store.held)
        await settle()
        assert not asking.done()
        store.release()
        assert (await asking).status == 204
        assert await platform.agent(Shop, "a").get() == [1, 2]


async def test_the_path_or_the_option_says_whose_it_is(shops: Platform) -> None:
    assert (await post(shops, "b", [5])).status == 204
    answer = await shops._node.sensors.receivers.receive(HttpRequest(method="GET", path="/all", query={"number": "7"}))
    assert answer is not None and answer.status == 204
    assert await shops.agent(Shop, "b").get() == [5]
    assert await shops.agent(Shop, "main").get() == [7]
    assert await shops._node.sensors.receivers.receive(HttpRequest(method="GET", path="/other")) is None


async def test_a_delivery_that_comes_again_is_known_by_its_position(shops: Platform) -> None:
    for _ in range(3):
        assert (await post(shops, "a", [1], x_delivery="first")).status == 204
    assert (await post(shops, "a", [2], x_delivery="second")).status == 204
    assert await shops.agent(Shop, "a").get() == [1, 2]


@pytest.mark.parametrize(
    ("body", "headers", "status", "told"),
    [
        ([0], {}, 500, "send it again"),
        ([13], {}, 500, "send it again"),
        ([-1], {}, 422, "negative"),
        (["one"], {}, 422, "doesn't fit"),
        ([1], {"x_token": "bad"}, 422, "bad_token"),
    ],
)
async def test_whatever_isnt_durable_is_no_success(shops: Platform, body: object, headers: dict[str, str], status: int, told: str) -> None:
    answer = await post(shops, "a", body, **headers)
    assert answer.status == status and told in answer.body.decode()
    assert "archive" not in answer.body.decode()  # what went wrong inside is nobody's outside
    assert await shops.agent(Shop, "a").get() == []
    assert await shops.dead_letters.list() == []  # its sender has it


async def test_a_body_that_is_no_json_is_refused(shops: Platform) -> None:
    answer = await shops._node.sensors.receivers.receive(HttpRequest(method="POST", path="/hooks/a", body=b"{"))
    assert answer is not None and answer.status == 422 and b"no JSON" in answer.body


async def test_what_was_durable_before_an_error_stays(shops: Platform) -> None:
    assert (await post(shops, "a", [1, 2, 13, 3])).status == 500
    assert await shops.agent(Shop, "a").get() == [1, 2]


async def test_an_impossible_key_is_nobodys(shops: Platform) -> None:
    assert (await post(shops, "a\x00", [1])).status == 404
    assert (await post(shops, "a" * 513, [1])).status == 404


async def test_an_agent_that_is_paused_or_failing_or_a_store_that_fails_is_to_be_asked_again(store: Store) -> None:
    async with PlatformOn(store, [Shop]) as platform:
        shop = platform.agent(Shop, "a")
        await platform.agents.pause(shop)
        answer = await post(platform, "a", [1])
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        await platform.agents.resume(shop)
        store.fail_all()
        assert (await post(platform, "a", [1])).status == 503
        store.heal()
        assert (await post(platform, "a", [1])).status == 204
        node = platform._node
    request = HttpRequest(method="POST", path="/hooks/a", body=b"[2]")
    answer = await node.sensors.receivers.receive(request)
    assert answer is not None and answer.status == 503


class Slow(Agent):
    """Lets requests wait until it is told."""

    count: int = 0

    @sensor(http="/slow/{key}", action="add")
    async def hook(self, request: HttpRequest) -> AsyncIterator[int]:
        began.append(request.path)
        await gate.wait()
        yield 1

    @action
    async def add(self, number: int) -> None:
        self.count += number

    @action(readonly=True)
    async def get(self) -> int:
        return self.count


began: list[str] = []
gate: asyncio.Event


@pytest.fixture
async def slow(url: str) -> AsyncIterator[Platform]:
    global gate  # noqa: PLW0603
    gate = asyncio.Event()
    began.clear()
    async with Platform(url, agents=[Slow], config={"agents.default_timeout": 0.2}) as platform:
        yield platform


def ask(platform: Platform, key: str) -> asyncio.Task[HttpResponse | None]:
    return asyncio.create_task(platform._node.sensors.receivers.receive(HttpRequest(method="POST", path=f"/slow/{key}")))


async def test_while_the_platform_closes_a_request_is_to_be_sent_again(slow: Platform) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    class Held(Slow):
        @action
        async def hold(self) -> None:
            entered.set()
            await go_on.wait()

        @sensor(http="/held/{key}", action="add")
        async def hook(self, request: HttpRequest) -> AsyncIterator[int]:
            yield 1

    holding = asyncio.ensure_future(slow.agent(Held, "a").hold())
    await entered.wait()
    closing = asyncio.ensure_future(slow.__aexit__(None, None, None))
    await until(lambda: slow._node.closing)
    answer = await slow._node.sensors.receivers.receive(HttpRequest(method="POST", path="/held/a"))
    assert answer is not None and answer.status == 503
    go_on.set()
    await asyncio.wait([holding])
    await closing


async def test_requests_of_one_agent_come_one_after_another_and_others_dont_wait(slow: Platform) -> None:
    asked = [ask(slow, key) for key in ("a", "a", "b", "a")]
    await until(lambda: len(began) == 2)
    await settle()
    assert sorted(began) == ["/slow/a", "/slow/b"]
    gate.set()
    assert [(await one).status for one in asked] == [204] * 4  # type: ignore[union-attr]
    assert await slow.agent(Slow, "a").get() == 3
    reception = slow._node.sensors.receivers.find("/slow/a")
    assert reception is not None and reception[0].__self__._lines == {}  # type: ignore[attr-defined]


async def test_too_many_requests_are_turned_away(slow: Platform) -> None:
    asked = [ask(slow, "a") for _ in range(receiving.MAX_WAITING + 6)]
    answers = await asyncio.gather(*asked[receiving.MAX_WAITING + 1 :])
    assert {answer.status for answer in answers} == {503}  # type: ignore[union-attr]
    gate.set()
    answers = await asyncio.gather(*asked[: receiving.MAX_WAITING + 1])
    assert {answer.status for answer in answers} == {204}  # type: ignore[union-attr]


async def test_a_request_that_takes_too_long_is_ended_and_to_be_sent_again(slow: Platform) -> None:
    answer = await ask(slow, "a")
    assert answer is not None and answer.status == 504
    assert await slow.agent(Slow, "a").get() == 0
    gate.set()
    assert (await ask(slow, "a")).status == 204  # type: ignore[union-attr]


async def test_a_sender_that_hangs_up_ends_its_run(slow: Platform) -> None:
    asking = ask(slow, "a")
    await until(lambda: began)
    asking.cancel()
    await asyncio.wait([asking])
    await until(lambda: not slow._node.sensors._tasks)
    gate.set()
    assert await slow.agent(Slow, "a").get() == 0


async def test_an_agent_that_ends_meanwhile_hasnt_taken_it(slow: Platform) -> None:
    asking = ask(slow, "a")
    await until(lambda: began)
    slow._node._sweep_handle.cancel()
    slow._node._sweep()
    await slow.agents.restart(slow.agent(Slow, "a"))
    answer = await asking
    assert answer is not None and answer.status == 503
    assert await slow.agent(Slow, "a").get() == 0


async def test_agents_that_only_take_requests_are_passivated_but_not_while_they_take_one(slow: Platform) -> None:
    class Brief(Shop):
        pass

    shop = slow.agent(Brief, "a")
    await shop.get()
    node = slow._node
    assert not node.hosts["Brief"].type.resident
    await asyncio.sleep(0.01)
    node._sweep_handle.cancel()
    node._sweep()
    assert "a" not in node.hosts["Brief"].live
    asking = ask(slow, "b")
    await until(lambda: began)
    assert not node.hosts["Slow"].passivate(node.hosts["Slow"].live["b"])
    gate.set()
    assert (await asking).status == 204  # type: ignore[union-attr]
