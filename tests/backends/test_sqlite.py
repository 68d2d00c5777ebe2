"""The SQLite adapter keeps the contracts, and what only a file can go through."""

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from jidosystem.backends.sqlite import open_store
from jidosystem.backends.sqlite.log import _next_limit
from jidosystem.backends.sqlite.records import EXPIRED
from jidosystem.backends.sqlite.statements import HEAD, Head
from jidosystem.backends.sqlite.writer import Writer
from jidosystem.core.clock import SystemClock
from jidosystem.core.errors import RecordUnreadable, StoreCorrupt, StoreError, StoreFull, StoreLocked, StoreUnavailable, StoreVersion
from jidosystem.core.records import Committed, Row
from jidosystem.testing.conformance import EventLogConformance, RecordsConformance
from jidosystem.testing.conformance.records import event


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "store.db")


class TestSqliteRecords(RecordsConformance):
    @pytest.fixture(autouse=True)
    def _path(self, path):
        self.path = path

    @asynccontextmanager
    async def open(self, clock):
        records = await open_store(self.path, clock=clock)
        yield records
        await records.close()


class TestSqliteLog(EventLogConformance):
    @pytest.fixture(autouse=True)
    def _path(self, path):
        self.path = path

    @asynccontextmanager
    async def open_log(self):
        self.records = await open_store(self.path, clock=SystemClock())
        yield self.records.log
        await self.records.close()

    async def close_log(self, log):
        await self.records.close()


async def test_room_made_ahead_in_the_log_is_no_part_of_what_is_found_after_a_crash(path, tmp_path):
    records = await open_store(path)
    for number in range(30):
        await records.commit(f"A/{number}", 0, b"h", [], [event("s", number)])
    log = Path(f"{path}-wal").read_bytes()
    assert log.endswith(bytes(500_000))
    crashed = str(tmp_path / "crashed.db")
    shutil.copy(path, crashed)
    Path(f"{crashed}-wal").write_bytes(log)
    await records.close()
    records = await open_store(crashed)
    assert [(await records.read(f"A/{number}")).revision for number in range(30)] == [1] * 30
    await records.commit("A/more", 0, b"h", [], [event("s", 30)])
    assert [e.data["number"] async for page in records.log.read(stream="s") for e in page] == list(range(31))
    assert list(await records.verify()) == []
    await records.close()


async def test_everything_is_there_after_a_restart(path):
    records = await open_store(path)
    done = await records.commit("A/x", 0, b"h", [Row("due", "1", b"v")], [event("s", 1)])
    await records.close()
    records = await open_store(path)
    assert (await records.read("A/x")).revision == done.revision
    assert await records.read_row("A/x", "due", "1") == b"v"
    assert (await records.log.append([event("s", 2)]))[0] > done.positions[0]
    await records.close()


async def test_a_second_owner_is_refused_and_told_who_the_first_is(path):
    records = await open_store(path)
    with pytest.raises(StoreLocked) as raised:
        await open_store(path)
    assert raised.value.pid == os.getpid()
    code = "import asyncio,sys\nfrom jidosystem.backends.sqlite import open_store\nasyncio.run(open_store(sys.argv[1]))"
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", code, path, stderr=asyncio.subprocess.PIPE)
    _out, told = await other.communicate()
    assert other.returncode != 0
    assert f"process {os.getpid()}" in told.decode()
    await records.close()
    await (await open_store(path)).close()


async def test_a_file_of_another_program_is_left_alone(path):
    with sqlite3.connect(path) as foreign:
        foreign.execute("CREATE TABLE notes (text)")
    foreign.close()
    before = Path(path).read_bytes()
    with pytest.raises(StoreVersion):
        await open_store(path)
    assert Path(path).read_bytes() == before


async def test_a_newer_format_is_refused(path):
    await (await open_store(path)).close()
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(StoreVersion, match="99"):
        await open_store(path)


