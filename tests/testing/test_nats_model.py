"""The model of NATS does what was measured, each by itself, and nothing else; and the same seed is the same run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest

from jidosystem import Event
from jidosystem.core.errors import CommitUnknown, Conflict, InvalidArguments, StoreError, StoreFull, StoreUnavailable, StreamConflict, UsageError
from jidosystem.core.records import Record, Records, Row
from jidosystem.testing import (
    Faults,
    FaultyRecords,
    NatsOdds,
    Nodes,
    Recording,
    SimulatedLog,
    SimulatedNats,
    SimulatedRecords,
    VirtualLoop,
    check_registers,
    run,
)
from jidosystem.testing.loop import START_US

pytestmark = pytest.mark.jido
NAME = "Cell/x"


def loop() -> VirtualLoop:
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualLoop)
    return running


def since_start() -> float:
    return loop().time() - START_US / 1e6


async def outcome(what: Coroutine[Any, Any, Any] | asyncio.Future[Any]) -> str:
    try:
        await what
    except StoreError as error:
        return type(error).__name__
    return "ok"


def event(number: int, stream: str = "s") -> Event:
    return Event(f"e{number}", "test.happened", "test", "", 1.0, {"number": number}, stream)


# -- an ideal run --------------------------------------------------------------------------------------------------


async def test_with_nothing_wrong_nothing_fails_and_all_takes_milliseconds() -> None:
    nats = SimulatedNats(seed=1)
    records = [SimulatedRecords(nats, node) for node in "abc"]
    began = loop().time()
    for revision in range(100):
        assert (await records[revision % 3].commit(NAME, revision, b"%d" % revision)).revision == revision + 1
        assert await records[(revision + 1) % 3].read(NAME) == Record(NAME, revision + 1, b"%d" % revision)
    assert loop().time() - began < 0.5
    assert not nats.journal


async def test_of_commits_that_race_from_several_nodes_one_wins() -> None:
    nats = SimulatedNats(seed=1)
    outcomes = await asyncio.gather(*(outcome(SimulatedRecords(nats, node).commit(NAME, 0, node.encode())) for node in "abcdefgh"))
    assert sorted(outcomes) == ["Conflict"] * 7 + ["ok"]


async def test_what_a_node_sends_arrives_in_order() -> None:
    nats = SimulatedNats(seed=3, odds=NatsOdds(slow=0.5, slow_s=1.0))
    records = SimulatedRecords(nats, "a")
    commits = [records.commit(NAME, revision, b"") for revision in range(50)]
    assert [committed.revision for committed in await asyncio.gather(*commits)] == list(range(1, 51))


async def test_a_commit_takes_no_events() -> None:
    with pytest.raises(UsageError):
        SimulatedRecords(SimulatedNats(), "a").commit(NAME, 0, b"", (), [event(1)])


# -- late writes ---------------------------------------------------------------------------------------------------


async def test_a_write_that_timed_out_is_applied_seconds_later() -> None:
    nats = SimulatedNats(seed=1, odds=NatsOdds(unknown=1, late=1, late_s=10.0))
    records = SimulatedRecords(nats, "a")
    began = loop().time()
    with pytest.raises(CommitUnknown):
        await records.commit(NAME, 0, b"late")
    assert loop().time() - began == pytest.approx(nats.timeout_s)
    assert await records.read(NAME) is None
    await asyncio.sleep(10.0)
    assert await records.read(NAME) == Record(NAME, 1, b"late")
    assert "arrives late, applied" in nats.journal[-1]


async def test_or_never() -> None:
    nats = SimulatedNats(seed=1, odds=NatsOdds(unknown=1, late=0))
    records = SimulatedRecords(nats, "a")
    assert await outcome(records.commit(NAME, 0, b"lost")) == "CommitUnknown"
    await asyncio.sleep(100.0)
    assert await records.read(NAME) is None


async def test_a_late_write_meets_the_compare_and_set_of_its_time() -> None:
    nats = SimulatedNats(seed=1, odds=NatsOdds(unknown=1, late=1))
    assert await outcome(SimulatedRecords(nats, "a").commit(NAME, 0, b"late")) == "CommitUnknown"
    await nats.store.commit(NAME, 0, b"newer")
    await asyncio.sleep(100.0)
    assert (await nats.store.read(NAME)) == Record(NAME, 1, b"newer")
    assert "arrives late, Conflict" in nats.journal[-1]


async def test_a_write_of_a_node_that_was_killed_arrives() -> None:
    nats, nodes = SimulatedNats(seed=1), Nodes(loop())
    records, told = SimulatedRecords(nats, "a"), []

    async def work() -> None:
        told.append("sent")
        await records.commit(NAME, 0, b"last words")
        told.append("told")

    task = nodes.start("a", work())
    await asyncio.sleep(0)
    nodes.kill("a")
    nodes.resume("a")  # which changes nothing
    await asyncio.sleep(1.0)
    assert (await nats.store.read(NAME)) == Record(NAME, 1, b"last words")
    assert told == ["sent"]
    nodes.end()
    await task


async def test_a_fault_at_one_exact_commit_can_be_put_around_it() -> None:
    nats, faults = SimulatedNats(seed=1), Faults()
    records = FaultyRecords(SimulatedRecords(nats, "a"), faults)
    faults.schedule("done", commit=2)
    assert [await outcome(records.commit(NAME, revision, b"")) for revision in range(3)] == ["ok", "CommitUnknown", "ok"]
    records.die()
    silent = records.commit(NAME, 3, b"")
    await asyncio.sleep(100.0)
    assert not silent.done()
    assert await nats.store.read(NAME) == Record(NAME, 3, b"")


# -- a lost leader -------------------------------------------------------------------------------------------------


async def test_without_a_leader_nothing_is_acknowledged_for_four_to_nine_seconds() -> None:
    for seed in range(20):
        nats = SimulatedNats(seed=seed, odds=NatsOdds(late=0))
        records = SimulatedRecords(nats, "a")
        assert await outcome(records.commit(NAME, 0, b"")) == "ok"
        lasts_s = nats.lose_leader()
        assert 4.0 <= lasts_s <= 9.0
        began = loop().time()
        while loop().time() < began + lasts_s - nats.timeout_s - 0.01:
            assert await outcome(records.commit(NAME, 1, b"")) in ("StoreUnavailable", "CommitUnknown")
            assert await outcome(records.read(NAME)) == "StoreUnavailable"
        await asyncio.sleep(began + lasts_s - loop().time() + 0.001)
        assert await outcome(records.commit(NAME, 1, b"")) == "ok"


async def test_some_fail_at_once_and_some_time_out() -> None:
    nats = SimulatedNats(seed=2, odds=NatsOdds(at_once=0.5, late=0))
    records = SimulatedRecords(nats, "a")
    nats.lose_leader(1_000.0)
    took: dict[str, list[float]] = {}
    for _ in range(40):
        began = loop().time()
        took.setdefault(await outcome(records.commit(NAME, 0, b"")), []).append(loop().time() - began)
    assert max(took["StoreUnavailable"]) < 0.01
    assert min(took["CommitUnknown"]) == pytest.approx(nats.timeout_s)


async def test_what_was_applied_before_the_leader_died_may_be_answered_to_nobody() -> None:
    nats = SimulatedNats(seed=1, odds=NatsOdds(latency_s=0.1, late=0))
    commit = SimulatedRecords(nats, "a").commit(NAME, 0, b"there")
    while await nats.store.read(NAME) is None:
        await loop().moved()
    nats.lose_leader()
    assert await outcome(commit) == "CommitUnknown"
    assert "applied, and the answer is lost" in " ".join(nats.journal)


async def test_what_is_sent_without_a_leader_may_be_applied_when_there_is_one_again() -> None:
    nats = SimulatedNats(seed=1, odds=NatsOdds(at_once=0, late=1))
    lasts_s = nats.lose_leader()
    assert await outcome(SimulatedRecords(nats, "a").commit(NAME, 0, b"late")) == "CommitUnknown"
    applied_at = 0.0
    while await nats.store.read(NAME) is None:
        await loop().moved()
        await loop().idle()
        applied_at = since_start()
    assert applied_at >= lasts_s


# -- an old leader -------------------------------------------------------------------------------------------------


async def test_an_old_leader_answers_reads_for_up_to_twenty_seconds_and_takes_no_write() -> None:
    nats = SimulatedNats(seed=1, odds=NatsOdds(late=1))
    old, new = SimulatedRecords(nats, "a"), SimulatedRecords(nats, "b")
    await new.commit(NAME, 0, b"old")
    nats.cut_with_old_leader("a", 60.0)
    await new.commit(NAME, 1, b"new")
    assert (await old.read(NAME)) == Record(NAME, 1, b"old")
    assert [record async for page in old.scan_agents("Cell") for record in page] == [Record(NAME, 1, b"old")]
    assert await outcome(old.commit("Cell/y", 0, b"never")) == "CommitUnknown"
    await asyncio.sleep(14.9 - nats.timeout_s)
    assert (await old.read(NAME)) == Record(NAME, 1, b"old")
    await asyncio.sleep(10.0)
    assert await outcome(old.read(NAME)) == "StoreUnavailable"
    await asyncio.sleep(60.0)
    assert (await old.read(NAME)) == Record(NAME, 2, b"new")
    assert await nats.store.read("Cell/y") is None


async def test_others_are_not_answered_by_it() -> None:
    nats = SimulatedNats(seed=1)
    records = SimulatedRecords(nats, "b")
    await records.commit(NAME, 0, b"1")
    nats.cut_with_old_leader("a")
    await records.commit(NAME, 1, b"2")
    assert (await records.read(NAME)) == Record(NAME, 2, b"2")


# -- silent watches ------------------------------------------------------------------------------------------------


async def hear(records: Records, heard: list[tuple[float, int]]) -> None:
    async for record in records.watch(NAME):
        heard.append((round(since_start(), 1), record.revision))  # noqa: PERF401 - it never ends


async def test_a_watch_is_silent_without_an_error_and_then_hears_all() -> None:
    nats = SimulatedNats(seed=1)
    heard: list[tuple[float, int]] = []
    watching = asyncio.ensure_future(hear(SimulatedRecords(nats, "a"), heard))
    await asyncio.sleep(1.0)
    nats.silence("a")
    for revision in range(3):
        await nats.store.commit(NAME, revision, b"")
    await asyncio.sleep(19.0)
    assert not heard
    assert not watching.done()
    await asyncio.sleep(1.0)
    assert heard == [(20.5, 1), (20.5, 2), (20.5, 3)]
    watching.cancel()


async def test_so_is_a_follower_of_the_log() -> None:
    nats = SimulatedNats(seed=1)
    log, heard = SimulatedLog(nats, "a"), []

    async def follow() -> None:
        async for page in log.follow():
            heard.extend(one.position for one in page)

    following = asyncio.ensure_future(follow())
    await asyncio.sleep(1.0)
    nats.silence("a")
    await log.append([event(1)])
    await log.append([event(2)])
    await asyncio.sleep(19.0)
    assert not heard
    await asyncio.sleep(1.0)
    assert heard == [1, 2]
    following.cancel()


async def test_when_a_leader_is_lost_some_watches_go_silent() -> None:
    nats = SimulatedNats(seed=1, odds=NatsOdds(silenced=0.5))
    for node in "abcdefgh":
        SimulatedRecords(nats, node)
    nats.lose_leader()
    silent = [line for line in nats.journal if "silent" in line]
    assert 0 < len(silent) < 8


# -- refusals, disks, partitions -----------------------------------------------------------------------------------


async def test_a_refusal_is_known_and_for_the_moment() -> None:
    nats = SimulatedNats(seed=1, odds=NatsOdds(refused=0.5))
    records, done = SimulatedRecords(nats, "a"), 0
    outcomes = []
    for _ in range(40):
        outcomes.append(await outcome(records.commit(NAME, done, b"")))
        done += outcomes[-1] == "ok"
    assert set(outcomes) == {"ok", "StoreUnavailable"}
    assert (await nats.store.read(NAME)).revision == done


async def test_a_disk_may_be_slow_failing_or_full() -> None:
    nats = SimulatedNats(seed=1)
    records = SimulatedRecords(nats, "a")
    nats.slow_disk(100.0, 3.0)
    began = loop().time()
    for revision in range(5):
        await records.commit(NAME, revision, b"")
    assert 1.0 < loop().time() - began < 15.1
    nats.fail_disk(1.0)
    with pytest.raises(StoreUnavailable, match="the disk fails"):
        await records.commit(NAME, 5, b"")
    nats.fail_disk(1.0, full=True)
    with pytest.raises(StoreFull):
        await records.commit(NAME, 5, b"")
    assert (await records.read(NAME)).revision == 5
    await asyncio.sleep(1.0)
    assert await outcome(records.commit(NAME, 5, b"")) == "ok"


async def test_a_disk_that_is_slower_than_patience_leaves_the_outcome_unknown() -> None:
    nats = SimulatedNats(seed=1, timeout_s=1.0)
    records = SimulatedRecords(nats, "a")
    nats.slow_disk(100.0, 50.0)
    assert await outcome(records.commit(NAME, 0, b"")) == "CommitUnknown"
    await asyncio.sleep(60.0)
    assert (await nats.store.read(NAME)).revision == 1


async def test_a_node_that_is_cut_off_reaches_nothing_and_the_others_do() -> None:
    nats = SimulatedNats(seed=1, odds=NatsOdds(late=0))
    cut, other = SimulatedRecords(nats, "a"), SimulatedRecords(nats, "b")
    nats.cut("a", 20.0)
    outcomes = await asyncio.gather(outcome(cut.commit(NAME, 0, b"")), outcome(cut.read(NAME)), outcome(other.commit(NAME, 0, b"")))
    assert outcomes == ["CommitUnknown", "StoreUnavailable", "ok"]
    await asyncio.sleep(20.0)
    assert (await cut.read(NAME)).revision == 1


async def test_a_longer_read_comes_whole_or_not_at_all() -> None:
    nats = SimulatedNats(seed=5, odds=NatsOdds(read_fail=0.2, slow=0.5, slow_s=20.0, latency_s=0.01))
    for number in range(3_000):
        await nats.store.commit(f"Cell/{number}", 0, b"")
    records = SimulatedRecords(nats, "a")
    seen = set()
    for _ in range(30):
        found = 0
        try:
            async for page in records.scan_agents("Cell"):
                found += len(page)
        except StoreUnavailable:
            assert not found
        seen.add(found)
    assert seen == {0, 3_000}


async def test_healing_ends_all_of_it() -> None:
    nats = SimulatedNats(seed=1)
    records = SimulatedRecords(nats, "a")
    nats.lose_leader(100.0)
    nats.cut_with_old_leader("a")
    nats.fail_disk(100.0)
    nats.heal()
    assert await outcome(records.commit(NAME, 0, b"")) == "ok"
    assert (await records.read(NAME)).revision == 1


@pytest.mark.parametrize("odds", [{"unknown": 2}, {"late": -1}, {"late_s": "x"}, {"slow": True}])
def test_odds_are_odds(odds: dict[str, Any]) -> None:
    with pytest.raises(InvalidArguments):
        NatsOdds(**odds)


async def test_a_copy_of_a_store_is_its_own() -> None:
    nats = SimulatedNats()
    await nats.store.commit(NAME, 0, b"1", [Row("due", "r", b"row")], [event(1)])
    copy = nats.store.copy()
    await nats.store.commit(NAME, 1, b"2", [Row("due", "r", None)], [event(2)])
    assert await copy.read(NAME) == Record(NAME, 1, b"1")
    assert [row.value async for page in copy.scan("due") for row in page] == [b"row"]
    assert (await copy.log.last(), await copy.log.last("s"), await nats.store.log.last()) == (1, 1, 2)
    await copy.commit(NAME, 1, None)
    assert [row async for page in copy.scan("due") for row in page] == []
    assert await nats.store.read(NAME) == Record(NAME, 2, b"2")


# -- the log -------------------------------------------------------------------------------------------------------


async def test_appends_meet_the_same_and_keep_their_condition() -> None:
    nats = SimulatedNats(seed=1, odds=NatsOdds(unknown=1, late=1))
    log = SimulatedLog(nats, "a")
    assert await outcome(log.append([event(1), event(2)], 0)) == "CommitUnknown"
    await nats.store.log.append([event(3)], 0)
    await asyncio.sleep(100.0)
    assert await log.last() == 1
    assert "arrives late, StreamConflict" in nats.journal[-1]
    assert StreamConflict.code


async def test_an_old_leaders_log_ends_where_it_was_cut_off() -> None:
    nats = SimulatedNats(seed=1)
    old, new = SimulatedLog(nats, "a"), SimulatedLog(nats, "b")
    await new.append([event(1)])
    nats.cut_with_old_leader("a")
    await new.append([event(2)])
    assert (await old.last(), await new.last()) == (1, 2)
    assert [one.position async for page in old.read() for one in page] == [1]


# -- the same again, and judged ------------------------------------------------------------------------------------

STORMY = NatsOdds(unknown=0.05, refused=0.05, read_fail=0.05, slow=0.2, slow_s=3.0)


async def storm(seed: int, *, fresh: bool) -> tuple[list[str], Recording]:
    """Clients on three nodes read and compare-and-set one record, while things go wrong. `fresh`: reads are proven by a compare-and-set."""
    nats, random, recording = SimulatedNats(seed=seed, odds=STORMY), Random(seed), Recording()
    ends = loop().time() + 60.0

    async def client(node: str) -> None:
        records, number = SimulatedRecords(nats, node), 0
        while loop().time() < ends:
            await asyncio.sleep(random.random())
            number += 1
            asked = recording.ask(node, "read", NAME)
            try:
                record = await records.read(NAME)
                if fresh:
                    head = record.head if record else b"0"
                    await records.commit(NAME, record.revision if record else 0, head)
                asked.ok(record.head.decode() if record else "0")
            except StoreError:
                asked.failed()
                continue
            value = f"{node}{number}"
            asked = recording.ask(node, "write", NAME, value)
            await written(asked, records, value)

    async def written(asked: Any, records: Records, value: str) -> None:
        """Write over whatever is there; only who knows that nothing was written tries again."""
        while True:
            try:
                record = await records.read(NAME)
                await records.commit(NAME, record.revision if record else 0, value.encode())
                asked.ok()
            except (Conflict, StoreUnavailable):
                if loop().time() < ends:
                    continue
                asked.failed()
            except CommitUnknown:
                asked.unknown()
            return

    faults: list[Callable[[], object]] = [
        nats.lose_leader,
        lambda: nats.cut("a", 7.0),
        lambda: nats.cut_with_old_leader("b"),
        lambda: nats.slow_disk(5.0, 2.0),
    ]
    clients = [asyncio.ensure_future(client(node)) for node in "abc"]
    while loop().time() < ends:
        await asyncio.sleep(random.random() * 10)
        random.choice(faults)()
    await asyncio.gather(*clients)
    return list(nats.journal), recording


def test_the_same_seed_is_the_same_run_and_another_another() -> None:
    first, again, other = (run(storm(seed, fresh=True))[0] for seed in (4, 4, 5))
    assert len(first) > 20
    assert first == again
    assert first != other


def test_compare_and_set_is_exact_and_reads_alone_are_not() -> None:
    """A register whose reads are proven by a compare-and-set is linearizable in every storm; one that trusts reads isn't in some."""
    assert all(check_registers(run(storm(seed, fresh=True))[1].history(), initial="0") for seed in range(8))
    wrong = [one.what for seed in range(8) for one in check_registers(run(storm(seed, fresh=False))[1].history(), initial="0").wrong]
    assert {"stale read", "lost write"} & set(wrong)
