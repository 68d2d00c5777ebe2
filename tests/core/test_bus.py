from __future__ import annotations

import asyncio
import gc
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from jidosystem.core.bus import EventBus, Subscription
from jidosystem.core.context import Causality, current
from jidosystem.core.errors import InvalidArguments, InvalidPattern, ShuttingDown, StoreUnavailable, StreamConflict, TooLarge
from jidosystem.core.events import Event
from tests.core.bench import Bench, until


async def everything(bus: EventBus, pattern: str = "**", after: int = 0) -> list[Any]:
    return [event.data async for event in bus.read_all(pattern, after)]


# -- publishing ----------------------------------------------------------------------------------------------------


async def test_publish_returns_the_event_as_it_is_stored(bus: EventBus) -> None:
    event = await bus.publish("orders.placed", {"id": 1}, {"tenant": "a"}, "orders")
    assert (event.type, event.data, event.metadata, event.stream, event.source) == ("orders.placed", {"id": 1}, {"tenant": "a"}, "orders", "platform")
    assert event.position > 0
    assert [one async for one in bus.read("orders")] == [event]


async def test_without_a_stream_it_is_the_default_one(bus: EventBus) -> None:
    assert (await bus.publish("a")).stream == "default"


async def test_data_comes_out_in_plain_builtins_for_the_publisher_too(bus: EventBus) -> None:
    @dataclass
    class Order:
        id: int

    class Line(msgspec.Struct):
        price: Decimal

    class Customer(BaseModel):
        name: str

    when = datetime(2026, 1, 1, tzinfo=UTC)
    event = await bus.publish("a", {"order": Order(1), "line": Line(Decimal("1.5")), "customer": Customer(name="x"), "at": when, "of": (1, 2)})
    expected = {"order": {"id": 1}, "line": {"price": "1.5"}, "customer": {"name": "x"}, "at": when, "of": [1, 2]}
    assert event.data == expected
    assert await everything(bus) == [expected]


async def test_what_the_publisher_changes_afterwards_changes_no_event(bus: EventBus) -> None:
    data = {"list": [1]}
    event = await bus.publish("a", data)
    data["list"].append(2)
    assert event.data == {"list": [1]}
    event.data["list"].append(3)
    assert await everything(bus) == [{"list": [1]}]


@dataclass(frozen=True)
class Key:
    of: int = 1


def contains_itself() -> list[Any]:
    itself: list[Any] = []
    itself.append(itself)
    return itself


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (object(), "$.data"), ({"a": [1, object()]}, "$.data.a[1]"), ({"a": {"b": 2**70}}, "$.data.a.b"), ("\ud800", "$.data"),
        ({"a": {Key(): 1}}, "$.data.a"), ({"x": (1, {2: lambda: 1})}, "$.data.x[1].2"), (type, "$.data"), (msgspec.Raw(b"\xc1"), "$.data"),
        ({"a": msgspec.Raw(b"")}, "$.data.a"),
    ],
)  # fmt: skip
async def test_data_that_cant_be_carried_is_refused_by_its_path_and_nothing_is_stored(bus: EventBus, data: Any, path: str) -> None:
    with pytest.raises(InvalidArguments) as refused:
        await bus.publish("a.b", data)
    assert refused.value.path == path
    assert path in str(refused.value)
    assert await everything(bus) == []


async def test_data_that_contains_itself_is_refused(bus: EventBus) -> None:
    with pytest.raises(InvalidArguments, match="can't be carried"):
        await bus.publish("a", contains_itself())


@pytest.mark.parametrize("depth", range(700, 1_100, 20))
async def test_however_deep_data_is_it_is_refused_or_every_reader_can_read_it(bus: EventBus, depth: int) -> None:
    data: Any = []
    for _ in range(depth):
        data = [data]
    try:
        await bus.publish("a", data)
    except InvalidArguments:
        return

    async def deeper(frames: int) -> list[Any]:
        return await everything(bus) if frames == 0 else await deeper(frames - 1)

    assert len(await deeper(50)) == 1


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda part: st.lists(part) | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers(), st.text()), part),
    max_leaves=20,
)


