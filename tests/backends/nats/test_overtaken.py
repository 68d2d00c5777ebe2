"""Writes that a leader refuses which is none any more, while the one that came after it stores them."""

from __future__ import annotations

import asyncio

import pytest

from jidosystem.backends.nats.committing import SMALL as FEW
from jidosystem.backends.nats.jetstream import IN_FLIGHT, INCOMPLETE_BATCH, WRONG_SEQUENCE
from jidosystem.backends.nats.log import NatsLog
from jidosystem.backends.nats.settings import NatsSettings
from jidosystem.core.errors import CommitUnknown, Conflict
from jidosystem.core.events import Event
from jidosystem.core.records import Row

from .overtaken import overtaken
from .test_log import SMALL, event
from .test_records_faults import opened

REFUSALS = {
    "knows less": (WRONG_SEQUENCE, "wrong last sequence: 0"),
    "another is in flight": (IN_FLIGHT, "wrong last sequence"),
    "unknown batch": (INCOMPLETE_BATCH, "atomic publish batch is incomplete"),
    "no leader": (10008, "JetStream system temporarily unavailable"),
}


def events(first: int) -> list[Event]:
    return [event(f"s{number % 3}", first + number) for number in range(6)]


@pytest.fixture(params=REFUSALS)
def refusal(request: pytest.FixtureRequest) -> tuple[int, str]:
    return REFUSALS[request.param]


async def test_events_are_stored_once(settings_of_three: NatsSettings, refusal: tuple[int, str]) -> None:
    async with overtaken(settings_of_three) as (way, settings):
        log = await NatsLog.open(settings, SMALL)
        told = [*await log.append(events(0))]
        way.refusals = [refusal, refusal]
        told += await log.append(events(6))
        await log.append_once("emitter", 1, events(12))
        way.refusals = [refusal]
        await log.append_once("emitter", 2, events(18))
        found = [(one.data["number"], one.position) async for page in log.read() for one in page]
        assert [number for number, _ in found] == [*range(24)]
        assert [position for _, position in found[:12]] == told
        assert way.said >= 2
        await log.close()


@pytest.mark.parametrize("agents", [1, 3, FEW, 100])
@pytest.mark.parametrize("rows", [0, 2])
async def test_a_commit_happens_once(settings_of_three: NatsSettings, refusal: tuple[int, str], agents: int, rows: int) -> None:
    async with overtaken(settings_of_three) as (way, settings), opened(settings, partitions=1) as records:
        revisions = dict.fromkeys((f"T/{number}" for number in range(agents)), 0)
        for turn in range(3):
            if turn:
                way.refusals = [refusal] * turn
            new = [Row("key", f"{turn}-{number}", b"v", create=True) for number in range(rows)]
            done = await asyncio.gather(*(records.commit(agent, revision, b"%d" % turn, new) for agent, revision in revisions.items()))
            revisions = {agent: one.revision for agent, one in zip(revisions, done, strict=True)}
        assert way.said >= 2
        for agent, revision in revisions.items():
            found = await records.read(agent)
            assert found is not None
            assert (found.revision, found.head) == (revision, b"2")
            assert len(await records.read_rows(agent, "key")) == 3 * rows


async def test_who_expects_what_never_was_is_told_so(settings_of_three: NatsSettings) -> None:
    async with opened(settings_of_three) as records:
        done = await records.commit("T/a", 0, b"1")
        for expected in (done.revision + 1, done.revision + 1_000):
            with pytest.raises(Conflict) as raised:
                await records.commit("T/a", expected, b"2")
            assert raised.value.actual == done.revision
        with pytest.raises(Conflict) as raised:
            await records.commit("T/b", 7, b"2")
        assert raised.value.actual == 0


async def test_what_cant_be_read_back_is_unknown(settings_of_three: NatsSettings) -> None:
    async with overtaken(settings_of_three) as (way, settings), opened(settings, read_timeout_s=0.5) as records:
        done = await records.commit("T/a", 0, b"1")
        way.refusals, way.deaf_to = [REFUSALS["knows less"]], b"$JS.API.STREAM.MSG.GET"
        with pytest.raises(CommitUnknown):
            await records.commit("T/a", done.revision, b"2")
        way.deaf_to = b"\n"
        found = await records.read("T/a")
        assert found is not None
        assert found.head == b"2"


async def test_a_server_that_is_slow_is_waited_for(settings: NatsSettings) -> None:
    async with overtaken(settings) as (way, slow), opened(slow) as records:
        await records.commit("T/a", 0, b"1")
        way.slow_to, way.slow_s = b"$JS.API.STREAM.MSG.GET", 3.0
        found = await records.read("T/a")
        assert found is not None
        assert found.head == b"1"
