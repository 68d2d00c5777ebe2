"""When which row expires, so that those whose time has come are found without reading all the others again.

What was read up to a position needn't be read again: a row that is written again stands behind it. Only the soonest are
remembered; when one that wasn't comes due, everything is read once more.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf

MOST = 100_000
"""Rows that are remembered, of a partition."""


class Schedule:
    """See the module. `position`: the sequence up to which rows were read."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._soonest: list[tuple[float, str, int]] = []
        self._forgotten_s = inf
        self.position = 0

    def add(self, expires_s: float, subject: str, sequence: int) -> None:
        """A row expires then, if it is still the one with that sequence."""
        if expires_s >= self._forgotten_s:
            return
        heappush(self._soonest, (expires_s, subject, sequence))
        if len(self._soonest) > self._most:
            kept = max(1, self._most // 2)
            self._soonest.sort()  # a sorted list is a heap
            self._forgotten_s = self._soonest[kept][0]
            del self._soonest[kept:]

    def due(self, now_s: float, limit: int) -> list[tuple[float, str, int]]:
        """Up to so many whose time has come; they are forgotten."""
        found: list[tuple[float, str, int]] = []
        while self._soonest and self._soonest[0][0] <= now_s and len(found) < limit:
            found.append(heappop(self._soonest))
        return found

    def is_incomplete(self, now_s: float) -> bool:
        """Whether one that isn't remembered may be due."""
        return now_s >= self._forgotten_s and not (self._soonest and self._soonest[0][0] <= now_s)

    def begin_anew(self) -> None:
        """Read everything again."""
        self._soonest, self._forgotten_s, self.position = [], inf, 0