@given(json_like, st.dictionaries(st.text() | st.integers(), json_like, max_size=3))
def test_whatever_is_published_is_refused_or_can_be_read(data: Any, metadata: Any) -> None:
    async def run() -> None:
        async with AsyncExitStack() as stack:
            bus = Bench(stack).bus
            try:
                event = await bus.publish("a", data, metadata)
            except InvalidArguments as error:
                assert error.path.startswith("$.")  # noqa: PT017 - what it says if it is refused
                assert await everything(bus) == []
            else:
                assert [one async for one in bus.read_all()] == [event]

    asyncio.run(run())


@pytest.mark.parametrize("metadata", [{1: 2}, {"a": object()}, [1], "text", {None: 1}, {"a": 2**70}])
async def test_metadata_that_a_reader_couldnt_read_is_refused(bus: EventBus, metadata: Any) -> None:
    with pytest.raises(InvalidArguments, match="metadata"):
        await bus.publish("a", None, metadata)
    assert await everything(bus) == []


@pytest.mark.parametrize("stream", ["", 3, b"s", "x" * 1_001, "\ud800", True])
async def test_a_stream_is_a_text(bus: EventBus, stream: Any) -> None:
    with pytest.raises(InvalidArguments) as refused:
        await bus.publish("a", stream=stream)
    assert refused.value.path == "$.stream"


@pytest.mark.parametrize("name", ["", "a b", "a..b", "a.*", None, 3, "a.", "é"])
async def test_a_type_is_dotted_words(bus: EventBus, name: Any) -> None:
    with pytest.raises(InvalidPattern):
        await bus.publish(name)


@pytest.mark.parametrize("expected", [-1, "0", 1.0, True])
async def test_expected_is_a_position(bus: EventBus, expected: Any) -> None:
    with pytest.raises(InvalidArguments):
        await bus.publish("a", expected=expected)


async def test_of_those_that_expect_the_same_one_succeeds(bus: EventBus) -> None:
    outcomes = await asyncio.gather(*(bus.publish("a", n, stream="s", expected=0) for n in range(20)), return_exceptions=True)
    [won] = [one for one in outcomes if isinstance(one, Event)]
    assert all(isinstance(one, StreamConflict) for one in outcomes if one is not won)
    following = await bus.publish("a", stream="s", expected=won.position)
    with pytest.raises(StreamConflict) as conflict:
        await bus.publish("a", stream="s", expected=won.position)
    assert conflict.value.actual == following.position


async def test_what_is_too_large_says_so(bus: EventBus, bench: Bench) -> None:
    with pytest.raises(TooLarge):
        await bus.publish("a", b"x" * (bench.records.log.max_event_bytes + 1))


async def test_an_event_published_from_a_turn_says_by_whom_and_why(bus: EventBus) -> None:
    class Turn:
        def causality(self) -> Causality:
            return Causality("chain", "cause", "00-1-2-01", "Shop/1")

    token = current.set(Turn())
    try:
        event = await bus.publish("a")
    finally:
        current.reset(token)
    assert (event.source, event.correlation_id, event.causation_id, event.traceparent) == ("Shop/1", "chain", "cause", "00-1-2-01")
    assert (await bus.publish("a")).correlation_id is None


async def test_a_store_that_fails_is_told_to_the_publisher(bench: Bench, bus: EventBus) -> None:
    await bench.records.close()
    with pytest.raises(StoreUnavailable):
        await bus.publish("a")


# -- reading -------------------------------------------------------------------------------------------------------


async def test_read_ends_at_what_is_there_and_follow_doesnt(bus: EventBus) -> None:
    first = await bus.publish("a.x", 1)
    await bus.publish("b.x", 2)
    got: list[int] = []

    async def follow() -> None:
        async for event in bus.follow("a.*", after=0):
            got.append(event.data)
            if len(got) == 3:
                return

    following = asyncio.create_task(follow())
    await until(lambda: got == [1])
    async for _event in bus.read_all():
        await bus.publish("a.x", 3)
    await following
    assert got == [1, 3, 3]
    assert await everything(bus, "a.*", first.position) == [3, 3]


