"""What durable state may hold, and that it comes back as it was."""

from __future__ import annotations

import enum
import threading
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from pydantic import BaseModel

from jidosystem import Agent, InvalidArguments, Platform, action, field
from jidosystem.core.errors import InvalidResult, ReadOnlyTurn


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Leg:
    origin: str
    minutes: int = 0
    via: list[str] = dataclass_field(default_factory=list)


class Point(msgspec.Struct):
    x: float
    y: float


class Person(BaseModel):
    name: str
    born: date | None = None


class Everything(Agent):
    text: str = ""
    number: int = 0
    share: float = 0.0
    yes: bool = False
    blob: bytes = b""
    nothing: int | None = None
    colour: Colour = Colour.RED
    money: Decimal = Decimal(0)
    when: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    day: date = date(1970, 1, 1)
    took: timedelta = timedelta(0)
    ident: UUID = UUID(int=0)
    numbers: list[int] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    pair: tuple[int, str] = (0, "")
    by_name: dict[str, list[int]] = field(default_factory=dict)
    leg: Leg | None = None
    point: Point | None = None
    person: Person | None = None
    legs: list[Leg] = field(default_factory=list)

    @action
    async def fill(self) -> None:
        self.text = "Zürich ✈"
        self.number = -(2**63)
        self.share = 0.1
        self.yes = True
        self.blob = b"\x00\xff"
        self.nothing = 7
        self.colour = Colour.BLUE
        self.money = Decimal("12.30")
        self.when = datetime(2026, 11, 23, 12, 0, 0, 5, tzinfo=UTC)
        self.day = date(2026, 11, 23)
        self.took = timedelta(days=1, microseconds=3)
        self.ident = UUID("12345678123456781234567812345678")
        self.numbers = [1, 2, 3]
        self.tags = {"a", "b", "c", "d", "e", "f", "g", "h"}
        self.pair = (5, "five")
        self.by_name = {"z": [1], "a": []}
        self.leg = Leg("JFK", 3, ["BOS"])
        self.point = Point(1.5, -2.0)
        self.person = Person(name="Ada", born=date(1815, 12, 10))
        self.legs = [Leg("EWR"), Leg("LGA", 4)]

    @action(readonly=True)
    async def told(self) -> str:
        return repr({**vars(self), "tags": sorted(self.tags), "_jido": None})

    @action(readonly=True)
    async def kinds(self) -> list[str]:
        return [type(value).__name__ for value in (self.leg, self.point, self.person, self.legs[0], self.colour, self.tags, self.pair, self.when)]

    @action
    async def nothing_new(self) -> None:
        self.tags = set(self.tags)


async def test_every_kind_of_value_comes_back_as_it_was(platform: Platform) -> None:
    ref = platform.agent(Everything, "a")
    await ref.fill()
    before = await ref.told()
    await platform.agents.stop(ref)
    assert await ref.told() == before
    assert await ref.kinds() == ["Leg", "Point", "Person", "Leg", "Colour", "set", "tuple", "datetime"]
    assert Decimal("12.30") == (await platform.agents.describe(ref)).fields["money"]  # type: ignore[index]


async def test_state_survives_its_platform(file_url: str) -> None:
    async with Platform(file_url) as first:
        await first.agent(Everything, "a").fill()
        before = await first.agent(Everything, "a").told()
    async with Platform(file_url) as second:
        assert await second.agent(Everything, "a").told() == before


async def test_a_turn_that_changes_nothing_commits_nothing_also_after_loading_sets_and_models(platform: Platform) -> None:
    ref = platform.agent(Everything, "a")
    await ref.fill()
    await platform.agents.stop(ref)
    revision = (await platform.agents.describe(ref)).revision
    await ref.told()
    await ref.nothing_new()
    assert (await platform.agents.describe(ref)).revision == revision


class Narrow(Agent, name="grown"):
    first: int = 0

    @action
    async def set(self, value: int) -> None:
        self.first = value


