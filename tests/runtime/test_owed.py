"""What a failed agent had committed to send is sent all the same, once and in order, whether or not the node starts again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from jidosystem import Agent, AgentCrashed, AgentFailed, Platform, Supervision, action, field, on_start
from jidosystem.core.records import Records
from tests.runtime.harness import Crashable, until, until_async


class World:
    """What the agents of these tests are told from outside; set afresh for each test."""

    broken: bool
    gate: asyncio.Event


@pytest.fixture(autouse=True)
async def world_of_agents() -> AsyncIterator[None]:
    World.broken, World.gate = False, asyncio.Event()
    yield
    World.gate.set()


class Fatal(Exception):
    """Crashes the agent that raises it."""


class Till(Agent):
    """Takes its time, and notes the order in which it was told."""

    seen: list[int] = field(default_factory=list)

    @action
    async def take(self, number: int) -> None:
        await World.gate.wait()
        self.seen = [*self.seen, number]


class Payer(Agent):
    supervision = Supervision(max_restarts=0, crash_on=(Fatal,))
    turns: int = 0

    @on_start
    async def begin(self) -> None:
        if World.broken:
            raise Fatal("no start")

    @action
    async def pay(self, number: int) -> None:
        self.turns += 1
        self.cast(self.agent(Till, "t").take, number)

    @action
    async def die(self) -> None:
        raise Fatal("gone")


async def seen(platform: Platform) -> list[int]:
    fields = (await platform.agents.describe(platform.agent(Till, "t"))).fields
    assert fields is not None
    numbers: list[int] = fields["seen"]
    return numbers


async def owed_rows(records: Records) -> list[str]:
    return [row.name async for page in records.scan("pending") for row in page if row.agent == "Payer/p"]


async def pay_and_fail(platform: Platform) -> None:
    payer = platform.agent(Payer, "p")
    for number in range(3):
        await payer.pay(number)
    await die(platform)


async def die(platform: Platform) -> None:
    payer = platform.agent(Payer, "p")
    with pytest.raises(Fatal):
        await payer.die()

    async def failed() -> bool:
        return (await platform.agents.describe(payer)).state == "failed"

    await until_async(failed, "failing")


async def test_what_a_failed_agent_committed_to_send_is_sent_and_then_forgotten(world: Crashable) -> None:
    platform = await world.start([Till, Payer])
    await pay_and_fail(platform)
    World.gate.set()

    async def paid() -> bool:
        return await seen(platform) == [0, 1, 2] and not await owed_rows(world.inner)

    await until_async(paid, "the payment")
    info = await platform.agents.describe(platform.agent(Payer, "p"))
    assert (info.state, info.pending_effects) == ("failed", 0)


async def test_a_start_of_the_node_sends_what_failed_agents_owe_without_anybody_calling(world: Crashable) -> None:
    platform = await world.start([Till, Payer])
    await pay_and_fail(platform)
    await world.crash()
    assert len(await owed_rows(world.inner)) == 3
    World.gate.set()
    platform = await world.start([Till, Payer])

    async def paid() -> bool:
        return await seen(platform) == [0, 1, 2] and not await owed_rows(world.inner)

    await until_async(paid, "the payment")
    assert (await platform.agents.describe(platform.agent(Payer, "p"))).state == "failed"


async def test_an_agent_that_is_restarted_meanwhile_pays_once(world: Crashable) -> None:
    platform = await world.start([Till, Payer])
    await pay_and_fail(platform)
    payer = platform.agent(Payer, "p")
    await platform.agents.restart(payer)
    await payer.pay(3)
    World.gate.set()

    async def paid() -> bool:
        return len(await seen(platform)) >= 4

    await until_async(paid, "the payment")
    await platform.agents.stop(payer)
    assert await seen(platform) == [0, 1, 2, 3]
    assert await owed_rows(world.inner) == []
    await platform.agents.start(Payer, "p")
    assert (await platform.agents.describe(payer)).pending_effects == 0


async def test_an_agent_that_fails_at_a_start_of_the_node_pays_too(world: Crashable) -> None:
    platform = await world.start([Till, Payer])
    await platform.agent(Payer, "p").pay(7)
    await world.crash()
    World.broken = True
    World.gate.set()
    platform = await world.start([Till, Payer])

    async def paid() -> bool:
        return await seen(platform) == [7] and not await owed_rows(world.inner)

    await until_async(paid, "the payment")
    with pytest.raises((AgentFailed, AgentCrashed)):
        await platform.agent(Payer, "p").pay(8)


async def test_a_failed_agent_that_is_deleted_pays_once(world: Crashable) -> None:
    platform = await world.start([Till, Payer])
    await pay_and_fail(platform)
    await platform.agents.delete(platform.agent(Payer, "p"))
    World.gate.set()

    async def paid() -> bool:
        return await seen(platform) == [0, 1, 2] and not await owed_rows(world.inner)

    await until_async(paid, "the payment")


async def test_what_is_still_owed_doesnt_hold_up_the_platforms_end(world: Crashable) -> None:
    platform = await world.start([Till, Payer], config={"platform.shutdown_timeout": 0.1})
    await pay_and_fail(platform)
    await until(lambda: "t" in platform._node.hosts["Till"].live)
    await world.close()
    assert len(await owed_rows(world.inner)) == 3


async def test_what_an_agent_owes_that_failed_again_while_its_first_debts_were_under_way_is_sent_too(world: Crashable, stored: Records) -> None:
    platform = await world.start([Till, Payer])
    await pay_and_fail(platform)
    payer = platform.agent(Payer, "p")
    await platform.agents.restart(payer)
    await payer.pay(3)
    await die(platform)
    World.gate.set()

    async def all_paid() -> bool:
        return await seen(platform) == [0, 1, 2, 3] and not await owed_rows(stored)

    await until_async(all_paid)
