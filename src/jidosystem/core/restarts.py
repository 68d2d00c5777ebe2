"""What follows a crash: start again after a growing delay, or give up; and which siblings start again too.

Decisions are functions of the crashes so far and the time; who keeps the times and starts agents is the runtime.
The delays of one window always add up to less than the window, so that an agent that crashes on every start is given
up after `max_restarts` attempts and never goes on for ever.
"""

from __future__ import annotations

import math
from asyncio import CancelledError
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from .blame import block
from .checks import check_exceptions, check_seconds, check_whole
from .errors import DefinitionError, Rejected
from .near import one_of

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 30.0
MAX_RESTARTS = 10_000


@block
@dataclass(frozen=True, slots=True)
class Supervision:
    """What follows a crash. The agent starts again after a growing delay; more than `max_restarts` crashes of its own within `within` seconds,
    and it is failed: calls get `AgentFailed` until somebody restarts it, and its parent is told.

    - `strategy`: rules this agent's children: when one crashes, "one_for_one" starts only that one again, "one_for_all" all of them,
      "rest_for_one" it and those created after it. A class without a block takes `agents.supervision_strategy`
    - `max_restarts`, `within`: of this agent itself; `within` in seconds
    - `crash_on`: exceptions of actions that are crashes instead of failed turns; `Rejected` and `CancelledError` never are
    """

    strategy: Strategy = "one_for_one"
    max_restarts: int = 3
    within: float = 5.0
    crash_on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        if self.strategy not in get_args(Strategy):
            raise DefinitionError(f"Supervision(strategy={self.strategy!r}): {one_of(self.strategy, get_args(Strategy))}")
        check_whole("Supervision", "max_restarts", self.max_restarts, 0, MAX_RESTARTS)
        check_seconds("Supervision", "within", self.within)
        check_exceptions("Supervision", "crash_on", self.crash_on, BaseException)
        for kind in self.crash_on:
            if issubclass(kind, CancelledError | Rejected):
                raise DefinitionError(f"Supervision(crash_on=…): {kind.__name__} never is a crash")

    def is_crash(self, error: BaseException) -> bool:
        """Whether an exception that an action raised is a crash under this policy."""
        return isinstance(error, self.crash_on) and not isinstance(error, Rejected | CancelledError)


class Verdict(NamedTuple):
    """What follows a crash. `restart` False: the agent is failed; otherwise it starts again after `delay_s`."""

    restart: bool
    delay_s: float


def record_crash(times: Sequence[float], now: float, policy: Supervision, random01: float = 1.0) -> tuple[tuple[float, ...], Verdict]:
    """Add a crash: the crashes that still count, this one the last, and what follows.

    `times` and `now` are of one clock, in seconds; `random01` is the jitter, which takes up to half of the delay away.
    """
    kept = (*(time for time in times if now - time <= policy.within), now)
    if len(kept) > policy.max_restarts:
        return kept[-policy.max_restarts - 1 :], Verdict(restart=False, delay_s=0.0)
    # All delays of a window together take at most half of it.
    longest_s = min(MAX_DELAY_S, policy.within / 2 / policy.max_restarts)
    delay_s = min(longest_s, math.ldexp(FIRST_DELAY_S, min(len(kept) - 1, 32)))
    return kept, Verdict(restart=True, delay_s=delay_s * (0.5 + random01 / 2))


def siblings_to_restart(strategy: Strategy, order_of_creation: Sequence[str], crashed: str) -> tuple[str, ...]:
    """The children that start again beside the one that crashed, in the order of their creation."""
    if strategy == "one_for_one" or crashed not in order_of_creation:
        return ()
    if strategy == "one_for_all":
        return tuple(child for child in order_of_creation if child != crashed)
    return tuple(order_of_creation[order_of_creation.index(crashed) + 1 :])
