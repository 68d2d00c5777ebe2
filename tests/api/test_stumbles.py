"""Mistakes that everybody makes once are told with what to write instead."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import jidosystem
from jidosystem import Agent, Event, Platform, action, errors, on_event
from tests.runtime.harness import until_async


class Counter(Agent):
    """Counts."""

    value: int = 0

    @action
    async def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    @action
    async def set(self, value: int) -> None:
        self.value = str(value)  # type: ignore[assignment]

    @action
    async def tell(self) -> None:
        self.emit("counter.told", {"who": [1, object()]})

    @action
    async def cast_itself(self) -> None:
        self.cast(self.add, 1)

    @action
    async def later(self) -> None:
        self.remind("once", after=3600, action=self.nothing)

    @action
    async def nothing(self) -> None: ...

    @action
    async def have_child(self) -> None:
        await self.child(Counter, "x").add(1)


def test_one_class_where_a_list_is_needed() -> None:
    with pytest.raises(errors.InvalidArguments, match=r"agents=\[Counter\]"):
        Platform(agents=Counter)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["agents", "config", "forwarders", "clock", "name"])
def test_an_option_that_is_something_else_is_refused_by_its_name(option: str) -> None:
    with pytest.raises(errors.InvalidArguments, match=rf"Platform\({option}=3\)"):
        Platform(**{option: 3})  # type: ignore[arg-type]


async def test_a_table_where_a_path_is_needed() -> None:
    with pytest.raises(errors.InvalidConfig, match=r"'agents': it is a section; write agents\.default_timeout"):
        await Platform(config={"agents": {"default_timeout": 3}}).__aenter__()


async def test_a_word_that_a_config_key_does_not_know_is_answered_with_those_it_knows() -> None:
    with pytest.raises(errors.InvalidConfig, match=r"infrastructure\.durability = 'fast' \(keyword argument\): one of 'full', 'relaxed'") as raised:
        await Platform(config={"infrastructure.durability": "fast"}).__aenter__()
    assert raised.value.allowed == "one of 'full', 'relaxed'"


async def test_a_folder_where_a_file_is_needed(tmp_path: Path) -> None:
    with pytest.raises(errors.StoreUnavailable, match=r"is a folder; the store is a file, for example .*/app\.db"):
        await Platform(f"sqlite:///{tmp_path}").__aenter__()
    assert list(tmp_path.parent.glob(f"{tmp_path.name}-lock")) == []


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(errors.StoreUnavailable, match=r"there is no folder .*nowhere; make it first"):
        await Platform(f"sqlite:///{tmp_path}/nowhere/app.db").__aenter__()


async def test_a_dataclass_decorator_on_an_agent() -> None:
    @dataclasses.dataclass
    class Decorated(Agent):
        value: int = 0

    async with Platform() as platform:
        with pytest.raises(errors.DefinitionError, match="@dataclass"):
            platform.agent(Decorated, "a")


async def test_a_type_name_with_a_slip() -> None:
    async with Platform(agents=[Counter]) as platform:
        with pytest.raises(errors.NoHost, match=r"no agent type 'Countr' is hosted here: name it .*; did you mean 'Counter'\?"):
            await platform.agents.list(type="Countr")


async def test_a_value_of_another_type_in_a_field() -> None:
    async with Platform() as platform:
        with pytest.raises(errors.InvalidResult, match="give the field a value of its type") as raised:
            await platform.agent(Counter, "a").set(1)
        assert "migrate" not in str(raised.value)


async def test_data_of_an_event_that_can_not_be_carried() -> None:
    async with Platform() as platform:
        with pytest.raises(errors.InvalidArguments) as raised:
            await platform.agent(Counter, "a").tell()
        assert raised.value.path == "$.data.who[1]"


async def test_a_cast_of_a_method_of_its_own() -> None:
    async with Platform() as platform:
        with pytest.raises(errors.InvalidArguments, match=r"self\.cast\(self\.ref\.add\)"):
            await platform.agent(Counter, "a").cast_itself()


async def test_a_forwarder_that_is_none() -> None:
    async with Platform() as platform:
        with pytest.raises(errors.InvalidArguments, match="it needs a name, a pattern and"):
            await platform.events.forward("https://example.org")  # type: ignore[arg-type]


def test_a_handler_that_takes_no_event() -> None:
    with pytest.raises(errors.DefinitionError, match="calls it with 1 argument beside self"):

        class Deaf(Agent):
            @on_event("a.b", key="subject")
            async def heard(self) -> Event: ...


async def test_an_agent_that_is_not_live_is_described_with_its_reminders_and_children() -> None:
    async with Platform() as platform:
        counter = platform.agent(Counter, "a")
        await counter.later()
        await counter.have_child()
        await platform.agents.stop(counter)
        info = await platform.agents.describe(counter)
        assert (info.state, info.reminders, info.children) == ("passive", ("once",), ("Counter/Counter/a/x",))


async def test_stored_state_of_another_shape_names_the_agent_and_the_field_that_the_message_is_about(tmp_path: Path) -> None:
    class Shape(Agent):
        color: str = "red"
        size: int = 0

        @action
        async def paint(self, color: str) -> None:
            self.color = color

    url = f"sqlite:///{tmp_path}/shapes.db"
    async with Platform(url) as platform:
        await platform.agent(Shape, "s").paint("blue")

    class Changed(Agent, name="Shape"):
        color: int = 0

        @action
        async def see(self) -> int:
            return self.color

    async with Platform(url) as platform:
        with pytest.raises(errors.StateMismatch, match=r"the state of Shape/s doesn't fit.*\$\.color.*field 'color'") as raised:
            await platform.agent(Changed, "s").see()
        assert (raised.value.field, raised.value.agent) == ("color", "Shape/s")  # type: ignore[attr-defined]


async def test_a_dead_letter_of_an_agents_event_names_the_agent() -> None:
    class Picky(Agent):
        seen: int = 0

        @on_event("a.b", key="data.key", max_attempts=1)
        async def heard(self, event: Event) -> None:
            raise ValueError("not this one")

    async with Platform(agents=[Picky]) as platform:
        await platform.events.publish("a.b", {"key": "k"})
        letters = await until_async(platform.dead_letters.list)
    assert [letter.agent for letter in letters] == ["Picky/k"]


def test_an_agent_as_a_parameter_a_result_or_a_field() -> None:
    told = r"an agent can't be carried, its key can: use str, and self\.agent\(.*Counter, key\)"
    with pytest.raises(errors.DefinitionError, match=told):

        class Takes(Agent):
            @action
            async def take(self, other: Counter) -> None: ...

    with pytest.raises(errors.DefinitionError, match=told):

        class Gives(Agent):
            @action
            async def give(self) -> Counter: ...

    with pytest.raises(errors.DefinitionError, match=told):

        class Has(Agent):
            other: Counter | None = None

    with pytest.raises(errors.DefinitionError, match="an agent can't be carried"):

        class Itself(Agent):
            parent: Itself | None = None


@pytest.mark.parametrize("store", ["memory://", "sqlite:///{folder}/large.db"])
async def test_a_record_that_is_too_large_names_the_field_that_grew(store: str, tmp_path: Path) -> None:
    class Hoard(Agent):
        name: str = ""
        things: bytes = b""

        @action
        async def keep(self, count: int) -> int:
            self.things = bytes(count)
            return len(self.things)

    async with Platform(store.format(folder=tmp_path)) as platform:
        hoard = platform.agent(Hoard, "h")
        with pytest.raises(errors.TooLarge, match=r"Hoard/h .* its largest field is 'things' with 67,108,8\d\d bytes"):
            await hoard.keep(64 * 1024 * 1024)
        assert (await platform.agents.describe(hoard)).fields == {"name": "", "things": b""}
        assert await hoard.keep(3) == 3


async def _attribute(platform: Platform) -> object:
    return platform.agent(Counter, "a").ad


async def _field_of_a_reference(platform: Platform) -> object:
    return platform.agent(Counter, "a").value


async def _action_by_name(platform: Platform) -> object:
    return await platform.call(platform.agent(Counter, "a").add, args={"amuont": 2})


async def _keyword(platform: Platform) -> object:
    return await platform.agent(Counter, "a").add(amuont=2)  # type: ignore[call-arg]


async def _constructor(_platform: Platform) -> object:
    return Counter(vlue=3)


async def _type(platform: Platform) -> object:
    return await platform.agents.list(type="countr")


async def _state(platform: Platform) -> object:
    return await platform.agents.list(state="faild")


async def _config(platform: Platform) -> object:
    return platform.config.get("agents.default_timeuot")


async def _word_of_the_config(platform: Platform) -> object:
    return await platform.config.update("agents.supervision_strategy", "one_for_al")


async def _durability(_platform: Platform) -> object:
    return await Platform(config={"infrastructure.durability": "relaxd"}).__aenter__()


async def _part(platform: Platform) -> object:
    return platform.event  # type: ignore[attr-defined]


async def _name(_platform: Platform) -> object:
    return jidosystem.Agnet  # type: ignore[attr-defined]


async def _start(platform: Platform) -> object:
    return await platform.events.subscribe("a", print, start="begining")  # type: ignore[call-overload]


async def _source(platform: Platform) -> object:
    return await platform.dead_letters.list("evnt")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        (_attribute, "add"), (_action_by_name, "amount"), (_keyword, "amount"), (_constructor, "value"), (_type, "Counter"),
        (_state, "failed"), (_config, "agents.default_timeout"), (_word_of_the_config, "one_for_all"), (_durability, "relaxed"), (_part, "events"),
        (_name, "Agent"), (_start, "beginning"), (_source, "event"),
    ],
)  # fmt: skip
async def test_the_name_that_was_meant_is_said(slip: Callable[[Platform], Awaitable[object]], meant: str) -> None:
    async with Platform(agents=[Counter]) as platform:
        with pytest.raises((errors.JidoError, AttributeError)) as raised:
            await slip(platform)
        assert f"did you mean '{meant}'?" in str(raised.value)


async def test_a_field_of_a_reference_is_known_as_one() -> None:
    async with Platform() as platform:
        with pytest.raises(errors.NotAnAction, match=r"Counter\.value is a field: through a reference only actions can be reached"):
            await _field_of_a_reference(platform)


async def test_a_stored_field_that_was_renamed_is_told_with_the_new_name(tmp_path: Path) -> None:
    class Old(Agent, name="renamed"):
        amount: int = 0

        @action
        async def set(self) -> None:
            self.amount = 1

    class New(Agent, name="renamed"):
        amounts: int = 0

        @action
        async def get(self) -> int:
            return self.amounts

    async with Platform(f"sqlite:///{tmp_path}/a.db") as platform:
        await platform.agent(Old, "a").set()
    async with Platform(f"sqlite:///{tmp_path}/a.db") as platform:
        with pytest.raises(errors.StateMismatch, match="field 'amount'; did you mean 'amounts'"):
            await platform.agent(New, "a").get()
