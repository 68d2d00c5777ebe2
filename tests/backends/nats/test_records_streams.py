"""What only records in streams can go through: partitions, sizes, damage, removal, several nodes."""

import asyncio
from contextlib import asynccontextmanager

import msgspec
import pytest

from jidosystem.backends.nats.connection import Connection
from jidosystem.backends.nats.jetstream import JetStream
from jidosystem.backends.nats.partitions import RecordsSettings
from jidosystem.backends.nats.places import Subjects
from jidosystem.backends.nats.records import MAX_ROWS, open_records
from jidosystem.backends.nats.removal import IN_ONE_DELETION
from jidosystem.backends.nats.server import nats_servers
from jidosystem.core.errors import (
    CommitUnknown,
    Conflict,
    InvalidConfig,
    RecordUnreadable,
    RowExists,
    StoreFull,
    StoreUnavailable,
    StoreVersion,
    TooLarge,
    UsageError,
)
from jidosystem.core.records import Committed, Row
from jidosystem.testing.conformance.records import HandClock, event, rows_of

MAX_BYTES = 256 * 1024 * 1024


@asynccontextmanager
async def opened(settings, clock=None, **given):
    connection = await Connection.open(settings)
    try:
        records = await open_records(connection, RecordsSettings(**{"max_bytes": MAX_BYTES, **given}), clock=clock)
        try:
            yield records
        finally:
            await records.close()
    finally:
        await connection.close()


async def stored_at(connection, records, agent, subject=None):
    place = Subjects(connection.settings.cluster, records.partitions).place(agent)
    return await JetStream(connection).last_of(f"{connection.settings.cluster}-records-{place.partition}", subject or place.head)


# -- partitions ----------------------------------------------------------------------------------------------------


async def test_the_number_of_partitions_is_what_the_first_node_made_it(settings):
    async with opened(settings, partitions=2) as records, opened(settings) as others:
        assert (records.partitions, others.partitions) == (2, 2)
        with pytest.raises(InvalidConfig, match=r"2 partitions.*told 3"):
            async with opened(settings, partitions=3):
                pass
        done = await records.commit("A/x", 0, b"h")
        assert (await others.read("A/x")).revision == done.revision


async def test_nodes_that_start_at_once_agree(settings):
    async def start(partitions):
        async with opened(settings, partitions=partitions) as records:
            return records.partitions

    ended = await asyncio.gather(*(start(partitions) for partitions in (2, 3, 2, 3)), return_exceptions=True)
    made = {one for one in ended if isinstance(one, int)}
    assert len(made) == 1 and all(isinstance(one, int | InvalidConfig) for one in ended)


@pytest.mark.parametrize(("key", "value"), [("allow_direct", True), ("max_msgs_per_subject", 5), ("storage", "memory"), ("max_age", 10**12)])
async def test_a_stream_on_which_no_promise_can_rest_is_refused(settings, connection, key, value):
    async with opened(settings, partitions=1):
        pass
    name = f"{settings.cluster}-records-0"
    jetstream = JetStream(connection)
    config = (await jetstream.api(f"STREAM.INFO.{name}"))["config"]
    if key == "storage":  # can't be changed: another cluster's stream, made by somebody else
        name = name.replace(settings.cluster, other := settings.cluster + "x")
        await jetstream.api(f"STREAM.CREATE.{name}", {**config, "name": name, "subjects": [f"{other}.s0.>"], key: value, "max_bytes": 10**6})
        settings = msgspec.structs.replace(settings, cluster=other)
    else:
        await jetstream.api(f"STREAM.UPDATE.{name}", {**config, key: value})
    with pytest.raises(StoreVersion, match=key):
        async with opened(settings):
            pass


async def test_a_stream_of_somebody_else_and_one_of_a_newer_release_are_left_alone(settings, connection):
    jetstream, name = JetStream(connection), f"{settings.cluster}-records-0"
    await jetstream.api(f"STREAM.CREATE.{name}", {"name": name, "subjects": [f"{settings.cluster}.s0.>"], "storage": "file", "max_bytes": 10**6})
    with pytest.raises(StoreVersion, match="isn't ours"):
        async with opened(settings):
            pass
    config = (await jetstream.api(f"STREAM.INFO.{name}"))["config"]
    await jetstream.api(f"STREAM.UPDATE.{name}", {**config, "metadata": {"jido.partitions": "1", "jido.format": "99"}})
    with pytest.raises(StoreVersion, match="99"):
        async with opened(settings):
            pass


