"""Timers: they start with the commit, belong to one activation, and are gone with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from jidosystem import Agent, InvalidArguments, Platform, Supervision, action, field
from tests.runtime.harness import PlatformOn, Store, settle, until, until_async


class Fatal(Exception):
    """Crashes the agent that raises it."""


class Kettle(Agent):
    supervision = Supervision(crash_on=(Fatal,))
    heard: list[str] = field(default_factory=list)

    @action
    async def set(self, *, timers: dict[str, float]) -> None:
        for what, seconds in timers.items():
            self.after(seconds, self.whistle, args={"what": what})

    @action
    async def set_and_fail(self) -> None:
        self.after(0, self.whistle, args={"what": "never"})
        raise ValueError("no")

    @action
    async def set_badly(self, seconds: float) -> None:
        self.after(seconds, self.whistle, args={"what": "x"})

    @action
    async def set_with(self, argument: str) -> None:
        self.after(1, self.whistle, args={argument: "x"})

    @action
    async def fail_later(self) -> None:
        self.after(0, self.fail)
        self.after(0.01, self.whistle, args={"what": "after"})

    @action
    async def fail(self) -> None:
        self.heard = ["failed"]
        raise ValueError("no")

    @action
    async def whistle(self, what: str) -> None:
        self.heard = [*self.heard, what]

    @action
    async def crash(self) -> None:
        raise Fatal

    @action(readonly=True)
    async def all(self) -> list[str]:
        return self.heard


@pytest.fixture
async def held(store: Store) -> AsyncIterator[Platform]:
    async with PlatformOn(store) as running:
        yield running


def timers(platform: Platform, key: str = "a") -> int:
    extra = platform._node.hosts["Kettle"].live[key].extra
    return len(extra.timers) if extra is not None else 0


async def test_timers_of_one_turn_ring_in_the_order_of_their_times(platform: Platform) -> None:
    ref = platform.agent(Kettle, "a")
    await ref.set(timers={"late": 0.03, "soon": 0.01, "at once": 0})

    async def all_rang() -> bool:
        return await ref.all() == ["at once", "soon", "late"]

    await until_async(all_rang, "the timers")
    assert timers(platform) == 0


async def test_a_turn_that_fails_starts_none(platform: Platform) -> None:
    ref = platform.agent(Kettle, "a")
    with pytest.raises(ValueError, match="no"):
        await ref.set_and_fail()
    await settle()
    assert await ref.all() == []


async def test_it_starts_with_the_commit_and_not_with_one_that_fails(held: Platform, store: Store) -> None:
    ref = held.agent(Kettle, "a")
    await ref.whistle("first")
    store.hold()
    call = asyncio.ensure_future(ref.set(timers={"x": 0, "y": 3600}))
    call_two = asyncio.ensure_future(ref.whistle("second"))
    await until(lambda: store.held)
    assert timers(held) == 0
    store.release()
    await asyncio.gather(call, call_two)

    async def rang() -> bool:
        return "x" in await ref.all()

    await until_async(rang)
    assert timers(held) == 1
    store.fail_once("Kettle/a")
    with pytest.raises(Exception, match="gone for a moment"):
        await asyncio.gather(ref.set(timers={"z": 0}), ref.whistle("third"))
    await settle()
    assert "z" not in await ref.all()


@pytest.mark.parametrize("way", ["stop", "delete", "restart", "crash"])
async def test_it_is_gone_with_its_activation(platform: Platform, way: str) -> None:
    ref = platform.agent(Kettle, "a")
    await ref.set(timers={"x": 3600})
    extra = platform._node.hosts["Kettle"].live["a"].extra
    assert extra is not None
    (handle,) = extra.timers
    if way == "crash":
        with pytest.raises(Fatal):
            await ref.crash()
    else:
        await getattr(platform.agents, way)(ref)
    await until(handle.cancelled, "its end")
    assert await ref.all() == []
    assert timers(platform) == 0


async def test_one_whose_action_fails_is_rolled_back_and_the_others_ring(platform: Platform) -> None:
    ref = platform.agent(Kettle, "a")
    await ref.fail_later()

    async def rang() -> bool:
        return await ref.all() == ["after"]

    await until_async(rang)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), 1e12])
async def test_an_impossible_time_is_refused(platform: Platform, seconds: float) -> None:
    with pytest.raises(InvalidArguments, match="seconds"):
        await platform.agent(Kettle, "a").set_badly(seconds)


async def test_its_arguments_are_checked_when_it_is_set(platform: Platform) -> None:
    with pytest.raises(InvalidArguments, match="missing a required argument: 'what'"):
        await platform.agent(Kettle, "a").set_with("who")
