"""Storms over the adapters of records and log, driven by a seed: nodes commit and append through leaders that come and go, and what each was told is
held against what the servers have at the end.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, NamedTuple

from jidosystem.backends.nats.connection import Connection
from jidosystem.backends.nats.log import LogSettings, NatsLog
from jidosystem.backends.nats.partitions import RecordsSettings
from jidosystem.backends.nats.records import open_records
from jidosystem.backends.nats.stored import head_of
from jidosystem.core.errors import CommitUnknown, StoreError
from jidosystem.core.events import Event, decode_event
from jidosystem.core.records import Records, Row
from jidosystem.testing import History, Operation, Recording, check_events, check_exercised
from tests.simulation.jetstream import ELECTION_S, OVERTAKEN_S, Servers
from tests.simulation.links import connected
from tests.simulation.storm import Fault

CLUSTER = "storm"
RAGE_S, REST_S = 20.0, 60.0
EVERY_S = 4.0
NODES = 2
COMMIT_S = 12.0
"""So long a node tries."""
LEAST = 20
"""Operations of a run that succeed."""


class Outcome(NamedTuple):
    """What a run was: what was done to the servers, and what of that was felt; what clients saw of it; all that they were told."""

    did: Counter[str]
    felt: Counter[str]
    signs: Counter[str]
    history: History


class Node:
    """One that commits and appends, over connections of its own."""

    def __init__(self, name: str, records: Records, log: NatsLog, connection: Connection, recording: Recording, seed: int) -> None:
        self.name, self.records, self.log, self._connection, self._recording = name, records, log, connection, recording
        self._random = Random(f"node {name} {seed}")
        self._count = 0
        self._emitted: Counter[str] = Counter()
        self.stopped = False

    @classmethod
    async def open(cls, servers: Servers, name: str, recording: Recording, seed: int) -> Node:
        """A node that is connected."""
        connection = await connected(servers, CLUSTER)
        records = await open_records(connection, RecordsSettings(partitions=1, commit_timeout_s=COMMIT_S))
        log = NatsLog(await connected(servers, CLUSTER), LogSettings(append_timeout_s=COMMIT_S))
        await log._jetstream.ensure_stream(log._stream())
        return cls(name, records, log, connection, recording, seed)

    async def close(self) -> None:
        """Everything that was accepted is decided."""
        await self.records.close()
        await self.log.close()
        await self._connection.close()

    def unique(self) -> str:
        """A value that nobody has had."""
        self._count += 1
        return f"{self.name}{self._count}"

    def work(self) -> list[Awaitable[None]]:
        """What it is at, until it is stopped."""
        mine = [self._own(f"Own/{self.name}{number}") for number in range(3)]
        return [*mine, self._shared(), self._many(), self._say(), self._say_many(), self._say_expecting(), self._emit()]

    async def _until_stopped(self, each_s: float, do: Callable[[], Awaitable[Any]]) -> None:
        while not self.stopped:
            await asyncio.sleep(self._random.expovariate(1 / each_s))
            await do()

    async def _told(self, kind: str, key: str, argument: Any, doing: Awaitable[Any]) -> Any:
        """What it was told, written down; None if it wasn't told that it happened."""
        asked = self._recording.ask(self.name, kind, key, argument)
        try:
            result = await doing
        except CommitUnknown as error:
            asked.unknown(str(error))
        except StoreError as error:
            asked.failed(f"{type(error).__name__}: {error}")
        else:
            asked.ok(result)
            return result
        return None

    # -- records ---------------------------------------------------------------------------------------------

    async def _commit(self, agent: str, revision: int, rows: int = 0) -> int | None:
        value = self.unique()
        row = [Row("key", f"row {number}", value.encode()) for number in range(rows)]

        async def go() -> int:
            return (await self.records.commit(agent, revision, value.encode(), row)).revision

        return await self._told("commit", agent, value, go())

    async def _revision(self, agent: str) -> int | None:
        try:
            record = await self.records.read(agent)
        except StoreError:
            return None
        return 0 if record is None else record.revision

    async def _own(self, agent: str) -> None:
        """An agent that nobody else writes: committed upon what the last commit became."""
        revision: int | None = 0

        async def once() -> None:
            nonlocal revision
            if revision is None:
                revision = await self._revision(agent)
            if revision is not None:
                revision = await self._commit(agent, revision, self._random.choice([0, 0, 2]))

        await self._until_stopped(0.4, once)

    async def _shared(self) -> None:
        """An agent that all write, as soon as they see that others have."""

        async def once() -> None:
            revision = await self._revision(agent := "Shared/one")
            if revision is not None:
                await self._commit(agent, revision)

        await self._until_stopped(0.15, once)

    async def _many(self) -> None:
        """Commits that fly together."""

        async def once() -> None:
            agents = [f"Many/{self.name}{number}" for number in range(10)]
            revisions = await asyncio.gather(*map(self._revision, agents))
            both = [(agent, revision) for agent, revision in zip(agents, revisions, strict=True) if revision is not None]
            await asyncio.gather(*(self._commit(agent, revision) for agent, revision in both))

        await self._until_stopped(2.0, once)

    # -- log -------------------------------------------------------------------------------------------------

    def _events(self, *streams: str) -> list[Event]:
        return [Event(self.unique(), "storm.said", "storm", "", 0.0, None, stream) for stream in streams]

    async def _append(self, events: list[Event], expected: int | None = None) -> Any:
        async def go() -> list[int]:
            return list(await self.log.append(events, expected))

        return await self._told("append", events[0].stream, [event.id for event in events], go())

    async def _say(self) -> None:
        await self._until_stopped(0.4, lambda: self._append(self._events("all")))

    async def _say_many(self) -> None:
        await self._until_stopped(1.0, lambda: self._append(self._events(*[f"of {self.name}"] * self._random.randint(1, 3))))

    async def _say_expecting(self) -> None:
        """Appends to a stream of its own, each upon the last one's position."""
        last: int | None = 0
        stream = f"expected {self.name}"

        async def once() -> None:
            nonlocal last
            try:
                last = await self.log.last(stream) if last is None else last
            except StoreError:
                return
            positions = await self._append(self._events(stream), last)
            last = None if positions is None else positions[-1]

        await self._until_stopped(0.8, once)

    async def _emit(self) -> None:
        """What an outbox does: the same number again until it is told that it is there."""

        async def once() -> None:
            self._emitted["emitter"] = number = self._emitted["emitter"] + 1
            events = self._events(f"emitted {self.name}", f"emitted {self.name}", "emitted by all")
            asked = self._recording.ask(self.name, "emit", "emitted", [event.id for event in events])
            while True:
                try:
                    await self.log.append_once(f"Emitter/{self.name}", number, events)
                except StoreError:
                    await asyncio.sleep(self._random.random())
                    continue
                asked.ok()
                return

        await self._until_stopped(0.8, once)


