"""`@on_event`: whose event it is, in which order, how often, from where, and what becomes of one that keeps failing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from jidosystem import Agent, Event, Platform, action, on_event
from jidosystem.core.errors import StoreUnavailable
from jidosystem.core.records import Record
from jidosystem.runtime.subscriptions import MAX_IN_FLIGHT
from tests.runtime.harness import Crashable, PlatformOn, Store, settle, until, until_async


class Way:
    """What the subscribers are told from outside; set afresh for each test."""

    broken: set[str]
    attempts: list[str]
    gate: asyncio.Event


@pytest.fixture(autouse=True)
async def way() -> AsyncIterator[type[Way]]:
    Way.broken, Way.attempts, Way.gate = set(), [], asyncio.Event()
    Way.gate.set()
    yield Way
    Way.gate.set()


def regions(event: Event) -> str | Iterable[str] | None:
    found: str | list[str] | None = event.data["to"]
    return found


class Region(Agent):
    seen: tuple[int, ...] = ()

    @on_event("orders.*.placed", key="data.region", max_attempts=2)
    async def placed(self, event: Event) -> None:
        Way.attempts.append(f"{self.key}{event.data['n']}")
        await Way.gate.wait()
        self.seen = (*self.seen, event.data["n"])
        if self.key in Way.broken:
            raise ValueError("no such shelf")
        self.emit("region.noted", event.data["n"])

    @action(readonly=True)
    async def get(self) -> tuple[int, ...]:
        return self.seen


class Mailing(Agent):
    seen: tuple[int, ...] = ()

    @on_event("mail.sent", key=regions)
    async def sent(self, event: Event) -> None:
        self.seen = (*self.seen, event.data["n"])

    @action(readonly=True)
    async def get(self) -> tuple[int, ...]:
        return self.seen


class Batched(Agent):
    sizes: tuple[int, ...] = ()
    total: int = 0

    @on_event("count", key="data.key", batch=10)
    async def count(self, events: list[Event]) -> None:
        self.sizes = (*self.sizes, len(events))
        self.total += len(events)

    @action(readonly=True)
    async def get(self) -> tuple[int, tuple[int, ...]]:
        return self.total, self.sizes


async def place(platform: Platform, region: str, *numbers: int) -> None:
    for n in numbers:
        await platform.events.publish("orders.web.placed", {"region": region, "n": n})


async def has_seen(ref: Any, *numbers: int) -> None:
    async def seen() -> bool:
        return await ref.get() == numbers

    await until_async(seen, f"{ref!r} sees {numbers}")


async def test_an_event_is_a_turn_of_the_agent_that_the_path_names(world: Crashable) -> None:
    platform = await world.start([Region])
    await place(platform, "north", 1, 2)
    await place(platform, "south", 3)
    await platform.events.publish("orders.web.cancelled", {"region": "north", "n": 9})
    await has_seen(platform.agent(Region, "north"), 1, 2)
    await has_seen(platform.agent(Region, "south"), 3)
    noted = [event async for event in platform.events.read_all("region.noted")]
    placed = [event async for event in platform.events.read_all("orders.*.placed")]
    assert sorted(event.data for event in noted) == [1, 2, 3]
    assert {event.causation_id for event in noted} == {event.id for event in placed}


async def test_a_function_names_one_several_or_nobody(world: Crashable) -> None:
    platform = await world.start([Mailing])
    for n, to in enumerate(["a", ["a", "b"], None, [], "b"]):
        await platform.events.publish("mail.sent", {"to": to, "n": n})
    await has_seen(platform.agent(Mailing, "a"), 0, 1)
    await has_seen(platform.agent(Mailing, "b"), 1, 4)
    assert await platform.dead_letters.list() == []


async def test_an_impossible_key_is_a_dead_letter_and_the_rest_goes_on(world: Crashable) -> None:
    platform = await world.start([Mailing])
    for n, to in enumerate([7, "", "a"]):
        await platform.events.publish("mail.sent", {"to": to, "n": n})
    await has_seen(platform.agent(Mailing, "a"), 2)
    assert len(await platform.dead_letters.list("event")) == 2


async def test_a_batch_is_one_turn(world: Crashable) -> None:
    platform = await world.start()
    for n in range(25):
        await platform.events.publish("count", {"key": "a", "n": n})
    ref = platform.agent(Batched, "a")

    async def counted() -> Any:
        total, sizes = await ref.get()
        return sizes if total == 25 else None

    sizes = await until_async(counted)
    assert max(sizes) == 10
    assert (await platform.agents.describe(ref)).turns == len(sizes)


async def test_what_is_given_up_is_logged_with_the_line_that_raised(caplog: pytest.LogCaptureFixture) -> None:
    Way.broken = {"north"}
    async with Platform(agents=[Region]) as platform:
        await place(platform, "north", 1)
        await until_async(lambda: platform.dead_letters.list("event"))
    (line,) = (record.getMessage() for record in caplog.records if "moved to the dead letters" in record.getMessage())
    assert 'raise ValueError(\\"no such shelf\\")' in line
    assert "in placed" in line
    assert "core/subscriptions.py" not in line


async def test_a_key_that_keeps_failing_delays_only_itself_and_can_be_redriven(world: Crashable) -> None:
    Way.broken = {"north"}
    platform = await world.start([Region])
    await place(platform, "north", 1)
    await place(platform, "south", 2, 3)
    await has_seen(platform.agent(Region, "south"), 2, 3)
    (letter,) = await until_async(lambda: platform.dead_letters.list("event"))
    assert (letter.name, letter.agent, letter.attempts) == ("Region.placed", "Region/north", 2)
    assert "no such shelf" in letter.error
    Way.broken = set()
    await place(platform, "north", 4)
    await has_seen(platform.agent(Region, "north"), 4)
    await platform.dead_letters.redrive(letter.id)
    assert await platform.agent(Region, "north").get() == (4, 1)  # an older position, and taken all the same
    assert await platform.dead_letters.list() == []


async def test_each_event_is_handled_once_whatever_dies_in_between(world: Crashable) -> None:
    platform = await world.start([Region])
    await place(platform, "north", *range(5))
    await has_seen(platform.agent(Region, "north"), *range(5))
    await world.crash()  # before the subscription's own position was stored
    platform = await world.start([Region])
    await place(platform, "north", 5)
    await has_seen(platform.agent(Region, "north"), *range(6))


async def test_an_event_under_way_at_a_crash_comes_again(world: Crashable) -> None:
    platform = await world.start([Region])
    Way.gate.clear()
    await place(platform, "north", 1)
    await until(lambda: Way.attempts == ["north1"])
    await world.crash()
    Way.gate.set()
    platform = await world.start([Region])
    await has_seen(platform.agent(Region, "north"), 1)


async def test_what_happened_while_the_type_wasnt_hosted_is_caught_up(world: Crashable) -> None:
    platform = await world.start()
    await place(platform, "north", 1)
    await settle()
    assert Way.attempts == []
    await has_seen(platform.agent(Region, "north"), 1)  # the first reference hosts it, from the beginning
    await world.close()
    platform = await world.start()
    await place(platform, "north", 2)
    await has_seen(platform.agent(Region, "north"), 1, 2)


async def test_new_begins_with_what_is_published_after_the_registration(world: Crashable) -> None:
    class Later(Agent):
        seen: tuple[int, ...] = ()

        @on_event("orders.*.placed", key="data.region", start="new")
        async def placed(self, event: Event) -> None:
            self.seen = (*self.seen, event.data["n"])

        @action(readonly=True)
        async def get(self) -> tuple[int, ...]:
            return self.seen

    platform = await world.start()
    await place(platform, "north", 1)
    await world.close()
    platform = await world.start([Later])
    await world.crash()  # the start was stored before the platform was ready
    platform = await world.start()
    await place(platform, "north", 2)
    await has_seen(platform.agent(Later, "north"), 2)


async def test_a_paused_agent_holds_up_only_its_own_events(world: Crashable) -> None:
    platform = await world.start([Region])
    north = platform.agent(Region, "north")
    await platform.agents.pause(north)
    await place(platform, "north", 1)
    await place(platform, "south", 2)
    await has_seen(platform.agent(Region, "south"), 2)
    assert "north1" not in Way.attempts
    await platform.agents.resume(north)
    await has_seen(north, 1)


async def test_more_paused_agents_than_may_be_in_flight_hold_up_nobody_else(world: Crashable) -> None:
    platform = await world.start([Region])
    paused = [platform.agent(Region, f"p{n}") for n in range(MAX_IN_FLIGHT + 50)]
    await asyncio.gather(*map(platform.agents.pause, paused))
    await asyncio.gather(*(place(platform, f"p{n}", n) for n in range(len(paused))))
    await place(platform, "south", 7)
    await has_seen(platform.agent(Region, "south"), 7)
    assert not any(attempt.startswith("p") for attempt in Way.attempts)
    await world.crash()
    platform = await world.start([Region])
    await place(platform, "south", 8)
    await has_seen(platform.agent(Region, "south"), 7, 8)
    for n in (0, 1, MAX_IN_FLIGHT + 49):
        ref = platform.agent(Region, f"p{n}")
        await platform.agents.resume(ref)
        await has_seen(ref, n)


async def test_a_paused_agent_that_is_deleted_gets_its_events_in_its_next_life(world: Crashable) -> None:
    platform = await world.start([Region])
    north = platform.agent(Region, "north")
    await platform.agents.pause(north)
    await place(platform, "north", 1)
    await place(platform, "south", 2)
    await has_seen(platform.agent(Region, "south"), 2)
    await platform.agents.delete(north)
    await has_seen(north, 1)


class Busy(Region, name="busy"):
    @action(copy=False)
    async def hold(self, gate: Any) -> None:
        await gate.wait()


async def test_an_event_that_waits_for_an_agent_that_is_being_paused_goes_back(world: Crashable) -> None:
    platform = await world.start([Busy])
    north = platform.agent(Busy, "north")
    await has_seen(north)
    gates = asyncio.Event(), asyncio.Event()
    holding = [asyncio.ensure_future(north.hold(gate)) for gate in gates]
    await settle()
    await place(platform, "north", 1)
    assert platform._subscriptions is not None
    in_flight = platform._subscriptions._running["busy.placed"]._in_flight
    await until(lambda: in_flight, "the event being in the mailbox")
    pausing = asyncio.ensure_future(platform.agents.pause(north))
    await settle()
    gates[0].set()
    await pausing  # the second call runs beside its commit; the event would have come after that
    await until(lambda: not in_flight, "the event being back")
    assert Way.attempts == []
    gates[1].set()
    await asyncio.gather(*holding)
    await platform.agents.resume(north)
    await has_seen(north, 1)


class Stumbling(Store):
    """Can't read the positions of subscriptions for a while."""

    refusals = 3

    def read(self, agent: str) -> asyncio.Future[Record | None]:
        if agent.startswith("jido.subscription/") and self.refusals:
            self.refusals -= 1
            refused: asyncio.Future[Record | None] = asyncio.get_running_loop().create_future()
            refused.set_exception(StoreUnavailable("the disk is gone for a moment"))
            return refused
        return super().read(agent)


