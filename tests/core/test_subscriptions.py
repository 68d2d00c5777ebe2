from __future__ import annotations

import asyncio
import contextlib
from asyncio import Future
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from jidosystem.core.clock import SystemClock
from jidosystem.core.codec import encode
from jidosystem.core.dead_letters import DeadLetters
from jidosystem.core.errors import (
    AgentFailed,
    CircuitOpen,
    CommitUnknown,
    InvalidArguments,
    MailboxFull,
    RecordUnreadable,
    Rejected,
    ShuttingDown,
    StoreUnavailable,
    Undeliverable,
)
from jidosystem.core.events import Event, matcher
from jidosystem.core.keys import lane_path
from jidosystem.core.position import KeptPosition
from jidosystem.core.subscriptions import GATHER, SLICE, STORE_EVERY, DurableSubscription
from tests.core.bench import Bench, until


async def until_stored(bench: Bench, position: int) -> None:
    async def there() -> bool:
        return await bench.stored() == position

    await until(there, f"storing {position}")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(stack)


# -- what arrives --------------------------------------------------------------------------------------------------


async def test_events_come_in_log_order_per_lane(bench: Bench) -> None:
    for number in range(30):
        await bench.emit(number, stream=f"s{number % 3}")
    await bench.subscribe()
    await bench.until_seen(30)
    by_lane: defaultdict[str, list[int]] = defaultdict(list)
    for lane, number in bench.seen:
        by_lane[lane].append(number)
    assert by_lane == {f"s{lane}": list(range(lane, 30, 3)) for lane in range(3)}


async def test_only_what_matches_comes_and_the_rest_moves_the_position(bench: Bench) -> None:
    await bench.emit("yes", of="a.b")
    [last] = await bench.emit("no", of="c.d")
    subscription = await bench.subscribe(pattern="a.*")
    await until(lambda: subscription.position >= last)
    assert bench.seen == [("s", "yes")]


async def test_an_event_of_several_lanes_comes_to_each(bench: Bench) -> None:
    await bench.emit("x")
    await bench.subscribe(lane_of=lambda _event: ["a", "b", "a"])
    await bench.until_seen(2)
    assert sorted(bench.seen) == [("a", "x"), ("b", "x")]


async def test_one_event_of_a_lane_is_in_flight_and_different_lanes_run_side_by_side(bench: Bench) -> None:
    running: set[str] = set()
    together = 0
    release = asyncio.Event()

    async def deliver(lane: str, events: Sequence[Event]) -> None:
        nonlocal together
        assert lane not in running
        running.add(lane)
        together = max(together, len(running))
        await release.wait()
        running.discard(lane)
        await bench.saw(lane, events)

    for number in range(20):
        await bench.emit(number, stream=f"s{number % 5}")
    await bench.subscribe(deliver, max_in_flight=3)
    await until(lambda: together == 3)
    release.set()
    await bench.until_seen(20)
    assert together == 3


async def test_a_batch_is_at_most_its_size_and_of_one_lane(bench: Bench) -> None:
    sizes: list[int] = []

    async def deliver(lane: str, events: Sequence[Event]) -> None:
        assert {event.stream for event in events} == {lane}
        sizes.append(len(events))
        await bench.saw(lane, events)

    await bench.emit(*range(25))
    await bench.emit(*range(5), stream="t")
    await bench.subscribe(deliver, batch=10)
    await bench.until_seen(30)
    assert sorted(sizes) == [5, 5, 10, 10]


