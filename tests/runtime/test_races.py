"""Orders of events in which something was once done twice, brought back, forgotten, or waited for in vain."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from jidosystem import Agent, Lifecycle, Platform, action, on_start, on_terminate
from jidosystem.core.errors import AgentCrashed, CallTimeout, JidoError, ShuttingDown, StoreUnavailable
from jidosystem.core.restarts import Supervision
from jidosystem.infrastructure.retry import Retry
from jidosystem.runtime.blocks import Resilience
from tests.runtime.harness import PATIENCE_S, Crashable, FakeClock, Store, settle, until, until_async


class World:
    """What the agents of these tests wait for and fail by; set afresh for each test."""

    gate: asyncio.Event
    broken: bool
    started: threading.Event
    threads: threading.Event


@pytest.fixture(autouse=True)
async def world_of_agents() -> None:
    World.gate, World.broken = asyncio.Event(), False
    World.started, World.threads = threading.Event(), threading.Event()


class Boom(Exception):
    """A crash."""


class Cell(Agent):
    """Counts what it gets."""

    supervision = Supervision(max_restarts=0, crash_on=(Boom,))
    value: int = 0

    @action
    async def add(self) -> int:
        self.value += 1
        return self.value

    @action
    async def add_later(self) -> None:
        await World.gate.wait()
        self.value += 1

    @action
    async def pass_on(self, to: str) -> None:
        self.value += 1
        self.cast(self.agent(Cell, to).add)

    @action
    async def remind_me(self) -> None:
        self.value += 1
        self.remind("some day", action=self.add, after=1e6)

    @action
    async def boom(self) -> None:
        raise Boom

    @action(readonly=True)
    async def get(self) -> int:
        return self.value


class Caster(Agent):
    """Casts; doesn't start while the world is broken."""

    supervision = Supervision(max_restarts=0)
    turns: int = 0

    @on_start
    async def begin(self) -> None:
        if World.broken:
            raise Boom

    @action
    async def send(self, to: str) -> None:
        self.turns += 1
        self.cast(self.agent(Cell, to).add)

    @action
    async def send_what_takes_long(self, to: str) -> None:
        self.turns += 1
        self.cast(self.agent(Cell, to).add_later)


async def state_is(platform: Platform, ref: Any, state: str) -> bool:
    return (await platform.agents.describe(ref)).state == state


async def has_sent(platform: Platform, ref: Any) -> bool:
    return (await platform.agents.describe(ref)).pending_effects == 0


def live(platform: Platform, ref: Any) -> Any:
    return ref._host.live.get(ref.key)


# -- done twice ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["restart", "stop"])
async def test_an_effect_that_waits_twice_is_applied_once_although_its_receiver_goes_in_between(platform: Platform, ends: str) -> None:
    cell, caster = platform.agent(Cell, "c"), platform.agent(Caster, "s")
    await cell.get()
    await caster.send_what_takes_long("c")
    await until(lambda: live(platform, cell).writer)
    await platform.agents.restart(caster)  # it finds its effect unnoted and sends it again
    await until(lambda: live(platform, cell).queue)
    going = asyncio.create_task(getattr(platform.agents, ends)(cell))
    await settle()
    World.gate.set()
    await going
    await until_async(lambda: has_sent(platform, caster))
    assert await cell.get() == 1


# -- brought back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["pause", "delete", "restart", "stop"])
async def test_an_agent_that_is_being_deleted_is_brought_back_by_nothing_that_meets_it(on_store: Platform, store: Store, operation: str) -> None:
    cell = on_store.agent(Cell, "c")
    await cell.add()
    store.hold()
    deleting = asyncio.create_task(on_store.agents.delete(cell))
    await until(lambda: store.held)
    meeting = asyncio.create_task(getattr(on_store.agents, operation)(cell))
    await settle()
    store.release()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(deleting, meeting)
    assert (await on_store.agents.describe(cell)).fields == {"value": 0}


async def test_a_pause_that_failed_isnt_written_later(on_store: Platform, store: Store) -> None:
    cell = on_store.agent(Cell, "c")
    await cell.add()
    store.fail_once("Cell/c")
    with pytest.raises(StoreUnavailable):
        await on_store.agents.pause(cell)
    await cell.add()
    await on_store.agents.restart(cell)
    assert await on_store.call(cell.add, timeout=1) == 3


