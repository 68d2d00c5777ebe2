"""The tree of errors: sorted by whose fault it is, with fields, and the same after a journey between processes."""

from __future__ import annotations

import copy
import pickle

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
