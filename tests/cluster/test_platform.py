"""Platforms on real NATS servers: the same program on several nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

pytest.importorskip("nats", reason="the extra `cluster` isn't installed")

from jidosystem import Agent, Event, InvalidConfig, Platform, action, on_event
from jidosystem.api.assembly import local_cluster


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
    async def ring(self) -> None:
        self.remind("rung", after=0.2, action=self.add, args={"amount": 100})


class Tally(Agent):
    total: int = 0

    @on_event("counter.*", key="data.key")
    async def count(self, event: Event) -> None:
        self.total += event.data["amount"]

    @action(readonly=True)
    async def get(self) -> int:
        return self.total


KEYS = [f"k{n}" for n in range(10)]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with local_cluster(tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest.fixture
async def two(url: str, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Platform, Platform]]:
    config = {"platform.cluster_name": request.node.name.replace("_", "-")[-32:].strip("-")}
    async with (
        Platform(url, agents=[Counter, Tally], name="a", config=config) as a,
        Platform(url, agents=[Counter, Tally], name="b", config=config) as b,
    ):
        yield a, b


async def is_soon(ref: Counter | Tally, value: int) -> None:
    for _ in range(400):
        if await ref.get() == value:
            return
        await asyncio.sleep(0.025)
    assert await ref.get() == value


async def test_agents_events_casts_and_reminders_are_the_same_from_every_node(two: tuple[Platform, Platform]) -> None:
    a, b = two
    for key in KEYS:
        assert await a.agent(Counter, key).add() == 1
        assert await b.agent(Counter, key).add() == 2
        await a.cast(a.agent(Counter, key).add, 5, durable=True)
        await b.agent(Counter, key).ring()
    for key in KEYS:
        await is_soon(b.agent(Counter, key), 107)
        await is_soon(a.agent(Tally, key), 107)
    live = [[*platform._node.hosts["Counter"].live] for platform in two]
    assert sorted(live[0] + live[1]) == KEYS
    assert live[0] and live[1]


async def test_a_cluster_that_ends_and_starts_again_has_everything(url: str) -> None:
    for round_ in range(1, 3):
        async with Platform(url, agents=[Counter, Tally], name="a", config={"platform.cluster_name": "again"}) as platform:
            for key in KEYS:
                assert await platform.agent(Counter, key).add() == round_
            for key in KEYS:
                await is_soon(platform.agent(Tally, key), round_)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nats://", "names no server"),
        ("nats://token@host", "user and password"),
        ("nats://host:port", "[Pp]ort"),
        ("nats://host?repplicas=3", "replicas"),
        ("nats://user:secret@host?replicas=many", "replicas"),
    ],
)
def test_a_url_that_is_none_is_refused_without_its_password(url: str, said: str) -> None:
    with pytest.raises(InvalidConfig, match=said) as raised:
        Platform(url)
    assert "secret" not in str(raised.value)


async def test_servers_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"127\.0\.0\.1:1"):
        async with asyncio.timeout(30), Platform("nats://127.0.0.1:1"):
            raise AssertionError
