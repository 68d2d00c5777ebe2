"""Nodes on one loop of virtual time: what stands still, what goes on, and what arrives all the same."""

from __future__ import annotations

import asyncio

import pytest

from jidosystem.backends.memory import MemoryWire
from jidosystem.core.errors import NodeUnreachable, WireTimeout
from jidosystem.testing import Faults, VirtualLoop, WireFaults
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


async def test_a_killed_node_runs_nothing_any_more() -> None:
    nodes, told = Nodes(loop()), []
    task = nodes.start("a", ticks(told))
    await asyncio.sleep(2.5)
    nodes.kill("a")
    nodes.resume("a")
    await asyncio.sleep(10.0)
    assert told == [1, 2]
    nodes.end()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def served(told: list[bytes]) -> tuple[Nodes, NodeWire, NodeWire]:
    """Two nodes, of which b answers what it is asked."""
    nodes, shared = Nodes(loop()), MemoryWire()

    async def answer(payload: bytes) -> bytes:
        told.append(payload)
        return payload

    a, b = NodeWire(shared, nodes, "a"), NodeWire(shared, nodes, "b")
    await b.serve("s", answer)
    return nodes, a, b


async def test_where_only_answers_are_cut_off_a_request_is_served_and_times_out() -> None:
    told: list[bytes] = []
    nodes, a, _b = await served(told)
    nodes.cut.add(("b", "a"))
    with pytest.raises(WireTimeout):
        await a.request("s", b"1", timeout_s=1.0)
    assert told == [b"1"]
    nodes.cut = {("a", "b")}
    with pytest.raises(WireTimeout):
        await a.request("s", b"2", timeout_s=1.0)
    assert told == [b"1"]


async def test_between_two_nodes_messages_are_lost_late_overtaken_and_doubled_one_way() -> None:
    told: list[bytes] = []
    nodes, a, b = await served(told)
    faults = nodes.between["a", "b"] = Faults(wire=WireFaults(lost=0.2, delayed=0.5, delay_s=2.0, duplicated=0.2), seed=1)
    faults.start()
    payloads = [b"%d" % number for number in range(50)]
    answers = await asyncio.gather(*(a.request("s", payload, timeout_s=5.0) for payload in payloads), return_exceptions=True)
    lost = {payload for payload, one in zip(payloads, answers, strict=True) if isinstance(one, WireTimeout)}
    assert 0 < len(lost) < 25
    assert {one for one in answers if isinstance(one, bytes)} == set(payloads) - lost
    assert len(told) > len(set(told))
    assert sorted(set(told), key=told.index) != sorted(set(told), key=int)
    faults.stop()
    told.clear()
    assert await asyncio.gather(*(b.request("s", payload, timeout_s=1.0) for payload in payloads)) == payloads
    assert told == payloads, "from b to itself nothing goes wrong"
