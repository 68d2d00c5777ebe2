"""What follows a crash: pure decisions on restarts, their delays and their reach among siblings.

Strategies and intensity are those of Erlang/OTP's supervisors (https://www.erlang.org/doc/system/sup_princ.html).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from .errors import DefinitionError

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one")
FIRST_DELAY_S = 0.05
MAX_DELAY_S = 5.0


@dataclass(frozen=True, slots=True)
class Supervision:
    """How crashes are met. `strategy` rules an agent's children; the rest counts its own crashes.

    More than `max_restarts` crashes within `within` seconds: the agent has failed. `crash_on`: exception classes of
    actions that are crashes rather than failed turns.
    """

    strategy: Strategy = "one_for_one"
    max_restarts: int = 3
    within: float = 5.0
    crash_on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise DefinitionError(f"Supervision(strategy={self.strategy!r}): one of {', '.join(STRATEGIES)}")
        if isinstance(self.max_restarts, bool) or not isinstance(self.max_restarts, int) or self.max_restarts < 0:
            raise DefinitionError(f"Supervision(max_restarts={self.max_restarts!r}): a whole number, 0 or more")
        if isinstance(self.within, bool) or not isinstance(self.within, int | float) or not 0 < self.within < math.inf:
            raise DefinitionError(f"Supervision(within={self.within!r}): seconds, more than 0")
        if not isinstance(self.crash_on, tuple) or not all(isinstance(c, type) and issubclass(c, BaseException) for c in self.crash_on):
            raise DefinitionError(f"Supervision(crash_on={self.crash_on!r}): a tuple of exception classes")


class Verdict(NamedTuple):
    """Restart after `delay_s` seconds, or give up."""

    restart: bool
    delay_s: float


def record_crash(times: tuple[float, ...], now: float, policy: Supervision, random01: float) -> tuple[tuple[float, ...], Verdict]:
    """The crashes that still count, this one included, and what to do. The delay doubles with each, jittered between a half and the whole."""
    recent = (*(t for t in times if now - t < policy.within), now)
    if len(recent) > policy.max_restarts:
        return recent, Verdict(False, 0.0)
    delay_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(len(recent) - 1, 30)) * (0.5 + random01 / 2)
    return recent, Verdict(True, delay_s)


def siblings_to_restart(strategy: Strategy, order: tuple[str, ...], crashed: str) -> tuple[str, ...]:
    """The children to restart beside the one that crashed, the oldest first; `order` is that of creation."""
    if strategy == "one_for_one" or crashed not in order:
        return ()
    if strategy == "one_for_all":
        return tuple(child for child in order if child != crashed)
    return order[order.index(crashed) + 1 :]
