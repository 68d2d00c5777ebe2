"""What keeps failing: one list for events, casts, reminders and items of sensors, to look at, to run again and to clear.

A letter is a record of its own (`jido.dead_letter/<id>`), its id made from where it comes from, so that moving the same
thing twice stores it once. The list is bounded: at the limit nothing is lost, the source keeps what it has and says so.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, Literal

import msgspec

from .clock import Clock, utc_from
from .codec import decode, encode
from .errors import Conflict, DeadLettersFull, InvalidArguments, RecordUnreadable, RedriveFailed, StoreError, describe
from .events import Event
from .near import one_of
from .observability import logger
from .records import Record, Records
from .shown import MAX_CHARS, cut, one_line, short, table
from .traces import leaves

TYPE = "jido.dead_letter"
Source = Literal["event", "cast", "reminder", "sensor"]
SOURCES: tuple[Source, ...] = ("event", "cast", "reminder", "sensor")
TOGETHER = 1_000
SHOWN = 5
"""So many of the letters that weren't redriven are told in the message; all of them in `failed`."""
RECOUNT_S = 1.0
"""On a cluster: after so long the letters of other nodes are counted too."""
CLOSE = 1_000
"""On a cluster: with so little room left it is counted before and after each letter."""
Elsewhere = Callable[[str], Awaitable[bool]]
Redriver = Callable[["DeadLetter"], Awaitable[None]]


class DeadLetter(msgspec.Struct, frozen=True):
    """What could not be delivered, and why.

    Attributes:
        id: what `redrive` takes
        source: "event", "cast", "reminder" or "sensor"
        name: the subscription (`durable/…`, `group/…`, `forward/…`, `type.method`), the receiver's address of a cast, `type/key#name` of a
            reminder, `type.method` of a sensor
        agent: address that it was for, if it was for an agent
        error: type and message of its last failure
        attempts: how often it was tried
        time_s: when it was given up, seconds since the epoch
        series: where it comes from
        number: its place there: a position, the number of a cast, the due time of a reminder in microseconds
        payload: what it was, in plain builtins
    """

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

    def __repr__(self) -> str:
        whose = f" for {self.agent}" if self.agent else ""
        return one_line(f"<DeadLetter {self.id}: {self.source} {self.name}{whose}, {self.attempts} attempts, {cut(self.error, MAX_CHARS)}>")

    def _repr_html_(self) -> str:
        rows = [(name, value) for name in self.__struct_fields__ if name not in ("id", "time_s") and (value := getattr(self, name)) is not None]
        return table(f"dead letter {self.id}", [("time", utc_from(self.time_s).isoformat()), *rows])

    @property
    def event(self) -> Event | None:
        """The event, if it was one."""
        stored = self.payload.get("event")
        return Event(**stored) if self.source == "event" and isinstance(stored, Mapping) else None


