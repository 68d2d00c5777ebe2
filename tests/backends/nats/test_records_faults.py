"""Records while NATS servers are killed, paused and started again."""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from jidosystem.backends.nats.connection import Connection
from jidosystem.backends.nats.jetstream import JetStream
from jidosystem.backends.nats.partitions import RecordsSettings
from jidosystem.backends.nats.records import open_records
from jidosystem.backends.nats.server import nats_servers
from jidosystem.core.errors import CommitUnknown, Conflict, StoreUnavailable
from jidosystem.core.records import Row

from .history import History

MAX_BYTES = 64 * 1024 * 1024


@pytest.fixture
def a_server(tmp_path):
    with nats_servers(tmp_path) as cluster:
        yield cluster


@asynccontextmanager
async def opened(settings, **given):
    connection = await Connection.open(settings)
    try:
        records = await open_records(connection, RecordsSettings(**{"partitions": 2, "max_bytes": MAX_BYTES, **given}))
        try:
            yield records
        finally:
            await records.close()
    finally:
        await connection.close()


def paused(server):
    """It may go on for a moment after the signal was sent: until none of its threads does."""
    server.pause()
    tasks = Path(f"/proc/{server.pid}/task")
    while any((task / "stat").read_text().rpartition(")")[2].split()[0] != "T" for task in tasks.iterdir()):
        pass


async def started_again(server):
    server.start()
    await asyncio.to_thread(server.wait_ready, 60)


@pytest.mark.blocking
async def test_what_was_acknowledged_outlives_a_kill_of_the_only_server_and_happened_once(a_server):
    server, history, ended = a_server.servers[0], History(), asyncio.Event()
    async with opened(a_server.settings()) as records, opened(a_server.settings()) as others:

        async def write(writer):
            while not ended.is_set():
                await history.append(records if writer % 2 else others, f"A/{writer % 12}", writer)

        writers = [asyncio.create_task(write(writer)) for writer in range(24)]
        for _ in range(3):
            await history.reached(50)
            server.kill()
            await started_again(server)
        ended.set()
        await asyncio.gather(*writers)
        assert history.won >= 150 and any(history.refused.values())
        assert await history.wrong(records) == []
        assert list(await records.verify()) == []


@pytest.mark.blocking
async def test_an_answer_that_was_lost_is_found_out_by_reading(a_server):
    server = a_server.servers[0]
    async with opened(a_server.settings(), attempt_timeout_s=0.3) as records:
        first = await records.commit("A/x", 0, b"one")
        paused(server)
        alone = records.commit("A/x", first.revision, b"two")
        together = [records.commit(f"B/{number}", 0, b"b") for number in range(50)]
        await asyncio.sleep(1.0)  # three attempts are sent, and none is answered
        assert not alone.done()
        server.resume()
        done = await alone
        assert done.revision > first.revision
        many = await asyncio.gather(*together)
        for number, one in enumerate(many):
            found = await records.read(f"B/{number}")
            assert (found.revision, found.head) == (one.revision, b"b")
        found = await records.read("A/x")
        assert (found.revision, found.head) == (done.revision, b"two")


@pytest.mark.blocking
@pytest.mark.parametrize("rows", [0, 1])
async def test_a_write_that_comes_late_can_t_hurt_whoever_decided_without_it(a_server, rows):
    server, late = a_server.servers[0], 0
    settings = a_server.settings()
    async with opened(settings, attempt_timeout_s=0.2, commit_timeout_s=0.5) as records, opened(settings) as others:
        for number in range(6):
            agent, change = f"A/{number}", [Row("key", "k", b"late")] * rows
            first = await records.commit(agent, 0, b"one")
            paused(server)
            with pytest.raises(CommitUnknown):
                await records.commit(agent, first.revision, b"late", change)
            server.resume()
            if number % 2:  # behind the late one on the same connection
                await records.read(agent)
            try:
                done = await others.commit(agent, first.revision, b"decided")
            except Conflict:
                late += 1
                found = await others.read(agent)
                assert (found.head, await others.read_row(agent, "key", "k")) == (b"late", b"late" if rows else None)
                done = await others.commit(agent, found.revision, b"decided", [Row("key", "k", None)])
            for _ in range(20):  # more than the late one needs
                found = await others.read(agent)
                assert (found.revision, found.head) == (done.revision, b"decided")
                assert await others.read_row(agent, "key", "k") is None
        assert late > 0, "no write came late: nothing was tried"


@pytest.mark.blocking
async def test_who_overtook_an_unanswered_commit_decides_it_unless_there_were_two(a_server):
    server, settings = a_server.servers[0], a_server.settings()
    async with opened(settings) as records:
        first = await records.commit("A/x", 0, b"one")
        second = await records.commit("A/x", first.revision, b"two")
        third = await records.commit("A/x", second.revision, b"three")
    # ours was sent on `first` and never answered; now somebody's `three` is there, two commits later: ours may have been the one between
    async with opened(settings, attempt_timeout_s=0.2, commit_timeout_s=10) as records:
        paused(server)
        doubtful = records.commit("A/x", first.revision, b"ours")
        certain = records.commit("A/x", 99, b"from a future that never was")
        await asyncio.sleep(0.5)
        server.resume()
        with pytest.raises(CommitUnknown):
            await doubtful
        with pytest.raises(Conflict) as raised:
            await certain
        assert raised.value.actual == third.revision


