"""What NATS and its client really do, as far as our adapters rely on it or were built around it.

Each test is a fact, seen with the plain client on a real server. One that fails after an upgrade says which of our reasons has changed:
the adapter may have become wrong, or simpler.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.errors import ConnectionClosedError, FlushTimeoutError, NoRespondersError, OutboundBufferLimitError

from jidosystem.backends.nats.server import NatsCluster, NatsServer, nats_servers
from jidosystem.backends.nats.settings import NatsSettings

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_ids = count(1)


async def quiet(_error: Exception) -> None:
    """The library would log what these tests provoke."""


async def client_of(settings: NatsSettings, **options: Any) -> Client:
    return await nats.connect(list(settings.servers), user=settings.user, password=settings.password, **{"error_cb": quiet, **options})


async def api(client: Client, path: str, body: Any = None, timeout: float = 10) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((await client.request(f"$JS.API.{path}", json.dumps(body).encode() if body else b"", timeout=timeout)).data)
    return answer


async def stream(client: Client, **more: Any) -> str:
    """A new stream, its subjects are `<name>.>`."""
    name = f"fact{next(_ids)}"
    config = {"name": name, "subjects": [f"{name}.>"], "storage": "file", "max_bytes": 16 * 1024 * 1024, "num_replicas": 1, **more}
    made: dict[str, Any] = {}
    async with asyncio.timeout(30):
        while "config" not in made:  # peers that a test before has hurt come back one by one
            made = await api(client, f"STREAM.CREATE.{name}", config)
            assert "config" in made or made["error"]["err_code"] in (10005, 10008), made
            await asyncio.sleep(0.05)
    return name


async def write(client: Client, subject: str, data: bytes = b"x", timeout: float = 5, **headers: str) -> Any:
    """The sequence, "duplicate", or the error's code."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    ack = json.loads((await client.request(subject, data, timeout=timeout, headers=named or None)).data)
    return "duplicate" if ack.get("duplicate") else ack.get("error", {}).get("err_code") or ack["seq"]


async def messages(client: Client, name: str) -> int:
    return int((await api(client, f"STREAM.INFO.{name}"))["state"]["messages"])


async def until(client: Client, name: str, wanted: int) -> None:
    """Until so many messages are in the stream: nobody tells of that."""
    for _ in range(200):
        if await messages(client, name) == wanted:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"there are never {wanted} messages")


async def batch(client: Client, entries: list[tuple[str, dict[str, str]]]) -> Any:
    return await batch_as(client, f"b{next(_ids)}", entries)


async def batch_as(client: Client, ident: str, entries: list[tuple[str, dict[str, str]]]) -> Any:
    for number, (subject, headers) in enumerate(entries, 1):
        marks = {**headers, "Nats-Batch-Id": ident, "Nats-Batch-Sequence": str(number)}
        if number < len(entries):
            await client.publish(subject, b"x", headers=marks)
            continue
        return await write(client, subject, **marks, **{"Nats-Batch-Commit": "1"})
    raise ValueError("a batch of nothing")


@pytest.fixture
async def one(one_server: NatsCluster) -> AsyncIterator[Client]:
    client = await client_of(one_server.settings(user="admin"))
    yield client
    await client.close()


@pytest.fixture
async def three(three_servers: NatsCluster) -> AsyncIterator[Client]:
    client = await client_of(three_servers.settings(user="admin"), ping_interval=1, reconnect_time_wait=0.2, max_reconnect_attempts=-1)
    yield client
    await client.close()


async def leader_of(client: Client, name: str, cluster: NatsCluster) -> NatsServer:
    leader = (await api(client, f"STREAM.INFO.{name}"))["cluster"]["leader"]
    return next(server for server in cluster.servers if server.peer.name == leader)


# -- compare-and-set -----------------------------------------------------------------------------------------------


