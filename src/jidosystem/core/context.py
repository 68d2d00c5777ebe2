"""Who causes what: the one context variable that ties an event or a call to the turn that it comes from."""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple, Protocol


class Causality(NamedTuple):
    """What a cause hands on: the id that everything of one origin shares, the id of the direct cause, the trace, and who it was."""

    correlation_id: str | None
    causation_id: str | None
    traceparent: str | None
    source: str


class HasCausality(Protocol):
    """Something that is going on and may cause things: a turn."""

    def causality(self) -> Causality:
        """Ids for what this causes."""
        ...


current: ContextVar[HasCausality | None] = ContextVar("jidosystem_current", default=None)
"""What is going on in this context; None outside of turns."""
