"""The door between nodes: what comes over a wire ends in the same delivery as what is made here.

`answer` answers frames for the agents of a node; the other side is the node's router, or `remote_call` where there is no
cluster. What comes from afar is checked before a turn starts: the frame, the address, the action, the arguments against their
type hints. Deadline, idempotency key, chain of callers and trace travel with the call; errors of ours come back as themselves,
others as `ActionFailed`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, cast

import msgspec

from ..core.codec import encode
from ..core.errors import (
    CallCycle,
    CallTimeout,
    InvalidFrame,
    JidoError,
    NoHost,
    NotAnAction,
    OutcomeUnknown,
    RefusedError,
    TooLarge,
    WireTimeout,
)
from ..core.events import decode_event
from ..core.ids import address_of, check_key, split_address
from ..core.near import near_or_all
from ..core.traces import leave
from ..core.troubles import NotNow
from ..core.wire import Answered, Served, Wire
from ..distribution.frames import (
    AgentFrame,
    CallFrame,
    CastFrame,
    DeliveryFrame,
    ErrorFrame,
    FamilyFrame,
    Frame,
    NodeFrame,
    ReplyFrame,
    TextCallFrame,
    decode_frame,
    encode_frame,
    error_of,
    frame_of,
)
from . import calls
from .activation import Activation
from .definition import DELETE, ActionSpec
from .deliveries import deliver, settle
from .effects import Reminder
from .host import Host
from .keyed import check_idempotency_key
from .node import Node
from .router import ANSWER_LATE_S, call_frame
from .turn import DELIVERY, Origin, RunningTurn, Turn, current_turn

_ACTIONS = (CallFrame, TextCallFrame, CastFrame, DeliveryFrame)
_TO_AGENTS = (*_ACTIONS, AgentFrame, FamilyFrame)
_reminder = msgspec.msgpack.Decoder(Reminder).decode


class _Elsewhere:
    """Stands for an agent that isn't live on this node, in the chain of a call that passed through it and has come to `host`."""

    inflight = batch = None

    def __init__(self, address: str, host: Host) -> None:
        self.address = address
        self.host = host

    async def durable_so_far(self) -> None:
        """Nothing of it is here to be waited for."""


class RemoteTurn(RunningTurn):
    """A turn in mid-run behind a call that came from afar. Calls made on its behalf know their chain by it."""

    afar = True


# -- answering ---------------------------------------------------------------------------------------------------


async def serve(node: Node, wire: Wire, subject: str, *, group: str = "") -> Served:
    """Answer calls to the agents of a node that arrive under a subject, many at once, until the returned value is closed."""
    return await wire.serve(subject, partial(_answer, node, wire.max_payload_bytes), group=group)


async def _answer(node: Node, max_bytes: int, payload: bytes) -> bytes:
    told = "the call was made and is durable"
    try:
        frame = decode_frame(payload, max_bytes)
        reply = await answer(node, frame)
    except JidoError as error:
        reply = frame_of(error, node.name, "a call")
    try:
        return encode_frame(reply, max_bytes)
    except JidoError as error:  # too large for the wire: what became of the call is told nevertheless
        known = told if isinstance(reply, ReplyFrame) else "the call failed"
        return encode_frame(frame_of(TooLarge(f"an answer can't be sent: {error}; {known}"), node.name))


def answer(node: Node, frame: Frame) -> Awaitable[Frame]:
    """What this node has to say to a frame, an `Answered` where nothing has to be waited for. Whatever goes wrong is an `ErrorFrame`."""
    try:
        if isinstance(frame, CallFrame):
            host, key, spec = _asked(node, frame)
            return _call(node, frame, host, key, spec, spec.signature.from_plain(frame.args), spec.signature.encode_result)
        if isinstance(frame, TextCallFrame):
            host, key, spec = _asked(node, frame)
            called = CallFrame(frame.to, frame.action, b"", frame.timeout_s, frame.idempotency_key)
            return _call(node, called, host, key, spec, spec.signature.from_json(frame.body), spec.signature.result_to_json)
        return _told(node, frame, _do(node, frame))
    except Exception as error:  # whatever it is, it is the caller's answer
        return Answered(_failed(node, frame, error))


async def _told(node: Node, frame: Frame, doing: Awaitable[bytes]) -> Frame:
    try:
        return ReplyFrame(await doing)
    except Exception as error:  # likewise
        return _failed(node, frame, error)