class Wide(Agent, name="grown"):
    first: int = 0
    second: list[int] = field(default_factory=list)

    @action
    async def get(self) -> tuple[int, list[int]]:
        return self.first, self.second


async def test_a_field_that_the_class_gained_takes_its_default_and_isnt_written_before_something_changes(file_url: str) -> None:
    async with Platform(file_url) as platform:
        ref = platform.agent(Narrow, "a")
        await ref.set(3)
        revision = (await platform.agents.describe(ref)).revision
    async with Platform(file_url) as platform:
        wide = platform.agent(Wide, "a")
        assert await wide.get() == (3, [])
        assert (await platform.agents.describe(wide)).revision == revision


class Bag(Agent):
    items: list[int] = field(default_factory=list)
    others: list[int] = field(default_factory=list)
    count: int = 0
    ident: UUID = field(default_factory=uuid4)
    _seen: int = 0

    @action
    async def put(self, item: int) -> list[int]:
        self._seen += 1
        self.items.append(item)
        return self.items

    @action
    async def put_and_fail(self, item: int) -> None:
        self._seen += 1
        self.items.append(item)
        self.count = 99
        raise ValueError("no")

    @action
    async def share(self) -> None:
        self.items = [1]
        self.others = self.items

    @action
    async def take(self, items: list[int]) -> None:
        self.items = items

    @action(readonly=True)
    async def get(self) -> tuple[list[int], list[int]]:
        return self.items, self.others

    @action(readonly=True)
    async def seen(self) -> int:
        return self._seen

    @action
    async def set_count(self, value: Any) -> None:
        self.count = value

    @action
    async def remove_items(self) -> None:
        del self.items

    @action
    async def loop_in_state(self) -> None:
        loop: list[Any] = []
        loop.append(loop)
        self.items = loop

    @action
    async def who(self) -> UUID:
        self.count += 1
        return self.ident

    @action
    async def fail(self) -> None:
        raise ValueError("no")


async def test_a_result_is_a_copy(platform: Platform) -> None:
    ref = platform.agent(Bag, "a")
    mine = await ref.put(1)
    mine.append(99)
    assert (await ref.get())[0] == [1]


async def test_an_argument_is_a_copy(platform: Platform) -> None:
    ref = platform.agent(Bag, "a")
    mine = [1]
    await ref.take(mine)
    mine.append(99)
    assert (await ref.get())[0] == [1]


async def test_no_object_is_reachable_from_two_fields(platform: Platform) -> None:
    ref = platform.agent(Bag, "a")
    await ref.share()
    await ref.put(2)
    assert await ref.get() == ([1, 2], [1])


async def test_transient_fields_start_at_their_default_and_survive_a_roll_back(platform: Platform) -> None:
    ref = platform.agent(Bag, "a")
    await ref.put(1)
    with pytest.raises(ValueError, match="no"):
        await ref.put_and_fail(2)
    assert await ref.seen() == 2
    assert await ref.get() == ([1], [])
    await platform.agents.stop(ref)
    assert await ref.seen() == 0


@pytest.mark.parametrize("value", ["text", 1.5, None, [1], object(), 2**70, b"x"])
async def test_a_value_of_the_wrong_type_is_refused_with_its_turn(platform: Platform, value: object) -> None:
    class Loose(Bag, name="loose"):
        @action(copy=False)
        async def set_count(self, value: Any) -> None:
            self.count = value

    ref = platform.agent(Loose, "a")
    await ref.put(1)
    with pytest.raises(InvalidResult, match=r"loose/a\.set_count left state"):
        await ref.set_count(value)
    fields = (await platform.agents.describe(ref)).fields
    assert fields is not None
    assert (fields["count"], fields["items"]) == (0, [1])
    assert await ref.put(2) == [1, 2]


async def test_a_field_that_was_deleted_is_refused_with_its_turn(platform: Platform) -> None:
    ref = platform.agent(Bag, "a")
    with pytest.raises(InvalidResult, match="left state"):
        await ref.remove_items()
    assert await ref.put(1) == [1]


