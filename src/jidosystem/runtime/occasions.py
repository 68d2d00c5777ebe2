"""When a sensor runs: again after a while, or by the calendar. Each occasion counts until a run that began for it has ended well.

What is due is decided by pure functions of the time; here is only the waiting. The calendar follows the wall clock and
remembers, in the agent's record, when its last good run began: what went by while nothing ran comes as one run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from ..core.clock import Clock
from ..core.schedule import Cron, first_due

RECHECK_S = 1.0
"""How often the wall clock is looked at: how late a jump is noticed."""
AHEAD_S = 86_400.0
"""A last run so far in the future was noted by a clock that was wrong."""


class Occasion(Protocol):
    """When a sensor runs next."""

    async def wait(self) -> Mapping[str, Any]:
        """Return when it is to run, with what the run is given. Asked again before `done`, the same occasion stands."""
        ...

    async def done(self) -> None:
        """The run for it has ended well."""
        ...


def cron_due_s(schedule: Cron, ran_s: float, now_s: float) -> float:
    """When the first occurrence after the last good run is due; may lie in the past. A clock that was set back repeats nothing."""
    after_s = now_s if ran_s > now_s + AHEAD_S else ran_s
    return first_due(msgspec.structs.replace(schedule, start_s=after_s), 0.0)


class Periodic:
    """At once, then so long after the end of each good run."""

    __slots__ = ("_every_s", "_waits")

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._waits = False

    async def wait(self) -> Mapping[str, Any]:
        """See `Occasion`."""
        if self._waits:
            await asyncio.sleep(self._every_s)
            self._waits = False
        return {}

    async def done(self) -> None:
        """See `Occasion`."""
        self._waits = True


class Calendar:
    """By a cron expression; `note` stores when a good run began."""

    __slots__ = ("_clock", "_note", "_ran_s", "_schedule", "_started_s")

    def __init__(self, schedule: Cron, ran_s: float, clock: Clock, note: Callable[[float], Awaitable[None]]) -> None:
        self._schedule, self._ran_s, self._clock, self._note = schedule, ran_s, clock, note
        self._started_s = ran_s

    async def wait(self) -> Mapping[str, Any]:
        """See `Occasion`."""
        while True:
            now_s = self._clock.time_s()
            left_s = cron_due_s(self._schedule, self._ran_s, now_s) - now_s
            if left_s <= 0:
                self._started_s = now_s
                return {}
            await asyncio.sleep(min(left_s, RECHECK_S))

    async def done(self) -> None:
        """See `Occasion`."""
        await self._note(self._started_s)
        self._ran_s = self._started_s
