"""The way in: calls, casts and deliveries, from wherever they come, end here and become turns.

`reference.py` has the short way for the plain call of an idle agent; everything else takes this road.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..core.errors import InvalidArguments, OutsideTurn
from ..core.tracing import ambient_traceparent
from .boundary import IMMUTABLE, is_immutable
from .cycles import check_cycle
from .definition import ActionSpec
from .host import Host
from .keyed import keyed_call, keyed_cast
from .mailbox import wait_for_room
from .turn import CAST, Turn, current_turn

if TYPE_CHECKING:
    from .node import Node


async def call(
    host: Host, key: str, spec: ActionSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any], timeout_s: float | None, idempotency_key: str | None
) -> Any:
    """Call an action and wait for its durable answer."""
    node = host.node
    caller = current_turn()
    if caller is not None and caller.spec.threaded:
        raise OutsideTurn(
            f"{caller.activation.address}.{caller.spec.name} is a plain def and runs in a thread: it can't call; make it an `async def`, or cast",
            agent=caller.activation.address,
        )
    if node.closing:
        raise host.shutting_down(key)
    usual = caller is None and timeout_s is None
    deadline = node.loop.time() + node.limits.default_timeout if usual else deadline_of(node, caller, timeout_s)
    if caller is not None:
        await caller.activation.durable_so_far()
    if args or kwargs or 0 not in spec.signature.arities:
        args, kwargs = cross(spec, args, kwargs, checking=node.checking)
    if node.router is not None:
        return await node.router.call(host, key, spec, args, kwargs, caller, deadline, idempotency_key)
    return await call_here(host, key, spec, args, kwargs, caller, deadline, idempotency_key)


async def call_here(
    host: Host, key: str, spec: ActionSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any], caller: Turn | None, deadline: float, keyed: str | None
) -> Any:  # fmt: skip
    """The same on this node: `Moved` if the agent lives on another."""
    if keyed is not None and not spec.readonly:
        return await keyed_call(host, key, spec, args, kwargs, caller, deadline, keyed)
    turn = turn_of(host, key, spec, args, kwargs, caller, deadline)
    if host.type.mailbox.overflow == "block":
        await wait_for_room(turn)
    turn.activation.submit(turn)
    if turn.answered and turn.error is None:
        return turn.value
    if caller is not None or turn.answered:
        return await answer(turn)
    try:  # what `answer` does when nobody's turn waits, without a coroutine more
        return await reply_of(turn)
    except asyncio.CancelledError:
        turn.withdraw()
        raise


def turn_of(host: Host, key: str, spec: ActionSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any], caller: Turn | None, deadline: float) -> Turn:
    """The turn that a call is to become; raises what refuses it."""
    activation = host.find(key)
    turn = Turn(activation, spec, args, caller)
    turn.kwargs, turn.deadline = kwargs, deadline
    if caller is None:
        if host.node.tracing.enabled:
            turn.traceparent = ambient_traceparent()  # it may begin later, and elsewhere than in its caller's context
    elif not activation.idle:
        check_cycle(activation, caller, spec)
    if host.guards.watches:
        host.guards.check(activation, turn)
    return turn


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


async def answer(turn: Turn) -> Any:
    """The answer of a turn that was submitted; waits for it at most until the turn's deadline."""
    if turn.answered:
        if turn.error is not None:
            raise turn.error
        return turn.value
    reply, caller = reply_of(turn), turn.caller
    if caller is not None:
        caller.waiting_for(turn)
    try:
        return await reply
    except asyncio.CancelledError:
        turn.withdraw()
        raise
    finally:
        if caller is not None:
            caller.no_longer_waiting_for(turn)


def reply_of(turn: Turn) -> asyncio.Future[Any]:
    """The future that is done when the turn is durable, has failed, or has outlasted its caller's patience."""
    node = turn.activation.host.node
    reply = turn.reply
    if reply is None:
        reply = turn.reply = node.loop.create_future()
    if turn.deadline is None:
        turn.deadline = node.loop.time() + node.limits.default_timeout
    node.deadlines.add(turn.deadline, turn)
    return reply


async def cast(host: Host, key: str, spec: ActionSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any], idempotency_key: str | None = None) -> None:
    """Put a message from outside into the agent's mailbox; its answer is nobody's."""
    args, kwargs = cross(spec, args, kwargs, checking=host.node.checking)
    if host.node.router is not None:
        await host.node.router.cast(host, key, spec, args, kwargs, idempotency_key)
    else:
        await cast_here(host, key, spec, args, kwargs, idempotency_key)


async def cast_here(host: Host, key: str, spec: ActionSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any], keyed: str | None) -> None:
    """The same on this node. An agent that isn't known to live here is looked for first: `Moved` if it lives on another."""
    if host.node.router is not None and key not in host.live:
        await host.find(key).ready()
    activation = host.find(key)
    turn = Turn(activation, spec, args, None)
    turn.kind, turn.kwargs = CAST, kwargs
    if host.node.tracing.enabled:
        turn.traceparent = ambient_traceparent()
    if keyed is not None and not spec.readonly:
        await keyed_cast(host, key, turn, keyed)
        return
    host.guards.check(activation, turn)
    if host.type.mailbox.overflow == "block":
        await wait_for_room(turn)
    turn.activation.post(turn)
