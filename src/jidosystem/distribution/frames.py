"""What nodes say to each other: calls, answers, errors, signs of life, as bytes that are checked before they are believed.

A frame is a version byte, a checksum and MessagePack. Whatever arrives is either a frame or one `InvalidFrame` that says
what is wrong with it; nothing is guessed, nothing is done. Pure: bytes in, values out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from ..core import errors
from ..core.codec import NOT_CARRIED, encode, seal, unseal
from ..core.errors import ActionFailed, InvalidFrame, JidoError, TooLarge
from ..core.ids import MAX_NODE_NAME
from ..core.shown import plain_or_text, text_of
from ..core.traces import remote_text

VERSION = 1
"""The newest version of the protocol that this release speaks, and the one in which it writes."""
OLDEST_VERSION = 1
"""The oldest one that it understands."""
MAX_FRAME_BYTES = 64 * 1024 * 1024
MAX_CHAIN = 1_000
"""Agents that a chain of calls may pass through."""
MAX_TRACEBACK_CHARS = 16_000
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NODE_NAME)]
_Whole = Annotated[int, msgspec.Meta(ge=0)]


Order: TypeAlias = Literal["start", "stop", "delete", "restart", "pause", "resume", "describe"]


Ask: TypeAlias = Literal["live", "count", "redrive", "drain", "undrain", "type"]


class CallFrame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="call"):
    """A request to run an action. `args` are encoded by name; `timeout_s` is what is left of the caller's patience, since
    clocks of different machines can't be compared; `chain` names the agents in mid-turn behind the call, first caller first."""

    to: str
    action: str
    args: bytes
    timeout_s: float
    idempotency_key: str | None = None
    chain: tuple[str, ...] = ()
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None


class TextCallFrame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="text"):
    """A request to run an action of a type that the sender doesn't know: `body` is a JSON object of arguments by name, and the answer holds
    the result as JSON.
    """

    to: str
    action: str
    body: bytes
    timeout_s: float
    idempotency_key: str | None = None


class CastFrame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="cast"):
    """A message for an agent's mailbox, answered by an empty `ReplyFrame` when it is in there."""

    to: str
    action: str
    args: bytes
    idempotency_key: str | None = None


class DeliveryFrame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="delivery"):
    """What the platform itself delivers, answered by an empty `ReplyFrame` when it is durable, also if it was so before. `kind`, `name` and
    `number` say which of which series it is; `args` are encoded by name. Of a subscription: `events` as (position, stored form), `batch`
    whether they are handed over as a list. Of a reminder: its stored form.
    """

    to: str
    action: str
    kind: Literal["from", "sub", "due", "redrive"]
    name: str
    number: int
    args: bytes = b""
    events: tuple[tuple[int, bytes], ...] = ()
    batch: bool = False
    reminder: bytes = b""
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None


class AgentFrame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="agent"):
    """Something to be done to an agent by the node that has it, answered by a `ReplyFrame` when it is done: `describe` with what is known of it."""

    to: str
    order: Order


class FamilyFrame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="family"):
    """Supervision between nodes, answered by an empty `ReplyFrame`. To a parent: its `child` has "failed" for good, for a `cause`, or "crashed", and
    others may have to start again with it. To such another: "renew", start again if you are live.
    """

    to: str
    what: Literal["failed", "crashed", "renew"]
    child: str
    cause: str = ""


class NodeFrame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="node"):
    """Something asked of a node itself, answered by a `ReplyFrame`: "live", its live agents of a type (`about`), at most `limit` after a key;
    "count", how many of each type live there (`about`: types, with commas between); "redrive", a dead letter (`about`: its id);
    "drain", to give away its agents; "undrain", to take agents again; "type", how the agent type `about` looks, as JSON.
    """

    ask: Ask
    about: str = ""
    after: str = ""
    limit: _Whole = 0


class ReplyFrame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="reply"):
    """The durable answer of a call, encoded."""

    result: bytes


class ErrorFrame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="error"):
    """Why there is no answer: an error of ours by its code and fields, and the node that tells it."""

    code: str
    message: str
    fields: dict[str, Any] = {}
    node: str = ""


class PingFrame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="ping"):
    """Are you there? Answered by a `PongFrame` at once, whatever the node is at."""


class PongFrame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="pong"):
    """Which life of which node is there, and whether its lease lets it serve just now."""

    node: _Name
    incarnation: _Whole
    serving: bool


class BeatFrame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="beat"):
    """A word about a node to all: it lives and its lease is at a revision, or its end can be read there: it "left", or was declared "void".
    A hint: whoever hears it looks, and believes the record.
    """

    node: _Name
    incarnation: _Whole
    revision: _Whole
    end: Literal["", "left", "void"] = ""


