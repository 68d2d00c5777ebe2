"""One turn: isolated, atomic, first come first served; and everything that can go wrong in one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import pytest

from jidosystem import Agent, Lifecycle, Platform, ReadOnlyTurn, Rejected, TurnTimeout, action, field, on_load, on_state_change
from jidosystem.core.errors import ActionCancelled, AgentCrashed, InvalidResult, OutsideTurn, StateChangedOutsideTurn
from tests.runtime.harness import Crashable, settle, until


class Doors:
    """Where actions of a test wait, and what they have seen. One a test: it is handed over with copy=False."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.inside = 0
        self.most = 0

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())

    def open(self, *names: str) -> None:
        for name in names:
            self.gate(name).set()

    async def pass_through(self, name: str) -> None:
        self.events.append(f"+{name}")
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.gate(name).wait()
        finally:
            self.inside -= 1
            self.events.append(f"-{name}")

    async def entered(self, name: str) -> None:
        await until(lambda: f"+{name}" in self.events, f"{name} entered")


class Room(Agent):
    value: int = 0
    items: list[int] = field(default_factory=list)
    _tally: int = 0

    @action(copy=False)
    async def write(self, doors: Doors, name: str) -> int:
        self.value += 1
        await doors.pass_through(name)
        self.value += 1
        return self.value

    @action(copy=False, readonly=True)
    async def read(self, doors: Doors, name: str) -> int:
        await doors.pass_through(name)
        return self.value

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    @action(readonly=True)
    async def get(self) -> int:
        return self.value

    @action
    async def fail(self, error: str) -> None:
        self.value = 99
        self.items.append(1)
        self._tally += 1
        self.emit("room.failed")
        self.cast(self.agent(Room, "other").add, 1)
        self.remind("soon", after=0.0, action=self.add)
        if error == "rejected":
            raise Rejected("not_today")
        raise ValueError("no")

    @action(readonly=True)
    async def tally(self) -> int:
        return self._tally

    @action(copy=False)
    async def raise_this(self, error: Any) -> None:
        self.value = 99
        raise error

    @action
    async def give_lock(self) -> Any:
        self.value = 99
        return object()

    @action
    async def cancel_itself(self) -> None:
        self.value = 99
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    @action(copy=False)
    async def leave_behind(self, doors: Doors) -> None:
        async def later() -> None:
            await doors.gate("later").wait()
            try:
                self.emit("too.late")
            except OutsideTurn:
                doors.events.append("refused")
            self.value = 99

        doors.events.append("started")
        doors.task = asyncio.create_task(later())  # type: ignore[attr-defined]


# -- isolation -----------------------------------------------------------------------------------------------------


async def test_one_writing_turn_at_a_time(platform: Platform) -> None:
    ref, doors = platform.agent(Room, "a"), Doors()
    calls = [asyncio.ensure_future(ref.write(doors, str(i))) for i in range(5)]
    doors.open(*map(str, range(5)))
    assert await asyncio.gather(*calls) == [2, 4, 6, 8, 10]
    assert doors.most == 1
    assert doors.events == [f"{sign}{i}" for i in range(5) for sign in "+-"]


async def test_different_agents_run_side_by_side(platform: Platform) -> None:
    doors = Doors()
    calls = [asyncio.ensure_future(platform.agent(Room, str(i)).write(doors, str(i))) for i in range(5)]
    await until(lambda: doors.inside == 5)
    doors.open(*map(str, range(5)))
    assert await asyncio.gather(*calls) == [2] * 5


async def test_read_only_turns_run_side_by_side(platform: Platform) -> None:
    ref, doors = platform.agent(Room, "a"), Doors()
    await ref.add(7)
    calls = [asyncio.ensure_future(ref.read(doors, str(i))) for i in range(5)]
    await until(lambda: doors.inside == 5)
    doors.open(*map(str, range(5)))
    assert await asyncio.gather(*calls) == [7] * 5


async def test_a_read_only_turn_never_runs_while_a_writing_turn_runs(platform: Platform) -> None:
    ref, doors = platform.agent(Room, "a"), Doors()
    write = asyncio.ensure_future(ref.write(doors, "w"))
    await doors.entered("w")
    read = asyncio.ensure_future(ref.get())
    await settle()
    assert not read.done()
    doors.open("w")
    assert await asyncio.gather(write, read) == [2, 2]


