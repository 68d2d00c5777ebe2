"""The blocks of an agent class: what it may declare beside its fields and actions. Each is frozen and checked when made.

A block that this release doesn't act on yet isn't accepted (`LATER`): nothing is taken and ignored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..core.blame import block
from ..core.checks import check_whole
from ..core.errors import DefinitionError
from ..core.near import one_of
from ..infrastructure.breaker import CircuitBreaker
from ..infrastructure.bulkhead import Bulkhead
from ..infrastructure.retry import Retry

OVERFLOWS = ("reject", "block", "drop_oldest")

LATER = {
    "capabilities": "discovery",
    "resources": "the resource manager",
    "scaling": "pools of agents",
    "observability": "the full telemetry pipeline",
}
"""Blocks of the contract that come with a later part of the platform."""


def _seconds(block: str, name: str, value: float | None, *, zero: bool = False) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or value < 0 or (value == 0 and not zero):
        raise DefinitionError(f"{block}({name}={value!r}): seconds, {'0 or more' if zero else 'more than 0'}")


@block
@dataclass(frozen=True, slots=True)
class Lifecycle:
    """How long things may take, in seconds.

    Args:
        startup_timeout: reading the record, migrating and `@on_start` together; past it the activation has crashed
        shutdown_grace_period: what running turns get when the platform closes, at most `platform.shutdown_timeout`
        idle_timeout: without work for so long the agent is passivated; None: `agents.idle_timeout`
        turn_timeout: a turn that runs longer is cancelled and rolled back, its caller gets `TurnTimeout`; one that ignores its cancellation
            for 5 s is given up. 0: no limit
    """

    startup_timeout: float = 30.0
    shutdown_grace_period: float = 10.0
    idle_timeout: float | None = None
    turn_timeout: float = 300.0

    def __post_init__(self) -> None:
        _seconds("Lifecycle", "startup_timeout", self.startup_timeout)
        _seconds("Lifecycle", "shutdown_grace_period", self.shutdown_grace_period, zero=True)
        _seconds("Lifecycle", "idle_timeout", self.idle_timeout)
        _seconds("Lifecycle", "turn_timeout", self.turn_timeout, zero=True)


@block
@dataclass(frozen=True, slots=True)
class Mailbox:
    """How many messages may wait for a busy agent, and what happens to one more. `max_size=None`: `agents.max_queue_size`.

    - `"reject"`: its sender gets `MailboxFull`
    - `"block"`: its sender waits for room, as long as its patience lasts
    - `"drop_oldest"`: the oldest waiting call or cast from outside is dropped; a call's sender gets `MailboxFull`. Never a delivery of the
      platform's: that stays with its sender and comes again
    """

    max_size: int | None = None
    overflow: Literal["reject", "block", "drop_oldest"] = "reject"

    def __post_init__(self) -> None:
        if self.max_size is not None:
            check_whole("Mailbox", "max_size", self.max_size, 1)
        if self.overflow not in OVERFLOWS:
            raise DefinitionError(f"Mailbox(overflow={self.overflow!r}): {one_of(self.overflow, OVERFLOWS)}")


@block
@dataclass(frozen=True, slots=True)
class Resilience:
    """What guards the calls of an agent. None: no breaker, no retries, no bulkhead."""

    circuit_breaker: CircuitBreaker | None = None
    retry: Retry | None = None
    bulkhead: Bulkhead | None = None

    def __post_init__(self) -> None:
        for name, kind in (("circuit_breaker", CircuitBreaker), ("retry", Retry), ("bulkhead", Bulkhead)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise DefinitionError(f"Resilience({name}={value!r}): a {kind.__name__} is needed")
