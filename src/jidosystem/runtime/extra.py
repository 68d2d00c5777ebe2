"""What an activation needs only when its agent uses more than state and calls."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .effects import Reminder
from .head import Marks
from .turn import Turn, TurnTask

if TYPE_CHECKING:
    from .outbox import Outbox

MAX_REMEMBERED = 1_000
"""Last numbers of senders kept in memory for each activation; older ones are read from their rows again."""


class Extra:
    """One agent's rows as its activation knows them, and its rarer machinery."""

    __slots__ = ("at_rest", "breaker", "children", "gone", "marks", "outbox", "reading", "reminders", "seen", "sensing", "stops", "timers")

    def __init__(self) -> None:
        self.marks = Marks()
        self.reading: set[Turn] = set()  # read-only turns that wait for something
        self.reminders: dict[str, Reminder] = {}
        self.children: list[str] = []
        self.outbox: Outbox | None = None
        self.seen: OrderedDict[tuple[str, str], int] = OrderedDict()  # (from|sub, name) -> last number
        self.sensing: set[TurnTask] | None = None  # what runs of its sensors
        self.timers: set[asyncio.TimerHandle] = set()
        self.stops = False  # `on_start` has asked for the end
        self.breaker: Any = None
        self.gone: asyncio.Event | None = None  # told once a deleted agent's last effects are out
        self.at_rest: list[Callable[[], None]] = []  # called once nothing runs, waits or commits

    def remember(self, kind: str, name: str, number: int) -> None:
        """Note the last number handled of a series."""
        seen = self.seen
        seen[kind, name] = number
        seen.move_to_end((kind, name))
        if len(seen) > MAX_REMEMBERED:
            seen.popitem(last=False)

    @property
    def has_rows(self) -> bool:
        """Whether rows in the store stand behind what is in memory here."""
        marks = self.marks
        return bool(self.seen or self.reminders or self.children or self.outbox or marks.pending or marks.due or marks.children)

    def cancel_timers(self) -> None:
        """The activation ends: its timers with it."""
        for handle in self.timers:
            handle.cancel()
        self.timers.clear()