async def test_of_racing_conditional_writes_one_wins_and_the_others_are_decided_on_one_server(one: Client) -> None:
    name = await stream(one)
    ended = Counter(await asyncio.gather(*(write(one, f"{name}.k", **{EXPECTED: "0"}) for _ in range(30))))
    assert ended == {1: 1, 10071: 29}


async def test_of_racing_conditional_writes_one_wins_and_the_others_may_be_told_to_try_again_on_three(three: Client) -> None:
    name = await stream(three, num_replicas=3)
    ended = Counter(await asyncio.gather(*(write(three, f"{name}.k", **{EXPECTED: "0"}) for _ in range(30))))
    assert ended[1] == 1 and set(ended) <= {1, 10071, 10164}
    assert await write(three, f"{name}.k", **{EXPECTED: "0"}) == 10071
    assert await write(three, f"{name}.k", **{EXPECTED: "1"}) == 2


async def test_a_message_id_counts_for_the_whole_stream(one: Client) -> None:
    name = await stream(one)
    assert await write(one, f"{name}.a", Nats_Msg_Id="1") == 1
    assert await write(one, f"{name}.b", Nats_Msg_Id="1") == "duplicate"
    assert await messages(one, name) == 1


async def test_whether_the_condition_or_the_id_is_checked_first_depends_on_how_many_servers_there_are(one: Client, three: Client) -> None:
    for client, replicas, second in ((one, 1, 10071), (three, 3, "duplicate")):
        name = await stream(client, num_replicas=replicas)
        assert await write(client, f"{name}.k", Nats_Msg_Id="1", **{EXPECTED: "0"}) == 1
        assert await write(client, f"{name}.k", Nats_Msg_Id="1", **{EXPECTED: "0"}) == second


async def test_direct_gets_stay_forbidden_where_they_were_forbidden(one: Client) -> None:
    name = await stream(one, max_msgs_per_subject=1, allow_direct=False)
    assert (await api(one, f"STREAM.INFO.{name}"))["config"]["allow_direct"] is False
    with pytest.raises(NoRespondersError):
        await one.request(f"$JS.API.DIRECT.GET.{name}", b'{"seq":1}', timeout=5)


# -- atomic batches ------------------------------------------------------------------------------------------------


async def test_a_batch_is_stored_whole_or_not_at_all_on_one_server(one: Client) -> None:
    await whole_or_not_at_all(one, 1)


async def test_a_batch_is_stored_whole_or_not_at_all_on_three(three: Client) -> None:
    await whole_or_not_at_all(three, 3)


async def whole_or_not_at_all(client: Client, replicas: int) -> None:
    name = await stream(client, num_replicas=replicas, allow_atomic=True)
    wanted = [(f"{name}.{i}", {EXPECTED: "0"}) for i in range(100)]
    assert await batch(client, wanted) == 100
    wrong = [(f"{name}.{i}", {EXPECTED: str(i + 1)}) for i in range(99)] + [(f"{name}.99", {EXPECTED: "1"})]
    assert await batch(client, wrong) == 10071
    assert await messages(client, name) == 100
    right = [(f"{name}.{i}", {EXPECTED: str(i + 1)}) for i in range(100)]
    assert await batch(client, right) == 200


async def test_a_batch_that_is_sent_again_is_stored_again_unless_its_conditions_forbid_it(one: Client) -> None:
    name = await stream(one, allow_atomic=True)
    ident = f"b{next(_ids)}"
    assert [await batch_as(one, ident, [(f"{name}.k", {}), (f"{name}.k", {})]) for _ in range(2)] == [2, 4]
    ident = f"b{next(_ids)}"
    assert [await batch_as(one, ident, [(f"{name}.k", {EXPECTED: "4"}), (f"{name}.k", {})]) for _ in range(2)] == [6, 10071]


async def test_a_batch_has_at_most_a_thousand_messages(one: Client) -> None:
    name = await stream(one, allow_atomic=True)
    assert await batch(one, [(f"{name}.k", {})] * 1_000) == 1_000
    assert await batch(one, [(f"{name}.k", {})] * 1_001) == 10199
    assert await messages(one, name) == 1_000


