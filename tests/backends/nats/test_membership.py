"""Membership on real NATS servers: what a cluster of nodes does when one of them, or the server that leads the leases, dies."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.json import decode, encode

from jidosystem.backends.nats.connection import Connection
from jidosystem.backends.nats.partitions import RecordsSettings
from jidosystem.backends.nats.records import NatsRecords, open_records
from jidosystem.backends.nats.server import NatsCluster
from jidosystem.backends.nats.settings import NatsSettings
from jidosystem.backends.nats.wire import NatsWire
from jidosystem.core.clock import boot_s
from jidosystem.core.errors import NodeNameTaken, OutcomeUnknown
from jidosystem.distribution.frames import CallFrame, Frame, PongFrame, ReplyFrame
from jidosystem.distribution.members import NodeDown, Occurrence
from jidosystem.distribution.membership import Membership
from jidosystem.distribution.mesh import Mesh

SMALL = RecordsSettings(max_bytes=64 * 1024 * 1024)  # a server reserves it for as long as it lives
ROOT = Path(__file__).resolve().parents[3]


class Node:
    """A node with connections of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.events: list[Occurrence] = []
        self.lost: list[int] = []
        self.stack = AsyncExitStack()
        self.membership: Membership
        self.mesh: Mesh
        self.records: NatsRecords

    async def open(self, settings: NatsSettings) -> None:
        control = await Connection.open(settings)
        self.stack.push_async_callback(control.close)
        records = self.records = await open_records(control, SMALL)
        self.stack.push_async_callback(records.close)
        wire = await NatsWire.open(settings)
        self.stack.push_async_callback(wire.close)
        self.membership = Membership(records, wire, name=self.name, on_event=self.events.append, on_lost=self.lost.append)
        self.stack.push_async_callback(self.membership.close)
        self.mesh = Mesh(wire, self.membership, _slowly)
        self.stack.push_async_callback(self.mesh.close)

    async def join(self) -> None:
        await self.membership.join(self.mesh.listen, timeout_s=30)

    async def until(self, what: Callable[[], bool], within_s: float) -> None:
        """Wait for a view in which something is so."""
        async with asyncio.timeout(within_s):
            while not what():
                await self.membership.wait_changed(self.membership.view)

    def is_void(self, other: Node) -> bool:
        return self.membership.view.is_void(other.name, other.membership.incarnation)


async def _slowly(frame: Frame) -> Frame:
    assert isinstance(frame, CallFrame)
    await asyncio.sleep(frame.timeout_s)
    return ReplyFrame(b"")


@asynccontextmanager
async def nodes(settings: NatsSettings, *names: str) -> AsyncIterator[list[Node]]:
    there = [Node(name) for name in names]
    async with AsyncExitStack() as stack:
        for node in there:
            stack.push_async_callback(node.stack.aclose)
            await node.open(settings)
            await node.join()
        yield there


async def test_nodes_find_each_other_and_a_dead_one_is_void_and_ends_the_requests_to_it(settings: NatsSettings) -> None:
    async with nodes(settings, "a", "b", "c") as (a, b, c):
        await a.until(lambda: set(a.membership.view.nodes) == {"a", "b", "c"}, 10)
        assert await a.mesh.ping("c") == PongFrame("c", c.membership.incarnation, serving=True)
        waiting = asyncio.ensure_future(a.mesh.request("b", CallFrame("X/x", "x", b"", 8), asyncio.get_running_loop().time() + 50))
        await asyncio.sleep(0.1)
        await b.membership.close()  # without a word
        await asyncio.gather(*(node.until(lambda node=node: node.is_void(b), 15) for node in (a, c)))  # type: ignore[misc]
        with pytest.raises(OutcomeUnknown, match="was declared dead"):
            await waiting
        assert a.membership.may_serve() and c.membership.may_serve()


async def test_a_node_that_leaves_is_out_at_once_and_its_name_can_be_had_again(settings: NatsSettings) -> None:
    async with nodes(settings, "a", "b") as (a, b):
        await a.until(lambda: "b" in a.membership.view.nodes, 10)
        twin = Node("b")
        await twin.open(settings)
        with pytest.raises(NodeNameTaken):
            await twin.join()
        assert await b.membership.leave()
        await a.until(lambda: a.is_void(b), 2)
        await twin.join()
        assert twin.membership.incarnation > b.membership.incarnation
        await twin.stack.aclose()


