"""Checking mode: state must change in turns only, and never in read-only ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.errors import StateChangedOutsideTurn, StateMismatch
from .turn import Turn

if TYPE_CHECKING:
    from .activation import Activation


def changed_names(activation: Activation) -> list[str]:
    """Checking mode: durable fields that differ from the last committed turn's."""
    codec = activation.host.type.codec
    try:
        now = codec.encode(activation.instance)
    except Exception:  # what can't even be encoded has changed
        return list(codec.names)
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
