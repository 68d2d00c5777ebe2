"""Lanes: which events of a log may be handled now. A pure machine; times are passed in.

Each event belongs to any number of lanes (keys). Within a lane one batch is under way at a time, in log order;
lanes don't wait for each other. The trailing position is below the lowest event that any lane still owes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from .events import Event

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 30.0


class Lane:
    """The events of one key that are still to be handled."""

    __slots__ = ("attempts", "busy", "key", "not_before", "queue", "single")

    def __init__(self, key: str) -> None:
        self.key = key
        self.queue: deque[Event] = deque()
        self.busy = 0  # how many events of the front are under way
        self.attempts = 0
        self.not_before = 0.0
        self.single = 0  # so many events go one by one, to find the one that made their batch fail


class Lanes:
    """See the module. `batch`: how many events go together."""

    __slots__ = ("_batch", "_lanes", "_owed", "_ready", "position", "size")

    def __init__(self, position: int, batch: int = 1) -> None:
        self._batch = batch
        self._lanes: dict[str, Lane] = {}
        self._ready: dict[str, None] = {}  # lanes with work and nothing under way, in order of coming
        self._owed: dict[int, int] = {}  # position -> lanes that haven't finished it, in log order
        self.position = position  # the last event offered
        self.size = 0

    def offer(self, event: Event, keys: Iterable[str]) -> None:
        """The next event of the log, and whose it is."""
        self.position = event.position
        count = 0
        for key in dict.fromkeys(keys):
            lane = self._lanes.get(key)
            if lane is None:
                lane = self._lanes[key] = Lane(key)
            lane.queue.append(event)
            if not lane.busy:
                self._ready[key] = None
            count += 1
        if count:
            self._owed[event.position] = count
            self.size += count

    @property
    def trailing(self) -> int:
        """Everything up to here is finished."""
        return next(iter(self._owed)) - 1 if self._owed else self.position

    def take(self, now: float) -> Iterator[tuple[Lane, list[Event]]]:
        """Batches that may start now; each is under way until `finish` or `fail`."""
        for key in list(self._ready):
            lane = self._lanes[key]
            if lane.not_before > now:
                continue
            del self._ready[key]
            count = 1 if lane.single else min(self._batch, len(lane.queue))
            lane.busy = count
            yield lane, [lane.queue[i] for i in range(count)]

    def next_time(self) -> float | None:
        """When the first lane that waits out a delay may go on; None if none does."""
        times = [self._lanes[key].not_before for key in self._ready]
        return min(times) if times else None

    def finish(self, lane: Lane) -> None:
        """What was under way is done."""
        for _ in range(lane.busy):
            event = lane.queue.popleft()
            left = self._owed[event.position] - 1
            if left:
                self._owed[event.position] = left
            else:
                del self._owed[event.position]
            self.size -= 1
        lane.single = max(0, lane.single - lane.busy)
        lane.attempts, lane.not_before = 0, 0.0
        self._put_back(lane)

    def fail(self, lane: Lane, now: float, random01: float, *, counted: bool) -> None:
        """What was under way failed; it comes again after a growing delay. A batch comes one by one."""
        if lane.busy > 1:
            lane.single = lane.busy
        else:
            lane.attempts += counted
        delay_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(max(lane.attempts - 1, 0), 20))
        lane.not_before = now if lane.busy > 1 and counted else now + delay_s * (0.5 + random01 / 2)
        self._put_back(lane)

    def _put_back(self, lane: Lane) -> None:
        lane.busy = 0
        if lane.queue:
            self._ready[lane.key] = None
        else:
            del self._lanes[lane.key]
