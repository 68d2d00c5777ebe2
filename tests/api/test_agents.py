"""`platform.agents`: start, stop, delete, restart, pause, resume, list, describe, watch; residents; agents without a platform."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from jidosystem import (
    Agent,
    AgentCrashed,
    AgentFailed,
    CallTimeout,
    InvalidArguments,
    InvalidKey,
    NoPlatform,
    NotAnAction,
    Platform,
    Supervision,
    action,
    on_load,
    on_start,
    on_state_change,
    on_terminate,
)
from jidosystem.core.errors import NoHost, OutsideTurn
from tests.runtime.harness import Crashable, FakeClock, settle, until, until_async


class Told:
    """What the hooks tell; set afresh for each test."""

    events: list[str]
    gate: asyncio.Event
    broken: bool


@pytest.fixture(autouse=True)
async def told() -> AsyncIterator[type[Told]]:
    Told.events, Told.gate, Told.broken = [], asyncio.Event(), False
    yield Told
    Told.gate.set()


class Counter(Agent):
    """Counts."""

    value: int = 0
    starts: int = 0
    ends: int = 0
    _double: int = 0

    @on_load
    def rebuild(self) -> None:
        Told.events.append("load")
        self._double = self.value * 2

    @on_start
    async def begin(self) -> None:
        Told.events.append("start")
        self.starts += 1
        self.emit("counter.started")

    @on_terminate
    async def end(self) -> None:
        Told.events.append("terminate")
        if Told.broken:
            self.value = 99
            raise ValueError("the pipe is stuck")
        self.ends += 1
        self.emit("counter.ended")

    @on_state_change
    async def changed(self, old: Any, new: Any) -> None:
        if new["value"] < 0:
            raise ValueError("never below zero")

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    @action
    async def wait(self) -> int:
        await Told.gate.wait()
        self.value += 1
        return self.value

    @action(readonly=True)
    async def get(self) -> tuple[int, int, int]:
        return self.value, self.starts, self.ends

    @action
    async def stop_yourself(self) -> int:
        self.value += 1
        self.stop()
        return self.value

    @action
    async def delete_yourself(self) -> str:
        self.emit("counter.gone", self.value)
        self.delete()
        return "gone"

    @action
    async def remind_yourself(self, after: float = 60.0) -> None:
        self.remind("tick", action=self.tick, after=after)

    @action
    async def set_a_timer(self) -> None:
        self.after(0.02, self.tick)

    @action
    async def tick(self) -> None:
        Told.events.append("tick")
        self.value += 1


class Plain(Agent):
    value: int = 0

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value


class Resident(Plain, resident=True):
    @on_start
    async def begin(self) -> None:
        Told.events.append(f"resident {self.key}")


class Fragile(Plain):
    supervision = Supervision(max_restarts=0)

    @on_start
    async def begin(self) -> None:
        raise RuntimeError("no start")


async def state_of(platform: Platform, ref: Any) -> str:
    return (await platform.agents.describe(ref)).state


# -- start, stop, hooks --------------------------------------------------------------------------------------------


async def test_start_activates_and_returns_a_reference(platform: Platform) -> None:
    ref = await platform.agents.start(Counter, "a")
    assert Told.events == ["load", "start"]
    assert await ref.get() == (0, 1, 0)  # what on_start changed is committed
    assert [event.type async for event in platform.events.read_all()] == ["counter.started"]
    assert await platform.agents.start(Counter, "a") == ref
    assert Told.events == ["load", "start"]


async def test_start_says_why_an_agent_cant_live(platform: Platform) -> None:
    with pytest.raises(AgentFailed, match="no start"):
        await platform.agents.start(Fragile, "a")
    with pytest.raises(InvalidKey):
        await platform.agents.start(Counter, "")
    with pytest.raises(NoHost):
        await platform.agents.start(object, "a")  # type: ignore[type-var]


async def test_stop_runs_on_terminate_as_a_turn_and_the_next_call_activates(platform: Platform) -> None:
    ref = await platform.agents.start(Counter, "a")
    await platform.agents.stop(ref)
    assert Told.events == ["load", "start", "terminate"]
    assert await state_of(platform, ref) == "passive"
    assert await ref.get() == (0, 2, 1)
    await platform.agents.stop(ref)
    await platform.agents.stop(ref)  # no error if it isn't live
    await platform.agents.stop(platform.agent(Counter, "never called"))


async def test_an_on_terminate_that_raises_is_rolled_back_and_told_and_the_agent_goes(platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    ref = await platform.agents.start(Counter, "a")
    Told.broken = True
    await platform.agents.stop(ref)
    assert "the pipe is stuck" in caplog.text
    assert await ref.get() == (0, 2, 0)


async def test_on_terminate_isnt_run_after_a_crash(platform: Platform) -> None:
    class Crashing(Counter):
        @action
        async def crash(self) -> None:
            raise SystemExit

    ref = await platform.agents.start(Crashing, "a")
    with pytest.raises(AgentCrashed):
        await ref.crash()
    assert await ref.get() == (0, 2, 0)
    assert "terminate" not in Told.events


async def test_what_was_accepted_runs_before_the_stop(platform: Platform) -> None:
    ref = await platform.agents.start(Counter, "a")
    running = asyncio.ensure_future(ref.wait())
    await settle()
    stopping = asyncio.ensure_future(platform.agents.stop(ref))
    await settle()
    assert not stopping.done()
    late = asyncio.ensure_future(ref.add())
    Told.gate.set()
    await stopping
    assert await running == 1
    assert await late == 2  # on the next activation
    assert await ref.get() == (2, 2, 1)


async def test_an_agent_stops_itself_with_its_commit(platform: Platform) -> None:
    ref = platform.agent(Counter, "a")
    assert await ref.stop_yourself() == 1
    await until(lambda: "terminate" in Told.events)
    assert await ref.get() == (1, 2, 1)


class Brief(Agent):
    """Wants to go as soon as it has come."""

    value: int = 0
    starts: int = 0

    @on_start
    async def begin(self) -> None:
        self.starts += 1
        Told.events.append("start")
        self.after(60.0, self.add)
        self.stop()

    @on_terminate
    async def end(self) -> None:
        Told.events.append(f"terminate {self.value}")

    @action
    async def add(self) -> int:
        self.value += 1
        return self.value

    @action(readonly=True)
    async def get(self) -> tuple[int, int]:
        return self.value, self.starts


async def test_an_agent_that_stops_itself_in_on_start_goes_after_its_start(platform: Platform) -> None:
    ref = await platform.agents.start(Brief, "a")
    await until(lambda: Told.events == ["start", "terminate 0"])

    async def passive() -> bool:
        return await state_of(platform, ref) == "passive"

    await until_async(passive)
    assert Told.events == ["start", "terminate 0"]


async def test_what_waits_for_the_start_of_an_agent_that_stops_itself_runs_before(platform: Platform) -> None:
    ref = platform.agent(Brief, "a")
    assert await asyncio.gather(ref.add(), ref.add(), ref.get()) == [1, 2, (2, 1)]
    await until(lambda: Told.events == ["start", "terminate 2"])
    assert await ref.add() == 3  # each call wakes it again
    await until(lambda: Told.events[2:] == ["start", "terminate 3"])


async def test_a_paused_agent_that_stops_itself_in_on_start_goes_too(platform: Platform) -> None:
    ref = platform.agent(Brief, "a")
    await platform.agents.pause(ref)
    await until(lambda: "terminate 0" in Told.events)

    async def at_rest() -> bool:
        return await state_of(platform, ref) == "paused" and platform._node is not None and not platform._node.hosts["Brief"].live

    await until_async(at_rest)
    waiting = asyncio.ensure_future(ref.add())
    await settle()
    assert not waiting.done()
    await platform.agents.resume(ref)
    assert await waiting == 1


async def test_timers_are_lost_with_their_activation(platform: Platform) -> None:
    ref = platform.agent(Counter, "a")
    await ref.set_a_timer()
    await platform.agents.stop(ref)
    await ref.set_a_timer()
    await until(lambda: "tick" in Told.events)
    assert (await ref.get())[0] == 1


async def test_restart_drops_the_activation_and_makes_a_new_one(platform: Platform) -> None:
    ref = await platform.agents.start(Counter, "a")
    await ref.add()
    Told.events.clear()
    await platform.agents.restart(ref)
    assert Told.events == ["load", "start"]
    assert (await ref.get())[0] == 1
    await platform.agents.restart(platform.agent(Counter, "new"))
    assert await state_of(platform, platform.agent(Counter, "new")) == "live"


# -- delete --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["agents.delete", "self.delete"])
async def test_a_deleted_agent_begins_from_defaults(platform: Platform, how: str) -> None:
    ref = platform.agent(Counter, "a")
    await ref.add(5)
    await platform.call(ref.add, 1, idempotency_key="k")
    await ref.remind_yourself()
    if how == "self.delete":
        assert await ref.delete_yourself() == "gone"
        (event,) = [event async for event in platform.events.read_all("counter.gone")]
        assert event.data == 6
    else:
        await platform.agents.delete(ref)
    assert await platform.agents.list(type=Counter, state="passive") == []
    assert await platform.call(ref.add, 1, idempotency_key="k") == 1  # the key is forgotten too
    assert (await platform.agents.describe(ref)).reminders == ()


async def test_a_deletion_survives(world: Crashable) -> None:
    platform = await world.start()
    ref = platform.agent(Plain, "a")
    await ref.add(5)
    revision = (await platform.agents.describe(ref)).revision
    await platform.agents.delete(ref)
    await world.crash()
    platform = await world.start()
    ref = platform.agent(Plain, "a")
    assert await ref.add() == 1
    assert (await platform.agents.describe(ref)).revision > revision  # late writers fail


# -- pause ---------------------------------------------------------------------------------------------------------


async def test_calls_to_a_paused_agent_wait_until_it_goes_on(platform: Platform) -> None:
    ref = platform.agent(Plain, "a")
    await ref.add()
    await platform.agents.pause(ref)
    await platform.agents.pause(ref)
    assert await state_of(platform, ref) == "paused"
    waiting = [asyncio.ensure_future(ref.add()) for _ in range(3)]
    await settle()
    assert not any(call.done() for call in waiting)
    with pytest.raises(CallTimeout) as caught:
        await platform.call(ref.add, timeout=0.02)
    assert not caught.value.uncertain
    await platform.agents.resume(ref)
    assert await asyncio.gather(*waiting) == [2, 3, 4]
    await platform.agents.resume(ref)
    assert await state_of(platform, ref) == "live"


async def test_a_pause_is_durable(world: Crashable) -> None:
    platform = await world.start()
    ref = platform.agent(Plain, "a")
    await ref.add()
    await platform.agents.pause(ref)
    await world.crash()
    platform = await world.start()
    ref = platform.agent(Plain, "a")
    assert await state_of(platform, ref) == "paused"
    call = asyncio.ensure_future(ref.add())
    await settle()
    assert await state_of(platform, ref) == "paused"
    assert not call.done()
    await platform.agents.resume(ref)
    assert await call == 2


async def test_reminders_and_casts_stay_while_it_is_paused_also_across_a_restart(world: Crashable) -> None:
    platform = await world.start()
    ref = platform.agent(Counter, "a")
    await ref.remind_yourself(0.3)
    await platform.agents.pause(ref)
    await platform.cast(ref.add, 10, durable=True)
    await settle()
    await world.close()
    platform = await world.start([Counter])
    ref = platform.agent(Counter, "a")
    await asyncio.sleep(0.4)  # until it has been due: that nothing happens can't be awaited
    assert "tick" not in Told.events
    await platform.agents.resume(ref)
    await until_async(lambda: has_value(ref, 11))
    assert await platform.dead_letters.list() == []


async def has_value(ref: Counter, value: int) -> bool:
    return (await ref.get())[0] == value


async def test_a_paused_agent_can_be_stopped_restarted_and_deleted(platform: Platform) -> None:
    ref = platform.agent(Plain, "a")
    await ref.add()
    await platform.agents.pause(ref)
    await platform.agents.stop(ref)
    assert await state_of(platform, ref) == "paused"
    await platform.agents.restart(ref)
    assert await state_of(platform, ref) == "paused"
    await platform.agents.delete(ref)
    assert await ref.add() == 1


# -- residents -----------------------------------------------------------------------------------------------------


async def test_residents_are_activated_at_the_start_and_stay(world: Crashable) -> None:
    platform = await world.start()
    await platform.agent(Resident, "a").add()
    await platform.agent(Resident, "b").add()
    await world.crash()
    Told.events.clear()
    platform = await world.start([Resident], config={"agents.idle_timeout": 0.001, "agents.max_live": 1})
    await until(lambda: sorted(Told.events) == ["resident a", "resident b"])
    platform._node._sweep()
    assert [info.state for info in await platform.agents.list(type=Resident)] == ["live", "live"]


async def test_residents_of_a_type_that_is_registered_later_wake_then(world: Crashable) -> None:
    platform = await world.start()
    await platform.agent(Resident, "a").add()
    await world.crash()
    Told.events.clear()
    platform = await world.start()
    await settle()
    assert Told.events == []
    platform.agent(Resident, "other")
    await until(lambda: Told.events == ["resident a"])


# -- looking -------------------------------------------------------------------------------------------------------


async def test_list_by_type_state_and_node(platform: Platform) -> None:
    for key in "cab":
        await platform.agent(Plain, key).add()
    await platform.agents.start(Counter, "x")
    await platform.agents.stop(platform.agent(Plain, "a"))
    await platform.agents.pause(platform.agent(Plain, "b"))
    with pytest.raises(AgentFailed):
        await platform.agents.start(Fragile, "f")

    async def keys(**options: Any) -> list[str]:
        return [info.key for info in await platform.agents.list(**options)]

    assert await keys(type=Plain) == ["a", "b", "c"]
    assert await keys(type="Plain") == ["a", "b", "c"]
    assert await keys(type=Plain, state="live") == ["c"]
    assert await keys(type=Plain, state="passive") == ["a"]
    assert await keys(state="paused") == ["b"]
    assert await keys(state="failed") == ["f"]
    assert sorted(await keys(node=platform.name)) == ["b", "c", "x"]
    assert await keys(node="elsewhere") == []
    assert sorted(await keys()) == ["a", "b", "c", "f", "x"]  # nothing of the platform's own
    with pytest.raises(InvalidArguments, match="state='dead': one of 'live', 'passive'"):
        await platform.agents.list(state="dead")
    with pytest.raises(NoHost):
        await platform.agents.list(type="Plane")


async def test_describe(platform: Platform) -> None:
    ref = platform.agent(Counter, "a")
    info = await platform.agents.describe(ref)
    assert (info.type, info.key, info.state, info.node, info.turns, info.revision) == ("Counter", "a", "passive", None, 0, 0)
    assert Told.events == []  # looking wakes nobody, and writes nothing
    await ref.add(3)
    await ref.remind_yourself()
    info = await platform.agents.describe(ref)
    assert (info.state, info.node, info.version, info.reminders) == ("live", platform.name, 1, ("tick",))
    assert list(info.due) == ["tick"]
    assert info.due["tick"] > datetime.now(UTC)
    assert info.fields == {"value": 3, "starts": 1, "ends": 0}
    with pytest.raises(InvalidArguments, match="isn't a reference"):
        await platform.agents.describe("Counter/a")  # type: ignore[arg-type]


async def test_watch_tells_the_committed_state_after_each_commit(platform: Platform) -> None:
    ref = platform.agent(Plain, "a")
    await ref.add()
    seen: list[tuple[Any, int]] = []

    async def watching() -> None:
        async for fields, revision in platform.agents.watch(ref):
            seen.append((fields, revision))
            if fields is None:
                return

    watcher = asyncio.ensure_future(watching())
    await until(lambda: len(seen) == 1)
    for n in range(2, 5):
        await ref.add()
        await until(lambda n=n: len(seen) == n)
    await platform.agents.delete(ref)
    await asyncio.wait_for(watcher, 5)
    assert [fields for fields, _revision in seen] == [{"value": n} for n in range(1, 5)] + [None]
    revisions = [revision for _fields, revision in seen]
    assert revisions == sorted(set(revisions))


# -- idleness ------------------------------------------------------------------------------------------------------


async def test_an_agent_with_a_pending_timer_isnt_passivated(platform: Platform) -> None:
    ref = platform.agent(Counter, "a")
    await ref.set_a_timer()
    activation = platform._node.hosts["Counter"].live["a"]
    assert not platform._node.hosts["Counter"].passivate(activation)
    await until(lambda: "tick" in Told.events)
    await until(lambda: platform._node.hosts["Counter"].passivate(activation))


# -- without a platform --------------------------------------------------------------------------------------------


class Shop(Agent):
    sold: int = 0

    @action
    async def sell(self, amount: int) -> int:
        self.sold += amount
        self.emit("shop.sold", {"amount": amount})
        self.remind("restock", action=self.restock, after=60)
        return self.sold

    @action
    async def restock(self) -> None: ...

    @action
    def compute(self) -> int:
        return self.sold * 2

    @action
    async def ask(self) -> int:
        return await self.agent(Shop, "b").sell(1)

    @action
    async def close(self) -> None:
        self.forget("restock")
        self.stop()


async def test_an_agent_without_a_platform_is_a_plain_object_that_collects_effects() -> None:
    shop = Shop(sold=1)
    assert await shop.sell(2) == 3
    assert [(event.type, event.data) for event in shop.effects.events] == [("shop.sold", {"amount": 2})]
    reminder = shop.effects.reminders["restock"]
    assert reminder is not None
    assert reminder.action == "restock"
    assert list(shop.reminders) == ["restock"]
    await shop.close()
    assert shop.effects.stopped
    assert shop.effects.reminders["restock"] is None
    assert dict(shop.reminders) == {}
    assert shop.key == ""


async def test_a_plain_def_is_awaited_there_too_and_begins_only_then() -> None:
    shop = Shop(sold=2)
    coroutine = shop.compute()
    assert asyncio.iscoroutine(coroutine)
    assert await coroutine == 4


async def test_what_needs_a_platform_says_so() -> None:
    shop = Shop()
    with pytest.raises(NoPlatform, match=r"Shop\(\)\.agent needs a platform"):
        await shop.ask()
    with pytest.raises(NoPlatform):
        _ = shop.ref


async def test_an_action_that_writes_log_lines_runs_without_a_platform_too(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop()
    with caplog.at_level("INFO", "jidosystem"):
        shop.log.info("sold out", left=0)
    assert '"agent": "Shop"' in caplog.text
    assert '"left": 0' in caplog.text


async def test_a_reference_reaches_actions_only(platform: Platform) -> None:
    ref = platform.agent(Shop, "a")
    with pytest.raises(NotAnAction, match=r"Shop\.sold is a field"):
        _ = ref.sold
    with pytest.raises(NotAnAction, match="did you mean 'sell'"):
        _ = ref.sel  # type: ignore[attr-defined]
    assert ref.key == "a"


async def test_effects_are_for_agents_without_a_platform(platform: Platform) -> None:
    class Curious(Agent):
        @action
        async def look(self) -> str:
            return str(self.effects)

    with pytest.raises(OutsideTurn, match="without a platform"):
        await platform.agent(Curious, "a").look()


async def test_a_clock_of_ones_own_is_used(clock: FakeClock) -> None:
    async with Platform(clock=clock) as platform:
        event = await platform.events.publish("a.b", 1)
        assert event.time_s == clock.wall_s
