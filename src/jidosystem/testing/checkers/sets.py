"""Sets: what was acknowledged is there, once, for good; what failed never is; what is unknown is there once or not at all.

Operations: `add` (argument: the element, each added once) and `read` (result: the elements, as a list in which a double would be seen).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from heapq import heappop, heappush

from ..histories import History, Operation
from .verdict import Contradiction, Verdict, contradiction, frozen


def check_sets(history: History) -> Verdict:
    """Whether every read of every set, which is its key, has all that had to be there, and nothing that couldn't be."""
    wrong: list[Contradiction] = []
    checked = 0
    for operations in history.of_kinds("add", "read").values():
        checked += len(operations)
        wrong += _of_set(operations)
    return Verdict("sets", checked, tuple(wrong))


def _of_set(operations: Sequence[Operation]) -> Iterator[Contradiction]:
    adds: dict[Hashable, Operation] = {}
    for operation in operations:
        if operation.kind == "add" and (other := adds.setdefault(frozen(operation.argument), operation)) is not operation:
            yield contradiction("ambiguous", f"{operation.argument!r} was added twice, so that a double can't be told", [other, operation])
    told: set[tuple[str, Hashable]] = set()
    for read, expected in _reads(operations):
        for what, element, others in _of_read(read, expected, adds):
            if (what, element) not in told:
                told.add((what, element))
                yield contradiction(what, WHY[what].format(element), [*others, read])


WHY = {
    "doubled": "{!r} is there more than once",
    "from nowhere": "nobody ever added {!r}",
    "dirty read": "{!r} is there although its addition is known not to have happened",
    "from the future": "{!r} is there before anybody had asked to add it",
    "lost": "{!r} isn't there although it had been acknowledged, or found, before",
}


def _reads(operations: Sequence[Operation]) -> Iterator[tuple[Operation, dict[Hashable, Operation]]]:
    """Each read, with what must be there and who says so. The dictionary is the caller's until the next one."""
    expected: dict[Hashable, Operation] = {}
    ended: list[tuple[float, int, Operation]] = []
    for number, operation in enumerate(operations):
        while ended and ended[0][0] < operation.start:
            before = heappop(ended)[2]
            for element in (before.argument,) if before.kind == "add" else before.result:
                expected.setdefault(frozen(element), before)
        if operation.outcome == "ok":
            heappush(ended, (operation.end, number, operation))
            if operation.kind == "read":
                yield operation, expected


def _of_read(
    read: Operation, expected: dict[Hashable, Operation], adds: dict[Hashable, Operation]
) -> Iterator[tuple[str, Hashable, Sequence[Operation]]]:
    found: set[Hashable] = set()
    for element in map(frozen, read.result):
        add = adds.get(element)
        if element in found:
            yield "doubled", element, [add] if add is not None else []
        elif add is None:
            yield "from nowhere", element, []
        elif add.outcome == "failed":
            yield "dirty read", element, [add]
        elif add.start > read.end:
            yield "from the future", element, [add]
        found.add(element)
    for element in expected.keys() - found:
        witness = expected[element]
        add = adds.get(element)
        if add is None or add.outcome != "failed":
            yield "lost", element, [witness] if add is None else [add, witness]
