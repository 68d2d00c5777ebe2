"""What is a crash and what isn't; what follows one: a new activation after a growing delay, or an agent that is failed for good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jidosystem import (
    Agent,
    AgentCrashed,
    AgentFailed,
    Lifecycle,
    Platform,
    Rejected,
    Supervision,
    TurnTimeout,
    action,
    errors,
    on_start,
)
from jidosystem.core.codec import encode
from jidosystem.core.errors import Conflict, StoreError, StoreUnavailable
from tests.runtime.harness import Crashable, PlatformOn, Store, until, until_async


class World:
    """What the agents of these tests are told from outside; set afresh for each test."""

    starts: list[str]
    broken: bool
    gate: asyncio.Event


@pytest.fixture(autouse=True)
async def world_of_agents() -> AsyncIterator[None]:
    World.starts, World.broken, World.gate = [], False, asyncio.Event()
    yield
    World.gate.set()


class Trouble(Exception):
    """An error that these tests count as a crash."""


class Worker(Agent):
    supervision = Supervision(max_restarts=2, within=30, crash_on=(Trouble,))
    value: int = 0

    @on_start
    async def begin(self) -> None:
        World.starts.append(self.key)
        if World.broken:
            raise RuntimeError("no valves")

    @action
    async def add(self) -> int:
        self.value += 1
        return self.value

    @action
    async def fail(self) -> None:
        self.value = 99
        raise ValueError("a bug")

    @action
    async def reject(self) -> None:
        self.value = 99
        raise Rejected("no_money")

    @action
    async def crash(self) -> None:
        self.value = 99
        self.emit("worker.crashed")
        raise Trouble("the pump is gone")

    @action
    async def leave(self) -> None:
        self.value = 99
        raise SystemExit(3)

    @action
    async def wait(self) -> int:
        await World.gate.wait()
        self.value += 1
        return self.value


class Plain(Agent):
    """Without a block of its own."""

    value: int = 0

    @action
    async def crash(self) -> None:
        raise SystemExit(1)

    @action
    async def add(self) -> int:
        self.value += 1
        return self.value


async def state_of(platform: Platform, ref: Any) -> str:
    return (await platform.agents.describe(ref)).state


# -- what is a crash -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["fail", "reject"])
async def test_an_action_that_raises_is_a_failed_turn_and_no_crash(platform: Platform, how: str) -> None:
    ref = platform.agent(Worker, "a")
    await ref.add()
    for _ in range(20):  # many more than its supervision would allow
        with pytest.raises((ValueError, Rejected)):
            await getattr(ref, how)()
    assert await ref.add() == 2
    assert World.starts == ["a"]


async def test_an_exception_of_crash_on_is_a_crash_and_its_caller_gets_it(platform: Platform) -> None:
    ref = platform.agent(Worker, "a")
    await ref.add()
    with pytest.raises(Trouble, match="the pump is gone"):
        await ref.crash()
    assert await ref.add() == 2  # rolled back, on a new activation
    assert World.starts == ["a", "a"]
    assert [event async for event in platform.events.read_all()] == []


async def test_a_base_exception_is_a_crash(platform: Platform) -> None:
    ref = platform.agent(Worker, "a")
    await ref.add()
    with pytest.raises(AgentCrashed, match=r"Worker/a crashed in leave: SystemExit: 3"):
        await ref.leave()
    assert await ref.add() == 2
    assert World.starts == ["a", "a"]


async def test_an_on_start_that_raises_is_a_crash_and_is_tried_again(platform: Platform) -> None:
    World.broken = True
    ref = platform.agent(Worker, "a")
    call = asyncio.ensure_future(ref.add())
    await until(lambda: World.starts == ["a"])
    World.broken = False
    assert await call == 1  # the call has waited for the next activation
    assert World.starts == ["a", "a"]


class Late(Agent):
    lifecycle = Lifecycle(startup_timeout=0.05)
    supervision = Supervision(max_restarts=0)

    @on_start
    async def begin(self) -> None:
        await World.gate.wait()

    @action
    async def ping(self) -> str:
        return "pong"


async def test_a_start_that_takes_too_long_is_a_crash(platform: Platform) -> None:
    with pytest.raises(AgentFailed, match=r"Late/a.*didn't start within its startup_timeout of 0.05 s"):
        await platform.agent(Late, "a").ping()


class Decoder(Agent, name="decoder"):
    supervision = Supervision(max_restarts=0)
    value: int = 0

    @action
    async def set(self, value: int) -> None:
        self.value = value


async def test_a_record_that_cant_be_decoded_stops_its_agent_without_marking_it(store: Store) -> None:
    """A record that can't be read is never written over, not even to say that its agent is failed."""
    await store.inner.commit("decoder/a", 0, encode(["nonsense"]))
    async with PlatformOn(store) as platform:
        for _ in range(3):
            with pytest.raises(errors.RecordUnreadable, match="decoder/a"):
                await platform.agent(Decoder, "a").set(1)
    record = await store.inner.read("decoder/a")
    assert record is not None
    assert record.head == encode(["nonsense"])


