"""A mistake in an agent class is told by the class statement itself: the class, the member and what to write instead."""

from __future__ import annotations

import operator
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

import pytest

from jidosystem import (
    Agent,
    CircuitBreaker,
    DefinitionError,
    Event,
    Lifecycle,
    Mailbox,
    NotYetAvailable,
    Platform,
    Resilience,
    Retry,
    Supervision,
    action,
    field,
    migrate_state,
    on_event,
    on_load,
    on_start,
    on_state_change,
)
from jidosystem.core.errors import InvalidPattern


class Unknown:
    """A type that no codec carries."""


# -- fields --------------------------------------------------------------------------------------------------------


def test_a_field_needs_a_default() -> None:
    with pytest.raises(DefinitionError, match=r"Bare\.count: a durable field needs a default"):

        class Bare(Agent):
            count: int


def test_a_mutable_default_would_be_shared() -> None:
    with pytest.raises(DefinitionError, match=r"Shared\.items: a mutable default .*field\(default_factory=list\)"):

        class Shared(Agent):
            items: list[int] = []  # noqa: RUF012


def test_a_field_of_a_type_that_cant_be_carried_is_named() -> None:
    with pytest.raises(DefinitionError, match=r"Odd\.thing"):

        class Odd(Agent):
            thing: Unknown | None = None


def test_a_lock_cant_be_durable_but_may_be_transient() -> None:
    with pytest.raises(DefinitionError, match="Locked"):

        class Locked(Agent):
            guard: threading.Lock | None = None  # type: ignore[valid-type]

    class Fine(Agent):
        _guard: object = None

    assert Fine()._guard is None


@pytest.mark.parametrize("name", ["key", "ref", "log", "stop", "emit", "cast", "children", "reminders", "effects", "delete"])
def test_a_field_named_like_a_member_of_agent_is_refused_and_both_are_named(name: str) -> None:
    with pytest.raises(DefinitionError, match=rf"Clash\.{name}.*Agent\.{name}"):
        type("Clash", (Agent,), {"__annotations__": {name: int}, name: 0, "__module__": __name__})


def test_an_action_named_like_a_member_of_agent_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"Takes\.stop.*Agent\.stop"):

        class Takes(Agent):
            @action
            async def stop(self) -> None:  # type: ignore[override]
                pass


def test_a_default_that_doesnt_fit_its_hint_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"Wrong\.count"):

        class Wrong(Agent):
            count: int = "none"  # type: ignore[assignment]


def test_init_isnt_overridden() -> None:
    with pytest.raises(DefinitionError, match="__init__"):

        class Own(Agent):
            def __init__(self) -> None:
                pass


def test_a_hint_that_cant_be_resolved_is_named() -> None:
    with pytest.raises(DefinitionError, match="Nowhere"):

        class Lost(Agent):
            thing: Nowhere = None  # type: ignore[name-defined] # noqa: F821


def test_class_variables_are_no_state() -> None:
    class Constant(Agent):
        LIMIT: ClassVar[int] = 3
        count: int = 0

    assert repr(Constant()) == "Constant(count=0)"


def test_fields_and_actions_are_inherited() -> None:
    class Parent(Agent):
        first: int = 1

        @action
        async def both(self) -> int:
            return self.first

    class Child(Parent):
        second: int = 2

    assert repr(Child()) == "Child(first=1, second=2)"


def test_an_inherited_default_may_be_changed() -> None:
    class Plain(Agent):
        rate: int = 1

    class Faster(Plain):
        rate: int = 9

    assert (Plain().rate, Faster().rate) == (1, 9)


def test_a_field_factory_gives_each_agent_its_own_value() -> None:
    class Listed(Agent):
        items: list[int] = field(default_factory=list)

    one, two = Listed(), Listed()
    one.items.append(1)
    assert two.items == []


# -- actions -------------------------------------------------------------------------------------------------------


def test_a_parameter_needs_a_hint() -> None:
    with pytest.raises(DefinitionError, match=r"Hintless\.go: parameter 'amount' needs a type hint"):

        class Hintless(Agent):
            @action
            async def go(self, amount) -> None:  # type: ignore[no-untyped-def]
                pass


def test_a_result_needs_a_hint() -> None:
    with pytest.raises(DefinitionError, match=r"Hintless\.go: the result needs a type hint"):

        class Hintless(Agent):
            @action
            async def go(self):  # type: ignore[no-untyped-def]
                pass


