"""`TestPlatform`: a platform under virtual time, whose store can fail and which can crash and start again.

Everything in it is the platform's own code on a real store; what a test adds is the clock, the faults, and eyes.
"""

from __future__ import annotations

import asyncio
import contextvars
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from random import Random
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec

from ..api import assembly
from ..api.platform import Platform
from ..backends.memory import MemoryRecords
from ..core.bus import Forwarder
from ..core.clock import utc_from
from ..core.config import Config
from ..core.errors import InvalidArguments
from ..core.events import Event, decode_event, encode_event, matcher
from ..core.ids import Ids
from ..core.observability import Meters
from ..core.records import Records
from ..runtime.agent import Agent
from ..runtime.effects import CastEffect, Reminder
from ..runtime.loading import effects_of
from ..runtime.node import Node
from .crash import bury
from .faults import Faults, StoreFaults
from .loop import Stuck, VirtualLoop, virtual_loop
from .rest import unrest
from .store import FaultyRecords

START = "2026-01-01T00:00:00Z"
TEMPORARY = "sqlite://"


class VirtualClock:
    """The date at which a test starts, moved on by its loop's clock."""

    def __init__(self, loop: VirtualLoop, start_s: float) -> None:
        self._zero_us = round(start_s * 1e6) - round(loop.time() * 1e6)
        self._loop = loop
        self.monotonic_s = loop.time

    def time_s(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return (self._zero_us + self._loop._now_us) / 1e6


class DueReminder(NamedTuple):
    """A reminder that is set.

    Attributes:
        agent: whose: its address
        name: the reminder's name
        action: what it will call
        at: when, in UTC
    """

    agent: str
    name: str
    action: str
    at: datetime


class PendingCast(NamedTuple):
    """A cast of a committed turn that its sender's record still names.

    Attributes:
        sender: who sent it: its address
        to: to whom: an address
        action: what it will call
    """

    sender: str
    to: str
    action: str


class TestPlatform(Platform):
    """A `Platform` with everything that belongs to it, on an event loop of virtual time, which `run` or the plugin provide; on any other loop
    entering it is a `RuntimeError`. `url`: "memory://", "sqlite://" (a file that is removed at the end), or another store's. `start`: when
    time begins, with its zone. `seed`: of faults, of the jitter of retries and of identifiers. `store`: how likely the store fails, from
    the moment the platform has started. An exception that leaves `async with` gets a note with the seed and what was made to fail. `faults`
    is its `Faults`.
    """

    __test__ = False  # no test, although its name begins like one

    def __init__(
        self,
        url: str = "memory://",
        *,
        agents: Iterable[type[Agent]] = (),
        start: str | datetime = START,
        seed: int = 0,
        store: StoreFaults | None = None,
        config: Mapping[str, Any] | None = None,
        forwarders: Iterable[Forwarder] = (),
        checking: bool = True,
        name: str = "test",
    ) -> None:
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._start_s = moment(start).timestamp()
        self.faults = Faults(store, seed=seed)
        super().__init__("memory://" if url == TEMPORARY else url, agents=agents, config=config, forwarders=forwarders, checking=checking, name=name)
        self._wants_file = url == TEMPORARY
        self._seeded = Random(f"platform {seed}")
        self._random = self._seeded.random
        self._starts = 0
        self._memory: MemoryRecords | None = None
        self._faulty: FaultyRecords | None = None
        self._heard: list[tuple[int, Event]] = []
        self._burying: asyncio.Task[None] | None = None
        self._dead: list[AsyncExitStack] = []

    # -- life ------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        loop = virtual_loop()
        self._clock = VirtualClock(loop, self._start_s)
        if self._wants_file:
            self._temporary = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="jido-test-")
            self._url = f"sqlite:////{self._temporary.name.lstrip('/')}/test.db"
            self._parts = assembly.parts_of(self._url)
        loop.explain.append(self._explain)
        try:
            return await self._begin()
        except BaseException:
            await self._clear_away()
            raise

    async def _begin(self) -> Self:
        self._starts += 1
        await super().__aenter__()
        self.faults.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            error.add_note(f"under virtual time, {self.now.isoformat()}; {self.faults!r}")
        self.faults.stop()
        try:
            if self._burying is not None:
                await self._burying
            await super().__aexit__(kind, error, trace)
        finally:
            await self._clear_away()

    async def _clear_away(self) -> None:
        virtual_loop().explain.remove(self._explain)
        if self._temporary is not None:
            await asyncio.to_thread(self._temporary.cleanup)

    def _new_ids(self) -> Ids:
        return Ids(f"{self._name}{self._starts}")

    async def _open_records(self, config: Config) -> Records:
        inner: Records
        if assembly.check_url(self._url)[0] == "memory":
            inner = self._memory = self._memory or MemoryRecords(clock=self._clock)
        else:
            inner = await super()._open_records(config)
        self._faulty = FaultyRecords(inner, self.faults, crash=self._crash_now, heard=self._hear, owns=self._memory is None)
        return self._faulty

    # -- crash and restart -----------------------------------------------------------------------------------

    @property
    def crashed(self) -> bool:
        """Whether the platform has crashed, by `crash` or by a scheduled fault, and wasn't started again."""
        return self._burying is not None

    async def crash(self) -> None:
        """Everything in memory is gone, nothing was closed, the store is kept. Whoever waits for an answer gets `OutcomeUnknown`. Code of turns
        under way is cancelled, since a coroutine can't be made to vanish; nothing that it does then reaches the store.
        """
        self._crash_now()
        if self._burying is not None:
            await asyncio.shield(self._burying)

    def _crash_now(self) -> None:
        if self._burying is None and self._faulty is not None and self._node is not None:
            self.faults.stop()
            self._faulty.die()
            self._burying = virtual_loop().create_task(self._bury(self._node, self._faulty), context=contextvars.Context())

    async def _bury(self, node: Node, faulty: FaultyRecords) -> None:
        assert self._events is not None
        assert self._subscriptions is not None
        stack, self._stack, self._node = self._stack, None, None
        if stack is not None:
            self._dead.append(stack.pop_all())  # whatever it would have closed isn't
        await bury(node, self._events, self._subscriptions)
        await faulty.close()

    async def restart(self, *, agents: Iterable[type[Agent]] | None = None) -> None:
        """Start again on what the store holds, after a crash or, if it runs, after closing it in order. `agents`: other classes than before, the
        next release for example. Make references and subscriptions again.
        """
        if self._burying is not None:
            await self._burying
        else:
            self.faults.stop()
            await super().__aexit__(None, None, None)
        self._burying = self._closing = self._node = None
        self._meters = Meters()
        if agents is not None:
            self._classes = tuple(agents)
        await self._begin()

    # -- time ------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """What the platform's clock shows, in UTC."""
        return utc_from(self._clock.time_s())

    async def advance(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Let so much time pass, with all that is due meanwhile, each at its time; returns when what is due at the end has run as far as it can
        without more time.
        """
        await asyncio.sleep(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
        await virtual_loop().idle()

    async def at_rest(self, within_s: float = 86_400.0) -> None:
        """Wait until nothing runs, is due or undelivered. Time passes as far as that needs, for retries and the like, not for reminders of the
        future. What would take longer than `within_s` virtual seconds, or can't end, is `Stuck`, naming what still goes on. Calls that wait for
        a paused agent, and casts to one, don't count.
        """
        loop = virtual_loop()
        began = loop.time()
        while True:
            await loop.idle()
            busy = list(self._unrest(await self._log_end()))
            if not busy:
                return
            if loop.next_time() > began + within_s:
                raise Stuck("\n  ".join([f"not at rest within {within_s:g} s of virtual time:", *busy]))
            await loop.moved()

    def _explain(self) -> list[str]:
        return ["the platform has crashed"] if self.crashed else list(self._unrest(None))

    def _unrest(self, log_end: int | None) -> Iterable[str]:
        if self._node is None or self._events is None or self._subscriptions is None:
            return ()
        return unrest(self._node, self._events, self._subscriptions, log_end)

    async def _log_end(self) -> int:
        log = self._inside().log
        assert log is not None
        return await log.last()

    def _inside(self) -> Records:
        self._running()
        assert self._faulty is not None
        return self._faulty.inner

    # -- what a test wants to see ----------------------------------------------------------------------------

    def published(self, pattern: str = "**") -> list[Event]:
        """The events that became durable during the test and whose type fits the pattern, in the order of the log."""
        fits = matcher(pattern)
        return [event for _position, event in sorted(self._heard, key=lambda heard: heard[0]) if fits(event.type)]

    def _hear(self, events: Sequence[Event], positions: Sequence[int]) -> None:
        self._heard += [(position, decode_event(encode_event(event), position)) for event, position in zip(events, positions, strict=True)]

    async def state(self, agent: Any) -> dict[str, Any]:
        """The durable fields of an agent by name, whether it is live or not; `agent` is a reference. What else is known of it says
        `platform.agents.describe`.
        """
        return (await self.agents.describe(agent)).fields or {}

    async def due_reminders(self) -> list[DueReminder]:
        """Every reminder that is set, of all agents, the next one first."""
        found: list[DueReminder] = []
        async for page in self._inside().scan("due"):
            for row in page:
                reminder = msgspec.msgpack.decode(row.value, type=Reminder)
                found.append(DueReminder(row.agent, reminder.name, reminder.action, utc_from(reminder.due_s)))
        return found

    async def pending_casts(self) -> list[PendingCast]:
        """Casts of committed turns that their senders' records still name: not taken yet, or taken and not yet noted."""
        return [
            PendingCast(row.agent, effect.to, effect.action)
            async for page in self._inside().scan("pending")
            for row in page
            for effect in effects_of(row)
            if isinstance(effect, CastEffect)
        ]


def moment(start: str | datetime) -> datetime:
    """When time begins; `InvalidArguments` for what is no date, or has no zone."""
    try:
        moment = datetime.fromisoformat(start) if isinstance(start, str) else start
    except ValueError as error:
        raise InvalidArguments(f"start={start!r} is no date: {error}", path="$.start") from error
    if moment.tzinfo is None:
        raise InvalidArguments(f'start={start!r} has no time zone: write "{moment.isoformat()}Z" for UTC', path="$.start")
    return moment.astimezone(UTC)
