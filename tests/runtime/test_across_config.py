"""The configuration on several nodes: what one changes all have, within a second."""

from __future__ import annotations

from typing import Any

import pytest

from jidosystem import Agent
from tests.runtime.cluster import cluster

pytestmark = pytest.mark.jido
PATH = "agents.default_timeout"


class Nothing(Agent):
    pass


async def test_an_update_on_any_node_is_on_every_node_within_a_second_and_told_there_once() -> None:
    async with cluster("a", "b", "c", agents=[Nothing]) as there:
        told: list[tuple[str, str, Any, Any]] = []
        for name, node in there.now.items():
            node.config.on_change("agents.*", lambda path, old, new, name=name: told.append((name, path, old, new)))
        b = there.now["b"]
        await there.at(b, b.config.update(PATH, 12.0))
        took_s = await there.until(lambda: all(node.config.get(PATH) == 12.0 for node in there.now.values()), 5)
        assert took_s <= 1
        await there.pass_time(5)
        assert sorted(told) == [(name, PATH, 30.0, 12.0) for name in "abc"]
        assert [version.version for version in there.now["c"].config.history()] == [1]


async def test_updates_of_two_nodes_at_once_are_both_kept_on_all() -> None:
    async with cluster("a", "b", "c", agents=[Nothing]) as there:
        a, b = there.now["a"], there.now["b"]
        both = [there.at(a, a.config.update(PATH, 12.0)), there.at(b, b.config.update("agents.idle_timeout", 50.0))]
        for one in both:
            await one
        await there.pass_time(1)
        for node in there.now.values():
            assert (node.config.get(PATH), node.config.get("agents.idle_timeout")) == (12.0, 50.0)


async def test_an_update_is_there_within_a_second_of_the_store_s_return() -> None:
    async with cluster("a", "b", agents=[Nothing]) as there:
        a, b = there.now["a"], there.now["b"]
        there.cut_off("b", 600)
        await there.at(a, a.config.update(PATH, 12.0))
        await there.pass_time(2.0)
        assert b.config.get(PATH) == 30.0
        there.heal()
        assert await there.until(lambda: b.config.get(PATH) == 12.0, 5) <= 1


async def test_a_roll_back_reaches_all_nodes_and_a_callback_that_never_ends_holds_nothing_up() -> None:
    async with cluster("a", "b", agents=[Nothing]) as there:
        a, b = there.now["a"], there.now["b"]

        async def hang(*_change: object) -> None:
            await there.loop.create_future()

        b.config.on_change("**", hang)
        await there.at(a, a.config.update(PATH, 12.0))
        await there.pass_time(1)
        await there.at(a, a.config.rollback(0))
        await there.pass_time(1)
        assert b.config.get(PATH) == 30.0
        assert len(b.config.history()) == 2
