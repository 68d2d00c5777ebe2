"""The garbage collector is set for a busy node while one runs, and as it was before afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from jidosystem.runtime.collector import YOUNG, Collector


@pytest.fixture(autouse=True)
def _threshold() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_a_node_looks_less_often_and_puts_it_back() -> None:
    collector = Collector(lambda: 0)
    collector.relax()
    assert gc.get_threshold() == (YOUNG, 10, 10)
    collector.restore()
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("young", [0, YOUNG + 1])
def test_a_process_that_has_chosen_keeps_its_choice(young: int) -> None:
    gc.set_threshold(young, 10, 10)
    collector = Collector(lambda: 0)
    collector.relax()
    assert gc.get_threshold()[0] == young
    collector.restore()
    assert gc.get_threshold()[0] == young


def test_what_was_changed_in_between_stays() -> None:
    collector = Collector(lambda: 0)
    collector.relax()
    gc.set_threshold(5_000, 5, 5)
    collector.restore()
    assert gc.get_threshold() == (5_000, 5, 5)


def test_agents_that_came_to_life_are_left_alone() -> None:
    live = 1_000
    collector = Collector(lambda: live)
    collector.relax()
    gc.collect(0)
    assert gc.get_freeze_count() == 0
    live = 1_001
    gc.collect(0)
    assert gc.get_freeze_count() > 0
    gc.unfreeze()
    gc.collect(0)
    assert gc.get_freeze_count() == 0  # nobody came to life since
    live = 5_000
    collector.restore()
    gc.collect(0)
    assert gc.get_freeze_count() == 0
