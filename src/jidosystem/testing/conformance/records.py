"""What every adapter of `Records` must keep."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from asyncio import Future
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from itertools import pairwise

import pytest

from ...core.clock import Clock
from ...core.errors import Conflict, RowExists, StoreUnavailable, TooLarge
from ...core.events import Event
from ...core.records import Committed, Record, Records, Row, StoredRow


class HandClock:
    """A clock that a test sets."""

    def __init__(self, now_s: float = 1_000_000.0) -> None:
        self.now_s = now_s

    def time_s(self) -> float:
        """Wall clock."""
        return self.now_s

    def monotonic_s(self) -> float:
        """The same."""
        return self.now_s


def event(stream: str = "s", number: int = 0) -> Event:
    """An event whose data is a number."""
    return Event(f"e{number}", "test.happened", "test", "", 1.0, {"number": number}, stream)


async def rows_of(records: Records, kind: str, start: str = "", end: str | None = None) -> list[StoredRow]:
    """Everything that a scan finds."""
    return [row async for page in records.scan(kind, start, end) for row in page]


Attempt = tuple[str, int, bytes | None, Sequence[Row], Sequence[Event]]


class Ledger:
    """What a store must hold, by what it told, in the order in which it told it."""

    def __init__(self) -> None:
        self.revisions: dict[str, int] = {}
        self.heads: dict[str, bytes | None] = {}
        self.rows: dict[str, dict[str, bytes]] = {}
        self.refused = 0
        self.wrong: list[str] = []

    def some_attempt(self, chance: random.Random) -> Attempt:
        """A commit of any kind; most expect what is so, unless another is on its way."""
        agent = f"Counter/{chance.randrange(30)}"
        expected = self.revisions.get(agent, 0) + (chance.random() < 0.05)
        head = None if chance.random() < 0.05 else chance.randbytes(chance.choice((1, 8, 500)))
        value = None if chance.random() < 0.3 else b"v"
        row = Row("key", chance.choice("abc"), value, create=value is not None and chance.random() < 0.5)
        return agent, expected, head, (row,) if chance.random() < 0.2 else (), (event(),) if chance.random() < 0.1 else ()

    def told(self, attempt: Attempt, commit: Future[Committed]) -> None:
        """Hold an outcome against what was before it, and note it."""
        agent, expected, head, rows, _events = attempt
        there, error = self.rows.setdefault(agent, {}), commit.exception()
        stale = self.revisions.get(agent, 0) != expected
        taken = any(row.create and row.name in there for row in rows) and head is not None
        if error is not None:
            self.refused += 1
            if not (isinstance(error, Conflict) and stale) and not (isinstance(error, RowExists) and taken):
                self.wrong.append(f"{attempt} was refused: {error!r}")
            return
        if stale or taken or commit.result().revision <= expected:
            self.wrong.append(f"{attempt} was committed as {commit.result()}")
        self.revisions[agent], self.heads[agent] = commit.result().revision, head
        if head is None:
            there.clear()
        for row in rows:
            if row.value is None:
                there.pop(row.name, None)
            else:
                there[row.name] = row.value


class RecordsConformance(ABC):
    """The promises of `Records` as a test suite, races and cancellation included."""

    @abstractmethod
    def open(self, clock: Clock) -> AbstractAsyncContextManager[Records]:
        """To be written: an async context manager that yields an empty adapter, closed at the end. It takes its time from `clock`."""

    async def test_a_record_is_read_as_it_was_written(self) -> None:
        async with self.open(HandClock()) as records:
            assert await records.read("Counter/a") is None
            done = await records.commit("Counter/a", 0, b"one")
            assert done.revision > 0
            assert await records.read("Counter/a") == Record("Counter/a", done.revision, b"one")

    async def test_an_empty_head_is_no_tombstone(self) -> None:
        async with self.open(HandClock()) as records:
            done = await records.commit("Counter/a", 0, b"")
            assert await records.read("Counter/a") == Record("Counter/a", done.revision, b"")

    @pytest.mark.parametrize("key", ["a/b/c", "ключ", "日本", "a'b\"c;--", "x" * 500, " ", "%_", "\U0001f600"])
    async def test_any_key_will_do(self, key: str) -> None:
        async with self.open(HandClock()) as records:
            await records.commit(f"Counter/{key}", 0, b"h", [Row("due", key, b"v")])
            assert await records.read_row(f"Counter/{key}", "due", key) == b"v"
            assert [row.agent for row in await rows_of(records, "due")] == [f"Counter/{key}"]

    async def test_the_wrong_revision_is_a_conflict_that_tells_the_right_one(self) -> None:
        async with self.open(HandClock()) as records:
            done = await records.commit("Counter/a", 0, b"one")
            for expected in (0, done.revision + 1):
                with pytest.raises(Conflict) as raised:
                    await records.commit("Counter/a", expected, b"two", [Row("due", "x", b"v")])
                assert (raised.value.expected, raised.value.actual) == (expected, done.revision)
            assert await records.read("Counter/a") == Record("Counter/a", done.revision, b"one")
            assert await rows_of(records, "due") == []

    async def test_a_record_that_never_was_has_revision_zero(self) -> None:
        async with self.open(HandClock()) as records:
            with pytest.raises(Conflict):
                await records.commit("Counter/a", 7, b"one")
            assert await records.read("Counter/a") is None

    async def test_one_that_is_refused_leaves_those_beside_it(self) -> None:
        async with self.open(HandClock()) as records:
            done = await asyncio.gather(*(records.commit(f"Counter/{i}", 0, b"one") for i in range(100)))
            wrong = [records.commit("Counter/none", 7, b"two"), records.commit("Counter/5", 0, b"two"), records.commit("Counter/6", 999, b"two")]
            right = [records.commit(f"Counter/{i}", done[i].revision, b"two") for i in range(10, 100)]
            ended = await asyncio.gather(*wrong, *right, return_exceptions=True)
            assert [type(one) for one in ended[:3]] == [Conflict] * 3
            assert not [one for one in ended[3:] if isinstance(one, BaseException)]
            assert await records.read("Counter/none") is None
            assert await records.read("Counter/5") == Record("Counter/5", done[5].revision, b"one")

    async def test_a_submitted_commit_is_told_once_and_in_order(self) -> None:
        async with self.open(HandClock()) as records:
            told: list[tuple[str, Committed | None, BaseException | None]] = []
            ended = asyncio.Event()

            def submit(agent: str, expected: int) -> None:
                def settled(committed: Committed | None, error: BaseException | None) -> None:
                    told.append((agent, committed, error))
                    if len(told) == 51:
                        ended.set()

                try:
                    committed = records.submit(agent, expected, b"h", (), (), settled)
                except Conflict as refused:
                    settled(None, refused)
                else:
                    if committed is not None:
                        settled(committed, None)

            for i in range(50):
                submit(f"A/{i}", 0)
            submit("A/7", 12_345)
            await ended.wait()
            assert [agent for agent, committed, _error in told if committed is not None] == [f"A/{i}" for i in range(50)]
            assert [(agent, type(error)) for agent, committed, error in told if committed is None] == [("A/7", Conflict)]
            record = await records.read("A/3")
            assert record is not None
            assert record.revision == next(committed.revision for agent, committed, _error in told if agent == "A/3" and committed is not None)

    async def test_of_many_racers_one_wins(self) -> None:
        async with self.open(HandClock()) as records:
            first = await records.commit("Counter/a", 0, b"start")
            racers = [records.commit("Counter/a", first.revision, str(i).encode()) for i in range(2_000)]
            ended = await asyncio.gather(*racers, return_exceptions=True)
            winners = [i for i, end in enumerate(ended) if isinstance(end, Committed)]
            assert len(winners) == 1
            assert all(isinstance(end, Conflict) for i, end in enumerate(ended) if i != winners[0])
            present = await records.read("Counter/a")
            assert present is not None and present.head == str(winners[0]).encode()

    async def test_racers_over_many_agents_never_lose_or_double_a_count(self) -> None:
        async with self.open(HandClock()) as records:

            async def count_up(agent: str, times: int) -> None:
                done = 0
                while done < times:
                    present = await records.read(agent)
                    revision, value = (0, 0) if present is None else (present.revision, int(present.head or b"0"))
                    try:
                        await records.commit(agent, revision, str(value + 1).encode())
                    except Conflict:
                        continue
                    done += 1

            await asyncio.gather(*(count_up(f"Counter/{i % 5}", 20) for i in range(25)))
            for i in range(5):
                present = await records.read(f"Counter/{i}")
                assert present is not None and present.head == b"100"

    @pytest.mark.parametrize("seed", range(8))
    async def test_any_mixture_ends_as_one_after_the_other_would(self, seed: int) -> None:
        chance, ledger = random.Random(seed), Ledger()
        async with self.open(HandClock()) as records:
            for _ in range(60):
                burst = []
                for _ in range(chance.choice((1, 1, 2, 5, 40))):
                    attempt = ledger.some_attempt(chance)
                    if records.log is None:
                        attempt = (*attempt[:4], ())
                    burst.append(records.commit(*attempt))
                    burst[-1].add_done_callback(partial(ledger.told, attempt))
                await asyncio.wait(burst)
                await asyncio.sleep(0)  # those that were done at once are told in the loop's next turn
            assert ledger.wrong == [], ledger.wrong[:3]
            assert ledger.refused > 10
            for agent, head in ledger.heads.items():
                found = await records.read(agent)
                assert found is not None and (found.revision, found.head) == (ledger.revisions[agent], head)
                assert {row.name: row.value for row in await records.read_rows(agent, "key")} == ledger.rows[agent]

    async def test_thousands_wait_at_once(self) -> None:
        async with self.open(HandClock()) as records:
            done = await asyncio.gather(*(records.commit(f"Counter/{i}", 0, str(i).encode()) for i in range(5_000)))
            assert all(committed.revision > 0 for committed in done)
            found = await asyncio.gather(*(records.read(f"Counter/{i}") for i in range(5_000)))
            assert [record.head for record in found if record is not None] == [str(i).encode() for i in range(5_000)]

    async def test_revisions_grow_also_over_a_deletion(self) -> None:
        async with self.open(HandClock()) as records:
            revisions = [0]
            for head in (b"one", None, b"three", b"four", None, b"six"):
                revisions.append((await records.commit("Counter/a", revisions[-1], head)).revision)
            assert all(before < after for before, after in pairwise(revisions))

    async def test_a_deletion_leaves_a_tombstone_and_takes_the_rows(self) -> None:
        async with self.open(HandClock()) as records:
            done = await records.commit("Counter/a", 0, b"h", [Row("due", "1", b"x"), Row("key", "k", b"y"), Row("pending", "1", b"p")])
            gone = await records.commit("Counter/a", done.revision, None, [Row("pending", "2", b"last words")])
            assert await records.read("Counter/a") == Record("Counter/a", gone.revision, None)
            assert await rows_of(records, "due") == []
            assert await records.read_row("Counter/a", "key", "k") is None
            assert [row.value for row in await rows_of(records, "pending")] == [b"last words"]
            with pytest.raises(Conflict):
                await records.commit("Counter/a", done.revision, b"late")
            with pytest.raises(Conflict):
                await records.commit("Counter/a", 0, b"fresh")

    async def test_rows_are_put_replaced_and_removed_with_the_head(self) -> None:
        async with self.open(HandClock()) as records:
            done = await records.commit("A/x", 0, b"h", [Row("child", "2", b"b"), Row("child", "1", b"a"), Row("sub", "s", b"5")])
            assert [(row.name, row.value) for row in await records.read_rows("A/x", "child")] == [("1", b"a"), ("2", b"b")]
            done = await records.commit("A/x", done.revision, b"h", [Row("child", "1", None), Row("child", "2", b"B"), Row("child", "none", None)])
            assert [(row.name, row.value) for row in await records.read_rows("A/x", "child")] == [("2", b"B")]
            assert await records.read_row("A/x", "sub", "s") == b"5"
            assert await records.read_row("A/y", "sub", "s") is None

    async def test_rows_of_many_agents_are_removed_at_once_and_no_others(self) -> None:
        async with self.open(HandClock()) as records:
            rows = [Row(kind, f"{number}", b"v") for number in range(3) for kind in ("due", "child")]
            agents = [f"A/{number}" for number in range(100)]
            done = await asyncio.gather(*(records.commit(agent, 0, b"h", rows) for agent in agents))
            gone = [Row("due", "0", None), Row("child", "1", None), Row("due", "none", None)]
            await asyncio.gather(*(records.commit(agent, one.revision, b"h", gone) for agent, one in zip(agents, done, strict=True)))
            assert [(row.agent, row.name) for row in await rows_of(records, "due")] == [(agent, name) for name in "12" for agent in sorted(agents)]
            for agent in agents:
                assert [row.name for row in await records.read_rows(agent, "child")] == ["0", "2"]

    async def test_a_row_that_must_be_new_is_refused_if_it_is_there(self) -> None:
        async with self.open(HandClock()) as records:
            done = await records.commit("A/x", 0, b"one", [Row("key", "k", b"first", create=True)])
            with pytest.raises(RowExists):
                await records.commit("A/x", done.revision, b"two", [Row("due", "1", b"d"), Row("key", "k", b"second", create=True)])
            assert await records.read("A/x") == Record("A/x", done.revision, b"one")
            assert await records.read_row("A/x", "key", "k") == b"first"
            assert await rows_of(records, "due") == []

    async def test_expired_rows_are_removed_so_many_at_a_time(self) -> None:
        clock = HandClock()
        async with self.open(clock) as records:
            rows = [Row("key", f"{number}", b"v", clock.now_s + number) for number in range(200)]
            await records.commit("A/x", 0, b"h", rows)
            clock.now_s += 149
            assert [await records.remove_expired(clock.now_s, 70) for _ in range(4)] == [70, 70, 10, 0]
            assert len(await records.read_rows("A/x", "key")) == 50

    async def test_an_expired_row_is_as_if_it_were_not_there(self) -> None:
        clock = HandClock()
        async with self.open(clock) as records:
            row = Row("key", "k", b"v", clock.now_s + 10, create=True)
            done = await records.commit("A/x", 0, b"h", [row, Row("due", "d", b"v", clock.now_s + 10)])
            assert await records.read_row("A/x", "key", "k") == b"v"
            clock.now_s += 10
            assert await records.read_row("A/x", "key", "k") is None
            assert await records.read_rows("A/x", "key") == []
            assert await rows_of(records, "due") == []
            await records.commit("A/x", done.revision, b"h", [Row("key", "k", b"again", clock.now_s + 10, create=True)])
            assert await records.read_row("A/x", "key", "k") == b"again"
            assert await records.remove_expired(clock.now_s) == 1
            assert await records.remove_expired(clock.now_s) == 0
            assert await records.read_row("A/x", "key", "k") == b"again"

    async def test_a_scan_goes_by_name_over_all_agents_and_pages(self) -> None:
        async with self.open(HandClock()) as records:
            commits = [records.commit(f"A/{i:04d}", 0, b"h", [Row("due", f"{i % 7:03d}", b"%d" % i)]) for i in range(2_500)]
            await asyncio.gather(*commits, records.commit("A/other", 0, b"h", [Row("pending", "001", b"p")]))
            found = await rows_of(records, "due")
            assert [(row.name, row.agent) for row in found] == sorted((f"{i % 7:03d}", f"A/{i:04d}") for i in range(2_500))
            some = await rows_of(records, "due", "002", "004")
            assert {row.name for row in some} == {"002", "003"}
            assert len(some) == sum(i % 7 in (2, 3) for i in range(2_500))

    async def test_agents_of_a_type_are_found_without_those_of_others(self) -> None:
        async with self.open(HandClock()) as records:
            for agent in ("A/1", "A/2", "A.b/1", "AB/1", "A/3"):
                await records.commit(agent, 0, agent.encode())
            gone = await records.read("A/2")
            assert gone is not None
            await records.commit("A/2", gone.revision, None)
            found = [record.agent async for page in records.scan_agents("A") for record in page]
            assert found == ["A/1", "A/3"]
            assert [r.agent async for page in records.scan_agents("A", after="A/1") for r in page] == ["A/3"]
            assert [await records.count_agents(name) for name in ("A", "AB", "B")] == [2, 1, 0]

    async def test_a_watcher_sees_the_present_and_then_each_change(self) -> None:
        async with self.open(HandClock()) as records:
            first = await records.commit("A/x", 0, b"0")
            seen: list[Record] = []
            here = asyncio.Event()

            async def watch() -> None:
                async for record in records.watch("A/x"):
                    seen.append(record)
                    here.set()
                    if record.head == b"100":
                        return

            task = asyncio.create_task(watch())
            await here.wait()
            revision = first.revision
            for i in range(1, 101):
                revision = (await records.commit("A/x", revision, str(i).encode())).revision
            await asyncio.wait_for(task, 20)
            assert [record.head for record in seen] == [str(i).encode() for i in range(101)]
            assert all(before.revision < after.revision for before, after in pairwise(seen))

    async def test_a_slow_watcher_never_misses_the_last_change(self) -> None:
        async with self.open(HandClock()) as records:
            revision = (await records.commit("A/x", 0, b"0")).revision
            watcher = aiter(records.watch("A/x"))
            assert (await anext(watcher)).head == b"0"
            for i in range(1, 2_501):
                revision = (await records.commit("A/x", revision, str(i).encode())).revision
            last, seen = b"", 0
            while last != b"2500":
                record = await asyncio.wait_for(anext(watcher), 20)
                assert record.revision > seen
                last, seen = record.head or b"", record.revision

    async def test_events_commit_with_the_record_or_not_at_all(self) -> None:
        async with self.open(HandClock()) as records:
            log = records.log
            if log is None:
                pytest.skip("records and log are apart in this adapter")
            done = await records.commit("A/x", 0, b"1", [Row("key", "k", b"")], [event("s", 1), event("t", 2)])
            assert len(done.positions) == 2 and 0 < done.positions[0] < done.positions[1]
            with pytest.raises(Conflict):
                await records.commit("A/x", 0, b"2", (), [event("s", 3)])
            with pytest.raises(RowExists):
                await records.commit("A/x", done.revision, b"2", [Row("key", "k", b"", create=True)], [event("s", 4)])
            found = [e async for page in log.read() for e in page]
            assert [(e.position, e.data) for e in found] == [(done.positions[0], {"number": 1}), (done.positions[1], {"number": 2})]

    async def test_what_one_caller_gives_up_harms_no_other(self) -> None:
        async with self.open(HandClock()) as records:
            commits = [records.commit(f"A/{i}", 0, b"h") for i in range(300)]
            for commit in commits[::3]:
                commit.cancel()
            ended = await asyncio.gather(*commits, return_exceptions=True)
            assert all(isinstance(end, Committed) for i, end in enumerate(ended) if i % 3)
            for i in range(300):
                record = await records.read(f"A/{i}")
                assert record is not None or i % 3 == 0

    async def test_too_large_a_head_is_named_and_changes_nothing(self) -> None:
        async with self.open(HandClock()) as records:
            with pytest.raises(TooLarge, match="A/x"):
                await records.commit("A/x", 0, bytes(records.max_head_bytes + 1))
            assert await records.read("A/x") is None

    async def test_closing_finishes_what_was_accepted_and_refuses_the_rest(self) -> None:
        async with self.open(HandClock()) as records:
            commits = [records.commit(f"A/{i}", 0, b"h") for i in range(500)]
            await records.close()
            ended: Sequence[Committed | BaseException] = await asyncio.gather(*commits, return_exceptions=True)
            assert all(isinstance(end, Committed) for end in ended)
            with pytest.raises(StoreUnavailable):
                await records.commit("A/late", 0, b"h")
            with pytest.raises(StoreUnavailable):
                await records.read("A/1")

    async def test_a_store_that_is_well_says_so(self) -> None:
        async with self.open(HandClock()) as records:
            await records.commit("A/x", 0, b"h", [Row("due", "1", b"v")])
            assert list(await records.verify()) == []
