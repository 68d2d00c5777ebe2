"""What the contract names and this release doesn't have yet: asking for it says so, and what it comes with."""

from __future__ import annotations

from typing import Any

import pytest

import jidosystem
from jidosystem import Agent, InvalidConfig, NotYetAvailable, Platform
from jidosystem.api.later import NAMES, ROOMS


@pytest.mark.parametrize("name", NAMES)
def test_an_import_of_a_later_name_says_what_it_comes_with(name: str) -> None:
    with pytest.raises(NotYetAvailable, match=rf"jidosystem\.{name} comes with {NAMES[name]}"):
        exec(f"from jidosystem import {name}")


def test_other_names_are_unknown_as_in_any_module() -> None:
    with pytest.raises(ImportError, match="Wrkflow"):
        exec("from jidosystem import Wrkflow")


@pytest.mark.parametrize("room", ROOMS)
def test_a_later_part_of_the_platform_says_that_it_is_not_here_yet(room: str) -> None:
    with pytest.raises(NotYetAvailable, match=rf"platform\.{room} comes with {ROOMS[room]}"):
        getattr(Platform(), room)


def test_other_attributes_of_a_platform_are_unknown_as_of_any_object() -> None:
    assert not hasattr(Platform(), "nothing")


def test_no_later_name_is_here_already() -> None:
    assert not set(NAMES) & set(jidosystem.__all__)
    assert not set(ROOMS) & set(dir(Platform))


@pytest.mark.parametrize("block", ["capabilities", "resources", "scaling", "observability"])
def test_a_later_block_is_refused_however_it_is_brought(block: str) -> None:
    mixin: Any = type("Mixin", (), {block: {"region": "us"}})
    with pytest.raises(NotYetAvailable, match=rf"Mixed\.{block}"):
        type("Mixed", (mixin, Agent), {"__module__": __name__})
    with pytest.raises(NotYetAvailable, match=rf"Classed\.{block}"):
        type("Classed", (Agent,), {block: dict, "__module__": __name__})


def test_the_memory_of_sqlite_is_not_a_store() -> None:
    with pytest.raises(InvalidConfig, match='use "memory://"'):
        Platform("sqlite:///:memory:")
