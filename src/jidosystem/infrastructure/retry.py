"""When a rolled-back turn is run again, and after how long. Pure: attempts and random numbers are passed in.

What the action did outside the platform before it failed may have happened: retry only what may happen twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..core.errors import (
    CallCycle,
    CallTimeout,
    Conflict,
    DefinitionError,
    InvalidArguments,
    OutcomeUnknown,
    Rejected,
    Transient,
    TurnTimeout,
)

_Classes = tuple[type[BaseException], ...]
DEFAULT_ON: _Classes = (Transient, ConnectionError, TimeoutError)
NEVER: _Classes = (InvalidArguments, Rejected, Conflict, CallTimeout, TurnTimeout, OutcomeUnknown, DefinitionError, CallCycle)
"""Errors that are never retried, whatever they derive from."""


@dataclass(frozen=True, slots=True)
class Retry:
    """A policy; make one with `Retry.exponential`, `Retry.fixed` or `Retry.none`. Times in seconds.

    `max_attempts` counts the first one. The delay before attempt n+1 is `initial` times `factor` to the n-1, at most
    `maximum`, less up to the share `jitter` of itself.
    """

    max_attempts: int = 3
    initial: float = 0.1
    maximum: float = 5.0
    factor: float = 2.0
    jitter: float = 0.5
    on: _Classes = DEFAULT_ON

    def __post_init__(self) -> None:
        if isinstance(self.max_attempts, bool) or not isinstance(self.max_attempts, int) or self.max_attempts < 1:
            raise DefinitionError(f"Retry(max_attempts={self.max_attempts!r}): a whole number, at least 1")
        for name, low in (("initial", 0.0), ("maximum", 0.0), ("factor", 1.0), ("jitter", 0.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value < math.inf:
                raise DefinitionError(f"Retry({name}={value!r}): a number, at least {low:g}")
        if self.jitter > 1:
            raise DefinitionError(f"Retry(jitter={self.jitter!r}): a share, at most 1")
        if not isinstance(self.on, tuple) or not all(isinstance(c, type) and issubclass(c, BaseException) for c in self.on):
            raise DefinitionError(f"Retry(on={self.on!r}): a tuple of exception classes")

    @classmethod
    def exponential(
        cls, max_attempts: int = 3, *, initial: float = 0.1, maximum: float = 5.0, factor: float = 2.0, jitter: float = 0.5, on: _Classes = DEFAULT_ON
    ) -> Retry:
        """Growing delays."""
        return cls(max_attempts, initial, maximum, factor, jitter, on)

    @classmethod
    def fixed(cls, max_attempts: int = 3, *, delay: float = 0.5, jitter: float = 0.0, on: _Classes = DEFAULT_ON) -> Retry:
        """The same delay each time."""
        return cls(max_attempts, delay, delay, 1.0, jitter, on)

    @classmethod
    def none(cls) -> Retry:
        """One attempt only."""
        return cls(max_attempts=1)


def should_retry(policy: Retry, error: BaseException, attempt: int) -> bool:
    """Whether another attempt follows attempt number `attempt` (1 is the first)."""
    return attempt < policy.max_attempts and isinstance(error, policy.on) and not isinstance(error, NEVER)


def delay_s(policy: Retry, attempt: int, random01: float) -> float:
    """Seconds between attempt number `attempt` and the next."""
    try:
        grown = policy.initial * policy.factor ** (attempt - 1)
    except OverflowError:
        grown = policy.maximum
    return min(policy.maximum, grown) * (1.0 - policy.jitter * random01)
