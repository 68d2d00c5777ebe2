"""What the platform itself delivers: effects, events and reminders, each applied once.

The receiver's record keeps the last number of every series (sender, subscription), written with the state; what comes
again is dropped, and answered once the commit that took it is durable. A reminder is done if the record no longer says it.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from ..core.codec import decode, encode
from ..core.errors import AgentCrashed, AgentFailed, JidoError, Moved, NoHost
from ..core.events import Event, encode_event
from ..core.ids import split_address
from ..core.troubles import NotNow
from ..distribution.frames import DeliveryFrame
from .definition import DELETE
from .effects import CastEffect, Reminder
from .status import Status
from .turn import DELIVERY, DueOrigin, Origin, SensorOrigin, Turn

if TYPE_CHECKING:
    from .activation import Activation
    from .host import Host
    from .node import Node


def deliver_effect(node: Node, address: str, effect: CastEffect | Reminder, origin: Origin, missed: int = 0, *, arrived: bool = False) -> None:
    """Run what was cast or is due, as soon as its type is hosted, here or on another node; it answers through its origin."""
    type_name, key = split_address(address)
    host = node.hosts.get(type_name)
    if host is None:
        if node.router is not None and isinstance(effect, CastEffect) and node.router.deliver_by_name(address, _cast_frame(effect, origin), origin):
            return
        node.recovery.wait_for_type(type_name, partial(deliver_effect, node, address, effect, origin, missed, arrived=arrived), agent=address)
        return
    spec = host.type.deletion if effect.action == DELETE else host.type.actions.get(effect.action)
    try:
        if spec is None:
            raise host.type.no_action(effect.action, address, f"{_asker(origin)} asks for it")
        kwargs = spec.signature.from_plain(effect.args)
    except JidoError as error:
        origin.settled(error)
        return
    if spec.wants_missed and isinstance(effect, Reminder):
        kwargs["missed"] = missed
    turn = Turn(host.live.get(key) or host.dummy, spec, (), None)
    turn.kind, turn.kwargs, turn.origin, turn.arrived = DELIVERY, kwargs, origin, arrived
    turn.follow(effect)
    deliver(host, key, turn)


def _cast_frame(cast: CastEffect, origin: Origin) -> DeliveryFrame:
    why = (cast.correlation_id, cast.causation_id, cast.traceparent)
    return DeliveryFrame(cast.to, cast.action, "from", origin.name, origin.number, cast.args, (), False, b"", *why)


def _asker(origin: Origin) -> str:
    return f"its reminder {origin.name!r}" if isinstance(origin, DueOrigin) else origin.name


def deliver(host: Host, key: str, turn: Turn) -> None:
    """Run a delivery unless it was done before; it answers through its origin."""
    origin, router = turn.origin, host.node.router
    assert origin is not None
    if router is not None and not turn.arrived:
        try:
            member = router.elsewhere(host, key)
        except NoHost as error:  # nobody for now; all that are left are draining, say
            origin.settled(Moved(str(error), agent=host.prefix + key, owner="", incarnation=0))
            return
        if member is not None:
            router.deliver(member, host.prefix + key, delivery_frame(host.prefix + key, turn), origin)
            return
    if isinstance(origin, DueOrigin) and key not in host.live:
        host.node.own(_wake_if_due(host, key, turn, origin))
    else:
        _deliver(host, key, turn, origin)


def give_back(activation: Activation) -> None:
    """The agent is paused: events that wait in its mailbox go back to their subscriptions, which others wait for."""
    queue = activation.queue
    for turn in tuple(queue.turns) if queue is not None else ():
        if turn.origin is not None and turn.origin.kind == "sub" and not turn.withdrawn:
            turn.withdraw()
            activation.host.guards.untold(activation, turn)
            turn.fail(NotNow())


def delivery_frame(to: str, turn: Turn) -> DeliveryFrame:
    """A delivery as it travels."""
    origin = turn.origin
    assert origin is not None
    why = (turn.correlation_id, turn.causation_id, turn.traceparent)
    kind: Any = origin.kind
    if isinstance(origin, DueOrigin):
        return DeliveryFrame(to, turn.spec.name, kind, origin.name, origin.number, b"", (), False, encode(origin.reminder), *why)
    if kind == "sub" or (turn.args and not turn.kwargs):
        given: Event | list[Event] = turn.args[0]
        events = given if isinstance(given, list) else [given]
        blobs = tuple((event.position, encode_event(event)) for event in events)
        return DeliveryFrame(to, turn.spec.name, kind, origin.name, origin.number, b"", blobs, isinstance(given, list), b"", *why)
    args = turn.spec.signature.to_plain(turn.args, turn.kwargs or {})
    return DeliveryFrame(to, turn.spec.name, kind, origin.name, origin.number, args, (), False, b"", *why)


def settle(done: asyncio.Future[None], error: BaseException | None) -> None:
    """The answer of a delivery, for whoever waits for it and hasn't given up."""
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