class Stubborn(Agent):
    lifecycle = Lifecycle(turn_timeout=0.05)
    supervision = Supervision(max_restarts=0)

    @action
    async def stay(self) -> None:
        while not World.gate.is_set():
            try:
                await World.gate.wait()
            except asyncio.CancelledError:
                continue

    @action
    async def ping(self) -> str:
        return "pong"


async def test_a_turn_that_is_given_up_is_a_crash() -> None:
    async with Platform() as platform:
        ref = platform.agent(Stubborn, "a")
        with pytest.raises(TurnTimeout):
            await ref.stay()
        with pytest.raises(AgentFailed, match="ignored its cancellation"):
            await ref.ping()


async def test_what_waits_goes_to_the_next_activation_in_order(platform: Platform) -> None:
    ref = platform.agent(Worker, "a")
    first = asyncio.ensure_future(ref.wait())
    crash = asyncio.ensure_future(ref.crash())
    rest = [asyncio.ensure_future(ref.add()) for _ in range(3)]
    World.gate.set()
    assert await first == 1
    with pytest.raises(Trouble):
        await crash
    assert await asyncio.gather(*rest) == [2, 3, 4]


async def test_turns_that_ended_before_the_crash_are_committed(on_store: Platform, store: Store) -> None:
    ref = on_store.agent(Worker, "a")
    await ref.add()
    store.hold()
    ended = asyncio.ensure_future(ref.add())
    await until(lambda: store.held == 1)
    crash = asyncio.ensure_future(ref.crash())
    with pytest.raises(Trouble):
        await crash
    store.release()
    assert await ended == 2
    assert await ref.add() == 3


# -- how often -----------------------------------------------------------------------------------------------------


async def test_an_agent_that_crashes_on_every_start_is_failed_after_its_restarts(platform: Platform) -> None:
    World.broken = True
    ref = platform.agent(Worker, "a")
    with pytest.raises(AgentFailed) as caught:
        await ref.add()
    assert caught.value.cause == "RuntimeError: no valves"
    assert caught.value.fields["agent"] == "Worker/a"
    assert "agents.restart" in str(caught.value)
    assert World.starts == ["a"] * 3  # once, and two restarts
    World.broken = False
    for _ in range(3):
        with pytest.raises(AgentFailed, match="no valves"):
            await ref.add()
    assert World.starts == ["a"] * 3  # nobody tries again by himself


