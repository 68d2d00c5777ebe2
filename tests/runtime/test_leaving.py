"""What an agent that stops or is deleted leaves behind: its effects go out, its children go with it, its next life isn't mistaken for this one."""

from __future__ import annotations

import asyncio

import pytest

from jidosystem import Agent, AgentCrashed, AgentFailed, Platform, Supervision, action, on_start
from tests.runtime.harness import PATIENCE_S, Crashable, until, until_async


class Target(Agent):
    """Counts what it gets."""

    hits: int = 0

    @action
    async def hit(self) -> None:
        self.hits += 1


class Leaver(Agent):
    """Casts and goes."""

    turns: int = 0

    @action
    async def cast_only(self) -> None:
        self.turns += 1
        self.cast(self.agent(Target, "t").hit)

    @action
    async def cast_and(self, what: str) -> None:
        self.turns += 1
        self.cast(self.agent(Target, "t").hit)
        if what == "stop":
            self.stop()
        else:
            self.delete()

    @action
    async def go(self) -> None:
        self.delete()

    @action
    async def adopt(self, *, names: list[str]) -> None:
        for name in names:
            await self.child(Leaver, name).count()

    @action
    async def count(self) -> int:
        self.turns += 1
        return self.turns


async def hits(platform: Platform, expected: int) -> None:
    """Wait until the target has had so many hits, and no more."""
    async with asyncio.timeout(PATIENCE_S):
        async for fields, _revision in platform.agents.watch(platform.agent(Target, "t")):
            if fields is not None and fields["hits"] >= expected:
                assert fields["hits"] == expected
                return


@pytest.mark.parametrize("what", ["stop", "delete"])
async def test_the_casts_of_a_turn_that_ends_its_agent_are_delivered(platform: Platform, what: str) -> None:
    await platform.agent(Leaver, "a").cast_and(what)
    await hits(platform, 1)


@pytest.mark.parametrize("what", ["stop", "delete"])
async def test_casts_to_a_receiver_that_takes_its_time_are_delivered_after_their_sender_went(platform: Platform, what: str) -> None:
    target = platform.agent(Target, "t")
    await target.hit()
    await platform.agents.pause(target)
    leaver = platform.agent(Leaver, "a")
    await leaver.cast_only()  # an earlier turn's, which the deletion must not take away
    await leaver.cast_and(what)
    await platform.agents.resume(target)
    await hits(platform, 3)


async def test_an_agent_that_was_deleted_and_begins_anew_is_heard_by_whom_it_cast_to_before(platform: Platform) -> None:
    leaver = platform.agent(Leaver, "a")
    for _ in range(3):
        await leaver.cast_only()
    await hits(platform, 3)
    for life in (1, 2, 3):
        await platform.agents.delete(leaver)
        await leaver.cast_only()
        await hits(platform, 3 + life)


async def test_the_casts_of_a_deleted_agent_survive_a_crash(world: Crashable) -> None:
    platform = await world.start(agents=[Leaver, Target])
    target = platform.agent(Target, "t")
    await target.hit()
    await platform.agents.pause(target)
    await platform.agent(Leaver, "a").cast_only()
    await platform.agent(Leaver, "a").go()
    await world.crash()
    platform = await world.start(agents=[Leaver, Target])
    await platform.agents.resume(platform.agent(Target, "t"))
    await hits(platform, 2)
    info = await platform.agents.describe(platform.agent(Leaver, "a"))
    assert info.fields == {"turns": 0}


async def test_deleting_an_agent_deletes_its_children_and_theirs(platform: Platform) -> None:
    leaver = platform.agent(Leaver, "a")
    await leaver.adopt(names=["x", "y"])
    await platform.agent(Leaver, "Leaver/a/x").adopt(names=["z"])
    await platform.agents.delete(leaver)

    async def nobody_is_left() -> bool:
        return not [info async for page in platform._node.records.scan_agents("Leaver") for info in page]

    await until_async(nobody_is_left)


async def test_the_children_of_a_deleted_agent_go_although_the_process_dies(world: Crashable) -> None:
    platform = await world.start(agents=[Leaver, Target])
    leaver = platform.agent(Leaver, "a")
    await leaver.adopt(names=["x", "y"])
    x = platform.agent(Leaver, "Leaver/a/x")
    await platform.agents.pause(x)  # it doesn't take its deletion yet
    await leaver.go()
    await world.crash()
    platform = await world.start(agents=[Leaver, Target])
    await platform.agents.resume(platform.agent(Leaver, "Leaver/a/x"))

    async def nobody_is_left() -> bool:
        return not [info async for page in platform._node.records.scan_agents("Leaver") for info in page]

    await until_async(nobody_is_left)


async def test_when_delete_has_returned_the_agent_is_gone(platform: Platform) -> None:
    leaver = platform.agent(Leaver, "a")
    await leaver.adopt(names=["x"])
    await platform.agents.delete(leaver)
    assert (await platform.agents.describe(leaver)).fields == {"turns": 0}
    assert "a" not in [info.key for info in await platform.agents.list(type=Leaver)]


async def test_a_stopped_agent_stays_passive_once_its_casts_are_out(platform: Platform) -> None:
    await platform.agent(Leaver, "a").cast_and("stop")
    await hits(platform, 1)
    host = platform._node.hosts["Leaver"]
    await until(lambda: "a" not in host.live)
    assert [row async for page in platform._node.records.scan("pending") for row in page] == []


class Fragile(Agent):
    """Crashes on every start."""

    supervision = Supervision(max_restarts=0)
    fine: bool = True

    @on_start
    async def begin(self) -> None:
        raise RuntimeError("no start")

    @action
    async def take(self) -> None: ...


class Hopeful(Agent):
    """Casts to the fragile one, then to another."""

    @action
    async def send(self) -> None:
        self.cast(self.agent(Fragile, "f").take)
        self.cast(self.agent(Target, "t").hit)


async def test_a_cast_to_an_agent_that_has_failed_is_a_dead_letter_after_five_attempts(platform: Platform) -> None:
    with pytest.raises((AgentFailed, AgentCrashed)):
        await platform.agent(Fragile, "f").take()
    await platform.agent(Hopeful, "h").send()
    await hits(platform, 1)
    letters = await until_async(platform.dead_letters.list)
    assert [(letter.agent, letter.attempts) for letter in letters] == [("Fragile/f", 5)]
