"""What an event loop of virtual time has to know of those who work beside it.

Such a loop moves its clock to the next timer when nothing is left to do. It can see neither what threads are at, nor
which timers are mere looks at the state of things and which are set for a purpose. Whoever keeps a thread, or looks
round every second, asks here once, when it starts; on any other loop the answer is "nobody wants to know", and costs nothing.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable
from typing import Any, Protocol


class Outside(Protocol):
    """Work under way outside the loop. Only for the loop's thread."""

    def began(self, what: str) -> None:
        """Something is under way: time stands still until it has ended."""
        ...

    def ended(self, what: str, count: int = 1) -> None:
        """So many of what began have ended; their answers are on the loop."""
        ...


def outside_of(loop: AbstractEventLoop) -> Outside | None:
    """Whom a loop of virtual time wants to be told by; None on any other."""
    found: Outside | None = getattr(loop, "outside", None)
    return found


def later_in_passing(loop: AbstractEventLoop) -> Callable[[float, Callable[[], Any]], TimerHandle]:
    """`call_later` for a look that is due every so often: no reason for virtual time to move, or to stop on its way."""
    call_later: Callable[[float, Callable[[], Any]], TimerHandle] = getattr(loop, "call_later_in_passing", loop.call_later)
    return call_later
