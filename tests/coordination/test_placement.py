"""Placement: the same everywhere, little moves, everybody gets a fair share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from math import sqrt
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jidosystem.coordination.placement import Placement, candidates, choose, place
from jidosystem.core.errors import NoHost
from jidosystem.distribution.members import Member, View

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
nodes = st.lists(names, min_size=1, max_size=8, unique=True)
agents = st.lists(names, min_size=1, max_size=40, unique=True)


@given(names, nodes, st.randoms())
def test_the_order_of_the_nodes_says_nothing(agent: str, there: list[str], random) -> None:  # type: ignore[no-untyped-def]
    mixed = there[:]
    random.shuffle(mixed)
    assert choose(agent, there) == choose(agent, mixed)
    assert choose(agent, there) in there


@given(agents, nodes, st.data())
def test_when_a_node_leaves_only_its_agents_move(there: list[str], those: list[str], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(those))
    rest = [node for node in those if node != gone]
    for agent in there:
        before = choose(agent, those)
        if before != gone:
            assert choose(agent, rest) == before


@given(agents, nodes, names)
def test_when_a_node_joins_agents_move_to_it_and_nowhere_else(there: list[str], those: list[str], new: str) -> None:
    for agent in there:
        after = choose(agent, [*those, new])
        assert after in (choose(agent, those), new)


@settings(max_examples=15)
@given(st.integers(2, 9), names, names)
def test_every_node_gets_its_share(count: int, node: str, kind: str) -> None:
    many = 3_000
    there = [f"{node}-{n}" for n in range(count)]
    shares = Counter(choose(f"{kind}/{n}", there) for n in range(many))
    mean = many / count
    for name in there:  # six standard deviations of a fair draw
        assert abs(shares[name] - mean) < 6 * sqrt(mean * (1 - 1 / count))


def test_a_node_that_joins_takes_its_share_from_all() -> None:
    there = ["a", "b", "c", "d"]
    moved = Counter(choose(f"Counter/{n}", there) for n in range(5_000) if choose(f"Counter/{n}", [*there, "e"]) == "e")
    for node in there:
        assert abs(moved[node] - 250) < 6 * sqrt(250)


def test_it_is_the_same_in_every_process() -> None:
    code = "from jidosystem.coordination.placement import choose\nprint([choose(f'Counter/{n}', ['a', 'b', 'c']) for n in range(30)])"
    expected = f"{[choose(f'Counter/{n}', ['a', 'b', 'c']) for n in range(30)]}\n"
    for seed in ("0", "1"):
        run = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True)
        assert run.stdout == expected


def test_where_agents_are_stays_the_same_across_releases() -> None:
    assert "".join(choose(f"Counter/{n}", "abcde") for n in range(20)) == "ccebcdacaebdcecacecb"


# -- who may ----------------------------------------------------------------------------------------------------


def view(*members: Member) -> View:
    return View(1, MappingProxyType({member.name: member for member in members}))


A, B, C = (Member(name, 1, types={"Counter": version}) for name, version in (("a", 1), ("b", 2), ("c", 2)))


def test_those_that_live_host_the_type_in_a_version_and_dont_drain() -> None:
    assert candidates(view(A, B, C), "Counter") == ["a", "b", "c"]
    assert candidates(view(A, B, C), "Counter", 2) == ["b", "c"]
    assert candidates(view(A, B, C._replace(draining=True)), "Counter", 2) == ["b"]
    assert candidates(view(A, B._replace(void=True), C), "Counter", 2) == ["c"]
    assert place("Counter/x", view(A, B, C._replace(void=True)), 2) == B


def test_a_suspected_node_is_taken_only_if_there_is_no_other() -> None:
    assert candidates(view(A, B._replace(suspect=True)), "Counter") == ["a"]
    assert candidates(view(A, B._replace(suspect=True)), "Counter", 2) == ["b"]


def test_no_host_says_what_is_needed_and_what_there_is() -> None:
    with pytest.raises(NoHost, match=r"version 3 or later and isn't draining: a has version 1, b has version 2 and is draining") as caught:
        place("Counter/x", view(A, B._replace(draining=True)), 3)
    assert caught.value.fields == {"type": "Counter", "needed": 3}
    with pytest.raises(NoHost, match="no node of the cluster hosts Other: there are a, b"):
        place("Other/x", view(A, B))
    with pytest.raises(NoHost, match="no living node"):
        place("Counter/x", View())
    with pytest.raises(NoHost):
        choose("Counter/x", [])


def test_many_are_placed_as_each_is_in_whatever_view() -> None:
    placement, keys = Placement(), [f"Counter/{number}" for number in range(20)]
    for seen in (view(A, B, C), view(A, B), view(A, B, C._replace(draining=True)), view(A, B, C)):
        for version in (0, 2, 0):
            for key in (*keys, keys[-1], keys[0]):
                assert placement.place(key, seen, version) == place(key, seen, version)
