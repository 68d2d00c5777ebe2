"""The end of a platform as by `kill -9`: nothing of it acts any more, and none of its endings run.

Its store is dead already. What remains is to take what it left on the event loop off it, and to tell those who wait for
it, whose own process would have seen a broken connection: `OutcomeUnknown`. A coroutine can't be made to vanish: it is
cancelled, and whatever it does then reaches nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from ..core.bus import EventBus
from ..core.errors import OutcomeUnknown
from ..runtime.activation import Activation
from ..runtime.keyed import give_up
from ..runtime.node import Node
from ..runtime.subscriptions import Subscriptions
from .rest import subscriptions_of

PATIENCE_S = 5.0
"""How long a cancelled coroutine may take to end; one that takes longer is left behind."""


async def bury(node: Node, bus: EventBus, agents: Subscriptions) -> None:
    """Take everything of a dead platform off the loop."""
    node.closing = bus._closed = bus._live._closed = agents._closed = True
    _stop_clocks(node)
    tasks = [*_of_subscriptions(bus, agents), *node._tasks]
    for host in node.hosts.values():
        for turn in tuple(host.repeating):
            turn.fail(_lost(f"a turn of {host.type.name}"))
        for activation in tuple(host.live.values()):
            tasks += _end(activation)
        give_up(host)
    tasks = [task for task in tasks if not task.done()]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=PATIENCE_S)
    node.threads.close()
    if node._watchdog is not None:
        await node._watchdog.close()
    node._collector.restore()


def _stop_clocks(node: Node) -> None:
    node.reminders.close()
    if node._sweep_handle is not None:
        node._sweep_handle.cancel()
    for handle in tuple(node._timers):
        handle.cancel()
    node.deadlines.clear()
    node.committing.clear()


def _end(activation: Activation) -> list[asyncio.Future[Any]]:
    """Drop an agent; everybody who waits for it is told, and its code is to be cancelled."""
    error = _lost(activation.address)
    running = list(activation.running())
    waiting = [
        turn for batch in (activation.inflight, activation.batch) if batch is not None for turn, _value in (*batch.turns, *(batch.waiters or ()))
    ]
    for turn in running:
        turn.open = False
        turn.stop_reason = error
    for turn in (*activation.host.drop(activation), *running, *waiting):
        turn.fail(error)
    return [turn.task for turn in running if turn.task is not None]


def _of_subscriptions(bus: EventBus, agents: Subscriptions) -> Iterator[asyncio.Future[Any]]:
    for subscription in subscriptions_of(bus, agents):
        subscription._closed = True
        for handle in (subscription._timer, subscription._pump_soon):
            if handle is not None:
                handle.cancel()
        yield from (*subscription._tasks, *subscription._in_flight, *subscription._visits)
    dispatch = bus._live
    if dispatch._task is not None:
        yield dispatch._task
    yield from dispatch._own.values()
    for live in (*dispatch._live, *dispatch._own):
        live.buffer.clear()
        yield from live.waiting


def _lost(what: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"{what}: the platform crashed, and what had begun may or may not have been committed (a fault of the test)")
