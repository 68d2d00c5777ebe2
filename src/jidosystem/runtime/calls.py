"""The way in: calls, casts and deliveries, from wherever they come, end here and become turns.

`reference.py` has the short way for the plain call of an idle agent; everything else takes this road.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.codec import decode, encode
from ..core.errors import CallTimeout, IdempotencyConflict, InvalidArguments, JidoError, OutcomeUnknown, OutsideTurn, ShuttingDown
from .boundary import IMMUTABLE, is_immutable
from .definition import ActionSpec
from .mailbox import check_cycle
from .staging import KeyRow
from .status import Status
from .turn import CAST, CastTurn, Turn, current_turn

if TYPE_CHECKING:
    from .activation import Activation
    from .host import Host
    from .node import Node

_key_row = msgspec.msgpack.Decoder(KeyRow).decode
MAX_KEY_CHARS = 512


async def call(
    host: Host, key: str, spec: ActionSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any], timeout_s: float | None, idempotency_key: str | None
) -> Any:
    """Call an action and wait for its durable answer."""
    node = host.node
    caller = current_turn()
    if caller is not None and caller.spec.threaded:
        raise OutsideTurn(
            f"{caller.activation.address}.{caller.spec.name} is a plain def and runs in a thread: it can't call; make it an `async def`, or cast"
        )
    if node.closing:
        raise ShuttingDown(f"{host.type.name}/{key}: the platform is closing and takes no new work", agent=f"{host.type.name}/{key}")
    deadline = deadline_of(node, caller, timeout_s)
    if caller is not None:
        await caller.activation.durable_so_far()
    args, kwargs = cross(spec, args, kwargs, checking=node.checking)
    if idempotency_key is not None and not spec.readonly:
        return await _keyed_call(host, key, spec, args, kwargs, caller, deadline, idempotency_key)
    activation = host.find(key)
    turn = Turn(activation, spec, args, caller)
    turn.kwargs, turn.deadline = kwargs, deadline
    return await submit_and_wait(activation, turn)


def deadline_of(node: Node, caller: Turn | None, timeout_s: float | None) -> float:
    """When a caller's patience ends, in the loop's time; nobody in a chain of calls waits longer than who is above."""
    if timeout_s is None:
        timeout_s = node.limits.default_timeout
    elif isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not timeout_s >= 0:
        raise InvalidArguments(f"timeout={timeout_s!r}: seconds, 0 or more", path="$.timeout")
    deadline = node.loop.time() + timeout_s
    while caller is not None:
        if caller.deadline is not None and caller.deadline < deadline:
            deadline = caller.deadline
        caller = caller.caller
    return deadline


def cross(spec: ActionSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, checking: bool = False) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Arguments on their way in: copies of what could be changed; in checking mode of everything, as on the way to another node."""
    if checking and spec.copy:
        return (), spec.signature.from_plain(spec.signature.to_plain(args, kwargs))
    if spec.copy:
        for value in args:
            if type(value) not in IMMUTABLE and not is_immutable(value):
                return (), spec.signature.copy_args(args, kwargs)
        for value in kwargs.values():
            if type(value) not in IMMUTABLE and not is_immutable(value):
                return (), spec.signature.copy_args(args, kwargs)
    spec.signature.check_arity(args, kwargs)
    return args, kwargs


async def submit_and_wait(activation: Activation, turn: Turn) -> Any:
    """Hand a turn to its agent and wait for the answer, at most until the turn's deadline."""
    host = activation.host
    if turn.caller is not None and not activation.idle:
        check_cycle(activation, turn.caller)
    host.guards.check(activation, turn)
    if host.type.mailbox.overflow == "block":
        await _room(activation, turn)
    turn.activation.submit(turn)
    return await answer(turn)


async def answer(turn: Turn) -> Any:
    """The answer of a turn that was submitted."""
    if turn.answered:
        if turn.error is not None:
            raise turn.error
        return turn.value
    node = turn.activation.host.node
    reply = turn.reply
    if reply is None:
        reply = turn.reply = node.loop.create_future()
    if turn.deadline is None:
        turn.deadline = node.loop.time() + node.limits.default_timeout
    caller = turn.caller
    node.deadlines.add(turn.deadline, turn)
    if caller is not None:
        caller.waiting_for(turn)
    try:
        return await reply
    except asyncio.CancelledError:
        turn.withdraw()
        raise
    finally:
        node.deadlines.discard(turn)
        if caller is not None:
            caller.no_longer_waiting_for(turn)


