"""Durable reminders: which rows are due, and firing them, each exactly as often as its record says.

Rows of kind `due` are pointers ordered by time. This keeps the near future (a window) in two heaps: `after` and
`every` count by the monotonic clock, so that a jump of the wall clock moves nothing; `at` and `cron` follow the wall. Of what
lies beyond the window it knows when the first is due, so that the store is asked only when something comes near.
Firing is a turn: the action, its effects and the next due time are one commit; the agent's own record decides whether
a row still means anything.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator, Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import msgspec

from ..core.codec import encode
from ..core.errors import JidoError, RefusedError, StoreError, TooLarge, describe
from ..core.outside import later_in_passing
from ..core.records import StoredRow
from ..core.schedule import follows_wall_clock, next_due
from ..core.traces import for_log
from .deliveries import deliver_effect
from .effects import Reminder
from .outbox import LONGEST_WAIT_S, MAX_ATTEMPTS, backoff_s
from .turn import DueOrigin

if TYPE_CHECKING:
    from .node import Node

WINDOW_S = 60.0
EDGE = 17
"""The digits by which the names of rows begin: when they are due, in microseconds."""
RECHECK_S = 1.0
"""How often the wall clock is looked at: how late a jump is noticed."""
MAX_FIRING = 1_000
"""How many reminders are on their way at once; a storm takes its turn."""

_decode = msgspec.msgpack.Decoder(Reminder).decode


class Reminders:
    """The scheduler of one node."""

    __slots__ = (
        "_armed", "_beyond_s", "_calendar", "_closed", "_firing", "_handle", "_horizon_s", "_look_handle", "_node", "_relative", "_scanning",
        "_seq",
    )  # fmt: skip

    def __init__(self, node: Node) -> None:
        self._node = node
        self._relative: list[tuple[float, int, str, Reminder]] = []
        self._calendar: list[tuple[float, int, str, Reminder]] = []
        self._seq = 0
        self._horizon_s = 0.0  # whatever is due before it is in the heaps
        self._beyond_s = inf  # nothing that isn't is due before this
        self._handle: asyncio.Handle | None = None
        self._look_handle: asyncio.Handle | None = None
        self._armed = 0.0
        self._firing = 0
        self._scanning = True  # until the start has read what there is
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
        self._reach(clock.time_s())
        if follows_wall_clock(reminder.schedule):
            if reminder.due_s < self._horizon_s:
                heapq.heappush(self._calendar, (reminder.due_s, self._seq, address, reminder))
            else:
                self._beyond_s = min(self._beyond_s, reminder.due_s)
            self._arm()
            return
        mono_s = clock.monotonic_s()
        due_mono_s = reminder.due_s - (clock.time_s() - mono_s if zero_s is None else zero_s)
        if reminder.due_s < self._horizon_s or (zero_s is not None and due_mono_s - mono_s < WINDOW_S / 2):
            heapq.heappush(self._relative, (due_mono_s, self._seq, address, reminder))
        else:
            self._beyond_s = min(self._beyond_s, reminder.due_s)
        self._arm()

    def _reach(self, wall_s: float) -> None:
        """The window moves on as far as nothing is known to be due."""
        if not self._scanning:
            self._horizon_s = max(self._horizon_s, min(self._beyond_s, wall_s + WINDOW_S))

    def ring(self, address: str, reminder: Reminder, settled: Callable[[BaseException | None], None]) -> None:
        """Fire a reminder of an agent of this node that another node has found to be due."""
        wall_s = self._node.clock.time_s()
        missed, next_s = next_due(reminder.schedule, reminder.due_s, max(wall_s, reminder.due_s))
        following = None if next_s is None else msgspec.structs.replace(reminder, due_s=next_s)
        origin = DueOrigin(reminder, following, wall_s - self._node.clock.monotonic_s(), settled)
        deliver_effect(self._node, address, reminder, origin, missed, arrived=True)

    async def start(self) -> None:
        """Read the rows of the first window; those that were missed fire now."""
        self._horizon_s = self._node.clock.time_s() + WINDOW_S
        await self._scan(0.0, self._horizon_s)
        await self._find_next()
        self._scanning = False
        self._look()
        self._arm()

    def _look(self) -> None:
        """Whether somebody has set the wall clock."""
        self._tick()
        if not self._closed:
            self._look_handle = later_in_passing(self._node.loop)(RECHECK_S, self._look)

    async def rescan(self) -> None:
        """An agent type was registered: its rows may have been waiting."""
        await self._scan(0.0, self._horizon_s)

    def close(self) -> None:
        """Fire nothing more; the rows remain."""
        self._closed = True
        self._relative.clear()
        self._calendar.clear()
        for handle in (self._handle, self._look_handle):
            if handle is not None:
                handle.cancel()

    async def _scan(self, from_s: float, to_s: float) -> None:
        async for page in self._node.records.scan("due", _edge(from_s), _edge(to_s)):
            for row in page:
                self._take(row)

    async def _find_next(self) -> None:
        """When the first of those beyond the window is due."""
        pages = aiter(self._node.records.scan("due", _edge(self._horizon_s)))
        page = await anext(pages, None)
        if page is not None and page[0].name[:EDGE].isdigit():
            self._beyond_s = min(self._beyond_s, int(page[0].name[:EDGE]) / 1_000_000)
        for row in page or ():
            self._node.recovery.is_hosted(row.agent)  # who lacks a type is told so at the start, not on the day
        if isinstance(pages, AsyncGenerator):
            await pages.aclose()

    def _take(self, row: StoredRow) -> None:
        if self._node.recovery.is_hosted(row.agent) and (self._node.router is None or self._node.router.is_here(row.agent)):
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
        delay_s = inf if self._scanning else self._beyond_s - WINDOW_S / 2 - clock.time_s()
        if self._relative:
            delay_s = min(delay_s, self._relative[0][0] - clock.monotonic_s())
        if self._calendar:
            delay_s = min(delay_s, self._calendar[0][0] - clock.time_s())
        if delay_s == inf:
            return
        if self._firing >= MAX_FIRING:
            delay_s = max(delay_s, 0.01)
        when = self._node.loop.time() + max(0.0, delay_s)
        handle = self._handle
        if handle is not None:
            if self._armed <= when:
                return
            handle.cancel()
        self._armed = when
        self._handle = self._node.loop.call_at(when, self._tick)

    def _tick(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        clock = self._node.clock
        wall_s, mono_s = clock.time_s(), clock.monotonic_s()
        while self._relative and self._relative[0][0] <= mono_s and self._firing < MAX_FIRING:
            due_mono_s, _seq, address, reminder = heapq.heappop(self._relative)
            self._fire(address, reminder, reminder.due_s + (mono_s - due_mono_s), reminder.due_s - due_mono_s, 1)
        while self._calendar and self._calendar[0][0] <= wall_s and self._firing < MAX_FIRING:
            _due, _seq, address, reminder = heapq.heappop(self._calendar)
            self._fire(address, reminder, wall_s, wall_s - mono_s, 1)
        self._reach(wall_s)
        if wall_s >= self._beyond_s - WINDOW_S / 2 and not self._scanning and not self._closed:
            self._scanning = True
            self._node.own(self._advance(wall_s))
        self._arm()

    async def _advance(self, wall_s: float) -> None:
        """Move the window on; the rows between the old edge and the new one come in."""
        old_s, self._horizon_s = self._horizon_s, max(self._horizon_s, wall_s + WINDOW_S)
        beyond_s, self._beyond_s = self._beyond_s, inf
        wait_s = 0.0
        try:
            await self._scan(old_s, self._horizon_s)
            await self._find_next()
        except StoreError as error:
            self._node.log.error("due reminders can't be read just now", error=describe(error))
            self._horizon_s, self._beyond_s, wait_s = old_s, min(beyond_s, self._beyond_s), RECHECK_S
        self._node.later(wait_s, self._advanced)

    def _advanced(self) -> None:
        self._scanning = False
        self._arm()

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
        node.log.error(
            "a reminder is moved to the dead letters", agent=address, reminder=reminder.name, error=describe(error), exc_info=for_log(error)
        )
        node.own(self._bury(address, reminder, now_s, zero_s, attempt, tries, error))

    async def _bury(self, address: str, reminder: Reminder, now_s: float, zero_s: float, attempts: int, tries: int, error: BaseException) -> None:
        node = self._node
        try:
            payload, number = {"reminder": encode(reminder)}, int(reminder.due_s * 1_000_000)
            await node.letters.bury(
                "reminder",
                f"{address}#{reminder.name}",
                address,
                payload,
                series=f"{reminder.name}/{reminder.series}",
                number=number,
                attempts=attempts,
                error=error,
            )
            await node.control.skip_reminder(address, reminder, now_s)
        except JidoError as refused:  # no room, or no store just now: the series must not end with it
            node.log.error("a dead letter couldn't be stored yet", agent=address, reminder=reminder.name, error=describe(refused))
            delay_s = min(backoff_s(tries, node.random()), LONGEST_WAIT_S)
            node.later(delay_s, partial(self._fire, address, reminder, now_s, zero_s, attempts, tries + 1))


def _edge(time_s: float) -> str:
    return f"{max(0, int(time_s * 1_000_000)):0{EDGE}d}"