class Weather:
    """What happens to the servers."""

    def __init__(self, servers: Servers, seed: int, recording: Recording) -> None:
        self._servers, self._recording = servers, recording
        self._random = Random(f"weather {seed}")
        self._faults: list[Fault] = []

    async def rage(self, seconds: float) -> None:
        """Let things happen for so long; the first that happens lasts long enough for another leader."""
        loop, what = asyncio.get_running_loop(), [self.kill, self.stop, self.stop, self.cut_off, self.cut_off, self.hand_over]
        end = loop.time() + seconds
        await asyncio.sleep(self._random.random())
        self._servers.stop(self._some(leads=1.0), self._fault("stop", 12.0))
        while loop.time() < end:
            await asyncio.sleep(min(self._random.expovariate(1 / EVERY_S), end - loop.time()))
            self._random.choice(what)()

    def done(self) -> tuple[Counter[str], Counter[str]]:
        """How often each was done, and was felt."""
        for fault in self._faults:
            fault.look()
            self._recording.fault(fault.kind, start=fault.start, end=fault.end, effect=f"{fault.seen} answers" if fault.seen else "")
        return Counter(fault.kind for fault in self._faults), Counter(fault.kind for fault in self._faults if fault.seen)

    def _fault(self, kind: str, seconds: float) -> float:
        loop = asyncio.get_running_loop()
        fault = Fault(kind, "", loop.time(), loop.time() + seconds, self._servers.felt.total)
        self._faults.append(fault)
        loop.call_at(fault.end + OVERTAKEN_S[1], fault.look)
        return seconds

    def _some(self, leads: float = 0.8) -> Any:
        """A server; how likely one that leads."""
        leaders = [stream.leader for stream in self._servers.streams.values() if stream.leader is not None]
        return self._random.choice(leaders if leaders and self._random.random() < leads else self._servers.all)

    def _lasts_s(self) -> float:
        return self._random.choice([1.0, 6.0, 10.0]) * self._random.uniform(0.6, 1.4)

    def kill(self) -> None:
        self._servers.kill(self._some(), self._fault("kill", self._random.uniform(0.5, 5)))

    def stop(self) -> None:
        self._servers.stop(self._some(), self._fault("stop", self._lasts_s()))

    def cut_off(self) -> None:
        self._servers.cut_off(self._some(), self._fault("cut off", 2 * self._lasts_s()))

    def hand_over(self) -> None:
        self._fault("hand over", ELECTION_S[0])
        self._servers.hand_over(self._random.choice(list(self._servers.streams.values())))