async def test_a_type_that_is_registered_while_the_store_stumbles_gets_its_events() -> None:
    async with PlatformOn(Stumbling()) as platform:
        region = platform.agent(Region, "north")
        await platform.events.publish("orders.a.placed", {"region": "north", "n": 1})

        async def has_it() -> bool:
            return await region.get() == (1,)

        await until_async(has_it)


class Domino(Agent):
    @on_event("pushed", key="data.key")
    async def pushed(self, event: Event) -> None:
        self.after(0, self.fall, args={"how": "timer"})
        self.remind("fall", after=0, action=self.fall, args={"how": "reminder"})
        self.cast(self.agent(Domino, "cast").fall, "cast")
        await self.agent(Domino, "called").fall("call")

    @action
    async def fall(self, how: str) -> None:
        self.emit("fallen", how)


async def test_whatever_an_event_sets_off_names_it_as_its_cause(url: str) -> None:
    async with Platform(url, agents=[Domino]) as platform:
        pushed = await platform.events.publish("pushed", {"key": "first"})

        async def all_fallen() -> list[Event] | None:
            found = [event async for event in platform.events.read_all("fallen")]
            return found if len(found) == 4 else None

        fallen: list[Event] = await until_async(all_fallen)
    assert {event.data: event.causation_id for event in fallen} == dict.fromkeys(("timer", "reminder", "cast", "call"), pushed.id)
    assert len({event.correlation_id for event in fallen}) == 1


async def test_a_subscription_whose_type_is_not_hosted_is_named_once_and_goes_on_when_it_is(
    world: Crashable, caplog: pytest.LogCaptureFixture
) -> None:
    platform = await world.start([Region, Mailing])
    await platform.events.subscribe("orders.**", lambda _event: None, durable="Some.thing")
    await place(platform, "north", 1)
    await has_seen(platform.agent(Region, "north"), 1)
    await world.crash()
    platform = await world.start([Mailing])
    await place(platform, "north", 2)
    await until(lambda: "Region" in caplog.text, "its name in the log")
    told = [record.getMessage() for record in caplog.records if "isn't hosted here" in record.getMessage()]
    assert len(told) == 1
    assert '"subscription": "Region.placed"' in told[0]
    await has_seen(platform.agent(Region, "north"), 1, 2)
    assert "Mailing" not in caplog.text and "Some" not in caplog.text
