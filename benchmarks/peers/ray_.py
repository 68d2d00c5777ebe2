"""Ray (https://ray.io): a process for each actor."""

from __future__ import annotations

from typing import Any

import ray

from ..measure import Run


@ray.remote(num_cpus=0)
class Counter:
    def __init__(self) -> None:
        self.value = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value


def ask(run: Run) -> None:
    """One caller."""
    n = run.some(1_000, 50)
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", configure_logging=False)
    actor: Any = Counter.remote()

    def once() -> None:
        for _ in range(n):
            ray.get(actor.add.remote(1))

    run.repeat_sync(n, once)
    ray.shutdown()


def one_way(run: Run) -> None:
    """Calls whose answers nobody waits for, until the last."""
    n = run.some(5_000, 50)
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", configure_logging=False)
    actor: Any = Counter.remote()

    def once() -> None:
        for _ in range(n):
            actor.add.remote(1)
        ray.get(actor.add.remote(0))

    run.repeat_sync(n, once)
    ray.shutdown()
