"""What people see of values: one line wherever they print them, a small table in a notebook, whatever strangers wrote into them."""

from __future__ import annotations

import asyncio
import html.parser
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jidosystem import Agent, AgentInfo, DeadLetter, Event, Platform, action, field
from jidosystem.core.shown import MAX_CHARS, short, table

HOSTILE = "<script>alert('x')</script>\x1b[31m\n&\u202e"


class Counter(Agent):
    """Counts."""

    value: int = 0
    notes: list[str] = field(default_factory=list)

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    @action
    async def note(self, text: str) -> str:
        self.notes.append(text)
        return repr(self)

    @action
    async def fail(self) -> None:
        raise ValueError(HOSTILE)


class Tags(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert all(name == "style" for name, _value in attrs)


def is_table(text: str) -> bool:
    return Tags(text).seen <= {"table", "caption", "tr", "th", "td"} and text.replace("\n", "").isprintable()


async def test_references_agents_and_infos() -> None:
    async with Platform(name="n-1") as platform:
        ref: Any = platform.agent(Counter, "home")
        assert repr(ref) == "<Counter/home>"
        assert await ref.add(2) == 2
        assert await ref.note("x") == "Counter/home(value=2, notes=['x'])"
        assert "add" in ref._repr_html_()
        assert is_table(ref._repr_html_())
        info = await platform.agents.describe(ref)
        assert repr(info) == "<AgentInfo Counter/home live, version 1, revision 2, 2 turns, node n-1>"
        assert "value" in info._repr_html_()
        assert is_table(info._repr_html_())
        assert repr(platform.agents) == "<agents of node n-1>"
        assert repr(platform.events) == "<events of node n-1>"
        assert repr(Counter(value=3)) == "Counter(value=3, notes=[])"


async def test_a_key_that_nothing_is_stored_of_is_answered_with_those_like_it() -> None:
    async with Platform() as platform:
        for key in ("home", "work", *(f"n{i}" for i in range(50))):
            await platform.agent(Counter, key).add()
        info = await platform.agents.describe(platform.agent(Counter, "hmoe"))
        assert (info.revision, info.near) == (0, ("home",))
        assert repr(info).endswith("like home>")
        assert (await platform.agents.describe(platform.agent(Counter, "home"))).near == ()
        assert (await platform.agents.describe(platform.agent(Counter, "zzzzzz"))).near == ()


async def test_events_subscriptions_and_the_configuration() -> None:
    async with Platform(config={"agents.max_live": 7}) as platform:
        subscription = await platform.events.subscribe("orders.**", print)
        assert repr(subscription) == "<Subscription orders.**, live, 0 dropped, 0 failed>"
        await subscription.close()
        durable = await platform.events.subscribe("orders.**", print, durable="book")
        assert repr(durable) == "<Subscription orders.**, durable/book>"
        await durable.close()
        assert repr(durable).endswith(", closed>")
        event = await platform.events.publish("orders.placed", {"n": 1})
        assert repr(event) == f"<Event orders.placed at {event.position} from platform, stream default: {{'n': 1}}>"
        assert (
            repr(platform.config) == "<Config version 0, sections platform, agents, infrastructure, events; not at their default: agents.max_live=7>"
        )


def test_the_secrets_of_an_application_are_not_shown() -> None:
    import pydantic

    from jidosystem.core.config import Config

    class Shop(pydantic.BaseModel):
        token: str = ""

    assert "hush" not in repr(Config({"shop.token": "hush"}, models={"shop": Shop}))


def test_hostile_texts_are_shown_as_what_they_are() -> None:
    letter = DeadLetter(HOSTILE, "cast", HOSTILE, HOSTILE, HOSTILE * 10_000, 3, 0.0, HOSTILE, 1, {HOSTILE: HOSTILE})
    event = Event(HOSTILE, HOSTILE, HOSTILE, HOSTILE, 0.0, {HOSTILE: [HOSTILE] * 100_000}, HOSTILE, {HOSTILE: HOSTILE})
    info = AgentInfo(HOSTILE, HOSTILE, "failed", HOSTILE, 1, 1, 1, cause=HOSTILE, fields={HOSTILE: HOSTILE}, near=(HOSTILE,))
    for value in (letter, event, info, Counter(notes=[HOSTILE] * 1_000)):
        assert repr(value).isprintable()
        assert len(repr(value)) < 3_000
        assert is_table(value._repr_html_())
        assert len(value._repr_html_()) < 10_000
        assert "<script>" not in value._repr_html_()


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@given(
    st.recursive(st.text() | st.binary() | st.integers() | st.floats() | st.none(), lambda part: st.lists(part) | st.dictionaries(st.text(), part))
)
def test_any_value_is_shown_on_one_line(value: Any) -> None:
    assert short(value).isprintable()
    assert len(short(value)) <= MAX_CHARS * 12
    assert is_table(table(str(value), [(str(value), value)]))


def test_a_value_that_cannot_be_shown_is_named() -> None:
    assert short(Rude()).startswith("<Rude instance at")


MODULE = """
from jidosystem import Agent, action


class Counter(Agent):
    value: int = 0

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value
"""
TYPED = """
from shop import Counter
from jidosystem import Platform
platform = await Platform().__aenter__()
counter = platform.agent(Counter, "home")
counter
await counter.add(2)
await platform.agents.describe(counter)
await counter.ad()
await platform.__aexit__(None, None, None)
"""


@pytest.mark.timeout(60)
async def test_top_level_await_in_the_asyncio_console(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(MODULE)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "asyncio", cwd=tmp_path,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate(TYPED.encode())
    told = out.decode() + err.decode()
    assert "<Counter/home>" in told, told
    assert ">>> 2\n" in told, told
    assert "<AgentInfo Counter/home live" in told
    assert "did you mean 'add'?" in told
    assert "not-an-action on node" in told or "not-an-action: see docs/errors/not-an-action.md" in told
