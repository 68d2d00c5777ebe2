"""The event bus: `platform.events`. Publishing stores; every subscriber follows the log, so that all see the same, in order.

Live subscriptions get what comes while they are there, at most once. Durable ones keep a position and get everything,
at least once. What is published is read back before it is stored: no event enters the log that a reader couldn't read.
"""

from __future__ import annotations

import asyncio
import inspect
import random as random_module
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from .carried import carried, carried_metadata
from .checks import refuses_one
from .clock import Clock
from .context import current
from .dead_letters import DeadLetters
from .errors import InvalidArguments, ShuttingDown
from .events import MAX_STREAM_CHARS, Event, check_event_type, matcher, set_field
from .groups import Group, Groups, Handler, Member, Running, durable_name
from .ids import Ids, check_key
from .live import Live, LiveDispatch
from .log import EventLog
from .near import near
from .observability import logger
from .position import KeptPosition, Sharing
from .records import Records
from .replay import awaited
from .sharing import SharedSubscription
from .shown import one_line
from .subscriptions import CLOSE_GRACE_S, Deliver, DurableSubscription, first_position
from .traces import Leaving, leaves
from .tracing import ambient_traceparent

MAX_ATTEMPTS = 5
FORWARD_BATCH = 100
FORWARD_ATTEMPTS = 10
"""How often the outside may fail to take an event; at growing delays that is about a minute."""


class Forwarder(Protocol):
    """The protocol: any object with `name` (what the position is kept under), `pattern`, and `forward`. If it also has `async def
    close(self)`, that is called when its subscription or the platform closes.
    """

    name: str
    pattern: str

    async def forward(self, events: Sequence[Event]) -> None:
        """Send up to 100 events, in order; return when the other side has them all. Raise, and the same events come again."""
        ...


@runtime_checkable
class _Closes(Protocol):
    async def close(self) -> None: ...


class Subscription:
    """What `subscribe` and `forward` return. `pattern` is what was asked for; `name` is what dead letters of a durable one are listed under,
    None if it is live. It closes with its platform.
    """

    __slots__ = ("_close", "_closing", "_live", "name", "pattern")

    def __init__(self, pattern: str, name: str | None, close: Callable[[], Awaitable[None]], live: Live | None = None) -> None:
        self.pattern: str = pattern
        self.name: str | None = name
        self._close = close
        self._live = live
        self._closing = False

    def __repr__(self) -> str:
        counts = "" if self._live is None else f", {self.dropped} dropped, {self.failed} failed"
        return one_line(f"<Subscription {self.pattern}, {self.name or 'live'}{counts}{', closed' if self._closing else ''}>")

    @property
    def dropped(self) -> int:
        """How many events a live subscription has lost because its handler was too slow."""
        return 0 if self._live is None else self._live.dropped

    @property
    def failed(self) -> int:
        """How often the handler of a live subscription has raised."""
        return 0 if self._live is None else self._live.failed

    async def close(self) -> None:
        """Take no more events; handlers at work get to end. A durable name keeps its position."""
        if not self._closing:
            self._closing = True
            await self._close()