async def test_a_waiting_writer_isnt_overtaken_by_readers(platform: Platform) -> None:
    ref, doors = platform.agent(Room, "a"), Doors()
    await ref.get()
    first = asyncio.ensure_future(ref.read(doors, "r1"))
    await doors.entered("r1")
    writer = asyncio.ensure_future(ref.write(doors, "w"))
    await settle()
    late = asyncio.ensure_future(ref.read(doors, "r2"))
    await settle()
    assert doors.events == ["+r1"]
    doors.open("r1", "w", "r2")
    assert await asyncio.gather(first, writer, late) == [0, 2, 2]
    assert doors.events == ["+r1", "-r1", "+w", "-w", "+r2", "-r2"]


async def test_waiting_calls_are_served_in_the_order_in_which_they_came(platform: Platform) -> None:
    class Ordered(Agent):
        seen: list[int] = field(default_factory=list)

        @action
        async def note(self, number: int) -> None:
            await asyncio.sleep(0)
            self.seen.append(number)

        @action(readonly=True)
        async def told(self) -> list[int]:
            return self.seen

    ref = platform.agent(Ordered, "a")
    await asyncio.gather(*(ref.note(i) for i in range(300)))
    assert await ref.told() == list(range(300))


# -- roll-back -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["rejected", "error"])
async def test_a_turn_that_raises_leaves_nothing_behind(platform: Platform, how: str) -> None:
    ref = platform.agent(Room, "a")
    await ref.add(5)
    with pytest.raises((Rejected, ValueError)) as caught:
        await ref.fail(how)
    assert str(caught.value) == ("not_today" if how == "rejected" else "no")
    await settle()
    info = await platform.agents.describe(ref)
    assert info.fields == {"value": 5, "items": []}
    assert (info.reminders, info.pending_effects, info.turns) == ((), 0, 1)
    assert [event async for event in platform.events.read_all()] == []
    assert await platform.agent(Room, "other").get() == 0


async def test_transient_fields_are_untouched_by_a_roll_back(platform: Platform) -> None:
    ref = platform.agent(Room, "a")
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await ref.fail("error")
    assert await ref.tally() == 2


async def test_a_result_that_cant_be_carried_rolls_back(platform: Platform) -> None:
    ref = platform.agent(Room, "a")
    with pytest.raises(InvalidResult, match=r"Room\.give_lock returned"):
        await ref.give_lock()
    assert await ref.get() == 0


async def test_an_action_that_is_cancelled_from_within_rolls_back(platform: Platform) -> None:
    ref = platform.agent(Room, "a")
    with pytest.raises(ActionCancelled, match=r"Room/a\.cancel_itself"):
        await ref.cancel_itself()
    assert await ref.add() == 1


@pytest.mark.parametrize("error", [StopIteration(3), StopAsyncIteration(), ExceptionGroup("two", [ValueError(), KeyError()])])
async def test_odd_exceptions_are_failed_turns(platform: Platform, error: BaseException) -> None:
    ref = platform.agent(Room, "a")
    with pytest.raises((RuntimeError, type(error))):
        await ref.raise_this(error)
    assert await ref.add() == 1


class Odd(BaseException):
    pass