async def test_lanes_that_wait_for_younger_deliveries_gather_what_comes(bench: Bench) -> None:
    begun: list[tuple[str, int]] = []
    release = asyncio.Event()

    async def deliver(lane: str, events: Sequence[Event]) -> None:
        begun.append((lane, len(events)))
        await release.wait()
        await bench.saw(lane, events)

    async def one_each() -> None:
        for lane in range(GATHER + 4):
            await bench.emit(0, stream=f"s{lane}")

    await one_each()
    subscription = await bench.subscribe(deliver, batch=10, gather_s=60.0)
    await until(lambda: subscription._lanes.size == GATHER + 4)
    await one_each()
    await until(lambda: subscription._lanes.size == 2 * (GATHER + 4))
    assert len(begun) == GATHER
    release.set()
    await bench.until_seen(2 * (GATHER + 4))
    assert begun[GATHER : GATHER + 4] == [(f"s{GATHER + lane}", 2) for lane in range(4)]


@pytest.mark.parametrize("batch", [1, 10])
async def test_slow_deliveries_keep_nobody_waiting(bench: Bench, batch: int) -> None:
    begun: list[str] = []
    release = asyncio.Event()

    async def deliver(lane: str, events: Sequence[Event]) -> None:
        begun.append(lane)
        await release.wait()
        await bench.saw(lane, events)

    for lane in range(3 * GATHER):
        await bench.emit(0, stream=f"s{lane}")
    await bench.subscribe(deliver, batch=batch, gather_s=0.01)
    await until(lambda: len(begun) == 3 * GATHER)
    release.set()
    await bench.until_seen(3 * GATHER)


async def test_reading_stops_when_too_much_is_unfinished_and_goes_on_after(bench: Bench) -> None:
    release = asyncio.Event()

    async def deliver(lane: str, events: Sequence[Event]) -> None:
        await release.wait()
        await bench.saw(lane, events)

    await bench.emit(*range(5_000))
    subscription = await bench.subscribe(deliver, look_ahead=200)
    for _ in range(200):
        await asyncio.sleep(0)
    assert subscription._lanes.size <= 200 + SLICE
    release.set()
    await bench.until_seen(5_000)
    assert [data for _lane, data in bench.seen] == list(range(5_000))


# -- the position --------------------------------------------------------------------------------------------------


async def test_the_first_registration_stores_its_starting_position_before_it_returns(bench: Bench) -> None:
    [last] = await bench.emit("before")
    await bench.subscribe(start="new")
    assert await bench.stored() == last
    await bench.emit("after")
    await bench.until_seen(1)
    assert bench.seen == [("s", "after")]


@pytest.mark.parametrize(("start", "expected"), [("beginning", [1, 2, 3]), (1, [2, 3]), (2, [3])])
async def test_it_starts_where_it_is_told(bench: Bench, start: str | int, expected: list[int]) -> None:
    await bench.emit(1, 2, 3)
    await bench.subscribe(start=start)
    await bench.until_seen(len(expected))
    assert [data for _lane, data in bench.seen] == expected


async def test_a_known_name_goes_on_where_it_was_whatever_start_says(bench: Bench) -> None:
    await bench.emit(1, 2)
    first = await bench.subscribe()
    await bench.until_seen(2)
    await first.close()
    await bench.emit(3)
    await bench.subscribe(start="beginning")
    await bench.until_seen(3)
    await bench.emit(4)
    await bench.until_seen(4)
    assert [data for _lane, data in bench.seen] == [1, 2, 3, 4]


async def test_a_slow_lane_holds_the_stored_position_back(bench: Bench) -> None:
    stuck = asyncio.Event()

    async def deliver(lane: str, events: Sequence[Event]) -> None:
        if lane == "slow":
            await stuck.wait()
        await bench.saw(lane, events)

    await bench.emit("first")
    [at] = await bench.emit("x", stream="slow")
    await bench.emit(*range(10))
    subscription = await bench.subscribe(deliver)
    await bench.until_seen(11)
    assert subscription.position == at - 1
    stuck.set()
    await bench.until_seen(12)
    await subscription.close()
    assert await bench.stored() == at + 10


