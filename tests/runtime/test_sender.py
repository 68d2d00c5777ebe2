"""Durable casts from outside: refused at once if they can't be, sent once under a key."""

from __future__ import annotations

import pytest

from jidosystem import Agent, IdempotencyConflict, InvalidArguments, Platform, action
from tests.runtime.harness import Crashable


class Till(Agent):
    """Takes money."""

    cents: int = 0

    @action
    async def take(self, cents: int) -> None:
        self.cents += cents

    @action
    async def owe(self, to: str) -> None: ...


async def taken(platform: Platform, expected: int) -> None:
    async for fields, _revision in platform.agents.watch(platform.agent(Till, "t")):
        if fields is not None and fields["cents"] >= expected:
            assert fields["cents"] == expected
            return


async def test_arguments_that_do_not_fit_are_refused_before_anything_is_stored(platform: Platform) -> None:
    till = platform.agent(Till, "t")
    with pytest.raises(InvalidArguments, match="cents"):
        await platform.cast(till.take, "five", durable=True)  # type: ignore[arg-type]
    assert [row async for page in platform._node.records.scan("pending") for row in page] == []


async def test_with_a_key_it_takes_effect_once_however_often_it_is_repeated(world: Crashable) -> None:
    platform = await world.start(agents=[Till])
    for _ in range(3):
        await platform.cast(platform.agent(Till, "t").take, 5, durable=True, idempotency_key="payment-7")
    await taken(platform, 5)
    await world.crash()
    platform = await world.start(agents=[Till])
    await platform.cast(platform.agent(Till, "t").take, 5, durable=True, idempotency_key="payment-7")
    await platform.cast(platform.agent(Till, "t").take, 1, durable=True, idempotency_key="payment-8")
    await taken(platform, 6)


async def test_a_key_that_stands_for_something_else_is_a_conflict_that_names_the_receiver(platform: Platform) -> None:
    till = platform.agent(Till, "t")
    await platform.cast(till.take, 5, durable=True, idempotency_key="k")
    with pytest.raises(IdempotencyConflict, match="Till/t: the idempotency key 'k'"):
        await platform.cast(till.take, 6, durable=True, idempotency_key="k")
    await platform.cast(platform.agent(Till, "other").take, 6, durable=True, idempotency_key="k")


async def test_a_reference_as_an_argument_is_told_to_be_handed_over_as_a_key(platform: Platform) -> None:
    till = platform.agent(Till, "t")
    with pytest.raises(InvalidArguments, match="hand over the agent's key"):
        await till.owe(till)  # type: ignore[arg-type]