AboutAgentFrame: TypeAlias = CallFrame | TextCallFrame | CastFrame | DeliveryFrame | AgentFrame | FamilyFrame
"""What goes to the node of an agent."""
Frame: TypeAlias = AboutAgentFrame | NodeFrame | ReplyFrame | ErrorFrame | PingFrame | PongFrame | BeatFrame
_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)
_VERSION = bytes((VERSION,))


def encode_frame(frame: Frame, max_bytes: int = MAX_FRAME_BYTES) -> bytes:
    """The bytes of a frame; `TooLarge` naming the limit, `InvalidFrame` if it holds what can't be carried."""
    try:
        blob = _VERSION + seal(encode(frame))
    except NOT_CARRIED as error:
        raise InvalidFrame(f"a {type(frame).__name__} can't be carried: {error}") from error
    if len(blob) > max_bytes:
        raise TooLarge(f"a {type(frame).__name__} of {len(blob)} bytes is over the limit of {max_bytes}; nothing was sent", limit=max_bytes)
    return blob


def decode_frame(blob: bytes, max_bytes: int = MAX_FRAME_BYTES) -> Frame:
    """The frame that the bytes are, or `InvalidFrame` saying why they are none."""
    if len(blob) > max_bytes:
        raise InvalidFrame(f"not a frame: {len(blob)} bytes are over the limit of {max_bytes}", limit=max_bytes)
    if not blob:
        raise InvalidFrame("not a frame: no bytes at all")
    if blob[0] != VERSION:
        raise InvalidFrame(f"a frame of version {blob[0]}; this node speaks version {VERSION}", version=blob[0])
    try:
        frame = _decoder.decode(unseal(blob[1:]))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidFrame(f"not a frame: {error}") from error
    if isinstance(frame, CallFrame | TextCallFrame):
        _check_call(frame)
    return frame


def _check_call(frame: CallFrame | TextCallFrame) -> None:
    if not 0 <= frame.timeout_s < float("inf"):
        raise InvalidFrame(f"not a call: timeout_s is {frame.timeout_s!r}, not a number of seconds, 0 or more")
    if isinstance(frame, CallFrame) and len(frame.chain) > MAX_CHAIN:
        raise InvalidFrame(f"not a call: its chain of {len(frame.chain)} agents is over the limit of {MAX_CHAIN}")


# -- errors ------------------------------------------------------------------------------------------------------


def frame_of(error: BaseException, node: str = "", where: str = "") -> ErrorFrame:
    """An error as it travels: ours by code and fields, anybody else's as `ActionFailed` with type, message and traceback.

    `node` tells it, `where` (`type/key.action`) is what failed.
    """
    if isinstance(error, JidoError):
        fields = {text_of(name): plain_or_text(value) for name, value in error.fields.items()}
        return ErrorFrame(error.code, text_of(error.args[0] if error.args else ""), fields, error.node or node)
    kind, message = text_of(type(error).__qualname__), text_of(error)
    trace = text_of(_cut_front(remote_text(error), MAX_TRACEBACK_CHARS))
    told = f"{where} raised {kind}" if where else kind
    fields = {"type": kind, "message": message, "remote_traceback": trace}
    if where:
        fields["agent"] = where.rpartition(".")[0]
    return ErrorFrame(ActionFailed.code, f"{told}: {message}" if message else told, fields, node)


def error_of(frame: ErrorFrame) -> JidoError:
    """The error that a frame stands for. A code that this release doesn't know is an `ActionFailed` that names it."""
    kind, fields = _kinds().get(frame.code), dict(frame.fields)
    if kind is None:
        kind = ActionFailed
        fields.update(type=frame.code, message=frame.message, remote_traceback="")
    error = kind.__new__(kind)
    # What a field must not be is an attribute that the class has already: a property, a method, `args`.
    JidoError.__init__(error, frame.message, **{name: value for name, value in fields.items() if _is_new(kind, name)})
    error.node = frame.node
    return error


def _is_new(kind: type[JidoError], name: str) -> bool:
    return name.isidentifier() and name not in ("fields", "_notes") and not name.startswith("__") and not hasattr(kind, name)


@cache
def _kinds() -> Mapping[str, type[JidoError]]:
    """Every error of ours by its code. What users derive from them travels as the one it derives from."""
    return {kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, JidoError)}


def _cut_front(text: str, chars: int) -> str:
    return text if len(text) <= chars else f"… {text[-chars:]}"