async def test_a_file_of_the_first_format_is_brought_up_and_keeps_what_it_holds(path):
    records = await open_store(path)
    await records.commit("A/x", 0, b"h", [Row("key", "k", b"v", 1.0), Row("key", "l", b"w", 1e12)])
    await records.close()
    older = sqlite3.connect(path, isolation_level=None)
    older.execute("DROP INDEX rows_expiring")
    older.execute("PRAGMA user_version = 1")
    older.close()
    records = await open_store(path)
    assert await records.remove_expired(2.0) == 1
    assert [row.name for row in await records.read_rows("A/x", "key")] == ["l"]
    await records.close()


async def test_expired_rows_are_found_without_reading_the_others(path):
    await (await open_store(path)).close()
    store = sqlite3.connect(path)
    plan = [row[3] for row in store.execute(f"EXPLAIN QUERY PLAN {EXPIRED}", (1.0, 1))]
    store.close()
    assert plan == ["SEARCH rows USING COVERING INDEX rows_expiring (expires<?)"]


async def test_what_is_no_database_is_named(path):
    Path(path).write_bytes(b"not a database, not at all, whatever its name says" * 100)
    with pytest.raises(StoreCorrupt, match=r"store\.db"):
        await open_store(path)


async def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StoreUnavailable, match="nowhere"):
        await open_store(str(tmp_path / "nowhere" / "x.db"))


async def test_a_full_store_refuses_whole_commits_and_works_again_with_room(path):
    records = await open_store(path, max_page_count=60)
    kept, refused = {}, 0
    for i in range(200):
        try:
            kept[f"A/{i}"] = (await records.commit(f"A/{i}", 0, bytes(4000), [Row("due", f"{i}", bytes(500))], [event("s", i)])).revision
        except StoreFull:
            refused += 1
    assert kept and refused
    there = [e.data["number"] async for page in records.log.read() for e in page]
    assert [f"A/{number}" for number in there] == list(kept)
    assert sorted(row.agent for page in [p async for p in records.scan("due")] for row in page) == sorted(kept)
    await records.close()
    records = await open_store(path)
    await records.commit("A/late", 0, bytes(4000))
    assert list(await records.verify()) == []
    await records.close()


async def test_a_damaged_record_is_named_and_its_neighbours_are_well(path):
    records = await open_store(path)
    for name in "abc":
        await records.commit(f"A/{name}", 0, b"state of " + name.encode())
    await records.close()
    with sqlite3.connect(path) as file:
        file.execute("UPDATE heads SET head = CAST(replace(head, 'state of b', 'state of B') AS BLOB) WHERE agent = 'A/b'")
    file.close()
    records = await open_store(path)
    with pytest.raises(RecordUnreadable, match="A/b"):
        await records.read("A/b")
    good = await asyncio.gather(records.read("A/a"), records.read("A/b"), records.read("A/c"), return_exceptions=True)
    assert [getattr(r, "head", None) for r in good] == [b"state of a", None, b"state of c"]
    assert any("A/b" in problem for problem in await records.verify())
    await records.close()


@pytest.mark.parametrize("seed", range(8))
async def test_flipped_bytes_are_found_or_harmless_never_served(path, seed):
    records = await open_store(path)
    heads = {f"A/{i}": os.urandom(300) for i in range(100)}
    await asyncio.gather(*(records.commit(agent, 0, head) for agent, head in heads.items()))
    await records.close()
    data = bytearray(Path(path).read_bytes())
    chance = random.Random(seed)
    for _ in range(20):
        data[chance.randrange(100, len(data))] ^= 1 << chance.randrange(8)
    Path(path).write_bytes(data)
    try:
        records = await open_store(path)
    except StoreError:
        return
    for agent, head in heads.items():
        try:
            record = await records.read(agent)
        except StoreError:
            continue
        assert record is None or record.head == head
    await records.close()


