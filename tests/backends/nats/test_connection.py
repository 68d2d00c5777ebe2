"""A connection that stays: over servers that are killed or paused, over clients that die; and nothing is sent later than its sender knows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from jidosystem.backends.nats.connection import Connection, Notice
from jidosystem.backends.nats.server import NatsCluster, nats_servers
from jidosystem.backends.nats.settings import NatsSettings
from jidosystem.core.errors import InvalidConfig, NodeUnreachable, OutcomeUnknown, StoreUnavailable, TooLarge, WireTimeout


class Heard:
    """What a connection told, and a way to wait for more."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self._more = asyncio.Event()

    def __call__(self, notice: Notice) -> None:
        self.notices.append(notice)
        self._more.set()

    async def wait_for(self, kind: str, timeout_s: float = 30.0) -> None:
        async with asyncio.timeout(timeout_s):
            while kind not in [notice.kind for notice in self.notices]:
                self._more.clear()
                await self._more.wait()


async def echo_on(connection: Connection, subject: str) -> None:
    def take(_subject: bytes, reply: bytes, data: bytes, _headers: object) -> None:
        connection.publish(reply.decode(), data)

    await connection.subscribe(subject, take)


async def test_a_request_is_answered_and_nobody_there_is_known_at_once(connection: Connection) -> None:
    await echo_on(connection, "here")
    assert (await connection.request("here", b"\r\n\x00", timeout_s=5)).data == b"\r\n\x00"
    with pytest.raises(NodeUnreachable):
        await asyncio.wait_for(connection.request("nowhere", timeout_s=60), 5)


async def test_nothing_over_the_servers_limit_is_sent_headers_counted(connection: Connection) -> None:
    await echo_on(connection, "here")
    headers = b"NATS/1.0\r\na: b\r\n\r\n"
    limit = connection.max_payload_bytes
    with pytest.raises(TooLarge, match="nothing was sent"):
        connection.publish("here", bytes(limit - len(headers) + 1), headers=headers)
    with pytest.raises(TooLarge):
        await connection.request("here", bytes(limit + 1), timeout_s=1)
    assert len((await connection.request("here", bytes(limit), timeout_s=10)).data) == limit  # and the connection lives


async def test_requests_that_wait_are_limited(settings: NatsSettings) -> None:
    connection = await Connection.open(type(settings)(**{**_fields(settings), "max_requests": 3}))
    await connection.subscribe("silent", lambda *_: None)
    waiting = [connection.ask("silent", timeout_s=60) for _ in range(3)]
    with pytest.raises(NodeUnreachable, match="max_requests"):
        connection.ask("silent", timeout_s=60)
    await connection.close()
    assert [type(one.exception()) for one in waiting] == [OutcomeUnknown] * 3


async def test_what_waits_to_be_sent_is_limited(settings: NatsSettings) -> None:
    connection = await Connection.open(type(settings)(**{**_fields(settings), "max_pending_bytes": 1_000_000}))
    for _ in range(2):
        connection.publish("void", bytes(600_000))
    with pytest.raises(NodeUnreachable, match="max_pending_bytes"):
        connection.publish("void", b"one more")
    await connection.round_trip(10)
    connection.publish("void", b"there is room again")
    await connection.close()


async def test_an_answer_that_is_given_up_leaves_nothing_behind(connection: Connection) -> None:
    await connection.subscribe("silent", lambda *_: None)
    with pytest.raises(WireTimeout):
        await connection.request("silent", timeout_s=0.03)
    task = asyncio.ensure_future(connection.request("silent", timeout_s=0.2))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.3)
    assert len(connection._asked) == 0 and len(connection._deadlines) == 0


async def test_a_taker_that_raises_harms_no_other(connection: Connection) -> None:
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))

    def fail(*_: object) -> None:
        raise ValueError("no")

    await connection.subscribe("bad", fail)
    await echo_on(connection, "here")
    connection.publish("bad")
    assert (await connection.request("here", b"1", timeout_s=5)).data == b"1"
    assert [str(context["exception"]) for context in told] == ["no"]


async def test_someone_who_is_told_and_raises_stops_no_reconnecting(tmp_path: Path) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    lost = asyncio.Event()

    def fail(notice: Notice) -> None:
        if notice.kind == "disconnected":
            lost.set()
        raise ValueError("no")

    with nats_servers(tmp_path) as cluster:
        connection = await Connection.open(cluster.settings(), told=fail)
        await echo_on(connection, "here")
        cluster.servers[0].kill()
        await asyncio.wait_for(lost.wait(), 20)
        cluster.servers[0].start()
        await asyncio.wait_for(connection.wait_up(), 20)
        assert (await connection.request("here", b"1", timeout_s=5)).data == b"1"
        await connection.close()


