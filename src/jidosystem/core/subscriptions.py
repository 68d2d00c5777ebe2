"""Durable subscriptions: a position that is kept, retries, and dead letters; the driver around the lanes machine.

At least once per lane, in log order; after a restart it goes on from the trailing position, and receivers drop
what they have had. The position is stored about once a second, or after 5,000 events, and at the end; never per event.
"""

from __future__ import annotations

import asyncio
import random as random_module
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from .clock import Clock
from .codec import NOT_CARRIED
from .dead_letters import DeadLetter, DeadLetters
from .eager import start_eagerly
from .errors import InvalidArguments, JidoError, Moved, ShuttingDown, StoreError, Undeliverable, describe
from .events import Event
from .keys import LaneOf, keys_of
from .lanes import Lane, Lanes, Work
from .log import EventLog
from .observability import logger
from .position import KeptPosition
from .records import Records
from .traces import for_log
from .troubles import NotNow, is_cancelled_from_outside, is_passing, told_delay_s

LOOK_AHEAD = 20_000
"""How many events may be read and unfinished before reading waits."""
STORE_EVERY_S = 1.0
STORE_EVERY = 5_000
"""The position is stored after so many seconds or finished events, whichever comes first: what a crash can bring again."""
GATHER = 16
GATHER_S = 0.1
"""With `batch`, at most so many deliveries younger than this are under way: the lanes that wait for their turn meanwhile
gather events, so that under load a delivery carries many of them. Slow ones hold nobody up for longer than that, and
who has gathered a whole batch doesn't wait."""
REST_S = 600.0
"""How long a lane rests at most whose receiver takes nothing, if nobody wakes it."""
SLICE = 100
"""How many events are offered or started before the event loop gets its turn."""
CLOSE_GRACE_S = 5.0
MOVES = 4
"""So often an agent may have moved whenever it was found before that is worth a line."""
REDRIVE_ID = "redrive_id"
"""The metadata of a redriven event names its dead letter so; an event of the log that carries it lost it on the way in."""

Deliver = Callable[[str, Sequence[Event]], Awaitable[None]]