async def test_a_truncated_file_is_found(path):
    records = await open_store(path)
    await asyncio.gather(*(records.commit(f"A/{i}", 0, os.urandom(2000)) for i in range(200)))
    await records.close()
    os.truncate(path, os.path.getsize(path) // 2)
    with pytest.raises(StoreError):
        records = await open_store(path)
        try:
            problems = await records.verify()
            if problems:
                raise StoreCorrupt("; ".join(problems))
        finally:
            await records.close()


CHILD = """
import asyncio, sys
from jidosystem.backends.sqlite import open_store
from jidosystem.core.errors import Conflict
from jidosystem.core.records import Row
from jidosystem.testing.conformance.records import event

async def main():
    records = await open_store(sys.argv[1])
    async def count(i):
        agent = f"A/{i}"
        record = await records.read(agent)
        revision, value = (0, 0) if record is None else (record.revision, int(record.head))
        while True:
            value += 1
            rows = [Row("due", f"{value}", b"x"), Row("due", f"{value - 1}", None)]
            done = await records.commit(agent, revision, str(value).encode(), rows, [event(agent, value)])
            revision = done.revision
            sys.stdout.write(f"{i} {value}\\n")
            sys.stdout.flush()
    await asyncio.gather(*(count(i) for i in range(20)))

asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_kill_9(path):
    acknowledged = {}
    for _ in range(int(os.environ.get("JIDO_TORTURE", "5"))):
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, path, stdout=subprocess.PIPE)
        first = await child.stdout.readline()
        await asyncio.sleep(random.uniform(0.0, 0.3))
        child.send_signal(signal.SIGKILL)
        for line in [first, *(await child.stdout.read()).splitlines()]:
            number, _, value = line.decode().strip().partition(" ")
            if value:
                acknowledged[f"A/{number}"] = max(acknowledged.get(f"A/{number}", 0), int(value))
        await child.wait()
        records = await open_store(path)
        for agent, value in acknowledged.items():
            present = int((await records.read(agent)).head)
            assert present >= value
            assert [row.name for row in await records.read_rows(agent, "due")] == [str(present)]
            assert [e.data["number"] async for page in records.log.read(stream=agent) for e in page] == list(range(1, present + 1))
        assert list(await records.verify()) == []
        await records.close()
    assert acknowledged


@pytest.mark.parametrize(
    ("count", "size_bytes", "limit"), [(200, 20_000, 8_000), (200, 0, 8_000), (1_000, 2 * 1024 * 1024, 1_000), (3, 3 * 64 * 1024 * 1024, 1)]
)
def test_a_page_of_the_log_is_bounded_in_events_and_in_bytes(count: int, size_bytes: int, limit: int) -> None:
    assert _next_limit(count, size_bytes) == limit


async def test_a_long_log_is_read_in_slices_without_a_hole(tmp_path: Path) -> None:
    records = await open_store(str(tmp_path / "log.db"), durability="relaxed")
    try:
        for start in range(0, 12_500, 2_500):
            await records.log.append([event("s", number) for number in range(start, start + 2_500)])
        slices = [page async for page in records.log.read()]
        assert max(len(page) for page in slices) <= 1_000
        assert [one.data["number"] for page in slices for one in page] == list(range(12_500))
    finally:
        await records.close()


async def test_what_the_engine_cannot_hold_is_refused_alone_and_the_writer_lives_on(tmp_path: Path) -> None:
    records = await open_store(str(tmp_path / "x.db"))
    try:
        good = [records.commit(f"A/{number}", 0, b"h") for number in range(3)]
        bad = records.commit("A/bad", 0, b"h", [Row("key", "\ud800", b"v")])
        ended = await asyncio.gather(*good, bad, return_exceptions=True)
        assert [type(one) for one in ended] == [Committed, Committed, Committed, StoreError]
        assert "A/bad" in str(ended[3])
        with pytest.raises(StoreError):
            await records.commit("A/\ud800", 0, b"h")
        assert await records.read("A/bad") is None
        assert (await records.commit("A/bad", 0, b"h")).revision == 1
    finally:
        await records.close()


async def test_a_question_that_cannot_be_put_to_the_engine_is_refused_and_the_reader_lives_on(tmp_path: Path) -> None:
    records = await open_store(str(tmp_path / "x.db"))
    try:
        await records.commit("A/1", 0, b"h")
        with pytest.raises(StoreError, match="can't be asked that"):
            await records.read("A/\ud800")
        with pytest.raises(StoreError, match="can't be asked that"):
            [page async for page in records.log.read(-(2**70))]
        found = await asyncio.wait_for(records.read("A/1"), 10)
        assert found is not None and found.head == b"h"
    finally:
        await records.close()


class BadDisk(sqlite3.Connection):
    """A connection whose file can't be read or written each time a statement begins in one of the ways that are listed."""

    failing = ()

    def execute(self, statement, *values):
        for number, begins in enumerate(self.failing):
            if statement.startswith(begins):
                self.failing = self.failing[:number] + self.failing[number + 1 :]
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR
                raise error
        return super().execute(statement, *values)


async def test_a_disk_that_fails_again_while_a_doubt_is_ended_delays_the_answer_and_ends_nothing(path):
    await (await open_store(path)).close()
    loop = asyncio.get_running_loop()
    connection = sqlite3.connect(path, factory=BadDisk, isolation_level=None, check_same_thread=False)
    told = asyncio.Queue()

    def settled(outcomes):
        for outcome in outcomes:
            told.put_nowait(outcome)

    writer = await asyncio.to_thread(Writer, connection, path, loop, SystemClock(), told.put_nowait, settled)
    connection.failing = (HEAD[1], "SELECT revision FROM heads")
    doubtful, next_ = (Head(None, agent, 1, bytearray(b"1")) for agent in ("A/a", "A/b"))
    writer.put(doubtful)
    async with asyncio.timeout(10):
        item, _value, error = await told.get()
        assert (item, type(error)) == (doubtful, StoreUnavailable)
        assert connection.failing == ()
        writer.put(next_)
        assert await told.get() == [next_]
    await asyncio.to_thread(writer.close)


async def test_what_was_asked_before_a_store_closes_is_answered_and_what_comes_then_is_refused(path):
    records = await open_store(path)
    await records.commit("A/a", 0, b"1")
    asked = records.read("A/a")
    closing = asyncio.ensure_future(records.close())
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="closed"):
        await records.read("A/a")
    await closing
    assert (await asked).head == b"1"