async def test_while_there_is_no_server_nothing_is_sent_nor_kept_for_later(tmp_path: Path) -> None:
    heard = Heard()
    with nats_servers(tmp_path) as cluster:
        connection = await Connection.open(cluster.settings(), told=heard)
        got: list[bytes] = []
        await connection.subscribe("news", lambda _s, _r, data, _h: got.append(data))
        cluster.servers[0].pause()
        connection.publish("news", b"into the void " + bytes(900_000))  # what the kernel took can't be taken back; the rest can
        for _ in range(20):
            connection.publish("news", b"into the void " + bytes(900_000))
        await heard.wait_for("disconnected")
        with pytest.raises(NodeUnreachable, match="nothing was sent"):
            connection.publish("news", b"later")
        with pytest.raises(NodeUnreachable, match="nothing was sent"):
            await connection.request("news", timeout_s=1)
        cluster.servers[0].kill()
        cluster.servers[0].start()
        await asyncio.to_thread(cluster.servers[0].wait_ready)
        await connection.wait_up()
        connection.publish("news", b"now")
        await connection.round_trip(5)
        assert got == [b"now"]
        await connection.close()


@pytest.mark.parametrize("how", ["kill", "pause", "stop"])
async def test_losing_its_server_it_goes_on_with_another_and_keeps_its_subscriptions(three_servers: NatsCluster, how: str) -> None:
    heard = Heard()
    connection, other = await Connection.open(three_servers.settings(), told=heard), await Connection.open(three_servers.settings())
    await echo_on(connection, "here")
    server = next(server for server in three_servers.servers if server.peer.name == connection.server["server_name"])
    getattr(server, how)()
    await heard.wait_for("reconnected")
    assert connection.server["server_name"] != server.peer.name
    await other.wait_up()
    async with asyncio.timeout(20):
        while True:
            try:
                assert (await other.request("here", b"hello", timeout_s=1)).data == b"hello"
            except (NodeUnreachable, WireTimeout):
                await asyncio.sleep(0.05)
            else:
                break
    await connection.close()
    await other.close()


async def test_a_server_that_stands_still_is_not_the_first_that_is_tried_again(three_servers: NatsCluster) -> None:
    for _ in range(6):
        heard = Heard()
        connection = await Connection.open(replace(three_servers.settings(), ping_interval_s=0.2), told=heard)
        server = next(server for server in three_servers.servers if server.peer.name == connection.server["server_name"])
        server.pause()
        await heard.wait_for("reconnected")
        server.resume()
        await connection.close()
        assert [notice.kind for notice in heard.notices] == ["disconnected", "reconnected"], "no attempt that came to nothing"


def close_for_good(connection: Connection) -> None:
    connection._client.put(b"NONSENSE\r\n")  # the server answers with an error and hangs up; the library closes for good


def end_reading(connection: Connection) -> None:
    task = connection._client._reading_task
    assert task is not None
    task.cancel()


@pytest.mark.parametrize("hurt", [close_for_good, end_reading])
async def test_a_dead_client_is_replaced_and_what_was_asked_is_answered(settings: NatsSettings, hurt: Callable[[Connection], None]) -> None:
    heard, other = Heard(), await Connection.open(settings)
    connection = await Connection.open(settings, told=heard)
    await echo_on(connection, "here")
    go = asyncio.Event()
    replies: list[bytes] = []
    await other.subscribe("later", lambda _s, reply, _d, _h: replies.append(reply))
    await other.round_trip(5)
    asked = connection.ask("later", timeout_s=30)
    await connection.round_trip(5)
    await other.round_trip(5)
    assert len(replies) == 1
    hurt(connection)
    await heard.wait_for("replaced")
    go.set()
    await connection.round_trip(5)
    other.publish(replies[0].decode(), b"at last")
    assert (await asked).data == b"at last"
    assert (await other.request("here", b"1", timeout_s=5)).data == b"1"
    await connection.close()
    await other.close()


async def test_one_that_is_closed_says_so(connection: Connection) -> None:
    await connection.subscribe("silent", lambda *_: None)
    asked = connection.ask("silent", timeout_s=60)
    waiting = asyncio.ensure_future(connection.wait_up())
    await waiting
    await connection.close()
    await connection.close()
    assert isinstance(asked.exception(), OutcomeUnknown)
    for attempt in (connection.request("x", timeout_s=1), connection.subscribe("x", lambda *_: None), connection.wait_up()):
        with pytest.raises(NodeUnreachable):
            await attempt


async def test_no_server_there_is_told_in_time() -> None:
    from jidosystem.backends.nats.server import free_ports

    with pytest.raises(StoreUnavailable, match=r"within 0\.5 s"):
        await Connection.open(NatsSettings(servers=(f"nats://127.0.0.1:{free_ports(1)[0]}",)), timeout_s=0.5)


@pytest.mark.parametrize("cluster", ["", "a.b", "a b", "x" * 33, "*"])
def test_a_cluster_name_is_one_token(cluster: str) -> None:
    with pytest.raises(InvalidConfig):
        NatsSettings(servers=("nats://localhost",), cluster=cluster)


def _fields(settings: NatsSettings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in settings.__struct_fields__}