class Note(Agent):
    """Is reminded of something."""

    told: str = ""

    @action
    async def plan(self, what: str, at: float) -> None:
        self.remind("it", action=self.tell, at=at, args={"what": what})

    @action
    async def tell(self, what: str) -> None:
        self.told += what

    @action(readonly=True)
    async def get(self) -> str:
        return self.told


async def test_a_reminder_that_was_replaced_for_the_same_time_rings_as_the_new_one(timed_world: Crashable, clock: FakeClock) -> None:
    platform = await timed_world.start([Note])
    note, at_s = platform.agent(Note, "n"), clock.time_s() + 10
    await note.plan("old", at_s)
    await note.plan("new", at_s)
    await clock.advance(platform, 11)
    assert await note.get() == "new"


class Leaver(Agent):
    """Takes its time to go."""

    value: int = 0

    @action
    async def add(self) -> int:
        self.value += 1
        return self.value

    @on_terminate
    async def leave(self) -> None:
        World.started.set()
        await World.gate.wait()


async def test_a_pause_that_meets_the_last_words_of_a_stop_holds(on_store: Platform, store: Store) -> None:
    leaver = on_store.agent(Leaver, "l")
    await leaver.add()
    stopping = asyncio.create_task(on_store.agents.stop(leaver))
    await until(World.started.is_set)
    pausing = asyncio.create_task(on_store.agents.pause(leaver))
    await settle()
    store.hold()
    World.gate.set()
    await until(lambda: store.held)
    calling = asyncio.create_task(on_store.call(leaver.add, timeout=0.2))
    await settle()
    store.release()
    await asyncio.gather(stopping, pausing)
    with pytest.raises(CallTimeout):
        await calling
    assert await state_is(on_store, leaver, "paused")


# -- forgotten -----------------------------------------------------------------------------------------------------


class Alarm(Agent):
    """Sets its timer as it starts."""

    rang: int = 0

    @on_start
    async def begin(self) -> None:
        self.after(0.0, self.ring)

    @action
    async def ring(self) -> None:
        self.rang += 1
        World.gate.set()

    @action(readonly=True)
    async def get(self) -> int:
        return self.rang


async def test_a_timer_that_on_start_sets_rings(platform: Platform) -> None:
    alarm = platform.agent(Alarm, "a")
    await alarm.get()
    async with asyncio.timeout(PATIENCE_S):
        await World.gate.wait()


async def test_an_accepted_cast_outlives_a_call_of_the_same_key_that_gives_up(platform: Platform) -> None:
    cell = platform.agent(Cell, "c")
    busy = asyncio.create_task(cell.add_later())
    await settle()
    await platform.cast(cell.add, idempotency_key="k")
    with pytest.raises(CallTimeout):
        await platform.call(cell.add, idempotency_key="k", timeout=0.02)
    World.gate.set()
    await busy
    assert await cell.get() == 2


async def test_a_cast_that_joins_a_call_outlives_it(platform: Platform) -> None:
    cell = platform.agent(Cell, "c")
    busy = asyncio.create_task(cell.add_later())
    await settle()
    calling = asyncio.create_task(platform.call(cell.add, idempotency_key="k", timeout=0.02))
    await settle()
    await platform.cast(cell.add, idempotency_key="k")
    with pytest.raises(CallTimeout):
        await calling
    World.gate.set()
    await busy
    assert await cell.get() == 2


class Slow(Agent):
    """Works at the second attempt, and takes its time for another caller."""

    resilience = Resilience(retry=Retry.exponential(max_attempts=2, initial=0.05, on=(Boom,)))
    value: int = 0
    _attempts: int = 0

    @action
    async def try_it(self) -> int:
        self._attempts += 1
        if self._attempts == 1:
            raise Boom
        self.value += 1
        return self.value

    @action
    async def block(self) -> None:
        await World.gate.wait()


async def test_whoever_joins_a_keyed_call_that_is_repeated_has_patience_of_its_own(platform: Platform) -> None:
    slow = platform.agent(Slow, "s")
    first = asyncio.create_task(platform.call(slow.try_it, idempotency_key="k", timeout=0.15))
    await until(lambda: slow._host.repeating)
    blocking = asyncio.create_task(slow.block())
    joined = asyncio.create_task(platform.call(slow.try_it, idempotency_key="k", timeout=PATIENCE_S))
    with pytest.raises(CallTimeout):
        await first
    World.gate.set()
    await blocking
    assert await joined == 1


