"""A figure passes a bar only if both were measured."""

from __future__ import annotations

import pytest

from benchmarks.bars import FAIL, NOT_RUN, PASS, Bar, judge_all


@pytest.mark.parametrize(
    ("bar", "figure", "verdict"),
    [
        (Bar(100), 100, PASS),
        (Bar(100), 99.9, FAIL),
        (Bar(100, lower=True), 100, PASS),
        (Bar(100, lower=True), 101, FAIL),
        (Bar(0.5, of="limit"), 500, PASS),
        (Bar(0.5, of="limit"), 499, FAIL),
        (Bar(1, of="a peer that isn't there"), 10_000, NOT_RUN),
        (Bar(1), None, NOT_RUN),
    ],
)
def test_a_bar_judges_a_figure(bar: Bar, figure: float | None, verdict: str) -> None:
    assert bar.judge(figure, {"limit": 1_000.0}) == verdict


def test_all_bars_must_be_reached() -> None:
    assert judge_all((Bar(1), Bar(2)), 2, {}) == PASS
    assert judge_all((Bar(1), Bar(3)), 2, {}) == FAIL


def test_one_bar_that_could_not_be_judged_makes_no_pass() -> None:
    assert judge_all((Bar(1), Bar(1, of="missing")), 2, {}) == NOT_RUN


def test_one_missed_bar_fails_whatever_else_is_missing() -> None:
    assert judge_all((Bar(3), Bar(1, of="missing")), 2, {}) == FAIL


def test_no_bar_is_no_pass() -> None:
    assert judge_all((), 2, {}) == NOT_RUN
