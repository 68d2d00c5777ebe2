"""Orders of events in which something was once lost, seen too early, or waited for in vain."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from jidosystem import Agent, Platform, action, on_terminate
from jidosystem.core.errors import CallTimeout, CommitUnknown, Conflict, JidoError, StoreFull, StoreUnavailable
from jidosystem.core.restarts import Supervision
from tests.runtime.harness import FakeClock, PlatformOn, Store, settle, until, until_async

GATES: dict[str, asyncio.Event] = {}


class Cell(Agent):
    """Counts."""

    value: int = 0

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    @action
    async def wait(self, gate: str) -> None:
        await GATES[gate].wait()

    @action
    async def refuse(self) -> None:
        raise ValueError("no")

    @action(readonly=True)
    async def get(self) -> int:
        return self.value

    @action(readonly=True)
    async def get_later(self, gate: str) -> int:
        await GATES[gate].wait()
        return self.value


class Last(Agent):
    """Has a last word."""

    value: int = 0

    @action
    async def add(self) -> int:
        self.value += 1
        self.emit("last.added", {})
        return self.value

    @on_terminate
    async def leave(self) -> None:
        pass


class Boom(Exception):
    """Crashes a `Kid`."""


class Kid(Agent):
    """A child."""

    supervision = Supervision(crash_on=(Boom,), max_restarts=100, within=1)
    value: int = 0

    @action
    async def add(self) -> int:
        self.value += 1
        return self.value

    @action
    async def add_and_cast(self) -> int:
        self.value += 1
        self.cast(self.agent(Cell, "told").add)
        return self.value

    @action
    async def crash(self, gate: str) -> None:
        await GATES[gate].wait()
        raise Boom

    @action
    async def wait(self, gate: str) -> None:
        await GATES[gate].wait()

    @action(readonly=True)
    async def get(self) -> int:
        return self.value


class Parent(Agent):
    """One for all, and a last word."""

    supervision = Supervision(strategy="one_for_all")
    value: int = 0

    @action
    async def have(self, name: str) -> None:
        self.child(Kid, name)

    @on_terminate
    async def leave(self) -> None:
        pass


class Sender(Agent):
    """Casts in vain, then not."""

    @action
    async def send(self, to: str) -> None:
        self.cast(self.agent(Cell, to).refuse)
        self.cast(self.agent(Cell, to).add)

    @action
    async def cast_to(self, to: str) -> None:
        self.cast(self.agent(Cell, to).add)


class Bell(Agent):
    """Rings by a reminder, or fails to."""

    rung: int = 0
    broken: bool = False

    @action
    async def plan(self) -> None:
        self.broken = True
        self.remind("ring", every=60.0, action=self.ring)

    @action
    async def mend(self) -> None:
        self.broken = False

    @action
    async def ring(self) -> None:
        if self.broken:
            raise ValueError("broken")
        self.rung += 1

    @action(readonly=True)
    async def count(self) -> int:
        return self.rung


def gate(name: str) -> asyncio.Event:
    GATES[name] = asyncio.Event()
    return GATES[name]


async def test_a_write_that_failed_while_a_reader_ran_is_seen_by_nobody_and_is_no_part_of_the_next(on_store: Platform, store: Store) -> None:
    cell, open_ = on_store.agent(Cell, "a"), gate("reader")
    await cell.add()
    store.hold()
    write = asyncio.ensure_future(cell.add(100))
    await until(lambda: store.held)
    reading = asyncio.ensure_future(cell.get_later("reader"))
    await settle()
    store.fail_once("Cell/a")
    store.release()
    with pytest.raises(StoreUnavailable):
        await write
    assert await cell.get() == 1
    open_.set()
    with pytest.raises(StoreUnavailable):
        await reading
    assert await cell.get() == 1
    assert await cell.add() == 2


@pytest.mark.parametrize("error", [StoreUnavailable("gone"), Conflict("somebody else", expected=1, actual=2)])
async def test_an_agent_whose_last_commit_fails_is_stopped_all_the_same(on_store: Platform, store: Store, error: JidoError) -> None:
    last = on_store.agent(Last, "a")
    await last.add()
    store.hold()
    write = asyncio.ensure_future(last.add())
    await until(lambda: store.held)
    stopping = asyncio.ensure_future(on_store.agents.stop(last))
    await settle()
    store.fail_all(error)
    store.release()
    store.heal()
    with pytest.raises(type(error)):
        await write
    await asyncio.wait_for(stopping, 10)


async def test_a_parent_that_is_restarted_while_its_children_stop_is_stopped(platform: Platform) -> None:
    parent, open_ = platform.agent(Parent, "p"), gate("child")
    await parent.have("c")
    working = asyncio.ensure_future(platform.agent(Kid, "Parent/p/c").wait("child"))
    await settle()
    stopping = asyncio.ensure_future(platform.agents.stop(parent))
    await settle()
    restarting = asyncio.ensure_future(platform.agents.restart(parent))
    await settle()
    open_.set()
    await asyncio.wait_for(asyncio.gather(stopping, restarting), 10)
    await working


async def test_whoever_waits_for_a_commit_in_doubt_is_told_when_the_platform_closes(store: Store) -> None:
    async with PlatformOn(store, config={"platform.shutdown_timeout": 0.2}) as platform:
        cell = platform.agent(Cell, "a")
        await cell.add()
        store.unknown, store.reads_fail = "happened", True
        write = asyncio.ensure_future(cell.add())
        await settle()
    with pytest.raises(CommitUnknown):
        await asyncio.wait_for(write, 10)


class Doorstep:
    """Refuses to store dead letters for a while."""

    def __init__(self, store: Store) -> None:
        self.refused, self.open = 0, False
        inner, commit = store.inner, store.inner.commit

        def at_the_door(agent: str, *rest: Any) -> Any:
            if agent.startswith("jido.dead") and not self.open:
                self.refused += 1
                refusal: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                refusal.set_exception(StoreFull("full for a moment"))
                return refusal
            return commit(agent, *rest)

        inner.commit = at_the_door


async def test_an_effect_whose_dead_letter_finds_no_room_is_buried_later_and_what_follows_it_goes_on(on_store: Platform, store: Store) -> None:
    door = Doorstep(store)
    await on_store.agent(Sender, "s").send("to")
    await until(lambda: door.refused)
    door.open = True
    await until_async(lambda: _is_over(on_store.agent(Cell, "to").get(), 0))
    assert len(await on_store.dead_letters.list()) == 1


async def test_a_reminder_whose_dead_letter_finds_no_room_rings_on(store: Store, clock: FakeClock) -> None:
    async with PlatformOn(store, clock=clock) as platform:
        door, bell = Doorstep(store), platform.agent(Bell, "b")
        await bell.plan()
        clock_passes = asyncio.ensure_future(_tick(platform, clock))
        await until(lambda: door.refused)
        await bell.mend()
        await until_async(lambda: _is_over(bell.count(), 0))
        clock_passes.cancel()


async def _tick(platform: Platform, clock: FakeClock) -> None:
    while True:
        await clock.advance(platform, 61.0)
        await asyncio.sleep(0.01)


async def test_a_sibling_that_is_restarted_loses_no_commit_that_is_on_its_way(on_store: Platform, store: Store) -> None:
    parent = on_store.agent(Parent, "p")
    await parent.have("a")
    await parent.have("b")
    crashing, sibling = on_store.agent(Kid, "Parent/p/a"), on_store.agent(Kid, "Parent/p/b")
    await crashing.get()
    await sibling.get()
    open_ = gate("crash")
    crash = asyncio.ensure_future(crashing.crash("crash"))
    await settle()
    store.hold()
    first = asyncio.ensure_future(sibling.add())
    await until(lambda: store.held)
    open_.set()
    await asyncio.gather(crash, return_exceptions=True)
    await settle()
    second = asyncio.ensure_future(sibling.add_and_cast())
    await settle()
    store.release()
    assert await asyncio.gather(first, second) == [1, 2]
    assert await sibling.get() == 2
    await until_async(lambda: _is_over(on_store.agent(Cell, "told").get(), 0))


async def test_what_waits_for_an_agent_whose_restart_fails_is_told_or_comes_again(on_store: Platform, store: Store) -> None:
    cell, open_ = on_store.agent(Cell, "a"), gate("busy")
    await cell.add()
    working = asyncio.ensure_future(cell.wait("busy"))
    await settle()
    await on_store.agent(Sender, "s").cast_to("a")
    await settle(60)
    call = asyncio.ensure_future(cell.add())
    await settle()
    restarting = asyncio.ensure_future(on_store.agents.restart(cell))
    await settle()
    store.reads_fail = True
    open_.set()
    with pytest.raises(StoreUnavailable):
        await restarting
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(call, 10)
    store.reads_fail = False
    await until_async(lambda: _is_over(cell.get(), 1))
    await working


async def test_a_caller_that_gives_up_just_when_it_is_told_that_it_is_too_late_takes_no_place_of_others(platform: Platform) -> None:
    cell, first, second = platform.agent(Cell, "a"), gate("first"), gate("second")
    await cell.add()
    working = asyncio.ensure_future(cell.wait("first"))
    await settle()
    late = asyncio.ensure_future(platform.call(cell.add, timeout=0.1))
    await settle()
    working_on = asyncio.ensure_future(cell.wait("second"))
    await settle()
    waiting = asyncio.ensure_future(cell.add())
    await settle()
    queue = platform._node.hosts["Cell"].live["a"].queue
    assert queue is not None
    turn, loop = queue.turns[0], asyncio.get_running_loop()
    assert turn.reply is not None and turn.deadline is not None

    def give_up() -> None:
        if turn.reply.done():
            late.cancel()
        else:
            loop.call_soon(give_up)

    give_up()
    first.set()
    # The end of the turn that runs comes between the deadline and the wheel's tick: the loop is held up until then.
    time.sleep(max(0.0, turn.deadline + 0.0003 - loop.time()))  # noqa: ASYNC251
    await asyncio.gather(working, late, return_exceptions=True)
    assert len(queue) == len([turn for turn in queue.turns if not turn.withdrawn])
    second.set()
    await working_on
    assert await asyncio.wait_for(waiting, 10) == 2


async def test_a_call_that_ran_out_of_patience_during_a_restart_takes_no_place_of_others(on_store: Platform, store: Store) -> None:
    cell, open_, read = on_store.agent(Cell, "a"), gate("busy"), store.inner.read
    await cell.add()
    working = asyncio.ensure_future(cell.wait("busy"))
    await settle()
    late = asyncio.ensure_future(on_store.call(cell.add, timeout=0.2))
    await settle()
    may_read = asyncio.Event()

    def read_later(agent: str) -> asyncio.Future[Any]:
        async def later() -> Any:
            await may_read.wait()
            return await read(agent)

        return asyncio.ensure_future(later())

    store.inner.read = read_later
    restarting = asyncio.ensure_future(on_store.agents.restart(cell))
    await settle()
    open_.set()
    with pytest.raises(CallTimeout):
        await late
    may_read.set()
    await restarting
    store.inner.read = read
    await asyncio.gather(working, return_exceptions=True)
    assert await cell.add() == 2
    assert [len(queue) for queue in on_store._node.queues._spare] == [0] * len(on_store._node.queues._spare)


async def _is_over(answer: Any, least: int) -> bool:
    return bool(await answer > least)