def _failed(node: Node, frame: Frame, error: Exception) -> ErrorFrame:
    where = f"{frame.to}.{frame.action}" if isinstance(frame, _ACTIONS) else frame.to if isinstance(frame, _TO_AGENTS) else "a call"
    return frame_of(error, node.name, where)


async def _do(node: Node, frame: Frame) -> bytes:
    if node.ownership is not None and isinstance(frame, _TO_AGENTS):
        node.ownership.refuse_arrivals(frame.to)
    if node.router is not None and isinstance(frame, NodeFrame):
        return await node.asked[frame.ask](frame)
    if node.router is not None and isinstance(frame, FamilyFrame):
        await node.family.hear(*_host_of(node, frame.to), frame)
        return b""
    if node.router is None or not isinstance(frame, CastFrame | DeliveryFrame | AgentFrame):
        raise InvalidFrame(f"a {type(frame).__name__} where a call was expected")
    if isinstance(frame, CastFrame):
        host, key, spec = _find(node, frame.to, frame.action)
        await calls.cast_here(host, key, spec, (), spec.signature.from_plain(frame.args), frame.idempotency_key)
        return b""
    if isinstance(frame, AgentFrame):
        info = await node.control.orders[frame.order](*_host_of(node, frame.to))
        return b"" if info is None else encode(info)
    await _take(node, frame)
    return b""


async def _take(node: Node, frame: DeliveryFrame) -> None:
    """Apply what another node delivers; returns when it is durable."""
    done: asyncio.Future[None] = node.loop.create_future()
    if frame.kind == "due":
        node.reminders.ring(frame.to, _reminder(frame.reminder), partial(settle, done))
    else:
        host, key = _host_of(node, frame.to)
        spec = host.type.deletion if frame.action == DELETE else host.type.receiving(frame.action)
        if spec is None:
            raise host.type.no_action(frame.action, frame.to, f"{frame.name} asks for it")
        events = [decode_event(blob, position) for position, blob in frame.events]
        turn = Turn(host.dummy, spec, (events if frame.batch else events[0],) if events else (), None)
        turn.kind, turn.arrived, turn.origin = DELIVERY, True, Origin(frame.kind, frame.name, frame.number, partial(settle, done))
        if not events:
            turn.kwargs = spec.signature.from_plain(frame.args)
        turn.correlation_id, turn.causation_id, turn.traceparent = frame.correlation_id, frame.causation_id, frame.traceparent
        deliver(host, key, turn)
    try:
        await done
    except NotNow as paused:
        raise RefusedError(f"{frame.to} is paused; it takes events again once it is resumed", agent=frame.to) from paused


def _asked(node: Node, frame: CallFrame | TextCallFrame) -> tuple[Host, str, ActionSpec]:
    if node.ownership is not None:
        node.ownership.refuse_arrivals(frame.to)
    return _find(node, frame.to, frame.action)


def _call(
    node: Node, frame: CallFrame, host: Host, key: str, spec: ActionSpec, kwargs: Mapping[str, Any], written: Callable[[Any], bytes]
) -> Awaitable[Frame]:
    """Run an action; at once, if the agent is free and the action ends in its first step."""
    if frame.to in frame.chain:
        chain = [*frame.chain, frame.to]
        raise CallCycle(
            f"a cycle of calls would wait for ever: {' → '.join(chain)}; emit an event or cast instead of calling back", agent=frame.to, chain=chain
        )
    if node.closing:
        raise host.shutting_down(key)
    caller, deadline = _callers(node, frame, spec, host), node.loop.time() + frame.timeout_s
    if frame.chain or frame.idempotency_key is not None or host.type.mailbox.overflow == "block":
        doing = _run(host, key, spec, kwargs, caller, deadline, frame.idempotency_key)
    else:
        turn = calls.turn_of(host, key, spec, (), kwargs, caller, deadline)
        turn.activation.submit(turn)
        if turn.answered and turn.error is None:
            return Answered(ReplyFrame(written(turn.value)))
        doing = calls.answer(turn)
    return _told(node, frame, _written(written, doing))


async def _run(
    host: Host, key: str, spec: ActionSpec, kwargs: Mapping[str, Any], caller: RemoteTurn, deadline: float, idempotency_key: str | None
) -> Any:
    await caller.activation.durable_so_far()
    return await calls.call_here(host, key, spec, (), kwargs, caller, deadline, idempotency_key)


async def _written(written: Callable[[Any], bytes], doing: Awaitable[Any]) -> bytes:
    return written(await doing)


