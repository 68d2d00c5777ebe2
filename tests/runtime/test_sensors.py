"""Sensors: each item is a turn, its position is committed with it, and nothing is lost or had twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from jidosystem import Agent, DeadLetter, Event, HttpRequest, Item, Lifecycle, Platform, action, field, on_event, sensor
from jidosystem.core.errors import OutsideTurn, StoreUnavailable
from jidosystem.runtime import sensors
from tests.runtime.harness import Crashable, FakeClock, PlatformOn, Store, settle, until, until_async

SOON_S = 0.01


class Source:
    """Numbered rows, and what was asked for: outside of any platform."""

    def __init__(self) -> None:
        self.rows = [1, 2, 3]
        self.asked: list[tuple[str, int | None]] = []
        self.running: list[str] = []
        self.most_running = 0
        self.tidied = 0
        self.failing: Callable[[int], BaseException | None] = lambda _row: None
        self.stubborn = False
        self.yielding = asyncio.Event()
        self.more = asyncio.Event()


source: Source


@pytest.fixture(autouse=True)
async def _source() -> None:
    global source  # noqa: PLW0603
    source = Source()


class Feed(Agent):
    """Takes the rows of the source, each once."""

    taken: list[int] = field(default_factory=list)

    @sensor(every=SOON_S, action="take")
    async def poll(self, position: int | None) -> AsyncIterator[Item[int]]:
        source.asked.append((self.key, position))
        source.running.append(self.key)
        source.most_running = max(source.most_running, source.running.count(self.key))
        try:
            for row in source.rows:
                if position is None or row > position:
                    yield Item(row, position=row)
        finally:
            source.tidied += 1
            source.running.remove(self.key)

    @action
    async def take(self, row: int) -> None:
        if (error := source.failing(row)) is not None:
            raise error
        self.taken.append(row)

    @action
    async def leave(self) -> None:
        self.stop()

    @action
    async def vanish(self) -> None:
        self.delete()

    @action(readonly=True)
    async def seen(self) -> list[int]:
        return self.taken


class Stream(Agent):
    """Never ends by itself, and goes on serving calls."""

    taken: list[int] = field(default_factory=list)

    @sensor(every=SOON_S, action="take")
    async def follow(self, position: int = 0) -> AsyncIterator[Item[int]]:
        source.running.append(self.key)
        source.most_running = max(source.most_running, source.running.count(self.key))
        try:
            while True:
                for row in source.rows:
                    if row > position:
                        position = row
                        yield Item(row, position=row)
                source.more.clear()
                try:
                    await source.more.wait()
                except asyncio.CancelledError:
                    if not source.stubborn:
                        raise
                    await source.yielding.wait()
                    return
        finally:
            source.tidied += 1
            source.running.remove(self.key)

    @action
    async def take(self, row: int) -> int:
        self.taken.append(row)
        return row

    @action(readonly=True)
    async def seen(self) -> list[int]:
        return self.taken


def add_rows(*rows: int) -> None:
    source.rows.extend(rows)
    source.more.set()


async def has_taken(feed: Feed | Stream, *rows: int) -> None:
    """Wait until an agent has had these rows and no others, in this order."""

    async def taken() -> bool:
        return await feed.seen() == list(rows)

    await until_async(taken, f"having taken {rows}")


async def die(world: Crashable) -> None:
    """As a process dies: what it had handed to its store's thread is done or isn't before the next one opens the file."""
    await world.crash()
    record = await world.inner.read("Barrier/x")
    await world.inner.commit("Barrier/x", record.revision if record is not None else 0, b"")


# -- items and positions -----------------------------------------------------------------------------------------


async def test_each_item_is_one_turn_and_the_next_run_is_given_the_last_position(platform: Platform) -> None:
    feed = platform.agent(Feed, "a")
    assert await feed.seen() == []
    await has_taken(feed, 1, 2, 3)
    source.rows.append(4)
    await has_taken(feed, 1, 2, 3, 4)
    assert source.asked[0] == ("a", None) and ("a", 3) in source.asked
    assert source.most_running == 1


async def test_a_position_survives_the_platform_and_nobody_calls(file_url: str) -> None:
    async with Platform(file_url) as platform:
        await has_taken(platform.agent(Feed, "a"), 1, 2, 3)
    source.rows.append(4)
    asked = len(source.asked)
    async with Platform(file_url, agents=[Feed]) as platform:
        assert (await until(lambda: source.asked[asked:]))[0] == ("a", 3)
        await has_taken(platform.agent(Feed, "a"), 1, 2, 3, 4)


async def test_a_new_agent_that_has_had_nothing_yet_comes_back_too(file_url: str) -> None:
    source.rows.clear()
    async with Platform(file_url) as platform:
        await platform.agents.start(Feed, "a")
        await until(lambda: source.asked)
    source.asked.clear()
    async with Platform(file_url, agents=[Feed]):
        await until(lambda: source.asked)


async def test_state_and_position_are_one_commit_whenever_the_process_dies(world: Crashable) -> None:
    source.rows = list(range(1, 101))
    for _ in range(20):
        platform = await world.start([Feed])
        feed = platform.agent(Feed, "a")
        before = len(await feed.seen())
        await until_async(lambda feed=feed, before=before: _longer(feed, before))
        await die(world)
    platform = await world.start([Feed])
    await has_taken(platform.agent(Feed, "a"), *range(1, 101))


async def _longer(feed: Feed, than: int) -> bool:
    return len(await feed.seen()) > min(than, 99)


async def test_the_next_item_isnt_asked_for_before_the_turn_of_this_one_is_durable(on_store: Platform, store: Store) -> None:
    asked: list[int] = []

    class Slow(Agent):
        count: int = 0

        @sensor(every=60, action="take")
        async def poll(self) -> AsyncIterator[int]:
            for number in range(3):
                asked.append(number)
                yield number

        @action
        async def take(self, number: int) -> None:
            self.count += 1

    await on_store.agents.start(Slow, "a")
    await until(lambda: asked == [0, 1, 2])
    asked.clear()
    await on_store.agents.stop(on_store.agent(Slow, "a"))
    store.hold()
    await on_store.agents.start(Slow, "a")
    await until(lambda: store.held)
    await settle()
    assert asked == [0]
    assert "jido_sensor_lag_seconds 0.0\n" not in on_store.metrics()
    store.release()
    await until(lambda: asked == [0, 1, 2])


async def test_a_bare_value_has_no_position_and_a_default_stands_for_none(platform: Platform) -> None:
    positions: list[str] = []

    class Bare(Agent):
        count: int = 0

        @sensor(every=SOON_S, action="take")
        async def poll(self, position: str = "the beginning") -> AsyncIterator[int]:
            positions.append(position)
            yield 1

        @action
        async def take(self, number: int) -> None:
            self.count += number

    await platform.agents.start(Bare, "a")
    await until(lambda: len(positions) > 2)
    assert set(positions) == {"the beginning"}


async def test_what_is_yielded_is_converted_to_what_the_action_takes(platform: Platform) -> None:
    @dataclass(frozen=True)
    class Row:
        id: int
        name: str = "nobody"

    got: list[Row] = []

    class Rows(Agent):
        last: Row = Row(0)

        @sensor(every=60, action="take")
        async def poll(self) -> AsyncIterator[dict[str, int]]:
            yield {"id": 7}

        @action
        async def take(self, row: Row) -> None:
            self.last = row
            got.append(row)

    await platform.agents.start(Rows, "a")
    assert await until(lambda: got) == [Row(7)]


async def test_items_become_events_exactly_once(world: Crashable) -> None:
    class Teller(Agent):
        @sensor(every=SOON_S, event="row.found")
        async def poll(self, position: int | None) -> AsyncIterator[Item[int]]:
            for row in source.rows:
                if position is None or row > position:
                    yield Item(row, position=row)

    class Hearer(Agent):
        heard: list[int] = field(default_factory=list)

        @on_event("row.*", key="subject")
        async def found(self, event: Event) -> None:
            self.heard.append(event.data)

        @action(readonly=True)
        async def seen(self) -> list[int]:
            return self.heard

    source.rows = list(range(1, 31))
    for _ in range(5):
        platform = await world.start([Teller, Hearer])
        await platform.agents.start(Teller, "a")
        before = await platform.agent(Hearer, "a").seen()
        await until_async(lambda before=before, platform=platform: _heard_more(platform.agent(Hearer, "a"), len(before)))
        await die(world)
    platform = await world.start([Teller, Hearer])

    async def all_heard() -> bool:
        return await platform.agent(Hearer, "a").seen() == source.rows

    await until_async(all_heard)
    assert [event.data async for event in platform.events.read_all("row.found")] == source.rows


async def _heard_more(hearer: object, than: int) -> bool:
    return len(await hearer.seen()) >= min(than + 1, 30)  # type: ignore[attr-defined]


# -- what goes wrong ---------------------------------------------------------------------------------------------


async def test_a_turn_that_fails_is_repeated_and_nothing_overtakes_it(platform: Platform) -> None:
    failures = [OSError("not now"), OSError("not yet")]
    source.failing = lambda row: failures.pop() if row == 2 and failures else None
    await has_taken(platform.agent(Feed, "a"), 1, 2, 3)
    assert await platform.dead_letters.list() == []


async def test_what_keeps_failing_is_put_aside_and_the_source_goes_on_behind_it(file_url: str) -> None:
    source.failing = lambda row: OSError("row 2 is bad") if row == 2 else None
    source.rows = [1, 2]
    async with Platform(file_url) as platform:
        await platform.agents.start(Feed, "a")
        (letter,) = await until_async(lambda: platform.dead_letters.list("sensor"))
        assert (letter.name, letter.agent, letter.attempts) == ("Feed.poll", "Feed/a", 5)
        assert "row 2 is bad" in letter.error
        await until(lambda: ("a", 2) in source.asked)
    source.rows.append(3)
    async with Platform(file_url, agents=[Feed]) as platform:
        feed = platform.agent(Feed, "a")
        await has_taken(feed, 1, 3)
        assert len(await platform.dead_letters.list()) == 1
        with pytest.raises(OSError, match="row 2 is bad"):
            await platform.dead_letters.redrive(letter.id)
        source.failing = lambda _row: None
        await platform.dead_letters.redrive(letter.id)
        assert await feed.seen() == [1, 3, 2]
        assert await platform.dead_letters.list() == []


async def test_where_there_is_no_room_for_a_dead_letter_the_item_waits_and_nothing_is_lost() -> None:
    source.failing = lambda row: OSError("bad") if row in (1, 2) else None
    async with Platform(config={"events.max_dead_letters": 1}) as platform:
        feed = platform.agent(Feed, "a")
        await feed.seen()
        await until_async(lambda: platform.dead_letters.list("sensor"))
        source.failing = lambda row: OSError("bad") if row == 1 else None
        await has_taken(feed, 2, 3)
        source.failing = lambda _row: None
        assert len(await platform.dead_letters.list("sensor")) == 1


async def test_an_item_doesnt_become_two_letters_if_its_position_couldnt_be_stored(on_store: Platform, store: Store) -> None:
    source.rows = [1]
    source.failing = lambda _row: OSError("bad")
    feed = on_store.agent(Feed, "a")
    await feed.seen()
    await until(lambda: store.commits_of("Feed/a"))
    store.fail_all()
    await until_async(lambda: on_store.dead_letters.list("sensor"))
    store.heal()
    await until(lambda: ("a", 1) in source.asked)
    assert len(await on_store.dead_letters.list("sensor")) == 1


async def test_an_item_that_doesnt_fit_its_action_is_put_aside_at_once(platform: Platform) -> None:
    class Untyped(Agent):
        count: int = 0

        @sensor(every=60, action="take")
        async def poll(self):  # type: ignore[no-untyped-def]
            yield "seven"
            yield 7

        @action
        async def take(self, number: int) -> None:
            self.count += number

        @action(readonly=True)
        async def get(self) -> int:
            return self.count

    agent = platform.agent(Untyped, "a")

    async def counted() -> bool:
        return await agent.get() == 7

    await until_async(counted)
    (letter,) = await platform.dead_letters.list("sensor")
    assert letter.attempts == 1 and "InvalidArguments" in letter.error
    assert await platform.dead_letters.clear("sensor") == 1


async def test_an_event_that_was_put_aside_is_emitted_when_it_is_redriven(platform: Platform) -> None:
    class Teller(Agent):
        @sensor(every=60, event="x")
        async def poll(self) -> AsyncIterator[int]:
            yield 1

    await platform.agents.start(Teller, "a")

    async def told() -> list[Event]:
        return [event async for event in platform.events.read_all("x")]

    await until_async(told)
    node = platform._node
    activation = node.hosts["Teller"].live["a"]
    spec = activation.host.type.sensors["poll"]
    await node.sensors.bury(activation, spec, sensors.Packed(*spec.pack(2)), 5, OSError("it was so"))
    (letter,) = await platform.dead_letters.list("sensor")
    assert isinstance(letter, DeadLetter)
    await platform.dead_letters.redrive(letter.id)
    assert [event.data for event in await told()] == [1, 2]


async def test_a_generator_that_raises_is_run_again_from_its_last_position(platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    class Shaky(Agent):
        taken: list[int] = field(default_factory=list)

        @sensor(every=60, action="take")
        async def poll(self, position: int = 0) -> AsyncIterator[Item[int]]:
            source.asked.append((self.key, position))
            for row in source.rows:
                if row > position:
                    yield Item(row, position=row)
                    if row < 3:
                        raise ConnectionError(f"after row {row}")

        @action
        async def take(self, row: int) -> None:
            self.taken.append(row)

        @action(readonly=True)
        async def seen(self) -> list[int]:
            return self.taken

    agent = platform.agent(Shaky, "a")
    await has_taken(agent, 1, 2, 3)  # type: ignore[arg-type]
    assert [position for _key, position in source.asked] == [0, 1, 2]
    assert "a sensor failed" in caplog.text and "ConnectionError: after row 1" in caplog.text and "in poll" in caplog.text
    assert 'jido_sensor_failures_total{agent_type="Shaky"} 2.0' in platform.metrics()
    assert 'jido_sensor_items_total{agent_type="Shaky"} 3.0' in platform.metrics()


@pytest.mark.parametrize("end", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit(), StopIteration()], ids=repr)
async def test_whatever_a_generator_raises_is_its_own_failure(platform: Platform, end: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    runs: list[int] = []

    class Wild(Agent):
        @sensor(every=60, event="x")
        async def poll(self) -> AsyncIterator[int]:
            runs.append(1)
            if len(runs) == 1:
                raise end
            yield 1

    await platform.agents.start(Wild, "a")
    await until(lambda: len(runs) == 2)
    assert "a sensor failed" in caplog.text


async def test_what_cant_be_stored_is_told_where_it_is_yielded(platform: Platform) -> None:
    mistakes: list[str] = []

    class Careless(Agent):
        taken: int = 0

        @sensor(every=60, action="take")
        async def poll(self, position: int | None) -> AsyncIterator[object]:
            for item in (object(), Item(1, position=object()), Item(1, position="one"), Item(1, position=2**80), Item(1, position=1)):
                try:
                    yield item
                except Exception as error:
                    mistakes.append(f"{type(error).__name__}: {error}")

        @action
        async def take(self, number: int) -> None:
            self.taken += number

    await platform.agents.start(Careless, "a")
    await until(lambda: 'jido_sensor_items_total{agent_type="Careless"} 1.0' in platform.metrics())
    assert len(mistakes) == 4 and all("InvalidArguments" in mistake for mistake in mistakes)


async def test_a_store_that_fails_stops_nothing_for_good(on_store: Platform, store: Store) -> None:
    feed = on_store.agent(Feed, "a")
    await has_taken(feed, 1, 2, 3)
    store.fail_all()
    source.rows.append(4)
    asked = len(source.asked)
    await until(lambda: len(source.asked) > asked + 2)
    store.heal()
    await until(lambda: ("a", 4) in source.asked)  # until then a call may share the fate of a turn that fails
    await has_taken(feed, 1, 2, 3, 4)
    assert source.most_running == 1


async def test_heads_that_cant_be_read_for_a_while_stop_no_sensor_although_somebody_calls(store: Store) -> None:
    async with PlatformOn(store, [Feed]) as platform:
        feed = platform.agent(Feed, "a")
        await has_taken(feed, 1, 2, 3)
        await platform.agents.stop(feed)
        store.reads_fail = True
        with pytest.raises(StoreUnavailable):
            await feed.seen()
        source.rows.append(4)
        source.asked.clear()
        store.reads_fail = False
        await until(lambda: source.asked)
        await has_taken(feed, 1, 2, 3, 4)


# -- the agent as its generator sees it --------------------------------------------------------------------------


async def test_the_generator_sees_the_agent_and_can_change_nothing_but_what_is_transient(platform: Platform) -> None:
    told: dict[str, object] = {}

    class Curious(Agent):
        value: int = 41
        _connection: str = ""

        @sensor(every=60, action="take")
        async def poll(self) -> AsyncIterator[int]:
            self._connection = "open"
            for what in (lambda: setattr(self, "value", 0), lambda: delattr(self, "value"), lambda: self.emit("x"), self.stop, self.delete):
                try:
                    what()
                except OutsideTurn as error:
                    told.setdefault("refused", []).append(str(error))  # type: ignore[attr-defined]
            try:
                yield self.value
                told["then"] = self.value
                told["own"] = await self.ref.get()
                await asyncio.sleep(3600)
            finally:
                told["finally"] = (self.key, self.value, self._connection, self.log is not None)

        @action
        async def take(self, value: int) -> None:
            assert self._connection == "open"
            self.value = value + 1

        @action(readonly=True)
        async def get(self) -> int:
            return self.value

    await platform.agents.start(Curious, "a")
    assert await until(lambda: told.get("own")) == 42
    assert told["then"] == 42
    refused = told["refused"]
    assert isinstance(refused, list) and len(refused) == 5
    assert all("poll, which runs outside of turns: yield an item" in message for message in refused)
    await platform.agents.stop(platform.agent(Curious, "a"))
    assert told["finally"] == ("a", 42, "open", True)


async def test_without_a_platform_it_is_an_ordinary_generator() -> None:
    assert [item async for item in Feed().poll(1)] == [Item(2, position=2), Item(3, position=3)]
    feed = Feed()
    await feed.take(5)
    assert feed.taken == [5]


# -- life --------------------------------------------------------------------------------------------------------


async def test_calls_are_served_while_a_generator_waits(platform: Platform) -> None:
    stream = platform.agent(Stream, "a")
    await has_taken(stream, 1, 2, 3)
    assert await stream.take(9) == 9
    add_rows(10)
    await has_taken(stream, 1, 2, 3, 9, 10)


@pytest.mark.parametrize("how", ["stop", "pause", "delete", "leave", "vanish", "close"])
async def test_a_generator_ends_and_tidies_up_when_its_agent_does(url: str, how: str) -> None:
    async with Platform(url) as platform:
        kind = Feed if how in ("leave", "vanish") else Stream
        agent = platform.agent(kind, "a")
        await has_taken(agent, 1, 2, 3)
        tidied = source.tidied
        if how in ("stop", "pause", "delete"):
            await getattr(platform.agents, how)(agent)
        elif how != "close":
            await getattr(agent, how)()
        if how != "close":
            await until(lambda: not source.running)
            asked = len(source.asked)
            await settle()
            assert len(source.asked) == asked
    assert not source.running
    assert kind is Feed or source.tidied == tidied + 1


async def test_a_stopped_or_deleted_agent_begins_again_with_its_next_call(platform: Platform) -> None:
    stream = platform.agent(Stream, "a")
    await has_taken(stream, 1, 2, 3)
    await platform.agents.stop(stream)
    add_rows(4)
    await has_taken(stream, 1, 2, 3, 4)
    await platform.agents.delete(stream)
    await has_taken(stream, 1, 2, 3, 4)  # from the beginning: its position went with it
    assert source.most_running == 1


async def test_a_deleted_agent_isnt_brought_back_by_a_restart(file_url: str) -> None:
    async with Platform(file_url) as platform:
        feed = platform.agent(Feed, "a")
        await has_taken(feed, 1, 2, 3)
        await platform.agents.delete(feed)
    source.asked.clear()
    async with Platform(file_url, agents=[Feed]) as platform:
        await platform.agents.start(Feed, "b")
        await until(lambda: source.asked)
        assert {key for key, _position in source.asked} == {"b"}


async def test_a_paused_agent_senses_nothing_until_it_is_resumed_also_after_a_restart(file_url: str) -> None:
    async with Platform(file_url) as platform:
        stream = platform.agent(Stream, "a")
        await has_taken(stream, 1, 2, 3)
        await platform.agents.pause(stream)
        assert not source.running
    add_rows(4)
    async with Platform(file_url, agents=[Stream]) as platform:
        await until_async(lambda: _is_paused(platform))
        assert not source.running
        await platform.agents.resume(platform.agent(Stream, "a"))
        await has_taken(platform.agent(Stream, "a"), 1, 2, 3, 4)


async def _is_paused(platform: Platform) -> bool:
    states = [agent.state for agent in await platform.agents.list(type=Stream)]
    return states == ["paused"] and "a" in platform._node.hosts["Stream"].live


async def test_an_agent_with_a_sensor_isnt_passivated(url: str) -> None:
    class Brief(Stream):
        lifecycle = Lifecycle(idle_timeout=0.001)

    async with Platform(url, config={"agents.max_live": 1}) as platform:
        await has_taken(platform.agent(Brief, "a"), 1, 2, 3)
        await asyncio.sleep(0.01)
        platform._node._sweep_handle.cancel()
        platform._node._sweep()
        await platform.agents.start(Brief, "b")
        assert {"a", "b"} <= set(platform._node.hosts["Brief"].live)
        await until(lambda: set(source.running) == {"a", "b"})


async def test_two_activations_never_sense_at_once_and_the_old_one_gets_its_time(platform: Platform) -> None:
    entered = asyncio.Event()
    go_on = asyncio.Event()
    order: list[str] = []

    class Tidy(Agent):
        @sensor(every=60, event="x")
        async def poll(self) -> AsyncIterator[int]:
            order.append("begins")
            entered.set()
            try:
                yield 1
                await asyncio.sleep(3600)
            finally:
                await go_on.wait()
                order.append("ends")

    agent = await platform.agents.start(Tidy, "a")
    await entered.wait()
    await platform.agents.restart(agent)
    await settle()
    assert order == ["begins"]
    go_on.set()
    await until(lambda: order == ["begins", "ends", "begins"])


async def test_a_generator_that_swallows_its_cancellation_and_ends_is_at_its_end(platform: Platform) -> None:
    runs: list[int] = []

    class Swallowing(Agent):
        @sensor(every=0.001, event="x")
        async def poll(self) -> AsyncIterator[int]:
            runs.append(1)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
            if len(runs) > 1:
                yield 1

    agent = await platform.agents.start(Swallowing, "a")
    await until(lambda: runs)
    await platform.agents.stop(agent)
    await settle()
    assert platform._node.sensors._tasks == {} and runs == [1]
    await platform.agents.start(Swallowing, "a")
    await until(lambda: runs == [1, 1])
    await platform.agents.stop(agent)
    assert platform._node.sensors._tasks == {} and runs == [1, 1]
    assert [event async for event in platform.events.read_all("x")] == []


@pytest.mark.timeout(30)
async def test_a_generator_that_ignores_its_cancellation_is_given_up_and_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    source.stubborn = True
    async with Platform(config={"platform.shutdown_timeout": 0}) as platform:
        await has_taken(platform.agent(Stream, "a"), 1, 2, 3)
    assert "a sensor ignored its cancellation and was given up" in caplog.text
    assert {*asyncio.all_tasks()} == {asyncio.current_task()}  # what `asyncio.run` would wait for
    source.yielding.set()
    await until(lambda: not source.running)
    tidied = source.tidied
    await asyncio.sleep(2 * SOON_S)
    assert source.tidied == tidied  # nothing of it goes on


async def test_a_crash_of_the_agent_begins_its_sensor_again_and_nothing_is_had_twice(platform: Platform) -> None:
    crashes = [SystemExit("row 2")]
    source.failing = lambda row: crashes.pop() if row == 2 and crashes else None
    await has_taken(platform.agent(Feed, "a"), 1, 2, 3)
    assert source.most_running == 1


async def test_an_item_that_waits_when_its_activation_ends_isnt_run_on_the_next(platform: Platform) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    class Busy(Feed):
        @action
        async def hold(self) -> None:
            entered.set()
            await go_on.wait()
            raise SystemExit

    busy = platform.agent(Busy, "a")
    await has_taken(busy, 1, 2, 3)
    holding = asyncio.ensure_future(busy.hold())
    await entered.wait()
    source.rows.append(4)
    activation = platform._node.hosts["Busy"].live["a"]
    await until(lambda: activation.queue and len(activation.queue))
    go_on.set()
    with pytest.raises(Exception, match="crashed"):
        await holding
    await has_taken(busy, 1, 2, 3, 4)


# -- when --------------------------------------------------------------------------------------------------------


class Nightly(Agent):
    """Runs by the calendar."""

    runs: int = 0

    @sensor(cron="0 2 * * *", action="ran")
    async def night(self) -> AsyncIterator[int]:
        source.asked.append((self.key, None))
        if (error := source.failing(0)) is not None:
            raise error
        yield 1

    @action
    async def ran(self, number: int) -> None:
        self.runs += number

    @action(readonly=True)
    async def get(self) -> int:
        return self.runs


async def test_the_calendar_counts_what_went_by_while_nothing_ran_as_one_run(timed_world: Crashable, clock: FakeClock) -> None:
    platform = await timed_world.start([Nightly])
    agent = platform.agent(Nightly, "a")
    await agent.get()
    await until(lambda: timed_world.store.commits_of("Nightly/a"))
    await settle()
    assert source.asked == []
    await timed_world.crash()
    clock.pass_by(3 * 86_400)
    platform = await timed_world.start([Nightly])

    async def ran_once() -> bool:
        return await platform.agent(Nightly, "a").get() == 1

    await until_async(ran_once)
    clock.pass_by(86_400)
    await until(lambda: len(source.asked) == 2)


async def test_a_run_of_the_calendar_that_failed_is_had_again_after_a_restart(timed_world: Crashable, clock: FakeClock) -> None:
    source.failing = lambda _row: OSError("the archive is closed")
    platform = await timed_world.start([Nightly])
    await platform.agent(Nightly, "a").get()
    await until(lambda: timed_world.store.commits_of("Nightly/a"))
    clock.pass_by(86_400)
    await until(lambda: source.asked)
    await timed_world.crash()
    source.failing = lambda _row: None
    platform = await timed_world.start([Nightly])

    async def ran_once() -> bool:
        return await platform.agent(Nightly, "a").get() == 1

    await until_async(ran_once)


async def test_a_turn_of_an_item_is_traced_and_a_request_brings_its_trace() -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="the extra `otel` isn't installed")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    class Hook(Agent):
        @sensor(http="/hook", key="a", event="hook.called")
        async def hook(self, request: HttpRequest) -> AsyncIterator[str]:
            yield request.path

    provider, spans = sdk.TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    async with Platform(tracer_provider=provider, agents=[Hook]) as platform:
        await has_taken(platform.agent(Feed, "a"), 1, 2, 3)
        traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        request = HttpRequest(method="POST", path="/hook", headers={"traceparent": traceparent})
        answer = await platform._node.sensors.receivers.receive(request)
        assert answer is not None and answer.status == 204
    finished = spans.get_finished_spans()
    assert [span.name for span in finished].count("Feed.take") == 3
    (hooked,) = [span for span in finished if span.name == "Hook.hook"]
    assert f"{hooked.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