async def test_follow_without_a_position_begins_now(bus: EventBus) -> None:
    await bus.publish("a", "before")
    following = asyncio.ensure_future(anext(bus.follow()))
    await asyncio.sleep(0.01)
    await bus.publish("a", "after")
    assert (await following).data == "after"


async def test_replay_hands_a_stream_to_a_function_or_coroutine_function_and_counts(bus: EventBus) -> None:
    events = [await bus.publish("a", n, stream="s") for n in range(5)]
    await bus.publish("a", "other")
    got: list[int] = []

    async def slow(event: Event) -> None:
        await asyncio.sleep(0)
        got.append(event.data)

    assert await bus.replay("s", to=slow) == 5
    assert await bus.replay("s", after=events[2].position, to=lambda event: got.append(event.data)) == 2
    assert await bus.replay("nothing", to=slow) == 0
    assert got == [0, 1, 2, 3, 4, 3, 4]

    def fails(_event: Event) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await bus.replay("s", to=fails)


async def test_a_replay_that_is_iterated_says_what_to_write_instead(bus: EventBus) -> None:
    event = await bus.publish("a", 1, stream="s")
    with pytest.raises(InvalidArguments, match=r"async for event in platform\.events\.read"):
        async for _event in bus.replay("s"):  # type: ignore[call-arg, attr-defined]
            pass
    with pytest.raises(InvalidArguments, match=r"async for event in platform\.events\.read"):
        async for _event in bus.replay("s", to=print):  # type: ignore[attr-defined]
            pass
    got: list[Event] = []
    assert await asyncio.create_task(bus.replay("s", to=got.append)) == 1  # it is a coroutine all the same
    assert got == [event]


async def test_a_replay_that_nobody_awaits_is_told_by_python(bus: EventBus) -> None:
    def forget() -> None:
        bus.replay("s", to=print)
        gc.collect()

    with pytest.warns(RuntimeWarning, match="replay' was never awaited"):
        forget()


@pytest.mark.parametrize("pattern", ["", "a..b", "a b", "***", None])
async def test_a_pattern_that_cant_be_is_refused(bus: EventBus, pattern: Any) -> None:
    with pytest.raises(InvalidPattern):
        await bus.subscribe(pattern, print)
    with pytest.raises(InvalidPattern):
        await anext(bus.follow(pattern))
    with pytest.raises(InvalidPattern):
        await anext(bus.read_all(pattern))


# -- durable -------------------------------------------------------------------------------------------------------


async def test_a_durable_subscription_has_everything_also_what_came_while_nobody_was_there(bus: EventBus) -> None:
    got: list[int] = []
    subscription = await bus.subscribe("a.*", lambda event: got.append(event.data), durable="mine")
    await bus.publish("a.b", 1)
    await until(lambda: got == [1])
    await subscription.close()
    await bus.publish("a.b", 2)
    await bus.publish("b.b", 3)
    await bus.subscribe("a.*", lambda event: got.append(event.data), durable="mine")
    await until(lambda: got == [1, 2])


async def test_one_event_of_a_stream_is_in_flight_and_streams_go_side_by_side(bus: EventBus) -> None:
    running: list[str] = []
    most = 0
    got: list[tuple[str, int]] = []

    async def handler(event: Event) -> None:
        nonlocal most
        assert event.stream not in running
        running.append(event.stream)
        most = max(most, len(running))
        await asyncio.sleep(0.001)
        running.remove(event.stream)
        got.append((event.stream, event.data))

    for _ in range(3):
        await bus.subscribe("**", handler, group="workers")
    await asyncio.gather(*(bus.publish("a", n, stream=f"s{n % 4}") for n in range(40)))
    await until(lambda: len(got) == 40)
    for stream in range(4):
        assert [n for s, n in got if s == f"s{stream}"] == list(range(stream, 40, 4))
    assert most == 4


