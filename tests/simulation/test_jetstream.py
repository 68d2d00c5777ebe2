"""The servers of the simulation do what real ones were seen to do around leaders that come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count

from jidosystem import testing
from jidosystem.backends.nats.connection import Connection
from jidosystem.backends.nats.jetstream import IN_FLIGHT, INCOMPLETE_BATCH, WRONG_SEQUENCE, Entry, JetStream, Refused
from jidosystem.core.errors import CommitUnknown
from tests.simulation.jetstream import OVERTAKEN_S, Servers
from tests.simulation.links import connected

STREAM = {"name": "s", "subjects": ["s.>"]}
ELECTED_S = 9.1
"""By then another one leads."""
_batches = count(1)


def on_servers(main: Callable[[Servers, JetStream], Awaitable[None]], seed: int = 1) -> None:
    """Run something with servers that have a stream, and a connection to one that doesn't lead it, so that it may be hurt."""

    async def go() -> None:
        servers = Servers(seed)
        connection = await connected(servers, "t")
        jetstream = JetStream(connection)
        await jetstream.api("STREAM.CREATE.s", STREAM)
        await _to_a_follower(servers, connection)
        await main(servers, jetstream)
        servers.heal()
        await connection.close()

    testing.run(go())


async def _to_a_follower(servers: Servers, connection: Connection) -> None:
    client = connection._client
    client.server = next(server for server in servers.all if server is not servers.streams["s"].leader)


async def write(jetstream: JetStream, expected: int, payload: bytes = b"x", subject: str = "s.a") -> int:
    """One attempt; the sequence."""
    entry = Entry(subject, payload, {"Nats-Expected-Last-Subject-Sequence": str(expected)})
    return (await jetstream.publish(entry, timeout_s=0)).sequence


async def code_of(doing: Awaitable[object]) -> int:
    """How something was refused."""
    try:
        await doing
    except Refused as refused:
        return refused.code
    raise AssertionError("it was accepted")


def stored(servers: Servers) -> list[bytes]:
    """All that is there."""
    return [kept.payload for kept in servers.streams["s"].kept]


def test_compare_and_set_is_exact_and_what_is_in_flight_is_told_apart() -> None:
    async def main(servers: Servers, jetstream: JetStream) -> None:
        assert await write(jetstream, 0) == 1
        assert await code_of(write(jetstream, 0)) == WRONG_SEQUENCE
        first = asyncio.ensure_future(write(jetstream, 1, b"one"))
        await asyncio.sleep(0)
        assert await code_of(write(jetstream, 1, b"other")) == IN_FLIGHT
        assert await first == 2
        assert stored(servers) == [b"x", b"one"]

    on_servers(main)


def test_a_leader_that_was_stopped_refuses_by_what_it_knew_while_the_next_one_stores() -> None:
    async def main(servers: Servers, jetstream: JetStream) -> None:
        old = servers.streams["s"].leader
        assert old is not None
        await write(jetstream, 0)
        servers.stop(old, ELECTED_S)
        await asyncio.sleep(ELECTED_S - 0.05)
        assert servers.streams["s"].leader is not old
        assert await write(jetstream, 1) == 2
        await asyncio.sleep(0.051)
        assert await code_of(write(jetstream, 2, b"both")) == WRONG_SEQUENCE
        await asyncio.sleep(0.1)
        assert stored(servers) == [b"x", b"x", b"both"]
        found = await jetstream.last_of("s", "s.a")
        assert found is not None and found.sequence in (1, 3), "and reads are answered by either"
        await asyncio.sleep(OVERTAKEN_S[1])
        assert await write(jetstream, 3) == 4, "until it has heard of the other"

    on_servers(main)


def test_what_was_sent_to_a_stopped_leader_is_done_when_it_goes_on_if_it_still_leads() -> None:
    async def main(servers: Servers, jetstream: JetStream) -> None:
        leader = servers.streams["s"].leader
        assert leader is not None
        servers.stop(leader, 3.0)
        try:
            await write(jetstream, 0, b"late")
        except CommitUnknown:
            assert stored(servers) == []
        await asyncio.sleep(3.0)
        assert stored(servers) == [b"late"]

    on_servers(main)


def test_what_a_leader_had_taken_when_it_died_is_there_or_is_not() -> None:
    there = set[int]()
    for seed in range(12):

        async def main(servers: Servers, jetstream: JetStream) -> None:
            leader = servers.streams["s"].leader
            assert leader is not None
            writing = asyncio.ensure_future(write(jetstream, 0))
            await testing.loop.virtual_loop().moved()
            while not servers.streams["s"].pending:
                await testing.loop.virtual_loop().moved()
            servers.kill(leader, 1.0)
            await asyncio.wait([writing])
            assert isinstance(writing.exception(), CommitUnknown)
            await asyncio.sleep(ELECTED_S)
            there.add(len(stored(servers)))

        on_servers(main, seed)
    assert there == {0, 1}


def test_a_leader_that_is_cut_off_answers_reads_and_acknowledges_nothing() -> None:
    async def main(servers: Servers, jetstream: JetStream) -> None:
        leader = servers.streams["s"].leader
        assert leader is not None
        await write(jetstream, 0)
        other = JetStream(await connected(servers, "t"))
        other.connection._client.server = leader
        servers.cut_off(leader, 40.0)
        await asyncio.sleep(ELECTED_S)
        assert await write(jetstream, 1) == 2
        found = await other.last_of("s", "s.a")
        assert found is not None and found.sequence == 1
        assert await code_of(write(other, 2)) == WRONG_SEQUENCE
        await asyncio.sleep(20.0)
        assert not servers.streams["s"].copies[leader.number].leads
        await other.connection.close()

    on_servers(main)


def test_batches_are_stored_whole_or_not_at_all() -> None:
    async def main(servers: Servers, jetstream: JetStream) -> None:
        batch = [Entry(f"s.{name}", b"x", {"Nats-Expected-Last-Subject-Sequence": "0"}) for name in "abc"]
        assert (await jetstream.publish_batch(batch, batch_id=f"b{next(_batches)}")).sequence == 3
        batch[0] = Entry("s.new", b"x", {"Nats-Expected-Last-Subject-Sequence": "0"})
        assert await code_of(jetstream.publish_batch(batch, batch_id=f"b{next(_batches)}")) == WRONG_SEQUENCE
        headers = b"NATS/1.0\r\nNats-Batch-Id: lost\r\nNats-Batch-Sequence: 2\r\nNats-Batch-Commit: 1\r\n\r\n"
        answer = await jetstream.connection.request("s.new", b"x", headers=headers, timeout_s=1.0)
        assert str(INCOMPLETE_BATCH).encode() in answer.data
        assert len(stored(servers)) == 3

    on_servers(main)
