"""The circuit breaker: after failures in a row, refuse at once for a while, then let one call find out.

Closed, it counts failures. Open, it refuses. Once `timeout` seconds have passed it is half-open: one call, the probe,
goes through, and its outcome closes the breaker or opens it again. A probe of which nothing is heard for another
`timeout` seconds is joined by a second one, so that a lost call can't leave the breaker open for ever.

Every call holds a permit of the spell it began in. What ends after the breaker has changed since says nothing about
now: a late success closes nothing, a late failure counts nowhere. The machine reads no clock; times are passed in.
"""

from __future__ import annotations

import math
from asyncio import CancelledError
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ..core.blame import block
from ..core.checks import check_seconds, check_whole
from ..core.errors import CircuitOpen, IdempotencyConflict, InvalidArguments, RefusedError, Rejected

DEFAULT_THRESHOLD = 5
_NO_FAILURES = (Rejected, RefusedError, InvalidArguments, IdempotencyConflict, CancelledError, GeneratorExit)


@block
@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """One for each agent: after `threshold` failed calls in a row it is open, and calls get `CircuitOpen` with `retry_after_s`. After
    `timeout` seconds one call finds out whether it works again. `Rejected`, refusals, wrong arguments and cancellation are no failures.
    """

    threshold: int | None = None
    timeout: float = 30.0

    def __post_init__(self) -> None:
        if self.threshold is not None:
            check_whole("CircuitBreaker", "threshold", self.threshold, 1)
        check_seconds("CircuitBreaker", "timeout", self.timeout)


class Permit(NamedTuple):
    """The right to make one call, given by `admit` and taken back by `settle`."""

    spell: int
    probe: bool


class BreakerState:
    """The state of one breaker; `name` is who it protects, for the messages. Times are seconds of any one steady clock."""

    __slots__ = ("_failures", "_name", "_opened_at", "_permit", "_probe_at", "_spell", "_threshold", "_timeout_s")

    def __init__(self, policy: CircuitBreaker, name: str, default_threshold: int = DEFAULT_THRESHOLD) -> None:
        self._threshold = default_threshold if policy.threshold is None else policy.threshold
        self._timeout_s = policy.timeout
        self._name = name
        self._failures = 0
        self._spell = 0  # grows whenever the breaker opens or closes
        self._permit = Permit(0, probe=False)
        self._opened_at: float | None = None
        self._probe_at: float | None = None

    def state(self, now: float) -> Literal["closed", "open", "half_open"]:
        """What a call would meet now."""
        if self._opened_at is None:
            return "closed"
        return "half_open" if self._probe_at is not None or self._wait_s(self._opened_at, now) <= 0 else "open"

    def admit(self, now: float) -> Permit:
        """A permit for one call; `CircuitOpen` with `retry_after_s` if none may be made now."""
        if self._opened_at is None:
            return self._permit
        since = self._opened_at if self._probe_at is None else self._probe_at
        wait_s = self._wait_s(since, now)
        if wait_s > 0:
            why = f"{self._threshold} failures in a row" if self._probe_at is None else "one call is finding out whether it works again"
            raise CircuitOpen(
                f"{self._name}: the circuit breaker is open ({why}); try again in {wait_s:.3g} s", agent=self._name, retry_after_s=wait_s
            )
        self._probe_at = now
        return Permit(self._spell, probe=True)

    def settle(self, permit: Permit | None, error: BaseException | None, now: float) -> None:
        """The call of a permit has ended, with a result (None) or an error. Without a permit: it began before the breaker was first asked."""
        if (_FIRST if permit is None else permit).spell != self._spell:
            return
        probe = permit is not None and permit.probe
        if error is not None and not self.counts(error):
            if probe:
                self._probe_at = -math.inf  # it told nothing: the next call is the probe
        elif error is None:
            self._failures = 0
            if probe:
                self._close()
        else:
            self._failures += 1
            if probe or self._failures >= self._threshold:
                self._open(now)

    @staticmethod
    def counts(error: BaseException) -> bool:
        """Whether an error is a failure of who was called: not a refusal, a caller's mistake or a cancellation."""
        return not isinstance(error, _NO_FAILURES)

    @contextmanager
    def watch(self, clock: Callable[[], float]) -> Generator[None]:
        """Guard a block of code: `with breaker.watch(time.monotonic): await pay()`. Raises `CircuitOpen`."""
        permit = self.admit(clock())
        try:
            yield
        except BaseException as error:
            self.settle(permit, error, clock())
            raise
        self.settle(permit, None, clock())

    def _wait_s(self, since: float, now: float) -> float:
        # A clock that went back mustn't make it longer than it ever was.
        return min(since + self._timeout_s - now, self._timeout_s)

    def _open(self, now: float) -> None:
        self._spell += 1
        self._failures = 0
        self._opened_at, self._probe_at = now, None

    def _close(self) -> None:
        self._spell += 1
        self._permit = Permit(self._spell, probe=False)
        self._opened_at = self._probe_at = None


_FIRST = Permit(0, probe=False)
