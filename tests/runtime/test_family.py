"""Parents and children: how a child is named, what its crash means for its siblings and its parent, and how they go together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jidosystem import (
    Agent,
    AgentCrashed,
    AgentFailed,
    InvalidArguments,
    InvalidKey,
    NoPlatform,
    Platform,
    ReadOnlyTurn,
    Supervision,
    action,
    field,
    on_child_failed,
    on_start,
    on_terminate,
)
from tests.runtime.harness import Crashable, Store, until, until_async


class Trouble(Exception):
    """An error that these tests count as a crash."""


class Told:
    """What happened, in order; set afresh for each test."""

    events: list[str] = []  # noqa: RUF012 - replaced, never shared
    gate: asyncio.Event


@pytest.fixture(autouse=True)
async def told() -> AsyncIterator[list[str]]:
    Told.events, Told.gate = [], asyncio.Event()
    yield Told.events
    Told.gate.set()


class Child(Agent):
    supervision = Supervision(max_restarts=1, crash_on=(Trouble,))
    value: int = 0

    @on_start
    async def begin(self) -> None:
        Told.events.append(f"start {self.key.rpartition('/')[2]}")

    @on_terminate
    async def end(self) -> None:
        Told.events.append(f"stop {self.key.rpartition('/')[2]}")

    @action
    async def add(self) -> int:
        self.value += 1
        return self.value

    @action
    async def crash(self) -> None:
        raise Trouble("a leak")

    @action
    async def wait(self) -> int:
        await Told.gate.wait()
        self.value += 1
        return self.value

    @action
    async def grow(self, name: str) -> int:
        return await self.child(Child, name).add()

    @action(readonly=True)
    async def look(self) -> tuple[str, ...]:
        return self.children


class Parent(Agent):
    """Without `@on_child_failed`: a child that fails takes it along."""

    supervision = Supervision(max_restarts=1)
    value: int = 0

    @on_start
    async def begin(self) -> None:
        Told.events.append(f"start {self.key}")

    @on_terminate
    async def end(self) -> None:
        Told.events.append(f"stop {self.key}")

    @action
    async def grow(self, name: str) -> int:
        return await self.child(Child, name).add()

    @action
    async def announce(self, name: str, *, fail: bool = False) -> None:
        self.child(Child, name)
        if fail:
            raise ValueError("not after all")

    @action(readonly=True)
    async def look(self) -> tuple[str, ...]:
        return self.children

    @action
    async def restart(self, key: str) -> None:
        self.restart_child(self.agent(Child, key))

    @action(readonly=True)
    async def grow_while_reading(self) -> None:
        self.child(Child, "new")


class All(Parent):
    supervision = Supervision(strategy="one_for_all")


class Rest(Parent):
    supervision = Supervision(strategy="rest_for_one")


class Caring(Parent):
    failed: list[str] = field(default_factory=list)

    @on_child_failed
    async def mourn(self, child: Child, error: AgentFailed) -> None:
        self.failed = [*self.failed, f"{child.key}: {error.cause}"]
        self.emit("child.failed", {"key": child.key})

    @action(readonly=True)
    async def obituaries(self) -> list[str]:
        return self.failed


class Reviving(Parent):
    revived: int = 0

    @on_child_failed
    async def revive(self, child: Child, error: AgentFailed) -> None:
        self.revived += 1
        self.restart_child(child)


def child_of(platform: Platform, parent: type[Parent], name: str, key: str = "p") -> Child:
    return platform.agent(Child, f"{parent.__name__}/{key}/{name}")


async def family(platform: Platform, parent: type[Parent], names: str = "abc") -> Any:
    """A parent with children, all alive, and nothing told yet."""
    ref = platform.agent(parent, "p")
    for name in names:
        await ref.grow(name)
    Told.events.clear()
    return ref


async def fail(ref: Child) -> None:
    for _ in range(2):
        with pytest.raises(Trouble):
            await ref.crash()
    with pytest.raises(AgentFailed):
        await ref.add()


# -- names ---------------------------------------------------------------------------------------------------------


async def test_a_childs_key_is_made_of_its_parents(platform: Platform) -> None:
    ref = platform.agent(Parent, "p")
    assert await ref.grow("a") == 1
    assert await child_of(platform, Parent, "a").add() == 2
    assert await ref.look() == ("Child/Parent/p/a",)


async def test_children_have_children(platform: Platform) -> None:
    await platform.agent(Parent, "p").grow("a")
    child = child_of(platform, Parent, "a")
    await child.grow("b")
    assert await child.look() == ("Child/Child/Parent/p/a/b",)
    assert await platform.agent(Child, "Child/Parent/p/a/b").add() == 2


@pytest.mark.parametrize(("name", "error"), [("a/b", InvalidArguments), ("", InvalidKey), ("a\n", InvalidKey), ("x" * 513, InvalidKey)])
async def test_an_impossible_name_is_refused(platform: Platform, name: str, error: type[Exception]) -> None:
    ref = platform.agent(Parent, "p")
    with pytest.raises(error):
        await ref.announce(name)
    assert await ref.look() == ()


async def test_children_are_kept_in_the_order_of_their_creation(world: Crashable) -> None:
    platform = await world.start()
    ref = platform.agent(Parent, "p")
    for name in ("c", "a", "b", "a"):
        await ref.announce(name)
    expected = tuple(f"Child/Parent/p/{name}" for name in "cab")
    assert await ref.look() == expected
    await world.crash()
    platform = await world.start()
    assert await platform.agent(Parent, "p").look() == expected


async def test_a_child_of_a_turn_that_failed_is_none(platform: Platform) -> None:
    ref = platform.agent(Parent, "p")
    with pytest.raises(ValueError, match="not after all"):
        await ref.announce("a", fail=True)
    assert await ref.look() == ()


async def test_a_read_only_turn_makes_no_children(platform: Platform) -> None:
    with pytest.raises(ReadOnlyTurn):
        await platform.agent(Parent, "p").grow_while_reading()


async def test_without_a_platform_there_are_no_children() -> None:
    with pytest.raises(NoPlatform):
        await Parent().announce("a")


# -- strategies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parent", "restarted"), [(Parent, "b"), (All, "abc"), (Rest, "bc")])
async def test_the_parents_strategy_says_who_starts_again(platform: Platform, parent: type[Parent], restarted: str) -> None:
    await family(platform, parent)
    with pytest.raises(Trouble):
        await child_of(platform, parent, "b").crash()
    expected = {f"start {name}" for name in restarted}
    await until(lambda: set(Told.events) == expected)
    assert [await child_of(platform, parent, name).add() for name in "abc"] == [2, 2, 2]
    assert set(Told.events) == expected  # nobody else, and nobody twice
    assert len(Told.events) == len(expected)


async def test_a_sibling_in_mid_turn_is_rolled_back_and_its_mailbox_kept(platform: Platform) -> None:
    await family(platform, All)
    busy = child_of(platform, All, "a")
    turn = asyncio.ensure_future(busy.wait())
    waiting = asyncio.ensure_future(busy.add())
    await until_async(lambda: queued(platform, busy))
    with pytest.raises(Trouble):
        await child_of(platform, All, "b").crash()
    assert await waiting == 2
    Told.gate.set()
    with pytest.raises(AgentCrashed, match="rolled back"):
        await turn
    assert await busy.add() == 3


async def queued(platform: Platform, ref: Any) -> int:
    return (await platform.agents.describe(ref)).queued


async def test_siblings_that_sleep_are_left_asleep(platform: Platform) -> None:
    await family(platform, All)
    await platform.agents.stop(child_of(platform, All, "a"))
    Told.events.clear()
    with pytest.raises(Trouble):
        await child_of(platform, All, "b").crash()
    await until(lambda: set(Told.events) == {"start b", "start c"})
    assert (await platform.agents.describe(child_of(platform, All, "a"))).state == "passive"


async def test_a_failing_turn_of_a_child_concerns_nobody(platform: Platform) -> None:
    await family(platform, All)
    with pytest.raises(InvalidArguments):
        await child_of(platform, All, "a").grow("x/y")
    assert await child_of(platform, All, "b").add() == 2
    assert Told.events == []


# -- a child that fails for good -----------------------------------------------------------------------------------


async def test_the_parent_is_told_in_a_turn_of_its_own(platform: Platform) -> None:
    ref = await family(platform, Caring)
    await fail(child_of(platform, Caring, "b"))
    assert await until_async(ref.obituaries) == ["Caring/p/b: Trouble: a leak"]
    (event,) = [event async for event in platform.events.read_all("child.failed")]
    assert event.data == {"key": "Caring/p/b"}
    assert await child_of(platform, Caring, "a").add() == 2
    with pytest.raises(AgentFailed):
        await child_of(platform, Caring, "b").add()


async def test_the_parent_can_start_it_again(platform: Platform) -> None:
    await family(platform, Reviving)
    child = child_of(platform, Reviving, "b")
    for _ in range(2):
        with pytest.raises(Trouble):
            await child.crash()
    await until(lambda: Told.events.count("start b") == 2)
    await until_async(lambda: revived(platform))
    assert await until_async(lambda: adds(child)) == 2


async def revived(platform: Platform) -> int:
    info = await platform.agents.describe(platform.agent(Reviving, "p"))
    return int((info.fields or {})["revived"])


async def adds(ref: Child) -> int:
    try:
        return await ref.add()
    except AgentFailed:
        return 0


class Careless(Parent):
    @on_child_failed
    async def forget_it(self, child: Child, error: AgentFailed) -> None:
        raise KeyError(child.key)


async def test_a_hook_that_fails_is_no_hook(platform: Platform) -> None:
    ref = await family(platform, Careless)
    await fail(child_of(platform, Careless, "b"))
    await until(lambda: "start p" in Told.events)
    assert await ref.grow("a") == 2


async def test_only_a_child_can_be_started_again_by_its_parent(platform: Platform) -> None:
    ref = await family(platform, Parent, "a")
    with pytest.raises(InvalidArguments, match="Child/b is no child of Parent/p"):
        await ref.restart("b")


async def test_without_a_hook_the_parent_crashes_too(platform: Platform) -> None:
    ref = await family(platform, Parent)
    await fail(child_of(platform, Parent, "b"))
    await until(lambda: "start p" in Told.events)
    assert await ref.grow("a") == 2
    assert await ref.look() == tuple(f"Child/Parent/p/{name}" for name in "abc")


async def test_escalation_goes_up_until_somebody_has_failed_for_good(platform: Platform) -> None:
    ref = await family(platform, Parent)
    await fail(child_of(platform, Parent, "a"))
    await until(lambda: Told.events.count("start p") == 1)
    await fail(child_of(platform, Parent, "b"))
    with pytest.raises(AgentFailed) as caught:
        while True:
            await ref.look()
            await asyncio.sleep(0)
    assert "its child Child/Parent/p/b has failed: Trouble: a leak" in caught.value.cause


async def test_a_parent_that_sleeps_is_woken_to_be_told(platform: Platform) -> None:
    ref = await family(platform, Caring, "a")
    child = child_of(platform, Caring, "a")
    platform._node.hosts["Caring"].drop(platform._node.hosts["Caring"].live["p"])
    await fail(child)
    assert await until_async(ref.obituaries) == ["Caring/p/a: Trouble: a leak"]


async def test_an_agent_whose_key_only_looks_like_a_childs_is_nobodys(platform: Platform) -> None:
    ref = platform.agent(Caring, "p")
    await ref.grow("a")
    stranger = child_of(platform, Caring, "b")
    await fail(stranger)
    assert await ref.obituaries() == []
    await fail(platform.agent(Child, "no/parent"))
    await fail(platform.agent(Child, "NoSuchType/p/b"))


# -- going together ------------------------------------------------------------------------------------------------


async def test_children_stop_with_their_parent_the_youngest_first(platform: Platform) -> None:
    ref = await family(platform, Parent)
    await platform.agents.stop(ref)
    assert Told.events == ["stop c", "stop b", "stop a", "stop p"]
    assert (await platform.agents.describe(child_of(platform, Parent, "a"))).state == "passive"
    assert await child_of(platform, Parent, "a").add() == 2


async def test_children_stop_also_with_a_parent_that_sleeps(platform: Platform) -> None:
    ref = await family(platform, Parent, "ab")
    platform._node.hosts["Parent"].drop(platform._node.hosts["Parent"].live["p"])
    await platform.agents.stop(ref)
    assert Told.events == ["stop b", "stop a"]


async def test_a_child_in_mid_turn_ends_it_first(platform: Platform) -> None:
    ref = await family(platform, Parent, "a")
    turn = asyncio.ensure_future(child_of(platform, Parent, "a").wait())
    await asyncio.sleep(0)
    stop = asyncio.ensure_future(platform.agents.stop(ref))
    await asyncio.sleep(0)
    assert Told.events == []
    Told.gate.set()
    assert await turn == 2
    await stop
    assert Told.events == ["stop a", "stop p"]


async def test_children_are_passivated_on_their_own(platform: Platform) -> None:
    ref = await family(platform, Parent, "a")
    await platform.agents.stop(child_of(platform, Parent, "a"))
    assert Told.events == ["stop a"]
    assert (await platform.agents.describe(ref)).state == "live"


async def test_children_are_deleted_with_their_parent_also_failed_ones(platform: Platform) -> None:
    ref = await family(platform, Caring, "ab")
    await fail(child_of(platform, Caring, "a"))
    await until_async(ref.obituaries)
    await platform.agents.delete(ref)
    for name in "ab":
        await until_async(lambda name=name: is_new(platform, child_of(platform, Caring, name)))
    assert await child_of(platform, Caring, "a").add() == 1


async def is_new(platform: Platform, ref: Any) -> bool:
    info = await platform.agents.describe(ref)
    return info.turns == 0 and info.state != "failed"


async def test_the_children_of_a_failed_parent_are_deleted_with_it(on_store: Platform, store: Store) -> None:
    ref = await family(on_store, Parent)
    await fail(child_of(on_store, Parent, "a"))
    await until(lambda: Told.events.count("start p") == 1)
    await fail(child_of(on_store, Parent, "b"))
    await until_async(lambda: failed(on_store, ref))
    await on_store.agents.delete(ref)
    for name in "abc":
        await until_async(lambda name=name: is_new(on_store, child_of(on_store, Parent, name)))


async def failed(platform: Platform, ref: Any) -> bool:
    return (await platform.agents.describe(ref)).state == "failed"
