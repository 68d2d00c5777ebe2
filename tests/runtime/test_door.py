"""Calls over a wire: two platforms in one process, and bytes that no platform would send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jidosystem import (
    ActionFailed,
    Agent,
    CallCycle,
    CallTimeout,
    InvalidArguments,
    NotAnAction,
    OutcomeUnknown,
    Platform,
    Rejected,
    ShuttingDown,
    action,
)
from jidosystem import (
    field as durable,
)
from jidosystem.backends.memory import MemoryWire
from jidosystem.core.codec import encode
from jidosystem.core.errors import IdempotencyConflict, InvalidFrame, InvalidKey, InvalidResult, NodeUnreachable, NoHost, TooLarge
from jidosystem.distribution.frames import CallFrame, ErrorFrame, ReplyFrame, decode_frame, encode_frame, error_of
from jidosystem.runtime.door import remote_call, serve


@dataclass
class Order:
    item: str
    amount: int = 1
    notes: list[str] = field(default_factory=list)


class Shop(Agent):
    """What is called from afar."""

    orders: list[Order] = durable(default_factory=list)
    count: int = 0

    @action
    async def order(self, order: Order) -> Order:
        self.orders.append(order)
        self.count += 1
        self.emit("shop.ordered", order)
        return Order(order.item, order.amount, ["taken"])

    @action
    def counted(self, amount: int) -> int:
        self.count += amount
        return self.count

    @action
    async def sold_out(self) -> None:
        self.count += 1
        raise Rejected("sold_out", item="chair")

    @action
    async def breaks(self) -> None:
        self.count += 1
        raise KeyError("the drawer")

    @action
    async def endless(self) -> int:
        self.count += 1
        return 2**100

    @action
    async def heavy(self, size_bytes: int) -> bytes:
        self.count += 1
        return bytes(size_bytes)

    @action
    async def waits(self) -> None:
        await asyncio.get_running_loop().create_future()

    @action
    async def calls_back(self) -> None:
        turn_back = type(self)._jido_turn_back  # type: ignore[attr-defined]
        await turn_back(self.key)

    @action(readonly=True)
    async def total(self) -> int:
        return self.count


class Customer(Agent):
    """Who calls, from the other platform."""

    asked: int = 0
    got: int = 0

    @action
    async def buy(self, item: str) -> int:
        self.asked += 1
        await self._afar().order(Order(item))
        self.got += 1
        return self.got

    @action
    async def goes_round(self, shop: str) -> None:
        await self._afar().round_trip(shop, self.key)

    @action
    async def waits_for_the_shop(self) -> None:
        await self._afar().wait()

    @action
    async def touched(self) -> None:
        self.asked += 1

    def _afar(self) -> Afar:
        return AFAR["now"]


AFAR: dict[str, Afar] = {}


class Afar:
    """Two nodes and the wire between them."""

    def __init__(self, here: Platform, there: Platform, wire: MemoryWire) -> None:
        self.here, self.there, self.wire = here, there, wire

    async def call(self, name: str, *args: Any, key: str = "s", **options: Any) -> Any:
        spec = self.here._node.host_of(Shop).type.actions[name]
        return await remote_call(self.here._node, self.wire, "there", spec, key, args, **options)

    async def order(self, order: Order) -> Order:
        placed: Order = await self.call("order", order)
        return placed

    async def wait(self) -> None:
        await self.call("waits", key="w", timeout_s=60.0)

    async def round_trip(self, shop: str, customer: str) -> None:
        async def back(_key: str) -> None:
            spec = self.there._node.host_of(Customer).type.actions["touched"]
            await remote_call(self.there._node, self.wire, "here", spec, customer)

        Shop._jido_turn_back = staticmethod(back)  # type: ignore[attr-defined]
        await self.call("calls_back", key=shop)

    async def raw(self, frame: bytes) -> ReplyFrame | ErrorFrame | CallFrame:
        return decode_frame(await self.wire.request("there", frame, timeout_s=5.0))

    async def total(self, key: str = "s") -> int:
        return await self.there.agent(Shop, key).total()


@pytest.fixture
async def afar() -> AsyncIterator[Afar]:
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(Platform(agents=[Customer, Shop], name="here"))
        there = await stack.enter_async_context(Platform(agents=[Shop, Customer], name="there"))
        wire = MemoryWire()
        for platform in (here, there):
            served = await serve(platform._node, wire, platform.name)
            stack.push_async_callback(served.close)
        both = AFAR["now"] = Afar(here, there, wire)
        yield both
        for running in there._node.hosts["Shop"].live.values():
            running.cancel_turns(ShuttingDown("the test is over"))


async def test_a_call_from_afar_is_a_turn_here(afar: Afar) -> None:
    answer = await afar.call("order", Order("chair", 2))
    assert answer == Order("chair", 2, ["taken"])
    assert await afar.total() == 1
    [event] = [event async for event in afar.there.events.read_all("shop.*")]
    assert event.data == {"item": "chair", "amount": 2, "notes": []}
    assert [info.key for info in await afar.here.agents.list(type=Shop)] == []


async def test_an_action_that_runs_in_a_thread_is_called_from_afar(afar: Afar) -> None:
    assert await afar.call("counted", 3) == 3
    assert await afar.total() == 3


async def test_what_an_agent_calls_from_its_turn(afar: Afar) -> None:
    customer = afar.here.agent(Customer, "c")
    assert await customer.buy("chair") == 1
    [event] = [event async for event in afar.there.events.read_all("shop.*")]
    assert event.correlation_id


async def test_a_key_takes_effect_once_wherever_it_is_repeated(afar: Afar) -> None:
    order = Order("chair")
    first = await afar.call("order", order, idempotency_key="k")
    again, joined = await asyncio.gather(*(afar.call("order", order, idempotency_key="k") for _ in range(2)))
    at_home = await afar.there.call(afar.there.agent(Shop, "s").order, order, idempotency_key="k")
    assert first == again == joined == at_home
    assert await afar.total() == 1
    with pytest.raises(IdempotencyConflict):
        await afar.call("order", Order("table"), idempotency_key="k")
    with pytest.raises(InvalidArguments, match="idempotency_key"):
        await afar.call("order", order, idempotency_key="")


async def test_a_refusal_arrives_as_itself(afar: Afar) -> None:
    with pytest.raises(Rejected) as caught:
        await afar.call("sold_out")
    assert (caught.value.reason, caught.value.fields) == ("sold_out", {"item": "chair"})
    assert await afar.total() == 0


async def test_another_error_arrives_with_type_message_and_traceback(afar: Afar) -> None:
    with pytest.raises(ActionFailed) as caught:
        await afar.call("breaks")
    assert (caught.value.type, caught.value.message) == ("KeyError", "'the drawer'")
    assert 'raise KeyError("the drawer")' in caught.value.remote_traceback
    assert await afar.total() == 0


async def test_a_result_that_cant_travel_rolls_the_turn_back(afar: Afar) -> None:
    with pytest.raises(InvalidResult, match="endless"):
        await afar.call("endless")
    assert await afar.total() == 0
    assert await afar.there.agent(Shop, "s").endless() == 2**100


async def test_a_result_over_the_wires_limit_is_told_as_done(afar: Afar) -> None:
    with pytest.raises(TooLarge, match="the call was made and is durable"):
        await afar.call("heavy", afar.wire.max_payload_bytes)
    assert await afar.total() == 1


async def test_arguments_over_the_wires_limit_arent_sent(afar: Afar) -> None:
    with pytest.raises(TooLarge, match="nothing was sent"):
        await afar.call("order", Order("x" * afar.wire.max_payload_bytes))
    assert await afar.total() == 0


async def test_patience_ends_on_both_sides(afar: Afar) -> None:
    with pytest.raises(CallTimeout) as caught:
        await afar.call("waits", timeout_s=0.05)
    assert caught.value.uncertain is True
    with pytest.raises(CallTimeout) as withdrawn:
        await afar.call("order", Order("chair"), timeout_s=0.05)
    assert withdrawn.value.uncertain is False
    assert afar.there._node.hosts["Shop"].live["s"].queue is None or not afar.there._node.hosts["Shop"].live["s"].queue


async def test_a_nested_call_has_what_is_left_of_its_callers_patience(afar: Afar) -> None:
    customer = afar.here.agent(Customer, "c")
    with pytest.raises(CallTimeout):
        await afar.here.call(customer.waits_for_the_shop, timeout=0.05)
    running = next(iter(afar.there._node.hosts["Shop"].live["w"].running()))
    assert running.deadline is not None
    assert running.deadline - afar.there._node.loop.time() < 1.0


async def test_nobody_serves(afar: Afar) -> None:
    spec = afar.here._node.host_of(Shop).type.actions["total"]
    with pytest.raises(NodeUnreachable):
        await remote_call(afar.here._node, afar.wire, "nowhere", spec, "s")


async def test_a_node_that_answers_nothing_leaves_the_outcome_open(afar: Afar) -> None:
    async def silent(_payload: bytes) -> bytes:
        return await asyncio.get_running_loop().create_future()

    served = await afar.wire.serve("silent", silent)
    spec = afar.here._node.host_of(Shop).type.actions["order"]
    with pytest.raises(CallTimeout) as caught:
        await remote_call(afar.here._node, afar.wire, "silent", spec, "s", (Order("chair"),), timeout_s=0.01)
    assert caught.value.uncertain is True
    for task in served.answering:
        task.cancel()


@pytest.mark.parametrize("answer", [b"", b"nonsense", encode_frame(CallFrame("a/b", "c", b"", 1.0)), encode_frame(ReplyFrame(encode("seven")))])
async def test_an_answer_that_cant_be_read_leaves_the_outcome_open(afar: Afar, answer: bytes) -> None:
    async def says(_payload: bytes) -> bytes:
        return answer

    await afar.wire.serve("odd", says)
    spec = afar.here._node.host_of(Shop).type.actions["total"]
    with pytest.raises(OutcomeUnknown):
        await remote_call(afar.here._node, afar.wire, "odd", spec, "s")


async def test_a_chain_that_comes_back_over_the_wire_is_named(afar: Afar) -> None:
    customer = afar.here.agent(Customer, "c")
    with pytest.raises(CallCycle) as caught:
        await customer.goes_round("s")
    assert caught.value.chain == ["Customer/c", "Shop/s", "Customer/c"]


async def test_a_closing_node_says_so(afar: Afar) -> None:
    afar.there._node.closing = True
    with pytest.raises(ShuttingDown):
        await afar.call("order", Order("chair"))
    afar.there._node.closing = False
    assert await afar.total() == 0


# -- what no platform would send -----------------------------------------------------------------------------------


def call(to: str = "Shop/s", name: str = "order", args: Any = None, **more: Any) -> bytes:
    blob = args if isinstance(args, bytes) else encode({"order": {"item": "chair"}} if args is None else args)
    return encode_frame(CallFrame(to, name, blob, 5.0, **more))


@pytest.mark.parametrize(
    ("frame", "kind", "says"),
    [
        (b"", InvalidFrame, "no bytes"),
        (b"GET / HTTP/1.1\r\n\r\n", InvalidFrame, "version 71"),
        (encode_frame(ReplyFrame(b"")), InvalidFrame, "ReplyFrame where a call was expected"),
        (call("Nobody/s"), NoHost, "hosts no agent type 'Nobody'"),
        (call("jido.sender/0", "send"), NoHost, "jido.sender"),
        (call("Shop"), InvalidKey, "1 to 512 bytes"),
        (call("Shop/" + "k" * 600), InvalidKey, "600"),
        (call("Shop/a\nb"), InvalidKey, "control"),
        (call(name="_afar"), NotAnAction, "'_afar'"),
        (call(name="count"), NotAnAction, "'count'"),
        (call(args=b"\xc1"), InvalidArguments, "can't be read"),
        (call(args=[]), InvalidArguments, "can't be read"),
        (call(args={}), InvalidArguments, "order"),
        (call(args={"order": {"item": "chair"}, "more": 1}), InvalidArguments, "no parameter 'more'"),
        (call(args={"order": {"item": "chair", "amount": "two"}}), InvalidArguments, "int"),
        (call(idempotency_key=""), InvalidArguments, "idempotency_key"),
        (call(idempotency_key="k" * 600), InvalidArguments, "idempotency_key"),
        (call(chain=("Other/x", "Shop/s")), CallCycle, "Other/x → Shop/s → Shop/s"),
    ],
)
async def test_what_is_wrong_with_a_frame_is_answered_and_nothing_happens(afar: Afar, frame: bytes, kind: type[Exception], says: str) -> None:
    answer = await afar.raw(frame)
    assert isinstance(answer, ErrorFrame)
    error = error_of(answer)
    assert type(error) is kind
    assert says in str(error)
    assert await afar.total() == 0


async def test_the_path_of_a_wrong_argument_is_told(afar: Afar) -> None:
    answer = await afar.raw(call(args={"order": {"item": "chair", "notes": ["ok", 5]}}))
    assert isinstance(answer, ErrorFrame)
    assert answer.fields["path"] == "$.order.notes[1]"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.binary(max_size=100) | st.tuples(st.integers(0, 10_000), st.integers(0, 255)))
def test_frames_with_changed_bytes_are_answered_with_an_error(change: bytes | tuple[int, int]) -> None:
    async def scene() -> None:
        async with Platform(agents=[Shop]) as there:
            wire = MemoryWire()
            served = await serve(there._node, wire, "there")
            blob = bytearray(call())
            if isinstance(change, bytes):
                blob = bytearray(change)
            else:
                at, value = change
                blob[at % len(blob)] = value
            answer = decode_frame(await wire.request("there", bytes(blob), timeout_s=5.0))
            untouched = bytes(blob) == call()
            assert isinstance(answer, ReplyFrame if untouched else ErrorFrame)
            assert await there.agent(Shop, "s").total() == untouched
            await served.close()

    asyncio.run(scene())


async def test_many_at_once(afar: Afar) -> None:
    await asyncio.gather(*(afar.call("order", Order("chair"), key=f"k{n % 20}") for n in range(400)))
    totals = [await afar.total(f"k{n}") for n in range(20)]
    assert totals == [20] * 20
