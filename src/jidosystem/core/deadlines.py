"""The deadlines of a node: one timer wheel for all of them, and a line for those who are answered in the order they come.

To add an entry to the wheel or to discard it costs about as much as a dictionary does. Entries lie in one dictionary per tick, and
expire in the order in which they were added, so that a run can be had again; the event loop has at most one timer for all of
them. An entry expires never before its deadline and, if the loop isn't busy, at most a tick after it. Nothing walks empty
ticks: a deadline may be days away. The timer of an entry that was discarded may remain until its time; it then finds nothing
and isn't set again.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle
from collections import deque
from heapq import heapify, heappop, heappush
from math import inf
from typing import Protocol

_SWEEP_AT = 64


class Expires(Protocol):
    """An entry. `slot` belongs to the wheel and is None to begin with; entries are told apart by identity."""

    slot: int | None

    def expire(self, now: float) -> None:
        """The deadline has passed; `now` is the loop's time. Called once; may add and discard entries, also itself."""
        ...


class InLine(Protocol):
    """An entry of a `Line`."""

    answered: bool
    deadline: float | None

    def expire(self, now: float) -> None:
        """The deadline has passed; `now` is the loop's time."""
        ...


class Line:
    """The deadlines of those who are answered in the order in which they come, all with about the same patience.

    An entry costs an append, and nothing need be discarded: the first in line leaves when the next one comes and it has
    been answered. One whose deadline is earlier than that of somebody before it, who still waits, expires with that one.
    """

    __slots__ = ("_entries", "_handle", "_loop")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._entries: deque[InLine] = deque()
        self._handle: TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: InLine) -> bool:
        """Expire the entry when the loop's time has passed its deadline and it hasn't been answered; whether nobody stands before it."""
        entries = self._entries
        while entries and entries[0].answered:
            entries.popleft()
        first = not entries
        if entry.deadline != inf:
            entries.append(entry)
            if self._handle is None:
                self._arm()
        return first

    def clear(self) -> None:
        """Forget everybody and let go of the loop."""
        self._entries.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self) -> None:
        deadline = self._entries[0].deadline
        assert deadline is not None
        self._handle = self._loop.call_at(deadline, self._look)

    def _look(self) -> None:
        self._handle = None
        now, entries = self._loop.time(), self._entries
        while entries and (entries[0].answered or (entries[0].deadline or 0.0) <= now):
            entry = entries.popleft()
            if not entry.answered:
                _expire(entry, now, self._loop)
        if entries:
            self._arm()


def _expire(entry: Expires | InLine, now: float, loop: AbstractEventLoop) -> None:
    try:
        entry.expire(now)
    except Exception as error:  # the loop's own handler hears of it; the others expire all the same
        loop.call_exception_handler({"message": f"{entry!r} failed to expire", "exception": error})


class Deadlines:
    """The wheel of one event loop. Only for that loop's thread."""

    __slots__ = ("_handle", "_heap", "_loop", "_next", "_per_s", "_slots", "_sweep_at", "_tick_s")

    def __init__(self, loop: AbstractEventLoop, tick_s: float = 0.02) -> None:
        self._loop = loop
        self._tick_s = tick_s
        self._per_s = 1 / tick_s
        self._slots: dict[int, dict[Expires, None]] = {}
        self._heap: list[int] = []  # the numbers of the slots; may hold some that are gone
        self._handle: TimerHandle | None = None
        self._next = 0  # the slot that the timer is set for
        self._sweep_at = _SWEEP_AT

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

    def add(self, deadline: float, entry: Expires) -> None:
        """Expire the entry when the loop's time has passed `deadline` (infinity: never); one that is in is moved."""
        if entry.slot is not None:
            self.discard(entry)
        try:
            slot = int(deadline * self._per_s) + 1
        except OverflowError:
            return
        entry.slot = slot
        try:
            self._slots[slot][entry] = None
        except KeyError:
            self._slots[slot] = {entry: None}
            heappush(self._heap, slot)
            if self._handle is None or slot < self._next:
                self._arm()

    def discard(self, entry: Expires) -> None:
        """Take an entry out; nothing happens if it isn't in."""
        slot = entry.slot
        if slot is None:
            return
        entry.slot = None
        entries = self._slots[slot]
        del entries[entry]
        if not entries and len(self._slots) > self._sweep_at:
            self._sweep()

    def clear(self) -> None:
        """Take every entry out and let go of the loop."""
        for entries in self._slots.values():
            for entry in entries:
                entry.slot = None
        self._slots.clear()
        self._heap.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _sweep(self) -> None:
        """Forget empty slots: done when their number has doubled, so it costs each entry next to nothing."""
        self._slots = {slot: entries for slot, entries in self._slots.items() if entries}
        self._heap = list(self._slots)
        heapify(self._heap)
        self._sweep_at = 2 * len(self._slots) + _SWEEP_AT

    def _arm(self) -> None:
        heap = self._heap
        while heap and not self._slots.get(heap[0]):  # empty, or forgotten
            self._slots.pop(heappop(heap), None)
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if heap:
            self._next = heap[0]
            self._handle = self._loop.call_at(self._next * self._tick_s, self._turn)

    def _turn(self) -> None:
        self._handle = None
        now = self._loop.time()
        heap, due = self._heap, []
        while heap and heap[0] * self._tick_s <= now:
            due.append(heappop(heap))
        try:
            for slot in due:
                self._expire(slot, now)
        finally:
            for slot in due:
                # What was added meanwhile with a deadline in the past waits for the next turn of the loop.
                if self._slots.get(slot):
                    heappush(self._heap, slot)
                else:
                    self._slots.pop(slot, None)
            self._arm()

    def _expire(self, slot: int, now: float) -> None:
        for entry in tuple(self._slots.get(slot, ())):
            if entry.slot != slot:  # discarded by one that expired before it
                continue
            del self._slots[slot][entry]
            entry.slot = None
            _expire(entry, now, self._loop)