async def test_a_value_that_contains_itself_is_refused_with_its_turn(platform: Platform) -> None:
    ref = platform.agent(Bag, "a")
    with pytest.raises(InvalidResult, match="left state"):
        await ref.loop_in_state()
    assert await ref.put(1) == [1]


class Anyhow(BaseModel):
    thing: Any


class Held(Agent):
    """Holds what it is told, wherever it is told."""

    points: list[Any] = field(default_factory=list)
    by_name: dict[str, Any] = field(default_factory=dict)
    leg: Leg | None = None
    any_leg: Any = None
    person: Any = None

    @action(copy=False)
    async def hold(self, where: str, what: Any) -> None:
        match where:
            case "points":
                self.points = [Point(0, 0), Point(1, 1), [], Point(what, 3)]
            case "by_name":
                self.by_name = {"one": 1, "two": {"deep": (0, what)}}
            case "leg":
                self.leg = Leg("FRA", via=["a", what])
            case "any_leg":
                self.any_leg = what
            case _:
                self.person = [Anyhow(thing=what)]

    @action(readonly=True, copy=False)
    async def spoil(self, what: Any) -> None:
        self.points.append(what)

    @action
    async def ask(self, what: Any) -> list[Any]:
        return [0, {"lock": threading.Lock()}]


@pytest.mark.parametrize(
    ("where", "path"),
    [("points", "Held.points[3].x"), ("by_name", "Held.by_name.two.deep[1]"), ("leg", "Held.leg.via[1]"), ("any_leg", "Held.any_leg"),
     ("person", "Held.person[0].thing")],
)  # fmt: skip
@pytest.mark.parametrize("checking", [True, False])
async def test_what_cant_be_carried_is_told_with_its_path_at_the_turn_that_made_it(where: str, path: str, checking: bool) -> None:
    async with Platform(checking=checking) as platform:
        ref = platform.agent(Held, "a")
        with pytest.raises(InvalidResult) as told:
            await ref.hold(where, threading.Lock())
        assert f"Held/a.hold left state that can't be carried: {path}: _thread.lock can't be carried" in str(told.value)
        assert told.value.fields["path"] == path
        assert (await platform.agents.describe(ref)).fields == {"points": [], "by_name": {}, "leg": None, "any_leg": None, "person": None}


async def test_checking_mode_names_where_a_read_only_turn_left_what_cant_be_carried() -> None:
    async with Platform(checking=True) as platform:
        with pytest.raises(ReadOnlyTurn, match=r"Held/a\.spoil is read-only and changed points\[0\] in place"):
            await platform.agent(Held, "a").spoil(threading.Lock())


async def test_an_argument_and_a_result_that_cant_be_carried_are_told_with_their_path(platform: Platform) -> None:
    ref = platform.agent(Held, "a")
    with pytest.raises(InvalidArguments, match=r"argument 'what' can't be carried at \$\.what\[1\]\.lock: _thread\.lock") as told:
        await ref.ask([0, {"lock": threading.Lock()}])
    assert told.value.path == "$.what[1].lock"
    with pytest.raises(InvalidResult, match=r"^Held\.ask returned .*_thread\.lock can't be carried"):
        await ref.ask(1)


async def test_a_random_default_is_each_agents_own_and_stays(platform: Platform) -> None:
    one, two = platform.agent(Bag, "one"), platform.agent(Bag, "two")
    with pytest.raises(ValueError, match="no"):
        await one.fail()
    with pytest.raises(ValueError, match="no"):
        await two.fail()
    first = await one.who()
    assert first != await two.who()
    await platform.agents.stop(one)
    assert await one.who() == first


async def test_fields_can_be_given_by_keyword_in_a_test() -> None:
    assert Bag(count=3).count == 3
    with pytest.raises(InvalidArguments, match="has no field 'colour'"):
        Bag(colour=1)


async def test_large_state_is_stored_whole(platform: Platform) -> None:
    ref = platform.agent(Bag, "big")
    await ref.take(list(range(200_000)))
    await platform.agents.stop(ref)
    assert len((await ref.get())[0]) == 200_000
