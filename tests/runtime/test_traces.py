"""A failure reads as one traceback, from the caller's line to the action's: our frames in between are left out."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import jidosystem
from jidosystem import Agent, Platform, action, errors, on_start
from jidosystem.backends.memory import MemoryWire
from jidosystem.runtime.door import remote_call, serve

OURS = str(Path(jidosystem.__file__).parent)


@dataclass(frozen=True)
class Frozen(Exception):
    number: int


class Faulty(Agent):
    """Fails in every way."""

    value: int = 0

    @action
    async def at_once(self) -> None:
        raise ValueError("boom")

    @action
    async def later(self) -> None:
        await asyncio.sleep(0)
        raise ValueError("boom")

    @action
    def threaded(self) -> None:
        raise ValueError("boom")

    @action(readonly=True)
    async def reading(self) -> None:
        raise ValueError("boom")

    @action
    async def deep(self, levels: int) -> None:
        if not levels:
            raise ValueError("boom")
        await self.agent(Faulty, f"{self.key}/{levels}").deep(levels - 1)

    @action
    async def chained(self) -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("boom") from error

    @action
    async def misuse(self) -> None:
        self.emit("happened", {"thing": object()})

    @action
    async def refuse(self) -> None:
        raise errors.Rejected("out_of_stock", left=0)

    @action
    async def frozen(self) -> None:
        raise Frozen(3)

    @action
    async def together(self) -> None:
        raise ExceptionGroup("both", [ValueError("a"), KeyError("b")])


async def all_of(values: AsyncIterator[Any]) -> list[Any]:
    return [value async for value in values]


def frames(error: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def ours(error: BaseException) -> list[str]:
    return [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(OURS)]


@pytest.fixture(params=[False, True], ids=["plain", "checking"])
async def platform(request: pytest.FixtureRequest) -> AsyncIterator[Platform]:
    async with Platform(checking=request.param, name="n-1") as platform:
        yield platform


@pytest.mark.parametrize("name", ["at_once", "later", "threaded", "reading"])
@pytest.mark.parametrize("warm", [False, True])
async def test_a_call_that_fails_shows_the_caller_and_the_action(platform: Platform, name: str, warm: bool) -> None:
    ref = platform.agent(Faulty, "a")
    if warm:
        with pytest.raises(ValueError, match="boom"):
            await ref.at_once()

    async def user() -> None:
        await getattr(ref, name)()

    with pytest.raises(ValueError, match="boom") as raised:
        await user()
    assert frames(raised.value)[1:] == ["user", name]
    with pytest.raises(ValueError, match="boom") as raised:
        await platform.call(getattr(ref, name))
    assert frames(raised.value)[1:] == [name]


async def test_an_exception_that_can_not_be_assigned_to_is_itself(platform: Platform) -> None:
    with pytest.raises(Frozen) as raised:
        await platform.agent(Faulty, "a").frozen()
    assert (raised.value.number, frames(raised.value)[1:]) == (3, ["frozen"])


async def test_one_error_for_many_callers_shows_each_its_own_way() -> None:
    class Down(Agent):
        @on_start
        async def begin(self) -> None:
            raise RuntimeError("no")

        @action
        async def get(self) -> None: ...

    async with Platform() as platform:
        ref = platform.agent(Down, "a")

        async def first() -> None:
            await ref.get()

        async def second() -> None:
            await ref.get()

        told = await asyncio.gather(*(user() for user in (first, second) * 20), return_exceptions=True)
        assert all(isinstance(error, errors.JidoError) and ours(error) == [] for error in told)
        assert max(len(frames(error)) for error in told if isinstance(error, BaseException)) <= 41


async def test_a_chain_of_calls_shows_each_action_once(platform: Platform) -> None:
    with pytest.raises(ValueError, match="boom") as raised:
        await platform.agent(Faulty, "a").deep(3)
    assert frames(raised.value)[1:] == ["deep"] * 4


async def test_a_misuse_of_ours_ends_at_the_users_line(platform: Platform) -> None:
    with pytest.raises(errors.InvalidArguments) as raised:
        await platform.agent(Faulty, "a").misuse()
    assert frames(raised.value)[1:] == ["misuse"]
    assert ours(raised.value) == []
    assert raised.value.__cause__ is not None, "what led to it is kept"
    assert raised.value.__cause__.__traceback__ is None
    assert raised.value.node == "n-1"


async def test_a_refusal_of_the_agent_says_the_node_and_keeps_its_facts(platform: Platform) -> None:
    with pytest.raises(errors.Rejected) as raised:
        await platform.agent(Faulty, "a").refuse()
    assert frames(raised.value)[1:] == ["refuse"]
    assert (raised.value.node, raised.value.fields) == ("n-1", {"left": 0})


async def test_refusals_before_any_turn_end_at_the_caller(platform: Platform) -> None:
    ref = platform.agent(Faulty, "a")
    asks: list[Callable[[], object]] = [
        lambda: ref.deep("x"),  # type: ignore[arg-type]
        ref.deep,  # type: ignore[call-arg]
        lambda: ref.deep(level=2),  # type: ignore[call-arg]
        lambda: platform.call(ref.deep, args={"level": 2}),
        lambda: platform.cast(ref.deep, args={"level": 2}),
        lambda: platform.call(ref.at_once, timeout=-1),
    ]
    for ask in asks[0 if platform._checking else 1 :]:
        with pytest.raises(errors.InvalidArguments) as raised:
            await ask()  # type: ignore[misc]
        assert ours(raised.value) == []
        assert raised.value.node == "n-1"


async def test_a_start_that_fails_ends_at_the_users_line(tmp_path: Path) -> None:
    with pytest.raises(errors.StoreUnavailable) as raised:
        async with Platform(f"sqlite:///{tmp_path}/nowhere/app.db", name="n-1"):
            pass
    assert ours(raised.value) == []
    assert raised.value.node == "n-1"


async def test_a_bug_of_ours_keeps_its_frames() -> None:
    from jidosystem.core.traces import leave

    def of_ours() -> None:
        namespace: dict[str, object] = {"__name__": "jidosystem.runtime.made_up"}
        exec("def bug():\n    raise ZeroDivisionError\n", namespace)
        namespace["bug"]()  # type: ignore[operator]

    try:
        of_ours()
    except ZeroDivisionError as error:
        error.__traceback__ = error.__traceback__.tb_next.tb_next  # type: ignore[union-attr]  # ours alone
        leave(error, "n-1")
        seen = frames(error)
    assert seen == ["bug"]


# -- from another node ----------------------------------------------------------------------------------------------


@pytest.fixture
async def far() -> AsyncIterator[Callable[..., Any]]:
    wire = MemoryWire()
    async with Platform(agents=[Faulty], name="there") as there, Platform(agents=[Faulty], name="here") as here:
        assert there._node is not None and here._node is not None
        node = here._node
        served = await serve(there._node, wire, "there")
        spec = node.host_of(Faulty).type.actions

        async def call(name: str, *args: object) -> object:
            return await remote_call(node, wire, "there", spec[name], "a", args)

        yield call
        await served.close()
    await wire.close()


async def test_a_remote_failure_reads_as_one_traceback(far: Callable[..., Any]) -> None:
    with pytest.raises(errors.ActionFailed) as raised:
        await far("later")
    text = "".join(traceback.format_exception(raised.value))
    assert text.count("Traceback (most recent call last)") == 1
    assert OURS not in text
    line = text.splitlines().index(next(line for line in text.splitlines() if "ActionFailed: Faulty/a.later raised ValueError: boom" in line))
    below = text.splitlines()[line + 1 :]
    assert below[0] == "on node there:"
    assert below[1].strip().startswith(f'File "{__file__}", line ')
    assert below[1].endswith(", in later")
    assert below[2].strip() == 'raise ValueError("boom")'
    assert below[-1] == "action-failed on node there: see docs/errors/action-failed.md"
    assert len(below) <= 5
    assert (raised.value.agent, raised.value.type, raised.value.message) == ("Faulty/a", "ValueError", "boom")  # type: ignore[attr-defined]


async def test_what_led_to_a_remote_failure_is_told(far: Callable[..., Any]) -> None:
    with pytest.raises(errors.ActionFailed) as raised:
        await far("chained")
    assert "KeyError: 'first'" in raised.value.remote_traceback
    assert OURS not in raised.value.remote_traceback
    with pytest.raises(errors.ActionFailed) as raised:
        await far("together")
    assert "KeyError: 'b'" in raised.value.remote_traceback


async def test_a_chain_on_the_far_side_shows_its_actions(far: Callable[..., Any]) -> None:
    with pytest.raises(errors.ActionFailed) as raised:
        await far("deep", 2)
    assert raised.value.remote_traceback.count(", in deep\n") == 3
    assert OURS not in raised.value.remote_traceback


async def test_a_remote_refusal_is_itself_and_says_the_far_node(far: Callable[..., Any]) -> None:
    with pytest.raises(errors.Rejected) as raised:
        await far("refuse")
    assert (raised.value.node, raised.value.reason, ours(raised.value)) == ("there", "out_of_stock", [])


async def test_the_parts_of_the_platform_end_at_the_users_line_too() -> None:
    async with Platform(name="n-1", agents=[Faulty]) as platform:
        ref = platform.agent(Faulty, "a")
        await platform.events.publish("a", stream="s")
        asks: list[Callable[[], Any]] = [
            lambda: platform.agents.list(type="Fualty"),
            lambda: platform.agents.describe("a"),  # type: ignore[arg-type]
            lambda: platform.agents.start(Faulty, "\n"),
            lambda: platform.agents.stop(ref.at_once),  # type: ignore[arg-type]
            lambda: platform.events.publish("a", stream="s", expected=0),
            lambda: platform.events.publish("a..b"),
            lambda: platform.events.subscribe("a", print, start="begining"),  # type: ignore[arg-type]
            lambda: platform.dead_letters.list("evnt"),  # type: ignore[arg-type]
            lambda: platform.dead_letters.redrive("none"),
            lambda: platform.config.update("agents.default_timeot", 5),
            lambda: platform.config.rollback(7),
            lambda: all_of(platform.events.read_all("a..b")),
            lambda: all_of(platform.events.follow("a..b")),
            lambda: all_of(platform.agents.watch("a")),  # type: ignore[arg-type]
        ]
        for ask in asks:
            with pytest.raises(errors.JidoError) as raised:
                await ask()
            assert ours(raised.value) == []
            assert raised.value.node == "n-1"
        at_once: list[Callable[[], Any]] = [
            lambda: platform.config.get("agents.default_timeot"),
            lambda: platform.config.section("agent"),
            lambda: platform.config.register("agents", dict),
            lambda: platform.config.on_change("a..b", print),
            lambda: platform.agent(Faulty, "\n"),
            lambda: platform.agent(str, "a"),  # type: ignore[type-var]
            lambda: platform.events.replay("s"),  # type: ignore[call-arg]
        ]
        for ask in at_once:
            with pytest.raises(errors.JidoError) as raised:
                ask()
            assert ours(raised.value) == []
            assert raised.value.node == "n-1"
    with pytest.raises(errors.ShuttingDown) as closed:
        await platform.agent(Faulty, "b").at_once()
    assert (closed.value.node, ours(closed.value)) == ("n-1", [])


async def test_an_iterator_of_events_that_ends_with_its_platform_says_which_and_shows_the_users_line() -> None:
    async with Platform(name="n-1", agents=[Faulty]) as platform:
        ends: list[Callable[[], Any]] = [
            lambda: all_of(platform.events.follow(after=0)),
            lambda: all_of(platform.agents.watch(platform.agent(Faulty, "a"))),
        ]
        waiting = [asyncio.ensure_future(end()) for end in ends]
        await asyncio.sleep(0)
    for one in waiting:
        with pytest.raises(errors.StoreUnavailable) as raised:
            await one
        assert raised.value.node == "n-1"
        assert ours(raised.value) == []
