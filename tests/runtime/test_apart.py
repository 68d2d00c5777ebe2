"""Where records and log are two engines, what a turn emits waits beside its record and comes into the log once."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from jidosystem import Agent, Event, action, on_event
from jidosystem.backends.memory import MemoryRecords
from jidosystem.core.errors import TooLarge
from tests.runtime.harness import Crashable, until, until_async


class Shop(Agent):
    sold: int = 0

    @action
    async def sell(self, many: int = 1) -> int:
        for _ in range(many):
            self.sold += 1
            self.emit("shop.sold", self.sold)
        return self.sold

    @action
    async def boast(self, text: str) -> None:
        self.sold += 1
        self.emit("shop.boasted", text)

    @action
    async def close(self) -> None:
        self.emit("shop.closed", self.sold)
        self.delete()


class Books(Agent):
    seen: int = 0

    @on_event("shop.*", key="source")
    async def note(self, event: Event) -> None:
        self.seen += 1

    @action(readonly=True)
    async def total(self) -> int:
        return self.seen


@pytest.fixture
async def world() -> AsyncIterator[Crashable]:
    world = Crashable(MemoryRecords(apart=True))
    yield world
    await world.close()


async def _logged(world: Crashable) -> list[object]:
    return [event.data async for page in world.apart.read() for event in page]


async def test_events_come_into_the_log_in_the_order_of_turns_and_to_their_subscribers(world: Crashable) -> None:
    platform = await world.start([Shop, Books])
    shop = platform.agent(Shop, "a")
    for _ in range(3):
        await shop.sell(2)
    await until_async(lambda: _has(world, 6))
    assert await _logged(world) == [1, 2, 3, 4, 5, 6]
    books = platform.agent(Books, "Shop/a")
    await until_async(lambda: _is(books, 6))


async def _has(world: Crashable, count: int) -> bool:
    return len(await _logged(world)) >= count


async def _is(books: Books, count: int) -> bool:
    return await books.total() == count


async def test_what_was_emitted_before_a_crash_is_appended_without_a_call(world: Crashable) -> None:
    platform = await world.start([Shop])
    alive = world.apart.store._alive

    async def never() -> None:
        world.apart.store.dead = True
        await alive()

    world.apart.store._alive = never  # type: ignore[method-assign]  # the store dies as the first event would be appended
    await platform.agent(Shop, "a").sell(3)
    await until(lambda: world.store.dead)
    await world.crash()
    assert await _logged(world) == []
    await world.start([Shop])
    await until_async(lambda: _has(world, 3))
    assert await _logged(world) == [1, 2, 3]


@pytest.mark.parametrize("unknown", ["happened", "lost"])
async def test_an_append_whose_outcome_is_unknown_is_made_once(world: Crashable, unknown: str) -> None:
    platform = await world.start([Shop])
    world.apart.unknown = unknown
    await platform.agent(Shop, "a").sell(2)
    await platform.agent(Shop, "a").sell()
    await until_async(lambda: _has(world, 3))
    assert await _logged(world) == [1, 2, 3]


async def test_what_was_appended_and_not_noted_is_not_appended_again(world: Crashable) -> None:
    platform = await world.start([Shop])
    await platform.agent(Shop, "a").sell(2)
    await until_async(lambda: _has(world, 2))
    await world.crash()
    platform = await world.start([Shop])
    await until(lambda: platform._node.hosts["Shop"].live.get("a") is not None)  # woken for the sake of its row
    await platform.agent(Shop, "a").sell()
    await until_async(lambda: _has(world, 3))
    assert await _logged(world) == [1, 2, 3]


async def test_an_event_that_the_log_can_not_hold_fails_its_turn(world: Crashable) -> None:
    world.apart.max_event_bytes = 1_000
    platform = await world.start([Shop])
    with pytest.raises(TooLarge, match=r"shop\.boasted"):
        await platform.agent(Shop, "a").boast("x" * 2_000)
    assert await platform.agent(Shop, "a").sell() == 1


async def test_the_last_words_of_a_deleted_agent_are_appended_and_it_goes_on_with_larger_numbers(world: Crashable) -> None:
    platform = await world.start([Shop])
    shop = platform.agent(Shop, "a")
    await shop.sell()
    await shop.close()
    await until_async(lambda: _has(world, 2))
    assert await shop.sell() == 1
    await until_async(lambda: _has(world, 3))
    assert await _logged(world) == [1, 1, 1]