async def test_other_replicas_than_there_are_is_an_error(settings):
    async with opened(settings, partitions=2, replicas=1):
        pass
    with pytest.raises(InvalidConfig, match=r"1 replicas.*told 3"):
        async with opened(settings, replicas=3):
            pass


@pytest.mark.parametrize("given", [{"partitions": 0}, {"partitions": 1_000}, {"replicas": 2}])
def test_what_can_t_be_is_refused(given):
    with pytest.raises(InvalidConfig):
        RecordsSettings(**given)


# -- several nodes -------------------------------------------------------------------------------------------------


async def test_of_two_nodes_that_claim_the_same_agents_one_gets_each(settings):
    async with opened(settings, partitions=2) as records, opened(settings) as others:
        agents = [f"A/{number}" for number in range(1_000)]
        claims = [node.commit(agent, 0, name) for agent in agents for node, name in ((records, b"one"), (others, b"other"))]
        ended = await asyncio.gather(*claims, return_exceptions=True)
        winners = [[b"one", b"other"][side] for number in range(1_000) for side in (0, 1) if isinstance(ended[2 * number + side], Committed)]
        assert len(winners) == 1_000
        assert all(isinstance(one, Committed | Conflict) for one in ended)
        found = await asyncio.gather(*(records.read(agent) for agent in agents))
        assert [record.head for record in found] == winners


async def test_a_watch_sees_what_another_node_commits_and_removes(settings):
    async with opened(settings, partitions=1, watch_period_s=30) as records, opened(settings) as others:
        watcher = aiter(records.watch("A/x"))
        first = asyncio.ensure_future(anext(watcher))
        done = await others.commit("A/x", 0, b"0")
        assert (await first).head == b"0"
        for number in range(1, 20):
            done = await others.commit("A/x", done.revision, b"%d" % number)
            async with asyncio.timeout(20):
                assert (await anext(watcher)).head == b"%d" % number
        await others.commit("A/x", done.revision, None)
        assert (await anext(watcher)).head is None
        await watcher.aclose()


async def test_a_watch_that_is_given_up_leaves_nothing_behind_and_one_of_closed_records_ends(settings):
    async with opened(settings, partitions=1) as records:
        done = await records.commit("A/x", 0, b"0")
        for _ in range(3):
            watcher = aiter(records.watch("A/x"))
            await anext(watcher)
            await watcher.aclose()
        assert not records._watching._watched
        watcher = aiter(records.watch("A/x"))
        assert (await anext(watcher)).revision == done.revision
        waiting = asyncio.ensure_future(anext(watcher))
        await asyncio.sleep(0)
        await records.close()
        with pytest.raises(StoreUnavailable):
            await waiting
        with pytest.raises(StoreUnavailable):
            await anext(aiter(records.watch("A/x")))


async def test_a_watch_without_hints_sees_the_last_change_all_the_same(settings):
    async with opened(settings, partitions=1, watch_period_s=0.1) as records, opened(settings) as others:
        watching = records._watching
        watching._subject_of = lambda agent: f"{settings.cluster}.nobody.writes.here"
        watcher = aiter(records.watch("A/x"))
        first = asyncio.ensure_future(anext(watcher))
        done = await others.commit("A/x", 0, b"0")
        assert (await first).head == b"0"
        for number in range(1, 6):
            done = await others.commit("A/x", done.revision, b"%d" % number)
        async with asyncio.timeout(20):
            while (await anext(watcher)).head != b"5":
                pass
        await watcher.aclose()


async def test_a_list_sees_every_agent_while_all_of_them_are_written_again(settings):
    async with opened(settings, partitions=1) as records, opened(settings) as others:
        agents = [f"A/{number:04d}" for number in range(2_000)]
        revisions = [one.revision for one in await asyncio.gather(*(others.commit(agent, 0, bytes(300)) for agent in agents))]
        ended = False

        async def write():
            rounds = 0
            while not ended:
                chunk = rounds % 20
                some = range(chunk * 100, chunk * 100 + 100)
                done = await asyncio.gather(*(others.commit(agents[i], revisions[i], bytes(300), [Row("due", f"{i}", b"v")]) for i in some))
                revisions[some.start : some.stop] = [one.revision for one in done]
                rounds += 1
            return rounds

        writing = asyncio.ensure_future(write())
        for _ in range(8):
            assert [record.agent async for page in records.scan_agents("A") for record in page] == agents
            assert await records.count_agents("A") == 2_000
        ended = True
        assert await writing > 8


# -- sizes ---------------------------------------------------------------------------------------------------------


