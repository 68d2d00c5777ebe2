"""What the runtime's tests share: a clock that stands still, a store that fails on demand, and platforms that die like a process.

`Store` is a test double of a *store*, never of the platform: it keeps everything in the memory adapter and fails, waits or
lies as it is told. A platform whose store is dead behaves as a killed process does: nothing of it is ever committed again.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from jidosystem import Agent, Event, Platform
from jidosystem.backends.memory import MemoryLog, MemoryRecords
from jidosystem.core.config import Config
from jidosystem.core.errors import CommitUnknown, StoreUnavailable
from jidosystem.core.log import LogApart
from jidosystem.core.records import Committed, Record, Records, Row, StoredRow

PATIENCE_S = 10.0


async def until(condition: Callable[[], Any], what: str = "it") -> Any:
    """Wait until the condition holds and return its value; the test fails if it never does."""
    for _ in range(int(PATIENCE_S / 0.005)):
        if value := condition():
            return value
        await asyncio.sleep(0.005)
    raise AssertionError(f"{what} didn't happen within {PATIENCE_S:g} s")


async def until_async(condition: Callable[[], Any], what: str = "it") -> Any:
    """The same for a coroutine function."""
    for _ in range(int(PATIENCE_S / 0.005)):
        if value := await condition():
            return value
        await asyncio.sleep(0.005)
    raise AssertionError(f"{what} didn't happen within {PATIENCE_S:g} s")


async def settle(turns: int = 30) -> None:
    """Let the event loop come round: what could happen without waiting for time has happened then."""
    for _ in range(turns):
        await asyncio.sleep(0)


class FakeClock:
    """A clock that stands still until it is told otherwise. `advance` is time passing, `jump` is somebody setting the wall clock."""

    def __init__(self, start_s: float = 1_800_000_000.0) -> None:
        self.wall_s = start_s
        self.mono_s = 1_000.0

    def time_s(self) -> float:
        return self.wall_s

    def monotonic_s(self) -> float:
        return self.mono_s

    def pass_by(self, seconds: float) -> None:
        self.wall_s += seconds
        self.mono_s += seconds

    def jump(self, seconds: float) -> None:
        self.wall_s += seconds

    async def advance(self, platform: Platform, seconds: float) -> None:
        """Let time pass and the scheduler, whose own timer runs on the loop's clock, have a look."""
        self.pass_by(seconds)
        await look(platform)


async def look(platform: Platform) -> None:
    """Let the scheduler of reminders look at its clock now."""
    for _ in range(5):
        platform._node.reminders._tick()
        await settle()