async def run(seed: int) -> Outcome:
    """One seed, judged: `AssertionError` says what was wrong."""
    random.seed(seed)  # of the adapters' pauses
    recording, servers = Recording(), Servers(seed)
    nodes = [await Node.open(servers, name, recording, seed) for name in "abc"[:NODES]]
    working = [asyncio.ensure_future(work) for node in nodes for work in node.work()]
    await (weather := Weather(servers, seed, recording)).rage(RAGE_S)
    servers.heal()
    for node in nodes:
        node.stopped = True
    async with asyncio.timeout(REST_S):
        await asyncio.gather(*working)
    await asyncio.sleep(REST_S)  # whatever is late
    did, felt = weather.done()
    history = recording.history()
    wrong = judge(history, servers) + ([] if felt else ["nothing was felt of what was done to the servers"])
    async with asyncio.timeout(REST_S):
        await asyncio.gather(*(node.close() for node in nodes))
    assert not wrong, "\n".join(wrong)
    return Outcome(did, felt, servers.felt, history)


def judge(history: History, servers: Servers) -> list[str]:
    """What was told and isn't so."""
    values, ids, page = _stored(servers)
    wrong = [told for one in history.operations if one.kind == "commit" and (told := _wrong(one, values.get(one.argument, [])))]
    for one in history.operations:
        if one.kind == "append":
            wrong += [told for told in {_wrong_batch(one, [ids.get(id_, []) for id_ in one.argument])} if told]
        elif one.kind == "emit":
            places = [ids.get(id_, []) for id_ in one.argument]
            if any(len(place) != 1 for place in places):
                wrong.append(f"{one} is there at {places}")
    whole = Recording(clock=lambda: max(operation.end for operation in history.operations if operation.end < float("inf")) + 1)
    whole.ask("the end", "page", "*", {"after": 0, "to_end": True}).ok(page)
    emitted = [_as_append(one) for one in history.operations if one.kind == "emit"]
    verdict = check_events(History([*history.where(lambda one: one.kind == "append").operations, *emitted, *whole.history().operations]))
    if not verdict:
        wrong.append(str(verdict))
    exercised = check_exercised(history, operations=LEAST, faults={})
    if not exercised:
        wrong.append(str(exercised))
    return wrong


def _as_append(one: Operation) -> Operation:
    """An emission, whose positions nobody was told."""
    return Operation(process=one.process, number=one.number, kind="append", key=one.key, start=one.start, end=one.end, argument=one.argument)


def _stored(servers: Servers) -> tuple[dict[str, list[int]], dict[str, list[int]], list[tuple[int, str]]]:
    """All that was ever stored: of each value and of each event where it is, and the log as a page."""
    values: dict[str, list[int]] = {}
    ids: dict[str, list[int]] = {}
    page: list[tuple[int, str]] = []
    for stream in servers.streams.values():
        for sequence, kept in enumerate(stream.kept, 1):
            if kept.subject.endswith(".h"):
                values.setdefault((head_of(kept.payload, "").head or b"").decode(), []).append(sequence)
            elif kept.subject.startswith(f"{CLUSTER}.e."):
                event = decode_event(kept.payload, sequence)
                ids.setdefault(event.id, []).append(sequence)
                page.append((sequence, event.id))
    return values, ids, page


def _wrong(one: Operation, places: list[int]) -> str:
    allowed = {"ok": [[one.result]], "failed": [[]], "unknown": [[], places[:1]]}[one.outcome]
    return "" if places in allowed else f"{one} is there at {places}"


def _wrong_batch(one: Operation, places: list[list[int]]) -> str:
    there = {len(place) for place in places}
    allowed = {"ok": [{1}], "failed": [{0}], "unknown": [{0}, {1}]}[one.outcome]
    right = there in allowed and (one.outcome != "ok" or places == [[position] for position in one.result])
    return "" if right else f"{one} is there at {places}"