async def test_the_position_is_stored_after_many_events_never_per_event(bench: Bench) -> None:
    await bench.emit(*range(4 * STORE_EVERY))
    subscription = await bench.subscribe(store_every_s=1e6)
    await bench.until_seen(4 * STORE_EVERY)
    assert 3 <= bench.records.commits.count("jido.subscription/one") <= 6
    await subscription.close()
    assert await bench.stored() == 4 * STORE_EVERY


async def test_nothing_is_written_while_nothing_happens(bench: Bench) -> None:
    await bench.emit(1)
    await bench.subscribe(store_every_s=0.001)
    await until_stored(bench, 1)
    count = len(bench.records.commits)
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert len(bench.records.commits) == count


async def test_a_close_while_the_position_is_being_stored_stores_the_last_one(bench: Bench) -> None:
    subscription = await bench.subscribe(store_every_s=0.001)
    bench.records.gate = asyncio.Event()
    await bench.emit(1)
    await bench.until_seen(1)
    await until(lambda: bench.records.commits.count("jido.subscription/one") == 2)  # the second one waits at the gate
    await bench.emit(2)
    await bench.until_seen(2)
    closing = asyncio.create_task(subscription.close())
    await asyncio.sleep(0.01)
    bench.records.gate.set()
    await closing
    assert await bench.stored() == 2


async def test_a_store_that_fails_for_a_while_loses_nothing(bench: Bench) -> None:
    await bench.subscribe(store_every_s=0.001)
    await bench.emit(1)
    bench.records.failing = StoreUnavailable("gone")
    await bench.until_seen(1)
    await asyncio.sleep(0.01)
    bench.records.failing = None
    await until_stored(bench, 1)


async def test_a_store_that_doesnt_know_whether_it_stored_is_asked(bench: Bench) -> None:
    subscription = await bench.subscribe(store_every_s=0.001)
    bench.records.lying = CommitUnknown("who knows")
    await bench.emit(1)
    await until_stored(bench, 1)
    bench.records.lying = None
    await bench.emit(2)
    await until_stored(bench, 2)
    await subscription.close()


async def test_a_position_that_somebody_else_wrote_is_overtaken(bench: Bench) -> None:
    subscription = await bench.subscribe()
    record = await bench.records.read("jido.subscription/one")
    assert record is not None
    await bench.records.commit(record.agent, record.revision, encode(0))
    await bench.emit(1)
    await bench.until_seen(1)
    await subscription.close()
    assert await bench.stored() == 1


@pytest.mark.parametrize("head", [b"", b"\xc1", encode("x"), encode(True), encode(1.5), encode(None)])
async def test_a_position_that_cant_be_read_stops_the_start_and_stays(bench: Bench, head: bytes) -> None:
    await bench.records.commit("jido.subscription/one", 0, head)
    with pytest.raises(RecordUnreadable, match=r"jido\.subscription/one"):
        await bench.subscribe()
    record = await bench.records.read("jido.subscription/one")
    assert record is not None
    assert record.head == head


async def test_a_store_that_fails_at_the_start_fails_the_start(bench: Bench) -> None:
    bench.records.failing = StoreUnavailable("gone")
    with pytest.raises(StoreUnavailable):
        await bench.subscribe()


# -- failure -------------------------------------------------------------------------------------------------------


class Odd(BaseException):
    """Outside of Exception."""


@pytest.mark.parametrize(
    "error", [ValueError("no"), Rejected("no"), Odd("no"), SystemExit(3), asyncio.CancelledError(), GeneratorExit(), KeyboardInterrupt()]
)
@pytest.mark.parametrize("waits", [False, True])
async def test_whatever_a_receiver_raises_the_event_is_buried_and_its_lane_goes_on(bench: Bench, error: BaseException, waits: bool) -> None:
    async def deliver(lane: str, events: Sequence[Event]) -> None:
        if waits:
            await asyncio.sleep(0)
        if events[0].data == "bad":
            raise error
        await bench.saw(lane, events)

    await bench.emit("bad", "good")
    await bench.emit("other", stream="t")
    await bench.subscribe(deliver, max_attempts=2)
    await bench.until_seen(2)
    await bench.until_letters(1)
    [letter] = await bench.letters.list("event")
    assert (letter.name, letter.attempts, letter.number) == ("one", 2, 1)
    assert letter.event is not None
    assert letter.event.data == "bad"
    assert letter.error.startswith(type(error).__name__)
    assert ("s", "good") in bench.seen


