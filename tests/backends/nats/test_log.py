"""The log on JetStream keeps the contract, and loses nothing over servers that are killed, paused or restarted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import msgspec
import pytest

from jidosystem.backends.nats.connection import Connection
from jidosystem.backends.nats.jetstream import JetStream, Refused
from jidosystem.backends.nats.log import LogSettings, NatsLog
from jidosystem.backends.nats.paging import _Page
from jidosystem.backends.nats.server import NatsCluster, NatsServer, nats_servers
from jidosystem.backends.nats.settings import NatsSettings
from jidosystem.core.errors import CommitUnknown, InvalidConfig, RecordUnreadable, StoreError, StoreFull, StoreUnavailable, StreamConflict, TooLarge
from jidosystem.core.events import Event
from jidosystem.testing.conformance import EventLogConformance
from jidosystem.testing.conformance.log import numbers
from jidosystem.testing.conformance.records import event
from tests.cluster.proxy import proxy_to

SMALL = LogSettings(max_bytes=64 * 1024 * 1024)


class TestNatsLog(EventLogConformance):
    @pytest.fixture(autouse=True)
    def _where(self, settings: NatsSettings) -> None:
        self.settings = settings

    @asynccontextmanager
    async def open_log(self):
        log = await NatsLog.open(self.settings, SMALL)
        yield log
        await log.close()

    async def close_log(self, log):
        await log.close()


@pytest.fixture
async def log(settings: NatsSettings) -> AsyncIterator[NatsLog]:
    log = await NatsLog.open(settings, SMALL)
    yield log
    await log.close()


@pytest.fixture
async def other(settings: NatsSettings, log: NatsLog) -> AsyncIterator[NatsLog]:
    """The same log, on another node."""
    other = await NatsLog.open(settings, SMALL)
    yield other
    await other.close()


async def some(log: NatsLog, count: int, after: int = 0, stream: str | None = None) -> list[int]:
    """The numbers in the first so many events that a follower gets."""
    got: list[int] = []
    async for page in log.follow(after, stream=stream):
        got += [e.data["number"] for e in page]
        if len(got) >= count:
            break
    return got


# -- several nodes -----------------------------------------------------------------------------------------------


async def test_followers_on_other_nodes_hear_of_events_of_one_stream_and_of_all(log: NatsLog, other: NatsLog) -> None:
    everything, one = asyncio.ensure_future(some(other, 20)), asyncio.ensure_future(some(other, 10, stream="a"))
    for i in range(10):
        await log.append([event("a", i)])
        await log.append([event("b", 100 + i)])
    assert await asyncio.wait_for(everything, 20) == [n for i in range(10) for n in (i, 100 + i)]
    assert await asyncio.wait_for(one, 20) == list(range(10))


async def test_a_follower_that_is_told_nothing_finds_events_all_the_same(log: NatsLog, other: NatsLog) -> None:
    assert other._hinted is not None
    await other._hinted.close()
    await log.append([event("a", 0)])
    following = [asyncio.ensure_future(some(other, 2)), asyncio.ensure_future(some(other, 2, stream="a"))]
    await asyncio.sleep(0.2)
    await log.append([event("a", 1)])
    assert await asyncio.wait_for(asyncio.gather(*following), 20) == [[0, 1], [0, 1]]


async def test_nodes_that_append_to_one_stream_lose_nothing_and_keep_their_order(log: NatsLog, other: NatsLog) -> None:
    async def write(where: NatsLog, first: int) -> None:
        for i in range(0, 100, 5):
            await asyncio.gather(*(where.append([event("shared", first + i + j)]) for j in range(5)))

    await asyncio.gather(write(log, 0), write(other, 1_000))
    found = await numbers(log)
    assert [n for n in found if n < 1_000] == list(range(100))
    assert [n for n in found if n >= 1_000] == list(range(1_000, 1_100))


async def test_of_nodes_that_expect_the_same_one_wins(log: NatsLog, other: NatsLog) -> None:
    position = 0
    for _ in range(20):
        ended = await asyncio.gather(*(where.append([event("s")], expected=position) for where in (log, other)), return_exceptions=True)
        lost = [end for end in ended if isinstance(end, StreamConflict)]
        position = next(end[0] for end in ended if not isinstance(end, BaseException))
        assert len(lost) == 1
    assert len(await numbers(log)) == 20


async def test_what_others_wrote_is_no_hindrance_to_who_expects_nothing(log: NatsLog, other: NatsLog) -> None:
    for i in range(10):
        await (log, other)[i % 2].append([event("s", i), event(f"t{i % 3}", i)])
    assert await numbers(log, stream="s") == list(range(10))


async def test_a_mark_behind_the_last_event_keeps_no_reader_waiting(log: NatsLog, other: NatsLog) -> None:
    await log.append_once("A/a", 1, [event("s", 1)])
    for where in (log, other):
        (found,) = [e async for page in where.read() for e in page]
        assert await where.last() == await where.last("s") == found.position
    assert await asyncio.wait_for(some(other, 1), 5) == [1]
    assert log._appender.newest == found.position


# -- limits ------------------------------------------------------------------------------------------------------


async def test_what_an_emitter_has_appended_it_appends_once(log: NatsLog, other: NatsLog) -> None:
    await log.append_once("A/a", 3, [event("s", 1), event("t", 2)])
    for again in (3, 2, 1):
        await other.append_once("A/a", again, [event("s", 99)])
    await other.append_once("A/a", 7, [event("s", 3)])
    await log.append_once("A/a", 8, [event("s", 4)])
    await log.append_once("A/b", 1, [event("s", 5)])
    assert await numbers(log) == await some(other, 5) == [1, 2, 3, 4, 5]
    assert await numbers(log, stream="s") == [1, 3, 4, 5]


async def test_of_nodes_that_append_the_same_one_does(log: NatsLog, other: NatsLog) -> None:
    for number in range(1, 21):
        await asyncio.gather(*(where.append_once("A/a", number, [event("s", number)]) for where in (log, other, log, other)))
    assert await numbers(log) == [*range(1, 21)]


async def test_who_expects_what_others_wrote_last_is_right(log: NatsLog, other: NatsLog) -> None:
    for number in range(5):
        for where in (log, other):
            await where.append([event("s", number)], expected=await where.last("s"))
    assert len(await numbers(log, stream="s")) == 10


def large(size_bytes: int, number: int = 0) -> Event:
    return Event(f"e{number}", "test.happened", "test", "", 1.0, {"number": number, "text": "x" * size_bytes}, "s")


async def test_events_larger_than_a_message_lie_in_parts(log: NatsLog, other: NatsLog) -> None:
    sizes = [10, 1024 * 1024, 5_000_000, 20]
    following = asyncio.ensure_future(some(other, 5))
    positions = await log.append([large(size, i) for i, size in enumerate(sizes)])
    (last,) = await log.append([event("s", 4)], expected=positions[-1])
    found = [e async for page in log.read() for e in page]
    assert [e.position for e in found] == [*positions, last]
    assert [len(e.data.get("text", "")) for e in found] == [*sizes, 0]
    assert await log.last() == last
    assert await asyncio.wait_for(following, 20) == [0, 1, 2, 3, 4]


async def test_too_large_is_refused_before_anything_is_written(log: NatsLog) -> None:
    with pytest.raises(TooLarge, match="nothing was written"):
        log.append([event("s"), large(log.max_event_bytes)])
    assert await log.last() == 0


async def test_a_full_log_refuses_and_keeps_what_it_has(settings: NatsSettings) -> None:
    log = await NatsLog.open(settings, LogSettings(max_bytes=300_000))
    with pytest.raises(StoreFull):
        for i in range(10):
            await log.append([large(40_000, i), large(40_000, i)])
    there = await numbers(log)
    assert there and there == sorted(there) and len(there) % 2 == 0
    with pytest.raises(StoreFull):
        await log.append([large(100_000)])
    assert await numbers(log) == there
    await log.close()


async def test_what_waits_is_limited(log: NatsLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jidosystem.backends.nats.appending.MAX_WAITING_BYTES", 1_000)
    ended = await asyncio.gather(*(log.append([large(400, i)]) for i in range(5)), return_exceptions=True)
    assert [isinstance(end, StoreUnavailable) for end in ended] == [False, False, True, True, True]
    assert await numbers(log) == [0, 1]


async def test_nobody_takes_events_away(log: NatsLog, one_server: NatsCluster) -> None:
    position = (await log.append([event("s", 1)]))[0]
    admin = await Connection.open(one_server.settings(user="admin"))
    for attempt, body in (("PURGE", None), ("MSG.DELETE", {"seq": position})):
        with pytest.raises(Refused, match="not permitted"):
            await JetStream(admin).api(f"STREAM.{attempt}.{log._names.stream}", body)
    await admin.close()
    assert await numbers(log) == [1]


async def test_a_stream_that_is_set_up_otherwise_is_refused(settings: NatsSettings, one_server: NatsCluster) -> None:
    admin = await Connection.open(one_server.settings(user="admin"))
    name = f"{settings.cluster}_events"
    await JetStream(admin).api(f"STREAM.CREATE.{name}", {"name": name, "subjects": [f"{settings.cluster}.e.>"], "storage": "memory"})
    with pytest.raises(InvalidConfig, match="memory"):
        await NatsLog.open(settings, SMALL)
    await JetStream(admin).api(f"STREAM.DELETE.{name}")
    await admin.close()


async def test_an_event_that_was_damaged_is_named(log: NatsLog) -> None:
    await log.append([event("s", 1)])
    answer = await log._connection.request(f"{log._names.events}s", b"\x00\x01\x02\x03 no event", timeout_s=5)
    assert b'"seq":2' in answer.data
    with pytest.raises(RecordUnreadable, match="position 2") as raised:
        await numbers(log)
    assert raised.value.fields["position"] == 2


def test_what_follows_a_gap_in_a_page_is_thrown_away() -> None:
    async def tear() -> list[int]:
        page = _Page()
        for sequence, before in ((5, 0), (6, 5), (8, 7), (9, 8)):  # 7 got lost
            page.take(b"", b"", b"x", {"Nats-Sequence": str(sequence), "Nats-Last-Sequence": str(before)})
        page.take(b"", b"", b"", {"Status": "204"})
        return [raw.sequence for raw in page.messages]

    assert asyncio.run(tear()) == [5, 6]


async def test_followers_who_leave_leave_nothing(log: NatsLog) -> None:
    following = [asyncio.ensure_future(some(log, 10)) for _ in range(3)]
    await asyncio.sleep(0.05)
    for one in following:
        one.cancel()
    await asyncio.gather(*following, return_exceptions=True)
    assert not log._followers and not log._connection._takers
    await log.append([event("s", 1)])
    assert await numbers(log) == [1]


# -- servers that die --------------------------------------------------------------------------------------------


class Traffic:
    """Writers that go on whatever happens, and what they were told."""

    def __init__(self, log: NatsLog, writers: int = 8, first: int = 0) -> None:
        self.stored: dict[int, int] = {}  # number -> position
        self.unknown: set[int] = set()
        self.refused: set[int] = set()
        self._count = count(first)
        self._log = log
        self._stop = False
        self._tasks = [asyncio.ensure_future(self._write(writer)) for writer in range(writers)]
        self._grown = asyncio.Event()

    async def _write(self, writer: int) -> None:
        while not self._stop:
            pair = [next(self._count), next(self._count)]
            try:
                positions = await self._log.append([event(f"s{writer}", n) for n in pair])
            except CommitUnknown:
                self.unknown.update(pair)
            except StoreError:
                self.refused.update(pair)
                await asyncio.sleep(0.05)
            else:
                self.stored.update(zip(pair, positions, strict=True))
                self._grown.set()

    async def more(self, events: int, timeout_s: float = 60.0) -> None:
        """Until so many more are stored."""
        wanted = len(self.stored) + events
        async with asyncio.timeout(timeout_s):
            while len(self.stored) < wanted:
                self._grown.clear()
                await self._grown.wait()

    async def end(self) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    def check(self, found: list[tuple[int, int]]) -> None:
        """What was told as stored is there, where it was told; nothing twice; nothing of what was refused; pairs are whole."""
        there = [number for number, _position in found]
        assert len(there) == len(set(there)), "an event is there twice"
        assert self.stored.items() <= dict(found).items(), "an event that was told as stored isn't there"
        assert not self.refused & set(there), "an event that was told as refused is there"
        assert set(there) <= self.stored.keys() | self.unknown
        assert all((number ^ 1) in set(there) for number in there), "half an append is there"


async def leader_of(log: NatsLog, cluster: NatsCluster) -> NatsServer:
    told = await log._jetstream.api(f"STREAM.INFO.{log._names.stream}")
    return next(server for server in cluster.servers if server.peer.name == told["cluster"]["leader"])


def server_of(log: NatsLog, cluster: NatsCluster) -> NatsServer:
    return next(server for server in cluster.servers if server.peer.name == log._connection.server["server_name"])


class Following:
    """A follower, and what it has seen."""

    def __init__(self, log: NatsLog) -> None:
        self.found: list[tuple[int, int]] = []
        self._grown = asyncio.Event()
        self._task = asyncio.ensure_future(self._follow(log))

    async def _follow(self, log: NatsLog) -> None:
        async for page in log.follow():
            self.found += [(e.data["number"], e.position) for e in page]
            self._grown.set()

    async def end(self, events: int) -> list[tuple[int, int]]:
        """What it has seen when it has seen so many, and a little later."""
        async with asyncio.timeout(30):
            while len(self.found) < events:
                self._grown.clear()
                await self._grown.wait()
        await asyncio.sleep(0.05)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return self.found


def kill(server: NatsServer) -> None:
    server.kill()


def pause(server: NatsServer) -> None:
    server.pause()


@pytest.mark.parametrize("hurt", [kill, pause])
@pytest.mark.parametrize("whose", ["leader", "connection"])
async def test_nothing_is_lost_or_doubled_when_a_server_goes(
    three_servers: NatsCluster, settings_of_three: NatsSettings, hurt: Callable[[NatsServer], None], whose: str
) -> None:
    log, reader = await NatsLog.open(settings_of_three, SMALL), await NatsLog.open(settings_of_three, SMALL)
    traffic, following = Traffic(log), Following(reader)
    await traffic.more(100)
    server = await leader_of(log, three_servers) if whose == "leader" else server_of(log, three_servers)
    hurt(server)
    await traffic.more(100)
    if server.pid:
        server.resume()
    else:
        server.start()
    await traffic.more(100)
    await traffic.end()
    there = [(e.data["number"], e.position) async for page in log.read() for e in page]
    traffic.check(there)
    assert await following.end(len(there)) == there
    await log.close()
    await reader.close()


async def test_pages_come_over_a_way_that_is_slower_than_a_servers_death_is_noticed(settings: NatsSettings) -> None:
    async with proxy_to(settings.servers[0]) as way:
        log = await NatsLog.open(msgspec.structs.replace(settings, servers=(way.url,)), SMALL)
        await log.append([event("s", n) for n in range(3)])
        way.delay(0.4, 0.45)
        assert await numbers(log) == [0, 1, 2]
        way.delay(0.0, 0.0)
        await log.close()


async def test_a_lone_server_that_restarts_is_waited_for(tmp_path: Path) -> None:
    with nats_servers(tmp_path) as cluster:
        log = await NatsLog.open(cluster.settings(), SMALL)
        traffic, following = Traffic(log), Following(log)
        for _ in range(3):
            await traffic.more(40)
            cluster.servers[0].kill()
            await asyncio.sleep(0.3)
            cluster.servers[0].start()
        await traffic.more(40)
        await traffic.end()
        there = [(e.data["number"], e.position) async for page in log.read() for e in page]
        traffic.check(there)
        assert await following.end(len(there)) == there
        await log.close()


async def test_an_append_whose_acknowledgement_is_late_is_stored_once(three_servers: NatsCluster, settings_of_three: NatsSettings) -> None:
    log = await NatsLog.open(settings_of_three, SMALL)
    position = (await log.append([event("s", 0)]))[0]
    leader = await leader_of(log, three_servers)
    if leader is server_of(log, three_servers):  # then it goes with the connection, which is another test's
        await log._connection.request(f"$JS.API.STREAM.INFO.{log._names.stream}", timeout_s=5)
    leader.pause()
    waiting = log.append([event("s", 1), event("t", 2)], expected=position)
    await asyncio.sleep(2.5)  # its first attempt is lost in the paused server
    leader.resume()  # which applies it now, or passes it on, or not
    positions = await asyncio.wait_for(waiting, 60)
    assert await numbers(log) == [0, 1, 2]
    assert positions[0] == await log.last("s")
    await log.append([event("s", 3)], expected=positions[0])
    await log.close()


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(5))
async def test_nothing_is_lost_or_doubled_whatever_becomes_of_the_servers(
    three_servers: NatsCluster, settings_of_three: NatsSettings, seed: int
) -> None:
    chance = random.Random(seed)
    logs = [await NatsLog.open(settings_of_three, SMALL) for _ in range(3)]
    traffics = [Traffic(logs[0], 6), Traffic(logs[1], 6, first=1_000_000)]  # they write to the same streams
    following = Following(logs[2])
    for _ in range(8):
        await traffics[0].more(30, 120)
        server = chance.choice(three_servers.servers)
        hurt = chance.choice((kill, pause))
        hurt(server)
        await asyncio.sleep(chance.uniform(0, 8))
        if server.pid:
            server.resume()
        else:
            server.start()
            await asyncio.to_thread(server.wait_ready, 60)
    for traffic in traffics:
        await traffic.more(30, 120)
        await traffic.end()
    there = [(e.data["number"], e.position) async for page in logs[0].read() for e in page]
    for traffic, mine in zip(traffics, (range(1_000_000), range(1_000_000, 2_000_000)), strict=True):
        traffic.check([(number, position) for number, position in there if number in mine])
    assert await following.end(len(there)) == there
    for log in logs:
        await log.close()