async def _wake_if_due(host: Host, key: str, turn: Turn, origin: DueOrigin) -> None:
    """A passive agent isn't woken for a reminder that it has forgotten, nor a deleted one, whose `on_start` might bring it to life again."""
    try:
        row = await host.node.records.read_row(host.prefix + key, "due", origin.row)
    except JidoError as error:
        origin.settled(error)
        return
    except asyncio.CancelledError:
        origin.settled(host.node.shutting_down(host.prefix + key))
        raise
    if row is None and key not in host.live:
        origin.settled(None)
    else:
        _deliver(host, key, turn, origin)


def _deliver(host: Host, key: str, turn: Turn, origin: Origin) -> None:
    try:
        activation = host.find(key)
        if isinstance(origin, DueOrigin) and activation.status is Status.PAUSED:
            origin.settled(None)  # it stays in its row, in nobody's way; `resume` reminds the scheduler of it
            return
        if origin.kind == "sub" and activation.status is Status.PAUSED:
            origin.settled(NotNow())  # it stays with its subscription; `resume` wakes that
            return
        if activation.status != Status.LOADING:
            extra = activation.need_extra()
            if origin.kind == "due" or turn.spec.readonly or activation.revision == 0 or (origin.kind, origin.name) in extra.seen:
                turn.activation = activation
                host.guards.check(activation, turn)
                activation.submit(turn)
                return
    except JidoError as error:
        origin.settled(error)
        return
    host.node.own(_look_and_deliver(host, key, turn))


async def _look_and_deliver(host: Host, key: str, turn: Turn) -> None:
    """Wait for the agent, read the last number of the delivery's series, then go on as `deliver`."""
    origin = turn.origin
    assert origin is not None
    try:
        try:
            await _look(host, key, origin)
        except AgentFailed:
            if turn.spec is not host.type.deletion:
                raise
            await host.node.family.delete_failed(host.prefix + key)
            origin.settled(None)
            return
    except JidoError as error:
        origin.settled(error)
        return
    except asyncio.CancelledError:  # the node closes, and whoever waits for the answer of a delivery from afar holds that up
        origin.settled(host.node.shutting_down(host.prefix + key))
        raise
    deliver(host, key, turn)


async def _look(host: Host, key: str, origin: Origin) -> None:
    activation = await host.find(key).ready()
    extra = activation.need_extra()
    if origin.kind != "due" and (origin.kind, origin.name) not in extra.seen:
        value = await host.node.records.read_row(activation.address, origin.kind, origin.name)
        if (origin.kind, origin.name) not in extra.seen:
            extra.remember(origin.kind, origin.name, decode(value) if value is not None else 0)


def to_be_done(activation: Activation, turn: Turn) -> bool:
    """Whether a delivery that may begin is still to be done; if not, it is answered, once that it was done is durable.

    Asked when its turn comes, for the same thing may have been waiting twice.
    """
    origin, extra = turn.origin, activation.extra
    assert origin is not None
    if isinstance(origin, SensorOrigin):
        if origin.activation is activation:
            return True
        activation.host.guards.untold(activation, turn)
        turn.fail(
            AgentCrashed(f"{activation.address}: the activation that its sensor {origin.name} ran on has ended", agent=activation.address, cause="")
        )
        return False
    if isinstance(origin, DueOrigin):
        if extra is not None and extra.reminders.get(origin.name) == origin.reminder:  # the very one: it may have been replaced for the same time
            return True
    elif turn.spec.readonly:
        return True
    else:
        seen = extra.seen.get((origin.kind, origin.name)) if extra is not None else None
        if seen is None and activation.revision:  # forgotten while it waited, or it came over from an activation that has gone
            activation.host.guards.release(turn)
            activation.host.node.own(_look_and_deliver(activation.host, activation.key, turn))
            return False
        if seen is None or origin.number > seen:
            if seen is not None and origin.kind == "sub" and type(turn.args[0]) is list:
                # Batches after a restart are cut elsewhere than before.
                turn.args = ([event for event in turn.args[0] if event.position > seen],)
            return True
    activation.host.guards.untold(activation, turn)
    activation.answer_when_durable(turn, None)
    return False