async def _room(activation: Activation, turn: Turn) -> None:
    """`overflow="block"`: wait for room in the mailbox, at most until the deadline."""
    node = activation.host.node
    if turn.caller is not None:
        turn.caller.waiting_for(turn)
    try:
        while activation.queue is not None and len(activation.queue) >= activation.host.mailbox_limit and activation.status != Status.GONE:
            room = activation.queue.wait_for_room(node.loop)
            timeout_s = None if turn.deadline is None else turn.deadline - node.loop.time()
            try:
                await asyncio.wait_for(room, timeout_s)
            except TimeoutError:
                who = activation.address
                raise CallTimeout(f"{who} had no room for {turn.spec.name} in time; it was never accepted", agent=who, uncertain=False) from None
    finally:
        if turn.caller is not None:
            turn.caller.no_longer_waiting_for(turn)
    if activation.status == Status.GONE:
        turn.activation = activation.host.find(activation.key)


def cast_at_once(activation: Activation | None, spec: ActionSpec, args: tuple[Any, ...]) -> bool:
    """The commonest cast, to a live agent of a plain type and with arguments that nobody can change. False: it takes the long way."""
    if activation is None or activation.status is not Status.LIVE:
        return False
    kind = activation.host
    if not kind.plain or kind.type.mailbox.overflow == "block":
        return False
    if spec.copy:
        for value in args:
            if type(value) not in IMMUTABLE:
                return False
    spec.signature.check_arity(args, {})
    activation.post(CastTurn(activation, spec, args, None))
    return True


async def cast(host: Host, key: str, spec: ActionSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any], idempotency_key: str | None = None) -> None:
    """Put a message from outside into the agent's mailbox; its answer is nobody's."""
    args, kwargs = cross(spec, args, kwargs, checking=host.node.checking)
    activation = host.find(key)
    turn = Turn(activation, spec, args, None)
    turn.kind, turn.kwargs = CAST, kwargs
    if idempotency_key is not None and not spec.readonly:
        host.node.own(_keyed_cast(host, key, turn, idempotency_key))
        return
    host.guards.check(activation, turn)
    if host.type.mailbox.overflow == "block":
        await _room(activation, turn)
    turn.activation.post(turn)


def deliver(host: Host, key: str, turn: Turn) -> None:
    """Run a delivery of the platform unless the agent's record says that it was done before; it answers through its origin."""
    origin = turn.origin
    assert origin is not None
    try:
        activation = host.find(key)
        extra = activation.need_extra()
        if activation.status != Status.LOADING:
            if origin.kind == "due" or turn.spec.readonly:
                _submit_delivery(activation, turn)
                return
            seen = extra.seen.get((origin.kind, origin.name))
            if seen is None and activation.revision == 0:
                seen = 0
            if seen is not None:
                if origin.number <= seen:
                    origin.settled(None)
                else:
                    if origin.kind == "sub" and type(turn.args[0]) is list:  # batches after a restart are cut elsewhere than before
                        turn.args = ([event for event in turn.args[0] if event.position > seen],)
                    _submit_delivery(activation, turn)
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
        activation = await host.find(key).ready()
        if origin.kind != "due" and (origin.kind, origin.name) not in activation.need_extra().seen:
            value = await host.node.records.read_row(activation.address, origin.kind, origin.name)
            activation.need_extra().seen.setdefault((origin.kind, origin.name), decode(value) if value is not None else 0)
    except JidoError as error:
        origin.settled(error)
        return
    deliver(host, key, turn)


def _submit_delivery(activation: Activation, turn: Turn) -> None:
    turn.activation = activation
    if not activation.prepared(turn):
        assert turn.origin is not None
        turn.origin.settled(None)
        return
    activation.host.guards.check(activation, turn)
    activation.submit(turn)


# -- idempotency keys ----------------------------------------------------------------------------------------------