# -- processes ---------------------------------------------------------------------------------------------------


class Process:
    """A node of `node_process.py`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def tells(self, what: str) -> dict[str, Any]:
        """The next thing of that kind that it tells."""
        assert self.process.stdout is not None
        async with asyncio.timeout(40):
            while line := await self.process.stdout.readline():
                told: dict[str, Any] = decode(line)
                if told["what"] == what:
                    return told
        raise AssertionError("the process has ended")


@asynccontextmanager
async def process(settings: NatsSettings, name: str) -> AsyncIterator[Process]:
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.backends.nats.node_process", name, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert running.stdin is not None
    running.stdin.write(encode(settings) + b"\n")
    try:
        yield Process(running)
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


async def test_a_process_that_was_stopped_serves_nothing_after_it_was_declared_dead_and_joins_again(settings: NatsSettings) -> None:
    async with nodes(settings, "a") as (a,), process(settings, "p") as p:
        first = (await p.tells("joined"))["incarnation"]
        await p.tells("serves")
        await a.until(lambda: "p" in a.membership.view.nodes, 10)
        p.process.send_signal(signal.SIGSTOP)
        await a.until(lambda: a.membership.view.is_void("p", first), 15)
        void_at = boot_s()
        await asyncio.sleep(1)
        p.process.send_signal(signal.SIGCONT)
        assert (await p.tells("stopped"))["served"] < void_at, "not once, when it went on"
        assert (await p.tells("lost"))["incarnation"] == first
        again = (await p.tells("joined"))["incarnation"]
        assert again > first
        await a.until(lambda: a.membership.view.nodes["p"].incarnation == again, 10)


async def test_a_process_that_was_stopped_for_a_moment_goes_on_as_what_it_was(settings: NatsSettings) -> None:
    async with nodes(settings, "a") as (a,), process(settings, "p") as p:
        first = (await p.tells("joined"))["incarnation"]
        await p.tells("serves")
        p.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.8)
        p.process.send_signal(signal.SIGCONT)
        stopped, serves = await p.tells("stopped"), await p.tells("serves")
        assert stopped["served"] < stopped["at"] < serves["at"]
        await asyncio.sleep(4)
        assert a.membership.view.nodes["p"].incarnation == first
        assert not [event for event in a.events if isinstance(event, NodeDown)]


async def test_a_process_that_was_killed_starts_again_under_its_name(settings: NatsSettings) -> None:
    async with nodes(settings, "a") as (a,):
        async with process(settings, "p") as p:
            first = (await p.tells("joined"))["incarnation"]
            p.process.kill()
            await p.process.wait()
        async with process(settings, "p") as p:
            again = (await p.tells("joined"))["incarnation"]
            assert again > first
            await a.until(lambda: a.membership.view.is_void("p", first), 10)
            await a.until(lambda: a.membership.view.nodes["p"].incarnation == again, 10)


# -- servers -----------------------------------------------------------------------------------------------------


async def leader_of(node: Node) -> str:
    """The server that leads the stream in which the node's lease is."""
    subjects, jetstream = node.records._subjects, node.records._jetstream
    stream = subjects.stream(subjects.place(f"jido.node/{node.name}").partition)
    return str(decode(await jetstream._ask(f"STREAM.INFO.{stream}", None, None))["cluster"]["leader"])


@pytest.mark.parametrize("which", ["the one that leads a lease", "all"])
async def test_the_death_of_servers_declares_no_node_dead(which: str, settings_of_three: NatsSettings, three_servers: NatsCluster) -> None:
    async with nodes(settings_of_three, "a", "b", "c") as all_:
        await all_[0].until(lambda: len(all_[0].membership.view.nodes) == 3, 10)
        leader = await leader_of(all_[1])
        killed = [server for server in three_servers.servers if which == "all" or server.peer.name == leader]
        assert killed
        for server in killed:
            server.kill()
        await asyncio.sleep(4)
        if which == "all":
            assert not any(node.membership.may_serve() for node in all_), "the outage was one"
            for server in killed:
                server.start()
        async with asyncio.timeout(40):
            await asyncio.gather(*(node.membership.wait_serving() for node in all_))
        await asyncio.sleep(5)
        assert all(node.membership.may_serve() for node in all_)
        assert not [event for node in all_ for event in node.events if isinstance(event, NodeDown)]
        assert not any(node.lost for node in all_)
