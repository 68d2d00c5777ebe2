"""A run in which nothing went on, or nothing went wrong, has shown nothing: its verdict is false."""

from __future__ import annotations

from math import inf

import pytest

from jidosystem.testing import FaultSpan, History, Operation
from jidosystem.testing.checkers import Verdict, check_exercised

BUSY = [Operation(process="p", number=n, kind="write", start=n, end=n + 0.5, argument=n, outcome="ok") for n in range(10)]
KILL = FaultSpan(kind="kill", target="n1", start=3.2, end=4.2, effect="a new leader")


@pytest.mark.parametrize(
    ("history", "why"),
    [
        (History(BUSY[:4], [KILL]), "only 4 operations succeeded, 5 had to"),
        (History(BUSY), "there was no fault"),
        (History(BUSY, [FaultSpan(kind="kill", target="n1", start=3.2, end=4.2)]), "it took no effect"),
        (History(BUSY, [FaultSpan(kind="kill", target="n1", start=30, end=40, effect="a new leader")]), "no operation was under way meanwhile"),
        (History(BUSY, [FaultSpan(kind="kill", target="n1", start=3.6, end=3.9, effect="a new leader")]), "no operation was under way meanwhile"),
    ],
)
def test_a_run_that_showed_nothing_is_not_exercised(history: History, why: str) -> None:
    verdict = check_exercised(history, operations=5)
    assert not verdict
    assert not verdict.exercised
    assert why in str(verdict)


def test_one_that_did_is() -> None:
    assert check_exercised(History(BUSY, [KILL]), operations=10)


def test_an_operation_that_was_never_answered_is_not_under_way_for_ever() -> None:
    lost = Operation(process="p", number=1, kind="write", start=1, end=inf)
    verdict = check_exercised(History([lost, *BUSY[2:4]], [FaultSpan(kind="kill", start=30, end=40, effect="a new leader")]))
    assert not verdict.exercised


def test_kinds_of_faults_can_be_counted() -> None:
    history = History(BUSY, [KILL, FaultSpan(kind="kill", target="n2", start=5, end=6)])
    assert check_exercised(history, faults={"kill": 1})
    verdict = check_exercised(history, faults={"kill": 2, "pause": 1})
    assert not verdict.exercised
    assert "1 faults of kind kill took effect, 2 had to; kill of n2" in str(verdict)
    assert "0 faults of kind pause" in str(verdict)


def test_a_verdict_that_is_not_exercised_or_undecided_is_false() -> None:
    assert Verdict("x", 1)
    assert not Verdict("x", 1, exercised=False)
    assert not Verdict("x", 1, undecided=("too many",))