class DurableSubscription:
    """`deliver(lane, events)` returns when they are handled for good; what it raises is retried, then buried.

    `RefusedError` and `StoreError` are passing troubles: retried without end and without counting, except where waiting
    mends nothing (`AgentFailed`, `TooLarge`, `RecordUnreadable`). `Undeliverable` isn't retried.
    `NotNow` lets a lane rest until `wake`. `agent_of` says which agent's address a lane stands for, so that its dead letters name it.
    """

    def __init__(
        self, name: str, log: EventLog, records: Records, *, lane_of: LaneOf, deliver: Deliver, matches: Callable[[str], bool], batch: int = 1,
        max_in_flight: int = 64, max_attempts: int = 5, start: str | int = "new", dead_letters: DeadLetters, clock: Clock,
        agent_of: Callable[[str], str] | None = None, kept: KeptPosition | None = None, look_ahead: int = LOOK_AHEAD,
        store_every_s: float = STORE_EVERY_S, gather_s: float = GATHER_S, random: Callable[[], float] = random_module.random,
    ) -> None:  # fmt: skip
        self.name = name
        self._random = random
        self._log, self._letters, self._clock = log, dead_letters, clock
        self._lane_of, self._deliver, self._matches, self._agent_of = lane_of, deliver, matches, agent_of
        self._max_in_flight, self._start, self._look_ahead, self._store_every_s = max_in_flight, start, look_ahead, store_every_s
        self._lines = logger("jidosystem.events").bind(subscription=name)
        self._kept = kept or KeptPosition(name, records, self._lines)
        self._lanes = Lanes(0, batch, max_attempts)
        self._finished = 0  # since the position was stored
        self._moved = asyncio.Event()  # there is a position to store
        self._much = asyncio.Event()  # … and a good deal of it
        self._batch = batch
        self._gather_s = gather_s if batch > 1 else 0.0
        self._young: dict[asyncio.Future[Any], float] = {}  # deliveries that others wait for -> until when, oldest first
        self._in_flight: set[asyncio.Future[Any]] = set()
        self._visits: set[asyncio.Future[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._room = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._pump_soon: asyncio.Handle | None = None
        self._closed = False

    @property
    def position(self) -> int:
        """Everything up to here is handled."""
        return self._lanes.trailing

    # -- life ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Find or store the starting position, then go."""
        if self._kept.runner is None:  # a cluster's is found and claimed by whoever makes this
            await self._kept.find(partial(first_position, self._log, self._start))
        self._lanes.position = self._kept.stored
        self._letters.register("event", self.name, self._redrive)
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._keep_position())]
        for task in self._tasks:
            task.add_done_callback(self._died)

    def _died(self, task: asyncio.Task[None]) -> None:
        """A defect of ours, or a store that fails in a way it shouldn't: the subscription stands still, and says so."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._lines.error("a subscription stands still until its node is started again", error=describe(error))

    async def close(self, grace_s: float = CLOSE_GRACE_S) -> None:
        """Take no more; what is under way gets a while to end, then is cancelled and comes again; the position is stored."""
        if self._closed:
            return
        self._closed = True
        self._letters.forget("event", self.name)
        for handle in (self._timer, self._pump_soon):
            if handle is not None:
                handle.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for visit in self._visits:
            if not visit.done():
                visit.set_exception(ShuttingDown(f"subscription {self.name!r} is closing; its letter stays"))
        await self._end_deliveries(grace_s)
        try:
            await self._kept.store(lambda: self._lanes.trailing)
        except StoreError as error:  # handled events come again then, and are dropped by their receivers
            self._lines.warning("a subscription's position couldn't be stored", error=describe(error))

    async def _end_deliveries(self, grace_s: float) -> None:
        late = self._in_flight - {asyncio.current_task()}  # a handler may close its own subscription
        if late:
            _done, late = await asyncio.wait(late, timeout=grace_s)
        for delivery in late:
            delivery.cancel()
        if late:
            _done, late = await asyncio.wait(late, timeout=grace_s)
        if late:
            self._lines.error("deliveries neither end nor let themselves be cancelled; they are left behind", deliveries=len(late))

    def wake(self, lane: str) -> None:
        """The receiver of a lane takes something again."""
        if not self._closed:
            self._lanes.hurry(lane)
            self._pump()

    # -- reading ---------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        wait_s = 0.1
        while True:
            try:
                async for page in self._log.follow(self._lanes.position):
                    wait_s = 0.1
                    await self._take_in(page)
            except StoreError as error:
                self._lines.error("a subscription can't read just now", after=self._lanes.position, error=describe(error))
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, 5.0)

    async def _take_in(self, page: Sequence[Event]) -> None:
        """Offer a page, in slices; wait while too much is unfinished."""
        lanes, matches, lane_of = self._lanes, self._matches, self._lane_of
        for start in range(0, len(page), SLICE):
            for event in page[start : start + SLICE]:
                if not matches(event.type):
                    lanes.offer(event, ())
                    continue
                mine = event if REDRIVE_ID not in event.metadata else _without_redrive_id(event)
                try:
                    keys = keys_of(lane_of, mine)
                except InvalidArguments as error:
                    await self._bury_for_sure(mine, error)
                    keys = ()
                lanes.offer(mine, keys)
            self._changed()
            self._pump()
            while lanes.size >= self._look_ahead:
                self._room.clear()
                await self._room.wait()
            await asyncio.sleep(0)

    def _pump(self) -> None:
        """Start what may start; a good deal of it waits for the loop's next turn."""
        if self._closed:
            return
        if self._pump_soon is not None:
            self._pump_soon.cancel()
            self._pump_soon = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for _ in range(SLICE):
            if len(self._in_flight) >= self._max_in_flight or (work := self._lanes.take(now, full=self._gathering(now))) is None:
                break
            task = start_eagerly(self._handle(work), loop)
            if not task.done():
                self._in_flight.add(task)
                if self._gather_s and len(work.events) < self._batch:
                    self._young[task] = now + self._gather_s
                task.add_done_callback(self._ended)
        else:
            self._pump_soon = loop.call_soon(self._pump)
            return
        self._arm(loop)

    def _gathering(self, now: float) -> bool:
        """Whether so many deliveries have just begun that the next lane had better wait for one of them."""
        young = self._young
        while len(young) >= GATHER:
            oldest = next(iter(young))
            if young[oldest] > now:
                return True
            del young[oldest]
        return False

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        """Come back when a delay is over."""
        when = self._lanes.next_time()
        if len(self._young) >= GATHER and self._lanes.ready:
            grown_up = next(iter(self._young.values()))
            when = grown_up if when is None else min(when, grown_up)
        if self._timer is not None:
            if when is not None and self._timer_at == when:
                return
            self._timer.cancel()
            self._timer = None
        if when is not None and len(self._in_flight) < self._max_in_flight:
            self._timer, self._timer_at = loop.call_at(when, self._on_time), when  # kept: uvloop's timers for a time past don't tell theirs

    def _on_time(self) -> None:
        self._timer = None
        self._pump()

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._in_flight.discard(task)
        self._young.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:  # a defect of ours
            asyncio.get_running_loop().call_exception_handler({"message": "a subscription failed", "exception": error, "future": task})
        self._pump()

    # -- delivering ------------------------------------------------------------------------------------------------

    async def _handle(self, work: Work) -> None:
        lane = work.lane
        try:
            await self._deliver(lane.key, work.events)
        except BaseException as error:  # whatever a receiver raises is a failed delivery
            given_up = is_cancelled_from_outside(error)
            if work.token is not None:
                self._lanes.finish(lane)
                _settle(work.token, error)
            elif isinstance(error, NotNow):
                self._lanes.rest(lane, asyncio.get_running_loop().time() + REST_S)
            elif given_up:  # no attempt of the event's: it comes again
                self._failed_passing(lane, error)
            else:
                await self._failed(lane, work.events, error)
            self._changed()
            if given_up:
                raise
        else:
            self._lanes.finish(lane)
            if work.token is not None:
                _settle(work.token, None)
            else:
                self._finished += len(work.events)
            self._changed()

    async def _failed(self, lane: Lane, events: Sequence[Event], error: BaseException) -> None:
        if is_passing(error):
            self._failed_passing(lane, error)
            return
        now, jitter = asyncio.get_running_loop().time(), self._random()
        last = self._lanes.fail(lane, now, jitter, final=isinstance(error, Undeliverable))
        if last is None:
            self._lines.warning(
                "an event couldn't be handled; it comes again", lane=lane.key, position=events[0].position, events=len(events), error=describe(error)
            )
            return
        self._lines.error(
            "an event is moved to the dead letters", lane=lane.key, position=last.position, error=describe(error), exc_info=for_log(error)
        )
        try:
            await self._bury(last, lane.key, lane.attempts, error)
        except (JidoError, *NOT_CARRIED) as full:
            self._failed_passing(lane, full)
        except BaseException:
            self._lanes.fail(lane, now, jitter, counted=False)
            raise
        else:
            self._lanes.finish(lane)

    def _failed_passing(self, lane: Lane, error: BaseException) -> None:
        self._lanes.fail(lane, asyncio.get_running_loop().time(), self._random(), counted=False, least_s=told_delay_s(error))
        if isinstance(error, Moved) and lane.tries < MOVES:  # it is found where it went
            return
        if not self._closed and lane.tries & (lane.tries - 1) == 0:  # the first, the second, the fourth …
            self._lines.warning("a lane waits for a trouble to pass", lane=lane.key, tries=lane.tries, error=describe(error))

    # -- dead letters ----------------------------------------------------------------------------------------------

    async def _bury(self, event: Event, lane: str | None, attempts: int, error: BaseException) -> None:
        agent = self._agent_of(lane) if self._agent_of is not None and lane is not None else None
        payload = {"event": msgspec.structs.asdict(event), "lane": lane}
        await self._letters.bury("event", self.name, agent, payload, series=lane or "", number=event.position, attempts=attempts, error=error)

    async def _bury_for_sure(self, event: Event, error: BaseException) -> None:
        """Of an event that has no lane: nothing can be read past it until it is kept."""
        self._lines.error(
            "an event has no key; it is moved to the dead letters", position=event.position, error=describe(error), exc_info=for_log(error)
        )
        wait_s = 0.1
        while True:
            try:
                await self._bury(event, None, 1, error)
            except (JidoError, *NOT_CARRIED) as full:
                self._lines.error("a dead letter couldn't be stored; the subscription waits", error=describe(full))
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, 5.0)
            else:
                return

    async def _redrive(self, letter: DeadLetter) -> None:
        stored = letter.event
        if stored is None:
            raise InvalidArguments(f"letter {letter.id} holds no event", path="$.id")
        event = msgspec.structs.replace(stored, metadata={**stored.metadata, REDRIVE_ID: letter.id})
        lane = letter.payload.get("lane")
        visits: list[asyncio.Future[None]] = []
        loop = asyncio.get_running_loop()
        for key in (lane,) if lane is not None else keys_of(self._lane_of, event):
            visit: asyncio.Future[None] = loop.create_future()
            visits.append(visit)
            self._visits.add(visit)
            visit.add_done_callback(self._visits.discard)
            self._lanes.visit(key, event, visit)
        self._pump()
        for outcome in await asyncio.gather(*visits, return_exceptions=True):
            if outcome is not None:
                raise outcome

    # -- the position ----------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        if self._finished >= STORE_EVERY:
            self._much.set()
        if not self._moved.is_set():
            self._moved.set()
        if self._lanes.size < self._look_ahead:
            self._room.set()

    async def _keep_position(self) -> None:
        while True:
            await self._moved.wait()
            try:
                async with asyncio.timeout(self._store_every_s):
                    await self._much.wait()
            except TimeoutError:
                pass
            self._moved.clear()
            self._much.clear()
            self._finished = 0
            try:
                await self._kept.store(lambda: self._lanes.trailing)
            except StoreError as error:
                self._lines.warning("a subscription's position couldn't be stored", error=describe(error))
                self._moved.set()  # once more in a second


async def first_position(log: EventLog, start: str | int) -> int:
    """Where a new name begins."""
    return await log.last() if start == "new" else 0 if start == "beginning" else int(start)


def _settle(visit: asyncio.Future[None], error: BaseException | None) -> None:
    if visit.done():  # whoever brought it has left
        return
    if error is None:
        visit.set_result(None)
    elif isinstance(error, Exception):
        visit.set_exception(error)
    else:
        visit.set_exception(RuntimeError(f"the receiver raised {describe(error)}"))


def _without_redrive_id(event: Event) -> Event:
    """Whoever published this one copied its metadata from a redriven event: it isn't one."""
    return msgspec.structs.replace(event, metadata={key: value for key, value in event.metadata.items() if key != REDRIVE_ID})
