"""Durable subscriptions: a position that is kept, retries, and dead letters; the driver around the lanes machine.

At least once per lane, in log order; after a restart it goes on from the trailing position, and receivers drop
what they have had. The position is stored about once a second and at the end, never once an event.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec

from .clock import Clock
from .codec import decode, encode
from .dead_letters import DeadLetter, DeadLetters
from .eager import start_eagerly
from .errors import Conflict, InvalidArguments, RefusedError, StoreError, describe
from .events import Event
from .lanes import Lane, Lanes
from .log import EventLog
from .observability import logger
from .records import Records

TYPE = "jido.subscription"
LOOK_AHEAD = 20_000
"""How many events may be read and unfinished before reading waits."""
STORE_EVERY_S = 1.0

LaneOf = Callable[[Event], str | Iterable[str] | None]
Deliver = Callable[[str, Sequence[Event]], Awaitable[None]]


class DurableSubscription:
    """`deliver(lane, events)` returns when they are handled for good; what it raises is retried, then buried.

    `RefusedError` and `StoreError` are passing troubles: retried without end and without counting.
    """

    def __init__(
        self, name: str, log: EventLog, records: Records, *, lane_of: LaneOf, deliver: Deliver, matches: Callable[[str], bool], batch: int = 1,
        max_in_flight: int = 64, max_attempts: int = 5, start: str | int = "new", dead_letters: DeadLetters, clock: Clock,
    ) -> None:  # fmt: skip
        self.name = name
        self._log, self._records, self._letters, self._clock = log, records, dead_letters, clock
        self._lane_of, self._deliver, self._matches = lane_of, deliver, matches
        self._max_in_flight, self._max_attempts, self._start, self._batch = max_in_flight, max_attempts, start, batch
        self._lanes = Lanes(0, batch)
        self._revision = 0
        self._stored = -1
        self._in_flight: set[asyncio.Future[Any]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._room = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._log_lines = logger("jidosystem.events").bind(subscription=name)

    @property
    def position(self) -> int:
        """Everything up to here is handled."""
        return self._lanes.trailing

    async def start(self) -> None:
        """Find or store the starting position, then go."""
        address = f"{TYPE}/{self.name}"
        record = await self._records.read(address)
        if record is not None and record.head is not None:
            position, self._revision = int(decode(record.head)), record.revision
        else:
            position = await self._log.last() if self._start == "new" else 0 if self._start == "beginning" else int(self._start)
            committed = await self._records.commit(address, 0 if record is None else record.revision, encode(position))
            self._revision = committed.revision
        self._lanes, self._stored = Lanes(position, self._batch), position
        self._letters.register("event", self.name, self._redrive)
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._keep_position())]

    async def close(self) -> None:
        """Take no more; what is under way gets to end; the position is stored."""
        if self._closed:
            return
        self._closed = True
        self._letters.forget("event", self.name)
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._in_flight:
            _done, late = await asyncio.wait(self._in_flight, timeout=5.0)
            for handling in late:
                handling.cancel()
        try:
            await self._store_position()
        except StoreError as error:  # handled events come again then, and are dropped by their receivers
            self._log_lines.warning("a subscription's position couldn't be stored", error=describe(error))

    # -- reading -----------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        wait_s = 0.1
        while True:
            try:
                async for page in self._log.follow(self._lanes.position):
                    wait_s = 0.1
                    for event in page:
                        await self._offer(event)
                    self._pump()
                    while self._lanes.size >= LOOK_AHEAD:
                        self._room.clear()
                        await self._room.wait()
            except StoreError as error:
                self._log_lines.error("a subscription can't read just now", error=describe(error))
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, 5.0)

    async def _offer(self, event: Event) -> None:
        keys: Iterable[str] = ()
        if self._matches(event.type):
            try:
                found = self._lane_of(event)
                keys = () if found is None else (found,) if isinstance(found, str) else tuple(found)
            except Exception as error:
                await self._bury_for_sure(event, None, 1, error)
        self._lanes.offer(event, keys)

    def _pump(self) -> None:
        """Start what may start."""
        if self._closed:
            return
        room = self._max_in_flight - len(self._in_flight)
        if room > 0:
            loop = asyncio.get_running_loop()
            for lane, events in self._lanes.take(loop.time()):
                task = start_eagerly(self._handle(lane, events), loop)
                if not task.done():
                    self._in_flight.add(task)
                    task.add_done_callback(self._ended)
                    room -= 1
                elif not task.cancelled() and (error := task.exception()) is not None:
                    raise error
                if room <= 0:
                    break
        self._arm()

    def _arm(self) -> None:
        """Come back when a delay is over."""
        if len(self._in_flight) >= self._max_in_flight or (when := self._lanes.next_time()) is None:
            return
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(max(when, loop.time()), self._pump)

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._in_flight.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler({"message": "a subscription failed", "exception": error, "future": task})
        if self._lanes.size < LOOK_AHEAD:
            self._room.set()
        self._pump()

    async def _handle(self, lane: Lane, events: list[Event]) -> None:
        try:
            await self._deliver(lane.key, events)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            await self._failed(lane, events, error)
        else:
            self._lanes.finish(lane)

    async def _failed(self, lane: Lane, events: list[Event], error: Exception) -> None:
        passing = isinstance(error, RefusedError | StoreError)
        if not passing and len(events) == 1 and lane.attempts + 1 >= self._max_attempts:
            self._log_lines.error("an event is moved to the dead letters", lane=lane.key, position=events[0].position, error=describe(error))
            try:
                await self._bury(events[0], lane.key, lane.attempts + 1, error)
            except (RefusedError, StoreError) as full:
                self._log_lines.error("a dead letter couldn't be stored; its lane waits", lane=lane.key, error=describe(full))
                passing = True
            else:
                self._lanes.finish(lane)
                return
        self._lanes.fail(lane, asyncio.get_running_loop().time(), random.random(), counted=not passing)

    # -- dead letters ------------------------------------------------------------------------------------------

    async def _bury(self, event: Event, lane: str | None, attempts: int, error: BaseException) -> None:
        payload = {"event": msgspec.structs.asdict(event), "lane": lane}
        await self._letters.bury("event", self.name, lane, payload, series=event.stream, number=event.position, attempts=attempts, error=error)

    async def _bury_for_sure(self, event: Event, lane: str | None, attempts: int, error: BaseException) -> None:
        wait_s = 0.1
        while True:
            try:
                await self._bury(event, lane, attempts, error)
            except (RefusedError, StoreError) as full:
                self._log_lines.error("a dead letter couldn't be stored; the subscription waits", error=describe(full))
            else:
                return
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, 5.0)

    async def _redrive(self, letter: DeadLetter) -> None:
        stored: dict[str, Any] = letter.payload["event"]
        attributes: dict[str, Any] = {**stored, "metadata": {**stored["metadata"], "redrive_id": letter.id}}
        event = Event(**attributes)
        lane = letter.payload["lane"]
        keys: Iterable[str] = (lane,) if lane is not None else ()
        if lane is None:
            found = self._lane_of(event)
            keys = () if found is None else (found,) if isinstance(found, str) else tuple(found)
        for key in keys:
            await self._deliver(key, [event])

    # -- the position ------------------------------------------------------------------------------------------

    async def _keep_position(self) -> None:
        while True:
            await asyncio.sleep(STORE_EVERY_S)
            try:
                await self._store_position()
            except StoreError as error:
                self._log_lines.warning("a subscription's position couldn't be stored", error=describe(error))

    async def _store_position(self) -> None:
        position = self._lanes.trailing
        if position == self._stored:
            return
        try:
            committed = await self._records.commit(f"{TYPE}/{self.name}", self._revision, encode(position))
        except Conflict as error:
            record = await self._records.read(f"{TYPE}/{self.name}")
            self._revision = record.revision if record is not None else 0
            self._log_lines.error("somebody else wrote a subscription's position", error=describe(error))
            return
        self._revision, self._stored = committed.revision, position


def lane_path(path: str) -> LaneOf:
    """A function that follows a path into an event (`data.region`, `source`, `metadata.tenant`); what isn't there is None: nobody's."""
    first, *rest = path.split(".")
    if first not in (*Event.__struct_fields__, "time") or not all(rest):
        raise InvalidArguments(f"{path!r} is no path into an event; it starts with one of {', '.join(Event.__struct_fields__)}", path="$.key")

    def follow(event: Event) -> str | None:
        value: Any = getattr(event, first)
        for step in rest:
            if not isinstance(value, dict) or step not in value:
                return None
            value = value[step]
        if value is None or isinstance(value, str):
            return value
        raise InvalidArguments(f"{path} is {value!r}; a key is a string", path=f"$.{path}")

    return follow
