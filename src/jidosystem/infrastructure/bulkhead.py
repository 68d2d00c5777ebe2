"""How many may be at work at once, and how many more may wait."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class Bulkhead:
    """At most `max_concurrent` turns of the agent type run at a time on one node, and `max_waiting` agents wait for a place."""

    max_concurrent: int = 100
    max_waiting: int = 1000

    def __post_init__(self) -> None:
        for name, low in (("max_concurrent", 1), ("max_waiting", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise DefinitionError(f"Bulkhead({name}={value!r}): a whole number, at least {low}")
