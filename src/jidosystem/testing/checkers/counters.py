"""Counters: at each moment within the bounds of what was acknowledged and what was asked for.

Operations: `increment` (argument: by how much, 1 if none; result: the sum afterwards, if it was answered) and `read` (result: the sum).
What was acknowledged before a question counts in its answer; what was asked for before the answer may; what failed doesn't; nothing counts twice.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from ..histories import History, Operation
from .verdict import Contradiction, Verdict, contradiction

MOST = 10
"""How many increments a contradiction names at most."""


def check_counters(history: History, *, initial: float = 0) -> Verdict:
    """Whether every answer of every counter, which is its key, is a sum that it could have held then. Each began at `initial`."""
    wrong: list[Contradiction] = []
    checked = 0
    for operations in history.of_kinds("increment", "read").values():
        checked += len(operations)
        counter = Counter(operations, initial)
        found = list(counter.out_of_bounds())
        wrong += found or [*counter.twice(), *counter.backwards()]
    return Verdict("counters", checked, tuple(wrong))


def _amount(operation: Operation) -> Any:
    return 1 if operation.argument is None else operation.argument


class _Sums:
    """The sum of amounts up to a time."""

    def __init__(self, amounts: list[tuple[float, float]]) -> None:
        amounts.sort()
        self._times = [time for time, _amount in amounts]
        self._sums = [0.0, *accumulate(amount for _time, amount in amounts)]

    def before(self, time: float) -> float:
        """Strictly before it."""
        return self._sums[bisect_left(self._times, time)]

    def until(self, time: float) -> float:
        """At it too."""
        return self._sums[bisect_right(self._times, time)]


class Counter:
    """What is known of one counter."""

    def __init__(self, operations: Sequence[Operation], initial: float) -> None:
        self._adds = [operation for operation in operations if operation.kind == "increment"]  # also the failed ones: they can be to blame
        self._answers = [operation for operation in operations if operation.outcome == "ok" and operation.result is not None]
        self._answers.sort(key=lambda operation: operation.end)
        self._initial = initial
        self._sure = [self._sums_of(sign, sure=True) for sign in (1, -1)]
        self._asked = [self._sums_of(sign, sure=False) for sign in (1, -1)]

    def _sums_of(self, sign: int, *, sure: bool) -> _Sums:
        adds = [add for add in self._adds if _amount(add) * sign > 0 and (add.outcome == "ok" or not sure)]
        return _Sums([(add.end if sure else add.start, _amount(add)) for add in adds if add.outcome != "failed"])

    def bounds(self, operation: Operation) -> tuple[float, float]:
        """The least and the most that an answer may say."""
        (sure_up, sure_down), (asked_up, asked_down) = self._sure, self._asked
        least = self._initial + sure_up.before(operation.start) + asked_down.until(operation.end)
        most = self._initial + asked_up.until(operation.end) + sure_down.before(operation.start)
        if operation.kind == "increment":  # it counts in its own answer
            least += max(_amount(operation), 0)
            most += min(_amount(operation), 0)
        return least, most

    def out_of_bounds(self) -> Iterator[Contradiction]:
        """Answers that say too little or too much; after the first of a kind the others say the same again."""
        good: Operation | None = None
        told: set[str] = set()
        for answer in self._answers:
            least, most = self.bounds(answer)
            if least <= answer.result <= most:
                good = answer
                continue
            what = "lost" if answer.result < least else "too much"
            if what in told:
                continue
            told.add(what)
            if what == "lost":
                why = f"{answer.result} was answered although at least {least:g} had been acknowledged"
                yield contradiction(what, why, [*self._between(good, answer, sure=True), answer])
            else:
                why = f"{answer.result} was answered although at most {most:g} had been asked for: doubled, or from one that failed"
                yield contradiction(what, why, [*self._between(good, answer, sure=False), answer])

    def _between(self, good: Operation | None, bad: Operation, *, sure: bool) -> list[Operation]:
        """The last answer that could be, and the increments that came into the bounds since then; the newest ones, if they are many."""
        since = good.start if good is not None else -1.0
        if sure:
            adds = [add for add in self._adds if add.outcome == "ok" and since <= add.end < bad.start and add is not bad]
        else:
            adds = [add for add in self._adds if (good is None or add.start > good.end) and add.start <= bad.end and add is not bad]
        known = [good] if good is not None else []
        return [*known, *adds[-MOST:]]

    def twice(self) -> Iterator[Contradiction]:
        """Where all only add, no two of them can have led to one sum."""
        if any(_amount(add) <= 0 for add in self._adds):
            return
        known: dict[Any, Operation] = {}
        for answer in self._answers:
            if answer.kind == "increment" and (other := known.setdefault(answer.result, answer)) is not answer:
                yield contradiction("one sum twice", f"two increments led to {answer.result}: one of them was lost", [other, answer])

    def backwards(self) -> Iterator[Contradiction]:
        """Where all only add, no later answer is less than an earlier one."""
        if any(_amount(add) < 0 for add in self._adds):
            return
        highest: list[Operation] = []
        ends: list[float] = []
        for answer in self._answers:
            place = bisect_left(ends, answer.start)
            before = highest[place - 1] if place else None
            if before is not None and before.result > answer.result:
                yield contradiction("backwards", f"{before.result} was answered, and {answer.result} later", [before, answer])
                return
            ends.append(answer.end)
            highest.append(answer if not highest or answer.result > highest[-1].result else highest[-1])
