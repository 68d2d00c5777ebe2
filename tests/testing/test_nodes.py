"""Nodes on one loop of virtual time: what stands still, what goes on, and what arrives all the same."""

from __future__ import annotations

import asyncio

import pytest

from jidosystem.backends.memory import MemoryWire
from jidosystem.core.errors import NodeUnreachable, WireTimeout
from jidosystem.testing import VirtualLoop
from jidosystem.testing.nodes import NODE, Nodes, NodeWire, on_its_way

pytestmark = pytest.mark.jido


def loop() -> VirtualLoop:
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualLoop)
    return running


async def ticks(told: list[float], every_s: float = 1.0) -> None:
    began = loop().time()
    while True:
        await asyncio.sleep(every_s)
        told.append(round(loop().time() - began, 3))


async def test_a_paused_node_does_nothing_and_then_what_is_due_at_once() -> None:
    nodes = Nodes(loop())
    a, b = [], []
    tasks = [nodes.start("a", ticks(a)), nodes.start("b", ticks(b))]
    await asyncio.sleep(2.5)
    nodes.pause("a")
    await asyncio.sleep(3.0)
    assert nodes.paused("a") and not nodes.paused("b")
    assert (a, b) == ([1, 2], [1, 2, 3, 4, 5])
    nodes.resume("a")
    await loop().idle()
    assert a == [1, 2, 5.5], "its clock shows what has passed"
    await asyncio.sleep(1.0)
    assert a == [1, 2, 5.5, 6.5]
    for task in tasks:
        task.cancel()


async def test_what_comes_of_a_nodes_work_belongs_to_it() -> None:
    nodes, told = Nodes(loop()), []

    async def work() -> None:
        child = asyncio.get_running_loop().create_task(ticks(told))
        loop().call_later(1.5, told.append, NODE.get())
        loop().call_soon(on_its_way, loop().call_later, 1.6, told.append, "arrived")
        await asyncio.sleep(5)
        child.cancel()

    task = nodes.start("a", work())
    await loop().idle()
    nodes.pause("a")
    await asyncio.sleep(2)
    assert told == ["arrived"]
    nodes.resume("a")
    await task
    assert set(told[1:3]) == {2.0, "a"}, "both when it went on"


async def test_what_was_cancelled_while_it_stood_still_isnt_run() -> None:
    nodes, told = Nodes(loop()), []
    nodes.pause("a")

    async def work() -> None:
        told.append("ran")

    task = nodes.start("a", work())
    timer = nodes.start("", asyncio.sleep(0))
    await timer
    task.cancel()
    nodes.end()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == []


async def echo(payload: bytes) -> bytes:
    return payload + NODE.get().encode()


async def test_a_request_is_answered_on_behalf_of_who_serves_it_or_not_at_all() -> None:
    nodes, wire = Nodes(loop()), MemoryWire()
    a, b = NodeWire(wire, nodes, "a"), NodeWire(wire, nodes, "b")
    await nodes.start("b", b.serve("b", echo))
    assert await nodes.start("a", a.request("b", b"from ", timeout_s=1.0)) == b"from b"
    nodes.cut.add(("a", "b"))
    with pytest.raises(WireTimeout):
        await nodes.start("a", a.request("b", b"", timeout_s=1.0))
    nodes.cut.clear()
    nodes.pause("b")
    with pytest.raises(WireTimeout):
        await nodes.start("a", a.request("b", b"", timeout_s=1.0))
    b.die()
    await loop().idle()
    with pytest.raises(NodeUnreachable):
        await nodes.start("a", a.request("b", b"", timeout_s=1.0))
    nodes.end()
