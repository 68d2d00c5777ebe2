"""How the interpreter's garbage collector is set while a node runs.

Live agents are many objects that stay, and calls are many objects that go by themselves, by reference counts. A collector
that looks at the young ones every 700 allocations, and at all of them now and then, costs a busy node a quarter of its
time and finds nothing. What is set here is the whole process's: it is put back when the node closes.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

YOUNG = 50_000
"""Objects made, and not freed, before the young ones are looked at; Python's own is 700 to 2,000."""
FREEZE_EVERY = 1_000
"""Agents that came to life since the last time."""


class Collector:
    """See the module. A process that has chosen a higher threshold itself, or switched the collector off, keeps its choice."""

    __slots__ = ("_before", "_frozen", "_live_agents")

    def __init__(self, live_agents: Callable[[], int]) -> None:
        self._live_agents = live_agents
        self._before: tuple[int, int, int] | None = None
        self._frozen = 0

    def relax(self) -> None:
        """Look less often."""
        before = gc.get_threshold()
        if 0 < before[0] < YOUNG:
            self._before = before
            gc.set_threshold(YOUNG, *before[1:])
        gc.callbacks.append(self._looked)

    def restore(self) -> None:
        """Put back what was there before, unless somebody has changed it since."""
        if self._looked in gc.callbacks:
            gc.callbacks.remove(self._looked)
        before, self._before = self._before, None
        if before is not None and gc.get_threshold()[0] == YOUNG:
            gc.set_threshold(*before)

    def _looked(self, phase: str, _info: dict[str, int]) -> None:
        """The collector has looked at the young: who has come to life is of no further interest, it would walk all of them again and again."""
        if phase == "stop" and (live_agents := self._live_agents()) > self._frozen + FREEZE_EVERY:
            self._frozen = live_agents
            gc.freeze()
