"""The servers that we start: set up as they must be, closed to strangers, and gone with their owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jidosystem.backends.nats.connection import Connection
from jidosystem.backends.nats.facts import ServerFacts, servers_of, weaknesses
from jidosystem.backends.nats.jetstream import JetStream, Refused
from jidosystem.backends.nats.server import NatsCluster, find_binary, nats_servers
from jidosystem.core.errors import StoreUnavailable, WireTimeout


async def test_it_says_itself_that_it_syncs_before_it_acknowledges(connection: Connection) -> None:
    servers = await servers_of(connection)
    assert servers == [ServerFacts("n1", connection.server["version"], synced=True)]
    assert weaknesses(servers) == []


async def test_all_servers_of_a_cluster_say_so(three_servers: NatsCluster) -> None:
    connection = await Connection.open(three_servers.settings())
    servers = await servers_of(connection)
    await connection.close()
    assert servers is not None
    assert [(server.name, server.synced) for server in servers] == [("n1", True), ("n2", True), ("n3", True)]


async def test_a_server_that_was_set_up_weaker_is_named(tmp_path: Path) -> None:
    cluster = NatsCluster(tmp_path, 1)
    cluster._make()
    server = cluster.servers[0]
    server._text = server._text.replace("sync_interval: always", 'sync_interval: "10s"')
    server.start()
    try:
        server.wait_ready()
        connection = await Connection.open(cluster.settings())
        weak = weaknesses(await servers_of(connection))
        await connection.close()
    finally:
        server.stop()
    assert len(weak) == 1 and "'n1'" in weak[0] and "sync_interval: always" in weak[0]


async def test_servers_that_tell_nothing_are_named_as_such(tmp_path: Path) -> None:
    cluster = NatsCluster(tmp_path, 1)
    cluster._make()
    server = cluster.servers[0]
    server._text = server._text.replace("$JIDO.SERVERS", "$JIDO.OTHER")
    server.start()
    try:
        server.wait_ready()
        connection = await Connection.open(cluster.settings())
        assert await servers_of(connection) is None
        await connection.close()
    finally:
        server.stop()
    assert "can't be seen" in weaknesses(None)[0]


async def test_strangers_stay_outside(one_server: NatsCluster) -> None:
    settings = one_server.settings()
    stranger = type(settings)(servers=settings.servers, user="jido", password="wrong")
    with pytest.raises(StoreUnavailable, match="refuses our credentials"):
        await Connection.open(stranger)
    with pytest.raises(StoreUnavailable, match="refuses our credentials"):
        await Connection.open(type(settings)(servers=settings.servers))


async def test_the_platforms_user_cannot_take_streams_away(connection: Connection, one_server: NatsCluster) -> None:
    name = f"{connection.settings.cluster}_kept"
    await JetStream(connection).ensure_stream({"name": name, "subjects": [f"{name}.>"], "storage": "file", "max_bytes": 1024 * 1024})
    with pytest.raises(WireTimeout):  # a denied publication is told to the connection, not to who waits for the answer
        await connection.request(f"$JS.API.STREAM.DELETE.{name}", timeout_s=0.3)
    assert (await JetStream(connection).api(f"STREAM.INFO.{name}"))["config"]["name"] == name
    admin = await Connection.open(one_server.settings(user="admin"))
    await JetStream(admin).api(f"STREAM.DELETE.{name}")
    with pytest.raises(Refused, match="stream not found"):
        await JetStream(admin).api(f"STREAM.INFO.{name}")
    await admin.close()


def test_only_loopback_is_listened_on_and_nothing_but_what_we_use(one_server: NatsCluster) -> None:
    facts = one_server.servers[0].monitoring("/varz")
    assert (facts["host"], facts["http_host"], facts["auth_required"]) == ("127.0.0.1", "127.0.0.1", True)
    assert (facts["websocket"], facts["mqtt"], facts["leaf"], facts["gateway"]) == ({}, {}, {}, {})
    assert (facts["max_payload"], facts["max_pending"], facts["max_connections"]) == (1024**2, 64 * 1024**2, 10_000)


def test_passwords_are_readable_by_their_owner_only(one_server: NatsCluster) -> None:
    config = one_server.servers[0].directory / "server.conf"
    assert config.stat().st_mode & 0o077 == 0
    assert one_server.secrets.jido not in repr(one_server.settings()) + repr(one_server.secrets) + repr(one_server.servers)


def test_one_that_cannot_start_says_why(tmp_path: Path) -> None:
    cluster = NatsCluster(tmp_path, 1)
    cluster._make()
    cluster.servers[0]._text += "max_payload: nonsense\n"
    cluster.servers[0].start()
    with pytest.raises(StoreUnavailable, match=r"n1 ended:\n.*server\.conf:\d+"):
        cluster.servers[0].wait_ready()
    with pytest.raises(StoreUnavailable, match="no program 'not-there'"):
        find_binary("not-there")


def test_it_starts_again_where_it_was(tmp_path: Path) -> None:
    with nats_servers(tmp_path) as cluster:
        server = cluster.servers[0]
        url, first = server.url, server.pid
        server.kill()
        assert server.pid == 0
        server.start()
        server.wait_ready()
        assert server.url == url and server.pid != first


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only the Linux kernel ends a process with its owner")
def test_no_server_outlives_an_owner_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from jidosystem.backends.nats.server import nats_servers\n"
        "with nats_servers(pathlib.Path(sys.argv[1])) as cluster:\n"
        "    print(cluster.servers[0].pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        server = int(owner.stdout.readline())
        watch = os.pidfd_open(server)
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    import select

    assert select.select([watch], [], [], 10)[0] == [watch]  # readable once the process has ended
    os.close(watch)
