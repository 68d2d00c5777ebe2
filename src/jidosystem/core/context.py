"""Who is acting: the seam through which lower layers learn what the running code belongs to.

The runtime puts its turn there; the bus asks who publishes, a log line for its ids. Nothing here knows what a turn is.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple, Protocol


class Causality(NamedTuple):
    """Ids for whatever is caused now: the chain it belongs to, its direct cause, the trace, and who causes it (`type/key`)."""

    correlation_id: str | None
    causation_id: str | None
    traceparent: str | None
    source: str


class HasCausality(Protocol):
    """What acts, for example a turn."""

    def causality(self) -> Causality:
        """Ids for what it causes."""
        ...


current: ContextVar[HasCausality | None] = ContextVar("jidosystem_current", default=None)
"""What the running code belongs to; None outside of everything."""


def current_causality() -> Causality | None:
    """Ids for what the running code causes; None outside of everything."""
    acting = current.get()
    return None if acting is None else acting.causality()