async def test_the_members_of_a_group_share_the_events(bus: EventBus) -> None:
    got: dict[str, list[int]] = {"a": [], "b": []}
    first = await bus.subscribe("**", lambda event: got["a"].append(event.data), group="g")
    second = await bus.subscribe("**", lambda event: got["b"].append(event.data), group="g")
    await asyncio.gather(*(bus.publish("a", n, stream=f"s{n}") for n in range(20)))
    await until(lambda: len(got["a"]) + len(got["b"]) == 20)
    assert sorted(got["a"] + got["b"]) == list(range(20))
    assert got["a"]
    assert got["b"]
    await first.close()
    await first.close()  # once more doesn't take the other one away
    got["b"].clear()
    await bus.publish("a", 99)
    await until(lambda: got["b"] == [99])
    await second.close()


async def test_a_member_that_leaves_is_waited_for(bus: EventBus) -> None:
    began, go = asyncio.Event(), asyncio.Event()
    ended: list[int] = []

    async def slow(event: Event) -> None:
        began.set()
        await go.wait()
        ended.append(event.data)

    subscriptions = [await bus.subscribe("**", slow, group="g") for _ in range(2)]
    await bus.publish("a", 1)
    await began.wait()
    closing = [asyncio.create_task(one.close()) for one in subscriptions[:1]]
    await asyncio.sleep(0.01)
    go.set()
    await asyncio.gather(*closing)
    await subscriptions[1].close()
    assert ended == [1]


@pytest.mark.parametrize("other", [{"pattern": "b"}, {"max_in_flight": 3}, {"max_attempts": 2}, {"start": "beginning"}])
async def test_members_that_want_something_else_are_refused(bus: EventBus, other: dict[str, Any]) -> None:
    await bus.subscribe("a", print, group="g")
    with pytest.raises(InvalidArguments, match="share their options"):
        await bus.subscribe(**{"pattern": "a", "handler": print, "group": "g", **other})


async def test_a_handler_that_cant_take_an_event_is_refused_at_once(bus: EventBus) -> None:
    with pytest.raises(InvalidArguments, match="called with the event alone"):
        await bus.subscribe("a", lambda: None, durable="x")  # type: ignore[arg-type,misc]


async def test_a_durable_name_has_one_handler(bus: EventBus) -> None:
    first = await bus.subscribe("a", print, durable="x")
    with pytest.raises(InvalidArguments, match="use group="):
        await bus.subscribe("a", print, durable="x")
    await first.close()
    await bus.subscribe("a", print, durable="x")


