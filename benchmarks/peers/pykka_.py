"""Pykka (https://pykka.readthedocs.io): a thread for each actor."""

from __future__ import annotations

import threading
from time import perf_counter

import pykka

from ..measure import Run, resident_bytes


class Counter(pykka.ThreadingActor):
    def __init__(self) -> None:
        super().__init__()
        self.value = 0

    def on_receive(self, message: int) -> int:
        self.value += message
        return self.value


class Record(pykka.ThreadingActor):
    def __init__(self, name: str, count: int, share: float) -> None:
        super().__init__()
        self.name, self.count, self.share = name, count, share


def ask(run: Run) -> None:
    """One caller."""
    n = run.some(10_000, 500)
    actor = Counter.start()

    def once() -> None:
        for _ in range(n):
            actor.ask(1)

    run.repeat_sync(n, once)
    pykka.ActorRegistry.stop_all()


def ask_100(run: Run) -> None:
    """100 callers, 100 actors: a future each, then all answers."""
    n = run.some(10_000, 500)
    actors = [Counter.start() for _ in range(100)]

    def caller(actor: pykka.ActorRef[Counter]) -> None:
        for _ in range(n // 100):
            actor.ask(1)

    def once() -> None:
        threads = [threading.Thread(target=caller, args=(actor,)) for actor in actors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    run.repeat_sync(n, once)
    pykka.ActorRegistry.stop_all()


def one_way(run: Run) -> None:
    """`tell`."""
    n = run.some(100_000, 2_000)
    actor = Counter.start()

    def once() -> None:
        for _ in range(n):
            actor.tell(1)
        actor.ask(0)

    run.repeat_sync(n, once)
    pykka.ActorRegistry.stop_all()


def memory(run: Run) -> None:
    """Bytes of an idle actor with three small fields."""
    n = run.some(2_000, 200)
    Record.start("warm", 0, 0.0)
    before, began = resident_bytes(), perf_counter()
    for number in range(n):
        Record.start(f"name-{number}", number + 1_000, number / 7)
    run.record(n / (perf_counter() - began), "spawn")
    run.record((resident_bytes() - before) / n)
    pykka.ActorRegistry.stop_all()
