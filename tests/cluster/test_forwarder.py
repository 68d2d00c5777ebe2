"""Events are forwarded to subjects of a real NATS server, from a store that isn't on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("nats", reason="the extra `cluster` isn't installed")

import nats

from jidosystem import InvalidArguments, InvalidConfig, NatsForwarder, Platform
from jidosystem.api.assembly import local_cluster


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with local_cluster(tmp_path_factory.mktemp("nats")) as url:
        yield url


async def take(subscription: Any, count: int) -> list[Any]:
    return [await subscription.next_msg(timeout=20) for _ in range(count)]


async def test_matching_events_are_stored_by_the_stream_once_and_in_order(url: str) -> None:
    client = await nats.connect(url)
    async with Platform(forwarders=[NatsForwarder(url, "shop.{type}", pattern="orders.**")]) as platform:
        published = [await platform.events.publish("orders.placed", {"order": 0})]
        await client.jetstream().add_stream(name="shop", subjects=["shop.>"], max_bytes=1_000_000)  # until then nobody takes it
        await platform.events.publish("mails.sent", {})
        published += [await platform.events.publish("orders.placed", {"order": number}) for number in range(1, 20)]
        subscription = await client.jetstream().subscribe("shop.>", ordered_consumer=True)
        messages = await take(subscription, 20)
    assert [json.loads(message.data)["data"]["order"] for message in messages] == [*range(20)]
    assert {message.subject for message in messages} == {"shop.orders.placed"}
    assert [message.headers["Nats-Msg-Id"] for message in messages] == [event.id for event in published]
    assert (await client.jetstream().stream_info("shop")).state.messages == 20
    await client.close()


async def test_without_a_stream_those_who_listen_get_them(url: str) -> None:
    client = await nats.connect(url)
    subscription = await client.subscribe("plain")
    await client.flush()
    async with Platform(forwarders=[NatsForwarder(url, "plain", stored=False)]) as platform:
        for number in range(5):
            await platform.events.publish("number.told", number)
        messages = await take(subscription, 5)
    assert [json.loads(message.data)["data"] for message in messages] == [*range(5)]
    await client.close()


async def test_an_event_that_the_server_does_not_take_is_a_dead_letter_and_the_next_one_goes(url: str) -> None:
    client = await nats.connect(url)
    subscription = await client.subscribe("plain")
    await client.flush()
    async with Platform(forwarders=[NatsForwarder(url, "plain", stored=False, name="out")]) as platform:
        await platform.events.publish("number.told", "x" * (client.max_payload + 1))
        await asyncio.sleep(0)
        await platform.events.publish("number.told", 1)
        (message,) = await take(subscription, 1)
        assert json.loads(message.data)["data"] == 1
        (letter,) = await platform.dead_letters.list(name="forward/out")
        assert "too large for NATS" in letter.error
    await client.close()


@pytest.mark.parametrize("subject", ["", "a..b", "a.>", "a.*", "a b", ".a", "x" * 201])
def test_what_is_no_subject_is_refused_at_once(subject: str) -> None:
    with pytest.raises(InvalidArguments, match="tokens with dots"):
        NatsForwarder("nats://host", subject)


def test_a_url_that_is_none_is_refused_and_no_password_is_shown() -> None:
    with pytest.raises(InvalidConfig, match="begins with nats://"):
        NatsForwarder("http://host")
    forwarder = NatsForwarder("nats://app:secret@host")
    assert "secret" not in repr(forwarder)
    assert forwarder.name == NatsForwarder("nats://app:other@host").name
    with pytest.raises(InvalidArguments, match="timeout"):
        NatsForwarder("nats://host", timeout=0)
