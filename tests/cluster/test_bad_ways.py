"""Ways between nodes and servers that are cut, slow and reset, and what comes over them that no node would send."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random

import msgspec
import pytest

pytest.importorskip("nats", reason="the extra `cluster` isn't installed")

from jidosystem.backends.nats.connection import Connection
from jidosystem.backends.nats.partitions import RecordsSettings
from jidosystem.backends.nats.records import open_records
from jidosystem.backends.nats.server import NatsCluster
from jidosystem.backends.nats.settings import NatsSettings
from jidosystem.backends.nats.subjects import token
from jidosystem.backends.nats.wire import NatsWire
from jidosystem.distribution.frames import CallFrame, ErrorFrame, PingFrame, PongFrame, decode_frame, encode_frame
from jidosystem.distribution.leases import decode_lease

from .asking import Line, agent_on
from .nodes import NodeCluster, NodeProcess, node_cluster
from .proxy import Proxy, proxy_to
from .test_nodes_that_fail import LOST
from .traffic import PATIENCE_S, Traffic, traffic

pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize(
    "ways",
    [
        pytest.param((), id="both ways"),
        pytest.param(("there",), id="there", marks=pytest.mark.torture),
        pytest.param(("back",), id="back", marks=pytest.mark.torture),
    ],
)
async def test_a_node_that_is_cut_off_from_the_servers_answers_nothing_that_is_old(
    ways: tuple[str, ...], one_server: NatsCluster, tmp_path: Path, seed: int
) -> None:
    async with around(one_server, tmp_path, seed) as (cluster, proxy, load):
        await asyncio.sleep(1.0)
        began = load.recording.now()
        proxy.cut(*ways)
        await asyncio.sleep(6.0)
        proxy.mend()
        async with asyncio.timeout(PATIENCE_S):
            while not cluster.said(LOST):
                await asyncio.sleep(0.1)
        load.recording.fault("cut", "n3", start=began, effect="it was declared dead" if proxy.held else "")
        await asyncio.sleep(2.0)
    load.judge()


async def test_slow_ways_and_resets_cost_nothing_but_time(one_server: NatsCluster, tmp_path: Path, seed: int) -> None:
    async with around(one_server, tmp_path, seed) as (cluster, proxy, load):
        proxy.delay(0.0, 0.02)
        for _ in range(4):
            await asyncio.sleep(1.5)
            began = load.recording.now()
            count = proxy.reset()
            load.recording.fault("reset", "n3", start=began, effect=f"{count} connections" if count else "")
    assert not cluster.said(LOST)
    load.judge()


@asynccontextmanager
async def around(servers: NatsCluster, folder: Path, seed: int) -> AsyncIterator[tuple[NodeCluster, Proxy, Traffic]]:
    """Three nodes under traffic, the third of which reaches the server by a way of ours."""
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(proxy_to(servers.servers[0].url, seed))
        cluster = await stack.enter_async_context(node_cluster(servers, folder))
        for name in ("n1", "n2"):
            cluster.add(name)
        cluster.add("n3", by=[proxy.url])
        await cluster.start()
        yield cluster, proxy, await stack.enter_async_context(traffic(cluster, seed=seed))


# -- what no node would send -------------------------------------------------------------------------------------


async def subject_of(settings: NatsSettings, node: str) -> str:
    """Where a node is reached, as its lease says."""
    connection = await Connection.open(settings)
    records = await open_records(connection, RecordsSettings(name="leases"))
    try:
        record = await records.read(f"jido.node/{node}")
        assert record is not None and record.head is not None
        return decode_lease(record.agent, record.head).subject
    finally:
        await records.close()
        await connection.close()


def spoiled(random: Random, frame: bytes) -> bytes:
    """A frame that was cut off, changed on the way, doubled, or is none."""
    match random.randrange(5):
        case 0:
            return frame[: random.randrange(len(frame))]
        case 1:
            place = random.randrange(len(frame))
            return frame[:place] + bytes((frame[place] ^ (1 << random.randrange(8)),)) + frame[place + 1 :]
        case 2:
            return random.randbytes(random.randrange(200))
        case 3:
            return frame + frame
        case _:
            return bytes((frame[0] + 1,)) + frame[1:]


async def test_frames_that_no_node_sent_are_refused_and_touch_no_agent(one_server: NatsCluster, tmp_path: Path, seed: int) -> None:
    async with node_cluster(one_server, tmp_path, "n1", "n2") as cluster, traffic(cluster, seed=seed) as load:
        random, settings, began = Random(seed), one_server.settings(), load.recording.now()
        subject, wire = await subject_of(settings, "n1"), await NatsWire.open(settings)
        good = encode_frame(CallFrame("Sentry/forged", "post", b"\x80", 5.0))
        for _ in range(300):
            answer = decode_frame(await wire.request(subject, spoiled(random, good), timeout_s=10))
            assert isinstance(answer, ErrorFrame), answer
        for forged in (
            CallFrame("Sentry/forged", "nothing", b"\x80", 5.0),
            CallFrame("Nobody/forged", "post", b"\x80", 5.0),
            CallFrame("Sentry/forged", "post", b"no arguments", 5.0),
            PongFrame("n2", 1, serving=True),
        ):
            assert isinstance(decode_frame(await wire.request(subject, encode_frame(forged), timeout_s=10)), ErrorFrame)
        assert isinstance(decode_frame(await wire.request(subject, encode_frame(PingFrame()), timeout_s=10)), PongFrame)
        load.recording.fault("forged", "n1", start=began, effect="304 refusals")
        line = Line()
        told = await line.ask(cluster.nodes["n2"], "/v1/agents/Sentry/forged/post", {})
        assert told.value == 1, "none of them was carried out"
        line.close()
        await wire.close()
    load.judge()


async def test_whoever_asks_and_never_reads_the_answers_harms_nobody(one_server: NatsCluster, tmp_path: Path, seed: int) -> None:
    async with node_cluster(one_server, tmp_path, "n1", "n2") as cluster, traffic(cluster, seed=seed) as load:
        node, began = cluster.nodes["n1"], load.recording.now()
        before = memory_of(node)
        writers = [await mute(node) for _ in range(4)]
        await asyncio.sleep(4.0)
        load.recording.fault("mute", "n1", start=began, effect="800 answers nobody reads")
        grown = memory_of(node) - before
        for writer in writers:
            writer.transport.abort()
    load.judge(operations=50)
    assert grown < 200 * 1024 * 1024


async def mute(node: NodeProcess) -> asyncio.StreamWriter:
    """A connection on which 200 answers of 300 KB are asked for, and none is read."""
    _reader, writer = await asyncio.open_connection("127.0.0.1", node.port, limit=1024)
    writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    body = json.dumps({"size": 300_000}).encode()
    head = f"POST /v1/agents/Sentry/mute/parrot HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {node.token}\r\n"
    writer.write((f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body) * 200)
    return writer


async def test_a_client_of_the_servers_that_never_reads_is_thrown_out_and_harms_nobody(one_server: NatsCluster, tmp_path: Path, seed: int) -> None:
    async with node_cluster(one_server, tmp_path, "n1", "n2") as cluster, traffic(cluster, seed=seed) as load:
        settings, began, server = one_server.settings(), load.recording.now(), one_server.servers[0]
        agent = await agent_on(cluster.nodes["n1"], "Sentry", "post", {})
        frame = encode_frame(CallFrame(agent, "parrot", msgspec.msgpack.encode({"size": 900_000}), 30.0))
        _reader, writer = await asyncio.open_connection(server.peer.host, server.peer.port, limit=1024)
        writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        told = {"user": settings.user, "pass": settings.password, "verbose": False, "pedantic": False}
        writer.write(f"CONNECT {json.dumps(told)}\r\nSUB mute 1\r\n".encode())
        subject = f"{settings.cluster}.r.{token(await subject_of(settings, 'n1'))}"
        asked = f"PUB {subject} mute {len(frame)}\r\n".encode() + frame + b"\r\n"
        async with asyncio.timeout(PATIENCE_S):
            while not (count := server.monitoring("/varz")["slow_consumers"]):
                writer.write(asked * 20)
                await asyncio.sleep(0.5)
        load.recording.fault("mute", server.peer.name, start=began, effect=f"{count} slow consumers")
        writer.transport.abort()
    assert not cluster.said(LOST)
    load.judge()


def memory_of(node: NodeProcess) -> int:
    """Its resident bytes."""
    pages = int(Path(f"/proc/{node.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()