async def test_the_effects_of_an_agent_that_was_deleted_and_has_failed_are_told_from_those_before(platform: Platform) -> None:
    caster, cell = platform.agent(Caster, "s"), platform.agent(Cell, "c")

    async def heard(times: int) -> bool:
        return await cell.get() == times

    for _ in range(3):
        await caster.send("c")
    await until_async(lambda: heard(3))
    await platform.agents.delete(caster)
    World.broken = True
    with pytest.raises(JidoError):
        await caster.send("c")
    World.broken = False
    await until_async(lambda: state_is(platform, caster, "failed"))
    await platform.agents.restart(caster)
    await caster.send("c")
    await until_async(lambda: heard(4))


async def test_a_crash_counts_although_the_commit_before_it_fails(on_store: Platform, store: Store) -> None:
    cell = on_store.agent(Cell, "c")
    await cell.remind_me()
    store.hold()
    adding = asyncio.create_task(cell.add())
    await until(lambda: store.held)
    with pytest.raises(Boom):
        await cell.boom()
    store.fail_once("Cell/c")
    store.release()
    with pytest.raises(StoreUnavailable):
        await adding
    await until_async(lambda: state_is(on_store, cell, "failed"))


async def test_effects_that_an_agent_finds_unsent_when_it_comes_back_go_before_those_of_its_first_turn(platform: Platform) -> None:
    cell, caster = platform.agent(Cell, "c"), platform.agent(Cell, "s")
    busy = asyncio.create_task(cell.add_later())
    await until(lambda: live(platform, cell) and live(platform, cell).writer)
    await caster.pass_on("c")
    restarting = asyncio.create_task(platform.agents.restart(caster))
    await asyncio.sleep(0)  # it is just coming back
    await caster.pass_on("c")
    await restarting
    World.gate.set()
    await busy
    await until_async(lambda: has_sent(platform, caster))
    assert await cell.get() == 3


# -- waited for in vain --------------------------------------------------------------------------------------------


class Parent(Agent):
    """Restarts all its children with one."""

    lifecycle = Lifecycle(shutdown_grace_period=0.05)
    supervision = Supervision(strategy="one_for_all")

    @action
    async def adopt(self) -> None:
        self.child(Kid, "first")
        self.child(Kid, "second")


class Kid(Agent):
    """Crashes, or waits."""

    lifecycle = Lifecycle(shutdown_grace_period=0.05)
    supervision = Supervision(crash_on=(Boom,))

    @action
    async def boom(self) -> None:
        raise Boom

    @action
    async def wait(self) -> None:
        await World.gate.wait()

    @action
    def wait_in_a_thread(self) -> None:
        World.started.set()
        World.threads.wait(PATIENCE_S)


async def test_whoever_waits_for_a_turn_that_outlives_its_activation_is_told_when_the_platform_closes(url: str) -> None:
    async with Platform(url, agents=[Parent, Kid]) as platform:
        await platform.agent(Parent, "p").adopt()
        first, second = platform.agent(Kid, "Parent/p/first"), platform.agent(Kid, "Parent/p/second")
        waiting = asyncio.create_task(second.wait())
        await until(lambda: live(platform, second) and live(platform, second).writer)
        before = live(platform, second)
        with pytest.raises(Boom):
            await first.boom()
        await until(lambda: live(platform, second) not in (None, before))
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises((ShuttingDown, AgentCrashed)):
            await waiting


class Tidy(Agent):
    """Has a last word, spoken in a thread."""

    lifecycle = Lifecycle(shutdown_grace_period=0.05)

    @action
    async def touch(self) -> None:
        pass

    @on_terminate
    def leave(self) -> None:
        World.broken = True


async def test_last_words_in_a_thread_are_heard_although_an_action_had_to_be_cancelled(url: str) -> None:
    async with Platform(url, agents=[Parent, Kid, Tidy]) as platform:
        await platform.agent(Tidy, "t").touch()
        waiting = asyncio.create_task(platform.agent(Kid, "k").wait_in_a_thread())
        await until(World.started.is_set)
        closing = asyncio.create_task(platform.__aexit__(None, None, None))
        with pytest.raises(ShuttingDown):
            await waiting
        await closing
        World.threads.set()
    assert World.broken
