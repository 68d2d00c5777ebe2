"""A mailbox has a limit, and three ways to treat one message too many; what the platform itself delivers is never lost by any of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jidosystem import Agent, CallTimeout, Mailbox, MailboxFull, Platform, action, field
from tests.runtime.harness import settle, until, until_async


class World:
    """What the agents of these tests wait for; set afresh for each test."""

    gate: asyncio.Event


@pytest.fixture(autouse=True)
async def world_of_agents() -> AsyncIterator[None]:
    World.gate = asyncio.Event()
    yield
    World.gate.set()


class Rejecting(Agent):
    mailbox = Mailbox(max_size=2)
    done: list[int] = field(default_factory=list)

    @action
    async def work(self, number: int) -> int:
        await World.gate.wait()
        self.done = [*self.done, number]
        return number

    @action(readonly=True)
    async def all(self) -> list[int]:
        return self.done


class Dropping(Rejecting):
    mailbox = Mailbox(max_size=2, overflow="drop_oldest")


class Blocking(Rejecting):
    mailbox = Mailbox(max_size=2, overflow="block")


class Sender(Agent):
    turns: int = 0

    @action
    async def send(self, kind: str, number: int) -> None:
        self.turns += 1
        cls = {"Rejecting": Rejecting, "Dropping": Dropping, "Blocking": Blocking}[kind]
        self.cast(self.agent(cls, "a").work, number)


async def busy(platform: Platform, cls: type[Rejecting], *waiting: int) -> tuple[Any, list[asyncio.Future[int]]]:
    """An agent that runs number 0 and has others in its mailbox."""
    ref = platform.agent(cls, "a")
    await ref.all()
    calls: list[asyncio.Future[int]] = []
    for number in (0, *waiting):
        calls.append(asyncio.ensure_future(ref.work(number)))
        await settle()
    return ref, calls


def queued(platform: Platform, cls: type[Rejecting]) -> int:
    queue = platform._node.hosts[cls.__name__].live["a"].queue
    return len(queue) if queue is not None else 0


# -- reject ------------------------------------------------------------------------------------------------------


async def test_reject_refuses_calls_casts_and_keyed_calls_beyond_the_limit_and_the_others_run(platform: Platform) -> None:
    ref, calls = await busy(platform, Rejecting, 1, 2)
    with pytest.raises(MailboxFull) as caught:
        await ref.work(3)
    assert (caught.value.agent, caught.value.limit) == ("Rejecting/a", 2)
    with pytest.raises(MailboxFull):
        await platform.cast(ref.work, 4)
    with pytest.raises(MailboxFull):
        await platform.call(ref.work, 5, idempotency_key="k")
    World.gate.set()
    assert await asyncio.gather(*calls) == [0, 1, 2]
    assert await platform.call(ref.work, 5, idempotency_key="k") == 5  # the refusal stored nothing
    assert await ref.all() == [0, 1, 2, 5]


async def test_a_call_that_was_given_up_makes_room(platform: Platform) -> None:
    ref, calls = await busy(platform, Rejecting, 1, 2)
    calls[1].cancel()
    await settle()
    third = asyncio.ensure_future(ref.work(3))
    await settle()
    World.gate.set()
    assert await asyncio.gather(calls[0], calls[2], third) == [0, 2, 3]
    assert await ref.all() == [0, 2, 3]


# -- drop_oldest -------------------------------------------------------------------------------------------------


async def test_drop_oldest_drops_what_has_waited_longest_and_its_caller_hears_of_it(platform: Platform) -> None:
    ref, calls = await busy(platform, Dropping, 1, 2)
    newest = asyncio.ensure_future(ref.work(3))
    with pytest.raises(MailboxFull):
        await calls[1]
    World.gate.set()
    assert await asyncio.gather(calls[0], calls[2], newest) == [0, 2, 3]
    assert await ref.all() == [0, 2, 3]


async def test_drop_oldest_drops_casts_from_outside_too(platform: Platform) -> None:
    ref, calls = await busy(platform, Dropping)
    for number in range(1, 6):
        await platform.cast(ref.work, number)
    World.gate.set()
    await asyncio.gather(*calls)
    await until(lambda: queued(platform, Dropping) == 0, "the casts that are left")
    assert await ref.all() == [0, 4, 5]


async def test_a_keyed_call_that_was_dropped_can_be_repeated_and_runs_once(platform: Platform) -> None:
    ref, calls = await busy(platform, Dropping)
    keyed = asyncio.ensure_future(platform.call(ref.work, 1, idempotency_key="k"))
    await settle()
    others = [asyncio.ensure_future(ref.work(number)) for number in (2, 3)]
    with pytest.raises(MailboxFull):
        await keyed
    World.gate.set()
    assert await asyncio.gather(*calls, *others) == [0, 2, 3]
    assert [await platform.call(ref.work, 1, idempotency_key="k") for _ in range(2)] == [1, 1]
    assert await ref.all() == [0, 2, 3, 1]


async def test_drop_oldest_never_drops_what_the_platform_delivers(platform: Platform) -> None:
    ref, calls = await busy(platform, Dropping)
    for number in (1, 2):
        await platform.agent(Sender, str(number)).send("Dropping", number)
    await until(lambda: queued(platform, Dropping) == 2, "the deliveries")
    with pytest.raises(MailboxFull):
        await ref.work(9)
    World.gate.set()
    await asyncio.gather(*calls)

    async def all_there() -> bool:
        return sorted(await ref.all()) == [0, 1, 2]

    await until_async(all_there, "the effects")


# -- block -------------------------------------------------------------------------------------------------------


async def test_block_lets_senders_wait_and_takes_them_in_the_order_of_coming(platform: Platform) -> None:
    ref, calls = await busy(platform, Blocking, 1, 2)
    for number in range(3, 7):
        calls.append(asyncio.ensure_future(ref.work(number)))
        await settle()
    cast = asyncio.ensure_future(platform.cast(ref.work, 7))
    await settle()
    assert not cast.done()
    assert queued(platform, Blocking) == 2
    World.gate.set()
    assert await asyncio.gather(*calls) == list(range(7))
    await cast

    async def all_there() -> bool:
        return await ref.all() == list(range(8))

    await until_async(all_there, "the cast")


async def test_whoever_waits_for_room_in_vain_was_never_accepted(platform: Platform) -> None:
    ref, calls = await busy(platform, Blocking, 1, 2)
    with pytest.raises(CallTimeout) as caught:
        await platform.call(ref.work, 3, timeout=0.02)
    assert caught.value.uncertain is False
    World.gate.set()
    assert await asyncio.gather(*calls) == [0, 1, 2]
    assert await ref.work(4) == 4
    assert await ref.all() == [0, 1, 2, 4]


async def test_a_keyed_call_waits_for_room_too(platform: Platform) -> None:
    ref, calls = await busy(platform, Blocking, 1, 2)
    keyed = asyncio.ensure_future(platform.call(ref.work, 3, idempotency_key="k"))
    await settle()
    assert not keyed.done()
    assert queued(platform, Blocking) == 2
    World.gate.set()
    assert await asyncio.gather(*calls, keyed) == [0, 1, 2, 3]
    assert await platform.call(ref.work, 3, idempotency_key="k") == 3
    assert await ref.all() == [0, 1, 2, 3]


# -- what the platform delivers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Rejecting, Dropping, Blocking])
async def test_effects_for_a_full_mailbox_stay_with_their_sender_and_come_again_once(platform: Platform, kind: type[Rejecting]) -> None:
    ref, calls = await busy(platform, kind, 1, 2)
    for number in (10, 11, 12):
        await platform.agent(Sender, "s").send(kind.__name__, number)
    await settle()
    World.gate.set()
    await asyncio.gather(*calls, return_exceptions=True)

    async def all_there() -> bool:
        return (await ref.all())[-3:] == [10, 11, 12]

    await until_async(all_there, "the effects")
    assert await ref.all() == [0, 1, 2, 10, 11, 12]
    assert await platform.dead_letters.list() == []
