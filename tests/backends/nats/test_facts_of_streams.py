"""What records rely on in JetStream, asked of the real server: an upgrade that changes a fact is seen here."""

import asyncio

import pytest

from jidosystem.backends.nats.jetstream import IN_FLIGHT, MAX_BATCH, WRONG_SEQUENCE, Entry, JetStream, Refused

EXPECTED = "Nats-Expected-Last-Subject-Sequence"


@pytest.fixture
async def jetstream(settings, connection):
    jetstream = JetStream(connection)
    name = f"{settings.cluster}-facts"
    config = {"storage": "file", "max_msgs_per_subject": 1, "discard": "new", "allow_atomic": True, "allow_msg_ttl": True, "max_bytes": 10**7}
    await jetstream.api(f"STREAM.CREATE.{name}", {"name": name, "subjects": ["f.>"], **config})
    jetstream.name = name
    yield jetstream
    await jetstream.api(f"STREAM.UPDATE.{name}", {"name": name, "subjects": [f"{name}.>"], **config})  # the subjects are free again


async def last_sequence(jetstream):
    return (await jetstream.api(f"STREAM.INFO.{jetstream.name}"))["state"]["last_seq"]


async def test_the_sequences_of_a_batch_follow_each_other_and_its_acknowledgement_has_the_last(jetstream):
    first = await jetstream.publish(Entry("f.a", b"1"))
    ack = await jetstream.publish_batch([Entry(f"f.{name}", b"2") for name in "bcd"], batch_id="x")
    assert ack.sequence == first.sequence + 3
    assert [(await jetstream.last_of(jetstream.name, f"f.{name}")).sequence for name in "bcd"] == [ack.sequence - 2, ack.sequence - 1, ack.sequence]


@pytest.mark.parametrize("wrong", [0, 1, 2])
async def test_a_batch_with_one_wrong_expectation_writes_nothing(jetstream, wrong):
    await jetstream.publish(Entry("f.1", b"there"))
    before = await last_sequence(jetstream)
    entries = [Entry(f"f.{number}", b"n", {EXPECTED: "7" if number == wrong else str(before if number == 1 else 0)}) for number in range(3)]
    with pytest.raises(Refused) as raised:
        await jetstream.publish_batch(entries, batch_id="x")
    assert raised.value.code == WRONG_SEQUENCE
    assert await last_sequence(jetstream) == before
    assert (await jetstream.last_of(jetstream.name, "f.1")).payload == b"there"


async def test_a_refusal_tells_the_sequence_that_is_there(jetstream):
    ack = await jetstream.publish(Entry("f.a", b"1"))
    with pytest.raises(Refused, match=f"wrong last sequence: {ack.sequence} "):
        await jetstream.publish(Entry("f.a", b"2", {EXPECTED: "0"}))


async def test_a_batch_holds_a_thousand_messages_and_no_more(jetstream):
    ack = await jetstream.publish_batch([Entry(f"f.{number}", b"n") for number in range(MAX_BATCH)], batch_id="x")
    assert ack.sequence == await last_sequence(jetstream) == MAX_BATCH
    for number in range(MAX_BATCH):
        jetstream.connection.publish(f"f.{number}", b"n", headers=b"NATS/1.0\r\nNats-Batch-Id: y\r\nNats-Batch-Sequence: %d\r\n\r\n" % (number + 1))
    headers = b"NATS/1.0\r\nNats-Batch-Id: y\r\nNats-Batch-Sequence: %d\r\nNats-Batch-Commit: 1\r\n\r\n" % (MAX_BATCH + 1)
    answer = await jetstream.connection.request("f.last", b"n", headers=headers, timeout_s=5)
    assert b'"error"' in answer.data
    assert await last_sequence(jetstream) == MAX_BATCH


async def test_a_batch_whose_end_never_comes_is_nothing(jetstream):
    jetstream.connection.publish("f.a", b"n", headers=b"NATS/1.0\r\nNats-Batch-Id: z\r\nNats-Batch-Sequence: 1\r\n\r\n")
    await jetstream.publish(Entry("f.b", b"1"))
    assert await jetstream.last_of(jetstream.name, "f.a") is None


async def test_a_message_with_a_time_to_live_is_forgotten_and_reveals_nothing_older(jetstream):
    await jetstream.publish(Entry("f.a", b"old"))
    sequence = (await jetstream.publish(Entry("f.a", b"", {"Nats-TTL": "1s"}))).sequence
    async with asyncio.timeout(20):
        while (found := await jetstream.last_of(jetstream.name, "f.a")) is not None:
            assert found.payload == b""
            await asyncio.sleep(0.1)  # the server tells nobody
    assert (await jetstream.publish(Entry("f.a", b"new", {EXPECTED: "0"}))).sequence > sequence


async def test_of_conditional_writes_at_once_one_is_taken_and_none_of_the_others(jetstream):
    ended = await asyncio.gather(*(jetstream.publish(Entry("f.a", b"%d" % number, {EXPECTED: "0"})) for number in range(200)), return_exceptions=True)
    refused = [one for one in ended if isinstance(one, Refused)]
    assert len(refused) == 199 and {one.code for one in refused} <= {WRONG_SEQUENCE, IN_FLIGHT}
    assert await last_sequence(jetstream) == 1
