"""Registers: each key by itself must behave as if every operation took effect at one instant between question and answer.

Operations: `write` (argument: the value), `read` (result: the value) and `cas` (argument: [expected, new]; result: whether it wrote).
A write or compare-and-set whose outcome is unknown may take effect at any time from its start on, or never. Give every write a value
of its own where you can: the check is then certain and takes time in proportion to the history.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from ..histories import History, Operation
from .configurations import OTHER, Dead, Step
from .explain import explain
from .linearize import MAX_CONFIGURATIONS, Search
from .verdict import Contradiction, Verdict, contradiction, frozen

KINDS = ("read", "write", "cas")


def check_registers(history: History, *, initial: Any = None, most: int = MAX_CONFIGURATIONS) -> Verdict:
    """Whether every key is a linearizable register that held `initial` at first. `most`: how many possible explanations of one key are followed
    side by side; a search that needed more and found none is undecided.
    """
    wrong: list[Contradiction] = []
    undecided: list[str] = []
    checked = 0
    for key, operations in history.of_kinds(*KINDS).items():
        checked += len(operations)
        register = Register(operations, initial)
        found = list(register.impossible())
        if not found:
            dead, without = register.search(most)
            if dead is not None and dead.certain:
                found = [register.explained(dead, without)]
            elif dead is not None:
                undecided.append(f"{key}: more than {most} explanations side by side, up to {dead.step.operation}; write values that occur once")
        wrong += found
    return Verdict("registers", checked, tuple(wrong), tuple(undecided))


class Register:
    """What is known of one key."""

    def __init__(self, operations: Sequence[Operation], initial: Any) -> None:
        self._numbers: dict[Hashable, int] = {frozen(initial): 0}
        self._values: list[Any] = [initial]
        self._failed: dict[int, Operation] = {}
        self._last_start = max((operation.start for operation in operations), default=0.0)
        steps = [step for operation in operations if (step := self._step(operation)) is not None]
        self.steps = _promoted(_needed_ones(steps))

    def _number(self, value: Any) -> int:
        known = frozen(value)
        number = self._numbers.setdefault(known, len(self._values))
        if number == len(self._values):
            self._values.append(value)
        return number

    def _step(self, operation: Operation) -> Step | None:
        """None: it says nothing of the register."""
        unknown = operation.outcome == "unknown"
        end = inf if unknown else operation.end
        if operation.kind == "read":
            return Step(operation, self._number(operation.result), None, None, operation.start, end) if operation.outcome == "ok" else None
        expected, new = (None, operation.argument) if operation.kind == "write" else operation.argument
        needs = None if operation.kind == "write" else self._number(expected)
        gives = self._number(new)
        if operation.outcome == "failed":
            self._failed.setdefault(gives, operation)
            return None
        if operation.kind == "cas" and not unknown and operation.result is False:
            self._failed.setdefault(gives, operation)
            return Step(operation, None, None, needs, operation.start, end)
        if needs == gives:
            return None if unknown else Step(operation, needs, None, None, operation.start, end)
        return Step(operation, needs, gives, None, operation.start, end, unknown)

    # -- what needs no search --------------------------------------------------------------------------------

    def impossible(self) -> Iterator[Contradiction]:
        """Values from nowhere or from the future, and refusals while the expected value stood."""
        givers: dict[int, list[Step]] = {}
        needers: dict[int, list[Step]] = {}
        for step in self.steps:
            if step.gives is not None:
                givers.setdefault(step.gives, []).append(step)
            if step.needs is not None and not step.optional:
                needers.setdefault(step.needs, []).append(step)
        for value, reads in needers.items():
            if value != 0:
                first = min(reads, key=lambda step: step.end)
                yield from self._from_nowhere(value, first, givers.get(value, []))
        for step in self.steps:
            if step.avoids is not None:
                yield from self._refused(step, givers.get(step.avoids, []), needers.get(step.avoids, []))

    def _from_nowhere(self, value: int, read: Step, givers: list[Step]) -> Iterator[Contradiction]:
        shown = repr(self._values[value])
        if not givers:
            failed = self._failed.get(value)
            if failed is None:
                yield contradiction("read of nothing", f"nobody ever wrote {shown}", [read.operation])
            else:
                yield contradiction("dirty read", f"{shown} was only written by an operation known not to have happened", [failed, read.operation])
        elif all(giver.start > read.end for giver in givers):
            first = min(givers, key=lambda step: step.start)
            yield contradiction("read from the future", f"{shown} was found before anybody had asked to write it", [read.operation, first.operation])

    def _refused(self, step: Step, givers: list[Step], needers: list[Step]) -> Iterator[Contradiction]:
        """The expected value was written once and stood from before the refusal until after it."""
        value = step.avoids
        if len(givers) + (value == 0) > 1:
            return
        before = next((giver for giver in (*givers, *needers) if giver.end < step.start), None)
        after = next((needer for needer in needers if needer.start > step.end), None)
        if after is not None and (before is not None or value == 0):
            seen = [one.operation for one in (before, step, after) if one is not None]
            yield contradiction("refused for nothing", f"a compare-and-set was refused while {self._values[value or 0]!r} stood, as expected", seen)

    # -- what does -------------------------------------------------------------------------------------------

    def search(self, most: int) -> tuple[Dead | None, list[Step]]:
        """Where the history can't be explained any more, and the steps that were searched."""
        plain = [step for step in self.steps if step.avoids is None]
        dead = Search(plain, 0, most=most).run()
        if dead is not None or len(plain) == len(self.steps):
            return dead, plain
        dead = Search(self.steps, 0, most=most).run()
        if dead is not None:
            dead = Search(self.steps, 0, hide=False, most=most).run()
        return dead, self.steps

    def explained(self, dead: Dead, steps: list[Step]) -> Contradiction:
        """The fewest operations that contradict each other, in words."""
        least = explain(steps, dead, is_dead=_is_dead)
        return contradiction(*self._in_words(least, dead), [step.operation for step in least])

    def _in_words(self, least: list[Step], dead: Dead) -> tuple[str, str]:
        taken = Counter(step.needs for step in least if step.gives is not None and step.needs is not None)
        twice = next((value for value, times in taken.items() if times > 1), None)
        if twice is not None:
            return "lost update", f"more than one compare-and-set replaced {self._values[twice]!r}, which was written once"
        reads = [step for step in least if step.needs is not None]
        last = max(reads, key=lambda step: step.start, default=dead.step)
        before = {step.gives if step.gives is not None else step.needs for step in least if step.end < last.start} - {last.needs}
        if not before:
            return "no order", "no order of these explains every answer"
        found, shown = repr(self._values[last.needs or 0]), ", ".join(repr(self._values[value]) for value in sorted(filter(None, before)))
        if any(step.needs in before for step in self.steps):
            return "stale read", f"{found} was found although {shown} had been written before"
        return "lost write", f"{found} was found although {shown} had been written before, which nobody ever found"


