"""What can't be a sensor is refused where it is written, naming what is wrong and what was meant."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jidosystem import Agent, DefinitionError, HttpRequest, Item, NotAnAction, Platform, action, field, sensor


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"action": "take"}, "exactly one of every=, cron=, watch=, http= says when it runs; given: none"),
        ({"every": 1, "cron": "* * * * *", "action": "take"}, "given: every, cron"),
        ({"every": 1}, "exactly one of action= and event="),
        ({"every": 1, "action": "take", "event": "x"}, "exactly one of action= and event="),
        ({"every": 0, "action": "take"}, "every=0"),
        ({"every": float("nan"), "action": "take"}, "every=nan"),
        ({"every": float("inf"), "action": "take"}, "every=inf"),
        ({"every": True, "action": "take"}, "every=True"),
        ({"every": "1", "action": "take"}, "every='1'"),
        ({"cron": "61 * * * *", "action": "take"}, "is no cron expression"),
        ({"cron": "* * * * *", "tz": "Mars/Olympus", "action": "take"}, "no IANA time zone"),
        ({"every": 1, "tz": "Europe/Berlin", "action": "take"}, "a time zone is for cron="),
        ({"watch": "", "action": "take"}, "the path of a folder"),
        ({"watch": Path("x"), "action": "take"}, "the path of a folder"),
        ({"http": "hooks", "key": "a", "action": "take"}, "a path that begins with '/'"),
        ({"http": "/hooks/{name}", "key": "a", "action": "take"}, "at most one segment {key}"),
        ({"http": "/a{key}", "action": "take"}, "at most one segment {key}"),
        ({"http": "/{key}/{key}", "action": "take"}, "at most one segment {key}"),
        ({"http": "/hooks", "action": "take"}, 'say whose agent it is with {key} in the path, or with key="…"'),
        ({"http": "/hooks/{key}", "key": "a", "action": "take"}, "both {key} and key="),
        ({"every": 1, "key": "a", "action": "take"}, "a key is for http="),
        ({"every": 1, "action": 5}, "the name of an action"),
        ({"every": 1, "event": "not a type"}, "can't be an event type"),
    ],
)
def test_options_that_cant_be_are_refused_at_once(options: dict[str, Any], told: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        sensor(**options)
    assert told in str(caught.value)


def test_only_an_async_generator_is_a_sensor() -> None:
    async def coroutine(self: Any) -> None: ...

    def generator(self: Any) -> Any:
        yield 1

    for function in (coroutine, generator, 5):
        with pytest.raises(DefinitionError, match="no async generator: write `async def` and `yield` each item"):
            sensor(every=1, event="x")(function)  # type: ignore[type-var]

    async def twice(self: Any) -> AsyncIterator[int]:
        yield 1

    with pytest.raises(DefinitionError, match="a second @sensor"):
        sensor(every=1, event="x")(sensor(every=2, event="y")(twice))


def test_the_action_must_be_there_and_take_one_item() -> None:
    with pytest.raises(DefinitionError, match=r"Feed.poll: @sensor\(action='tkae'\): Feed has no such action; did you mean 'take'\?"):

        class Feed(Agent):
            @sensor(every=1, action="tkae")
            async def poll(self) -> AsyncIterator[int]:
                yield 1

            @action
            async def take(self, row: int) -> None: ...

    with pytest.raises(DefinitionError, match="no such action; its actions are none"):

        class Deaf(Agent):
            @sensor(every=1, action="poll")
            async def poll(self) -> AsyncIterator[int]:
                yield 1

    with pytest.raises(DefinitionError, match=r"can't be called with one item, `self.take\(item\)`"):

        class Two(Agent):
            @sensor(every=1, action="take")
            async def poll(self) -> AsyncIterator[int]:
                yield 1

            @action
            async def take(self, row: int, other: int) -> None: ...

    with pytest.raises(DefinitionError, match="take is readonly"):

        class Reading(Agent):
            @sensor(every=1, action="take")
            async def poll(self) -> AsyncIterator[int]:
                yield 1

            @action(readonly=True)
            async def take(self, row: int) -> None: ...

    with pytest.raises(DefinitionError, match="take is copy=False"):

        class Sharing(Agent):
            @sensor(every=1, action="take")
            async def poll(self) -> AsyncIterator[int]:
                yield 1

            @action(copy=False)
            async def take(self, row: int) -> None: ...


def test_a_scalar_that_never_fits_the_action_is_found() -> None:
    with pytest.raises(DefinitionError, match=r"Feed.poll yields str, and take\(row: .*int.*\) takes int"):

        class Feed(Agent):
            @sensor(every=1, action="take")
            async def poll(self) -> AsyncIterator[Item[str]]:
                yield Item("a")

            @action
            async def take(self, row: int) -> None: ...


def test_parameters_are_those_that_the_platform_gives() -> None:
    with pytest.raises(DefinitionError, match=r"parameter 'postion': .*; did you mean 'position'\?"):

        class Typo(Agent):
            @sensor(every=1, event="x")
            async def poll(self, postion: int | None = None) -> AsyncIterator[int]:
                yield 1

    with pytest.raises(DefinitionError, match="a sensor with every= is given 'position' by name"):

        class Files(Agent):
            @sensor(every=1, event="x")
            async def poll(self, files: list[Path]) -> AsyncIterator[int]:
                yield 1

    with pytest.raises(DefinitionError, match="parameter 'rest'"):

        class Rest(Agent):
            @sensor(every=1, event="x")
            async def poll(self, **rest: int) -> AsyncIterator[int]:
                yield 1

    with pytest.raises(DefinitionError, match="parameter 'position': type can't be carried"):

        class Position(Agent):
            @sensor(every=1, event="x")
            async def poll(self, position: type[int] | None) -> AsyncIterator[int]:
                yield 1


def test_a_sensor_isnt_named_like_a_member_of_every_agent() -> None:
    with pytest.raises(DefinitionError, match="a sensor can't be named 'emit'"):

        class Feed(Agent):
            @sensor(every=1, event="x")
            async def emit(self) -> AsyncIterator[int]:  # type: ignore[override]
                yield 1


async def test_a_sensor_may_be_inherited_and_replaced() -> None:
    class Feed(Agent):
        taken: list[int] = field(default_factory=list)

        @sensor(every=60, action="take")
        async def poll(self) -> AsyncIterator[int]:
            yield 1

        @action
        async def take(self, row: int) -> None:
            self.taken.append(row)

    class Better(Feed):
        async def poll(self) -> AsyncIterator[int]:
            yield 2

    class Deaf(Feed):
        poll = None  # type: ignore[assignment]

    assert list(Feed.__jido_type__.sensors) == ["poll"]
    assert list(Better.__jido_type__.sensors) == []
    assert list(Deaf.__jido_type__.sensors) == []
    assert Feed.__jido_type__.resident and not Better.__jido_type__.resident


async def test_two_types_cant_take_requests_of_one_path() -> None:
    class One(Agent):
        @sensor(http="/hooks/{key}", event="x")
        async def hook(self, request: HttpRequest) -> AsyncIterator[int]:
            yield 1

    class Two(Agent):
        @sensor(http="/hooks/{key}", event="x")
        async def hook(self, request: HttpRequest) -> AsyncIterator[int]:
            yield 1

    async with Platform(agents=[One]) as platform:
        with pytest.raises(DefinitionError, match=r"Two.hook: http='/hooks/\{key\}' is taken by One.hook"):
            platform.agent(Two, "a")
        assert not One.__jido_type__.resident  # a request finds its agent by itself


async def test_a_sensor_is_no_action_and_items_are_frozen() -> None:
    class Feed(Agent):
        @sensor(every=60, event="x")
        async def poll(self) -> AsyncIterator[int]:
            yield 1

    async with Platform() as platform:
        with pytest.raises(NotAnAction, match="poll"):
            platform.agent(Feed, "a").poll  # noqa: B018
    item = Item(5, position=1)
    with pytest.raises(AttributeError):
        item.data = 6  # type: ignore[misc]
    assert item == Item(5, position=1) and Item(5).position is None
