"""`@on_event`: one durable subscription per agent type and method; each event becomes a turn of the agent that `key` names.

The subscription's position trails the lowest unfinished event; the agent's own record keeps, per subscription, the
last position it handled, in the same commit as its state: what comes twice is dropped there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from ..core.dead_letters import DeadLetters
from ..core.errors import InvalidKey
from ..core.events import Event, matcher
from ..core.ids import check_key
from ..core.keys import LaneOf, lane_path
from ..core.log import EventLog
from ..core.position import TYPE
from ..core.records import Records
from ..core.subscriptions import DurableSubscription
from .definition import ActionSpec, EventOptions
from .deliveries import deliver, settle
from .host import Host
from .node import Node
from .turn import DELIVERY, Origin, Turn

MAX_IN_FLIGHT = 1_000
"""How many agents handle events of one subscription at a time."""


class Subscriptions:
    """All `@on_event` subscriptions of one node."""

    __slots__ = ("_closed", "_letters", "_log", "_node", "_records", "_running", "_waiting")

    def __init__(self, node: Node, log: EventLog, records: Records, letters: DeadLetters) -> None:
        self._node, self._log, self._records, self._letters = node, log, records, letters
        self._running: dict[str, DurableSubscription] = {}
        self._waiting: list[Host] | None = []  # hosts registered before the start
        self._closed = False
        node.on_hosted.append(self._hosted)
        node.on_takes.append(self._takes)

    async def start(self) -> None:
        """Start the subscriptions of the types that are hosted; later types start theirs as they come."""
        waiting, self._waiting = self._waiting or [], None
        for host in waiting:
            await self._start_host(host)
        self._node.own(self._node.recovery.read_until_told(self._name_waiting))
        self._node.recovery.reviews.append(self._review)

    async def _name_waiting(self) -> None:
        """Say in the log which agent types have a position here and aren't hosted: their events wait."""
        async for page in self._records.scan_agents(TYPE):
            for record in page:
                name = record.agent.partition("/")[2]
                type_name = name.rpartition(".")[0]
                if record.head is not None and "/" not in name:
                    self._node.recovery.is_hosted(f"{type_name}/", subscription=name)

    async def close(self) -> None:
        """Stop; positions are stored. What was under way comes again and is dropped if it was done."""
        self._closed = True
        await asyncio.gather(*(subscription.close() for subscription in self._running.values()))

    def _hosted(self, host: Host) -> None:
        if host.type.events:
            if self._waiting is not None:
                self._waiting.append(host)
            else:
                self._node.own(self._node.recovery.read_until_told(partial(self._start_host, host)))

    def _takes(self, host: Host, key: str) -> None:
        for method in host.type.events:
            subscription = self._running.get(f"{host.type.name}.{method}")
            if subscription is not None:
                subscription.wake(key)

    async def _start_host(self, host: Host) -> None:
        for method, (spec, options) in host.type.events.items():
            name = f"{host.type.name}.{method}"
            if self._closed or name in self._running or not self._is_here(name):
                continue
            key_of = lane_path(options.key) if isinstance(options.key, str) else options.key
            subscription = self._running[name] = DurableSubscription(
                name, self._log, self._records,
                lane_of=partial(_checked_keys, key_of), deliver=partial(self._deliver, host, spec, options, name), matches=matcher(options.pattern),
                batch=options.batch or 1, max_in_flight=MAX_IN_FLIGHT, max_attempts=options.max_attempts, start=options.start,
                dead_letters=self._letters, clock=self._node.clock, agent_of=host.prefix.__add__, random=self._node.random,
            )  # fmt: skip
            try:
                await subscription.start()
            except BaseException:
                del self._running[name]
                raise

    def _is_here(self, name: str) -> bool:
        """Whether this node is to run a subscription: on a cluster one of those that host its type does. Should two of them think so for a moment,
        the receivers drop what comes twice.
        """
        router = self._node.router
        return router is None or router.sees_to(f"{TYPE}/{name}", name.rpartition(".")[0])

    async def _review(self) -> None:
        """The cluster has changed: give up those subscriptions that are another node's now, and take up those that have become this one's."""
        leaving = [name for name in self._running if not self._is_here(name)]
        for subscription in [self._running.pop(name) for name in leaving]:
            await subscription.close()
        for host in tuple(self._node.hosts.values()):
            if host.type.events:
                await self._start_host(host)

    async def _deliver(self, host: Host, spec: ActionSpec, options: EventOptions, name: str, key: str, events: Sequence[Event]) -> None:
        """One turn of one agent; returns when it is durable, or known to have been done before."""
        done: asyncio.Future[None] = self._node.loop.create_future()
        settled = partial(settle, done)
        last = events[-1]
        redrive = last.metadata.get("redrive_id")
        turn = Turn(host.dummy, spec, (list(events) if options.batch is not None else last,), None)
        turn.kind = DELIVERY
        turn.origin = Origin("redrive", str(redrive), 1, settled) if redrive is not None else Origin("sub", name, last.position, settled)
        turn.correlation_id, turn.causation_id, turn.traceparent = last.correlation_id, last.id, last.traceparent
        deliver(host, key, turn)
        await done


def _checked_keys(key_of: LaneOf, event: Event) -> str | list[str] | None:
    """The keys that an event belongs to; an impossible one raises, and the event goes to the dead letters."""
    keys = key_of(event)
    if keys is None:
        return None
    if isinstance(keys, str):
        return check_key(keys)
    if isinstance(keys, int | float | bytes):
        raise InvalidKey(f"the key of an event must be a string, not {type(keys).__name__}: {keys!r}", key=keys)
    return [check_key(key) for key in keys]