async def test_a_receiver_that_waits_for_something_cancelled_is_a_failure(bench: Bench) -> None:
    async def deliver(_lane: str, _events: Sequence[Event]) -> None:
        future: Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    await bench.emit("x")
    await bench.subscribe(deliver, max_attempts=1)
    await bench.until_letters(1)


async def test_a_failure_is_retried_and_others_go_on_meanwhile(bench: Bench) -> None:
    tries = 0

    async def deliver(lane: str, events: Sequence[Event]) -> None:
        nonlocal tries
        if lane == "s" and (tries := tries + 1) < 3:
            raise ValueError("not yet")
        await bench.saw(lane, events)

    await bench.emit(1, 2)
    await bench.emit(*"abc", stream="t")
    await bench.subscribe(deliver)
    await bench.until_seen(5)
    assert bench.seen == [("t", "a"), ("t", "b"), ("t", "c"), ("s", 1), ("s", 2)]
    assert await bench.letters.list() == []


@pytest.mark.parametrize("error", [MailboxFull("full"), ShuttingDown("closing"), StoreUnavailable("gone"), CircuitOpen("open", retry_after_s=0.0)])
async def test_a_passing_trouble_is_no_attempt(bench: Bench, error: Exception) -> None:
    tries = 0

    async def deliver(lane: str, events: Sequence[Event]) -> None:
        nonlocal tries
        tries += 1
        if tries <= 3:
            raise error
        await bench.saw(lane, events)

    await bench.emit("x")
    await bench.subscribe(deliver, max_attempts=1)
    await bench.until_seen(1)
    assert await bench.letters.list() == []


async def test_an_agent_that_is_failed_doesnt_hold_its_events_for_ever(bench: Bench) -> None:
    async def deliver(_lane: str, _events: Sequence[Event]) -> None:
        raise AgentFailed("it crashed too often", cause="x")

    await bench.emit("x")
    await bench.subscribe(deliver, max_attempts=1)
    await bench.until_letters(1)


async def test_what_can_never_be_delivered_isnt_retried(bench: Bench) -> None:
    tries = 0

    async def deliver(_lane: str, _events: Sequence[Event]) -> None:
        nonlocal tries
        tries += 1
        raise Undeliverable("gone for good")

    await bench.emit("x")
    await bench.subscribe(deliver, max_attempts=10)
    await bench.until_letters(1)
    assert tries == 1


async def test_of_a_batch_only_the_culprit_is_buried(bench: Bench) -> None:
    async def deliver(lane: str, events: Sequence[Event]) -> None:
        if any(event.data == 3 for event in events):
            raise ValueError("three")
        await bench.saw(lane, events)

    await bench.emit(*range(6))
    await bench.subscribe(deliver, batch=10, max_attempts=2)
    await bench.until_seen(5)
    assert [data for _lane, data in bench.seen] == [0, 1, 2, 4, 5]
    assert [letter.event.data for letter in await bench.letters.list() if letter.event] == [3]


@pytest.mark.parametrize("found", [3, b"x", [1], ["a", None], iter("ab"), {"x": 1}])
async def test_keys_that_arent_text_bury_the_event(bench: Bench, found: Any) -> None:
    good = isinstance(found, dict) or type(found).__name__ == "str_ascii_iterator"
    await bench.emit("x")
    [last] = await bench.emit("y", of="other")
    subscription = await bench.subscribe(lane_of=lambda _event: found, pattern="a.*")
    await until(lambda: subscription.position >= last)
    assert len(await bench.letters.list()) == (0 if good else 1)


