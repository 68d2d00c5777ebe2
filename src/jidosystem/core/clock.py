"""Time as a value that is passed in.

Nothing below reads the operating system's clocks but `SystemClock`; tests pass a clock of their own.
`monotonic_s` never jumps and is only comparable within one process; `time_s` is the wall clock, seconds since
the Unix epoch, and may jump either way at any moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Protocol


class Clock(Protocol):
    """Where a platform takes its time from: any object with these two methods. The default reads the machine's clocks."""

    def time_s(self) -> float:
        """The wall clock, in seconds since 1970-01-01 UTC. It may jump either way."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that only grow; the zero means nothing."""
        ...


class SystemClock:
    """The clocks of the machine."""

    __slots__ = ()

    time_s = staticmethod(time.time)
    monotonic_s = staticmethod(time.monotonic)


def _boot_clock() -> Callable[[], float]:
    clock_id = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic if clock_id is None else partial(time.clock_gettime, clock_id)


boot_s: Callable[[], float] = _boot_clock()
"""Seconds that only grow, also while the machine sleeps, where the system has such a clock: what leases are measured by."""


def utc_from(time_s: float) -> datetime:
    """Seconds since the epoch as an aware UTC `datetime`."""
    return datetime.fromtimestamp(time_s, UTC)
