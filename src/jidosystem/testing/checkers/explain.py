"""The fewest operations of a register that contradict each other.

Taking away all that concerns some values, or a read, or turning a compare-and-set into a write, makes a history only easier to
explain. So whatever is left when it still can't be explained is reason enough by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from .configurations import Dead, Step

T = TypeVar("T", bound=Hashable)
Dies = Callable[[Sequence[Step]], bool]
MAX_TRIES = 600


def explain(steps: Sequence[Step], dead: Dead, *, is_dead: Dies) -> list[Step]:
    """As few of the steps as still can't be explained, found from where the search ended."""
    if any(step.avoids is not None for step in steps):
        return _around(steps, dead)
    steps = _near(steps, dead, is_dead)
    steps = _without_values(steps, is_dead)
    reads = [step for step in steps if step.gives is None]
    kept = set(_fewest(reads, lambda some: is_dead(_only(steps, reads, some))))
    steps = [step for step in steps if step.gives is not None or step in kept]
    return _without_values(_relaxed(steps, is_dead), is_dead)


def _only(steps: Sequence[Step], among: Sequence[Step], some: Sequence[Step]) -> list[Step]:
    out = set(among) - set(some)
    return [step for step in steps if step not in out]


def _around(steps: Sequence[Step], dead: Dead) -> list[Step]:
    """What ran beside the last answer; with refusals among it, nothing may be taken away."""
    return [step for step in steps if step.start <= dead.step.end and step.end >= dead.step.start]


def _near(steps: Sequence[Step], dead: Dead, is_dead: Dies) -> list[Step]:
    """Those of the values at hand where the search ended, if they are reason enough; else those of the values of their time; else all."""
    at_hand = {*dead.values, dead.step.needs, dead.step.gives}
    beside = {value for step in _around(steps, dead) for value in (step.needs, step.gives)}
    for values in (at_hand, at_hand | beside):
        near = [_loosened(step, values) for step in steps if step.needs in values or step.gives in values]
        near = [step for step in near if (step.gives if step.gives is not None else step.needs) in values]
        if is_dead(near):
            return near
    return list(steps)


def _loosened(step: Step, values: set[int | None]) -> Step:
    """A compare-and-set from a value that is no concern of ours is a write."""
    return replace(step, needs=None) if step.gives is not None and step.needs not in values else step


def _relaxed(steps: list[Step], is_dead: Dies) -> list[Step]:
    for number, step in enumerate(steps):
        if step.gives is not None and step.needs is not None:
            looser = [*steps[:number], replace(step, needs=None), *steps[number + 1 :]]
            if is_dead(looser):
                steps = looser
    return steps


def _without_values(steps: Sequence[Step], is_dead: Dies) -> list[Step]:
    groups = _groups(steps)

    def of(some: Iterable[int]) -> list[Step]:
        chosen = {id(step) for group in some for step in groups[group]}
        return [step for step in steps if id(step) in chosen]

    return of(_fewest(sorted(groups), lambda some: is_dead(of(some))))


def _groups(steps: Sequence[Step]) -> dict[int, list[Step]]:
    """The steps by the values that compare-and-sets tie together."""
    leader: dict[int, int] = {}

    def find(value: int) -> int:
        while leader.setdefault(value, value) != value:
            value = leader[value]
        return value

    for step in steps:
        if step.gives is not None and step.needs is not None:
            leader[find(step.gives)] = find(step.needs)
    groups: dict[int, list[Step]] = {}
    for step in steps:
        value = step.gives if step.gives is not None else step.needs
        assert value is not None
        groups.setdefault(find(value), []).append(step)
    return groups


def _fewest(items: Sequence[T], still: Callable[[Sequence[T]], bool]) -> list[T]:
    """Zeller's delta debugging, within bounds: ever smaller pieces are left out as long as it is still so."""
    kept = list(items)
    tries = 0
    size = max(1, len(kept) // 2)
    while kept:
        start = 0
        smaller = False
        while start < len(kept) and tries < MAX_TRIES:
            without = kept[:start] + kept[start + size :]
            tries += 1
            if still(without):
                kept, smaller = without, True
            else:
                start += size
        if tries >= MAX_TRIES or (size == 1 and not smaller):
            break
        size = max(1, size // 2)
    return kept