async def test_everybody_who_waits_hears_of_it(platform: Platform) -> None:
    World.broken = True
    ref = platform.agent(Worker, "a")
    answers = await asyncio.gather(*(ref.add() for _ in range(10)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {AgentFailed}


async def test_crashes_are_counted_within_their_window_only() -> None:
    class Rare(Agent):
        supervision = Supervision(max_restarts=1, within=0.05, crash_on=(Trouble,))

        @action
        async def crash(self) -> None:
            raise Trouble

    async with Platform() as platform:
        ref = platform.agent(Rare, "a")
        for _ in range(4):
            with pytest.raises(Trouble):
                await ref.crash()
            await asyncio.sleep(0.06)  # the window is the subject
        assert await state_of(platform, ref) != "failed"


async def test_each_agent_counts_its_own_crashes(platform: Platform) -> None:
    first, second = platform.agent(Worker, "a"), platform.agent(Worker, "b")
    for ref in (first, second, first, second):
        with pytest.raises(Trouble):
            await ref.crash()
    assert await first.add() == 1
    assert await second.add() == 1


async def test_without_a_block_three_restarts_are_allowed(platform: Platform) -> None:
    ref = platform.agent(Plain, "a")
    for _ in range(4):
        with pytest.raises(AgentCrashed):
            await ref.crash()
    with pytest.raises(AgentFailed):
        await ref.add()


# -- failed --------------------------------------------------------------------------------------------------------


async def fail_for_good(platform: Platform, key: str) -> Any:
    ref = platform.agent(Worker, key)
    await ref.add()
    for _ in range(3):
        with pytest.raises(Trouble):
            await ref.crash()
    with pytest.raises(AgentFailed):
        await ref.add()
    return ref


async def test_failed_is_written_in_the_record_so_that_no_start_tries_again(world: Crashable) -> None:
    platform = await world.start()
    await fail_for_good(platform, "a")
    await world.crash()
    World.starts.clear()
    platform = await world.start()
    ref = platform.agent(Worker, "a")
    with pytest.raises(AgentFailed) as caught:
        await ref.add()
    assert caught.value.cause == "Trouble: the pump is gone"
    assert World.starts == []
    info = await platform.agents.describe(ref)
    assert (info.state, info.cause) == ("failed", "Trouble: the pump is gone")
    assert info.fields == {"value": 1}


async def test_restart_ends_it_and_forgives_what_was(platform: Platform) -> None:
    ref = await fail_for_good(platform, "a")
    await platform.agents.restart(ref)
    assert await state_of(platform, ref) == "live"
    assert await ref.add() == 2
    for _ in range(2):
        with pytest.raises(Trouble):
            await ref.crash()
    assert await ref.add() == 3


async def test_a_failed_agent_can_be_deleted(platform: Platform) -> None:
    ref = await fail_for_good(platform, "a")
    await platform.agents.delete(ref)
    assert await ref.add() == 1


async def test_an_agent_that_fails_before_anything_was_stored_is_failed_too(world: Crashable) -> None:
    World.broken = True
    platform = await world.start()
    with pytest.raises(AgentFailed):
        await platform.agent(Worker, "a").add()
    await world.crash()
    World.broken = False
    platform = await world.start()
    ref = platform.agent(Worker, "a")
    with pytest.raises(AgentFailed):
        await ref.add()
    await platform.agents.restart(ref)
    assert await ref.add() == 1


async def test_a_call_that_comes_while_it_is_being_marked_doesnt_slip_in(on_store: Platform, store: Store) -> None:
    ref = on_store.agent(Worker, "a")
    await ref.add()
    for _ in range(2):
        with pytest.raises(Trouble):
            await ref.crash()
    await ref.add()
    store.hold()
    with pytest.raises(Trouble):
        await ref.crash()
    await until(lambda: store.held == 1)  # the mark
    late = [asyncio.ensure_future(ref.add()) for _ in range(3)]
    await asyncio.sleep(0)
    store.release()
    answers = await asyncio.gather(*late, return_exceptions=True)
    assert {type(answer) for answer in answers} == {AgentFailed}
    assert len(World.starts) == 3


@pytest.mark.parametrize("error", [StoreUnavailable("the disk is gone"), Conflict("somebody else writes it", expected=1, actual=2)])
async def test_an_agent_that_cant_be_marked_is_refused_all_the_same_and_tried_again_later(
    on_store: Platform, store: Store, caplog: pytest.LogCaptureFixture, error: StoreError
) -> None:
    ref = on_store.agent(Worker, "a")
    await ref.add()
    for _ in range(2):
        with pytest.raises(Trouble):
            await ref.crash()
    await ref.add()
    store.fail_all(error)
    with pytest.raises(Trouble):
        await ref.crash()
    await until(lambda: "couldn't be marked as failed" in caplog.text)
    store.heal()
    assert await ref.add() == 3


async def test_a_cast_to_a_failed_agent_is_kept_and_can_be_redriven(platform: Platform) -> None:
    ref = await fail_for_good(platform, "a")
    await platform.cast(ref.add, durable=True)
    letters = await until_async(lambda: platform.dead_letters.list("cast"))
    assert letters[0].agent == "Worker/a"
    assert "AgentFailed" in letters[0].error
    await platform.agents.restart(ref)
    await platform.dead_letters.redrive(letters[0].id)
    assert await ref.add() == 3
