"""One writer: nobody commits to an agent after a newer incarnation has claimed it.

Operations: `claim` and `commit` (key: the agent; process: the node; argument: {"incarnation": …}; result: {"revision": …}). The larger
incarnation is the newer one. Revisions are the store's order and times are the world's; both must agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..histories import History, Operation
from .verdict import Contradiction, Verdict, contradiction


def check_writers(history: History) -> Verdict:
    """Whether no agent was written by an old incarnation after a newer one, and each of its revisions once."""
    wrong: list[Contradiction] = []
    checked = 0
    nodes: dict[Any, Operation] = {}
    for agent, operations in history.of_kinds("claim", "commit").items():
        checked += len(operations)
        done = [operation for operation in operations if operation.outcome == "ok"]
        wrong += {one.why: one for one in (*_in_the_store(agent, done), *_in_the_world(agent, done))}.values()
        for operation in operations:
            other = nodes.setdefault(_incarnation(operation), operation)
            if other.process != operation.process:
                why = f"incarnation {_incarnation(operation)} is {other.process}'s and {operation.process}'s"
                wrong.append(contradiction("shared incarnation", why, [other, operation]))
    return Verdict("writers", checked, tuple(wrong))


def _incarnation(operation: Operation) -> int:
    return int(operation.argument["incarnation"])


def _revision(operation: Operation) -> int:
    return int(operation.result["revision"])


def _in_the_store(agent: str, done: Sequence[Operation]) -> Iterator[Contradiction]:
    """By revisions: each once, and incarnations only grow."""
    newest: Operation | None = None
    before: Operation | None = None
    for operation in sorted(done, key=_revision):
        revision = _revision(operation)
        if before is not None and _revision(before) == revision:
            yield contradiction("revision twice", f"two writes of {agent} were acknowledged as revision {revision}", [before, operation])
        if newest is not None and _incarnation(operation) < _incarnation(newest):
            yield _old(agent, newest, operation)
        else:
            newest = operation
        before = operation


def _in_the_world(agent: str, done: Sequence[Operation]) -> Iterator[Contradiction]:
    """By times: what was asked for after an answer has a higher revision, and no lower incarnation."""
    ended = sorted(done, key=lambda operation: operation.end)
    place = 0
    highest: Operation | None = None
    newest: Operation | None = None
    for operation in sorted(done, key=lambda operation: operation.start):
        while place < len(ended) and ended[place].end < operation.start:
            one = ended[place]
            place += 1
            highest = one if highest is None or _revision(one) > _revision(highest) else highest
            newest = one if newest is None or _incarnation(one) > _incarnation(newest) else newest
        if highest is not None and _revision(operation) < _revision(highest):
            if newest is not None and _incarnation(operation) < _incarnation(newest):
                yield _old(agent, newest, operation)
            else:
                why = f"{agent} was at revision {_revision(highest)} and was written at {_revision(operation)} afterwards"
                yield contradiction("revision went back", why, [highest, operation])


def _old(agent: str, newer: Operation, old: Operation) -> Contradiction:
    why = f"incarnation {_incarnation(old)} wrote {agent} after incarnation {_incarnation(newer)} had"
    return contradiction("old incarnation", why, [newer, old])
