"""When to try again, and how long to wait before: a block of agents, and usable on its own.

Only named exceptions are repeated, and never those after which a repetition is wrong whatever they derive from: what
the program got wrong, what was refused on purpose, and what may have taken effect already.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..core.blame import block
from ..core.checks import check_exceptions, check_number, check_whole
from ..core.errors import (
    CallCycle,
    CallTimeout,
    Conflict,
    DefinitionError,
    InvalidArguments,
    JidoError,
    OutcomeUnknown,
    Rejected,
    Transient,
    TurnTimeout,
)

DEFAULT_ON: tuple[type[Exception], ...] = (Transient, ConnectionError, TimeoutError)
NEVER: tuple[type[Exception], ...] = (
    InvalidArguments, Rejected, Conflict, CallTimeout, TurnTimeout, OutcomeUnknown, DefinitionError, CallCycle,
)  # fmt: skip
"""Never repeated, whatever they derive from; nor is any other error of the platform whose outcome is unknown."""
MAX_ATTEMPTS = 1_000
MAX_DELAY_S = 3_600.0


@block
@dataclass(frozen=True, slots=True)
class Retry:
    """Repeats a rolled-back turn as a new turn, within the caller's deadline; caller and breaker see the last outcome only. **What a failed
    attempt did outside of the platform isn't undone.**

    - `max_attempts`: the first one included, 1 to 1,000
    - `initial`, `factor`, `maximum`: the delay after the first attempt in seconds; how it grows; what it doesn't exceed
    - `jitter`: the share of a delay that chance may take away: 0 none, 1 all
    - `on`: the exceptions that are repeated, by default `Transient`, `ConnectionError` and `TimeoutError`. Never: `InvalidArguments`,
      `Rejected`, `Conflict`, `CallTimeout`, `TurnTimeout`, `OutcomeUnknown`, `DefinitionError`, `CallCycle`, and what derives from them
    """

    max_attempts: int = 3
    initial: float = 0.1
    maximum: float = 5.0
    factor: float = 2.0
    jitter: float = 0.5
    on: tuple[type[Exception], ...] = DEFAULT_ON

    def __post_init__(self) -> None:
        check_whole("Retry", "max_attempts", self.max_attempts, 1, MAX_ATTEMPTS)
        check_number("Retry", "initial", self.initial, 0, MAX_DELAY_S)
        check_number("Retry", "maximum", self.maximum, 0, MAX_DELAY_S)
        check_number("Retry", "factor", self.factor, 1, 1_000)
        check_number("Retry", "jitter", self.jitter, 0, 1)
        check_exceptions("Retry", "on", self.on, Exception)
        if self.maximum < self.initial:
            raise DefinitionError(f"Retry(initial={self.initial!r}, maximum={self.maximum!r}): the maximum is less than the first delay")
        for kind in self.on:
            if issubclass(kind, NEVER):
                raise DefinitionError(f"Retry(on=…): {kind.__name__} is never repeated")

    @classmethod
    def exponential(
        cls,
        max_attempts: int = 3,
        *,
        initial: float = 0.1,
        maximum: float = 5.0,
        factor: float = 2.0,
        jitter: float = 0.5,
        on: tuple[type[Exception], ...] = DEFAULT_ON,
    ) -> Retry:
        """Delays that grow by `factor`, in seconds."""
        return cls(max_attempts, initial, maximum, factor, jitter, on)

    @classmethod
    def fixed(cls, max_attempts: int = 3, *, delay: float = 0.5, jitter: float = 0.0, on: tuple[type[Exception], ...] = DEFAULT_ON) -> Retry:
        """The same delay, in seconds, before every attempt."""
        return cls(max_attempts, delay, delay, 1.0, jitter, on)

    @classmethod
    def none(cls) -> Retry:
        """One attempt and no other."""
        return cls(max_attempts=1, on=())


def should_retry(policy: Retry, error: BaseException, attempt: int) -> bool:
    """Whether attempt number `attempt` (1 is the first), which ended with `error`, is followed by another."""
    if attempt >= policy.max_attempts or not isinstance(error, policy.on) or isinstance(error, NEVER):
        return False
    return not isinstance(error, JidoError) or error.outcome_known


def delay_s(policy: Retry, attempt: int, random01: float) -> float:
    """Seconds to wait after attempt number `attempt` (1 is the first) has failed; `random01` is the jitter, 0 to 1."""
    try:
        longest_s = min(policy.maximum, policy.initial * policy.factor ** (attempt - 1))
    except OverflowError:  # the power of a large attempt is no float
        longest_s = policy.maximum if policy.initial > 0 else 0.0
    return longest_s * (1 - policy.jitter * random01)
