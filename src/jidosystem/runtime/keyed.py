"""Idempotency keys: a keyed call takes effect once, and whoever repeats it gets the first one's answer.

While the first is under way later ones join it; afterwards its answer stands in a row of the agent, committed with the
state. The call goes on for as long as anybody waits for it, and its key stays taken until its turn has ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.codec import encode
from ..core.errors import CallTimeout, IdempotencyConflict, InvalidArguments, OutcomeUnknown
from ..core.ids import is_unicode
from ..core.tracing import ambient_traceparent
from .activation import Activation
from .cycles import check_cycle
from .definition import ActionSpec
from .mailbox import wait_for_room
from .staging import KeyRow
from .status import Status
from .turn import CAST, Turn

if TYPE_CHECKING:
    from .host import Host

_key_row = msgspec.msgpack.Decoder(KeyRow).decode
MAX_KEY_CHARS = 512


class Keyed(asyncio.Future[Any]):
    """A keyed call under way: the future of its answer, and who waits for it. When it is done its key is free."""

    def __init__(self, host: Host, key: str, turn: Turn) -> None:
        super().__init__(loop=host.node.loop)
        assert turn.key is not None
        self.turn = turn
        self.submitted = False
        self.looked_up = False
        self.accepted: asyncio.Future[None] | None = None  # of a cast: nobody waits for its answer, and nobody can give up
        self._host, self._place = host, (key, turn.key)
        self._waiting: list[Patience] = []

    def set_result(self, result: Any) -> None:
        """The answer, once it is durable."""
        super().set_result(result)
        self._settled()

    def set_exception(self, exception: type | BaseException) -> None:
        """What became of the call instead; a repetition runs again."""
        super().set_exception(exception)
        self.exception()  # nobody may be left to hear of it
        self._settled()

    def _settled(self) -> None:
        if self._host.joins.get(self._place) is self:
            del self._host.joins[self._place]
        for patience in self._waiting:
            patience.answered(self)
        if self.accepted is not None and not self.accepted.done():
            if (error := self.exception()) is not None:
                self.accepted.set_exception(error)
                self.accepted.exception()
            else:
                self.accepted.set_result(None)

    @property
    def waiting(self) -> int:
        """How many wait for the answer."""
        return len(self._waiting)

    def extend(self, deadline: float) -> None:
        """It may take as long as the most patient one waits; a cast as long as it takes."""
        turn = self.turn
        while turn.successor is not None:  # rolled back, and to be run again
            turn = turn.successor
        turn.deadline = None if self.accepted is not None else max(turn.deadline or 0.0, deadline)

    def keep(self) -> asyncio.Future[None]:
        """It is a cast now, or too: not taken back although nobody waits for its answer. Done when it is in the mailbox."""
        if self.accepted is None:
            self.accepted = self.get_loop().create_future()
            self.extend(0.0)
            if self.submitted:
                self.accepted.set_result(None)
        return self.accepted

    def wait(self) -> Patience:
        """One more who waits."""
        patience = Patience(self)
        self._waiting.append(patience)
        return patience

    def left(self, patience: Patience) -> None:
        """One doesn't wait any more; the last one takes the call back if it hasn't begun."""
        if self.done():
            return
        self._waiting.remove(patience)
        turn = self.turn
        if not self._waiting and self.accepted is None and not turn.begun:
            if self.submitted:
                turn.withdraw()
            turn.withdrawn = True
            self.set_exception(turn.too_late())


class Patience:
    """One who waits for a keyed call's answer. An entry of the timer wheel."""

    __slots__ = ("_keyed", "future", "slot")

    def __init__(self, keyed: Keyed) -> None:
        self._keyed = keyed
        self.future: asyncio.Future[Any] = keyed.get_loop().create_future()
        self.slot: int | None = None

    def answered(self, reply: Keyed) -> None:
        """The answer has come."""
        if self.future.done():
            return
        if (error := reply.exception()) is not None:
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
        turn.kwargs, turn.deadline = kwargs, deadline
        if caller is None and host.node.tracing.enabled:
            turn.traceparent = ambient_traceparent()
        keyed = _make(host, key, turn, given, hashed)
        _begin(host, key, keyed)
    turn = keyed.turn
    keyed.extend(deadline)
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
    keyed = _under_way(host, key, given, hashed)
    if keyed is None:
        turn.kind = CAST
        keyed = _make(host, key, turn, given, hashed)
        keyed.keep()
        _begin(host, key, keyed)
    await asyncio.shield(keyed.keep())


def _under_way(host: Host, key: str, given: str, hashed: bytes) -> Keyed | None:
    keyed = host.joins.get((key, given))
    if keyed is not None:
        _check_same(host, key, given, keyed.turn.key_hash, hashed)
    return keyed


def _make(host: Host, key: str, turn: Turn, given: str, hashed: bytes) -> Keyed:
    turn.key, turn.key_hash = given, hashed
    keyed = turn.reply = host.joins[key, given] = Keyed(host, key, turn)
    return keyed


def _begin(host: Host, key: str, keyed: Keyed) -> None:
    """Calls of one agent keep the order in which they were made: nobody takes the short way past one that waits."""
    waiting = host.detours.get(key)
    if waiting is not None:
        waiting.append(keyed)
    elif not _short_way(host, key, keyed):
        _wait_in_line(host, key, keyed)


