"""Near names: found when they are like what was written, never at the price of a long search."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jidosystem.core.near import MAX_CHARS, MAX_TOLD, near, near_or_all, nearest, one_of


def test_a_slip_is_answered_with_what_was_meant() -> None:
    assert near("vlue", ["value", "other"]) == "; did you mean 'value'?"
    assert near("COUNTER", ["Counter"]) == "; did you mean 'Counter'?"


def test_what_is_like_nothing_gets_the_list_or_nothing() -> None:
    assert near("zzz", ["value"]) == ""
    assert near_or_all("zzz", ["value", "count"], "it has") == "; it has count, value"
    assert near_or_all("zzz", [], "it has") == "; it has none"
    assert near_or_all("vaule", ["value", "count"], "it has") == "; did you mean 'value'?"


def test_a_long_list_is_cut() -> None:
    told = near_or_all("zzz", [f"n{i:04}" for i in range(MAX_TOLD + 5)], "it has")
    assert told.endswith("n0029 and 5 more")


def test_words_are_told_with_the_one_that_was_meant() -> None:
    assert one_of("blok", ("reject", "block")) == "one of 'reject', 'block'; did you mean 'block'?"
    assert one_of(3, ("reject", "block")) == "one of 'reject', 'block'"


@given(st.text() | st.integers() | st.none(), st.lists(st.text(max_size=20), max_size=20))
def test_whatever_is_asked_the_answer_is_one_of_the_names(name: object, names: list[str]) -> None:
    assert set(nearest(name, names)) <= set(names)


def test_a_name_without_end_is_not_compared() -> None:
    assert nearest("a" * (MAX_CHARS + 1), ["a" * (MAX_CHARS + 1)]) == []
    assert nearest("a" * MAX_CHARS, ["a" * MAX_CHARS]) == ["a" * MAX_CHARS]