@pytest.mark.parametrize("error", [KeyError("region"), Odd("x"), asyncio.CancelledError(), StopIteration()])
async def test_a_key_function_that_raises_buries_the_event_with_the_reason(bench: Bench, error: BaseException) -> None:
    def lane_of(event: Event) -> str:
        if event.data == "bad":
            raise error
        return "lane"

    await bench.emit("bad", "good")
    await bench.subscribe(lane_of=lane_of)
    await until(lambda: bench.seen == [("lane", "good")])
    [letter] = await bench.letters.list()
    assert type(error).__name__ in letter.error
    assert letter.agent is None


async def test_endless_keys_bury_the_event(bench: Bench) -> None:
    def endless(_event: Event) -> Iterable[str]:
        number = 0
        while True:
            number += 1
            yield str(number)

    await bench.emit("x")
    await bench.subscribe(lane_of=endless)
    await bench.until_letters(1)


async def test_a_full_list_of_letters_stops_the_lane_and_loses_nothing(bench: Bench) -> None:
    bench.letters = DeadLetters(bench.records, clock=SystemClock(), limit=1)

    async def deliver(lane: str, events: Sequence[Event]) -> None:
        if isinstance(events[0].data, str):
            raise ValueError("no")
        await bench.saw(lane, events)

    await bench.emit("bad", "worse", 3)
    await bench.emit(7, stream="t")
    subscription = await bench.subscribe(deliver, max_attempts=1)
    await until(lambda: ("t", 7) in bench.seen)
    await bench.until_letters(1)
    assert subscription.position == 1
    assert await bench.letters.clear() == 1
    await until(lambda: ("s", 3) in bench.seen)
    assert [letter.event.data for letter in await bench.letters.list() if letter.event] == ["worse"]


async def test_the_address_of_the_agent_stands_in_the_letter(bench: Bench) -> None:
    async def deliver(_lane: str, _events: Sequence[Event]) -> None:
        raise ValueError("no")

    await bench.emit("x", stream="key")
    await bench.subscribe(deliver, max_attempts=1, agent_of=lambda lane: f"Type/{lane}")
    await bench.until_letters(1)
    assert [letter.agent for letter in await bench.letters.list()] == ["Type/key"]