def _is_dead(steps: Sequence[Step]) -> bool:
    dead = Search(steps, 0).run()
    return dead is not None and dead.certain


def _needed_ones(steps: list[Step]) -> list[Step]:
    """Without the optional ones that no answer can depend on; where something was refused they are all alike."""
    avoided = {step.avoids for step in steps if step.avoids is not None}
    needed = {step.needs for step in steps if step.needs is not None and not step.optional}
    optional = [step for step in steps if step.optional]
    while grown := {step.needs for step in optional if step.gives in needed and step.needs is not None} - needed:
        needed |= grown
    if not avoided:
        return [step for step in steps if not step.optional or step.gives in needed]
    return [replace(step, gives=OTHER) if step.optional and step.gives not in needed | avoided else step for step in steps]


def _promoted(steps: list[Step]) -> list[Step]:
    """What alone can have written a value that somebody found did happen, although nobody was told."""
    sources = Counter(step.gives for step in steps if step.gives is not None)
    found = {step.needs for step in steps if step.needs is not None and not step.optional} - {0}
    promoted: list[Step] = []
    for step in steps:
        sure = step.optional and step.gives in found and sources[step.gives] == 1
        promoted.append(replace(step, optional=False) if sure else step)
    # A compare-and-set that is sure makes sure of whoever wrote what it replaced.
    return _promoted(promoted) if any(one is not other for one, other in zip(promoted, steps, strict=True)) else steps