async def test_what_is_larger_than_a_message_is_read_as_it_was_written(settings, connection):
    async with opened(settings, partitions=1) as records:
        largest = connection.max_payload_bytes
        revision = 0
        for size_bytes in (largest, 3 * largest + 7, largest - 100, 2 * largest, 10, 5 * largest):
            head = bytes([size_bytes % 251]) * size_bytes
            revision = (await records.commit("A/x", revision, head, [Row("key", "k", head[::-1])])).revision
            found = await records.read("A/x")
            assert (found.revision, found.head) == (revision, head)
            assert await records.read_row("A/x", "key", "k") == head
            assert [row.value for row in await records.read_rows("A/x", "key")] == [head]
            assert [record.head async for page in records.scan_agents("A") for record in page] == [head]
            assert list(await records.verify()) == []
        await records.commit("A/x", revision, None)
        info = await JetStream(connection).api(f"STREAM.INFO.{settings.cluster}-records-0", {"subjects_filter": f"{settings.cluster}.s0.*.*.p.*.*"})
        for subject in info["state"].get("subjects") or {}:
            assert (await stored_at(connection, records, "A/x", subject)).payload == b"", "a part was left behind"


async def test_the_largest_head_that_is_taken_is_kept(settings):
    async with opened(settings, partitions=1) as records:
        head = b"x" * records.max_head_bytes
        done = await records.commit("A/x", 0, head)
        found = await records.read("A/x")
        assert found.revision == done.revision and found.head == head
        with pytest.raises(TooLarge, match="k of A/x"):
            await records.commit("A/x", done.revision, b"", [Row("key", "k", head + b"x")])
        with pytest.raises(TooLarge, match=f"over {MAX_ROWS}"):
            await records.commit("A/x", done.revision, b"", [Row("key", f"{number}", b"") for number in range(MAX_ROWS + 1)])


async def test_a_large_head_is_whole_however_it_changes_while_it_is_read(settings, connection):
    async with opened(settings, partitions=1) as records, opened(settings) as others:
        heads = [bytes([number]) * (2 * connection.max_payload_bytes) for number in range(8)]
        revision = (await records.commit("A/x", 0, heads[0])).revision

        async def read():
            while True:
                found = await others.read("A/x")
                assert found.head in heads
                if found.head == heads[-1]:
                    return

        reading = asyncio.ensure_future(read())
        for head in heads[1:]:
            revision = (await records.commit("A/x", revision, head)).revision
        await reading


async def test_parts_that_nothing_names_any_more_are_removed(settings, connection):
    async with opened(settings, partitions=1) as records:
        big = bytes(2 * connection.max_payload_bytes)
        done = await records.commit("A/x", 0, big, [Row("key", "k", big, 10.0), Row("key", "l", big)])
    async with opened(settings) as records:  # it doesn't know how many parts lie there
        await records.commit("A/x", done.revision, b"small", [Row("key", "l", None)])
        assert await records.remove_expired(11.0) == 1
        left = await JetStream(connection).api(f"STREAM.INFO.{settings.cluster}-records-0", {"subjects_filter": f"{settings.cluster}.s0.*.*.p.*.*"})
        for subject in left["state"].get("subjects") or {}:
            assert (await stored_at(connection, records, "A/x", subject)).payload == b""
        assert (await records.read("A/x")).head == b"small"
        assert list(await records.verify()) == []


def test_a_full_store_refuses_whole_commits_and_can_be_read(tmp_path):
    async def fill(settings):
        async with opened(settings, partitions=1, max_bytes=1024 * 1024) as records:
            kept = {}
            for number in range(60):
                try:
                    kept[f"A/{number:02d}"] = (await records.commit(f"A/{number:02d}", 0, bytes(40_000), [Row("due", "1", b"v")])).revision
                except StoreFull:
                    break
            assert 10 < len(kept) < 60
            ended = await asyncio.gather(*(records.commit(f"B/{number}", 0, bytes(40_000)) for number in range(20)), return_exceptions=True)
            assert {type(one) for one in ended} == {StoreFull}
            assert [record.agent async for page in records.scan_agents("A") for record in page] == sorted(kept)
            assert [row.agent for row in await rows_of(records, "due")] == sorted(kept)
            assert (await records.read("A/00")).revision == kept["A/00"]
            assert await records.count_agents("B") == 0
            assert list(await records.verify()) == []

    with nats_servers(tmp_path) as cluster:
        asyncio.run(fill(cluster.settings()))


