"""Effects of turns: in their order to each receiver, side by side to different ones, once each, and all found again after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from jidosystem import Agent, OutboxFull, Platform, action, field
from tests.runtime.harness import Crashable, Store, settle, until, until_async


class World:
    """What the agents of these tests wait for; set afresh for each test."""

    gate: asyncio.Event


@pytest.fixture(autouse=True)
async def world_of_agents() -> AsyncIterator[None]:
    World.gate = asyncio.Event()
    yield
    World.gate.set()


class Sink(Agent):
    got: list[int] = field(default_factory=list)

    @action
    async def take(self, number: int) -> None:
        if self.key == "blocked":
            await World.gate.wait()
        self.got = [*self.got, number]


class Source(Agent):
    turns: int = 0

    @action
    async def send(self, *, to: list[str], numbers: list[int]) -> None:
        self.turns += 1
        for key in to:
            for number in numbers:
                self.cast(self.agent(Sink, key).take, number)
                self.emit("source.sent", number)

    @action
    async def remind_and_send(self) -> None:
        self.turns += 1
        self.remind("again", after=0, action=self.send, args={"to": ["x"], "numbers": [7]})

    @action
    async def give(self, things: list[int]) -> None:
        """What is changed after it was handed over was handed over as it was."""
        self.turns += 1
        self.emit("source.gave", things)
        self.cast(self.agent(Keeper, "k").keep, things)
        self.remind("later", after=0, action=self.keep_late, args={"things": things})
        things.append(99)

    @action
    async def keep_late(self, things: list[int]) -> None:
        self.cast(self.agent(Keeper, "late").keep, things)


class Keeper(Agent):
    things: list[int] = field(default_factory=list)
    same: list[int] = field(default_factory=list)

    @action
    async def keep(self, things: list[int]) -> list[int]:
        self.things = self.same = things
        return things

    @action
    async def add(self, number: int) -> None:
        self.things.append(number)


async def got(platform: Platform, key: str, numbers: list[int]) -> None:
    async def it() -> bool:
        fields = (await platform.agents.describe(platform.agent(Sink, key))).fields
        return fields is not None and fields["got"] == numbers

    await until_async(it, f"{key} getting {numbers}")


async def things(platform: Platform, key: str) -> tuple[list[int], list[int]]:
    fields = (await platform.agents.describe(platform.agent(Keeper, key))).fields
    assert fields is not None
    return fields["things"], fields["same"]


async def sent(platform: Platform) -> list[int]:
    return [event.data async for event in platform.events.read_all("source.sent")]


async def test_they_arrive_in_the_order_of_turns_and_casts(platform: Platform) -> None:
    source = platform.agent(Source, "a")
    await asyncio.gather(*(source.send(to=["x", "y"], numbers=[10 * turn + each for each in range(5)]) for turn in range(8)))
    expected = [10 * turn + each for turn in range(8) for each in range(5)]
    await got(platform, "x", expected)
    await got(platform, "y", expected)


async def test_a_blocked_receiver_holds_up_no_other_and_no_event(platform: Platform) -> None:
    await platform.agent(Source, "a").send(to=["blocked", "x"], numbers=[1, 2])
    await got(platform, "x", [1, 2])
    assert await sent(platform) == [1, 2, 1, 2]
    await got(platform, "blocked", [])
    World.gate.set()
    await got(platform, "blocked", [1, 2])


async def test_none_leaves_before_its_commit_and_none_if_that_fails(on_store: Platform, store: Store) -> None:
    source = on_store.agent(Source, "a")
    await source.send(to=["x"], numbers=[1])
    await got(on_store, "x", [1])
    store.fail_once("Source/a")
    with pytest.raises(Exception, match="gone for a moment"):
        await source.send(to=["x"], numbers=[2])
    await source.send(to=["x"], numbers=[3])
    await got(on_store, "x", [1, 3])
    assert await sent(on_store) == [1, 3]


async def test_a_crash_between_commit_and_sending_loses_and_doubles_none(world: Crashable) -> None:
    platform = await world.start([Source, Sink])
    for number in range(5):
        await platform.agent(Source, "a").send(to=["x"], numbers=[number])
        await world.crash()
        platform = await world.start([Source, Sink])
    await got(platform, "x", [0, 1, 2, 3, 4])
    assert await sent(platform) == [0, 1, 2, 3, 4]


async def test_a_crash_after_they_were_taken_and_before_that_was_noted_doubles_none(world: Crashable) -> None:
    platform = await world.start([Source, Sink])
    await platform.agent(Source, "a").send(to=["x", "y"], numbers=[1, 2])
    await got(platform, "x", [1, 2])
    await got(platform, "y", [1, 2])
    assert [row async for page in world.inner.scan("pending") for row in page] != []
    await world.crash()
    platform = await world.start([Source, Sink])

    async def settled() -> bool:
        return "a" in platform._node.hosts["Source"].live and (await platform.agents.describe(platform.agent(Source, "a"))).pending_effects == 0

    await until_async(settled)
    await got(platform, "x", [1, 2])
    await got(platform, "y", [1, 2])


async def test_the_effects_of_a_reminder_are_its_commits_too(world: Crashable) -> None:
    platform = await world.start([Source, Sink])
    await platform.agent(Source, "a").remind_and_send()
    await world.crash()  # before or after it rang
    platform = await world.start([Source, Sink])
    await got(platform, "x", [7])
    assert await sent(platform) == [7]


async def test_a_turn_with_too_many_changes_nothing_and_smaller_ones_go_on(url: str) -> None:
    async with Platform(url, config={"agents.max_pending_effects": 3}) as platform:
        source = platform.agent(Source, "a")
        await source.send(to=["blocked"], numbers=[1, 2])
        with pytest.raises(OutboxFull):
            await source.send(to=["x", "blocked"], numbers=[3])
        await source.send(to=["x"], numbers=[4])
        await got(platform, "x", [4])
        assert await sent(platform) == [1, 2, 4]
        World.gate.set()
        await got(platform, "blocked", [1, 2])

        async def there_is_room() -> bool:  # the receiver has its state a moment before the sender hears of it
            try:
                await source.send(to=["x", "y", "blocked"], numbers=[5])
            except OutboxFull:
                return False
            return True

        await until_async(there_is_room, "room for three effects")
        await got(platform, "blocked", [1, 2, 5])


async def test_what_is_changed_after_it_was_sent_was_sent_as_it_was(platform: Platform) -> None:
    mine = [1]
    await platform.agent(Source, "a").give(mine)

    async def kept() -> bool:
        return (await things(platform, "k"))[0] == [1] and (await things(platform, "late"))[0] == [1]

    await until_async(kept, "what was given")
    assert [event.data async for event in platform.events.read_all("source.gave")] == [[1]]
    assert mine == [1]


async def test_no_object_is_shared_between_fields_callers_and_observers(platform: Platform) -> None:
    keeper, mine = platform.agent(Keeper, "k"), [1]
    answer = await keeper.keep(mine)
    answer.append(50)
    mine.append(60)
    (await things(platform, "k"))[0].append(70)
    async for fields, _revision in platform.agents.watch(keeper):
        assert fields is not None
        fields["things"].append(80)
        break
    await keeper.add(2)
    assert await things(platform, "k") == ([1, 2], [1])
    await settle()
    await until(lambda: platform._node.hosts["Keeper"].live["k"].idle)
    await platform.agents.stop(keeper)
    assert await things(platform, "k") == ([1, 2], [1])