class EventBus:
    """What `platform.events` is. Publishing stores; every subscriber follows the log, so all see the same, in the same order."""

    def __init__(
        self, log: EventLog, records: Records, *, dead_letters: DeadLetters, ids: Ids, clock: Clock, source: str = "platform", node: str = "",
        random: Callable[[], float] = random_module.random,
    ) -> None:  # fmt: skip
        self._node_name, self._random = node, random
        self._log, self._records, self._letters, self._ids, self._clock, self._source = log, records, dead_letters, ids, clock, source
        self._live = LiveDispatch(log, logger("jidosystem.events"))
        self._groups = Groups()
        self._forwarders: list[Forwarder] = []
        self.sharing: Sharing | None = None  # on a cluster: who of its nodes runs what
        self._closed = False

    def __repr__(self) -> str:
        return f"<events of node {self._node_name}>"

    # -- publishing ------------------------------------------------------------------------------------------------

    @leaves
    async def publish(
        self,
        type: str,  # noqa: A002 - the contract's name
        data: Any = None,
        metadata: Mapping[str, Any] | None = None,
        stream: str | None = None,
        expected: int | None = None,
    ) -> Event:
        """Store an event and return it with its position; subscribers get it then. `stream`: "default" if None. `expected`: the position of the
        stream's last event (0: it is empty), else `StreamConflict`, and nothing is stored. Raises `InvalidPattern`, `InvalidArguments` naming
        the path of what can't be carried, `TooLarge`. In a turn this is an outside step that isn't undone with it; use `self.emit` there.
        """
        check_event_type(type)
        if self._closed:
            raise ShuttingDown("the platform is closed, or closing, and takes no new events")
        if stream is None:
            stream = "default"
        elif not isinstance(stream, str) or not 0 < len(stream) <= MAX_STREAM_CHARS:
            raise InvalidArguments(f"stream={stream!r}: text of 1 to {MAX_STREAM_CHARS:,} characters", path="$.stream")
        if expected is not None and (isinstance(expected, bool) or not isinstance(expected, int) or expected < 0):
            raise InvalidArguments(f"expected={expected!r}: the position of the stream's last event, 0 for none", path="$.expected")
        blob, plain = carried(data, type)
        acting = current.get()
        why = acting.causality() if acting is not None else None
        event = Event(
            self._ids(), type, why.source if why else self._source, "", self._clock.time_s(), msgspec.Raw(blob), stream,
            carried_metadata(metadata, type) if metadata else {},
            why.correlation_id if why else None, why.causation_id if why else None, why.traceparent if why else ambient_traceparent(),
        )  # fmt: skip
        try:
            future = self._log.append((event,), expected)
        except UnicodeEncodeError as error:
            raise InvalidArguments(f"stream={stream!r}: no valid Unicode", path="$.stream") from error
        positions = await future
        set_field(event, "data", plain)
        set_field(event, "position", positions[0])
        return event

    # -- reading ---------------------------------------------------------------------------------------------------

    async def read(self, stream: str, after: int = 0) -> AsyncIterator[Event]:
        """The events of one stream after a position, ending at the last one present now. `after=0`: from the beginning."""
        with Leaving(self._node_name):
            async for page in self._log.read(after, stream=stream):
                for event in page:
                    yield event

    async def read_all(self, pattern: str = "**", after: int = 0) -> AsyncIterator[Event]:
        """The events of all streams whose type fits, in the order of the log, ending at the last one present now."""
        with Leaving(self._node_name):
            fits = matcher(pattern)
            async for page in self._log.read(after):
                for event in [event for event in page if fits(event.type)]:
                    yield event

    async def follow(self, pattern: str = "**", after: int | None = None) -> AsyncIterator[Event]:
        """The events whose type fits, after a position (None: those to come), without end. A slow reader reads from the store: nothing is lost.
        Ends with `StoreUnavailable` when the platform closes.
        """
        with Leaving(self._node_name):
            fits = matcher(pattern)
            async for page in self._log.follow(await self._log.last() if after is None else after):
                for event in [event for event in page if fits(event.type)]:
                    yield event

    @awaited
    @leaves
    async def replay(self, stream: str, after: int = 0, *, to: Handler) -> int:
        """Hand a stream's events to a handler, a function or coroutine function, one after another, up to the last one present now; how many.
        What the handler raises ends the replay and is raised. Awaited, not iterated: that is `read`.
        """
        count = 0
        async for page in self._log.read(after, stream=stream):
            for event in page:
                result = to(event)
                if inspect.isawaitable(result):
                    await result
                count += 1
        return count

    # -- subscribing -----------------------------------------------------------------------------------------------

    @leaves
    async def subscribe(
        self,
        pattern: str,
        handler: Handler,
        *,
        durable: str | None = None,
        group: str | None = None,
        start: Literal["new", "beginning"] | int = "new",
        max_in_flight: int = 64,
        max_attempts: int = MAX_ATTEMPTS,
    ) -> Subscription:
        """Call `handler(event)`, a function or coroutine function, for events whose type fits the pattern.

        | | live (neither `durable` nor `group`) | `durable="name"` or `group="name"` |
        |---|---|---|
        | each event | at most once, while subscribed | at least once, also what came while nobody was subscribed |
        | order | of the log, if the handler doesn't wait | per stream; streams side by side |
        | `start` | "new"; else begins with what is stored, at its own pace | counts when the name is new |
        | a handler that raises | logged, counted in `Subscription.failed` | again after a growing delay; after `max_attempts` a dead letter |
        | `max_in_flight` | so many handlers wait; behind them 10,000 events, then `Subscription.dropped` counts | so many streams at a time |

        `group`: handlers that share the events of one name, each event to one of them; all give the same options. With both, groups of one name
        under different `durable` names are apart. Raises `InvalidPattern`, `InvalidArguments` (a second handler of a durable name among
        others).
        """
        matches = matcher(pattern)
        self._check_options(handler, start, max_in_flight, max_attempts)
        if durable is not None or group is not None:
            return await self._subscribe_durable(
                handler, durable, group, {"pattern": pattern, "start": start, "max_in_flight": max_in_flight, "max_attempts": max_attempts}
            )
        if max_attempts != MAX_ATTEMPTS:
            raise InvalidArguments("max_attempts is for durable subscriptions; a live one has each event once: give durable=", path="$.max_attempts")
        live = Live(handler, pattern, matches, max_in_flight)
        if start == "new":
            await self._live.add(live)
        else:
            self._live.add_after(live, 0 if start == "beginning" else int(start))
        return Subscription(pattern, None, lambda: self._live.remove(live), live)

    def _check_options(self, handler: Handler, start: object, max_in_flight: int, max_attempts: int) -> None:
        if self._closed:
            raise ShuttingDown("the platform is closed, or closing, and takes no new subscriptions")
        if not callable(handler):
            raise InvalidArguments(f"handler={handler!r} can't be called", path="$.handler")
        if refusal := refuses_one(handler):
            raise InvalidArguments(f"handler={handler!r} is called with the event alone: {refusal}", path="$.handler")
        for name, value in (("max_in_flight", max_in_flight), ("max_attempts", max_attempts)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidArguments(f"{name}={value!r}: a whole number, at least 1", path=f"$.{name}")
        if not (start in ("new", "beginning") or (isinstance(start, int) and not isinstance(start, bool) and start >= 0)):
            raise InvalidArguments(f'start={start!r}: "new", "beginning" or a position{near(start, ("new", "beginning"))}', path="$.start")

    async def _subscribe_durable(self, handler: Handler, durable: str | None, group: str | None, options: dict[str, Any]) -> Subscription:
        name = durable_name(durable, group)
        member = Member(handler)
        present = await self._groups.find(name)
        if present is None:
            present = Group(options)
            present.members.append(member)
            present.subscription = self._running(
                name, lane_of=_stream_of, deliver=present.deliver, matches=matcher(options["pattern"]),
                max_in_flight=options["max_in_flight"], max_attempts=options["max_attempts"], start=options["start"],
            )  # fmt: skip
            await self._groups.start(name, present)
        elif group is None:
            raise InvalidArguments(f"the durable subscription {durable!r} has a handler already; use group= to share its events", path="$.durable")
        else:
            await self._groups.join(present, member, options)
        return Subscription(options["pattern"], name, lambda: self._groups.leave(name, present, member))

    def _running(self, name: str, *, deliver: Deliver, start: str | int = "new", **options: Any) -> Running:
        """A durable subscription, which on a cluster is run by one of the nodes that have it."""
        sharing = self.sharing
        common: dict[str, Any] = {"dead_letters": self._letters, "clock": self._clock, "random": self._random, "start": start, **options}
        if sharing is None:
            return DurableSubscription(name, self._log, self._records, deliver=deliver, **common)

        def make(kept: KeptPosition) -> DurableSubscription:
            async def while_serving(lane: str, events: Sequence[Event]) -> None:
                await sharing.wait_serving()
                if sharing.runner != kept.runner:
                    raise ShuttingDown(f"the subscription {name!r} may be another node's by now")
                await deliver(lane, events)

            return DurableSubscription(name, self._log, self._records, deliver=while_serving, kept=kept, **common)

        return SharedSubscription(name, sharing, self._records, first=partial(first_position, self._log, start), make=make)

    @leaves
    async def forward(self, forwarder: Forwarder) -> Subscription:
        """Send matching events to the outside. A new name begins with what comes from now on, a known one where it stopped.
        Closing the subscription closes the forwarder too. Raises `InvalidArguments` if one of that name is at work, or what is given is no
        forwarder.
        """
        if not all(hasattr(forwarder, part) for part in ("name", "pattern", "forward")):
            told = f"{forwarder!r} is no forwarder: it needs a name, a pattern and `async def forward(self, events)`"
            raise InvalidArguments(told, path="$.forwarder")
        name = f"forward/{check_key(forwarder.name)}"
        if await self._groups.find(name) is not None:
            raise InvalidArguments(f"there is a forwarder {forwarder.name!r} already", path="$.name")

        async def deliver(_lane: str, events: Sequence[Event]) -> None:
            await forwarder.forward(events)

        group = Group({})
        group.subscription = self._running(
            name, lane_of=_one_lane, deliver=deliver, matches=matcher(forwarder.pattern), batch=FORWARD_BATCH, max_attempts=FORWARD_ATTEMPTS,
        )  # fmt: skip
        await self._groups.start(name, group)
        self._forwarders.append(forwarder)

        async def stop() -> None:
            if forwarder in self._forwarders:
                self._forwarders.remove(forwarder)
                await self._groups.end(name, group)
                await _close(forwarder)

        return Subscription(forwarder.pattern, name, stop)

    # -- life ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Nothing runs until somebody subscribes."""

    async def close(self, grace_s: float = CLOSE_GRACE_S) -> None:
        """Stop all subscriptions: handlers at work get a while to end, then are cancelled; positions are stored."""
        self._closed = True
        await asyncio.gather(self._live.close(grace_s), self._groups.close(grace_s))
        forwarders, self._forwarders = self._forwarders, []
        await asyncio.gather(*(_close(forwarder) for forwarder in forwarders))


async def _close(forwarder: Forwarder) -> None:
    if isinstance(forwarder, _Closes):
        await forwarder.close()


def _stream_of(event: Event) -> str:
    return event.stream


def _one_lane(_event: Event) -> str:
    return "forward"
