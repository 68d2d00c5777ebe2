"""Lanes: which events of a log may be handled now. A pure machine; times are passed in.

Each event belongs to any number of lanes (keys). Within a lane one batch is under way at a time, in log order; lanes
don't wait for each other. A lane that fails waits out a growing delay, and an event that has had its last attempt is
handed back to be buried. The trailing position is below the lowest event that any lane still owes: whoever starts
again there misses nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple

from .events import Event

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 30.0
MAX_TOLD_DELAY_S = 600.0
"""The longest that a receiver's own word ("come again in …") holds a lane up."""


class Lane:
    """The events of one key that are still to be handled."""

    __slots__ = ("attempts", "busy", "key", "place", "queue", "single", "tries", "visiting", "visitors", "waits", "wanted")

    def __init__(self, key: str) -> None:
        self.key = key
        self.queue: deque[Event] = deque()
        self.visitors: deque[Visit] | None = None
        self.busy = 0  # how many events of the front are under way
        self.attempts = 0  # of the first event, those that count
        self.tries = 0  # failures in a row, counted or not: what delays grow by
        self.single = 0  # so many events go one by one, to find the one that made their batch fail
        self.visiting = False  # what is under way is a visitor
        self.waits = 0  # the number of its entry among the delayed; 0: it waits out nothing
        self.wanted = False  # it was hurried while it was under way
        self.place: deque[Lane] | None = None  # where it stands among those that may start


class Visit(NamedTuple):
    """An event that comes from elsewhere than the log and has the lane to itself for once; `token` is its bringer's."""

    event: Event
    token: Any


class Work(NamedTuple):
    """What may start: a batch of a lane, or a visitor (`token` is then the bringer's)."""

    lane: Lane
    events: list[Event]
    token: Any


