"""Histories of correct systems, drawn by a random number generator: clients one after the other, operations that take effect at one instant within
theirs, some whose outcome nobody is told and that take effect later or never, and some that are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from random import Random
from typing import Any, NamedTuple

from jidosystem.testing import Operation


class Slot(NamedTuple):
    """An operation to be: its effect comes at `at`."""

    at: float
    number: int
    process: str
    start: float
    end: float


def slots(random: Random, count: int, processes: int) -> list[Slot]:
    """So many operations of so many processes, each one after the other."""
    free = [0.0] * processes
    found: list[Slot] = []
    for number in range(count):
        process = min(range(processes), key=free.__getitem__)
        start = free[process] + random.random() * 0.2
        end = start + random.random() ** 2 * 2 + 1e-6
        found.append(Slot(start + (end - start) * random.random(), number, f"p{process}", start, end))
        free[process] = end + 1e-6
    return found


ASKS = ("read", "page", "snapshot")
"""What changes nothing: one whose answer nobody had is as if it hadn't been."""
Effect = Callable[[], tuple[Any, bool]]


class Plan(NamedTuple):
    """What an operation does: its kind and argument; `effect` changes the model and returns the result and whether it happened."""

    kind: str
    argument: Any
    effect: Effect


def happen(
    random: Random, places: list[Slot], plan: Callable[[Slot], Plan], *, key: str, unknown: float, failed: float = 0.05
) -> Iterator[Operation]:
    """Let everything take effect in the order of instants. Plans are made then, so that they may look at the model."""
    queue: list[tuple[float, int, Slot, Effect | None]] = [(slot.at, slot.number, slot, None) for slot in places]
    heapify(queue)
    while queue:
        _at, number, slot, late = heappop(queue)
        if late is not None:
            late()
            continue
        kind, argument, effect = plan(slot)
        known: dict[str, Any] = {"process": slot.process, "number": number, "kind": kind, "key": key, "start": slot.start, "end": slot.end}
        lot = random.random()
        if lot < unknown:
            yield Operation(**known, argument=argument)
            if kind not in ASKS and random.random() < 0.7:
                heappush(queue, (slot.at + random.random() * random.choice([0, 5]), number, slot, effect))
        elif lot < unknown + failed:
            yield Operation(**known, argument=argument, outcome="failed")
        else:
            result, happened = effect()
            yield Operation(**known, argument=argument, result=result, outcome="ok" if happened else "failed")


def register(random: Random, places: list[Slot], *, key: str = "x", unknown: float = 0.1, values: int | None = None) -> list[Operation]:
    """A register that held 0; `values`: how many there are, None: each is written once."""
    state = 0
    written = 0
    recent = [0]

    def read() -> tuple[Any, bool]:
        return state, True

    def put(expected: int | None, new: int) -> tuple[Any, bool]:
        nonlocal state
        fits = expected is None or expected == state
        if fits:
            state = new
        recent.append(state)
        return (fits if expected is not None else None), True

    def plan(_slot: Slot) -> Plan:
        nonlocal written
        kind = random.choice(["read", "read", "write", "cas"])
        if kind == "read":
            return Plan(kind, None, read)
        written += 1
        new = written if values is None else random.randrange(values)
        if kind == "write":
            return Plan(kind, new, lambda: put(None, new))
        expected = state if random.random() < 0.7 else random.choice(recent[-5:])
        return Plan(kind, [expected, new], lambda: put(expected, new))

    return list(happen(random, places, plan, key=key, unknown=unknown))


def a_set(random: Random, places: list[Slot], *, key: str = "x", unknown: float = 0.1) -> list[Operation]:
    """A set, at first empty."""
    state: list[int] = []

    def add(element: int) -> tuple[Any, bool]:
        state.append(element)
        return None, True

    def plan(slot: Slot) -> Plan:
        if random.random() < 0.3:
            return Plan("read", None, lambda: (list(state), True))
        return Plan("add", slot.number, lambda: add(slot.number))

    return list(happen(random, places, plan, key=key, unknown=unknown))