async def test_many_that_claim_one_durable_name_at_once_find_one_owner(bus: EventBus) -> None:
    outcomes = await asyncio.gather(*(bus.subscribe("a", print, durable="x") for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(one, Subscription) for one in outcomes) == 1


async def test_a_name_can_be_taken_again_while_its_last_owner_is_leaving(bus: EventBus) -> None:
    began, go = asyncio.Event(), asyncio.Event()

    async def slow(_event: Event) -> None:
        began.set()
        await go.wait()

    got: list[int] = []
    subscription = await bus.subscribe("**", slow, durable="x")
    await bus.publish("a", 1)
    await began.wait()
    closing = asyncio.create_task(subscription.close())
    await asyncio.sleep(0)
    again = asyncio.create_task(bus.subscribe("**", lambda event: got.append(event.data), durable="x"))
    await asyncio.sleep(0.01)
    assert not again.done()
    go.set()
    await closing
    await again
    await bus.publish("a", 2)
    await until(lambda: got == [2])


async def test_names_of_different_kinds_never_meet(bench: Bench, bus: EventBus) -> None:
    for options in ({"durable": "x"}, {"group": "x"}, {"durable": "x", "group": "x"}):
        await bus.subscribe("**", print, **options)
    stored = [record.agent async for page in bench.records.scan_agents("jido.subscription") for record in page]
    assert stored == ["jido.subscription/durable/x", "jido.subscription/group/x", "jido.subscription/group/x/x"]


@pytest.mark.parametrize("name", ["", "a/b", 3, "x" * 201, "a\nb", True])
@pytest.mark.parametrize("option", ["durable", "group"])
async def test_a_name_that_cant_be_is_refused(bus: EventBus, option: str, name: Any) -> None:
    with pytest.raises(InvalidArguments) as refused:
        await bus.subscribe("a", print, **{option: name})
    assert refused.value.path == f"$.{option}"


async def test_what_fails_is_a_dead_letter_under_the_subscriptions_name_and_can_be_redriven(bench: Bench, bus: EventBus) -> None:
    broken = True
    got: list[Event] = []

    def handler(event: Event) -> None:
        if broken:
            raise ValueError("no")
        got.append(event)

    subscription = await bus.subscribe("**", handler, durable="x", max_attempts=2)
    event = await bus.publish("a", 1)
    await bench.until_letters(1)
    [letter] = await bench.letters.list("event", name=subscription.name)
    assert letter.event == event
    assert letter.attempts == 2
    broken = False
    await bench.letters.redrive(letter.id)
    assert [(one.id, one.position, dict(one.metadata)) for one in got] == [(event.id, event.position, {"redrive_id": letter.id})]


async def test_a_store_that_fails_at_the_first_subscription_leaves_the_name_free(bench: Bench, bus: EventBus) -> None:
    bench.records.failing = StoreUnavailable("gone")
    outcomes = await asyncio.gather(*(bus.subscribe("a", print, group="g") for _ in range(3)), return_exceptions=True)
    assert all(isinstance(one, StoreUnavailable | ShuttingDown) for one in outcomes)
    bench.records.failing = None
    await bus.subscribe("a", print, group="g")


@pytest.mark.parametrize(
    "wrong",
    [
        {"handler": None}, {"handler": 3}, {"max_in_flight": 0}, {"max_in_flight": True}, {"max_in_flight": 1.5}, {"max_attempts": 0},
        {"max_attempts": "5"}, {"start": "end"}, {"start": -1}, {"start": True}, {"start": None}, {"start": 1.0}, {"max_attempts": 3},
    ],
)  # fmt: skip
async def test_options_that_cant_be_are_refused_by_name(bus: EventBus, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArguments) as refused:
        await bus.subscribe(**{"pattern": "a", "handler": print, **wrong})
    assert refused.value.path == f"$.{next(iter(wrong))}"


# -- closing -------------------------------------------------------------------------------------------------------


async def test_a_closed_bus_takes_nothing(bus: EventBus) -> None:
    await bus.close()
    await bus.close()
    with pytest.raises(ShuttingDown):
        await bus.publish("a")
    for options in ({}, {"durable": "x"}, {"group": "x"}, {"start": "beginning"}):
        with pytest.raises(ShuttingDown):
            await bus.subscribe("a", print, **options)  # type: ignore[arg-type]


async def test_closing_lets_handlers_end_and_stores_their_positions(bench: Bench, bus: EventBus) -> None:
    began = asyncio.Event()
    ended: list[str] = []

    def slow(name: str) -> Any:
        async def handler(_event: Event) -> None:
            began.set()
            await asyncio.sleep(0.02)
            ended.append(name)

        return handler

    await bus.subscribe("**", slow("live"))
    await bus.subscribe("**", slow("from"), start="beginning")
    await bus.subscribe("**", slow("durable"), durable="x")
    event = await bus.publish("a")
    await until(began.is_set)
    await asyncio.sleep(0.01)
    await bus.close(5.0)
    assert sorted(ended) == ["durable", "from", "live"]
    assert await bench.stored("durable/x") == event.position


async def test_closing_cancels_handlers_that_never_end(bus: EventBus) -> None:
    cancelled: list[str] = []

    def endless(name: str) -> Any:
        async def handler(_event: Event) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(name)
                raise

        return handler

    await bus.subscribe("**", endless("live"))
    await bus.subscribe("**", endless("from"), start="beginning")
    await bus.subscribe("**", endless("durable"), durable="x")
    await bus.publish("a")
    await asyncio.sleep(0.02)
    await bus.close(0.01)
    assert sorted(cancelled) == ["durable", "from", "live"]
