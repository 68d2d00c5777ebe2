"""What keeps failing: one list for events, casts and reminders, to look at, to run again and to clear.

A letter is a record of its own (`jido.dead_letter/<id>`), its id made from where it comes from, so that moving the same thing
twice stores it once. The list is bounded: at the limit nothing is lost, the source keeps what it has and says so.
"""

from __future__ import annotations

import builtins
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

from .clock import Clock
from .codec import decode, encode
from .errors import Conflict, InvalidArguments, RecordUnreadable, RefusedError, describe
from .records import Records

TYPE = "jido.dead_letter"
Source = Literal["event", "cast", "reminder"]
Redriver = Callable[["DeadLetter"], Awaitable[None]]


class DeadLettersFull(RefusedError):
    """There are `events.max_dead_letters` letters; what fails stays where it is until some are redriven or cleared."""

    code = "DEAD_LETTERS_FULL"


class DeadLetter(msgspec.Struct, frozen=True):
    """`name`: the subscription, receiver or reminder. `series` and `number`: its place there. `payload`: plain builtins."""

    id: str
    source: Source
    name: str
    agent: str | None
    error: str
    attempts: int
    time_s: float
    series: str
    number: int
    payload: dict[str, Any]


class DeadLetters:
    """See the module."""

    def __init__(self, records: Records, *, clock: Clock, limit: int = 100_000) -> None:
        self._records = records
        self._clock = clock
        self._limit = limit
        self._count: int | None = None
        self._redrivers: dict[tuple[str, str], Redriver] = {}

    def register(self, source: Source, name: str, redriver: Redriver) -> None:
        """Who runs letters of a source again; `name` "" for all of that source."""
        self._redrivers[source, name] = redriver

    def forget(self, source: Source, name: str) -> None:
        """Nobody does any more."""
        self._redrivers.pop((source, name), None)

    async def bury(
        self, source: Source, name: str, agent: str | None, payload: dict[str, Any], *, series: str, number: int, attempts: int, error: BaseException
    ) -> str:
        """Store a letter and return its id; the same (source, name, agent, series, number) is stored once. `DeadLettersFull` at the limit."""
        if self._count is None:
            self._count = len(await self.list())
        if self._count >= self._limit:
            raise DeadLettersFull(f"there are {self._count} dead letters, the limit (events.max_dead_letters); redrive or clear some")
        import hashlib

        digest = hashlib.blake2b(encode([source, name, agent, series, number]), digest_size=12).hexdigest()
        letter = DeadLetter(digest, source, name, agent, describe(error), attempts, self._clock.time_s(), series, number, payload)
        address = f"{TYPE}/{digest}"
        for _ in range(10):
            record = await self._records.read(address)
            if record is not None and record.head is not None:
                return digest
            try:
                await self._records.commit(address, 0 if record is None else record.revision, encode(letter))
            except Conflict:
                continue
            self._count += 1
            return digest
        raise Conflict(f"{address} keeps changing", expected=0, actual=0)

    async def list(self, source: Source | None = None, *, name: str | None = None, limit: int | None = None) -> builtins.list[DeadLetter]:
        """The letters, the oldest first."""
        found: list[DeadLetter] = []
        async for page in self._records.scan_agents(TYPE):
            for record in page:
                letter = _letter(record.agent, record.head or b"")
                if (source is None or letter.source == source) and (name is None or letter.name == name):
                    found.append(letter)
        found.sort(key=lambda letter: (letter.time_s, letter.id))
        return found[:limit]

    async def redrive(self, id: str) -> None:  # noqa: A002 - the contract's name
        """Run a letter again; it is removed once that has worked, else its error is raised and it stays."""
        record = await self._records.read(f"{TYPE}/{id}")
        if record is None or record.head is None:
            raise InvalidArguments(f"there is no dead letter {id!r}", path="$.id")
        letter = _letter(record.agent, record.head)
        redriver = self._redrivers.get((letter.source, letter.name)) or self._redrivers.get((letter.source, ""))
        if redriver is None:
            raise InvalidArguments(
                f"nobody takes letters of {letter.source} {letter.name!r} just now: host its agent type or subscribe again", path="$.id"
            )
        await redriver(letter)
        await self._remove(record.agent, record.revision)

    async def clear(self, source: Source | None = None) -> int:
        """Remove letters for good; how many."""
        letters = await self.list(source)
        removed = 0
        for letter in letters:
            record = await self._records.read(f"{TYPE}/{letter.id}")
            if record is not None and record.head is not None:
                removed += await self._remove(record.agent, record.revision)
        return removed

    async def _remove(self, address: str, revision: int) -> bool:
        try:
            await self._records.commit(address, revision, None)
        except Conflict:  # somebody else has removed it
            return False
        if self._count is not None:
            self._count -= 1
        return True


def _letter(address: str, head: bytes) -> DeadLetter:
    try:
        return msgspec.convert(decode(head), DeadLetter)
    except (msgspec.MsgspecError, ValueError) as error:
        raise RecordUnreadable(f"the dead letter {address} can't be read: {error}", agent=address) from error