async def test_damage_in_the_log_stops_it_there_and_says_so(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.emit(1, 2, 3)
    blobs = bench.records.log._blobs
    whole = blobs[1]
    blobs[1] = whole[:-1] + bytes([whole[-1] ^ 1])
    await bench.subscribe()
    await until(lambda: "can't read just now" in caplog.text)
    assert "position 2" in caplog.text
    blobs[1] = whole
    await bench.until_seen(3)


# -- closing -------------------------------------------------------------------------------------------------------


async def test_closing_waits_for_what_is_under_way(bench: Bench) -> None:
    release = asyncio.Event()

    async def deliver(lane: str, events: Sequence[Event]) -> None:
        release.set()
        await asyncio.sleep(0.02)
        await bench.saw(lane, events)

    await bench.emit(1, 2)
    subscription = await bench.subscribe(deliver)
    await release.wait()
    await subscription.close()
    assert bench.seen == [("s", 1)]
    assert await bench.stored() == 1


async def test_a_delivery_that_closing_cancels_is_no_attempt_and_comes_again(bench: Bench) -> None:
    began = asyncio.Event()

    async def stuck(_lane: str, _events: Sequence[Event]) -> None:
        began.set()
        await asyncio.Event().wait()

    await bench.emit("x")
    subscription = await bench.subscribe(stuck, max_attempts=1)
    await began.wait()
    await subscription.close(0.01)
    assert await bench.letters.list() == []
    assert await bench.stored() == 0
    await bench.subscribe()
    await until(lambda: bench.seen == [("s", "x")])


async def test_a_delivery_that_wont_end_is_left_behind_and_told(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    release, began = asyncio.Event(), asyncio.Event()
    ended: Future[None] = asyncio.get_running_loop().create_future()

    async def stubborn(_lane: str, _events: Sequence[Event]) -> None:
        began.set()
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()
        ended.set_result(None)

    await bench.emit("x")
    subscription = await bench.subscribe(stubborn)
    await began.wait()
    await subscription.close(0.01)
    assert "left behind" in caplog.text
    release.set()
    await ended


async def test_a_receiver_may_close_its_own_subscription(bench: Bench) -> None:
    closed = asyncio.Event()

    async def deliver(lane: str, events: Sequence[Event]) -> None:
        await bench.saw(lane, events)
        await subscription.close()
        closed.set()

    subscription = await bench.subscribe(deliver)
    await bench.emit(1, 2)
    async with asyncio.timeout(4):
        await closed.wait()
    assert bench.seen == [("s", 1)]


async def test_closing_twice_is_closing_once(bench: Bench) -> None:
    subscription = await bench.subscribe()
    await asyncio.gather(subscription.close(), subscription.close())


# -- redriving -----------------------------------------------------------------------------------------------------


class Receiver:
    """Broken until it is mended; holds on to what is "slow" until it is released."""

    def __init__(self) -> None:
        self.broken = True
        self.got: list[Event] = []
        self.began = asyncio.Event()
        self.release = asyncio.Event()

    async def deliver(self, _lane: str, events: Sequence[Event]) -> None:
        if self.broken:
            raise ValueError("broken")
        if events[0].data == "slow":
            self.began.set()
            await self.release.wait()
        self.got.extend(events)


async def with_letter(bench: Bench) -> tuple[Receiver, DurableSubscription, str]:
    receiver = Receiver()
    await bench.emit("x")
    subscription = await bench.subscribe(receiver.deliver, max_attempts=1)
    await bench.until_letters(1)
    [letter] = await bench.letters.list()
    return receiver, subscription, letter.id


async def test_a_redriven_event_carries_its_letters_id_and_the_letter_goes(bench: Bench) -> None:
    receiver, _subscription, letter = await with_letter(bench)
    receiver.broken = False
    await bench.letters.redrive(letter)
    assert [(event.data, event.position, dict(event.metadata)) for event in receiver.got] == [("x", 1, {"redrive_id": letter})]
    assert await bench.letters.list() == []


async def test_a_redrive_that_fails_raises_and_keeps_the_letter(bench: Bench) -> None:
    _receiver, _subscription, letter = await with_letter(bench)
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            await bench.letters.redrive(letter)
    assert [one.id for one in await bench.letters.list()] == [letter]


async def test_a_letter_redriven_twice_at_once_runs_once(bench: Bench) -> None:
    receiver, _subscription, letter = await with_letter(bench)
    receiver.broken = False
    await asyncio.gather(bench.letters.redrive(letter), bench.letters.redrive(letter))
    assert len(receiver.got) == 1
    with pytest.raises(InvalidArguments, match="no dead letter"):
        await bench.letters.redrive(letter)


async def test_a_redriven_event_waits_for_its_lane_and_goes_before_what_follows(bench: Bench) -> None:
    receiver, _subscription, letter = await with_letter(bench)
    receiver.broken = False
    await bench.emit("slow", "after")
    await receiver.began.wait()
    redriving = asyncio.create_task(bench.letters.redrive(letter))
    await asyncio.sleep(0.01)
    assert receiver.got == []
    receiver.release.set()
    await redriving
    await until(lambda: len(receiver.got) == 3)
    assert [event.data for event in receiver.got] == ["slow", "x", "after"]


async def test_whoever_redrives_may_leave_and_it_goes_on(bench: Bench) -> None:
    receiver, _subscription, letter = await with_letter(bench)
    receiver.broken = False
    await bench.emit("slow")
    await receiver.began.wait()
    redriving = asyncio.create_task(bench.letters.redrive(letter))
    await asyncio.sleep(0.01)
    redriving.cancel()
    receiver.release.set()
    await until(lambda: [event.data for event in receiver.got] == ["slow", "x"])
    await bench.until_letters(0)


async def test_closing_ends_a_redrive_that_waits_and_keeps_the_letter(bench: Bench) -> None:
    receiver, subscription, letter = await with_letter(bench)
    receiver.broken = False
    await bench.emit("slow")
    await receiver.began.wait()
    redriving = asyncio.create_task(bench.letters.redrive(letter))
    await asyncio.sleep(0.01)
    await subscription.close(0.01)
    with pytest.raises(ShuttingDown):
        await redriving
    assert [one.id for one in await bench.letters.list()] == [letter]
    with pytest.raises(InvalidArguments, match="nobody takes letters"):
        await bench.letters.redrive(letter)


async def test_an_event_that_had_no_key_is_redriven_to_those_it_has_now(bench: Bench) -> None:
    keys: dict[str, Any] = {"of": 3}
    await bench.emit("x")
    await bench.subscribe(lane_of=lambda _event: keys["of"])
    await bench.until_letters(1)
    [letter] = await bench.letters.list()
    keys["of"] = ["a", "b"]
    await bench.letters.redrive(letter.id)
    assert sorted(bench.seen) == [("a", "x"), ("b", "x")]


async def test_a_redrive_id_that_was_copied_into_another_event_means_nothing(bench: Bench) -> None:
    got: list[Event] = []

    async def deliver(lane: str, events: Sequence[Event]) -> None:
        got.extend(events)
        await bench.saw(lane, events)

    await bench.subscribe(deliver)
    await bench.emit("x", metadata={"redrive_id": "stolen", "tenant": "a"})
    await until(lambda: len(got) == 1)
    assert dict(got[0].metadata) == {"tenant": "a"}


# -- paths ---------------------------------------------------------------------------------------------------------


def sample() -> Event:
    return Event("1", "a.b", "Flight/7", "7", 0.0, {"region": "eu", "n": 3, "deep": {"er": "x", "none": None}, "list": ["a"]}, "s", {"tenant": "t"})


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("id", "1"), ("type", "a.b"), ("source", "Flight/7"), ("subject", "7"), ("stream", "s"), ("data.region", "eu"), ("data.deep.er", "x"),
        ("metadata.tenant", "t"), ("time", "1970-01-01T00:00:00Z"), ("data.none", None), ("data.deep.none", None), ("data.region.er", None),
        ("data.list.0", None), ("correlation_id", None), ("metadata.nobody", None),
    ],
)  # fmt: skip
def test_a_path_leads_to_a_key_or_to_nobody(path: str, key: str | None) -> None:
    assert lane_path(path)(sample()) == key


@pytest.mark.parametrize("path", ["data.n", "data.deep", "data.list", "position", "data", "time_s"])
def test_a_path_to_something_else_than_text_is_an_error_of_that_event(path: str) -> None:
    with pytest.raises(InvalidArguments, match="a key is a string"):
        lane_path(path)(sample())


@pytest.mark.parametrize("path", ["", "region", "data.", "data..x", ".data", "__class__"])
def test_what_is_no_path_is_refused_at_once(path: str) -> None:
    with pytest.raises(InvalidArguments, match="no path into an event"):
        lane_path(path)


async def test_of_two_that_claim_one_name_at_once_one_is_first_and_the_other_takes_its_position(bench: Bench) -> None:
    await bench.emit(1)
    first = DurableSubscription(
        "one", bench.records.log, bench.records, lane_of=lambda e: e.stream, deliver=bench.saw, matches=matcher("**"),
        dead_letters=bench.letters, clock=SystemClock(),
    )  # fmt: skip
    kept = KeptPosition("one", bench.records, first._lines)

    async def meanwhile() -> int:
        await first.start()
        return 0

    assert await kept.find(meanwhile) == first.position == await bench.records.log.last() > 0
    await first.close()
