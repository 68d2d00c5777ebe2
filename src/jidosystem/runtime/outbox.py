"""Effects on their way to other agents, each until its receiver has committed it.

One lane a receiver, in order; a blocked receiver holds up nobody else. That an effect was taken is noted in the
sender's next commit, or before it is passivated; a crash in between repeats it, and the receiver knows its number. An agent
that stops or is deleted waits a moment for its effects; if they aren't taken by then, it is activated again for their sake.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from ..core.codec import encode
from ..core.errors import JidoError, describe
from ..core.events import decode_event
from ..core.records import Row
from ..core.traces import for_log
from ..core.troubles import is_passing
from .deliveries import deliver_effect
from .effects import CastEffect, EmitEffect, is_emit_row
from .head import Batch
from .turn import Origin

if TYPE_CHECKING:
    from .activation import Activation

Effect: TypeAlias = CastEffect | EmitEffect
MAX_ATTEMPTS = 5
FIRST_DELAY_S = 0.1
LAST_DELAY_S = 30.0
LONGEST_WAIT_S = 5.0
"""How long a receiver that declines for now is left alone at most."""


def backoff_s(attempt: int, random01: float) -> float:
    """How long to wait after a failed attempt (1 is the first): doubling, capped, with jitter between a half and the whole."""
    return float(min(LAST_DELAY_S, FIRST_DELAY_S * 2 ** min(attempt - 1, 20)) * (0.5 + random01 / 2))


class Outbox:
    """The unreleased effects of one activation."""

    __slots__ = ("_acked", "_activation", "_closed", "_empty", "_lanes", "_rows", "count")

    def __init__(self, activation: Activation) -> None:
        self._activation = activation
        self._lanes: dict[str, deque[tuple[Effect, str]]] = {}
        self._rows: dict[str, dict[int, Effect]] = {}  # row -> effects not taken yet
        self._acked: set[str] = set()  # rows that have changed since the last commit
        self._closed = False
        self._empty: asyncio.Event | None = None  # told once every effect was taken, if somebody waits for it
        self.count = 0

    def expect(self, effects: int) -> None:
        """So many more are about to be committed."""
        self.count += effects

    def release(self, row: str, casts: Sequence[Effect]) -> None:
        """The row is durable: its effects may go."""
        self._rows[row] = {cast.number: cast for cast in casts}
        for cast in casts:
            lane = self._lanes.get(cast.to)
            if lane is None:
                lane = self._lanes[cast.to] = deque()
            lane.append((cast, row))
            if len(lane) == 1:
                self._soon(cast.to)

    def take_up(self, rows: Sequence[tuple[str, Sequence[Effect]]]) -> None:
        """Release what stands in the store, in its order."""
        self.expect(sum(len(effects) for _row, effects in rows))
        for row, effects in rows:
            self.release(row, effects)

    def close(self) -> None:
        """The activation ends: nothing more is sent from here; the rows remain."""
        self._closed = True

    async def drain(self, at_most_s: float | None) -> None:
        """Wait until every effect was taken, at most so long; None: however long it takes."""
        if self.count:
            self._empty = asyncio.Event()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), at_most_s)

    @property
    def settled(self) -> bool:
        """Whether every effect was taken."""
        return self.count == 0

    @property
    def unnoted(self) -> bool:
        """Whether effects were taken that the record doesn't know of yet."""
        return bool(self._acked)

    def rows(self) -> list[Row]:
        """What is still to be taken of earlier commits, as it is to be stored: a deletion would remove it with everything else."""
        return [Row("pending", name, encode(list(left.values()))) for name, left in self._rows.items() if left]

    def free_row(self, *, of_events: bool) -> str | None:
        """A row of which everything was taken, to be written again by the commit that is being made; None: there is none. Writing it again is one
        change of the store, removing it and making another are two.
        """
        for row in self._acked:
            if not self._rows[row] and is_emit_row(row) is of_events:
                self._acked.discard(row)
                del self._rows[row]
                self._activation.need_extra().marks.pending -= 1
                return row
        return None

    def note(self, batch: Batch) -> None:
        """Write into a commit what was taken since the last one."""
        for row in self._acked:
            left = self._rows[row]
            if left:
                batch.stage().rows["pending", row] = Row("pending", row, encode(list(left.values())))
            else:
                batch.stage().rows["pending", row] = Row("pending", row, None)
                del self._rows[row]
                self._activation.need_extra().marks.pending -= 1
        self._acked.clear()

    def _soon(self, to: str) -> None:
        """Send from the loop, never from within the turn that caused it: agents that cast to each other would nest without end."""
        self._activation.host.node.loop.call_soon(self._send, to, 1, 1)

    def _send(self, to: str, attempt: int, tries: int) -> None:
        if self._closed:
            return
        cast, _row = self._lanes[to][0]
        if isinstance(cast, EmitEffect):
            self._activation.host.node.own(self._append(cast, attempt, tries))
            return
        origin = Origin("from", self._activation.address, cast.number, partial(self._settled, to, attempt, tries))
        deliver_effect(self._activation.host.node, to, cast, origin)

    async def _append(self, emitted: EmitEffect, attempt: int, tries: int) -> None:
        """Bring events to a log that is apart from the records."""
        log = self._activation.host.node.log_apart
        assert log is not None
        try:
            await log.append_once(self._activation.address, emitted.number, [decode_event(blob, 0) for blob in emitted.events])
        except JidoError as error:
            self._settled(emitted.to, attempt, tries, error)
        else:
            self._settled(emitted.to, attempt, tries, None)

    def _settled(self, to: str, attempt: int, tries: int, error: BaseException | None) -> None:
        if self._closed:
            return
        if error is None:
            self._taken(to)
            return
        node = self._activation.host.node
        passing = is_passing(error)  # counts as no attempt, but the pauses grow all the same
        if passing or attempt < MAX_ATTEMPTS:
            delay_s = min(backoff_s(tries, node.random()), LONGEST_WAIT_S) if passing else backoff_s(attempt, node.random())
            node.later(delay_s, partial(self._send, to, attempt + (not passing), tries + 1))
        else:
            cast, _row = self._lanes[to][0]
            if isinstance(cast, EmitEffect):  # what a log refuses for good is a mistake of ours: it was checked before the commit
                node.log.error("events can't be appended", agent=self._activation.address, error=describe(error), exc_info=for_log(error))
                node.later(LAST_DELAY_S, partial(self._send, to, attempt, tries + 1))
                return
            node.log.error(
                "an effect is moved to the dead letters",
                agent=self._activation.address,
                to=to,
                action=cast.action,
                error=describe(error),
                exc_info=for_log(error),
            )
            node.own(self._bury(to, cast, attempt, tries, error))

    async def _bury(self, to: str, cast: CastEffect, attempts: int, tries: int, error: BaseException) -> None:
        node, sender = self._activation.host.node, self._activation.address
        try:
            payload = {"sender": sender, "cast": encode(cast)}
            await node.letters.bury("cast", to, to, payload, series=sender, number=cast.number, attempts=attempts, error=error)
        except JidoError as refused:  # no room, or no store just now: what comes after it waits, and it is tried again
            node.log.error("a dead letter couldn't be stored yet", agent=sender, to=to, error=describe(refused))
            node.later(min(backoff_s(tries, node.random()), LONGEST_WAIT_S), partial(self._send, to, attempts, tries + 1))
            return
        if not self._closed:
            self._taken(to)

    def _taken(self, to: str) -> None:
        lane = self._lanes[to]
        cast, row = lane.popleft()
        self._rows[row].pop(cast.number, None)
        self._acked.add(row)
        self.count -= 1
        if not self.count and self._empty is not None:
            self._empty.set()
        if lane:
            self._soon(to)
        else:
            del self._lanes[to]