class ApartLog(MemoryLog):
    """A log beside the records. A dead store's platform reaches neither."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.unknown: str | None = None  # "happened" or "lost": the next outcome is unknown

    async def append_once(self, emitter: str, number: int, events: Sequence[Event]) -> None:
        await self.store._alive()
        unknown, self.unknown = self.unknown, None
        if unknown != "lost":
            await super().append_once(emitter, number, events)
        if unknown is not None:
            raise CommitUnknown("the connection was lost")

    async def close(self) -> None:
        """The test owns it."""


class Store(Records):
    """Records in memory that fail as they are told; see the module."""

    max_head_bytes = MemoryRecords.max_head_bytes

    def __init__(self, inner: Records | None = None, clock: Any = None) -> None:
        self.inner: Any = inner if inner is not None else MemoryRecords(clock)
        self.commits: list[tuple[str, bytes | None, Sequence[Row], Sequence[Event]]] = []
        self.failing: Callable[[str], BaseException | None] = lambda _agent: None
        self.unknown: str | None = None  # "happened" or "lost": the next commit's outcome is unknown
        self.reads_fail = False
        self.refused_reads = 0
        self.dead = False
        self.apart = ApartLog(self)
        self._gate: asyncio.Event | None = None
        self._held: list[Callable[[], None]] = []

    @property
    def log(self) -> Any:
        return self.inner.log

    # -- what the test says --------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Commits that are made from now on wait for `release`."""
        self._gate = asyncio.Event()

    def release(self) -> None:
        """Let the held commits happen, in order."""
        held, self._held, self._gate = self._held, [], None
        for go in held:
            go()

    @property
    def held(self) -> int:
        """How many commits wait."""
        return len(self._held)

    def fail_all(self, error: BaseException | None = None) -> None:
        """Every commit of an agent that isn't the platform's own fails from now on."""
        told = error or StoreUnavailable("the disk is gone")
        self.failing = lambda agent: None if agent.startswith("jido.") else told

    def fail_once(self, agent: str) -> None:
        """The next commit of one agent fails."""

        def failing(asked: str) -> BaseException | None:
            if asked != agent:
                return None
            self.heal()
            return StoreUnavailable("the disk was gone for a moment")

        self.failing = failing

    def heal(self) -> None:
        """No commit fails any more."""
        self.failing = lambda _agent: None

    def commits_of(self, agent: str) -> list[tuple[str, bytes | None, Sequence[Row], Sequence[Event]]]:
        """The commits that were asked for, of one agent."""
        return [commit for commit in self.commits if commit[0] == agent]

    # -- the contract --------------------------------------------------------------------------------------------

    def commit(self, agent: str, expected: int, head: bytes | None, rows: Sequence[Row] = (), events: Sequence[Event] = ()) -> Future[Committed]:
        future: Future[Committed] = asyncio.get_running_loop().create_future()
        if self.dead:
            return future
        self.commits.append((agent, head, tuple(rows), tuple(events)))

        def go() -> None:
            if self.dead or future.done():
                return
            if (error := self.failing(agent)) is not None:
                future.set_exception(error)
                return
            unknown = None
            if not agent.startswith("jido."):
                unknown, self.unknown = self.unknown, None
            if unknown == "lost":
                future.set_exception(CommitUnknown("nobody knows"))
                return
            done = self.inner.commit(agent, expected, head, rows, events)
            done.add_done_callback(lambda real: self._pass_on(real, future, unknown))

        if self._gate is not None and not agent.startswith("jido."):
            self._held.append(go)
        else:
            go()
        return future

    def _pass_on(self, real: Future[Committed], future: Future[Committed], unknown: str | None) -> None:
        if future.done() or self.dead:
            real.exception()
        elif unknown is not None:
            real.exception()
            future.set_exception(CommitUnknown("nobody knows"))
        elif (error := real.exception()) is not None:
            future.set_exception(error)
        else:
            future.set_result(real.result())

    def read(self, agent: str) -> Future[Record | None]:
        future: Future[Record | None] = asyncio.get_running_loop().create_future()
        if self.dead:
            return future
        if self.reads_fail and not agent.startswith("jido."):
            self.refused_reads += 1
            future.set_exception(StoreUnavailable("the disk is gone"))
            return future
        result: Future[Record | None] = self.inner.read(agent)
        return result

    def read_row(self, agent: str, kind: str, name: str) -> Future[bytes | None]:
        if self.dead:
            return asyncio.get_running_loop().create_future()
        result: Future[bytes | None] = self.inner.read_row(agent, kind, name)
        return result

    async def read_rows(self, agent: str, kind: str) -> Sequence[StoredRow]:
        await self._alive()
        return await self.inner.read_rows(agent, kind)

    async def scan(self, kind: str, start: str = "", end: str | None = None) -> AsyncIterator[Sequence[StoredRow]]:
        await self._alive()
        async for page in self.inner.scan(kind, start, end):
            yield page

    async def scan_agents(self, type_name: str, after: str = "") -> AsyncIterator[Sequence[Record]]:
        await self._alive()
        async for page in self.inner.scan_agents(type_name, after):
            yield page

    async def watch(self, agent: str) -> AsyncIterator[Record]:
        await self._alive()
        async for record in self.inner.watch(agent):
            yield record

    async def remove_expired(self, now_s: float, limit: int = 1_000) -> int:
        return await self.inner.remove_expired(now_s, limit)

    async def verify(self) -> Sequence[str]:
        return await self.inner.verify()

    async def close(self) -> None:
        """The test owns what is inside: another platform may open it again."""

    async def _alive(self) -> None:
        if self.dead:
            await asyncio.get_running_loop().create_future()


class PlatformOn(Platform):
    """A platform on a store of the test's."""

    def __init__(self, store: Records, agents: Iterable[type[Agent]] = (), **options: Any) -> None:
        super().__init__(agents=agents, **options)
        self.store = store

    async def _open_log(self) -> LogApart | None:
        return self.store.apart if self.store.log is None else None

    async def _open_records(self, config: Config) -> Records:
        return self.store


class Crashable:
    """Platforms that follow each other on one store, each ended by `crash` as `kill -9` ends a process, or closed in order."""

    def __init__(self, inner: Records, clock: Any = None) -> None:
        self.inner = inner
        self.clock = clock
        self.store = Store(inner)
        self.apart = self.store.apart  # the log outlives the processes, as the store does
        self.platform: Platform | None = None

    async def start(self, agents: Iterable[type[Agent]] = (), **options: Any) -> Platform:
        """Start the next platform on what the last one left."""
        assert self.platform is None
        self.store = Store(self.inner)
        self.store.apart, self.apart.store = self.apart, self.store
        platform = PlatformOn(self.store, agents, clock=self.clock, **options)
        self.platform = await platform.__aenter__()
        return platform

    async def crash(self) -> None:
        """Nothing that the platform does from here on reaches the store; its tasks are ended as the test's property."""
        platform, self.platform = self.platform, None
        assert platform is not None
        self.store.dead = True
        await end_without_closing(platform)

    async def close(self) -> None:
        """Close the platform in order."""
        platform, self.platform = self.platform, None
        if platform is not None:
            await platform.__aexit__(None, None, None)


async def end_without_closing(platform: Platform) -> None:
    """Take a dead platform's timers and tasks off the loop, running none of its endings."""
    node = platform._node
    node.closing = True
    node.reminders.close()
    if node._sweep_handle is not None:
        node._sweep_handle.cancel()
    for handle in tuple(node._timers):
        handle.cancel()
    node.deadlines.clear()
    for host in node.hosts.values():
        for activation in tuple(host.live.values()):
            host.drop(activation)
    platform._stack.pop_all()
    here = asyncio.current_task()
    others = [task for task in asyncio.all_tasks() if task is not here]
    for task in others:
        task.cancel()
    await asyncio.wait([*others, asyncio.ensure_future(asyncio.sleep(0))], timeout=2.0)
    node.threads.close()
    if node._watchdog is not None:
        await node._watchdog.close()
