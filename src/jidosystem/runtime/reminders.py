"""Durable reminders: which rows are due, and firing them, each exactly as often as its record says.

Rows of kind `due` are pointers ordered by time. This keeps the near future (a window) in two heaps: `after` and
`every` count by the monotonic clock, so that a jump of the wall clock moves nothing; `at` and `cron` follow the wall.
Firing is a turn: the action, its effects and the next due time are one commit; the agent's own record decides whether
a row still means anything.
"""

from __future__ import annotations

import asyncio
import heapq
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from ..core.codec import encode
from ..core.errors import JidoError, RefusedError, StoreError, TooLarge, describe
from ..core.records import StoredRow
from ..core.schedule import follows_wall_clock, next_due
from .deliveries import deliver_effect
from .effects import Reminder
from .outbox import LONGEST_WAIT_S, MAX_ATTEMPTS, backoff_s
from .turn import DueOrigin

if TYPE_CHECKING:
    from .node import Node

WINDOW_S = 60.0
RECHECK_S = 1.0
"""How often the wall clock is looked at while something waits for it: how late a jump is noticed."""
MAX_FIRING = 1_000
"""How many reminders are on their way at once; a storm takes its turn."""

_decode = msgspec.msgpack.Decoder(Reminder).decode


class Reminders:
    """The scheduler of one node."""

    __slots__ = ("_armed", "_calendar", "_closed", "_firing", "_handle", "_horizon_s", "_node", "_relative", "_scanning", "_seq")

    def __init__(self, node: Node) -> None:
        self._node = node
        self._relative: list[tuple[float, int, str, Reminder]] = []
        self._calendar: list[tuple[float, int, str, Reminder]] = []
        self._seq = 0
        self._horizon_s = 0.0
        self._handle: asyncio.Handle | None = None
        self._armed = 0.0
        self._firing = 0
        self._scanning = False
        self._closed = False

    def add(self, address: str, reminder: Reminder, zero_s: float | None = None) -> None:
        """A reminder is durable: keep it in mind if it is due within the window.

        `zero_s`: what the wall clock would have shown at the monotonic clock's zero when the series was set, if it isn't now's:
        an occurrence that follows another is as far from it as it should be, wherever somebody has put the hands meanwhile.
        """
        clock = self._node.clock
        if self._closed:
            return
        self._seq += 1
        if follows_wall_clock(reminder.schedule):
            if reminder.due_s < self._horizon_s:
                heapq.heappush(self._calendar, (reminder.due_s, self._seq, address, reminder))
                self._arm()
            return
        mono_s = clock.monotonic_s()
        due_mono_s = reminder.due_s - (clock.time_s() - mono_s if zero_s is None else zero_s)
        if reminder.due_s < self._horizon_s or (zero_s is not None and due_mono_s - mono_s < WINDOW_S / 2):
            heapq.heappush(self._relative, (due_mono_s, self._seq, address, reminder))
            self._arm()

    async def start(self) -> None:
        """Read the rows of the first window; those that were missed fire now."""
        self._horizon_s = self._node.clock.time_s() + WINDOW_S
        await self._scan(0.0, self._horizon_s)
        self._arm()

    async def rescan(self) -> None:
        """An agent type was registered: its rows may have been waiting."""
        await self._scan(0.0, self._horizon_s)

    def close(self) -> None:
        """Fire nothing more; the rows remain."""
        self._closed = True
        self._relative.clear()
        self._calendar.clear()
        if self._handle is not None:
            self._handle.cancel()

    async def _scan(self, from_s: float, to_s: float) -> None:
        async for page in self._node.records.scan("due", _edge(from_s), _edge(to_s)):
            for row in page:
                self._take(row)

    def _take(self, row: StoredRow) -> None:
        if self._node.recovery.is_hosted(row.agent):
            try:
                reminder = _decode(row.value)
            except (msgspec.MsgspecError, ValueError) as error:
                self._node.log.error("a reminder's row can't be read", agent=row.agent, row=row.name, error=row.damage or describe(error))
                return
            self.add(row.agent, reminder)

    def _arm(self) -> None:
        if self._closed:
            return
        clock = self._node.clock
        delay_s = max(0.0, self._horizon_s - WINDOW_S / 2 - clock.time_s())
        if self._relative:
            delay_s = min(delay_s, self._relative[0][0] - clock.monotonic_s())
        if self._calendar:
            delay_s = min(delay_s, self._calendar[0][0] - clock.time_s(), RECHECK_S)
        if self._firing >= MAX_FIRING:
            delay_s = max(delay_s, 0.01)
        when = self._node.loop.time() + max(0.0, min(delay_s, WINDOW_S))
        handle = self._handle
        if handle is not None:
            if self._armed <= when:
                return
            handle.cancel()
        self._armed = when
        self._handle = self._node.loop.call_at(when, self._tick)

    def _tick(self) -> None:
        self._handle = None
        clock = self._node.clock
        wall_s, mono_s = clock.time_s(), clock.monotonic_s()
        while self._relative and self._relative[0][0] <= mono_s and self._firing < MAX_FIRING:
            due_mono_s, _seq, address, reminder = heapq.heappop(self._relative)
            self._fire(address, reminder, reminder.due_s + (mono_s - due_mono_s), reminder.due_s - due_mono_s, 1)
        while self._calendar and self._calendar[0][0] <= wall_s and self._firing < MAX_FIRING:
            _due, _seq, address, reminder = heapq.heappop(self._calendar)
            self._fire(address, reminder, wall_s, wall_s - mono_s, 1)
        if wall_s > self._horizon_s - WINDOW_S / 2 and not self._scanning:
            self._scanning = True
            self._node.own(self._advance(wall_s))
        self._arm()

    async def _advance(self, wall_s: float) -> None:
        """Move the window on; the rows between the old edge and the new one come in."""
        old_s, self._horizon_s = self._horizon_s, wall_s + WINDOW_S
        try:
            await self._scan(old_s, self._horizon_s)
        except StoreError as error:
            self._node.log.error("due reminders can't be read just now", error=describe(error))
            self._horizon_s = old_s
        finally:
            self._scanning = False
        self._node.later(0.0 if self._horizon_s > old_s else RECHECK_S, self._arm)

    def _fire(self, address: str, reminder: Reminder, now_s: float, zero_s: float, attempt: int, tries: int = 1) -> None:
        if self._closed:
            return
        self._firing += 1
        missed, next_s = next_due(reminder.schedule, reminder.due_s, now_s)
        following = None if next_s is None else msgspec.structs.replace(reminder, due_s=next_s)
        origin = DueOrigin(reminder, following, zero_s, partial(self._settled, address, reminder, now_s, zero_s, attempt, tries))
        deliver_effect(self._node, address, reminder, origin, missed)

    def _settled(self, address: str, reminder: Reminder, now_s: float, zero_s: float, attempt: int, tries: int, error: BaseException | None) -> None:
        self._firing -= 1  # also while it waits to be tried again: those of failed agents must not hold up the others
        self._arm()
        if error is None:
            return
        node = self._node
        passing = isinstance(error, RefusedError | StoreError) and not isinstance(error, TooLarge)  # a failed agent's wait for its restart
        if passing or attempt < MAX_ATTEMPTS:
            delay_s = min(backoff_s(tries, node.random()), LONGEST_WAIT_S) if passing else backoff_s(attempt, node.random())
            node.later(delay_s, partial(self._fire, address, reminder, now_s, zero_s, attempt + (not passing), tries + 1))
            return
        node.log.error("a reminder is moved to the dead letters", agent=address, reminder=reminder.name, error=describe(error))
        node.own(self._bury(address, reminder, now_s, zero_s, attempt, tries, error))

    async def _bury(self, address: str, reminder: Reminder, now_s: float, zero_s: float, attempts: int, tries: int, error: BaseException) -> None:
        node = self._node
        try:
            payload, number = {"reminder": encode(reminder)}, int(reminder.due_s * 1_000_000)
            await node.letters.bury(
                "reminder", f"{address}#{reminder.name}", address, payload, series=reminder.name, number=number, attempts=attempts, error=error
            )
            await node.control.skip_reminder(address, reminder, now_s)
        except JidoError as refused:  # no room, or no store just now: the series must not end with it
            node.log.error("a dead letter couldn't be stored yet", agent=address, reminder=reminder.name, error=describe(refused))
            delay_s = min(backoff_s(tries, node.random()), LONGEST_WAIT_S)
            node.later(delay_s, partial(self._fire, address, reminder, now_s, zero_s, attempts, tries + 1))


def _edge(time_s: float) -> str:
    return f"{max(0, int(time_s * 1_000_000)):017d}"
