"""Bad histories, each with the checker that must catch it, the class of what is wrong, and which operations it must name.

An operation is written as it would be told: process, kind, when, with what, and how it ended. Times are small numbers. Operations are
numbered from 1 in each history, and named by that number.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any, NamedTuple

from jidosystem.testing import History, Operation, checkers

Check = Callable[[History], checkers.Verdict]


def op(
    process: str, kind: str, start: float, end: float | None, argument: Any = None, result: Any = None, *, key: str = "x", outcome: str = "ok"
) -> Any:
    """`end=None`: never answered, outcome unknown."""
    if end is None:
        end, outcome = inf, "unknown"
    return {"process": process, "kind": kind, "key": key, "start": start, "end": end, "argument": argument, "result": result, "outcome": outcome}


def history(*operations: Any) -> History:
    return History(Operation(number=number, **operation) for number, operation in enumerate(operations, 1))


class Bad(NamedTuple):
    """One bad history."""

    name: str
    check: Check
    what: str
    named: set[int]
    operations: list[Any]


registers = partial(checkers.check_registers, initial=0)
sets, counters, writers, events = checkers.check_sets, checkers.check_counters, checkers.check_writers, checkers.check_events
bank = partial(checkers.check_bank, total=100)


def commit(node: str, start: float, end: float, incarnation: int, revision: int, *, kind: str = "commit", key: str = "Counter/a") -> Any:
    return op(node, kind, start, end, {"incarnation": incarnation}, {"revision": revision}, key=key)


def append(
    process: str, start: float, end: float | None, ids: list[str], positions: list[int] | None = None, *, key: str = "s", outcome: str = "ok"
) -> Any:
    return op(process, "append", start, end, ids, positions, key=key, outcome=outcome)


def page(reader: str, start: float, end: float, after: int, found: list[list[Any]], *, to_end: bool = False, key: str = "s") -> Any:
    return op(reader, "page", start, end, {"after": after, "to_end": to_end}, found, key=key)


def transfer(process: str, start: float, end: float | None, amount: int, *, outcome: str = "ok") -> Any:
    return op(process, "transfer", start, end, {"from": "a", "to": "b", "amount": amount}, key="bank", outcome=outcome)


def snapshot(process: str, start: float, end: float, a: int, b: int) -> Any:
    return op(process, "snapshot", start, end, None, {"a": a, "b": b}, key="bank")


REGISTERS = [
    Bad("an acknowledged write is gone", registers, "lost write", {1, 2}, [op("p", "write", 1, 2, 7), op("q", "read", 3, 4, None, 0)]),
    Bad("a write is gone and the one before it is back", registers, "lost write", {1, 2, 3}, [
        op("p", "write", 1, 2, 7), op("p", "write", 3, 4, 8), op("q", "read", 5, 6, None, 7)]),
    Bad("a reader sees what was overwritten", registers, "stale read", {1, 3, 4}, [
        op("p", "write", 1, 2, 7), op("q", "read", 3, 4, None, 7), op("p", "write", 5, 6, 8), op("q", "read", 7, 8, None, 7),
        op("r", "read", 9, 10, None, 8)]),
    Bad("two readers see two writes in different orders", registers, "stale read", {1, 2, 3, 4, 5, 6}, [
        op("p", "write", 1, 9, 7), op("q", "write", 1, 9, 8), op("r", "read", 2, 3, None, 7), op("r", "read", 4, 5, None, 8),
        op("s", "read", 2, 3, None, 8), op("s", "read", 4, 5, None, 7)]),
    Bad("a value comes back", registers, "stale read", {1, 2, 3, 4, 5}, [
        op("p", "write", 1, 9, 7), op("q", "write", 1, 9, 8), op("r", "read", 2, 3, None, 7), op("r", "read", 4, 5, None, 8),
        op("r", "read", 6, 7, None, 7)]),
    Bad("a failed write is read", registers, "dirty read", {1, 2}, [op("p", "write", 1, 2, 7, outcome="failed"), op("q", "read", 3, 4, None, 7)]),
    Bad("a refused compare-and-set is read", registers, "dirty read", {1, 2}, [
        op("p", "cas", 1, 2, [5, 7], False), op("q", "read", 3, 4, None, 7)]),
    Bad("a failed write is built upon", registers, "dirty read", {1, 2}, [
        op("p", "write", 1, 2, 7, outcome="failed"), op("q", "cas", 3, 4, [7, 8], True)]),
    Bad("a value that nobody wrote", registers, "read of nothing", {2}, [op("p", "write", 1, 2, 7), op("q", "read", 1, 2, None, 9)]),
    Bad("a value before its write", registers, "read from the future", {1, 2}, [op("q", "read", 1, 2, None, 7), op("p", "write", 3, 4, 7)]),
    Bad("two compare-and-sets from one value", registers, "lost update", {1, 2, 3}, [
        op("p", "write", 1, 2, 7), op("p", "cas", 3, 6, [7, 8], True), op("q", "cas", 3, 6, [7, 9], True)]),
    Bad("two compare-and-sets from the first value", registers, "lost update", {1, 2}, [
        op("p", "cas", 1, 4, [0, 8], True), op("q", "cas", 1, 4, [0, 9], True), op("q", "read", 5, 6, None, 9)]),
    Bad("a compare-and-set without a condition", registers, "stale read", {1, 2, 3}, [
        op("p", "write", 1, 2, 7), op("p", "write", 3, 4, 8), op("q", "cas", 5, 6, [7, 9], True), op("p", "read", 7, 8, None, 8),
        op("p", "read", 9, 10, None, 9)]),
    Bad("refused while the value stood", registers, "refused for nothing", {1, 2, 3}, [
        op("p", "write", 1, 2, 7), op("q", "cas", 3, 4, [7, 8], False), op("p", "read", 5, 6, None, 7)]),
    Bad("refused while the first value stood", registers, "refused for nothing", {1, 2}, [
        op("q", "cas", 1, 2, [0, 8], False), op("p", "read", 3, 4, None, 0), op("p", "write", 5, 6, 1)]),
    Bad("an unknown write was seen and is gone", registers, "stale read", {1, 2, 3}, [
        op("p", "write", 1, None, 7), op("q", "read", 2, 3, None, 7), op("q", "read", 4, 5, None, 0)]),
    Bad("an unknown write happens twice", registers, "lost write", {1, 2, 3, 4}, [
        op("p", "write", 1, None, 7), op("q", "read", 2, 3, None, 7), op("p2", "write", 4, 5, 8), op("q", "read", 6, 7, None, 7)]),
    Bad("an answered write takes effect later", registers, "stale read", {1, 2}, [
        op("p", "write", 1, 2, 7), op("q", "read", 3, 4, None, 0), op("q", "read", 5, 6, None, 7)]),
    Bad("only one of two keys is bad", registers, "lost write", {2, 4}, [
        op("p", "write", 1, 2, 7, key="good"), op("p", "write", 1, 2, 7), op("q", "read", 3, 4, None, 7, key="good"),
        op("q", "read", 3, 4, None, 0)]),
]  # fmt: skip

SETS = [
    Bad("an acknowledged element is gone", sets, "lost", {1, 3}, [
        op("p", "add", 1, 2, "a"), op("p", "add", 1, 2, "b"), op("q", "read", 3, 4, None, ["b"])]),
    Bad("an unknown element was found and is gone", sets, "lost", {1, 2, 3}, [
        op("p", "add", 1, None, "a"), op("q", "read", 2, 3, None, ["a"]), op("q", "read", 4, 5, None, [])]),
    Bad("an element is there twice", sets, "doubled", {1, 2}, [op("p", "add", 1, 2, "a"), op("q", "read", 3, 4, None, ["a", "a"])]),
    Bad("an unknown element is there twice", sets, "doubled", {1, 2}, [op("p", "add", 1, None, "a"), op("q", "read", 3, 4, None, ["a", "a"])]),
    Bad("a failed element is there", sets, "dirty read", {1, 2}, [op("p", "add", 1, 2, "a", outcome="failed"), op("q", "read", 3, 4, None, ["a"])]),
    Bad("an element that nobody added", sets, "from nowhere", {1}, [op("q", "read", 3, 4, None, ["z"])]),
    Bad("an element before it was added", sets, "from the future", {1, 2}, [op("q", "read", 1, 2, None, ["a"]), op("p", "add", 3, 4, "a")]),
]  # fmt: skip

COUNTERS = [
    Bad("an acknowledged increment is gone", counters, "lost", {1, 2}, [op("p", "increment", 1, 2), op("q", "read", 3, 4, None, 0)]),
    Bad("an increment is gone between two reads", counters, "lost", {2, 3, 4}, [
        op("p", "increment", 1, 2), op("q", "read", 3, 4, None, 1), op("p", "increment", 5, 6), op("q", "read", 7, 8, None, 1)]),
    Bad("an increment counts twice", counters, "too much", {1, 2}, [op("p", "increment", 1, 2), op("q", "read", 3, 4, None, 2)]),
    Bad("an unknown increment counts twice", counters, "too much", {1, 2}, [op("p", "increment", 1, None), op("q", "read", 3, 4, None, 2)]),
    Bad("a failed increment counts", counters, "too much", {1, 2}, [op("p", "increment", 1, 2, outcome="failed"), op("q", "read", 3, 4, None, 1)]),
    Bad("two increments led to one sum", counters, "one sum twice", {1, 2}, [op("p", "increment", 1, 4, 1, 1), op("q", "increment", 1, 4, 1, 1)]),
    Bad("an unknown increment was counted and is gone", counters, "backwards", {2, 3}, [
        op("p", "increment", 1, None), op("q", "read", 2, 3, None, 1), op("q", "read", 4, 5, None, 0)]),
    Bad("an increment doesn't count in its own answer", counters, "lost", {1}, [op("p", "increment", 1, 2, 5, 0)]),
    Bad("a decrement is gone", counters, "too much", {1, 2, 3}, [
        op("p", "increment", 1, 2, 5), op("p", "increment", 3, 4, -2), op("q", "read", 5, 6, None, 5)]),
]  # fmt: skip

WRITERS = [
    Bad("an old incarnation commits after a newer one's claim", writers, "old incarnation", {2, 3}, [
        commit("n1", 1, 2, 5, 1, kind="claim"), commit("n2", 3, 4, 9, 2, kind="claim"), commit("n1", 5, 6, 5, 3)]),
    Bad("it commits after a newer one's commit, in the store only", writers, "old incarnation", {2, 3}, [
        commit("n1", 1, 2, 5, 1, kind="claim"), commit("n2", 3, 8, 9, 2), commit("n1", 4, 7, 5, 3)]),
    Bad("it commits behind a newer one, under an old revision", writers, "old incarnation", {2, 3}, [
        commit("n1", 1, 2, 5, 1, kind="claim"), commit("n2", 3, 4, 9, 3, kind="claim"), commit("n1", 5, 6, 5, 2)]),
    Bad("two commits of one revision", writers, "revision twice", {2, 3}, [
        commit("n1", 1, 2, 5, 1, kind="claim"), commit("n1", 3, 6, 5, 2), commit("n1", 3, 6, 5, 2)]),
    Bad("a revision went back", writers, "revision went back", {1, 2}, [commit("n1", 1, 2, 5, 4), commit("n1", 3, 4, 5, 3)]),
    Bad("two nodes under one incarnation", writers, "shared incarnation", {1, 2}, [
        commit("n1", 1, 2, 5, 1, key="Counter/a"), commit("n2", 1, 2, 5, 1, key="Counter/b")]),
]  # fmt: skip

EVENTS = [
    Bad("a hole below what was acknowledged", events, "hole", {2, 4}, [
        append("p", 1, 2, ["a"], [1]), append("p", 3, 4, ["b"], [2]), append("p", 5, 6, ["c"], [3]), page("r", 7, 8, 0, [[1, "a"], [3, "c"]])]),
    Bad("one reader sees what another one passed over", events, "hole", {3, 4}, [
        append("p", 1, None, ["a"]), append("p", 1, None, ["b"]), page("r", 2, 3, 0, [[1, "a"], [2, "b"]]), page("s", 2, 3, 0, [[2, "b"]])]),
    Bad("a late event below what was read", events, "hole", {3, 4}, [
        append("p", 1, 2, ["b"], [2]), append("q", 1, None, ["a"]), page("r", 3, 4, 0, [[2, "b"]]), page("r", 5, 6, 0, [[1, "a"], [2, "b"]])]),
    Bad("a follower goes on behind an event", events, "hole", {1, 2, 4}, [
        append("p", 1, 2, ["b"], [2]), page("r", 3, 4, 0, [[1, "a"]]), append("q", 1, 2, ["a"], [1]), page("r", 5, 6, 2, [[3, "c"]]),
        append("q", 4, 5, ["c"], [3])]),
    Bad("an acknowledged event is gone from the end", events, "lost", {2, 3}, [
        append("p", 1, 2, ["a"], [1]), append("p", 3, 4, ["b"], [2]), page("r", 5, 6, 0, [[1, "a"]], to_end=True)]),
    Bad("an event was seen and is gone from the end", events, "lost", {2, 3}, [
        append("p", 1, None, ["a"]), page("r", 2, 3, 0, [[1, "a"]]), page("s", 4, 5, 0, [], to_end=True)]),
    Bad("an event is there twice", events, "doubled", {1, 2}, [append("p", 1, None, ["a"]), page("r", 2, 3, 0, [[1, "a"], [2, "a"]])]),
    Bad("two readers see two orders", events, "reordered", {3, 4}, [
        append("p", 1, None, ["a"]), append("q", 1, None, ["b"]), page("r", 2, 3, 0, [[1, "a"], [2, "b"]]),
        page("s", 2, 3, 0, [[1, "b"], [2, "a"]])]),
    Bad("an event isn't where it was acknowledged", events, "moved", {1, 2}, [append("p", 1, 2, ["a"], [1]), page("r", 3, 4, 0, [[2, "a"]])]),
    Bad("two appends in the wrong order", events, "reordered", {1, 2}, [append("p", 1, 2, ["a"], [5]), append("q", 3, 4, ["b"], [4])]),
    Bad("a page out of order", events, "out of order", {2}, [append("p", 1, 2, ["a", "b"], [1, 2]), page("r", 3, 4, 0, [[2, "b"], [1, "a"]])]),
    Bad("a page begins before its beginning", events, "out of order", {2}, [append("p", 1, 2, ["a"], [1]), page("r", 3, 4, 1, [[1, "a"]])]),
    Bad("a failed event is there", events, "dirty read", {1, 2}, [append("p", 1, 2, ["a"], outcome="failed"), page("r", 3, 4, 0, [[1, "a"]])]),
    Bad("an event that nobody appended", events, "from nowhere", {1}, [page("r", 3, 4, 0, [[1, "z"]])]),
    Bad("an event before it was appended", events, "from the future", {1, 2}, [page("r", 1, 2, 0, [[1, "a"]]), append("p", 3, 4, ["a"], [1])]),
    Bad("half an append", events, "torn", {1, 3}, [
        append("p", 1, None, ["a", "b"]), append("p", 3, 4, ["c"], [2]), page("r", 5, 6, 0, [[1, "a"], [2, "c"]])]),
    Bad("another one's event between those of an append", events, "torn", {1}, [
        append("p", 1, 4, ["a", "b"], [1, 3]), append("q", 1, 4, ["c"], [2])]),
]  # fmt: skip

BANK = [
    Bad("money is made", bank, "money made", {1, 2, 3}, [snapshot("q", 1, 2, 50, 50), transfer("p", 3, 4, 10), snapshot("q", 5, 6, 50, 60)]),
    Bad("money is lost in a transfer of unknown outcome", bank, "money lost", {1, 3, 4}, [
        snapshot("q", 1, 2, 50, 50), transfer("p", 3, 4, 10), transfer("p", 5, None, 20), snapshot("q", 7, 8, 20, 60)]),
    Bad("a snapshot sees half a transfer", bank, "money lost", {1, 2}, [
        transfer("p", 1, 4, 10), snapshot("q", 2, 3, 40, 50), snapshot("q", 5, 6, 40, 60)]),
    Bad("an account below zero", bank, "overdrawn", {2}, [transfer("p", 1, 2, 60), snapshot("q", 3, 4, -10, 110)]),
]  # fmt: skip

ALL = [*REGISTERS, *SETS, *COUNTERS, *WRITERS, *EVENTS, *BANK]
