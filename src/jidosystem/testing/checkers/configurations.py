"""What the search through a register's history keeps: operations as it sees them, and configurations that explain it so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from ..histories import Operation

OTHER = -1
"""A value that nobody finds or expects, whichever it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """An operation as the search sees it; values are numbers.

    Attributes:
        operation: whose
        needs: the value that must be there; None: any
        gives: the value that is there afterwards; None: the same
        avoids: a value that must not be there (a compare-and-set that was refused)
        start: when it was asked for
        end: when it was answered; infinity: never
        optional: it may never have happened
    """

    operation: Operation
    needs: int | None
    gives: int | None
    avoids: int | None
    start: float
    end: float
    optional: bool = False


class Dead(NamedTuple):
    """No configuration explains the history up to the answer of `step`.

    Attributes:
        step: the first whose answer can't be explained
        values: what the register could have held before
        certain: whether nothing was left out of the search
    """

    step: Step
    values: tuple[int, ...]
    certain: bool


Kind = tuple[int | None, int]
Configuration = tuple[int, int, tuple[Kind, ...]]
"""The value, which of those under way have taken effect (a bit each), and which optional ones were used."""


def in_order(used: Iterable[Kind]) -> tuple[Kind, ...]:
    """What was used, so that the same things make the same configuration."""
    return tuple(sorted(used, key=lambda kind: (-1 if kind[0] is None else kind[0], kind[1])))


def clear(found: Counter[int], value: int, bit: int) -> None:
    """Take a bit out of those of a value."""
    found[value] &= ~bit
    if not found[value]:
        del found[value]


def events_of(steps: Sequence[Step]) -> list[tuple[Step, bool]]:
    """Beginnings and ends in order. At one instant beginnings come first: what can't be told apart counts as side by side."""
    events = [(step.start, 0, number) for number, step in enumerate(steps)]
    events += [(step.end, 1, number) for number, step in enumerate(steps) if step.end < inf and not step.optional]
    return [(steps[number], not ends) for _time, ends, number in sorted(events)]


def likeliest(found: set[Configuration]) -> list[Configuration]:
    """Those first that used little and of which much has taken effect; the same order in every process."""
    return sorted(found, key=lambda one: (len(one[2]), -one[1].bit_count(), one[0], one[1], str(one[2])))


def thriftiest(found: set[Configuration]) -> set[Configuration]:
    """Those that no other one of the same value and the same effects undercuts."""
    kept: dict[tuple[int, int], list[Counter[Kind]]] = {}
    result: set[Configuration] = set()
    for value, done, used in sorted(found, key=lambda one: len(one[2])):
        count = Counter(used)
        fewer = kept.setdefault((value, done), [])
        if not any(other <= count for other in fewer):
            fewer.append(count)
            result.add((value, done, used))
    return result
