"""What a figure is held against. Pure: a verdict is a function of the figures of one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

PASS, FAIL, NOT_RUN = "pass", "FAIL", "not run"


class Bar(NamedTuple):
    """A value to reach: a number, or a part of the figure of another measurement of the same run, named in `of`.

    `lower`: less is better. `since`: from this Python on (the bar of earlier ones is another `Bar`).
    """

    value: float
    of: str = ""
    lower: bool = False

    def threshold(self, others: Mapping[str, float]) -> float | None:
        """The number to reach; None if what it refers to wasn't measured."""
        if not self.of:
            return self.value
        base = others.get(self.of)
        return None if base is None else base * self.value

    def judge(self, figure: float | None, others: Mapping[str, float]) -> str:
        """Whether the figure reaches the bar. What wasn't measured is never passed."""
        threshold = self.threshold(others)
        if figure is None or threshold is None:
            return NOT_RUN
        reached = figure <= threshold if self.lower else figure >= threshold
        return PASS if reached else FAIL


def judge_all(bars: tuple[Bar, ...], figure: float | None, others: Mapping[str, float]) -> str:
    """The verdict over several bars: all must be reached; one that couldn't be judged makes it "not run"."""
    verdicts = {bar.judge(figure, others) for bar in bars}
    if FAIL in verdicts:
        return FAIL
    return NOT_RUN if NOT_RUN in verdicts or not verdicts else PASS