def _host_of(node: Node, to: str) -> tuple[Host, str]:
    type_name, key = split_address(to)
    host = node.hosts.get(type_name)
    if host is None or (type_name.startswith("jido.") and node.router is None):
        hosted = [name for name in node.hosts if not name.startswith("jido.")]
        raise NoHost(f"node {node.name} hosts no agent type {type_name!r}{near_or_all(type_name, hosted, 'it hosts')}", agent=to)
    return host, check_key(key)


def _find(node: Node, to: str, action: str) -> tuple[Host, str, ActionSpec]:
    host, key = _host_of(node, to)
    spec = host.type.actions.get(action)
    if spec is None:
        raise NotAnAction(f"{host.type.name} has no action {action!r}{near_or_all(action, host.type.actions, 'it has')}", agent=to)
    return host, key, spec


def _callers(node: Node, frame: CallFrame, spec: ActionSpec, host: Host) -> RemoteTurn:
    """The chain behind a call: agents that live here as themselves, so that a way back to one of them is seen."""
    if not frame.chain:
        return _with_ids(RemoteTurn(cast("Activation", _Elsewhere("", host)), spec, (), None), frame)
    turn: RemoteTurn | None = None
    for address in frame.chain:
        type_name, key = split_address(address)
        at = node.hosts.get(type_name)
        live: Any = (at.live.get(key) if at is not None else None) or _Elsewhere(address, host)
        turn = _with_ids(RemoteTurn(live, spec, (), turn), frame)
    assert turn is not None
    return turn


def _with_ids(turn: RemoteTurn, frame: CallFrame) -> RemoteTurn:
    """Under the ids of the call; without any it draws one when it is asked for it."""
    if frame.correlation_id is not None:
        turn.correlation_id = frame.correlation_id
    if frame.causation_id is not None or frame.traceparent is not None:
        turn.causation_id, turn.traceparent = frame.causation_id, frame.traceparent
    return turn


# -- asking ------------------------------------------------------------------------------------------------------


async def remote_call(
    node: Node,
    wire: Wire,
    subject: str,
    spec: ActionSpec,
    key: str,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    timeout_s: float | None = None,
    idempotency_key: str | None = None,
) -> Any:
    """Call an action of an agent that lives behind a subject of the wire; typed arguments in, a typed result out.

    Made within a turn it waits, as every call does, until what the turn could have seen is durable, and inherits what is
    left of its patience. Raises what the other node told; `CallTimeout` if it told nothing in time; `NodeUnreachable`.
    """
    try:
        return await _ask(node, wire, subject, spec, key, args, kwargs or {}, timeout_s, idempotency_key)
    except Exception as error:
        leave(error, node.name)
        raise


async def _ask(
    node: Node,
    wire: Wire,
    subject: str,
    spec: ActionSpec,
    key: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    timeout_s: float | None,
    idempotency_key: str | None,
) -> Any:
    assert spec.agent_type is not None
    to = address_of(spec.agent_type.name, check_key(key))
    if node.closing:
        raise node.shutting_down(to)
    if idempotency_key is not None:
        check_idempotency_key(idempotency_key)
    blob = spec.signature.to_plain(args, kwargs)
    caller = current_turn()
    deadline = calls.deadline_of(node, caller, timeout_s)
    if caller is not None:
        await caller.activation.durable_so_far()
    left_s = max(0.0, deadline - node.loop.time())
    frame = call_frame(to, spec, blob, left_s, idempotency_key, caller)
    try:
        answer = await wire.request(subject, encode_frame(frame, wire.max_payload_bytes), timeout_s=left_s + ANSWER_LATE_S)
    except WireTimeout:
        raise CallTimeout(f"no answer from {to}.{spec.name} in time; whether it took effect is unknown here", agent=to, uncertain=True) from None
    return _result_of(to, spec, answer)


def _result_of(to: str, spec: ActionSpec, answer: bytes) -> Any:
    try:
        frame = decode_frame(answer)
        if isinstance(frame, ReplyFrame):
            return spec.signature.decode_result(frame.result)
    except (ValueError, msgspec.MsgspecError) as error:
        raise OutcomeUnknown(f"the answer of {to}.{spec.name} can't be read: {error}; whether it took effect is unknown", agent=to) from error
    if not isinstance(frame, ErrorFrame):
        raise OutcomeUnknown(f"the answer of {to}.{spec.name} is a {type(frame).__name__}; whether it took effect is unknown", agent=to)
    raise error_of(frame)
