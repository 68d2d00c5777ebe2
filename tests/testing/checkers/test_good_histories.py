"""No checker accuses a correct system, whatever its clients did and however much of it they were never told."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jidosystem.testing import History, Operation, checkers
from tests.testing.checkers import good
from tests.testing.checkers.bad import Check

Model = Callable[..., list[Operation]]
PAIRS: dict[str, tuple[Model, Check]] = {
    "register": (good.register, partial(checkers.check_registers, initial=0)),
    "register of five values": (partial(good.register, values=5), partial(checkers.check_registers, initial=0)),
    "set": (good.a_set, checkers.check_sets),
    "counter": (good.counter, checkers.check_counters),
    "counter that only grows": (partial(good.counter, least=1), checkers.check_counters),
    "writers": (good.writers, checkers.check_writers),
    "events": (good.events, checkers.check_events),
    "bank": (good.bank, partial(checkers.check_bank, total=100)),
}


@pytest.mark.parametrize("name", PAIRS)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 60), processes=st.integers(1, 8), unknown=st.sampled_from([0.0, 0.1, 0.4]))
def test_a_correct_system_is_never_accused(name: str, seed: int, count: int, processes: int, unknown: float) -> None:
    model, check = PAIRS[name]
    random = Random(seed)
    operations = model(random, good.slots(random, count, processes), unknown=unknown)
    verdict = check(History(operations))
    assert verdict, str(verdict)
    assert verdict.checked == len(operations)


@pytest.mark.parametrize("name", [name for name in PAIRS if "five" not in name])
def test_nor_is_a_busy_one(name: str) -> None:
    model, check = PAIRS[name]
    random = Random(7)
    assert check(History(model(random, good.slots(random, 2_000, 64))))