def counter(random: Random, places: list[Slot], *, key: str = "x", unknown: float = 0.1, least: int = -2) -> list[Operation]:
    """A counter that held 0; some increments answer the sum. `least`: the smallest increment."""
    state = 0

    def add(amount: int, *, tells: bool) -> tuple[Any, bool]:
        nonlocal state
        state += amount
        return state if tells else None, True

    def plan(_slot: Slot) -> Plan:
        if random.random() < 0.3:
            return Plan("read", None, lambda: (state, True))
        amount, tells = random.randrange(least, 4), random.random() < 0.5
        return Plan("increment", amount, lambda: add(amount, tells=tells))

    return list(happen(random, places, plan, key=key, unknown=unknown))


def writers(random: Random, places: list[Slot], *, key: str = "Counter/a", unknown: float = 0.1) -> list[Operation]:
    """An agent that nodes claim from each other under incarnations of their own; an old one's commits are refused."""
    owner, revision = -1, 0
    incarnations: dict[str, int] = {}

    def write(incarnation: int, *, claims: bool) -> tuple[Any, bool]:
        nonlocal owner, revision
        if incarnation < owner if claims else incarnation != owner:
            return None, False
        owner = incarnation
        revision += 1
        return {"revision": revision}, True

    def plan(slot: Slot) -> Plan:
        claims = random.random() < 0.3
        if claims:
            incarnations[slot.process] = slot.number
        incarnation = incarnations.setdefault(slot.process, slot.number)
        return Plan("claim" if claims else "commit", {"incarnation": incarnation}, lambda: write(incarnation, claims=claims))

    return list(happen(random, places, plan, key=key, unknown=unknown))


def events(random: Random, places: list[Slot], *, key: str = "s", unknown: float = 0.1) -> list[Operation]:
    """A log with gaps between positions; readers that follow it and readers that read it to the end."""
    log: list[list[Any]] = []
    seen: dict[str, int] = {}

    def append(ids: list[str]) -> tuple[Any, bool]:
        first = (log[-1][0] if log else 0) + random.randrange(1, 4)
        log.extend([first + index, id_] for index, id_ in enumerate(ids))
        return [first + index for index in range(len(ids))], True

    def follow(process: str, after: int, most: int) -> tuple[Any, bool]:
        found = [list(entry) for entry in log if entry[0] > after][:most]
        seen[process] = found[-1][0] if found else after
        return found, True

    def plan(slot: Slot) -> Plan:
        lot = random.random()
        if lot < 0.4:
            ids = [f"{slot.number}.{index}" for index in range(random.randrange(1, 4))]
            return Plan("append", ids, lambda: append(ids))
        if lot < 0.7:
            after = seen.get(slot.process, 0)
            return Plan("page", {"after": after, "to_end": False}, lambda: follow(slot.process, after, random.randrange(1, 5)))
        after = random.choice([0, *(entry[0] for entry in log)])
        return Plan("page", {"after": after, "to_end": True}, lambda: ([list(entry) for entry in log if entry[0] > after], True))

    return list(happen(random, places, plan, key=key, unknown=unknown))


def bank(random: Random, places: list[Slot], *, key: str = "bank", unknown: float = 0.1) -> list[Operation]:
    """Three accounts that hold 100 together."""
    state = {"a": 40, "b": 30, "c": 30}

    def move(payer: str, payee: str, amount: int) -> tuple[Any, bool]:
        if state[payer] < amount:
            return None, False
        state[payer] -= amount
        state[payee] += amount
        return None, True

    def plan(_slot: Slot) -> Plan:
        if random.random() < 0.3:
            return Plan("snapshot", None, lambda: (dict(state), True))
        payer, payee = random.sample(["a", "b", "c"], 2)
        amount = random.randrange(1, 30)
        return Plan("transfer", {"from": payer, "to": payee, "amount": amount}, lambda: move(payer, payee, amount))

    return list(happen(random, places, plan, key=key, unknown=unknown))
