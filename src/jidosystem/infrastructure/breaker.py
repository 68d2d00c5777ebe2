"""The circuit breaker: a pure machine. Time is passed in; one probe when half-open; a late success closes nothing."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import NamedTuple

from ..core.errors import CircuitOpen, DefinitionError, RefusedError, Rejected


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """After `threshold` failures in a row the circuit opens for `timeout` seconds; then one call probes."""

    threshold: int = 5
    timeout: float = 30.0

    def __post_init__(self) -> None:
        if isinstance(self.threshold, bool) or not isinstance(self.threshold, int) or self.threshold < 1:
            raise DefinitionError(f"CircuitBreaker(threshold={self.threshold!r}): a whole number, at least 1")
        if isinstance(self.timeout, bool) or not isinstance(self.timeout, int | float) or not 0 < self.timeout < math.inf:
            raise DefinitionError(f"CircuitBreaker(timeout={self.timeout!r}): seconds, more than 0")


class Permit(NamedTuple):
    """Leave to call; `epoch` says how often the circuit had opened, so that late answers are known as such."""

    epoch: int
    probe: bool


class BreakerState:
    """The state of one guarded thing."""

    __slots__ = ("_epoch", "_failures", "_name", "_opened_at", "_policy", "_probing")

    def __init__(self, policy: CircuitBreaker, name: str) -> None:
        self._policy = policy
        self._name = name
        self._failures = 0
        self._epoch = 0
        self._opened_at: float | None = None
        self._probing = False

    @property
    def state(self) -> str:
        """ "closed", "open" or "half_open"."""
        return "closed" if self._opened_at is None else "half_open" if self._probing else "open"

    @staticmethod
    def counts(error: BaseException) -> bool:
        """Whether an error is a failure: refusals and cancellations aren't."""
        return not isinstance(error, Rejected | RefusedError | asyncio.CancelledError)

    def admit(self, now: float) -> Permit:
        """Leave to call, or `CircuitOpen` saying for how long."""
        if self._opened_at is None:
            return Permit(self._epoch, False)
        wait_s = self._opened_at + self._policy.timeout - now
        if wait_s > 0 or self._probing:
            wait_s = max(wait_s, 0.0)
            raise CircuitOpen(
                f"{self._name} failed {self._policy.threshold} times in a row; its circuit is open"
                + (f" for another {wait_s:.1f} s" if wait_s else " and one call is probing it"),
                agent=self._name,
                retry_after_s=wait_s,
            )
        self._probing = True
        return Permit(self._epoch, True)

    def settle(self, permit: Permit, error: BaseException | None, now: float) -> None:
        """What became of a permitted call."""
        if permit.probe:
            self._probing = False
        if error is not None and not self.counts(error):
            return
        if permit.epoch != self._epoch:  # begun before the circuit opened: too late to say anything
            return
        if error is None:
            self._failures = 0
            if permit.probe:
                self._opened_at = None
                self._epoch += 1
            return
        self._failures += 1
        if permit.probe or self._failures >= self._policy.threshold:
            self._opened_at = now
            self._epoch += 1
            self._failures = 0
