"""One timer wheel for all deadlines: entering and leaving cost a set operation, not a timer of the loop.

Entries lie in a dictionary of slots, `tick_s` apart; only slots that hold something exist, and a single timer of the
loop stands at the next of them. An entry fires never before its deadline and at most about one tick after it.
"""

from __future__ import annotations

import asyncio
import heapq
from typing import Protocol


class Entry(Protocol):
    """Something with a deadline; `slot` belongs to the wheel."""

    slot: int | None

    def expire(self, now: float) -> None:
        """The deadline has passed; `now` is the loop's time."""
        ...


class Deadlines:
    """See the module. Times are those of `loop.time()`, in seconds."""

    __slots__ = ("_armed", "_handle", "_loop", "_order", "_slots", "_tick_s")

    def __init__(self, loop: asyncio.AbstractEventLoop, tick_s: float = 0.02) -> None:
        self._loop = loop
        self._tick_s = tick_s
        self._slots: dict[int, set[Entry]] = {}
        self._order: list[int] = []  # a heap of the slots' numbers
        self._handle: asyncio.TimerHandle | None = None
        self._armed = 0

    def add(self, deadline: float, entry: Entry) -> None:
        """Have `entry.expire` called once the deadline has passed."""
        number = int(deadline / self._tick_s) + 1
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = set()
            heapq.heappush(self._order, number)
            if self._handle is None or number < self._armed:
                self._arm(number)
        slot.add(entry)
        entry.slot = number

    def discard(self, entry: Entry) -> None:
        """Forget an entry; no error if it has fired or was never there."""
        number = entry.slot
        if number is not None:
            entry.slot = None
            slot = self._slots.get(number)
            if slot is not None:
                slot.discard(entry)

    def clear(self) -> None:
        """Forget everything."""
        self._slots.clear()
        self._order.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, number: int) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed = number
        self._handle = self._loop.call_at(number * self._tick_s, self._tick)

    def _tick(self) -> None:
        self._handle = None
        now = self._loop.time()
        while self._order and self._order[0] * self._tick_s <= now:
            for entry in self._slots.pop(heapq.heappop(self._order)):
                if entry.slot is None:
                    continue
                entry.slot = None
                try:
                    entry.expire(now)
                except Exception as error:  # one entry's fault must not keep the others waiting
                    self._loop.call_exception_handler({"message": "a deadline's entry failed", "exception": error})
        while self._order and not self._slots[self._order[0]]:
            del self._slots[heapq.heappop(self._order)]
        if self._order:
            self._arm(self._order[0])