# -- removal -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [IN_ONE_DELETION - 1, 2_500])
async def test_a_deletion_takes_all_rows_however_many(settings, count):
    async with opened(settings, partitions=1) as records:
        revision = 0
        for first in range(0, count, 500):
            rows = [Row("key", f"{number}", b"v") for number in range(first, min(first + 500, count))]
            revision = (await records.commit("A/x", revision, b"h", rows)).revision
        revision = (await records.commit("A/x", revision, b"h", [Row("due", "1", b"v")])).revision
        assert len(await records.read_rows("A/x", "key")) == count
        gone = await records.commit("A/x", revision, None, [Row("pending", "1", b"last words")])
        assert await rows_of(records, "key") == await rows_of(records, "due") == []
        assert [row.value for row in await rows_of(records, "pending")] == [b"last words"]
        await records.commit("A/x", gone.revision, b"again", [Row("key", f"{number}", b"new", create=True) for number in range(100)])
        assert len(await records.read_rows("A/x", "key")) == 100
        assert list(await records.verify()) == []


async def test_what_a_deletion_left_behind_when_its_node_died_is_dead_and_is_removed(settings, connection):
    async with opened(settings, partitions=1) as records:
        revision = 0
        for first in range(0, 1_500, 500):
            rows = [Row("key", f"{number:04d}", b"old") for number in range(first, first + 500)]
            revision = (await records.commit("A/x", revision, b"h", rows)).revision

        async def died(*_):
            return

        records._removal._sweep = died
        gone = await records.commit("A/x", revision, None)
    async with opened(settings) as records:
        assert await rows_of(records, "key") == await records.read_rows("A/x", "key") == []
        assert [await records.read_row("A/x", "key", f"{number:04d}") for number in range(1_500)] == [None] * 1_500
        row = Row("key", "1499", b"new", create=True)
        done = await records.commit("A/x", gone.revision, b"again", [row])
        with pytest.raises(RowExists):
            await records.commit("A/x", done.revision, b"again", [row])
        assert await records.remove_expired(0.0) == 0
        assert [(row.name, row.value) for row in await rows_of(records, "key")] == [("1499", b"new")]
        left = await JetStream(connection).api(f"STREAM.INFO.{settings.cluster}-records-0", {"subjects_filter": f"{settings.cluster}.s0.*.*.key.*"})
        stored = [await stored_at(connection, records, "A/x", subject) for subject in left["state"]["subjects"]]
        assert sum(bool(one.payload) for one in stored if one is not None) == 1


async def test_what_was_removed_is_forgotten_by_the_server(settings, connection):
    async with opened(settings, partitions=1) as records:
        done = await records.commit("A/x", 0, b"h", [Row("key", "k", b"v"), Row("key", "l", b"v", 5.0)])
        await records.commit("A/x", done.revision, b"h", [Row("key", "k", None)])
        await records.remove_expired(6.0)
        subjects = Subjects(settings.cluster, 1)
        for name in "kl":
            marker = await stored_at(connection, records, "A/x", subjects.row("A/x", "key", name))
            assert marker.payload == b"" and marker.headers["Nats-TTL"].endswith("s")


async def test_a_row_is_new_again_whatever_became_of_the_last_of_its_name(settings):
    clock = HandClock()
    async with opened(settings, clock, partitions=1) as records:
        new = [Row("key", "k", b"v", clock.now_s + 10, create=True), Row("key", "l", b"v", clock.now_s + 10, create=True)]
        done = await records.commit("A/x", 0, b"h", new)
        clock.now_s += 10
        assert await records.remove_expired(clock.now_s, 1) == 1  # one is expired, one removed
        later = [row._replace(expires_s=clock.now_s + 10) for row in new]
        done = await records.commit("A/x", done.revision, b"h", [*later, Row("key", "m", b"v", create=True)])
        with pytest.raises(RowExists, match="key/m"):
            await records.commit("A/x", done.revision, b"h", [Row("key", "n", b"v", create=True), Row("key", "m", b"v", create=True)])
        assert sorted(row.name for row in await records.read_rows("A/x", "key")) == ["k", "l", "m"]


async def test_names_of_any_length_are_kept_and_found(settings):
    names = ["", ".", "a.b", "*", ">", "=~x", "ж" * 300, "x" * 5_000, "\n", " "]
    async with opened(settings, partitions=2) as records:
        done = await records.commit("A/" + "日" * 170, 0, b"h", [Row("from", name, name.encode()) for name in names])
        assert [row.name for row in await records.read_rows("A/" + "日" * 170, "from")] == sorted(names)
        assert [row.name for row in await rows_of(records, "from", "=", "y")] == sorted(name for name in names if "=" <= name < "y")
        for name in names:
            assert await records.read_row("A/" + "日" * 170, "from", name) == name.encode()
        await records.commit("A/" + "日" * 170, done.revision, None)
        assert await rows_of(records, "from") == []