@pytest.mark.parametrize("error", [Odd("x"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
async def test_a_base_exception_is_a_crash_of_the_agent_and_of_nothing_else(platform: Platform, error: BaseException) -> None:
    ref, other = platform.agent(Room, "a"), platform.agent(Room, "b")
    await ref.add(5)
    with pytest.raises(AgentCrashed, match=rf"Room/a crashed in raise_this: {type(error).__name__}"):
        await ref.raise_this(error)
    assert await other.add() == 1
    assert await ref.add() == 6  # a new activation, from what was committed


# -- outside of a turn ---------------------------------------------------------------------------------------------


async def test_a_task_that_outlives_its_turn_can_cause_nothing(platform: Platform) -> None:
    ref, doors = platform.agent(Room, "a"), Doors()
    await ref.leave_behind(doors)
    doors.open("later")
    await doors.task  # type: ignore[attr-defined]
    assert doors.events == ["started", "refused"]
    assert [event async for event in platform.events.read_all()] == []


async def test_checking_mode_finds_state_that_changed_after_its_turn(url: str) -> None:
    async with Platform(url, checking=True) as platform:
        ref, doors = platform.agent(Room, "a"), Doors()
        await ref.leave_behind(doors)
        doors.open("later")
        await doors.task  # type: ignore[attr-defined]
        with pytest.raises(StateChangedOutsideTurn, match="value") as caught:
            await ref.get()
        assert caught.value.names == ["value"]
        assert await ref.get() == 0
        assert await ref.add() == 1


async def test_checking_mode_finds_an_argument_that_couldnt_travel(url: str) -> None:
    async with Platform(url, checking=True) as platform:
        with pytest.raises(TypeError, match="amount"):
            await platform.agent(Room, "a").add("three")  # type: ignore[arg-type]


class Forgetful(Agent):
    """Lacks an annotation."""

    value: int = 0
    count: ClassVar[int] = 0

    @action
    async def typo(self) -> None:
        self.value = 1
        self.vlaue = 2

    @action
    async def add(self) -> int:
        self.count += 1  # of this activation only
        return self.count

    @action
    async def get(self) -> int:
        return self.value

    @cached_property
    def derived(self) -> int:
        return 1

    @action
    async def derive(self) -> int:
        self._seen = self.derived
        return self._seen

    @action
    async def unawaited(self) -> None:
        pending = self.get()
        pending.close()  # type: ignore[attr-defined]
        self.value = pending  # type: ignore[assignment]


async def test_checking_mode_finds_what_is_assigned_to_no_field(url: str) -> None:
    async with Platform(url, checking=True) as platform:
        ref = platform.agent(Forgetful, "a")
        with pytest.raises(InvalidResult, match=r"Forgetful/a\.typo assigned self\.vlaue, which is no field.*did you mean 'value'\?"):
            await ref.typo()
        with pytest.raises(InvalidResult, match=r"self\.count.*Annotate it"):
            await ref.add()
        assert await ref.get() == 0
        assert await ref.derive() == await ref.derive() == 1


class Promising(Agent):
    """Promises one thing and returns what it is told."""

    value: int = 0

    def _give(self, what: str) -> Any:
        self.value += 1
        return {"text": "many", "none": None, "int": 3, "float": 1.5, "pair": (1, "b"), "wrong pair": ("a", 1), "list": ["x"], "object": object()}[
            what
        ]

    @action
    async def number(self, what: str) -> int:
        return self._give(what)  # type: ignore[no-any-return]

    @action(readonly=True)
    async def reading(self, what: str) -> float:
        return {"text": "many", "int": 3}[what]  # type: ignore[return-value]

    @action
    def threaded(self, what: str) -> tuple[int, str]:
        return self._give(what)  # type: ignore[no-any-return]

    @action
    async def nothing(self, what: str) -> None:
        return self._give(what)  # type: ignore[no-any-return]

    @action
    async def maybe(self, what: str) -> int | None:
        return self._give(what)  # type: ignore[no-any-return]

    @action(copy=False)
    async def as_it_is(self, what: str) -> int:
        return self._give(what)  # type: ignore[no-any-return]

    @action(readonly=True)
    async def get(self) -> int:
        return self.value


@pytest.mark.parametrize(
    ("name", "what", "promised", "given"),
    [("number", "text", "int", "'many'"), ("number", "none", "int", "None"), ("number", "float", "int", "1.5"),
     ("reading", "text", "float", "'many'"),
     ("threaded", "wrong pair", r"tuple\[int, str\]", r"\('a', 1\)"), ("nothing", "int", "None", "3"), ("maybe", "list", r"int \| None", r"\['x'\]"),
     ("number", "object", "int", "<object")],
)  # fmt: skip
async def test_checking_mode_refuses_a_result_that_is_not_what_the_action_promises(url: str, name: str, what: str, promised: str, given: str) -> None:
    async with Platform(url, checking=True) as platform:
        ref = platform.agent(Promising, "a")
        with pytest.raises(InvalidResult, match=rf"^Promising\.{name} returned {given}.*, which doesn't fit its `-> {promised}`: "):
            await getattr(ref, name)(what)
        assert await ref.get() == 0


@pytest.mark.parametrize(("name", "what"), [("number", "int"), ("reading", "int"), ("threaded", "pair"), ("maybe", "none"), ("as_it_is", "object")])
async def test_checking_mode_lets_a_result_through_that_fits(url: str, name: str, what: str) -> None:
    async with Platform(url, checking=True) as platform:
        ref = platform.agent(Promising, "a")
        assert type(await getattr(ref, name)(what)) in (int, tuple, type(None), object)


async def test_a_forgotten_await_is_told(platform: Platform) -> None:
    ref = platform.agent(Forgetful, "a")
    with pytest.raises(InvalidResult, match=r"coroutine can't be carried; is an `await` missing\?"):
        await ref.unawaited()


async def test_checking_mode_changes_nothing_else(url: str) -> None:
    async with Platform(url, checking=True) as platform:
        ref, doors = platform.agent(Room, "a"), Doors()
        with pytest.raises(ValueError, match="no"):
            await ref.fail("error")
        doors.open("w", "r")
        assert await asyncio.gather(ref.write(doors, "w"), ref.read(doors, "r"), ref.add()) == [2, 2, 3]


# -- read-only turns -----------------------------------------------------------------------------------------------


class Reader(Agent):
    value: int = 1
    items: list[int] = field(default_factory=list)
    _cache: int = 0

    @action(readonly=True)
    async def do(self, what: str) -> Any:
        match what:
            case "assign":
                self.value = 2
            case "delete":
                del self.value
            case "augment":
                self.items += [1]
            case "emit":
                self.emit("reader.read")
            case "remind":
                self.remind("x", after=1, action=self.note)
            case "forget":
                self.forget("x")
            case "cast":
                self.cast(self.agent(Reader, "b").note)
            case "stop":
                self.stop()
            case "delete self":
                self.delete()
            case "after":
                self.after(1, self.note)
            case "child":
                self.child(Reader, "one")
            case "transient":
                self._cache += 1
                return self._cache
            case "in place":
                self.items.append(1)
        return self.value

    @action
    async def note(self) -> None:
        self.value += 1


@pytest.mark.parametrize("what", ["assign", "delete", "augment", "emit", "remind", "forget", "cast", "stop", "delete self", "after", "child"])
async def test_a_read_only_turn_changes_and_causes_nothing(platform: Platform, what: str) -> None:
    ref = platform.agent(Reader, "a")
    with pytest.raises(ReadOnlyTurn, match=r"Reader|read-only"):
        await ref.do(what)
    assert (await platform.agents.describe(ref)).state == "live"
    assert (await platform.agents.describe(ref)).turns == 0


async def test_a_read_only_turn_may_fill_transient_fields(platform: Platform) -> None:
    ref = platform.agent(Reader, "a")
    assert [await ref.do("transient"), await ref.do("transient")] == [1, 2]


async def test_checking_mode_finds_a_read_only_turn_that_changes_in_place(url: str) -> None:
    async with Platform(url, checking=True) as platform:
        ref = platform.agent(Reader, "a")
        with pytest.raises(ReadOnlyTurn, match="items") as caught:
            await ref.do("in place")
        assert caught.value.fields["names"] == ["items"]
        assert (await platform.agents.describe(ref)).fields == {"value": 1, "items": []}
        assert await ref.do("nothing") == 1


# -- hooks of a turn -----------------------------------------------------------------------------------------------


class Account(Agent):
    """Its balance is never negative, and it counts its changes."""

    balance: int = 0
    changes: int = 0
    seen: list[tuple[int, int]] = field(default_factory=list)
    _doubled: int = -1

    @on_load
    def rebuild(self) -> None:
        self._doubled = self.balance * 2

    @on_state_change
    async def check(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        if new["balance"] < 0:
            raise Rejected("overdrawn")
        self.changes += 1
        self.seen.append((old["balance"], new["balance"]))
        self.emit("account.changed", {"to": new["balance"]})

    @action
    async def add(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    @action
    async def add_by_force(self, amount: int) -> None:
        self.balance += amount
        self._doubled = self.balance * 2
        raise ValueError("no")

    @action
    async def same(self) -> None:
        self.balance += 1
        self.balance -= 1

    @action(readonly=True)
    async def doubled(self) -> int:
        return self._doubled


async def test_on_state_change_runs_in_the_turn_and_what_it_changes_is_committed(platform: Platform) -> None:
    ref = platform.agent(Account, "a")
    assert await ref.add(5) == 5
    await ref.add(2)
    await platform.agents.stop(ref)
    fields = (await platform.agents.describe(ref)).fields
    assert fields == {"balance": 7, "changes": 2, "seen": [(0, 5), (5, 7)]}
    assert [event.data async for event in platform.events.read_all()] == [{"to": 5}, {"to": 7}]


async def test_on_state_change_isnt_called_if_nothing_changed(platform: Platform) -> None:
    ref = platform.agent(Account, "a")
    await ref.same()
    await ref.doubled()
    assert (await platform.agents.describe(ref)).turns == 0
    assert [event async for event in platform.events.read_all()] == []


async def test_on_state_change_that_raises_rolls_the_turn_back(platform: Platform) -> None:
    ref = platform.agent(Account, "a")
    await ref.add(1)
    with pytest.raises(Rejected, match="overdrawn"):
        await ref.add(-5)
    assert (await platform.agents.describe(ref)).fields == {"balance": 1, "changes": 1, "seen": [(0, 1)]}


async def test_on_load_rebuilds_after_activation_and_roll_back(platform: Platform) -> None:
    ref = platform.agent(Account, "a")
    assert await ref.doubled() == 0  # a new agent too
    await ref.add(4)
    with pytest.raises(ValueError, match="no"):
        await ref.add_by_force(100)
    assert await ref.doubled() == 8
    await platform.agents.stop(ref)
    assert await ref.doubled() == 8


# -- limits of time ------------------------------------------------------------------------------------------------


class Slow(Agent):
    lifecycle = Lifecycle(turn_timeout=0.05)
    value: int = 0

    @action
    async def hang(self) -> None:
        self.value = 99
        await asyncio.Event().wait()

    @action(copy=False)
    async def refuse_to_stop(self, doors: Doors) -> None:
        self.value = 99
        while not doors.gate("end").is_set():
            try:
                await doors.gate("end").wait()
            except asyncio.CancelledError:
                doors.events.append("ignored")
        try:
            self.emit("slow.ended")
        except OutsideTurn:
            doors.events.append("refused")
        doors.events.append("ended")

    @action(copy=False, readonly=True)
    async def read_for_ever(self) -> None:
        await asyncio.Event().wait()

    @action
    async def add(self) -> int:
        self.value += 1
        return self.value


class Patient(Agent):
    lifecycle = Lifecycle(turn_timeout=0)

    @action
    async def wait(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"


async def test_a_turn_that_runs_too_long_is_cancelled_and_rolled_back(platform: Platform) -> None:
    ref = platform.agent(Slow, "a")
    with pytest.raises(TurnTimeout, match=r"Slow/a\.hang ran longer than its turn_timeout of 0\.05 s") as caught:
        await ref.hang()
    assert caught.value.outcome_known
    assert await ref.add() == 1


async def test_a_read_only_turn_has_the_same_limit(platform: Platform) -> None:
    ref = platform.agent(Slow, "a")
    with pytest.raises(TurnTimeout):
        await ref.read_for_ever()
    assert await ref.add() == 1


async def test_no_limit_is_none(platform: Platform) -> None:
    assert await platform.agent(Patient, "a").wait(0.05) == "done"


async def test_a_turn_that_ignores_its_cancellation_is_given_up_and_can_do_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    async with Platform() as platform:
        ref, doors = platform.agent(Slow, "a"), Doors()
        with pytest.raises(TurnTimeout):
            await ref.refuse_to_stop(doors)
        assert doors.events == ["ignored"]
        assert await ref.add() == 1  # on a new instance, while the old code still runs
        doors.open("end")
        await until(lambda: "ended" in doors.events)
        await settle()
        assert doors.events == ["ignored", "refused", "ended"]
        assert await ref.add() == 2
        assert [event async for event in platform.events.read_all()] == []
        assert "refuse_to_stop" in caplog.text


async def test_turns_that_ended_before_a_crash_are_kept(world: Crashable) -> None:
    platform = await world.start()
    ref = platform.agent(Room, "a")
    results = await asyncio.gather(*(ref.add() for _ in range(20)))
    assert results == list(range(1, 21))
    await world.crash()
    platform = await world.start()
    assert await platform.agent(Room, "a").get() == 20
