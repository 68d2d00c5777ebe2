"""What a failed delivery means: the event's fault, a trouble that passes, or nobody's attempt at all."""

from __future__ import annotations

import asyncio

from .errors import AgentFailed, RecordUnreadable, RefusedError, StoreError, TooLarge


class NotNow(Exception):
    """The receiver takes nothing until it says so: nobody's fault and no attempt, and not worth asking again meanwhile."""


def is_passing(error: BaseException) -> bool:
    """Whether waiting may mend it, so that no attempt is counted: a refusal or a store's trouble.

    An agent that is failed, a record that is too large or can't be read stay so until somebody acts: those count.
    """
    return isinstance(error, RefusedError | StoreError) and not isinstance(error, AgentFailed | TooLarge | RecordUnreadable)


def is_cancelled_from_outside(error: BaseException) -> bool:
    """Whether the running task is being cancelled, rather than something that its code waited for."""
    if not isinstance(error, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def told_delay_s(error: BaseException) -> float:
    """After how many seconds the receiver wants to be asked again, if it says so (`retry_after_s`); else 0."""
    told = getattr(error, "retry_after_s", None)
    return float(told) if isinstance(told, int | float) and told > 0 else 0.0
