"""Reading single messages, always from the leader of their stream.

Direct reads, which any server answers, may be older than what was acknowledged; the streams forbid them. A leader that was cut off
still answers for some seconds, and nothing that reads alone can know: whoever acts on what it read commits, and is refused then.
Lists are held against the largest sequence that was acknowledged here, so that a stale one is noticed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from ...core.clock import Clock
from ...core.errors import StoreUnavailable
from ...core.records import Record
from .jetstream import JetStream, Refused, Stored, refusal
from .places import Subjects, part
from .stored import BELOW, Kept, StoredHead, expired, head_of, joined, row_of, unreadable

IN_FLIGHT = 16
"""Reads of a connection at once. The servers answer all reads and listings in one queue, and for whoever stands in it behind thousands, a lease say,
that is seconds."""
TORN = 20
"""So often a value is read again that changed while its parts were read."""
PAUSE_S = 0.05
T = TypeVar("T")


class Reading:
    """See the module."""

    def __init__(self, jetstream: JetStream, subjects: Subjects, clock: Clock) -> None:
        self._jetstream, self._subjects, self._clock = jetstream, subjects, clock
        self._asking = 0
        self._turns: deque[asyncio.Future[None]] = deque()
        self.floor = [0] * subjects.partitions
        """Of each partition: a sequence that is known to be durable."""

    async def last_of(self, partition: int, subject: str) -> Stored | None:
        """The last message of a subject; None too if it stands for something that was removed."""
        if self._asking >= IN_FLIGHT:
            turn = asyncio.get_running_loop().create_future()
            self._turns.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._next()  # it may have been its turn
                raise
        self._asking += 1
        try:
            found = await self._jetstream.last_of(self._subjects.stream(partition), subject)
        finally:
            self._asking -= 1
            self._next()
        return found if found is not None and found.payload else None

    def _next(self) -> None:
        while self._turns and self._asking < IN_FLIGHT:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    async def head(self, agent: str) -> tuple[Record, StoredHead] | None:
        """An agent's head, checked."""
        place = self._subjects.place(agent)
        for _ in range(TORN):
            found = await self.last_of(place.partition, place.head)
            if found is None:
                return None
            stored = head_of(found.payload, f"the record of {agent}")
            if stored.agent != agent:
                raise unreadable(f"the record of {agent}", f"it is that of {stored.agent}")
            if not stored.parts:
                return Record(agent, found.sequence, stored.head), stored
            whole = await self.whole(place.partition, place.head, stored, f"the record of {agent}")
            if whole is not None:
                return Record(agent, found.sequence, whole), stored
            await asyncio.sleep(PAUSE_S)
        raise unreadable(f"the record of {agent}", "its parts aren't those that it names")

    async def row(self, agent: str, kind: str, name: str) -> bytes | None:
        """An unexpired row's value."""
        subject = self._subjects.row(agent, kind, name)
        partition = self._subjects.place(agent).partition
        for _ in range(TORN):
            found = await self.last_of(partition, subject)
            if found is None or not self.is_live(found.headers):
                return None
            value = await self.value(partition, found)
            if value is not None:
                return value.value if found.sequence >= await self.below(agent) else None
            await asyncio.sleep(PAUSE_S)
        raise unreadable(f"the row {kind}/{name} of {agent}", "its parts aren't those that it names")

    async def value(self, partition: int, found: Stored) -> Kept | None:
        """The row of a message, whole; None if its parts have changed meanwhile."""
        stored = row_of(found.payload, self._subjects.describe(found.subject))
        if not stored.parts:
            return stored
        whole = await self.whole(partition, found.subject, stored, f"the row {stored.kind}/{stored.name} of {stored.agent}")
        return None if whole is None else Kept(stored.agent, stored.kind, stored.name, whole, stored.expires_s)

    async def whole(self, partition: int, subject: str, stored: StoredHead | Kept, what: str) -> bytes | None:
        """What lies in parts; None if they have changed meanwhile."""
        reads = (self.last_of(partition, part(subject, number)) for number in range(stored.parts))
        found = await asyncio.gather(*reads)
        return joined([None if one is None else one.payload for one in found], stored.digest, what)

    async def all_of(self, partition: int, subjects: Sequence[str]) -> list[Stored]:
        """The last messages of many subjects, as far as there are any; whoever reads one meanwhile doesn't wait for all of these."""
        found: list[Stored] = []
        left = iter(subjects)

        async def read() -> None:
            for subject in left:
                one = await self.last_of(partition, subject)
                found.extend(() if one is None else (one,))

        await gathered([read() for _ in range(min(IN_FLIGHT // 2, len(subjects)))])
        return found

    async def names(self, partition: int, pattern: str, at_least: int = 0, *, most: int = 0) -> list[str]:
        """The subjects that match a pattern, as the leader knows them, in a state no older than a sequence; if there are more than `most` (0: however
        many), some of them, and more than so many."""
        at_least = max(at_least, self.floor[partition])
        deadline_s = asyncio.get_running_loop().time() + self._jetstream.timeout_s
        names: list[str] = []
        while True:
            stream, body = self._subjects.stream(partition), {"subjects_filter": pattern, "offset": len(names)}
            try:
                told = await self._jetstream.api(f"STREAM.INFO.{stream}", body)
            except Refused as refused:
                raise refusal(refused, f"listing {stream}") from refused
            if int(told["state"]["last_seq"]) >= at_least:
                names += told["state"].get("subjects") or {}
                if len(names) >= int(told.get("total") or 0) or 0 < most < len(names):
                    return names
            elif asyncio.get_running_loop().time() > deadline_s:
                raise StoreUnavailable(f"the NATS servers show an old state of partition {partition}, before sequence {at_least}")
            else:
                names.clear()
                await asyncio.sleep(PAUSE_S)

    async def below(self, agent: str) -> int:
        """Rows of an agent with smaller sequences are dead: it was deleted, and they are still to be removed. 0: there are none."""
        found = await self.last_of(self._subjects.place(agent).partition, self._subjects.sweep(agent))
        return 0 if found is None else int(found.headers.get(BELOW, 0))

    def is_live(self, headers: Mapping[str, str]) -> bool:
        """Whether a row's time hasn't come."""
        return not expired(headers, self._clock.time_s())


async def gathered(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All of them side by side; if one fails, the others are ended first."""
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
