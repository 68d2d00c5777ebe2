"""What a turn wants to happen beside its answer: kept here until the turn's commit is durable, dropped with its roll-back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec

from ..core.errors import InvalidArguments, ReadOnlyTurn
from ..core.events import Event
from ..core.schedule import Schedule


class CastEffect(msgspec.Struct, frozen=True, array_like=True):
    """A message to another agent: `number` grows with each effect of its sender, so that the receiver knows it again."""

    number: int
    to: str
    action: str
    args: bytes
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None


class EmitEffect(msgspec.Struct, frozen=True, array_like=True):
    """Events on their way to a log that doesn't commit with the record, in their stored form."""

    number: int
    events: tuple[bytes, ...]

    to: ClassVar[str] = ""
    """The log is nobody's address."""


def emit_row(number: int) -> str:
    """The name of the `pending` row that holds an `EmitEffect`; those of casts are numbers."""
    return f"e{number:016d}"


def is_emit_row(name: str) -> bool:
    """Whether a `pending` row holds events."""
    return name.startswith("e")


class Reminder(msgspec.Struct, frozen=True, array_like=True):
    """A durable reminder as its row holds it; times in seconds since the epoch. `series` tells it from others of its name, earlier and later."""

    name: str
    action: str
    args: bytes
    schedule: Schedule
    due_s: float
    attempts: int = 0
    correlation_id: str | None = None
    traceparent: str | None = None
    causation_id: str | None = None
    series: str = ""  # of those set by releases without it

    @property
    def row(self) -> str:
        """The name of its row: due time in microseconds first, so that a scan finds what is due."""
        return f"{int(self.due_s * 1_000_000):017d}/{self.name}"


class Timer(msgspec.Struct, frozen=True):
    """A timer of one activation: starts at the commit, lost with the activation."""

    after_s: float
    action: str
    args: bytes
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None


class Effects:
    """Everything that one turn has asked for so far, in order."""

    __slots__ = ("casts", "children", "deleted", "events", "reminders", "restarts", "stopped", "timers")

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.casts: list[CastEffect] = []
        self.reminders: dict[str, Reminder | None] = {}  # None: forgotten
        self.timers: list[Timer] = []
        self.children: list[str] = []
        self.restarts: list[str] = []  # children to be started again
        self.stopped: bool = False
        self.deleted: bool = False

    def __bool__(self) -> bool:
        return bool(self.events or self.casts or self.reminders or self.timers or self.children or self.restarts or self.stopped or self.deleted)

    def __repr__(self) -> str:
        told = [f"{name}={getattr(self, name)!r}" for name in self.__slots__ if getattr(self, name)]
        return f"Effects({', '.join(told)})"


def refuse_assignment(instance: Any, name: str) -> None:
    """Refuse to set a durable field in a read-only turn."""
    raise ReadOnlyTurn(f"{type(instance).__name__}.{name} was assigned in a read-only action; drop readonly=True to change state", field=name)


def called_instead(given: object) -> str | None:
    """The name of an action that was called where it is to be given: `self.ring(5)` for `self.ring`. What came of it is closed, so that
    no warning of a coroutine that was never awaited hides the error."""
    if not inspect.iscoroutine(given):
        return None
    given.close()
    return given.__name__


def bound_action_name(owner: object, bound: Callable[..., Any]) -> str:
    """The name of a bound action or method of `owner`, as `remind` and `after` take it."""
    if called := called_instead(bound):
        told = f"action={called}(…) is a call of the action: give the action itself, action=self.{called}, and its arguments as args={{name: value}}"
        raise InvalidArguments(told, path="$.action")
    target = getattr(bound, "__self__", None)
    name = getattr(bound, "__name__", None)
    if target is not owner or name is None or getattr(getattr(type(owner), name, None), "__jido_action__", None) is None:
        raise InvalidArguments(f"action={bound!r} must be an action of this agent, for example action=self.{name or 'close_day'}", path="$.action")
    return str(name)


def encode_named(signature: Any, args: Mapping[str, Any] | None) -> bytes:
    """Arguments given by name, checked against the hints and encoded; `missed` may be left out: the platform fills it in."""
    if not isinstance(args, Mapping | None):
        raise InvalidArguments(f"args={args!r}: arguments go by name, for example args={{{(*signature.names, 'amount')[0]!r}: …}}", path="$.args")
    values = dict(args or {})
    if "missed" in signature.names and "missed" not in values:
        values["missed"] = 0
    blob = bytes(signature.to_plain((), values))
    signature.from_plain(blob)  # a mistake is told to whoever makes it, not to whoever finds the dead letter
    return blob