class DeadLetters:
    """What `platform.dead_letters` is: the list of one store."""

    def __init__(self, records: Records, *, clock: Clock, limit: int | Callable[[], int] = 100_000, node: str = "") -> None:
        self._node_name = node
        self._records = records
        self._clock = clock
        self._limit = limit
        self._lines = logger("jidosystem.dead_letters")
        self.elsewhere: Elsewhere | None = None  # on a cluster: who else may run a letter again
        self.on_buried: Callable[[DeadLetter], None] = _untold
        self.on_emptied: Callable[[], None] = _untold
        self._count: int | None = None
        self._counted_s = 0.0
        self._counting = asyncio.Lock()
        self._redrivers: dict[tuple[str, str], Redriver] = {}
        self._redriving: dict[str, asyncio.Task[None]] = {}

    # -- for those who have letters --------------------------------------------------------------------------------

    def register(self, source: Source, name: str, redriver: Redriver) -> None:
        """Who runs letters of a source again; `name` "" for all of that source that nobody else takes."""
        self._redrivers[source, name] = redriver

    def forget(self, source: Source, name: str) -> None:
        """Nobody does any more."""
        self._redrivers.pop((source, name), None)

    async def bury(
        self, source: Source, name: str, agent: str | None, payload: dict[str, Any], *, series: str, number: int, attempts: int, error: BaseException
    ) -> str:
        """Store a letter and return its id; the same (source, name, agent, series, number) is stored once. `DeadLettersFull` at the limit."""
        digest = hashlib.blake2b(encode([source, name, agent, series, number]), digest_size=12).hexdigest()
        address = f"{TYPE}/{digest}"
        letter = DeadLetter(digest, source, name, agent, describe(error), attempts, self._clock.time_s(), series, number, payload)
        blob = encode(letter)
        for _ in range(10):
            record = await self._records.read(address)
            if record is not None and record.head is not None:
                if await self._is_kept(record):
                    return digest
                continue
            await self._take_room()
            try:
                committed = await self._records.commit(address, 0 if record is None else record.revision, blob)
            except Conflict:
                self._give_room()
            except BaseException:  # it may have been stored all the same: count again
                self._count = None
                raise
            else:
                await self._check_room(address, committed.revision)
                self.on_buried(letter)
                return digest
        raise Conflict(f"{address} keeps changing", agent=address, expected=0, actual=0)

    # -- for people ------------------------------------------------------------------------------------------------

    @leaves
    async def list(self, source: Source | None = None, *, name: str | None = None, limit: int | None = None) -> list[DeadLetter]:
        """The letters, the oldest first: of one source ("event", "cast", "reminder", "sensor") or all, of one `name` or all, at most
        `limit`. One that can't be read is named in the log and left out. Raises `InvalidArguments`.
        """
        _check_source(source)
        found: list[DeadLetter] = []
        async for record in self._stored():
            letter = self._letter_or_none(record)
            if letter is not None and (source is None or letter.source == source) and (name is None or letter.name == name):
                found.append(letter)
        found.sort(key=lambda letter: (letter.time_s, letter.number, letter.id))
        return found if limit is None else found[: max(0, limit)]

    @leaves
    async def redrive(self, id: str, *others: str) -> None:  # noqa: A002 - the contract's name
        """Run a letter again, with its old deduplication: it takes effect once however often it is redriven. Removed once that has worked;
        otherwise its error is raised and it stays. `InvalidArguments` if there is none of that id, or nobody takes it just now: host its agent
        type or subscribe again. A handler must not redrive letters of the stream or key that it is handling: they wait for it.

        Several ids run one after another, in this order; one that fails doesn't hold up the others: `RedriveFailed` names those at the end.
        """
        for letter_id in (id, *others):
            if not isinstance(letter_id, str):
                raise InvalidArguments(f"{short(letter_id)} is no id of a dead letter: give letter.id, for several redrive(*ids)", path="$.id")
        if others:
            await self._redrive_each(dict.fromkeys((id, *others)))
        else:
            await self._redrive_together(id)

    @leaves
    async def clear(self, source: Source | None = None) -> int:
        """Remove letters for good, of one source or all, those that can't be read among them; how many."""
        _check_source(source)
        chosen: list[Record] = []
        async for record in self._stored():
            letter = self._letter_or_none(record)
            if source is None or (letter is not None and letter.source == source):
                chosen.append(record)
        removed = 0
        for start in range(0, len(chosen), TOGETHER):
            some = chosen[start : start + TOGETHER]
            removed += sum(await asyncio.gather(*(self._remove(record.agent, record.revision) for record in some)))
        if removed:
            await self._tell_if_empty()
        return removed

    # -- inside ----------------------------------------------------------------------------------------------------

    async def _redrive_each(self, ids: Collection[str]) -> None:
        failed: dict[str, Exception] = {}
        for letter_id in ids:
            try:
                await self._redrive_together(letter_id)
            except Exception as error:  # whatever its receiver raises
                failed[letter_id] = error
        if failed:
            told = {letter_id: describe(error) for letter_id, error in failed.items()}
            first = [f"{letter_id}: {error}" for letter_id, error in told.items()][:SHOWN]
            more = [f"and {len(told) - SHOWN} more"] if len(told) > SHOWN else []
            rest = "; the others were" if len(told) < len(ids) else ""
            message = f"{len(told)} of {len(ids)} dead letters weren't redriven: {'; '.join([*first, *more])}{rest}"
            raise RedriveFailed(message, failed=told) from next(iter(failed.values()))

    async def _redrive_together(self, letter_id: str) -> None:
        """Whoever asks while it runs waits for the same run."""
        going = self._redriving.get(letter_id)
        if going is None:
            going = self._redriving[letter_id] = asyncio.create_task(self._redrive(letter_id))
        await asyncio.shield(going)

    async def _redrive(self, letter_id: str) -> None:
        try:
            await self._redrive_once(letter_id)
        finally:
            del self._redriving[letter_id]

    async def _redrive_once(self, letter_id: str) -> None:
        record = await self._records.read(f"{TYPE}/{letter_id}")
        if record is None or record.head is None:
            raise InvalidArguments(f"there is no dead letter {letter_id!r}", path="$.id")
        letter = _letter(record.agent, record.head)
        redriver = self._redriver_of(letter)
        if redriver is None:
            if self.elsewhere is not None and await self.elsewhere(letter_id):
                return
            raise InvalidArguments(
                f"nobody takes letters of {letter.source} {letter.name!r} just now: host its agent type or subscribe again", path="$.id"
            )
        await redriver(letter)
        await self._remove(record.agent, record.revision)
        await self._tell_if_empty()

    async def _tell_if_empty(self) -> None:
        with suppress(StoreError):  # the letters are gone; whoever looks next finds that
            if not await self._records.count_agents(TYPE):
                self.on_emptied()

    async def redrive_here(self, letter_id: str) -> bool:
        """For another node: `redrive`, if somebody here takes letters of that kind; whether that is so."""
        record = await self._records.read(f"{TYPE}/{letter_id}")
        if record is not None and record.head is not None and self._redriver_of(_letter(record.agent, record.head)) is None:
            return False
        await self._redrive_together(letter_id)
        return True

    def _redriver_of(self, letter: DeadLetter) -> Redriver | None:
        return self._redrivers.get((letter.source, letter.name)) or self._redrivers.get((letter.source, ""))

    async def _stored(self) -> AsyncIterator[Record]:
        async for page in self._records.scan_agents(TYPE):
            for record in page:
                if record.head is not None:
                    yield record

    def _letter_or_none(self, record: Record) -> DeadLetter | None:
        try:
            return _letter(record.agent, record.head or b"")
        except RecordUnreadable as error:
            self._lines.error("a dead letter can't be read", letter=record.agent, error=record.damage or describe(error))
            return None

    async def _remove(self, address: str, revision: int) -> bool:
        try:
            await self._records.commit(address, revision, None)
        except Conflict:  # somebody else has removed it
            return False
        self._give_room()
        return True

    async def _take_room(self) -> None:
        async with self._counting:
            stale = self.elsewhere is not None and (self._is_close() or self._clock.monotonic_s() - self._counted_s > RECOUNT_S)
            if self._count is None or stale:
                await self._recount()
            limit = self._most()
            if (self._count or 0) >= limit:
                told = f"there are {self._count} dead letters, the limit (events.max_dead_letters) is {limit}: redrive or clear some"
                raise DeadLettersFull(told, limit=limit)
            self._count = (self._count or 0) + 1

    async def _recount(self) -> int:
        self._counted_s = self._clock.monotonic_s()
        self._count = await self._records.count_agents(TYPE)
        return self._count

    def _most(self) -> int:
        return self._limit if isinstance(self._limit, int) else self._limit()

    def _is_close(self) -> bool:
        """Whether so little room is left that other nodes may be taking it at this moment."""
        return self._count is None or self._count + CLOSE >= self._most()

    async def _check_room(self, address: str, revision: int) -> None:
        """Other nodes may have taken the same room: whoever finds too many when his own is stored takes it back, and keeps what it is of."""
        if self.elsewhere is None or not self._is_close() or await self._recount() <= (limit := self._most()):
            return
        if await self._remove(address, revision):
            told = f"there are more than {limit} dead letters, the limit (events.max_dead_letters): redrive or clear some"
            raise DeadLettersFull(told, limit=limit)

    async def _is_kept(self, record: Record) -> bool:
        """Whether a letter that is there stays. Close to the limit the node that has just stored it may be about to take it back: a new revision
        prevents that.
        """
        if self.elsewhere is None or not self._is_close():
            return True
        try:
            await self._records.commit(record.agent, record.revision, record.head)
        except Conflict:
            return False
        return True

    def _give_room(self) -> None:
        if self._count is not None:
            self._count -= 1


def _untold(*_what: object) -> None:
    """Nobody wants to know."""


def _letter(address: str, head: bytes) -> DeadLetter:
    try:
        return msgspec.convert(decode(head), DeadLetter)
    except (msgspec.MsgspecError, ValueError) as error:
        raise RecordUnreadable(f"the dead letter {address} can't be read: {error}", agent=address) from error


def _check_source(source: object) -> None:
    if source is not None and source not in SOURCES:
        raise InvalidArguments(f"source={source!r}: None for all, or {one_of(source, SOURCES)}", path="$.source")
