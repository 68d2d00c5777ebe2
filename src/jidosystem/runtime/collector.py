"""How the interpreter's garbage collector is set while a node runs.

Live agents are many objects that stay, and calls are many objects that go by themselves, by reference counts. A collector
that looks at the young ones every 700 allocations, and at all of them now and then, costs a busy node a quarter of its
time and finds nothing. What is set here is the whole process's: it is put back when the node closes.
"""

from __future__ import annotations

import gc

YOUNG = 10_000
"""Objects made, and not freed, before the young ones are looked at; Python's own is 700 to 2,000."""
FREEZE_EVERY = 5_000
"""Agents that came to life since the last time."""


class Collector:
    """See the module. A process that has chosen a higher threshold itself, or switched the collector off, keeps its choice."""

    __slots__ = ("_before", "_frozen")

    def __init__(self) -> None:
        self._before: tuple[int, int, int] | None = None
        self._frozen = 0

    def relax(self) -> None:
        """Look less often."""
        before = gc.get_threshold()
        if 0 < before[0] < YOUNG:
            self._before = before
            gc.set_threshold(YOUNG, *before[1:])

    def restore(self) -> None:
        """Put back what was there before, unless somebody has changed it since."""
        before, self._before = self._before, None
        if before is not None and gc.get_threshold()[0] == YOUNG:
            gc.set_threshold(*before)

    def came_to_life(self, live_agents: int) -> None:
        """What lives long is of no interest to the collector: it would walk all of it, again and again."""
        if live_agents > self._frozen + FREEZE_EVERY:
            self._frozen = live_agents
            gc.collect(1)
            gc.freeze()