async def test_the_end_of_a_batch_whose_beginning_is_unknown_is_refused(one: Client) -> None:
    name = await stream(one, allow_atomic=True)
    assert await write(one, f"{name}.k", Nats_Batch_Id="nowhere", Nats_Batch_Sequence="2", Nats_Batch_Commit="1") == 10176
    assert await messages(one, name) == 0


# -- time to live --------------------------------------------------------------------------------------------------


async def test_a_time_to_live_takes_whole_seconds_and_an_update_drops_it(one: Client) -> None:
    name = await stream(one, max_msgs_per_subject=1, allow_msg_ttl=True)
    assert await write(one, f"{name}.k", Nats_TTL="500ms") == 10165
    await write(one, f"{name}.gone", Nats_TTL="1s")
    await write(one, f"{name}.kept", Nats_TTL="1s")
    await write(one, f"{name}.kept")
    await until(one, name, 1)
    left = await api(one, f"STREAM.MSG.GET.{name}", {"last_by_subj": f"{name}.>"})
    assert left["message"]["subject"] == f"{name}.kept"


@pytest.mark.torture
async def test_a_key_that_is_renewed_each_second_expires_when_the_leader_is_killed(three: Client, three_servers: NatsCluster) -> None:
    name = await stream(three, num_replicas=3, max_msgs_per_subject=1, allow_msg_ttl=True)
    sequence = await write(three, f"{name}.lease", Nats_TTL="3s")
    (await leader_of(three, name, three_servers)).kill()
    async with asyncio.timeout(60):
        while True:
            await asyncio.sleep(1)
            try:
                renewed = await write(three, f"{name}.lease", timeout=1, Nats_TTL="3s", **{EXPECTED: str(sequence)})
            except (NoRespondersError, TimeoutError, ConnectionClosedError, OutboundBufferLimitError):
                continue
            break
    assert renewed == 10071, "the lease outlived the election"


# -- writes without an answer, and reads that are behind -----------------------------------------------------------


async def test_a_write_that_timed_out_can_be_applied_later(tmp_path: Path) -> None:
    with nats_servers(tmp_path) as cluster:
        client = await client_of(cluster.settings(user="admin"))
        name = await stream(client)
        cluster.servers[0].pause()
        with pytest.raises(TimeoutError):
            await write(client, f"{name}.k", timeout=0.3)
        cluster.servers[0].resume()
        await until(client, name, 1)
        await client.close()


async def test_a_leader_that_is_alone_answers_reads_and_acknowledges_no_write(three: Client, three_servers: NatsCluster) -> None:
    name = await stream(three, num_replicas=3)
    await write(three, f"{name}.k")
    leader = await leader_of(three, name, three_servers)
    near = await client_of(type(three_servers.settings())(servers=(leader.url,), user="admin", password=three_servers.secrets.admin))
    for server in three_servers.servers:
        if server is not leader:
            server.pause()
    found = await api(near, f"STREAM.MSG.GET.{name}", {"last_by_subj": f"{name}.k"}, timeout=2)
    assert found["message"]["seq"] == 1
    with pytest.raises(TimeoutError):
        await write(near, f"{name}.k", timeout=1)
    await near.close()


@pytest.mark.torture  # a matter of moments: now and then it hears first that another one leads
async def test_a_leader_that_was_stopped_refuses_by_what_it_knew(three: Client, three_servers: NatsCluster) -> None:
    name = await stream(three, num_replicas=3)
    before = await write(three, f"{name}.k")
    leader = await leader_of(three, name, three_servers)
    near = await client_of(type(three_servers.settings())(servers=(leader.url,), user="admin", password=three_servers.secrets.admin))
    far = next(server for server in three_servers.servers if server is not leader)
    client = await client_of(type(three_servers.settings())(servers=(far.url,), user="admin", password=three_servers.secrets.admin))
    leader.pause()
    after = before
    async with asyncio.timeout(60):
        while after == before:
            try:
                after = await write(client, f"{name}.k", timeout=0.5)
            except (NoRespondersError, TimeoutError):
                await asyncio.sleep(0.05)
    answer = asyncio.ensure_future(near.request(f"{name}.k", b"x", timeout=20, headers={EXPECTED: str(after)}))
    await asyncio.sleep(0.1)
    leader.resume()
    said = json.loads((await answer).data)["error"]
    assert (said["err_code"], said["description"]) == (10071, f"wrong last sequence: {before}")
    await near.close()
    await client.close()


