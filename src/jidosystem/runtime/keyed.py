"""Idempotency keys: a keyed call takes effect once, and whoever repeats it gets the first one's answer.

While the first is under way later ones join it; afterwards its answer stands in a row of the agent, committed with the
state. The call goes on for as long as anybody waits for it, and its key stays taken until its turn has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.codec import encode
from ..core.errors import CallTimeout, IdempotencyConflict, InvalidArguments, OutcomeUnknown
from .definition import ActionSpec
from .mailbox import check_cycle, wait_for_room
from .staging import KeyRow
from .status import Status
from .turn import CAST, Turn

if TYPE_CHECKING:
    from .activation import Activation
    from .host import Host

_key_row = msgspec.msgpack.Decoder(KeyRow).decode
MAX_KEY_CHARS = 512


class Keyed:
    """A keyed call under way, and how many wait for its answer."""

    __slots__ = ("reply", "submitted", "turn", "waiting")

    def __init__(self, turn: Turn, reply: asyncio.Future[Any]) -> None:
        self.turn = turn
        self.reply = reply
        self.submitted = False
        self.waiting = 0

    @property
    def failed(self) -> bool:
        """Whether it ended and left nothing behind: a repetition runs again."""
        return self.reply.done() and (self.reply.cancelled() or self.reply.exception() is not None)

    def left(self) -> None:
        """One has given up; the last one takes the call back if it hasn't begun."""
        self.waiting -= 1
        turn = self.turn
        if self.waiting == 0 and not turn.begun and not self.reply.done():
            if self.submitted:
                turn.withdraw()
            turn.withdrawn = True
            self.reply.set_exception(turn.too_late())


class Patience:
    """One who waits for a keyed call's answer. An entry of the timer wheel."""

    __slots__ = ("_keyed", "future", "slot")

    def __init__(self, keyed: Keyed, future: asyncio.Future[Any]) -> None:
        self._keyed = keyed
        self.future = future
        self.slot: int | None = None

    def answered(self, reply: asyncio.Future[Any]) -> None:
        """The answer has come."""
        if self.future.done():
            return
        if reply.cancelled():
            self.future.cancel()
        elif (error := reply.exception()) is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(reply.result())

    def expire(self, now: float) -> None:
        """This one's deadline has passed; others may still wait."""
        if not self.future.done():
            turn = self._keyed.turn
            who = turn.activation.address
            if self._keyed.waiting == 1 or turn.begun:
                self.future.set_exception(turn.too_late())
            else:
                self.future.set_exception(CallTimeout(f"no answer from {who}.{turn.spec.name} in time; others wait on", agent=who, uncertain=True))


async def keyed_call(
    host: Host, key: str, spec: ActionSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any], caller: Turn | None, deadline: float, given: str
) -> Any:
    """Run a keyed call, join the one under way, or answer from what is stored; at most until the deadline."""
    check_idempotency_key(given)
    activation = host.find(key)
    if caller is not None and not activation.idle:
        check_cycle(activation, caller, spec)
    hashed = request_hash(spec, args, kwargs)
    keyed = _under_way(host, key, given, hashed)
    first = keyed is None
    if keyed is None:
        turn = Turn(activation, spec, args, caller)
        turn.kwargs = kwargs
        keyed = _begin(host, key, turn, given, hashed)
    turn = keyed.turn
    turn.deadline = max(turn.deadline or 0.0, deadline)
    if caller is not None:
        caller.waiting_for(turn)
    try:
        value = await _join(keyed, deadline)
    finally:
        if caller is not None:
            caller.no_longer_waiting_for(turn)
    return value if first or not spec.copy else spec.signature.copy_result(value)


async def keyed_cast(host: Host, key: str, turn: Turn, given: str) -> None:
    """Accept a keyed cast, once; returns when it waits in the mailbox, or was accepted before."""
    check_idempotency_key(given)
    hashed = request_hash(turn.spec, turn.args, turn.kwargs or {})
    if _under_way(host, key, given, hashed) is None:
        turn.kind = CAST
        accepted: asyncio.Future[None] = host.node.loop.create_future()
        keyed = _begin(host, key, turn, given, hashed, accepted)
        keyed.waiting += 1  # nobody who could give up
        await accepted


