"""Views of a cluster, and what happened between two of them."""

from __future__ import annotations

from types import MappingProxyType

from hypothesis import given
from hypothesis import strategies as st

from jidosystem.distribution.members import (
    Member,
    MemberState,
    NodeDown,
    NodeDraining,
    NodeRecovered,
    NodeSuspect,
    NodeUp,
    Occurrence,
    View,
    changes,
)


def view(*members: Member) -> View:
    return View(1, MappingProxyType({member.name: member for member in members}))


A = Member("a", 5)


def test_the_word_for_a_state() -> None:
    assert A.state is MemberState.ALIVE
    assert A._replace(suspect=True).state is MemberState.SUSPECT
    assert A._replace(suspect=True, draining=True).state is MemberState.DRAINING
    assert A._replace(draining=True, void=True).state is MemberState.VOID


def test_an_incarnation_is_void_by_a_tombstone_behind_it_or_by_a_later_one() -> None:
    assert not view(A).is_void("a", 5)
    assert view(A).is_void("a", 4)
    ended = View(1, {"a": A._replace(void=True)}, {"a": 8})
    assert ended.is_void("a", 5)
    assert ended.is_void("a", 7)
    assert not ended.is_void("a", 9), "a later one that isn't known here yet"
    assert not ended.is_void("b", 5)


def test_the_living_are_those_that_arent_void() -> None:
    assert list(view(A, Member("b", 6, void=True), Member("c", 7, suspect=True)).living()) == [A, Member("c", 7, suspect=True)]


def test_what_happened() -> None:
    def told(before: View, after: View) -> list[Occurrence]:
        return changes(before, after, 9.0)

    assert told(View(), view(A)) == [NodeUp("a", 5, 9.0)]
    assert told(view(A), view(A)) == []
    assert told(view(A), view(A._replace(suspect=True))) == [NodeSuspect("a", 5, 9.0)]
    assert told(view(A._replace(suspect=True)), view(A)) == [NodeRecovered("a", 5, 9.0)]
    assert told(view(A), view(A._replace(draining=True))) == [NodeDraining("a", 5, 9.0)]
    assert told(view(A), view(A._replace(void=True))) == [NodeDown("a", 5, 9.0)]
    assert told(view(A._replace(draining=True)), view(A._replace(draining=True, void=True))) == [NodeDown("a", 5, 9.0, planned=True)]
    assert told(view(A), view(A._replace(draining=True, void=True))) == [NodeDown("a", 5, 9.0, planned=True)]
    assert told(view(A), view(A._replace(incarnation=8))) == [NodeDown("a", 5, 9.0), NodeUp("a", 8, 9.0)]
    assert told(view(A._replace(void=True)), view(A._replace(incarnation=8))) == [NodeUp("a", 8, 9.0)]
    assert told(view(A), View()) == [NodeDown("a", 5, 9.0)], "so many died that it isn't remembered"
    assert told(View(), view(A._replace(void=True))) == [], "nobody knew it"


states = st.builds(
    Member, name=st.sampled_from("ab"), incarnation=st.integers(1, 4), draining=st.booleans(), suspect=st.booleans(), void=st.booleans()
)


@given(st.lists(states, max_size=12))
def test_each_incarnation_comes_up_once_and_goes_down_at_most_once(steps: list[Member]) -> None:
    present, ups, downs = View(), [], []
    for step in steps:
        old = present.get(step.name)
        if old is not None and (old.incarnation > step.incarnation or (old.incarnation == step.incarnation and old.void)):
            continue  # neither comes back
        after = View(present.number + 1, {**present.nodes, step.name: step})
        happened = changes(present, after, 0.0)
        ups += [(one.name, one.incarnation) for one in happened if isinstance(one, NodeUp)]
        downs += [(one.name, one.incarnation) for one in happened if isinstance(one, NodeDown)]
        present = after
    assert len(ups) == len(set(ups)) and len(downs) == len(set(downs))
    assert set(downs) <= set(ups)
    assert set(ups) - set(downs) == {(member.name, member.incarnation) for member in present.living()}