def request_hash(spec: ActionSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """What a key stands for: the action and its arguments."""
    import hashlib

    arguments = spec.signature.with_defaults(spec.signature.bind(args, kwargs))
    return hashlib.blake2b(encode((spec.name, arguments)), digest_size=16).digest()


async def _keyed_call(
    host: Host,
    key: str,
    spec: ActionSpec,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    caller: Turn | None,
    deadline: float,
    idempotency_key: str,
) -> Any:
    check_idempotency_key(idempotency_key)
    hashed = request_hash(spec, args, kwargs)
    first = host.joins.get((key, idempotency_key))
    if first is not None:
        _check_same(host, key, idempotency_key, first.key_hash, hashed)
        return await _join(first, deadline)
    turn = Turn(host.find(key), spec, args, caller)
    turn.kwargs, turn.deadline, turn.key, turn.key_hash = kwargs, deadline, idempotency_key, hashed
    turn.reply = host.node.loop.create_future()
    host.joins[key, idempotency_key] = turn
    reply = turn.reply
    reply.add_done_callback(lambda done: None if done.cancelled() else done.exception())
    host.node.own(_first_keyed(host, key, turn))
    return await _join(turn, deadline)


async def _keyed_cast(host: Host, key: str, turn: Turn, idempotency_key: str) -> None:
    check_idempotency_key(idempotency_key)
    if (key, idempotency_key) in host.joins:
        return
    turn.key, turn.key_hash = idempotency_key, request_hash(turn.spec, turn.args, turn.kwargs or {})
    host.joins[key, idempotency_key] = turn
    turn.reply = host.node.loop.create_future()
    turn.reply.add_done_callback(lambda done: None if done.cancelled() else done.exception())
    await _first_keyed(host, key, turn)


async def _first_keyed(host: Host, key: str, turn: Turn) -> None:
    """Look the key up; answer what is stored, or run the turn. Later calls with the key join this one."""
    assert turn.key is not None
    assert turn.reply is not None
    reply = turn.reply
    try:
        activation = host.find(key)
        if activation.status is Status.LOADING:
            activation = await activation.ready()
        await _make_room_for_keys(activation)
        stored = None
        if activation.extra is not None and activation.extra.marks.keys:
            stored = await host.node.records.read_row(activation.address, "key", turn.key)
        if stored is not None:
            row = _key_row(stored)
            _check_same(host, key, turn.key, row.hash, turn.key_hash)
            turn.answer(turn.spec.signature.decode_result(row.reply))
        else:
            turn.activation = activation = host.find(key)
            await submit_and_wait(activation, turn)
    except asyncio.CancelledError:
        if not reply.done():
            reply.set_exception(OutcomeUnknown(f"{host.type.name}/{key}: the platform closed while a keyed call was under way"))
        raise
    except Exception as error:  # whatever it is, it is the caller's answer
        if not reply.done():
            turn.fail(error)
    finally:
        del host.joins[key, turn.key]


async def _make_room_for_keys(activation: Activation) -> None:
    """At the limit, count anew: keys expire."""
    extra, limits = activation.extra, activation.host.node.limits
    if extra is not None and extra.marks.keys >= limits.idempotency_max_keys:
        extra.marks.keys = len(await activation.host.node.records.read_rows(activation.address, "key"))


async def _join(first: Turn, deadline: float) -> Any:
    """Wait for a keyed call's answer; giving up leaves it to the others."""
    assert first.reply is not None
    if first.reply.done():
        return first.reply.result()
    node = first.activation.host.node
    patience = Patience(first, node.loop.create_future())
    first.reply.add_done_callback(patience.answered)
    node.deadlines.add(deadline, patience)
    try:
        return await patience.future
    finally:
        node.deadlines.discard(patience)


class Patience:
    """One caller that waits, with others perhaps, for the answer of a keyed turn. An entry of the timer wheel."""

    __slots__ = ("_turn", "future", "slot")

    def __init__(self, turn: Turn, future: asyncio.Future[Any]) -> None:
        self._turn = turn
        self.future = future
        self.slot: int | None = None

    def answered(self, reply: asyncio.Future[Any]) -> None:
        """The turn's answer has come."""
        if self.future.done():
            return
        if reply.cancelled():
            self.future.cancel()
        elif (error := reply.exception()) is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(reply.result())

    def expire(self, now: float) -> None:
        """This caller's deadline has passed."""
        if not self.future.done():
            who = self._turn.activation.address
            self.future.set_exception(CallTimeout(f"no answer from {who}.{self._turn.spec.name} in time", agent=who, uncertain=True))


def check_idempotency_key(key: str) -> None:
    """`InvalidArguments` unless the key is a string of 1 to 512 characters."""
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_CHARS:
        raise InvalidArguments(f"idempotency_key={key!r}: a string of 1 to {MAX_KEY_CHARS} characters", path="$.idempotency_key")


def _check_same(host: Host, key: str, idempotency_key: str, known: bytes, asked: bytes) -> None:
    if known != asked:
        raise IdempotencyConflict(
            f"{host.type.name}/{key}: the idempotency key {idempotency_key!r} was used before with another action or other arguments",
            agent=f"{host.type.name}/{key}",
        )
