"""The register checker says what a search through every order says; it decides large histories; its explanations are small."""

from __future__ import annotations

from functools import cache
from math import inf
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jidosystem.testing import History, Operation
from jidosystem.testing.checkers import check_registers
from tests.testing.checkers import good


def has_an_order(operations: list[Operation]) -> bool:
    """Whether any order at all explains the answers of a register that held 0: by trying all of them."""
    told = [one for one in operations if one.outcome != "failed" and (one.kind != "read" or one.outcome == "ok")]
    ends = [inf if one.outcome == "unknown" else one.end for one in told]

    @cache
    def goes_on(left: frozenset[int], value: int) -> bool:
        if all(told[index].outcome == "unknown" for index in left):
            return True
        first_end = min(ends[index] for index in left)
        for index in left:
            if told[index].start <= first_end:
                after = effect(told[index], value)
                if after is not None and goes_on(left - {index}, after):
                    return True
        return False

    return goes_on(frozenset(range(len(told))), 0)


def effect(operation: Operation, value: int) -> int | None:
    """The value afterwards; None: it can't have happened at this one."""
    if operation.kind == "read":
        return value if operation.result == value else None
    if operation.kind == "write":
        return int(operation.argument)
    expected, new = operation.argument
    if operation.outcome == "ok" and not operation.result:
        return value if value != expected else None
    return int(new) if value == expected else None


def anything(random: Random, count: int, values: int, *, once: bool) -> list[Operation]:
    """A small history out of the blue."""
    found: list[Operation] = []
    for number in range(count):
        start = random.random() * count * 0.7
        kind = random.choice(["read", "read", "write", "cas"])
        outcome = random.choice(["ok"] * 6 + ["unknown", "failed"])
        new = number + 1 if once else random.randrange(values)
        argument = {"read": None, "write": new, "cas": [random.randrange(values), new]}[kind]
        result = {"read": random.randrange(values), "write": None, "cas": random.random() < 0.6}[kind] if outcome == "ok" else None
        end = start + random.choice([0.3, 1, 3]) * random.random()
        found.append(Operation(process="p", number=number, kind=kind, start=start, end=end, argument=argument, result=result, outcome=outcome))
    return found


@settings(max_examples=1_000)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 8), values=st.integers(1, 4), once=st.booleans())
def test_it_says_of_any_small_history_what_every_order_says(seed: int, count: int, values: int, once: bool) -> None:
    operations = anything(Random(seed), count, values, once=once)
    assert bool(check_registers(History(operations), initial=0)) is has_an_order(operations)


@settings(max_examples=500)
@given(seed=st.integers(0, 2**32), count=st.integers(4, 13), processes=st.integers(2, 6), values=st.sampled_from([None, 2, 4]))
def test_it_says_of_an_almost_good_history_what_every_order_says(seed: int, count: int, processes: int, values: int | None) -> None:
    random = Random(seed)
    operations = good.register(random, good.slots(random, count, processes), values=values, unknown=random.choice([0.0, 0.2]))
    assert has_an_order(operations)
    index = random.randrange(count)
    spoiled = operations[index]
    if spoiled.kind == "read" and spoiled.outcome == "ok":
        operations[index] = msgspec.structs.replace(spoiled, result=random.choice([one.result for one in operations if type(one.result) is int]))
    else:
        operations[index] = msgspec.structs.replace(spoiled, outcome=random.choice(["failed", "unknown"]))
    assert bool(check_registers(History(operations), initial=0)) is has_an_order(operations)


def test_a_spoiled_read_in_a_large_history_is_explained_by_a_few_operations() -> None:
    random = Random(3)
    operations = good.register(random, good.slots(random, 5_000, 16))
    reads = [index for index, one in enumerate(operations) if one.kind == "read" and one.outcome == "ok"]
    spoiled = operations[reads[-10]]
    operations[reads[-10]] = msgspec.structs.replace(spoiled, result=operations[reads[100]].result)
    verdict = check_registers(History(operations), initial=0)
    assert [one.what for one in verdict.wrong] in (["stale read"], ["lost write"])
    named = verdict.wrong[0].operations
    assert any(one.number == spoiled.number for one in named)
    assert len(named) <= 6, str(verdict)


def test_many_keys_are_judged_apart() -> None:
    random = Random(5)
    operations = [
        msgspec.structs.replace(one, process=f"{key}.{one.process}")
        for key in range(20)
        for one in good.register(random, good.slots(random, 200, 8), key=str(key))
    ]
    assert check_registers(History(operations), initial=0)
    bad = msgspec.structs.replace(next(one for one in operations if one.kind == "read" and one.outcome == "ok" and one.key == "7"), result=-5)
    verdict = check_registers(History([*operations, msgspec.structs.replace(bad, number=10_000)]), initial=0)
    assert [one.operations[0].key for one in verdict.wrong] == ["7"]


def test_a_search_that_needs_more_room_than_it_has_says_so() -> None:
    """Thirty writes of few values at once, then answers that need one particular choice among them."""
    writes = [Operation(process=f"p{n}", number=1, kind="write", start=0, end=100 + n, argument=n % 3, outcome="ok") for n in range(30)]
    reads = [Operation(process="r", number=n, kind="read", start=1 + n, end=1.5 + n, outcome="ok", result=(n * 7 // 2) % 3) for n in range(60)]
    verdict = check_registers(History([*writes, *reads]), initial=0, most=1)
    assert not verdict
    assert not verdict.wrong
    assert "write values that occur once" in verdict.undecided[0]


@pytest.mark.parametrize("value", ["a", None, 1.5, [1, [2, "x"]], {"n": 1, "m": [2]}, True])
def test_values_are_whatever_json_carries(value: object) -> None:
    operations = [
        Operation(process="p", number=1, kind="write", start=1, end=2, argument=value, outcome="ok"),
        Operation(process="p", number=2, kind="read", start=3, end=4, result=value, outcome="ok"),
    ]
    assert check_registers(History(operations), initial=0)
    assert not check_registers(History([operations[0], msgspec.structs.replace(operations[1], result="other")]), initial=0)


def test_true_is_not_one() -> None:
    operations = [
        Operation(process="p", number=1, kind="write", start=1, end=2, argument=1, outcome="ok"),
        Operation(process="p", number=2, kind="read", start=3, end=4, result=True, outcome="ok"),
    ]
    assert not check_registers(History(operations))
