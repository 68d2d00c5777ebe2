"""Dead letters of effects, reminders and items of sensors, run again when somebody asks: one turn of the agent that they were for.

The letter's id is kept in the agent's record, in the commit of that turn: whatever dies in between, it takes effect once.
A letter is run once more, not put back: the sender's later effects and the reminder's series went on without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from ..core.dead_letters import DeadLetter, DeadLetters
from ..core.errors import JidoError, NodeBusy, NodeUnreachable, NoHost, RecordUnreadable, describe
from ..core.ids import split_address
from ..distribution.frames import NodeFrame
from .definition import DELETE
from .deliveries import deliver, settle
from .effects import CastEffect, Reminder
from .turn import DELIVERY, Origin, Turn

if TYPE_CHECKING:
    from .host import Host
    from .node import Node
    from .router import Router

REDRIVE_S = 330.0
"""How long another node may take to run a letter again: longer than a turn may by default."""
_DONE = b"done"
_cast = msgspec.msgpack.Decoder(CastEffect)
_reminder = msgspec.msgpack.Decoder(Reminder)


def take_letters(node: Node, letters: DeadLetters) -> None:
    """Be the one who runs letters of casts, reminders and sensors again."""
    letters.register("cast", "", partial(_redrive, node, _of_cast))
    letters.register("reminder", "", partial(_redrive, node, _of_reminder))
    letters.register("sensor", "", partial(_redrive_item, node))
    if node.router is not None:
        letters.elsewhere = partial(_redrive_elsewhere, node, node.router)
        node.asked["redrive"] = partial(_redrive_for, letters)


async def _redrive_for(letters: DeadLetters, frame: NodeFrame) -> bytes:
    """Another node asks."""
    return _DONE if await letters.redrive_here(frame.about) else b""


async def _redrive_elsewhere(node: Node, router: Router, letter_id: str) -> bool:
    """Have a letter run again by the node that takes those of its kind: it runs their subscription. False: none does."""
    unheard: JidoError | None = None
    for member in router.others():
        try:
            if await router.ask_node(member, NodeFrame("redrive", letter_id), REDRIVE_S) == _DONE:
                return True
        except (NodeUnreachable, NodeBusy) as error:
            node.log.warning("a node can't be asked to redrive a dead letter", member=member.name, error=describe(error))
            unheard = error
    if unheard is not None:
        raise unheard
    return False


async def _redrive(node: Node, read: Callable[[DeadLetter], tuple[str, CastEffect | Reminder]], letter: DeadLetter) -> None:
    """Run what a letter holds; returns when it is durable, raises what it raises."""
    address, effect = read(letter)
    host, key = _host_of(node, address, letter)
    spec = host.type.deletion if effect.action == DELETE else host.type.actions.get(effect.action)
    if spec is None:
        raise host.type.no_action(effect.action, address, f"the letter {letter.id} stays")
    turn = Turn(host.dummy, spec, (), None)
    turn.kwargs = spec.signature.from_plain(effect.args)
    turn.follow(effect)
    await _run(node, host, key, turn, letter)


async def _redrive_item(node: Node, letter: DeadLetter) -> None:
    """The same for what a sensor yielded: one turn, which leaves the sensor's position as it is."""
    host, key = _host_of(node, letter.agent or "", letter)
    try:
        name, arguments = str(letter.payload["sensor"]), bytes(letter.payload["args"])
    except (KeyError, TypeError) as error:
        raise _unreadable(letter, error) from error
    sensor = host.type.sensors.get(name)
    if sensor is None:
        raise NoHost(f"{host.type.name} has no sensor {name!r} (any more): the letter {letter.id} stays", agent=letter.agent)
    spec = sensor.action
    turn = Turn(host.dummy, spec, (), None)
    turn.kwargs = spec.signature.from_plain(arguments)
    await _run(node, host, key, turn, letter)


def _host_of(node: Node, address: str, letter: DeadLetter) -> tuple[Host, str]:
    type_name, key = split_address(address)
    host = node.hosts.get(type_name)
    if host is None:
        raise NoHost(f"node {node.name} hosts no agent type {type_name!r}: the letter {letter.id} stays", agent=address)
    return host, key


async def _run(node: Node, host: Host, key: str, turn: Turn, letter: DeadLetter) -> None:
    done: asyncio.Future[None] = node.loop.create_future()
    turn.kind = DELIVERY
    turn.origin = Origin("redrive", letter.id, 1, partial(settle, done))
    deliver(host, key, turn)
    await done


def _of_cast(letter: DeadLetter) -> tuple[str, CastEffect | Reminder]:
    try:
        cast = _cast.decode(letter.payload["cast"])
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise _unreadable(letter, error) from error
    return cast.to, cast


def _of_reminder(letter: DeadLetter) -> tuple[str, CastEffect | Reminder]:
    try:
        return letter.agent or "", _reminder.decode(letter.payload["reminder"])
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise _unreadable(letter, error) from error


def _unreadable(letter: DeadLetter, error: Exception) -> RecordUnreadable:
    return RecordUnreadable(f"the dead letter {letter.id} can't be read: {describe(error)}; it stays", agent=letter.agent)
