"""What a checker says of a history: that all is well, or which operations contradict each other and how."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from ..histories import Operation

TOLD = 20
"""How many contradictions a verdict spells out in words."""


@dataclass(frozen=True, slots=True, eq=False)
class Contradiction:
    """Something that can't be.

    Attributes:
        what: its class, in a word or two: `stale read`, `lost`, `doubled`
        why: a sentence
        operations: those that contradict each other, in the order of their starts, and no others
    """

    what: str
    why: str
    operations: tuple[Operation, ...] = ()

    def __str__(self) -> str:
        return "\n    ".join([f"{self.what}: {self.why}", *map(str, self.operations)])


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a checker found. It is true only if nothing is wrong, all could be decided, and the run exercised what it was for.

    Attributes:
        checker: who says so
        checked: how many operations were looked at
        wrong: what can't be
        undecided: what couldn't be decided within the checker's bounds, or wasn't exercised, a sentence each
        exercised: whether the run did what it was for; a run that didn't has shown nothing
    """

    checker: str
    checked: int
    wrong: tuple[Contradiction, ...] = ()
    undecided: tuple[str, ...] = ()
    exercised: bool = True

    def __bool__(self) -> bool:
        return self.exercised and not self.wrong and not self.undecided

    def __str__(self) -> str:
        if self:
            return f"{self.checker}: {self.checked} operations, nothing wrong"
        told = [str(contradiction) for contradiction in self.wrong[:TOLD]] + [f"undecided: {what}" for what in self.undecided]
        more = [f"… and {len(self.wrong) - TOLD} more"] if len(self.wrong) > TOLD else []
        return "\n  ".join([f"{self.checker}: {self.checked} operations, {'wrong' if self.wrong else 'shows nothing'}", *told, *more])


def contradiction(what: str, why: str, operations: Sequence[Operation]) -> Contradiction:
    """One, its operations each once and in the order of their starts."""
    once = {(operation.process, operation.number): operation for operation in operations}
    return Contradiction(what, why, tuple(sorted(once.values(), key=lambda operation: operation.start)))


def frozen(value: Any) -> Hashable:
    """A value as it came from JSON, as one that can be compared and looked up: lists as tuples, objects as sorted pairs."""
    if isinstance(value, list | tuple):
        return tuple(frozen(item) for item in value)
    if isinstance(value, dict):
        return tuple(sorted((str(name), frozen(item)) for name, item in value.items()))
    # True and 1 are one key of a dictionary, and two values.
    return ("bool", value) if isinstance(value, bool) else value
