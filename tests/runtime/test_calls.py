"""Calls: whose patience ends when, what crosses the boundary, and what is refused before it begins."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import pytest
from pydantic import BaseModel

from jidosystem import Agent, CallTimeout, InvalidArguments, InvalidKey, NotAnAction, Platform, action, field
from jidosystem.core.errors import NoHost
from tests.runtime.harness import settle, until


@dataclass
class Order:
    sku: str
    count: int = 1


@dataclass(frozen=True)
class Frozen:
    sku: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class FrozenOutside:
    tags: list[str]


class Side(enum.Enum):
    LEFT = 1
    RIGHT = 2


class Model(BaseModel):
    name: str
    age: int = 0


class Desk(Agent):
    value: int = 0
    orders: list[Order] = field(default_factory=list)
    _last: Any = None

    @action
    async def add(self, amount: int = 1, *, twice: bool = False) -> int:
        self.value += amount * (1 + twice)
        return self.value

    @action
    async def order(self, order: Order) -> Order:
        self.orders.append(order)
        return self.orders[-1]

    @action
    async def many(self, orders: list[Order], side: Side = Side.LEFT, mode: Literal["fast", "slow"] = "slow") -> str:
        self.orders = orders
        return f"{len(orders)} {side.name} {mode}"

    @action
    async def model(self, model: Model) -> Model:
        model.age += 1
        return model

    @action
    async def frozen(self, value: Frozen) -> bool:
        self._last = value
        return True

    @action
    async def frozen_outside(self, value: FrozenOutside) -> bool:
        self._last = value
        return True

    @action(copy=False)
    async def as_it_is(self, value: Any) -> Any:
        self._last = value
        return value

    @action(copy=False, readonly=True)
    async def is_last(self, value: Any) -> bool:
        return self._last is value

    @action(copy=False)
    async def wait(self, gate: asyncio.Event) -> int:
        await gate.wait()
        self.value += 1
        return self.value

    @action(readonly=True)
    async def get(self) -> int:
        return self.value

    @action(copy=False)
    async def ask(self, key: str, gate: asyncio.Event) -> str:
        try:
            await self.agent(Desk, key).wait(gate)
        except CallTimeout as error:
            return f"uncertain={error.uncertain}"
        return "answered"

    @action(copy=False)
    async def ask_patiently(self, key: str, gate: asyncio.Event) -> int:
        return await self.call(self.agent(Desk, key).wait, gate, timeout=1000)

    def helper(self) -> None:
        """No action."""


# -- patience ------------------------------------------------------------------------------------------------------


async def test_a_call_that_began_times_out_uncertain_and_goes_on(platform: Platform) -> None:
    ref, gate = platform.agent(Desk, "a"), asyncio.Event()
    await ref.get()  # it is loaded: the call begins at once
    with pytest.raises(CallTimeout, match=r"Desk/a\.wait.*had begun and goes on") as caught:
        await platform.call(ref.wait, gate, timeout=0.02)
    assert caught.value.uncertain is True
    gate.set()
    assert await ref.get() == 1


async def test_a_call_that_waited_in_the_mailbox_is_withdrawn(platform: Platform) -> None:
    ref, gate = platform.agent(Desk, "a"), asyncio.Event()
    first = asyncio.ensure_future(ref.wait(gate))
    await settle()
    with pytest.raises(CallTimeout, match=r"hadn't begun and was withdrawn") as caught:
        await platform.call(ref.add, 100, timeout=0.02)
    assert caught.value.uncertain is False
    gate.set()
    assert await first == 1
    assert await ref.get() == 1


async def test_a_call_whose_time_is_over_never_begins(platform: Platform) -> None:
    ref, gate = platform.agent(Desk, "a"), asyncio.Event()
    first = asyncio.ensure_future(ref.wait(gate))
    await settle()
    late = [asyncio.ensure_future(platform.call(ref.add, 100, timeout=0.001)) for _ in range(3)]
    await asyncio.sleep(0.003)  # over, and the wheel hasn't turned yet
    gate.set()
    results = await asyncio.gather(first, *late, return_exceptions=True)
    assert results[0] == 1
    assert all(isinstance(result, CallTimeout) and result.uncertain is False for result in results[1:]), results
    assert await ref.get() == 1
    assert await asyncio.gather(*(ref.add() for _ in range(5))) == [2, 3, 4, 5, 6]


async def test_no_patience_at_all_is_a_timeout_not_a_hang(platform: Platform) -> None:
    ref, gate = platform.agent(Desk, "a"), asyncio.Event()
    first = asyncio.ensure_future(ref.wait(gate))
    await settle()
    with pytest.raises(CallTimeout):
        await platform.call(ref.add, timeout=0)
    gate.set()
    await first


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1", True])
async def test_an_impossible_timeout_is_refused(platform: Platform, timeout: Any) -> None:
    with pytest.raises(InvalidArguments, match="timeout"):
        await platform.call(platform.agent(Desk, "a").add, timeout=timeout)


async def test_a_caller_that_is_cancelled_doesnt_stop_a_turn_that_began(platform: Platform) -> None:
    ref, gate = platform.agent(Desk, "a"), asyncio.Event()
    call = asyncio.ensure_future(ref.wait(gate))
    await until(lambda: platform._node.hosts["Desk"].live.get("a") and platform._node.hosts["Desk"].live["a"].writer)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    gate.set()
    await until(lambda: platform._node.hosts["Desk"].live["a"].turns == 1)
    assert await ref.get() == 1


async def test_a_caller_that_is_cancelled_while_its_call_waits_takes_it_back(platform: Platform) -> None:
    ref, gate = platform.agent(Desk, "a"), asyncio.Event()
    first = asyncio.ensure_future(ref.wait(gate))
    await settle()
    calls = [asyncio.ensure_future(ref.add(100)) for _ in range(3)]
    last = asyncio.ensure_future(ref.add(10))
    await settle()
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    gate.set()
    assert await asyncio.gather(first, last) == [1, 11]


async def test_a_nested_call_inherits_what_is_left(platform: Platform) -> None:
    outer, gate = platform.agent(Desk, "a"), asyncio.Event()
    answer = asyncio.ensure_future(platform.call(outer.ask, "b", gate, timeout=0.05))
    with pytest.raises(CallTimeout):
        await answer
    await until(lambda: platform._node.hosts["Desk"].live["a"].writer is None)  # its own call has ended with it
    assert platform._node.hosts["Desk"].live["b"].writer is not None
    gate.set()


async def test_a_nested_call_cant_be_more_patient_than_its_caller(platform: Platform) -> None:
    outer, gate = platform.agent(Desk, "a"), asyncio.Event()
    with pytest.raises(CallTimeout):
        await platform.call(outer.ask_patiently, "b", gate, timeout=0.05)
    await until(lambda: platform._node.hosts["Desk"].live["a"].writer is None)
    gate.set()


async def test_the_default_patience_is_configured(url: str) -> None:
    async with Platform(url, config={"agents.default_timeout": 0.02}) as platform:
        gate = asyncio.Event()
        with pytest.raises(CallTimeout):
            await platform.agent(Desk, "a").wait(gate)
        gate.set()


async def test_a_call_to_another_agent_isnt_undone_with_its_caller(platform: Platform) -> None:
    class Caller(Agent):
        @action
        async def go(self) -> None:
            await self.agent(Desk, "b").add(5)
            raise ValueError("after all")

    with pytest.raises(ValueError, match="after all"):
        await platform.agent(Caller, "a").go()
    assert await platform.agent(Desk, "b").get() == 5


# -- what crosses --------------------------------------------------------------------------------------------------


async def test_arguments_and_results_cross_as_copies(platform: Platform) -> None:
    ref, order = platform.agent(Desk, "a"), Order("x")
    returned = await ref.order(order)
    assert returned == order
    assert returned is not order
    order.count, returned.count = 77, 88
    assert (await platform.agents.describe(ref)).fields["orders"] == [Order("x", 1)]  # type: ignore[index]


async def test_what_cant_be_changed_crosses_as_it_is(platform: Platform) -> None:
    ref, value = platform.agent(Desk, "a"), Frozen("x", ("a",))
    await ref.frozen(value)
    assert await ref.is_last(value)


async def test_a_frozen_value_that_holds_a_list_is_copied(platform: Platform) -> None:
    ref, value = platform.agent(Desk, "a"), FrozenOutside(["a"])
    await ref.frozen_outside(value)
    assert not await ref.is_last(value)


async def test_copy_false_hands_over_the_thing_itself(platform: Platform) -> None:
    ref, value = platform.agent(Desk, "a"), object()
    assert await ref.as_it_is(value) is value


async def test_models_cross_too(platform: Platform) -> None:
    mine = Model(name="Ada", age=1)
    assert await platform.agent(Desk, "a").model(mine) == Model(name="Ada", age=2)
    assert mine.age == 1


async def test_an_argument_that_cant_be_carried_is_refused_before_the_turn(platform: Platform) -> None:
    ref = platform.agent(Desk, "a")
    with pytest.raises(InvalidArguments, match=r"Desk\.order: argument 'order'") as caught:
        await ref.order(object())  # type: ignore[arg-type]
    assert caught.value.path == "$.order"
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidArguments, match="orders"):
        await ref.many(loop)


async def test_a_copied_argument_that_doesnt_fit_names_its_path(platform: Platform) -> None:
    with pytest.raises(InvalidArguments) as caught:
        await platform.agent(Desk, "a").many([Order("x"), {"sku": "y", "count": "three"}])  # type: ignore[list-item]
    assert caught.value.path == "$.orders[1].count"
    with pytest.raises(InvalidArguments) as caught:
        await platform.call(platform.agent(Desk, "a").model, args={"model": {"name": "Ada", "age": "old"}})
    assert caught.value.path == "$.model.age"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({"amount": "three"}, "$.amount"),
        ({"amount": None}, "$.amount"),
        ({"amount": 1, "twice": 1}, "$.twice"),
        ({"amout": 1}, "$.amout"),
        ([1], "$.args"),
    ],
)
async def test_arguments_by_name_are_checked(platform: Platform, arguments: Any, path: str) -> None:
    ref = platform.agent(Desk, "a")
    with pytest.raises(InvalidArguments) as caught:
        await platform.call(ref.add, args=arguments)
    assert caught.value.path == path
    assert await ref.get() == 0


async def test_arguments_by_name_reach_their_parameters_as_their_types(platform: Platform) -> None:
    ref = platform.agent(Desk, "a")
    assert await platform.call(ref.add, args={"twice": True, "amount": 3}) == 6
    plain = {"orders": [{"sku": "x"}, {"sku": "y", "count": 2}], "side": 2, "mode": "fast"}
    assert await platform.call(ref.many, args=plain) == "2 RIGHT fast"
    assert (await platform.agents.describe(ref)).fields["orders"] == [Order("x"), Order("y", 2)]  # type: ignore[index]


async def test_by_position_and_by_name_at_once_is_refused(platform: Platform) -> None:
    with pytest.raises(InvalidArguments, match="not both"):
        await platform.call(platform.agent(Desk, "a").add, 1, args={"twice": True})


@pytest.mark.parametrize(
    "call", [lambda r: r.add(1, 2), lambda r: r.order(), lambda r: r.add(amont=1), lambda r: r.get(1), lambda r: r.add(1, amount=1)]
)
async def test_arguments_that_dont_match_the_parameters(platform: Platform, call: Any) -> None:
    ref = platform.agent(Desk, "a")
    for _ in range(2):  # before and after the agent lives
        with pytest.raises(InvalidArguments, match="Desk"):
            await call(ref)
        await ref.get()


# -- references ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "x" * 513, "a\nb", "\x00", "é" * 257, 3, None, b"a", "a\x85", "\ud800"])
async def test_an_impossible_key_is_refused(platform: Platform, key: Any) -> None:
    with pytest.raises(InvalidKey):
        platform.agent(Desk, key)


@pytest.mark.parametrize("key", ["a", "x" * 512, "a/b/c", "é" * 256, "with space", "✈"])
async def test_a_key_is_nearly_any_text(platform: Platform, key: str) -> None:
    assert await platform.agent(Desk, key).add(2) == 2
    assert [info.key for info in await platform.agents.list(type=Desk)] == [key]


async def test_only_actions_can_be_reached(platform: Platform) -> None:
    ref: Any = platform.agent(Desk, "a")
    with pytest.raises(NotAnAction, match=r"Desk\.value is a field"):
        _ = ref.value
    with pytest.raises(NotAnAction, match=r"Desk\.ad is no action.*did you mean 'add'"):
        _ = ref.ad
    with pytest.raises(NotAnAction, match=r"Desk\.helper"):
        _ = ref.helper
    with pytest.raises(NotAnAction):
        ref.value = 3
    assert not hasattr(ref, "value")


async def test_references_are_values(platform: Platform) -> None:
    one, two = platform.agent(Desk, "a"), platform.agent(Desk, "a")
    assert one == two
    assert len({one, two, platform.agent(Desk, "b")}) == 2
    assert repr(one) == "<Desk/a>"


async def test_a_call_begins_when_it_is_awaited(platform: Platform) -> None:
    ref = platform.agent(Desk, "a")
    call = ref.add(5)
    await settle()
    assert await ref.get() == 0
    assert await call == 5


async def test_call_takes_the_action_itself(platform: Platform) -> None:
    ref = platform.agent(Desk, "a")
    for wrong in (Desk().add, len, "add", ref):
        with pytest.raises(InvalidArguments, match="isn't an action of a reference"):
            await platform.call(wrong)  # type: ignore[arg-type]


async def test_a_call_in_place_of_the_action_is_told_and_leaves_no_coroutine_behind(platform: Platform) -> None:
    ref = platform.agent(Desk, "a")
    with pytest.raises(InvalidArguments, match=r"^add\(…\) isn't an action of a reference but a call of it"):
        await platform.call(ref.add(5))  # type: ignore[arg-type]
    with pytest.raises(InvalidArguments, match=r"cast\(ref\.add, …\)"):
        await platform.cast(ref.add(5))  # type: ignore[arg-type]
    assert await ref.get() == 0


async def test_only_agent_classes_have_references(platform: Platform) -> None:
    with pytest.raises(NoHost, match="isn't an agent class") as caught:
        platform.agent(Order, "a")  # type: ignore[type-var]
    assert caught.value.__context__ is None  # no error of ours is told beside it
    with pytest.raises(NoHost, match="isn't an agent class"):
        platform.agent([], "a")  # type: ignore[type-var]
    with pytest.raises(NoHost):
        platform.agent(Agent, "a")


async def test_a_method_called_on_self_is_part_of_the_same_turn(platform: Platform) -> None:
    class Own(Agent):
        value: int = 0

        @action
        async def add(self) -> int:
            self.value += 1
            return self.value

        @action
        async def twice_and_fail(self) -> None:
            await self.add()
            await self.add()
            raise ValueError(str(self.value))

    ref = platform.agent(Own, "a")
    with pytest.raises(ValueError, match="2"):
        await ref.twice_and_fail()
    assert await ref.add() == 1


class Struct(msgspec.Struct):
    items: list[int]


async def test_a_result_is_a_copy_for_everybody_who_gets_it(platform: Platform) -> None:
    class Keeper(Agent):
        kept: Struct = field(default_factory=lambda: Struct([1]))

        @action(readonly=True)
        async def show(self) -> Struct:
            return self.kept

    ref = platform.agent(Keeper, "a")
    one, two = await asyncio.gather(ref.show(), ref.show())
    one.items.append(2)
    assert two.items == [1]
    assert (await ref.show()).items == [1]


# -- casts from outside --------------------------------------------------------------------------------------------


async def test_a_cast_is_accepted_and_runs(platform: Platform) -> None:
    ref = platform.agent(Desk, "a")
    await platform.cast(ref.add, 5)
    await platform.cast(ref.add, args={"amount": 2, "twice": True})
    assert await ref.get() == 9


async def test_a_cast_with_wrong_arguments_is_refused_at_once(platform: Platform) -> None:
    ref = platform.agent(Desk, "a")
    with pytest.raises(InvalidArguments):
        await platform.cast(ref.add, args={"amount": "x"})
    with pytest.raises(InvalidArguments):
        await platform.cast(ref.order)  # type: ignore[call-arg]


async def test_a_cast_that_fails_is_told_in_the_log(platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    class Fails(Agent):
        @action
        async def go(self) -> None:
            raise ValueError("quite unexpected")

        @action(readonly=True)
        async def ready(self) -> bool:
            return True

    ref = platform.agent(Fails, "a")
    await platform.cast(ref.go)
    assert await ref.ready()
    assert "Fails/a" in caplog.text
    assert "quite unexpected" in caplog.text


async def test_a_burst_of_casts_all_arrive_in_order(platform: Platform) -> None:
    class Ordered(Agent):
        seen: list[int] = field(default_factory=list)

        @action
        async def note(self, number: int) -> None:
            self.seen.append(number)

        @action(readonly=True)
        async def told(self) -> list[int]:
            return self.seen

    ref = platform.agent(Ordered, "a")
    for number in range(500):
        await platform.cast(ref.note, number)
    assert await ref.told() == list(range(500))
