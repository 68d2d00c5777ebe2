"""Alerts: each is told once for all nodes, and ends when what it tells is over."""

from __future__ import annotations

import pytest

from jidosystem import Agent, AgentFailed, Event, InvalidArguments, Platform, Supervision, action
from jidosystem.testing import ClusterNode, TestCluster, TestPlatform
from tests.runtime.cluster import STORES, Start, cluster

pytestmark = pytest.mark.jido


class Trouble(Exception):
    """An error that these tests count as a crash."""


class Fragile(Agent):
    supervision = Supervision(max_restarts=0, crash_on=(Trouble,))
    mended: bool = False

    @action
    async def crash(self) -> None:
        raise Trouble("a leak")

    @action
    async def take(self) -> None:
        if not self.mended:
            raise ValueError("no")

    @action
    async def mend(self) -> None:
        self.mended = True


async def told(there: TestCluster, node: ClusterNode) -> list[tuple[str, str, str]]:
    """What the log says of alerts: kind, whom it concerns, begun or ended."""

    async def read() -> list[Event]:
        return [event async for event in node.events.read("jido.alerts")]

    return [(event.type.rpartition(".")[2], event.data["about"], event.data["state"]) for event in await there.at(node, read())]


@pytest.fixture(params=STORES.values(), ids=STORES)
def store(request: pytest.FixtureRequest) -> Start:
    start: Start = request.param
    return start


async def test_a_node_that_dies_is_one_alert_until_it_is_back(store: Start) -> None:
    async with cluster("a", "b", "c", "d", agents=[Fragile], store=store) as there:
        a = there.now["a"]
        for _ in range(2):
            there.kill("d")
            await there.pass_time(15)
            (alert,) = await there.at(a, a.alerts.list())
            assert (alert.kind, alert.about, alert.level) == ("node_down", "d", "critical")
            await there.start("d")
            await there.pass_time(5)
            assert await there.at(a, a.alerts.list()) == []
        assert await told(there, a) == [("node_down", "d", "begun"), ("node_down", "d", "ended")] * 2


async def test_a_node_that_leaves_in_order_is_no_alert() -> None:
    async with cluster("a", "b", agents=[Fragile]) as there:
        await there.leave("b")
        await there.pass_time(15)
        assert await told(there, there.now["a"]) == []


async def test_an_alert_is_ended_by_hand_and_told_again_when_it_happens_again() -> None:
    async with cluster("a", "b", "c", agents=[Fragile]) as there:
        a = there.now["a"]
        there.kill("c")
        await there.pass_time(15)
        assert await there.at(a, a.alerts.clear("node_down", "c"))
        assert not await there.at(a, a.alerts.clear("node_down", "c"))
        with pytest.raises(InvalidArguments, match="node_down"):
            await there.at(a, a.alerts.clear("node_dwn", "c"))
        await there.start("c")
        there.kill("c")
        await there.pass_time(15)
        assert [alert.about for alert in await there.at(a, a.alerts.list())] == ["c"]


async def test_a_node_that_is_not_heard_of_for_long_is_an_alert_until_it_is() -> None:
    async with cluster("a", "b", "c", agents=[Fragile]) as there:
        a = there.now["a"]
        for other in ("a", "b"):
            there.cut("c", other)
        await there.pass_time(60)
        alerts = await there.at(a, a.alerts.list())
        assert {alert.kind for alert in alerts} == {"node_suspect"}
        there.heal()
        await there.pass_time(10)
        assert await there.at(a, a.alerts.list()) == []
        events = await told(there, a)
        assert len(events) == 2 * len(alerts)


async def test_an_outage_of_the_store_is_told_once_when_it_is_over() -> None:
    async with cluster("a", "b", "c", agents=[Fragile], store=TestCluster) as there:
        for name in there.now:
            there.cut_off(name, 20)
        await there.pass_time(60)
        events = [event for event in await told(there, there.now["a"]) if event[0] == "store_unavailable"]
        assert events == [("store_unavailable", "store", "begun"), ("store_unavailable", "store", "ended")]


async def test_an_agent_that_has_failed_for_good_is_an_alert_until_it_is_restarted() -> None:
    async with cluster("a", "b", agents=[Fragile]) as there:
        a = there.now["a"]
        for key in ("x", "y"):
            with pytest.raises(Exception, match="leak"):
                await there.at(a, a.agent(Fragile, key).crash())
        with pytest.raises(AgentFailed):
            await there.at(a, a.agent(Fragile, "x").mend())
        await there.pass_time(1)
        assert {(alert.kind, alert.about) for alert in await there.at(a, a.alerts.list())} == {("agent_failed", f"Fragile/{key}") for key in "xy"}
        await there.at(a, a.agents.restart(a.agent(Fragile, "x")))
        await there.at(a, a.agents.delete(a.agent(Fragile, "y")))
        await there.pass_time(1)
        assert await there.at(a, a.alerts.list()) == []


async def test_dead_letters_are_an_alert_until_there_are_none() -> None:
    async with TestPlatform(agents=[Fragile]) as platform:
        fragile = platform.agent(Fragile, "x")
        for _ in range(2):
            await platform.cast(fragile.take, durable=True)
        await platform.at_rest()
        (alert,) = await platform.alerts.list()
        assert (alert.kind, alert.level) == ("dead_letters", "warning")
        assert "Fragile/x" in alert.told
        await fragile.mend()
        first, second = await platform.dead_letters.list()
        await platform.dead_letters.redrive(first.id)
        await platform.at_rest()
        assert await platform.alerts.list() == [alert]
        await platform.dead_letters.redrive(second.id)
        await platform.at_rest()
        assert await platform.alerts.list() == []


async def test_a_node_without_alerts_of_its_own_asks_for_those_of_all() -> None:
    async with Platform(agents=[Fragile]) as platform:
        assert await platform.alerts.list() == []
        assert "asked of node" in repr(platform.alerts)


async def test_a_drained_node_takes_agents_again() -> None:
    async with cluster("a", "b", agents=[Fragile]) as there:
        a, b = there.now["a"], there.now["b"]
        keys = [f"k{n}" for n in range(20)]
        for _ in range(2):
            for key in keys:
                await there.at(a, a.agent(Fragile, key).mend())
            await there.at(b, _drain(b))
            await there.until(lambda: not b.alive(Fragile))
            for key in keys:
                await there.at(b, b.agent(Fragile, key).mend())
            assert not b.alive(Fragile)
            await there.at(b, _undrain(b))
            await there.pass_time(5)
            for key in keys:
                await there.at(a, a.agent(Fragile, key).mend())
            assert b.alive(Fragile)
            assert all(len(there.where(Fragile, key)) <= 1 for key in keys)
        await there.at(b, _drain(b))
        await there.at(b, _undrain(b))  # before the others were told
        await there.pass_time(5)
        assert b._node is not None
        assert b._node.ownership is not None
        assert not b._node.ownership.draining
        await there.pass_time(5)

        async def types() -> list[str]:
            return [event.type async for event in a.events.read("jido.node/b")]

        assert await there.at(a, types()) == ["jido.node.up", *["jido.node.draining", "jido.node.undrained"] * 2]


async def _drain(node: ClusterNode) -> None:
    assert node._joined is not None
    node._joined.start_draining()


async def _undrain(node: ClusterNode) -> None:
    assert node._joined is not None
    await node._joined.undrain()
