"""Checking mode: state must change in turns only, never in read-only ones, what is assigned must be a field, and what is returned as promised."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..core.errors import InvalidResult, StateChangedOutsideTurn, StateMismatch
from ..core.near import near_or_all
from .boundary import is_immutable
from .turn import Turn

if TYPE_CHECKING:
    from .activation import Activation
    from .definition import ActionSpec


def changed_names(activation: Activation) -> list[str]:
    """Checking mode: durable fields that differ from the last committed turn's."""
    codec = activation.host.type.codec
    try:
        now = codec.encode(activation.instance)
    except Exception:  # what can't even be encoded has changed
        gone = [name for name in codec.names if not hasattr(activation.instance, name)]
        return gone or [codec.culprit(activation.instance).partition(".")[2]]
    if now == activation.state:
        return []
    then = codec.mapping(activation.state)
    try:
        present = codec.mapping(now)
    except StateMismatch as mismatch:
        return [mismatch.field]
    return [name for name in codec.names if present[name] != then[name]]


def unchanged_between_turns(activation: Activation, turn: Turn) -> bool:
    """Whether the state is as the last turn left it; if not, it is put back and this turn is told."""
    if activation.readers or not (names := changed_names(activation)):
        return True
    activation.restore()
    activation.host.guards.release(turn)
    turn.fail(
        StateChangedOutsideTurn(
            f"{activation.address}: {', '.join(names)} changed between two turns; keep no reference to state beyond its turn",
            names=names,
            agent=activation.address,
        )
    )
    return False


def checked_result(spec: ActionSpec, value: Any) -> Any:
    """Checking mode: the result as the caller gets it, proved to be of the type that the action promises; `InvalidResult`."""
    copied = spec.signature.check_result(value)
    return value if is_immutable(value) else copied


def lost(activation: Activation, turn: Turn) -> InvalidResult | None:
    """Checking mode: what the turn assigned to a name that is no field, so that it would be gone with the activation; it is taken away."""
    kind, instance = activation.host.type, activation.instance
    for name in vars(instance).keys() - set(kind.codec.names):
        if not name.startswith("_") and not isinstance(getattr(kind.cls, name, None), cached_property):
            delattr(instance, name)
            near = near_or_all(name, kind.codec.names, "its fields are")
            told = f"{activation.address}.{turn.spec.name} assigned self.{name}, which is no field and wouldn't be stored{near}"
            return InvalidResult(f"{told}. Annotate it in the class, or begin its name with '_'", agent=activation.address)
    return None