def _short_way(host: Host, key: str, keyed: Keyed) -> bool:
    """The commonest, a call of a live agent with room, needs no task: at most its key's row is looked up before its turn."""
    try:
        activation = host.find(key)
        if activation.status is Status.LOADING or not _has_room(host, activation):
            return False
        keys = 0 if activation.extra is None else activation.extra.marks.keys
        if not keys or keyed.looked_up:
            _submit(host, key, keyed)
        elif keys >= host.node.limits.idempotency_max_keys:
            return False
        else:
            assert keyed.turn.key is not None
            row = host.node.records.read_row(activation.address, "key", keyed.turn.key)
            row.add_done_callback(partial(_looked_up, host, key, keyed))
    except Exception as error:  # whatever refuses it is the caller's answer
        _fail(keyed, error)
    return True


def _has_room(host: Host, activation: Activation) -> bool:
    queue = activation.queue
    return host.type.mailbox.overflow != "block" or queue is None or (len(queue) < host.mailbox_limit and not queue.room)


def _looked_up(host: Host, key: str, keyed: Keyed, row: asyncio.Future[bytes | None]) -> None:
    """What the key's row says is here: answer with it, or run the turn."""
    if keyed.done():
        return
    try:
        stored = row.result()
        if stored is not None:
            _answer_from(host, key, keyed.turn, _key_row(stored))
            return
    except asyncio.CancelledError:
        keyed.set_exception(_closed_meanwhile(host, key))
        return
    except Exception as error:  # whatever it is, it is the caller's answer
        _fail(keyed, error)
        return
    keyed.looked_up = True
    _begin(host, key, keyed)


def _submit(host: Host, key: str, keyed: Keyed) -> None:
    turn = keyed.turn
    if turn.withdrawn:
        return
    activation = turn.activation = host.find(key)
    host.guards.check(activation, turn)
    keyed.submitted = True
    activation.submit(turn)
    if keyed.accepted is not None and not keyed.accepted.done():
        keyed.accepted.set_result(None)


def _fail(keyed: Keyed, error: Exception) -> None:
    if not keyed.done():
        keyed.turn.fail(error)


def _answer_from(host: Host, key: str, turn: Turn, stored: KeyRow) -> None:
    assert turn.key is not None
    _check_same(host, key, turn.key, stored.hash, turn.key_hash)
    turn.answer(turn.spec.signature.decode_result(stored.reply))


def _wait_in_line(host: Host, key: str, keyed: Keyed) -> None:
    host.detours[key] = deque((keyed,))
    host.node.own(_line(host, key))


async def _line(host: Host, key: str) -> None:
    """Bring those who wait for an agent, for room among its keys or in its mailbox, to it one after another."""
    waiting = host.detours[key]
    try:
        while waiting:
            keyed = waiting[0]
            if not keyed.done() and not _short_way(host, key, keyed):
                await _long_way(host, key, keyed)
            waiting.popleft()
    finally:
        del host.detours[key]


async def _long_way(host: Host, key: str, keyed: Keyed) -> None:
    turn = keyed.turn
    try:
        stored = None if keyed.looked_up else await _look_up(host, key, turn)
        if stored is not None:
            _answer_from(host, key, turn, stored)
        elif not turn.withdrawn:
            turn.activation = host.find(key)
            if host.type.mailbox.overflow == "block":
                await wait_for_room(turn)
            _submit(host, key, keyed)
    except Exception as error:  # whatever it is, it is the caller's answer
        _fail(keyed, error)


def give_up(host: Host) -> None:
    """The platform closes: what is still under way is answered, for nobody else will."""
    for (key, _given), keyed in tuple(host.joins.items()):
        keyed.set_exception(_closed_meanwhile(host, key))


def _closed_meanwhile(host: Host, key: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"{host.type.name}/{key}: the platform closed while a keyed call was under way; repeat it with the same key", agent=f"{host.type.name}/{key}"
    )


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


async def _make_room_for_keys(activation: Activation) -> None:
    """At the limit, count anew: keys expire."""
    extra, limits = activation.extra, activation.host.node.limits
    if extra is not None and extra.marks.keys >= limits.idempotency_max_keys:
        extra.marks.keys = len(await activation.host.node.records.read_rows(activation.address, "key"))


async def _join(keyed: Keyed, deadline: float) -> Any:
    if keyed.done():
        return keyed.result()
    deadlines = keyed.turn.activation.host.node.deadlines
    patience = keyed.wait()
    deadlines.add(deadline, patience)
    try:
        return await patience.future
    finally:
        deadlines.discard(patience)
        keyed.left(patience)


def request_hash(spec: ActionSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """What a key stands for: the action and its arguments."""
    import hashlib  # most agents never need it

    arguments = spec.signature.with_defaults(spec.signature.bind(args, kwargs))
    return hashlib.blake2b(encode((spec.name, arguments)), digest_size=16).digest()


def check_idempotency_key(key: str) -> None:
    """`InvalidArguments` unless the key is a string of 1 to 512 characters."""
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_CHARS:
        raise InvalidArguments(f"idempotency_key={key!r}: a string of 1 to {MAX_KEY_CHARS} characters", path="$.idempotency_key")
    if not is_unicode(key):
        raise InvalidArguments(f"idempotency_key={key!r}: no valid Unicode", path="$.idempotency_key")


def _check_same(host: Host, key: str, idempotency_key: str, known: bytes, asked: bytes) -> None:
    if known != asked:
        raise IdempotencyConflict(
            f"{host.type.name}/{key}: the idempotency key {idempotency_key!r} was used before with another action or other arguments;"
            " make a key for each request",
            agent=host.prefix + key,
        )