async def test_whoever_gives_up_while_a_store_is_opened_leaves_it_to_the_next(path):
    for turns in range(0, 60, 3):
        opening = asyncio.create_task(open_store(path))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        try:
            records = await opening
        except asyncio.CancelledError:
            records = await open_store(path)
        await records.close()


async def test_a_closed_store_is_free_although_a_process_that_was_forked_has_its_files_open(path):
    records = await open_store(path)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import sys; sys.stdin.read()", stdin=subprocess.PIPE, pass_fds=[records._lock._fd]
    )
    try:
        await records.close()
        await (await open_store(path)).close()
    finally:
        child.stdin.close()
        await child.wait()


async def test_a_process_that_was_forked_doesnt_keep_the_store_of_its_dead_parent(path):
    program = """
import asyncio, multiprocessing, os, signal, sys, time
from jidosystem.backends.sqlite import open_store

context = multiprocessing.get_context("fork")
up = context.Event()

def live():
    up.set()
    time.sleep(600)

async def main():
    store = await open_store(sys.argv[1])
    child = context.Process(target=live)
    child.start()
    up.wait()  # until then it may not have run at all, nor let go
    print(child.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    command = [sys.executable, "-W", "ignore", "-c", program, str(path)]
    parent = await asyncio.to_thread(subprocess.Popen, command, stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    try:
        assert parent.wait() == -signal.SIGKILL
        await (await open_store(path)).close()
    finally:
        os.kill(child, signal.SIGKILL)
        parent.stdout.close()
