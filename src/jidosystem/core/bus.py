"""The event bus: `platform.events`. Publishing stores; every subscriber follows the log, so that all see the same, in order.

Live subscriptions get what comes while they are there, at most once. Durable ones keep a position and get everything,
at least once. Dispatch to live ones is one follower of the log that hands each event to all that its type concerns.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from itertools import count
from typing import Any, Literal, Protocol

from .clock import Clock
from .codec import NOT_CARRIED
from .context import current
from .dead_letters import DeadLetters
from .eager import EagerTask, first_steps
from .errors import InvalidArguments, ShuttingDown, StoreError, describe
from .events import Event, check_event_type, matcher, set_field
from .ids import Ids
from .log import EventLog
from .observability import logger
from .records import Records
from .subscriptions import DurableSubscription

Handler = Callable[[Event], Any]
MAX_BUFFERED = 10_000
"""How many events a live subscription may have waiting behind its slow handler; what comes then is dropped, counted and logged."""
FORWARD_BATCH = 100


class Forwarder(Protocol):
    """Sends matching events to the outside. What it raises is retried; after five attempts the event is a dead letter."""

    name: str
    pattern: str

    async def forward(self, events: Sequence[Event]) -> None:
        """Send events, in order; return when the other side has them."""
        ...


class Subscription:
    """What `subscribe` returns."""

    __slots__ = ("_close", "dropped", "name", "pattern")

    def __init__(self, pattern: str, name: str | None, close: Callable[[], Awaitable[None]]) -> None:
        self.pattern = pattern
        self.name = name
        self.dropped = 0
        self._close = close

    async def close(self) -> None:
        """Take no more events; handlers at work get to end."""
        await self._close()


class _Live:
    """A live subscription: one handler, a bound on what waits."""

    __slots__ = ("buffer", "handler", "is_coroutine", "matches", "max_in_flight", "public", "waiting")

    def __init__(self, handler: Handler, matches: Callable[[str], bool], max_in_flight: int) -> None:
        self.handler = handler
        self.matches = matches
        self.is_coroutine = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004
        self.max_in_flight = max_in_flight
        self.waiting: set[asyncio.Future[Any]] = set()
        self.buffer: deque[Event] = deque()
        self.public: Subscription


class EventBus:
    """See the module."""

    def __init__(self, log: EventLog, records: Records, *, dead_letters: DeadLetters, ids: Ids, clock: Clock, source: str = "platform") -> None:
        self._log, self._records, self._letters, self._ids, self._clock, self._source = log, records, dead_letters, ids, clock, source
        self._live: list[_Live] = []
        self._of_type: dict[str, tuple[list[_Live], list[_Live]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._durable: dict[str, tuple[DurableSubscription, list[Handler]]] = {}
        self._own_followers: set[asyncio.Task[None]] = set()
        self._closed = False
        self._lines = logger("jidosystem.events")

    # -- publishing --------------------------------------------------------------------------------------------

    async def publish(
        self,
        type: str,  # noqa: A002 - the contract's name
        data: Any = None,
        metadata: Mapping[str, Any] | None = None,
        stream: str | None = None,
        expected: int | None = None,
    ) -> Event:
        """Store an event and return it with its position; subscribers get it then.

        `expected`: the position of the stream's last event (0: none), else `StreamConflict`. `data` must be what the codec
        carries (`InvalidArguments`). Inside a turn this is an outside step: it isn't undone with the turn; use `self.emit` there.
        """
        check_event_type(type)
        if self._closed:
            raise ShuttingDown("the platform is closing and takes no new events")
        going_on = current.get()
        why = going_on.causality() if going_on is not None else None
        event = Event(
            self._ids(), type, why.source if why else self._source, "", self._clock.time_s(), data, stream or "default", metadata or {},
            why.correlation_id if why else None, why.causation_id if why else None, why.traceparent if why else None,
        )  # fmt: skip
        try:
            future = self._log.append((event,), expected)
        except NOT_CARRIED as error:
            raise InvalidArguments(f"the data of event {type!r} can't be carried: {error}", path="$.data") from error
        positions = await future
        set_field(event, "position", positions[0])
        return event

    # -- reading -----------------------------------------------------------------------------------------------

    async def read(self, stream: str, after: int = 0) -> AsyncIterator[Event]:
        """The events of a stream after a position, ending at the last one present now."""
        async for page in self._log.read(after, stream=stream):
            for event in page:
                yield event

    async def read_all(self, pattern: str = "**", after: int = 0) -> AsyncIterator[Event]:
        """The events whose type fits, of all streams, in order, ending at the last one present now."""
        matches = matcher(pattern)
        async for page in self._log.read(after):
            for event in page:
                if matches(event.type):
                    yield event

    async def follow(self, pattern: str = "**", after: int | None = None) -> AsyncIterator[Event]:
        """The events whose type fits, after a position (None: those to come), without end."""
        matches = matcher(pattern)
        async for page in self._log.follow(await self._log.last() if after is None else after):
            for event in page:
                if matches(event.type):
                    yield event

    async def replay(self, stream: str, after: int = 0, *, to: Handler) -> int:
        """Hand a stream's events to a handler, one after another; how many. What it raises ends the replay."""
        count = 0
        async for page in self._log.read(after, stream=stream):
            for event in page:
                result = to(event)
                if inspect.isawaitable(result):
                    await result
                count += 1
        return count

    # -- subscribing -------------------------------------------------------------------------------------------

    async def subscribe(
        self,
        pattern: str,
        handler: Handler,
        *,
        durable: str | None = None,
        group: str | None = None,
        start: Literal["new", "beginning"] | int = "new",
        max_in_flight: int = 64,
        max_attempts: int = 5,
    ) -> Subscription:
        """Call `handler(event)` (a function or coroutine function) for events whose type fits the pattern.

        Live (neither `durable` nor `group`): each event at most once, while subscribed; a handler that is slower than the
        publishers for more than 10,000 events loses some, counted in `Subscription.dropped`. `start` other than "new" reads
        what is stored first. Durable: under that name a position is kept, each event comes at least once, in order per stream;
        what fails `max_attempts` times goes to the dead letters. `group`: a durable name whose handlers share the events.
        """
        matches = matcher(pattern)
        if self._closed:
            raise ShuttingDown("the platform is closing")
        if not callable(handler):
            raise InvalidArguments(f"handler={handler!r} can't be called", path="$.handler")
        for name, value in (("max_in_flight", max_in_flight), ("max_attempts", max_attempts)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidArguments(f"{name}={value!r}: a whole number, at least 1", path=f"$.{name}")
        if not (start in ("new", "beginning") or (isinstance(start, int) and not isinstance(start, bool) and start >= 0)):
            raise InvalidArguments(f'start={start!r}: "new", "beginning" or a position', path="$.start")
        if durable is not None or group is not None:
            return await self._subscribe_durable(pattern, matches, handler, durable, group, start, max_in_flight, max_attempts)
        if start != "new":
            return self._subscribe_from(pattern, matches, handler, 0 if start == "beginning" else int(start))
        return await self._subscribe_live(pattern, matches, handler, max_in_flight)

    async def _subscribe_live(self, pattern: str, matches: Callable[[str], bool], handler: Handler, max_in_flight: int) -> Subscription:
        live = _Live(handler, matches, max_in_flight)

        async def close() -> None:
            if live in self._live:
                self._live.remove(live)
                self._of_type.clear()
            live.buffer.clear()
            if live.waiting:
                await asyncio.wait(live.waiting)

        live.public = Subscription(pattern, None, close)
        if self._task is None:
            after = await self._log.last()
            if self._task is None:
                self._task = asyncio.create_task(self._dispatch(after))
        self._live.append(live)
        self._of_type.clear()
        return live.public

    def _subscribe_from(self, pattern: str, matches: Callable[[str], bool], handler: Handler, after: int) -> Subscription:
        task = asyncio.create_task(self._run_from(matches, handler, after))

        async def close() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._own_followers.discard(task)

        self._own_followers.add(task)
        return Subscription(pattern, None, close)

    async def _run_from(self, matches: Callable[[str], bool], handler: Handler, after: int) -> None:
        async for page in self._log.follow(after):
            for event in page:
                if matches(event.type):
                    try:
                        result = handler(event)
                        if inspect.isawaitable(result):
                            await result
                    except Exception as error:
                        self._tell(event, error)

    async def _subscribe_durable(
        self, pattern: str, matches: Callable[[str], bool], handler: Handler, durable: str | None, group: str | None, start: str | int,
        max_in_flight: int, max_attempts: int,
    ) -> Subscription:  # fmt: skip
        name = durable if group is None else group if durable is None else f"{durable}.{group}"
        if not isinstance(name, str) or not name or len(name) > 200 or "/" in name:
            raise InvalidArguments(f"durable={name!r}: a name of 1 to 200 characters without '/'", path="$.durable")
        present = self._durable.get(name)
        if present is not None and group is None:
            raise InvalidArguments(f"the durable subscription {name!r} has a handler already; use group= to share its events", path="$.durable")
        if present is not None:
            present[1].append(handler)
        else:
            handlers = [handler]
            turns = count()

            async def deliver(_lane: str, events: Sequence[Event]) -> None:
                number = next(turns)
                for event in events:
                    result = handlers[number % len(handlers)](event)
                    if inspect.isawaitable(result):
                        await result

            subscription = DurableSubscription(
                name, self._log, self._records, lane_of=_stream_of, deliver=deliver, matches=matches, max_in_flight=max_in_flight,
                max_attempts=max_attempts, start=start, dead_letters=self._letters, clock=self._clock,
            )  # fmt: skip
            self._durable[name] = (subscription, handlers)
            await subscription.start()

        async def close() -> None:
            running = self._durable.get(name)
            if running is not None and handler in running[1]:
                if len(running[1]) > 1:
                    running[1].remove(handler)
                else:
                    del self._durable[name]
                    await running[0].close()

        return Subscription(pattern, name, close)

    async def forward(self, forwarder: Forwarder) -> None:
        """Send matching events to the outside from now on; the position is kept under `forward.<name>`."""
        name = f"forward.{forwarder.name}"
        if name in self._durable:
            raise InvalidArguments(f"there is a forwarder {forwarder.name!r} already", path="$.name")

        async def deliver(_lane: str, events: Sequence[Event]) -> None:
            await forwarder.forward(events)

        subscription = DurableSubscription(
            name, self._log, self._records, lane_of=_one_lane, deliver=deliver, matches=matcher(forwarder.pattern), batch=FORWARD_BATCH,
            start="new", dead_letters=self._letters, clock=self._clock,
        )  # fmt: skip
        self._durable[name] = (subscription, [])
        await subscription.start()

    # -- live dispatch -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Nothing runs until somebody subscribes."""

    async def close(self) -> None:
        """Stop all subscriptions; positions are stored."""
        self._closed = True
        tasks = [task for task in (self._task, *self._own_followers) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        waiting = [task for live in self._live for task in live.waiting]
        for handler_task in waiting:
            handler_task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for subscription, _handlers in tuple(self._durable.values()):
            await subscription.close()
        self._durable.clear()

    async def _dispatch(self, after: int) -> None:
        wait_s = 0.1
        while True:
            try:
                async for page in self._log.follow(after):
                    wait_s = 0.1
                    for event in page:
                        self.dispatch(event)
                    after = page[-1].position
                    await asyncio.sleep(0)
            except StoreError as error:
                if self._closed:
                    return
                self._lines.error("live subscriptions can't read just now", error=describe(error))
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, 5.0)

    def dispatch(self, event: Event) -> None:
        """Hand a stored event to every live subscription that its type concerns."""
        concerned = self._of_type.get(event.type)
        if concerned is None:
            concerned = self._choose(event.type)
        plain, coroutines = concerned
        for live in plain:
            try:
                live.handler(event)
            except Exception as error:
                self._tell(event, error)
        if coroutines:
            self._start_coroutines(coroutines, event)

    def _choose(self, event_type: str) -> tuple[list[_Live], list[_Live]]:
        if len(self._of_type) >= MAX_BUFFERED:
            self._of_type.clear()
        fitting = [live for live in self._live if live.matches(event_type)]
        chosen = [live for live in fitting if not live.is_coroutine], [live for live in fitting if live.is_coroutine]
        self._of_type[event_type] = chosen
        return chosen

    def _start_coroutines(self, concerned: Sequence[_Live], event: Event) -> None:
        ready: list[_Live] = []
        coros = []
        for live in concerned:
            if live.buffer or len(live.waiting) >= live.max_in_flight:
                self._buffer(live, event)
                continue
            coro = live.handler(event)
            ready.append(live)
            coros.append(coro)
        waiting = first_steps(coros, asyncio.get_running_loop(), lambda _index, error: self._tell(event, error))
        for index, task in waiting:
            self._await(ready[index], event, task)

    def _await(self, live: _Live, event: Event, task: EagerTask[Any]) -> None:
        live.waiting.add(task)

        def ended(done: asyncio.Future[Any]) -> None:
            live.waiting.discard(done)
            if not done.cancelled() and (error := done.exception()) is not None:
                self._tell(event, error)
            if live.buffer and len(live.waiting) < live.max_in_flight and not self._closed:
                following = live.buffer.popleft()
                for _index, further in first_steps([live.handler(following)], asyncio.get_running_loop(), lambda _i, e: self._tell(following, e)):
                    self._await(live, following, further)

        task.add_done_callback(ended)

    def _buffer(self, live: _Live, event: Event) -> None:
        if len(live.buffer) < MAX_BUFFERED:
            live.buffer.append(event)
            return
        live.public.dropped += 1
        if live.public.dropped & (live.public.dropped - 1) == 0:  # the first, the second, the fourth …
            self._lines.error(
                "a live subscription is too slow and loses events; make it durable", pattern=live.public.pattern, dropped=live.public.dropped
            )

    def _tell(self, event: Event, error: BaseException) -> None:
        self._lines.error("a subscriber failed", type=event.type, position=event.position, error=describe(error))


def _stream_of(event: Event) -> str:
    return event.stream


def _one_lane(_event: Event) -> str:
    return "forward"