@pytest.mark.parametrize(("hint", "where"), [("parameter", "parameter 'thing'"), ("result", "the result")])
def test_what_an_action_takes_and_returns_must_be_carried(hint: str, where: str) -> None:
    async def takes(self: Any, thing: Unknown) -> None:
        pass

    async def returns(self: Any) -> Unknown:
        return Unknown()

    with pytest.raises(DefinitionError, match=rf"Carries\.go: {where}"):
        type("Carries", (Agent,), {"go": action(takes if hint == "parameter" else returns), "__module__": __name__})


def test_copy_false_takes_anything() -> None:
    class Direct(Agent):
        @action(copy=False)
        async def go(self, thing: Unknown) -> Unknown:
            return thing

    assert Direct()


def test_an_action_takes_no_star_arguments() -> None:
    with pytest.raises(DefinitionError, match="named parameters only"):

        class Star(Agent):
            @action
            async def go(self, *amounts: int) -> None:
                pass


def test_an_action_cant_yield() -> None:
    with pytest.raises(DefinitionError, match="can't yield"):

        class Yields(Agent):
            @action
            async def go(self) -> AsyncIterator[int]:
                yield 1


def test_only_methods_are_actions() -> None:
    with pytest.raises(DefinitionError, match="decorates methods"):
        action(3)  # type: ignore[call-overload]


# -- names, versions, migrations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a/b", "", "9lives", "with space", "x" * 129, "new\nline"])
def test_an_impossible_type_name_is_refused(name: str) -> None:
    with pytest.raises(DefinitionError, match="name"):

        class Named(Agent, name=name):
            pass


def test_names_of_the_platform_are_its_own() -> None:
    with pytest.raises(DefinitionError, match=r"jido\."):

        class Named(Agent, name="jido.mine"):
            pass


async def test_two_classes_of_one_name_are_an_error_that_names_both() -> None:
    class First(Agent, name="twin"):
        pass

    class Second(Agent, name="twin"):
        pass

    async with Platform() as platform:
        platform.agent(First, "a")
        with pytest.raises(DefinitionError, match=r"twin.*First.*Second"):
            platform.agent(Second, "a")


@pytest.mark.parametrize("version", [0, -1, True, "2", 1.5])
def test_a_version_is_a_whole_number_from_1(version: Any) -> None:
    with pytest.raises(DefinitionError, match="version"):

        class Versioned(Agent, version=version):
            pass


def test_an_agent_is_resident_or_not() -> None:
    with pytest.raises(DefinitionError, match=r"Staying: resident=1: True or False"):

        class Staying(Agent, resident=1):  # type: ignore[arg-type]
            pass


def test_an_unknown_class_keyword_is_named() -> None:
    with pytest.raises(DefinitionError, match="colour"):

        class Coloured(Agent, colour="red"):  # type: ignore[call-arg]
            pass


@pytest.mark.parametrize("from_version", [0, 2, 3, "1", True])
def test_a_migration_must_lead_somewhere(from_version: Any) -> None:
    with pytest.raises(DefinitionError, match="migrate_state"):

        class Moved(Agent, version=2):
            @staticmethod
            @migrate_state(from_version=from_version)
            def move(state: dict[str, Any]) -> dict[str, Any]:
                return state


def test_one_migration_a_version() -> None:
    with pytest.raises(DefinitionError, match="a second @migrate_state"):

        class Moved(Agent, version=2):
            @staticmethod
            @migrate_state(from_version=1)
            def move(state: dict[str, Any]) -> dict[str, Any]:
                return state

            @staticmethod
            @migrate_state(from_version=1)
            def move_again(state: dict[str, Any]) -> dict[str, Any]:
                return state


def test_a_migration_is_a_static_method() -> None:
    with pytest.raises(DefinitionError, match="staticmethod"):

        class Moved(Agent, version=2):
            @migrate_state(from_version=1)
            def move(self, state: dict[str, Any]) -> dict[str, Any]:
                return state


# -- hooks ---------------------------------------------------------------------------------------------------------


def test_on_load_is_a_plain_def() -> None:
    with pytest.raises(DefinitionError, match="plain def"):

        class Loads(Agent):
            @on_load
            async def rebuild(self) -> None:
                pass


def test_an_agent_has_one_hook_of_a_kind() -> None:
    with pytest.raises(DefinitionError, match="a second @on_start"):

        class Starts(Agent):
            @on_start
            async def one(self) -> None:
                pass

            @on_start
            async def two(self) -> None:
                pass


def test_a_hook_that_takes_the_wrong_arguments_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"Changes\.changed"):

        class Changes(Agent):
            @on_state_change
            async def changed(self) -> None:
                pass

    with pytest.raises(DefinitionError, match=r"Starts\.begin"):

        class Starts(Agent):
            @on_start
            async def begin(self, how: str) -> None:
                pass


