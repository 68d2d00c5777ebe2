"""The tree of errors: sorted by whose fault it is, with fields, and the same after a journey between processes."""

from __future__ import annotations

import copy
import json
import pickle
import traceback
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jidosystem.core import errors
from jidosystem.core.errors import JidoError


def tree(root: type[JidoError] = JidoError) -> list[type[JidoError]]:
    ours = [kind for kind in root.__subclasses__() if kind.__module__ == errors.__name__]
    return [below for kind in ours for below in (kind, *tree(kind))]


SORTS = (errors.UsageError, errors.RefusedError, errors.ActionError, errors.OutcomeError, errors.StoreError)
KINDS = sorted(set(tree()), key=lambda kind: kind.__name__)


def test_each_is_of_one_sort() -> None:
    assert set(JidoError.__subclasses__()) >= set(SORTS)
    for kind in KINDS:
        assert sum(issubclass(kind, sort) for sort in SORTS) == 1, kind


def test_each_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in [JidoError, *KINDS]]
    assert len(codes) == len(set(codes))


def test_an_unknown_outcome_is_said_by_the_type() -> None:
    unknown = {kind.__name__ for kind in KINDS if not kind.outcome_known}
    assert unknown == {"OutcomeUnknown", "WireTimeout", "CommitUnknown"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("travel", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
def test_an_error_is_the_same_after_a_journey(kind: type[JidoError], travel: object) -> None:
    error = kind("what happened", agent="Counter/a", limit=5)
    arrived = travel(error)  # type: ignore[operator]
    assert type(arrived) is kind
    assert str(arrived) == "what happened"
    assert arrived.fields == {"agent": "Counter/a", "limit": 5}
    assert (arrived.agent, arrived.limit) == ("Counter/a", 5)


def test_a_refusals_word_travels_with_it_also_from_a_subclass() -> None:
    class TooPoor(errors.Rejected):
        def __init__(self, missing: int) -> None:
            super().__init__("payment_failed", missing=missing)

    error = TooPoor(7)
    assert (error.reason, error.missing) == ("payment_failed", 7)  # type: ignore[attr-defined]
    arrived = copy.deepcopy(error)
    assert (arrived.reason, arrived.missing) == ("payment_failed", 7)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.InvalidArguments, TypeError),
        (errors.InvalidKey, ValueError),
        (errors.InvalidConfig, ValueError),
        (errors.InvalidPattern, ValueError),
        (errors.NotAnAction, AttributeError),
        (errors.CallTimeout, TimeoutError),
        (errors.TurnTimeout, TimeoutError),
        (errors.TooLarge, ValueError),
    ],
)
def test_those_who_do_not_know_us_may_catch_what_they_know(kind: type[JidoError], builtin: type[Exception]) -> None:
    with pytest.raises(builtin, match="no"):
        raise kind("no")


def test_an_error_is_told_by_type_and_message() -> None:
    assert errors.describe(ValueError("boom")) == "ValueError: boom"
    assert errors.describe(TimeoutError()) == "TimeoutError"


def test_a_note_is_made_when_somebody_prints_the_error_and_leaves_room_for_others() -> None:
    error = errors.MailboxFull("full", limit=3)
    assert not hasattr(error, "_notes"), "making an error costs no note"
    error.add_note("while doing inventory")
    error.node = "shop-1"
    assert error.__notes__ == ["mailbox-full on node shop-1: see docs/errors/mailbox-full.md", "while doing inventory"]


def test_a_node_travels() -> None:
    error = errors.MailboxFull("full")
    error.node = "shop-1"
    assert pickle.loads(pickle.dumps(error)).node == "shop-1"
    assert errors.MailboxFull("full").node == ""


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


@pytest.mark.parametrize(
    "value",
    [Hostile(), "\ud800", b"\xff", float("nan"), 2**80, {1: {2, 3}}, [[]], object(), datetime.now(UTC), Path("x"), "x" * 10_000_000],
    ids=lambda value: type(value).__name__,
)
def test_details_are_json_whatever_the_facts_are(value: object) -> None:
    error = errors.InvalidConfig("\ud800 is refused", path="a", value=value, allowed="")
    details = error.details()
    told = json.loads(json.dumps(details))
    assert (told["code"], told["type"], told["fields"]["path"]) == ("invalid-config", "InvalidConfig", "a")
    assert (told["node"], told["page"], told["outcome_known"]) == ("", "docs/errors/invalid-config.md", True)
    json.dumps(details).encode()
    assert "\n" not in repr(error)
    assert len(repr(error)) < 1_000


def test_a_value_that_contains_itself_is_told_too() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert "[[...]]" in errors.JidoError("x", value=loop).details()["fields"]["value"]


def test_an_error_shows_its_facts() -> None:
    assert repr(errors.CallTimeout("no answer\n", agent="Counter/a", uncertain=True)) == (
        r"CallTimeout('no answer\n', agent='Counter/a', uncertain=True)"
    )


def test_a_traceback_of_a_rejection_shows_its_fields_below_the_word() -> None:
    error = errors.Rejected("not_free", seat=1, why="x" * 10_000)
    word, fields, page = "".join(traceback.format_exception_only(error)).splitlines()
    assert word.endswith("Rejected: not_free")
    assert fields.startswith("seat=1, why='xx")
    assert len(fields) < 500
    assert page == "rejected: see docs/errors/rejected.md"
    assert (str(error), error.reason, error.details()["message"]) == ("not_free", "not_free", "not_free")
    assert errors.Rejected("not_free").note() == page