class Lanes:
    """See the module. `batch`: how many events go together; `max_attempts`: how often one event may fail."""

    __slots__ = ("_batch", "_count", "_delayed", "_full", "_lanes", "_max_attempts", "_owed", "_ready", "_stale", "position", "size")

    def __init__(self, position: int, batch: int = 1, max_attempts: int = 5) -> None:
        self._batch = batch
        self._max_attempts = max_attempts
        self._lanes: dict[str, Lane] = {}
        self._ready: deque[Lane] = deque()  # lanes with work and nothing under way, in order of coming
        self._full: deque[Lane] = deque()  # … and with a whole batch of it
        self._delayed: list[tuple[float, int, Lane]] = []  # a heap: lanes that wait until a time; entries of other numbers than the lane's are stale
        self._count = self._stale = 0
        self._owed: dict[int, int] = {}  # position -> lanes that haven't finished it, in log order
        self.position = position  # the last event offered
        self.size = 0  # events owed, once for each of their lanes

    # -- in --------------------------------------------------------------------------------------------------------

    def offer(self, event: Event, keys: Iterable[str]) -> None:
        """The next event of the log, and whose it is."""
        self.position = event.position
        count = 0
        for key in keys:
            lane = self._lanes.get(key)
            if lane is None:
                lane = self._lanes[key] = Lane(key)
                lane.place = self._ready
                self._ready.append(lane)
            elif lane.queue and lane.queue[-1] is event:
                continue  # the same key twice
            lane.queue.append(event)
            if len(lane.queue) == self._batch > 1 and lane.place is self._ready and not lane.single:
                self._ready.remove(lane)
                self._may_start(lane)
            count += 1
        if count:
            self._owed[event.position] = count
            self.size += count

    def visit(self, key: str, event: Event, token: Any) -> None:
        """Let an event that was handled before have its lane to itself, as soon as the lane is free. It isn't repeated.

        A lane that waits out a delay doesn't wait any longer: the visitor shows whether the trouble is over.
        """
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key)
            self._may_start(lane)
        elif lane.waits:
            self._wait_no_longer(lane)
        if lane.visitors is None:
            lane.visitors = deque()
        lane.visitors.append(Visit(event, token))

    def hurry(self, key: str) -> None:
        """A lane that rests may go on: its receiver takes something again."""
        lane = self._lanes.get(key)
        if lane is not None and lane.waits:
            self._wait_no_longer(lane)
        elif lane is not None and lane.busy:
            lane.wanted = True

    # -- out -------------------------------------------------------------------------------------------------------

    def take(self, now: float, *, full: bool = False) -> Work | None:
        """The next that may start, under way until `finish` or `fail`; None if nothing may. `full`: only with a whole batch."""
        delayed = self._delayed
        while delayed and delayed[0][0] <= now:
            _until, number, lane = heappop(delayed)
            if lane.waits == number:
                lane.waits = 0
                self._may_start(lane)
            else:
                self._stale -= 1
        if self._ready and not full:
            lane = self._ready.popleft()
        elif self._full:
            lane = self._full.popleft()
        else:
            return None
        lane.place = None
        if lane.visitors:
            lane.visiting = True
            return Work(lane, [lane.visitors[0].event], lane.visitors[0].token)
        queue = lane.queue
        if self._batch == 1 or lane.single:
            lane.busy = 1
            return Work(lane, [queue[0]], None)
        count = lane.busy = min(self._batch, len(queue))
        return Work(lane, [queue[i] for i in range(count)], None)

    def next_time(self) -> float | None:
        """When the first lane that waits out a delay may go on; None if none does."""
        delayed = self._delayed
        while delayed and delayed[0][2].waits != delayed[0][1]:
            heappop(delayed)
            self._stale -= 1
        return delayed[0][0] if delayed else None

    @property
    def ready(self) -> bool:
        """Whether a lane could start that waits out no delay."""
        return bool(self._ready)

    @property
    def trailing(self) -> int:
        """Everything up to here is finished."""
        return next(iter(self._owed)) - 1 if self._owed else self.position

    # -- outcomes --------------------------------------------------------------------------------------------------

    def finish(self, lane: Lane) -> None:
        """What was under way is done: handled, or buried."""
        if lane.visiting:
            self._end_visit(lane)
            return
        owed = self._owed
        for _ in range(lane.busy):
            position = lane.queue.popleft().position
            left = owed[position] - 1
            if left:
                owed[position] = left
            else:
                del owed[position]
        self.size -= lane.busy
        if lane.tries or lane.single:
            lane.single = max(0, lane.single - lane.busy)
            lane.attempts = lane.tries = 0
        self._put_back(lane)

    def fail(self, lane: Lane, now: float, random01: float, *, counted: bool = True, final: bool = False, least_s: float = 0.0) -> Event | None:
        """What was under way failed; it comes again after a growing delay of at least `least_s`.

        A batch comes again one by one. `counted=False`: a passing trouble that isn't the event's fault. Returns the
        event if this was its last attempt (`final` says so at once): it stays under way, to be buried and then
        finished; or to be failed once more, uncounted, if it couldn't be.
        """
        if lane.visiting:
            self._end_visit(lane)  # its bringer is told, and brings it again if it likes
            return None
        if counted and lane.busy > 1:
            lane.single = lane.busy
            self._put_back(lane)
            return None
        lane.attempts += counted
        if counted and (final or lane.attempts >= self._max_attempts):
            return lane.queue[0]
        lane.tries += 1
        delay_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(lane.tries - 1, 20)) * (0.5 + random01 / 2)
        self._delay(lane, now + max(delay_s, min(least_s, MAX_TOLD_DELAY_S)))
        return None

    def rest(self, lane: Lane, until: float) -> None:
        """What was under way isn't taken just now: it comes again when the lane is hurried, at the latest at a time. No attempt, no visitor's."""
        if lane.wanted:
            lane.wanted = False
            self._put_back(lane)
        else:
            self._delay(lane, until)

    def _wait_no_longer(self, lane: Lane) -> None:
        lane.waits = 0
        self._may_start(lane)
        self._stale += 1
        if self._stale > 16 + len(self._delayed) // 2:
            self._delayed = [entry for entry in self._delayed if entry[2].waits == entry[1]]
            heapify(self._delayed)
            self._stale = 0

    def _end_visit(self, lane: Lane) -> None:
        lane.visiting = False
        if lane.visitors:
            lane.visitors.popleft()
        self._put_back(lane)

    def _delay(self, lane: Lane, until: float) -> None:
        lane.busy = 0
        self._count += 1
        lane.waits = self._count
        heappush(self._delayed, (until, self._count, lane))

    def _may_start(self, lane: Lane) -> None:
        lane.place = self._full if 1 < self._batch <= len(lane.queue) and not lane.single else self._ready
        lane.place.append(lane)

    def _put_back(self, lane: Lane) -> None:
        lane.busy = 0
        if lane.queue or lane.visitors:
            self._may_start(lane)
        else:
            del self._lanes[lane.key]