def _under_way(host: Host, key: str, given: str, hashed: bytes) -> Keyed | None:
    keyed = host.joins.get((key, given))
    if keyed is None or keyed.failed:
        return None
    _check_same(host, key, given, keyed.turn.key_hash, hashed)
    return keyed


def _begin(host: Host, key: str, turn: Turn, given: str, hashed: bytes, accepted: asyncio.Future[None] | None = None) -> Keyed:
    turn.key, turn.key_hash = given, hashed
    reply = turn.reply = host.node.loop.create_future()
    reply.add_done_callback(_look_at)
    keyed = host.joins[key, given] = Keyed(turn, reply)
    host.node.own(_run(host, key, keyed, accepted))
    return keyed


async def _run(host: Host, key: str, keyed: Keyed, accepted: asyncio.Future[None] | None) -> None:
    """Look the key up; answer what is stored, or run the turn. The key is free again when the turn has ended."""
    turn, reply = keyed.turn, keyed.reply
    assert turn.key is not None
    try:
        stored = await _look_up(host, key, turn)
        if stored is not None:
            _check_same(host, key, turn.key, stored.hash, turn.key_hash)
            turn.answer(turn.spec.signature.decode_result(stored.reply))
        elif not turn.withdrawn:
            await _submit(host, key, keyed)
        if accepted is not None and not accepted.done():
            accepted.set_result(None)
        if not reply.done():
            await asyncio.wait((reply,))
    except asyncio.CancelledError:
        if not reply.done():
            reply.set_exception(OutcomeUnknown(f"{host.type.name}/{key}: the platform closed while a keyed call was under way"))
        if accepted is not None:
            accepted.cancel()
        raise
    except Exception as error:  # whatever it is, it is the caller's answer
        if not reply.done():
            turn.fail(error)
        if accepted is not None and not accepted.done():
            accepted.set_exception(error)
    finally:
        if host.joins.get((key, turn.key)) is keyed:
            del host.joins[key, turn.key]


async def _look_up(host: Host, key: str, turn: Turn) -> KeyRow | None:
    assert turn.key is not None
    activation = host.find(key)
    if activation.status is Status.LOADING:
        activation = await activation.ready()
    await _make_room_for_keys(activation)
    if activation.extra is None or not activation.extra.marks.keys:
        return None
    stored = await host.node.records.read_row(activation.address, "key", turn.key)
    return _key_row(stored) if stored is not None else None


async def _submit(host: Host, key: str, keyed: Keyed) -> None:
    turn = keyed.turn
    turn.activation = host.find(key)
    host.guards.check(turn.activation, turn)
    if host.type.mailbox.overflow == "block":
        await wait_for_room(turn)
    if not turn.withdrawn:
        keyed.submitted = True
        turn.activation.submit(turn)


async def _make_room_for_keys(activation: Activation) -> None:
    """At the limit, count anew: keys expire."""
    extra, limits = activation.extra, activation.host.node.limits
    if extra is not None and extra.marks.keys >= limits.idempotency_max_keys:
        extra.marks.keys = len(await activation.host.node.records.read_rows(activation.address, "key"))


async def _join(keyed: Keyed, deadline: float) -> Any:
    if keyed.reply.done():
        return keyed.reply.result()
    node = keyed.turn.activation.host.node
    patience = Patience(keyed, node.loop.create_future())
    keyed.waiting += 1
    keyed.reply.add_done_callback(patience.answered)
    node.deadlines.add(deadline, patience)
    try:
        return await patience.future
    finally:
        node.deadlines.discard(patience)
        keyed.left()


def _look_at(reply: asyncio.Future[Any]) -> None:
    """Nobody may be left to hear of a failure."""
    if not reply.cancelled():
        reply.exception()


def request_hash(spec: ActionSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """What a key stands for: the action and its arguments."""
    import hashlib  # most agents never need it

    arguments = spec.signature.with_defaults(spec.signature.bind(args, kwargs))
    return hashlib.blake2b(encode((spec.name, arguments)), digest_size=16).digest()


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