# -- damage --------------------------------------------------------------------------------------------------------


async def test_a_damaged_record_is_named_and_its_neighbours_are_well(settings, connection):
    async with opened(settings, partitions=1) as records:
        for name in "abc":
            await records.commit(f"A/{name}", 0, b"state of " + name.encode(), [Row("due", "1", b"due of " + name.encode())])
        subjects = Subjects(settings.cluster, 1)
        for subject, where in ((subjects.place("A/b").head, b"state"), (subjects.row("A/b", "due", "1"), b"due of")):
            stored = await stored_at(connection, records, "A/b", subject)
            await connection.request(subject, stored.payload.replace(where, where.upper()), timeout_s=5)
        with pytest.raises(RecordUnreadable, match="A/b"):
            await records.read("A/b")
        with pytest.raises(RecordUnreadable, match="A/b"):
            await records.read_rows("A/b", "due")
        with pytest.raises(RecordUnreadable, match="A/b"):
            await records.read_row("A/b", "due", "1")
        found = [record async for page in records.scan_agents("A") for record in page]
        assert [(record.agent, record.head, record.damage is None) for record in found] == [
            ("A/a", b"state of a", True),
            ("A/b", b"", False),
            ("A/c", b"state of c", True),
        ]
        rows = await rows_of(records, "due")
        assert [(row.agent, row.damage is None) for row in rows] == [("A/a", True), ("A/b", False), ("A/c", True)]
        assert [(row.agent, row.kind, row.damage is None) for row in await rows_of(records, "due", "1", "2")] == [
            ("A/a", "due", True),
            ("A/b", "due", False),
            ("A/c", "due", True),
        ]
        problems = await records.verify()
        assert len(problems) == 2 and all("A/b" in problem for problem in problems)


async def test_a_record_that_lies_where_another_belongs_is_found(settings, connection):
    async with opened(settings, partitions=1) as records:
        await records.commit("A/a", 0, b"a")
        await records.commit("A/b", 0, b"b")
        subjects = Subjects(settings.cluster, 1)
        stored = await stored_at(connection, records, "A/a")
        await connection.request(subjects.place("A/b").head, stored.payload, timeout_s=5)
        with pytest.raises(RecordUnreadable, match="A/b"):
            await records.read("A/b")
        assert any("A/a" in problem for problem in await records.verify())


async def test_a_defect_of_ours_leaves_nobody_waiting(settings):
    async with opened(settings, partitions=1) as records:
        seen = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: seen.append(context["exception"]))
        committer = records._committers[0]
        send, committer._send = committer._send, None
        ended = await asyncio.gather(*(records.commit(f"A/{number}", 0, b"h") for number in range(20)), return_exceptions=True)
        assert {type(one) for one in ended} == {CommitUnknown}
        committer._send = send
        await records.commit("A/1", 0, b"h")
        assert [type(one) for one in seen] == [TypeError]


# -- refusals ------------------------------------------------------------------------------------------------------


async def test_a_stream_that_is_gone_is_an_error_of_the_store(settings, one_server):
    async with opened(settings, partitions=1) as records:
        await records.commit("T/a", 0, b"1", [Row("key", "x", b"v")])
        admin = await Connection.open(one_server.settings(user="admin"))
        await JetStream(admin).api(f"STREAM.DELETE.{settings.cluster}-records-0")
        await admin.close()
        with pytest.raises(StoreUnavailable, match="not found"):
            await records.read_rows("T/a", "key")


async def test_events_are_refused_for_the_log_is_apart(settings):
    async with opened(settings, partitions=1) as records:
        assert records.log is None
        with pytest.raises(UsageError, match="apart"):
            records.commit("A/x", 0, b"h", (), [event()])


async def test_without_a_connection_a_commit_ends_and_is_known_not_to_have_happened(settings):
    connection = await Connection.open(settings)
    records = await open_records(connection, RecordsSettings(partitions=1, max_bytes=MAX_BYTES))
    done = await records.commit("A/x", 0, b"h")
    await connection.close()
    with pytest.raises(StoreUnavailable):
        await records.commit("A/x", done.revision, b"late")
    with pytest.raises(StoreUnavailable):
        await records.read("A/x")
    await records.close()
