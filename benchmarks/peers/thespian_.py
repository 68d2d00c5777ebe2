"""Thespian (https://thespianpy.com): its `simpleSystemBase`, which runs every actor in the caller's thread."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from thespian.actors import Actor, ActorSystem

from ..measure import Run, resident_bytes


class Counter(Actor):
    value = 0

    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802 - Thespian's name
        if isinstance(message, int):
            self.value += message
            if message:
                return
            self.send(sender, self.value)
        elif message == "add":
            self.value += 1
            self.send(sender, self.value)


class Record(Actor):
    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802 - Thespian's name
        if isinstance(message, tuple):
            self.name, self.count, self.share = message


def ask(run: Run) -> None:
    """One caller."""
    n = run.some(50_000, 2_000)
    system = ActorSystem("simpleSystemBase")
    actor = system.createActor(Counter)

    def once() -> None:
        for _ in range(n):
            system.ask(actor, "add", 5)

    run.repeat_sync(n, once)
    system.shutdown()


def one_way(run: Run) -> None:
    """`tell`."""
    n = run.some(100_000, 2_000)
    system = ActorSystem("simpleSystemBase")
    actor = system.createActor(Counter)

    def once() -> None:
        for _ in range(n):
            system.tell(actor, 1)
        system.ask(actor, 0, 5)

    run.repeat_sync(n, once)
    system.shutdown()


def memory(run: Run) -> None:
    """Bytes of an idle actor with three small fields."""
    n = run.some(100_000, 2_000)
    system = ActorSystem("simpleSystemBase")
    system.tell(system.createActor(Record), ("warm", 0, 0.0))
    before, began = resident_bytes(), perf_counter()
    kept = []
    for number in range(n):
        actor = system.createActor(Record)
        system.tell(actor, (f"name-{number}", number + 1_000, number / 7))
        kept.append(actor)
    run.record(n / (perf_counter() - began), "spawn")
    run.record((resident_bytes() - before) / n)
    system.shutdown()
