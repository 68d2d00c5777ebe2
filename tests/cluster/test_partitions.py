"""Servers and nodes on machines of their own, between which packets are lost, cut off one way or both, and connections reset."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("nats", reason="the extra `cluster` isn't installed")

from .namespaces import ways
from .servers import RECORDS, await_leader
from .site import SERVERS, Site, site_or_skip
from .test_servers_that_fail import answered
from .traffic import Traffic, traffic

NODES = ("n1", "n2", "n3")
pytestmark = pytest.mark.timeout(300)

Cut = Callable[[str, list[str]], set[tuple[str, str]]]
CUTS: dict[str, Cut] = {
    "the leader is alone": lambda leader, others: ways([leader], [*others, *NODES]),
    "the leader has the nodes and no server": lambda leader, others: ways([leader], others),
    "the leader is not heard by servers": lambda leader, others: ways([leader], others, back=False),
    "the leader does not hear servers": lambda leader, others: ways(others, [leader], back=False),
    "one server sees both others": lambda leader, others: ways([leader], others[:1]),
    "the leader is not heard by nodes": lambda leader, _others: ways([leader], NODES, back=False),
    "the leader does not hear nodes": lambda leader, _others: ways(NODES, [leader], back=False),
    "a node has no server": lambda leader, others: ways(["n1"], [leader, *others]),
    "a node is not heard": lambda leader, others: ways(["n1"], [leader, *others], back=False),
    "a node does not hear": lambda leader, others: ways([leader, *others], ["n1"], back=False),
    "a node lacks the leader": lambda leader, _others: ways(["n1"], [leader]),
    "a bridge": lambda leader, others: ways([leader, "n1"], [others[0], "n2"]),
    "no server sees another": lambda leader, others: ways([leader, *others], [leader, *others]),
}
IN_CI = {"the leader has the nodes and no server", "a bridge", "a node is not heard"}


async def cut(there: Site, load: Traffic, how: str, seconds: float) -> None:
    """For a while; and then everybody reaches everybody."""
    assert there.network is not None
    leader, began = (await await_leader(there.servers, RECORDS)).peer.name, load.recording.now()
    before = there.network.let(cut=CUTS[how](leader, [name for name in SERVERS if name != leader]))
    await asyncio.sleep(seconds)
    dropped = there.network.let(cut=()).get("cut", 0) - before.get("cut", 0)
    load.recording.fault("cut", how, start=began, effect=f"{dropped} packets dropped" if dropped else "")


async def lose_packets(there: Site, load: Traffic, loss: float, seconds: float) -> None:
    """Some of them, and each takes its own time, so that they overtake each other."""
    assert there.network is not None
    before, began = there.network.let(loss=loss, delay_s=(0.0, 0.005)), load.recording.now()
    await asyncio.sleep(seconds)
    lost = there.network.let(loss=0.0, delay_s=(0.0, 0.0)).get("lost", 0) - before.get("lost", 0)
    load.recording.fault("loss", "all", start=began, effect=f"{lost} packets lost" if lost else "")


async def reset(there: Site, load: Traffic, machine: str) -> None:
    """All connections of a machine."""
    assert there.network is not None
    began = load.recording.now()
    count = await asyncio.to_thread(there.network.reset, machine)
    await answered(load, 1)
    load.recording.fault("reset", machine, start=began, effect=f"{count} connections" if count else "")


@pytest.mark.parametrize("how", [pytest.param(how, marks=() if how in IN_CI else pytest.mark.torture) for how in CUTS])
async def test_whoever_is_cut_off_from_whom_no_answer_is_wrong(how: str, tmp_path: Path, seed: int) -> None:
    async with site_or_skip(tmp_path, seed, *NODES, apart=True) as there, traffic(there.cluster, seed=seed) as load:
        await answered(load, 50)
        await cut(there, load, how, 8.0)
        await answered(load, 50)
    load.judge()


async def test_lost_packets_and_resets_cost_nothing_but_time(tmp_path: Path, seed: int) -> None:
    async with site_or_skip(tmp_path, seed, *NODES, apart=True) as there, traffic(there.cluster, seed=seed) as load:
        await answered(load, 50)
        lossy = asyncio.create_task(lose_packets(there, load, 0.03, 6.0))
        for machine in (*NODES, SERVERS[0]):
            await asyncio.sleep(1.0)
            await reset(there, load, machine)
        await lossy
        await answered(load, 50)
    load.judge()