async def test_what_is_published_without_a_connection_is_kept_and_sent_later_unless_that_is_switched_off(tmp_path: Path) -> None:
    with nats_servers(tmp_path) as cluster:
        lost: asyncio.Queue[int] = asyncio.Queue()

        async def disconnected() -> None:
            lost.put_nowait(1)

        options = {"disconnected_cb": disconnected, "reconnect_time_wait": 0.1, "max_reconnect_attempts": -1}
        keeps, refuses = await client_of(cluster.settings(), **options), await client_of(cluster.settings(), **options, pending_size=0)
        heard = await keeps.subscribe("later")
        cluster.servers[0].kill()
        await lost.get()
        await lost.get()
        await keeps.publish("later", b"kept")
        with pytest.raises(OutboundBufferLimitError):
            await refuses.publish("later", b"refused")
        cluster.servers[0].start()
        assert (await heard.next_msg(timeout=20)).data == b"kept"
        await keeps.close()
        await refuses.close()


@pytest.mark.torture
async def test_without_its_leader_a_stream_takes_writes_again_after_an_election(three: Client, three_servers: NatsCluster) -> None:
    name = await stream(three, num_replicas=3)
    (await leader_of(three, name, three_servers)).kill()
    since, told = time.monotonic(), Counter[str]()
    async with asyncio.timeout(30):
        while True:
            try:
                await write(three, f"{name}.k", timeout=0.5)
            except (NoRespondersError, TimeoutError, ConnectionClosedError, OutboundBufferLimitError) as error:
                told[type(error).__name__] += 1
                await asyncio.sleep(0.02)
            else:
                break
    assert told["NoRespondersError"] > 10, f"after {time.monotonic() - since:.1f} s: {told}"


# -- the client ----------------------------------------------------------------------------------------------------


async def test_nobody_there_is_told_at_once(one: Client) -> None:
    with pytest.raises(NoRespondersError):
        await asyncio.wait_for(one.request("nobody", b"", timeout=60), 5)


async def test_headers_and_payload_over_the_limit_close_the_client_for_good(one_server: NatsCluster) -> None:
    closed = asyncio.Event()

    async def on_closed() -> None:
        closed.set()

    client = await client_of(one_server.settings(), closed_cb=on_closed)
    await client.publish("x", bytes(client.max_payload), headers={"one": "more"})
    await asyncio.wait_for(closed.wait(), 10)
    assert client.is_closed


async def test_a_callback_that_raises_stops_reconnecting(tmp_path: Path) -> None:
    with nats_servers(tmp_path) as cluster:
        called = asyncio.Event()

        async def fail() -> None:
            called.set()
            raise ValueError("no")

        client = await client_of(cluster.settings(), disconnected_cb=fail, reconnect_time_wait=0.05, max_reconnect_attempts=-1)
        cluster.servers[0].kill()
        await asyncio.wait_for(called.wait(), 10)
        await asyncio.sleep(0)
        cluster.servers[0].start()
        cluster.servers[0].wait_ready()
        task = client._reconnection_task
        assert task is not None and task.done() and isinstance(task.exception(), ValueError)
        assert client.is_reconnecting  # for ever
        client._transport._io_writer.transport.abort()  # type: ignore[union-attr]


