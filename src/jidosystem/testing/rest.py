"""What a node is still at: everything that keeps a platform from being at rest, each in a sentence."""

from __future__ import annotations

from collections.abc import Iterator

from ..core.bus import EventBus
from ..core.subscriptions import DurableSubscription
from ..runtime.activation import Activation
from ..runtime.node import Node
from ..runtime.status import Status
from ..runtime.subscriptions import Subscriptions

ALWAYS = {"Config.follow"}
"""What a node of a cluster is at as long as it lives."""


def subscriptions_of(bus: EventBus, agents: Subscriptions) -> Iterator[DurableSubscription]:
    """Every durable subscription of a platform that has been started."""
    yield from agents._running.values()
    started = (group.subscription for group in bus._groups._groups.values() if group.started.done())
    yield from (running for running in started if isinstance(running, DurableSubscription))


def unrest(node: Node, bus: EventBus, agents: Subscriptions, log_end: int | None) -> Iterator[str]:
    """What runs, is due or undelivered. `log_end`: the position of the last event stored; None: not looked at."""
    for host in node.hosts.values():
        for activation in host.live.values():
            if told := _of_agent(activation):
                yield f"{activation.address} {told}"
        if host.repeating:
            yield f"{len(host.repeating)} turns of {host.type.name} wait to be repeated"
    yield from _of_reminders(node)
    for subscription in subscriptions_of(bus, agents):
        lanes = subscription._lanes
        if lanes.size or subscription._in_flight or (log_end is not None and lanes.position < log_end):
            yield f"the subscription {subscription.name} is at position {subscription.position} of {log_end or 'the log'}, {lanes.size} events to go"
    yield from _of_live(bus, log_end)
    if node._tasks:
        names = {getattr(getattr(task, "_coro", None), "__qualname__", "something") for task in node._tasks} - ALWAYS
        if names:
            yield f"the platform is busy with {', '.join(sorted(names))}"


def _of_agent(activation: Activation) -> str | None:
    if activation.status is Status.PAUSED:
        return None
    outbox = activation.extra.outbox if activation.extra is not None else None
    running = [turn.spec.name for turn in activation.running()]
    if running:
        return f"is in {', '.join(running)}"
    if activation.status is not Status.LIVE:
        return f"is {activation.status.name.lower()}"
    if not activation.idle:
        return f"has {len(activation.queue) if activation.queue else 0} turns to run, or to commit"
    if outbox is not None and (going := [to for to in outbox._lanes if not _is_paused(activation, to)]):
        return f"has casts under way to {', '.join(going)}"
    return None


def _is_paused(sender: Activation, to: str) -> bool:
    type_name, _, key = to.partition("/")
    host = sender.host.node.hosts.get(type_name)
    receiver = host.live.get(key) if host is not None else None
    return receiver is not None and receiver.status is Status.PAUSED


def _of_reminders(node: Node) -> Iterator[str]:
    reminders, clock = node.reminders, node.clock
    due = [address for when, _seq, address, _reminder in reminders._relative if when <= clock.monotonic_s()]
    due += [address for when, _seq, address, _reminder in reminders._calendar if when <= clock.time_s()]
    if due or reminders._firing:
        yield f"{len(due) + reminders._firing} reminders are due" + (f", of {', '.join(sorted(set(due))[:5])}" if due else "")


def _of_live(bus: EventBus, log_end: int | None) -> Iterator[str]:
    dispatch = bus._live
    if dispatch._task is not None and log_end is not None and dispatch._position < log_end:
        yield f"live subscriptions are at position {dispatch._position} of {log_end}"
    for live in (*dispatch._live, *dispatch._own):
        if live.buffer or live.waiting:
            yield f"the live subscription to {live.pattern} has {len(live.buffer) + len(live.waiting)} events to handle"