@pytest.mark.blocking
async def test_so_many_bytes_may_wait_and_what_comes_then_is_refused(a_server):
    server = a_server.servers[0]
    async with opened(a_server.settings(), partitions=1, max_waiting_bytes=1_000_000) as records:
        paused(server)
        waiting = [records.commit(f"A/{number}", 0, bytes(10_000)) for number in range(200)]
        refused = [one for one in waiting if one.done()]
        assert 95 < len(waiting) - len(refused) < 105
        for one in refused:
            with pytest.raises(StoreUnavailable, match="max_waiting_bytes"):
                await one
        server.resume()
        assert len(await asyncio.gather(*waiting, return_exceptions=True)) == 200
        await records.commit("B/x", 0, bytes(10_000))
        assert await records.count_agents("A") == len(waiting) - len(refused)


@pytest.mark.blocking
async def test_a_watch_sees_the_last_change_over_a_restart_of_the_server(a_server):
    server, settings = a_server.servers[0], a_server.settings()
    async with opened(settings, watch_period_s=0.2) as records, opened(settings) as others:
        revision = (await others.commit("A/x", 0, b"0")).revision
        watcher = aiter(records.watch("A/x"))
        assert (await anext(watcher)).head == b"0"
        for number in range(1, 4):
            server.kill()
            await started_again(server)
            revision = (await others.commit("A/x", revision, b"%d" % number)).revision
            async with asyncio.timeout(20):
                while (await anext(watcher)).head != b"%d" % number:
                    pass
        await watcher.aclose()


@pytest.mark.blocking
async def test_a_list_goes_on_over_a_restart_of_the_server(a_server):
    server, settings = a_server.servers[0], a_server.settings()
    async with opened(settings, partitions=1) as records:
        await asyncio.gather(*(records.commit(f"A/{number:05d}", 0, bytes(2_000)) for number in range(3_000)))
        asked = asyncio.Event()
        await records._jetstream.connection.subscribe("$JS.API.CONSUMER.MSG.NEXT.>", lambda *_: asked.set())
        listing = asyncio.ensure_future(_all_of(records, "A"))
        await asked.wait()
        server.kill()
        await started_again(server)
        assert await listing == [f"A/{number:05d}" for number in range(3_000)]


async def _all_of(records, type_name):
    return [record.agent async for page in records.scan_agents(type_name) for record in page]


async def leader_of(connection, stream):
    return str((await JetStream(connection).api(f"STREAM.INFO.{stream}"))["cluster"]["leader"])


@pytest.mark.blocking
async def test_the_leader_of_three_servers_is_killed_and_every_revision_has_one_winner(three_servers, settings_of_three):
    history, ended = History(), asyncio.Event()
    async with opened(settings_of_three, partitions=1) as records, opened(settings_of_three, partitions=None) as others:
        connection = records._jetstream.connection

        async def write(writer):
            while not ended.is_set():
                await history.append(records if writer % 2 else others, f"A/{writer % 10}", writer)

        writers = [asyncio.create_task(write(writer)) for writer in range(20)]
        await history.reached(150)
        leader = await leader_of(connection, f"{settings_of_three.cluster}-records-0")
        next(server for server in three_servers.servers if server.peer.name == leader).kill()
        async with asyncio.timeout(60):
            await history.reached(100)
        ended.set()
        await asyncio.gather(*writers)
        assert await leader_of(connection, f"{settings_of_three.cluster}-records-0") != leader, "no election: nothing was tried"
        assert history.longest_s > 1.0, "nobody waited: nothing was tried"
        assert await history.wrong(records) == []
        assert list(await others.verify()) == []


async def test_three_servers_take_the_largest_head_and_many_rows(settings_of_three):
    async with opened(settings_of_three, partitions=1, max_bytes=256 * 1024 * 1024) as records:
        head = bytes(range(256)) * (records.max_head_bytes // 256)
        done = await records.commit("A/x", 0, head)
        found = await records.read("A/x")
        assert found.revision == done.revision and found.head == head
        rows = [Row("due", f"{number:03d}", b"v", create=True) for number in range(900)]
        await records.commit("A/x", done.revision, b"h", rows)
        assert [row.name for row in await records.read_rows("A/x", "due")] == [row.name for row in rows]
        assert list(await records.verify()) == []


async def test_more_batches_than_a_stream_takes_at_once_all_succeed(settings_of_three):
    nodes, size = 30, 42  # two flights of each
    async with opened(settings_of_three, partitions=1) as records:
        connection = records._jetstream.connection
        many = [records, *[await open_records(connection) for _ in range(nodes - 1)]]
        rows = [Row("due", f"{number}", b"v") for number in range(size)]
        commits = [node.commit(f"A/{number}.{agent}", 0, bytes(100), rows) for number, node in enumerate(many) for agent in range(12)]
        await asyncio.gather(*commits)
        assert await records.count_agents("A") == nodes * 12
        assert sum([len(page) async for page in records.scan("due")]) == nodes * 12 * size