async def test_a_pong_that_comes_after_its_waiter_gave_up_ends_the_reading(tmp_path: Path) -> None:
    with nats_servers(tmp_path) as cluster:
        client = await client_of(cluster.settings())
        cluster.servers[0].pause()
        with pytest.raises(FlushTimeoutError):
            await client.flush(timeout=0.2)  # type: ignore[arg-type]
        reading = client._reading_task
        assert reading is not None and not reading.done()
        cluster.servers[0].resume()
        await asyncio.wait({reading}, timeout=10)
        assert reading.done() and client.is_connected
        await client.close()


async def test_an_ordered_consumer_loses_messages_for_good_after_an_overflow_here(one: Client) -> None:
    name = await stream(one)
    js = one.jetstream()
    await asyncio.gather(*(js.publish(f"{name}.k", b"%d" % i, timeout=60) for i in range(2_000)))
    consumer = await js.subscribe(f"{name}.k", ordered_consumer=True, pending_msgs_limit=100)
    await asyncio.sleep(0.5)  # it is busy with something else
    got: list[int] = []
    while True:
        try:
            got.append(int((await consumer.next_msg(timeout=1)).data))
        except TimeoutError:
            break
    assert len(got) < 2_000
    await consumer.unsubscribe()


@pytest.mark.torture
async def test_a_watch_falls_silent_when_the_server_of_its_consumer_dies(three: Client, three_servers: NatsCluster) -> None:
    js = three.jetstream()
    await stream(three, num_replicas=3)  # all peers are there
    bucket = await js.create_key_value(bucket=f"fact{next(_ids)}", replicas=3, max_bytes=1024 * 1024)
    watch = await bucket.watchall()
    assert await watch.updates(timeout=5) is None
    consumers = await api(three, f"CONSUMER.LIST.{bucket._stream}")
    holder = consumers["consumers"][0]["cluster"]["leader"]
    if holder == (await api(three, f"STREAM.INFO.{bucket._stream}"))["cluster"]["leader"]:
        await api(three, f"STREAM.LEADER.STEPDOWN.{bucket._stream}")
    next(server for server in three_servers.servers if server.peer.name == holder).kill()
    async with asyncio.timeout(60):
        while True:
            try:
                await bucket.put("key", b"changed")
            except Exception:
                await asyncio.sleep(0.1)
            else:
                break
    with pytest.raises(TimeoutError):
        await watch.updates(timeout=3)


# -- the stream ----------------------------------------------------------------------------------------------------


async def test_a_full_stream_refuses_what_is_new_and_keeps_what_it_has(one: Client) -> None:
    name = await stream(one, discard="new", max_bytes=20_000, allow_atomic=True)
    told = [await write(one, f"{name}.k", bytes(5_000)) for _ in range(6)]
    assert told[:3] == [1, 2, 3] and told[-1] == 10077
    assert await messages(one, name) == told.index(10077)


async def test_between_servers_a_request_to_who_has_just_stopped_listening_is_lost(three_servers: NatsCluster) -> None:
    """Neither an answer nor "no responders": the servers hear of a subscription's end one after another. Why a node that leaves listens on."""
    settings, ends, subject = three_servers.settings(), Counter[str](), f"fact{next(_ids)}"
    asker, server = [
        await nats.connect(address, user=settings.user, password=settings.password, error_cb=quiet, allow_reconnect=False)
        for address in settings.servers[:2]
    ]
    ending = False

    async def answer(message: Any) -> None:
        await message.respond(b"")

    async def ask_on() -> None:
        while not ending:
            try:
                await asker.request(subject, b"", timeout=1)
                ends["answered"] += 1
            except NoRespondersError:
                ends["nobody there"] += 1
                await asyncio.sleep(0.001)
            except nats.errors.TimeoutError:
                ends["lost"] += 1

    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(ask_on())
        while not ends["lost"]:
            subscription = await server.subscribe(subject, cb=answer)
            await asyncio.sleep(0.2)
            await subscription.drain()
            await asyncio.sleep(0.05)
        ending = True
    assert ends["answered"]
    assert ends["nobody there"]
    await asker.close()
    await server.close()
