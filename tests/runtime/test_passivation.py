"""Agents leave memory when they are idle or too many, and only then: never in a turn, a commit, a queue, or before their timers."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jidosystem import Agent, Lifecycle, Platform, action, field, on_terminate
from tests.runtime.harness import Store, settle, until

TOO_SHORT_S = 1e-6
"""An idle time that is over at the next look."""


class World:
    """What the agents of these tests wait for; set afresh for each test."""

    gate: asyncio.Event


@pytest.fixture(autouse=True)
async def world_of_agents() -> AsyncIterator[None]:
    World.gate = asyncio.Event()
    yield
    World.gate.set()


class Brief(Agent):
    lifecycle = Lifecycle(idle_timeout=TOO_SHORT_S)
    value: int = 0
    ticks: int = 0

    @action
    async def add(self) -> int:
        self.value += 1
        return self.value

    @action
    async def add_slowly(self) -> int:
        self.value += 1
        await World.gate.wait()
        self.value += 1
        return self.value

    @action(readonly=True)
    async def read_slowly(self) -> int:
        await World.gate.wait()
        return self.value

    @action
    async def set_timer(self, seconds: float) -> None:
        self.after(seconds, self.tick)

    @action
    async def tick(self) -> None:
        self.ticks += 1

    @action
    async def send(self) -> None:
        self.value += 1
        self.cast(self.agent(Slow, "s").wait)


class Slow(Agent):
    lifecycle = Lifecycle(idle_timeout=3600)
    done: int = 0

    @action
    async def wait(self) -> int:
        await World.gate.wait()
        self.done += 1
        return self.done

    @action
    async def touch(self) -> int:
        self.done += 1
        return self.done

    @action(readonly=True)
    async def look(self) -> int:
        return self.done


class Polite(Brief):
    said: list[str] = field(default_factory=list)

    @on_terminate
    async def bye(self) -> None:
        self.said = [*self.said, "bye"]


def live(platform: Platform, cls: type[Agent]) -> set[str]:
    return set(platform._node.hosts[cls.__name__].live)


def look_for_idle(platform: Platform) -> None:
    """What the node does every second."""
    handle = platform._node._sweep_handle
    if handle is not None:
        handle.cancel()
    platform._node._sweep()


async def test_an_idle_agent_goes_and_comes_back_as_it_was(platform: Platform) -> None:
    ref, other = platform.agent(Brief, "a"), platform.agent(Slow, "b")
    assert (await ref.add(), await other.touch()) == (1, 1)
    look_for_idle(platform)
    assert (live(platform, Brief), live(platform, Slow)) == (set(), {"b"})  # each type has its own idle time
    assert (await platform.agents.describe(ref)).state == "passive"
    assert await ref.add() == 2


@pytest.mark.parametrize("kind", [Brief, Polite])
async def test_its_memory_goes_with_it_although_somebody_keeps_a_reference(platform: Platform, kind: type[Brief]) -> None:
    ref = platform.agent(kind, "a")
    await ref.add()
    instance: weakref.ref[Any] = weakref.ref(platform._node.hosts[kind.__name__].live["a"].instance)
    assert instance() is not None
    look_for_idle(platform)
    await until(lambda: not live(platform, kind))
    await until(lambda: instance() is None, "its end")
    assert platform._node.live_count == 0
    assert await ref.add() == 2


async def test_never_in_the_middle_of_a_turn_nor_while_callers_wait(platform: Platform) -> None:
    ref = platform.agent(Brief, "a")
    await ref.add()
    calls = [asyncio.ensure_future(call) for call in (ref.add_slowly(), ref.add())]
    await settle()
    for _ in range(3):
        look_for_idle(platform)
        await settle()
    assert live(platform, Brief) == {"a"}
    World.gate.set()
    assert await asyncio.gather(*calls) == [3, 4]
    look_for_idle(platform)
    assert live(platform, Brief) == set()


async def test_never_in_the_middle_of_a_read_only_turn(platform: Platform) -> None:
    ref = platform.agent(Brief, "a")
    await ref.add()
    reading = asyncio.ensure_future(ref.read_slowly())
    await settle()
    look_for_idle(platform)
    assert live(platform, Brief) == {"a"}
    World.gate.set()
    assert await reading == 1


async def test_never_before_a_commit_has_returned(on_store: Platform, store: Store) -> None:
    ref = on_store.agent(Brief, "a")
    await ref.add()
    store.hold()
    call = asyncio.ensure_future(ref.add())
    await until(lambda: store.held)
    look_for_idle(on_store)
    assert live(on_store, Brief) == {"a"}
    store.release()
    assert await call == 2


async def test_a_pending_timer_keeps_it(platform: Platform) -> None:
    ref = platform.agent(Brief, "a")
    await ref.set_timer(0.05)
    look_for_idle(platform)
    await platform.config.update("agents.max_live", 1)
    await platform.agent(Slow, "b").touch()  # one too many
    assert live(platform, Brief) == {"a"}
    activation = platform._node.hosts["Brief"].live["a"]
    await until(lambda: activation.instance.ticks == 1 and activation.idle, "the timer")
    look_for_idle(platform)
    assert live(platform, Brief) == set()


async def test_an_effect_that_nobody_has_taken_keeps_it(platform: Platform) -> None:
    await platform.agent(Brief, "a").send()
    await until(lambda: "s" in live(platform, Slow))
    look_for_idle(platform)
    await settle()
    assert live(platform, Brief) == {"a"}
    World.gate.set()

    def gone() -> bool:
        look_for_idle(platform)
        return live(platform, Brief) == set()

    await until(gone, "its going")
    assert [row async for page in platform._node.records.scan("pending") for row in page] == []


async def test_the_hook_runs_before_it_goes_and_what_it_leaves_is_stored(platform: Platform) -> None:
    ref = platform.agent(Polite, "a")
    await ref.add()
    look_for_idle(platform)
    await until(lambda: live(platform, Polite) == set())
    fields = (await platform.agents.describe(ref)).fields
    assert fields is not None
    assert (fields["said"], fields["value"]) == (["bye"], 1)


async def test_a_call_that_comes_while_it_goes_is_served_by_its_successor(platform: Platform) -> None:
    ref = platform.agent(Polite, "a")
    for expected in range(1, 20):
        assert await ref.add() == expected
        look_for_idle(platform)


async def test_over_the_nodes_limit_the_least_recently_used_go(url: str) -> None:
    async with Platform(url, config={"agents.max_live": 3}) as platform:
        for key in ("a", "b", "c"):
            await platform.agent(Slow, key).touch()
        await platform.agent(Slow, "a").look()  # reading is using
        await platform.agent(Slow, "d").touch()
        assert live(platform, Slow) == {"a", "c", "d"}
        await platform.agent(Slow, "c").touch()
        await platform.agent(Slow, "e").touch()
        assert live(platform, Slow) == {"c", "d", "e"}
        assert [await platform.agent(Slow, key).look() for key in "abcde"] == [1, 1, 2, 1, 1]
        assert platform._node.live_count == 3


async def test_the_limit_waits_for_who_is_busy(url: str) -> None:
    async with Platform(url, config={"agents.max_live": 2}) as platform:
        calls = [asyncio.ensure_future(platform.agent(Slow, str(number)).wait()) for number in range(6)]
        await until(lambda: len(live(platform, Slow)) == 6)
        World.gate.set()
        assert await asyncio.gather(*calls) == [1] * 6
        for number in range(10, 15):
            await platform.agent(Slow, str(number)).touch()
        assert [await platform.agent(Slow, str(number)).look() for number in range(6)] == [1] * 6


async def test_more_agents_than_may_live_lose_nothing(url: str) -> None:
    async with Platform(url, config={"agents.max_live": 10}) as platform:
        for _ in range(3):
            await asyncio.gather(*(platform.agent(Slow, str(number)).touch() for number in range(60)))
        assert await asyncio.gather(*(platform.agent(Slow, str(number)).look() for number in range(60))) == [3] * 60
