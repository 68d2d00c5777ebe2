"""Each checker catches its bad histories, says what is wrong, and names the operations that show it and no others."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.testing.checkers.bad import ALL, Bad, history


@pytest.mark.parametrize("bad", ALL, ids=lambda bad: f"{bad.what}: {bad.name}")
def test_a_bad_history_is_caught_and_the_right_operations_are_named(bad: Bad) -> None:
    verdict = bad.check(history(*bad.operations))
    assert not verdict
    named = {(one.what, frozenset(operation.number for operation in one.operations)) for one in verdict.wrong}
    assert (bad.what, frozenset(bad.named)) in named, str(verdict)


def test_the_catalogue_is_large_and_every_history_has_a_name_of_its_own() -> None:
    assert len(ALL) >= 40
    assert max(Counter((bad.what, bad.name) for bad in ALL).values()) == 1
