from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jidosystem.core.bus import EventBus
from jidosystem.core.errors import InvalidArguments
from jidosystem.core.events import Event
from jidosystem.core.live import MAX_BUFFERED
from tests.core.bench import Bench, until


class Odd(BaseException):
    """Outside of Exception."""


class Collector:
    """A subscriber in every shape that a handler can have."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    def plain(self, event: Event) -> None:
        self.got.append(event.data)

    async def coroutine(self, event: Event) -> None:
        self.got.append(event.data)

    async def waiting(self, event: Event) -> None:
        await asyncio.sleep(0)
        self.got.append(event.data)

    async def with_prefix(self, prefix: str, event: Event) -> None:
        self.got.append(event.data)

    def returns_coroutine(self, event: Event) -> Awaitable[None]:
        return self.waiting(event)

    def returns_future(self, event: Event) -> asyncio.Future[None]:
        return asyncio.ensure_future(self.waiting(event))

    def returns_value(self, event: Event) -> int:
        self.got.append(event.data)
        return 3

    async def __call__(self, event: Event) -> None:
        self.got.append(event.data)


def shapes(collector: Collector) -> dict[str, Callable[[Event], Any]]:
    return {
        "function": collector.plain, "coroutine": collector.coroutine, "waiting": collector.waiting, "lambda": lambda e: collector.coroutine(e),  # noqa: PLW0108 - a function that returns a coroutine

        "partial": functools.partial(collector.with_prefix, "x"), "returns coroutine": collector.returns_coroutine,
        "returns future": collector.returns_future, "returns value": collector.returns_value, "object": collector,
    }  # fmt: skip


@pytest.mark.parametrize("shape", list(shapes(Collector())))
@pytest.mark.parametrize("start", ["new", "beginning"])
async def test_every_shape_of_handler_gets_every_event_in_order(bus: EventBus, shape: str, start: Any) -> None:
    collector = Collector()
    subscription = await bus.subscribe("a.*", shapes(collector)[shape], start=start, max_in_flight=1)
    for number in range(50):
        await bus.publish("a.b", number)
        await bus.publish("b.b", "no")
    await until(lambda: len(collector.got) == 50)
    assert collector.got == list(range(50))
    assert (subscription.name, subscription.pattern, subscription.dropped, subscription.failed) == (None, "a.*", 0, 0)


async def test_a_live_subscription_begins_now_also_while_the_dispatcher_is_behind(bus: EventBus) -> None:
    early, late = Collector(), Collector()
    await bus.subscribe("**", early.plain)
    publishing = [asyncio.ensure_future(bus.publish("a", number)) for number in range(10)]
    await asyncio.gather(*publishing)
    await bus.subscribe("**", late.plain)  # the dispatcher has had no turn yet
    await bus.publish("a", 10)
    await until(lambda: len(early.got) == 11)
    assert early.got == list(range(11))
    assert late.got == [10]


async def test_after_closing_nothing_comes_and_others_go_on(bus: EventBus) -> None:
    one, other = Collector(), Collector()
    first = await bus.subscribe("**", one.plain)
    await bus.subscribe("**", other.plain)
    await bus.publish("a", 1)
    await until(lambda: one.got == [1])
    await first.close()
    await first.close()
    await bus.publish("a", 2)
    await until(lambda: other.got == [1, 2])
    assert one.got == [1]


async def test_when_the_last_one_has_left_nobody_follows_and_the_next_one_begins_anew(bench: Bench, bus: EventBus) -> None:
    collector = Collector()
    subscription = await bus.subscribe("**", collector.plain)
    await subscription.close()
    assert not bench.records.log._followers
    await bus.publish("a", 1)
    again = await bus.subscribe("**", collector.plain)
    await bus.publish("a", 2)
    await until(lambda: collector.got == [2])
    await again.close()


async def test_closing_waits_for_handlers_at_work_but_not_for_the_one_that_closes(bus: EventBus) -> None:
    ended: list[str] = []
    began = asyncio.Event()

    async def slow(_event: Event) -> None:
        began.set()
        await asyncio.sleep(0.02)
        ended.append("slow")

    async def closes_itself(_event: Event) -> None:
        await itself.close()
        ended.append("itself")

    async def closes_itself_later(_event: Event) -> None:
        await asyncio.sleep(0)
        await later.close()
        ended.append("later")

    subscription = await bus.subscribe("**", slow)
    itself = await bus.subscribe("**", closes_itself)
    later = await bus.subscribe("**", closes_itself_later, start="beginning")
    await bus.publish("a")
    await began.wait()
    await subscription.close()
    await until(lambda: sorted(ended) == ["itself", "later", "slow"])


# -- failure -------------------------------------------------------------------------------------------------------


ERRORS = [
    ValueError("no"),
    Odd("no"),
    SystemExit(3),
    KeyboardInterrupt(),
    asyncio.CancelledError(),
    GeneratorExit(),
    StopIteration(),
    RecursionError(),
]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("shape", ["function", "coroutine", "waiting", "lambda"])
async def test_whatever_a_handler_raises_harms_nobody_and_is_told(
    bus: EventBus, caplog: pytest.LogCaptureFixture, error: BaseException, shape: str
) -> None:
    def function(_event: Event) -> None:
        raise error

    async def coroutine(_event: Event) -> None:
        raise error

    async def waiting(_event: Event) -> None:
        await asyncio.sleep(0)
        raise error

    handlers: dict[str, Callable[[Event], Any]] = {
        "function": function, "coroutine": coroutine, "waiting": waiting, "lambda": lambda event: waiting(event),  # noqa: PLW0108
    }  # fmt: skip
    others = [Collector() for _ in range(4)]
    await bus.subscribe("**", others[0].plain)
    await bus.subscribe("**", others[1].coroutine)
    bad = await bus.subscribe("**", handlers[shape])
    await bus.subscribe("**", others[2].plain)
    await bus.subscribe("**", others[3].waiting)
    for number in range(3):
        await bus.publish("a.b", number)
    await until(lambda: bad.failed == 3)
    await until(lambda: all(other.got == [0, 1, 2] for other in others))
    told = RuntimeError("") if isinstance(error, StopIteration) and shape != "function" else error
    assert "a subscriber failed" in caplog.text
    assert type(told).__name__ in caplog.text
    assert '"subscription": "** ' in caplog.text
    assert '"position": 1' in caplog.text


async def test_a_handler_that_cant_be_called_with_an_event_harms_nobody(bus: EventBus) -> None:
    async def takes_nothing() -> None: ...

    async def takes_two(_one: Event, _two: Event) -> None: ...

    for handler in (takes_nothing, takes_two, lambda: None):
        with pytest.raises(InvalidArguments, match="is called with the event alone"):
            await bus.subscribe("**", handler)  # type: ignore[arg-type]

    def hides_what_it_takes(*args: Any) -> Any:  # so that it is found only when it is called
        return takes_nothing(*args)

    collector = Collector()
    bad = await bus.subscribe("**", hides_what_it_takes)
    await bus.subscribe("**", collector.coroutine)
    await bus.publish("a", 1)
    await until(lambda: collector.got == [1] and bad.failed == 1)


async def test_one_that_always_fails_doesnt_drown_the_log(bus: EventBus, caplog: pytest.LogCaptureFixture) -> None:
    def fails(_event: Event) -> None:
        raise ValueError("no")

    bad = await bus.subscribe("**", fails)
    await asyncio.gather(*(bus.publish("a", n) for n in range(1_000)))
    await until(lambda: bad.failed == 1_000)
    assert caplog.text.count("a subscriber failed") == 10 + 6  # the first ten, then 16, 32, … 512


# -- tasks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("waits_before", [False, True])
async def test_a_timeout_inside_a_handler_hits_that_handler_alone(bus: EventBus, waits_before: bool) -> None:
    outcome: list[str] = []
    collector = Collector()

    async def handler(event: Event) -> None:
        if waits_before:
            await asyncio.sleep(0)
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            outcome.append(event.data)

    await bus.subscribe("**", handler)
    await bus.subscribe("**", collector.coroutine)
    await bus.publish("a", 1)
    await bus.publish("a", 2)
    await until(lambda: outcome == [1, 2])
    await until(lambda: collector.got == [1, 2])


async def test_each_handler_that_waits_has_a_task_of_its_own(bus: EventBus) -> None:
    tasks: list[Any] = []
    go = asyncio.Event()

    async def handler(_event: Event) -> None:
        before = asyncio.current_task()
        await go.wait()
        assert asyncio.current_task() is before
        tasks.append(before)

    for _ in range(3):
        await bus.subscribe("**", handler)
    await bus.publish("a")
    await bus.publish("a")
    await asyncio.sleep(0.01)
    go.set()
    await until(lambda: len(tasks) == 6)
    assert len(set(map(id, tasks))) == 6


async def test_a_task_that_is_kept_by_a_handler_that_doesnt_wait_is_its_own_and_done(bus: EventBus) -> None:
    kept: list[asyncio.Task[Any]] = []
    called: list[bool] = []

    async def keeps(_event: Event) -> None:
        task = asyncio.current_task()
        assert task is not None
        kept.append(task)
        task.add_done_callback(lambda done: called.append(done.done()))

    async def waits(_event: Event) -> None:
        await asyncio.sleep(0)

    for handler in (keeps, waits, keeps, waits):
        await bus.subscribe("**", handler)
    await bus.publish("a")
    await until(lambda: called == [True, True])
    assert kept[0] is not kept[1]
    await asyncio.wait_for(asyncio.gather(*kept), 1.0)


async def test_a_handler_that_cancels_itself_is_the_only_one_cancelled(bus: EventBus) -> None:
    async def cancels_and_waits(_event: Event) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async def cancels_and_ends(_event: Event) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    async def cancels_and_raises(_event: Event) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        raise ValueError("no")

    collectors = [Collector() for _ in range(3)]
    subscriptions = []
    for handler, collector in zip((cancels_and_waits, cancels_and_ends, cancels_and_raises), collectors, strict=True):
        subscriptions.append(await bus.subscribe("**", handler))
        await bus.subscribe("**", collector.waiting)
    for number in range(3):
        await bus.publish("a", number)
    await until(lambda: all(collector.got == [0, 1, 2] for collector in collectors))
    await until(lambda: [one.failed for one in subscriptions] == [3, 0, 3])


async def test_context_variables_of_a_handler_stay_its_own(bus: EventBus) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    found: list[int] = []

    async def sets(_event: Event) -> None:
        found.append(variable.get())
        variable.set(1)

    for _ in range(3):
        await bus.subscribe("**", sets)
    await bus.publish("a")
    await bus.publish("a")
    await until(lambda: len(found) == 6)
    assert found == [0] * 6


async def test_a_handler_may_publish_subscribe_and_close_from_within(bus: EventBus) -> None:
    collector = Collector()
    inner = Collector()

    async def handler(event: Event) -> None:
        if event.data == 1:
            await bus.subscribe("b", inner.coroutine)
            await bus.publish("b", "inner")
            await bus.publish("a", 2)
        collector.got.append(event.data)

    await bus.subscribe("a", handler)
    await bus.publish("a", 1)
    await until(lambda: collector.got == [1, 2])
    await until(lambda: inner.got == ["inner"])


# -- slow ----------------------------------------------------------------------------------------------------------


async def test_a_slow_subscriber_is_bounded_counted_and_told_and_others_arent_slowed(bus: EventBus, caplog: pytest.LogCaptureFixture) -> None:
    go = asyncio.Event()
    got: list[int] = []
    running = most = 0

    async def slow(event: Event) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go.wait()
        running -= 1
        got.append(event.data)

    collector = Collector()
    subscription = await bus.subscribe("**", slow, max_in_flight=7)
    await bus.subscribe("**", collector.plain)
    count = MAX_BUFFERED + 100
    await asyncio.gather(*(bus.publish("a", number) for number in range(count)))
    await until(lambda: len(collector.got) == count)
    assert most == 7
    assert subscription.dropped == 100 - 7
    assert "too slow and loses events" in caplog.text
    go.set()
    await until(lambda: len(got) == count - subscription.dropped)
    assert got == list(range(MAX_BUFFERED + 7))
    await bus.publish("a", "after")
    await until(lambda: got[-1] == "after")


async def test_a_buffer_is_drained_also_by_handlers_that_dont_wait(bus: EventBus) -> None:
    go = asyncio.Event()
    collector = Collector()

    async def waits_once(event: Event) -> None:
        if event.data == 0:
            await go.wait()
        collector.got.append(event.data)

    await bus.subscribe("**", waits_once, max_in_flight=1)
    for number in range(500):
        await bus.publish("a", number)
    await asyncio.sleep(0.01)
    assert collector.got == []
    go.set()
    await until(lambda: collector.got == list(range(500)))


async def test_one_that_begins_in_the_past_reads_at_its_own_pace_and_loses_nothing(bus: EventBus) -> None:
    got: list[int] = []
    running = most = 0

    async def slow(event: Event) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        got.append(event.data)

    first = await bus.publish("a", -1)
    await asyncio.gather(*(bus.publish("a", number) for number in range(MAX_BUFFERED + 500)))
    subscription = await bus.subscribe("a", slow, start=first.position, max_in_flight=10)
    await until(lambda: len(got) == MAX_BUFFERED + 500)
    assert got == list(range(MAX_BUFFERED + 500))
    assert most == 10
    await bus.publish("a", "live")
    await until(lambda: got[-1] == "live")
    assert subscription.dropped == 0


async def test_a_thousand_subscribers_each_get_every_event(bus: EventBus) -> None:
    collectors = [Collector() for _ in range(1_000)]
    for number, collector in enumerate(collectors):
        await bus.subscribe("a.*" if number % 2 else "**", (collector.plain, collector.coroutine, collector.waiting)[number % 3])
    await asyncio.gather(*(bus.publish("a.b", number) for number in range(20)))
    await until(lambda: all(len(collector.got) == 20 for collector in collectors))
    assert all(collector.got == list(range(20)) for collector in collectors)


async def test_the_loop_has_its_turn_between_many_deliveries(bus: EventBus) -> None:
    collectors = [Collector() for _ in range(100)]
    for collector in collectors:
        await bus.subscribe("**", collector.plain)
    await asyncio.gather(*(bus.publish("a", number) for number in range(1_000)))
    turns = 0
    while len(collectors[-1].got) < 1_000:
        turns += 1
        await asyncio.sleep(0)
    assert turns >= 20  # 100,000 deliveries, 4,000 a turn


async def test_types_without_end_fill_no_memory(bench: Bench, bus: EventBus) -> None:
    collector = Collector()
    await bus.subscribe("a.**", collector.plain)
    await asyncio.gather(*(bus.publish(f"a.t{number}", number) for number in range(10_500)))
    await until(lambda: len(collector.got) == 10_500)
    assert len(bus._live._of_type) <= 10_000


async def test_damage_in_the_log_stops_live_subscriptions_there_and_says_so(bench: Bench, bus: EventBus, caplog: pytest.LogCaptureFixture) -> None:
    collector = Collector()
    await bus.subscribe("**", collector.plain)
    blobs = bench.records.log._blobs
    bench.records.log.append([Event(str(number), "a", "test", "", 0.0, number, "s") for number in range(3)])
    whole, blobs[1] = blobs[1], b"damaged"  # before anybody has read it
    await until(lambda: "live subscriptions can't read just now" in caplog.text)
    blobs[1] = whole
    await until(lambda: collector.got == [0, 1, 2])