@pytest.mark.parametrize(
    "options",
    [
        {"key": ""},
        {"key": 3},
        {"key": lambda: "all"},
        {"key": lambda _event, _more: "all"},
        {"batch": 0},
        {"max_attempts": 0},
        {"start": -1},
        {"start": "now"},
    ],
)
def test_a_subscription_is_checked_when_it_is_written(options: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match="@on_event"):
        on_event("orders.*", **{"key": "data.x", **options})


def test_the_key_of_a_subscription_starts_at_an_attribute_of_events() -> None:
    with pytest.raises(DefinitionError, match=r"dta\.region"):

        class Listens(Agent):
            @on_event("orders.*", key="dta.region")
            async def heard(self, event: Event) -> None:
                pass


def test_the_key_of_a_subscription_isnt_a_coroutine_function() -> None:
    async def everybody(_event: Event) -> str:
        return "all"

    with pytest.raises(DefinitionError, match="no coroutine function"):
        on_event("orders.*", key=everybody)  # type: ignore[arg-type]


def test_functions_of_which_nothing_is_known_may_name_the_key() -> None:
    on_event("orders.*", key=operator.attrgetter("subject"))


def test_a_handler_of_batches_takes_a_list() -> None:
    with pytest.raises(DefinitionError, match=r"Single\.heard: with batch=10 it is given a list\[Event\]"):

        class Single(Agent):
            @on_event("orders.*", key="subject", batch=10)
            async def heard(self, event: Event) -> None:
                pass


def test_a_handler_without_batches_takes_one_event() -> None:
    with pytest.raises(DefinitionError, match=r"Several\.heard: it is given one Event at a time.*batch=100"):

        class Several(Agent):
            @on_event("orders.*", key="subject")
            async def heard(self, events: list[Event]) -> None:
                pass


def test_an_impossible_pattern_is_refused() -> None:
    with pytest.raises(InvalidPattern):
        on_event("orders..x", key="data.x")


# -- blocks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: Lifecycle(startup_timeout=0),
        lambda: Lifecycle(startup_timeout=-1),
        lambda: Lifecycle(turn_timeout=-0.1),
        lambda: Lifecycle(turn_timeout=float("nan")),
        lambda: Lifecycle(idle_timeout=True),
        lambda: Lifecycle(shutdown_grace_period="10"),  # type: ignore[arg-type]
        lambda: Mailbox(max_size=0),
        lambda: Mailbox(max_size=1.5),  # type: ignore[arg-type]
        lambda: Mailbox(overflow="drop"),  # type: ignore[arg-type]
        lambda: Supervision(strategy="all"),  # type: ignore[arg-type]
        lambda: Supervision(max_restarts=-1),
        lambda: Supervision(crash_on=(3,)),  # type: ignore[arg-type]
        lambda: Resilience(retry=3),  # type: ignore[arg-type]
        lambda: Resilience(circuit_breaker=Retry.none()),  # type: ignore[arg-type]
        lambda: CircuitBreaker(threshold=0),
    ],
)
def test_a_block_checks_its_options(make: Callable[[], Any]) -> None:
    with pytest.raises(DefinitionError):
        make()


def test_a_block_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"Mixed\.mailbox must be a Mailbox"):

        class Mixed(Agent):
            mailbox = Lifecycle()


# -- what later releases bring -------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", ["capabilities", "resources", "scaling", "observability"])
def test_a_block_of_a_later_release_is_refused_and_named(block: str) -> None:
    with pytest.raises(NotYetAvailable, match=block):
        type("Early", (Agent,), {block: object(), "__module__": __name__})


def test_requires_comes_later() -> None:
    with pytest.raises(NotYetAvailable, match="requires"):
        action(requires="orders:refund")


def test_isolation_comes_later() -> None:
    with pytest.raises(NotYetAvailable, match="isolation"):

        class Apart(Agent, isolation="process"):  # type: ignore[call-arg]
            pass


@pytest.mark.parametrize("option", ["resources", "placement", "constraints", "isolation"])
async def test_options_of_start_that_come_later_are_refused(option: str) -> None:
    class Started(Agent):
        pass

    async with Platform() as platform:
        with pytest.raises(NotYetAvailable, match=option):
            await platform.agents.start(Started, "a", **{option: {"region": "us"}})  # type: ignore[arg-type]


async def test_scale_comes_later() -> None:
    class Scaled(Agent):
        pass

    async with Platform() as platform:
        with pytest.raises(NotYetAvailable, match="scale"):
            await platform.agents.scale(Scaled, 3)


@pytest.mark.parametrize("url", ["postgres://localhost/x", "postgresql://localhost/x"])
def test_stores_of_a_later_release_are_refused(url: str) -> None:
    with pytest.raises(NotYetAvailable, match=url.partition(":")[0]):
        Platform(url)
