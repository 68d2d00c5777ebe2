"""Faults by a seed and on command: the platform's promises hold under them, and the same seed gives the same run."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jidosystem import Agent, Event, action, on_event
from jidosystem.backends.memory import MemoryRecords, MemoryWire
from jidosystem.core.errors import CommitUnknown, InvalidArguments, JidoError, OutcomeUnknown, StoreUnavailable, WireTimeout
from jidosystem.testing import Faults, FaultyRecords, FaultyWire, StoreFaults, TestPlatform, WireFaults, run
from jidosystem.testing.faults import KINDS

STORMY = StoreFaults(fail=0.1, unknown=0.1, slow=0.2, slow_s=2.0, read_fail=0.1, away=0.005, away_s=5.0)


class Shop(Agent):
    """Takes orders, each once, and tells of them."""

    orders: int = 0

    @action
    async def order(self, number: int) -> int:
        self.orders += 1
        self.emit("order.placed", {"shop": self.key, "number": number})
        self.cast(self.agent(Warehouse, "main").reserve, number)
        if self.orders % 3 == 0:
            self.remind(f"review {number}", after=30.0, action=self.review)
        return self.orders

    @action
    async def review(self) -> None:
        self.emit("order.reviewed", {"shop": self.key})


class Warehouse(Agent):
    """Must hear of each order once, by cast and by event."""

    reserved: int = 0
    heard: int = 0

    @action
    async def reserve(self, number: int) -> None:
        self.reserved += 1

    @on_event("order.placed", key=lambda _event: "main")
    async def placed(self, event: Event) -> None:
        self.heard += 1


async def keep_ordering(platform: TestPlatform, shop: str, number: int) -> None:
    """What a careful client does: repeat with a key until it is told."""
    while True:
        try:
            ref = platform.agent(Shop, shop)
            await platform.call(ref.order, number, idempotency_key=f"order {number}")
        except JidoError:
            await asyncio.sleep(1.0)
            if platform.crashed:
                await platform.restart()
        else:
            return


async def books(platform: TestPlatform) -> dict[str, Any]:
    platform.faults.stop()
    await platform.at_rest()
    return {
        "shops": [(await platform.state(platform.agent(Shop, key)))["orders"] for key in ("a", "b")],
        "warehouse": await platform.state(platform.agent(Warehouse, "main")),
        "placed": sorted(event.data["number"] for event in platform.published("order.placed")),
        "letters": [letter.source for letter in await platform.dead_letters.list()],
    }


def exactly(orders: int) -> dict[str, Any]:
    return {
        "shops": [orders, orders],
        "warehouse": {"reserved": 2 * orders, "heard": 2 * orders},
        "placed": list(range(2 * orders)),
        "letters": [],
    }


@pytest.mark.parametrize("url", ["memory://", "sqlite://"])
@pytest.mark.parametrize("seed", range(8))
def test_every_order_counts_once_whatever_the_store_does(url: str, seed: int) -> None:
    async def main() -> None:
        async with TestPlatform(url, agents=[Shop, Warehouse], seed=seed, store=STORMY) as platform:
            clients = (keep_ordering(platform, "ab"[number % 2], number) for number in range(20))
            await asyncio.gather(*clients)
            assert platform.faults.journal
            assert await books(platform) == exactly(10)

    run(main())


@pytest.mark.parametrize("seed", [1, 49, 63, 95])
def test_every_order_counts_once_in_a_storm_with_crashes(seed: int) -> None:
    """At these seeds casts were once lost or applied twice."""

    async def main() -> None:
        async with TestPlatform(agents=[Shop, Warehouse], seed=seed, store=STORMY) as platform:
            chance = Random(seed)

            async def crash() -> None:
                for _ in range(3):
                    await asyncio.sleep(chance.random() * 6)
                    if chance.random() < 0.5:
                        await platform.crash()
                        await platform.restart()

            async with asyncio.TaskGroup() as group:
                group.create_task(crash())
                for number in range(20):
                    group.create_task(keep_ordering(platform, "ab"[number % 2], number))
            assert await books(platform) == exactly(10)

    run(main())


@pytest.mark.parametrize(("url", "kind"), [*(("memory://", kind) for kind in KINDS), ("sqlite://", "crash-after"), ("sqlite://", "done")])
def test_every_order_counts_once_wherever_it_crashes_or_fails(url: str, kind: Any) -> None:
    for number in count(1):

        async def main(number: int = number) -> bool:
            async with TestPlatform(url, agents=[Shop, Warehouse]) as platform:
                platform.faults.schedule(kind, commit=number)
                for order in range(4):
                    await keep_ordering(platform, "ab"[order % 2], order)
                await platform.advance(seconds=10)
                if platform.crashed:  # at a commit that nobody was waiting for
                    await platform.restart()
                over = bool(platform.faults.pending)
                assert await books(platform) == exactly(2), f"{kind} at commit {number}"
                return over

        if run(main()):
            break
    assert number > 10


def trace(seed: int) -> str:
    """All that can be seen of a busy run."""

    async def main() -> str:
        async with TestPlatform(agents=[Shop, Warehouse], seed=seed, store=STORMY) as platform:
            await asyncio.gather(*(keep_ordering(platform, "ab"[number % 2], number) for number in range(30)))
            await platform.advance(minutes=2)
            await platform.at_rest()
            return "\n".join([*platform.faults.journal, *map(repr, platform.published()), repr(await books(platform)), platform.now.isoformat()])

    return run(main())


def test_the_same_seed_gives_the_same_run_in_every_process() -> None:
    first = trace(5)
    assert trace(5) == first
    assert trace(6) != first
    for hash_seed in ("1", "2"):
        told = subprocess.run(
            [sys.executable, "-c", "from tests.testing.test_faults import trace; print(trace(5), end='')"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed}, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert [line for line in told.stdout.splitlines() if line.startswith("jido") is False][-len(first.splitlines()) :] == first.splitlines()


# -- one fault at a time -------------------------------------------------------------------------------------------


def with_store(main: Callable[[FaultyRecords, Faults], Coroutine[Any, Any, None]]) -> None:
    async def body() -> None:
        faults = Faults()
        records = FaultyRecords(MemoryRecords(), faults)
        await main(records, faults)
        await records.close()

    run(body())


def test_the_fault_that_is_scheduled_happens_where_it_should() -> None:
    async def main(records: FaultyRecords, faults: Faults) -> None:
        faults.schedule("fail", commit=2, agent="A/a")
        faults.schedule("lost", commit=1, agent="B/*")
        faults.schedule("done", commit=2, agent="B/*")
        faults.schedule("slow", commit=1, agent="C/c", seconds=5.0)
        assert len(faults.pending) == 4
        first = await records.commit("A/a", 0, b"1")
        with pytest.raises(StoreUnavailable) as raised:
            await records.commit("A/a", first.revision, b"2")
        assert not isinstance(raised.value, CommitUnknown)
        for agent, there in (("B/x", False), ("B/y", True)):
            with pytest.raises(CommitUnknown):
                await records.commit(agent, 0, b"1")
            assert (await records.read(agent) is not None) is there
        loop = asyncio.get_running_loop()
        began = loop.time()
        slow = records.commit("C/c", 0, b"1")
        assert await records.read("C/c") is None
        await slow
        assert loop.time() - began == 5.0
        assert faults.pending == []

    with_store(main)


def test_a_store_that_is_away_fails_everything_and_comes_back() -> None:
    async def main(records: FaultyRecords, faults: Faults) -> None:
        faults.go_away(60.0)
        for operation in (lambda: records.commit("A/a", 0, b"1"), lambda: records.read("A/a"), lambda: records.read_rows("A/a", "due")):
            with pytest.raises(StoreUnavailable):
                await operation()
        with pytest.raises(StoreUnavailable):
            _ = [page async for page in records.scan("due")]
        await asyncio.sleep(60.0)
        await records.commit("A/a", 0, b"1")

    with_store(main)


@pytest.mark.parametrize("wrong", [{"fail": 1.5}, {"unknown": -0.1}, {"slow": True}, {"read_fail": "often"}, {"slow_s": -1}])
def test_odds_that_are_none_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArguments, match=next(iter(wrong))):
        StoreFaults(**wrong)


def test_schedules_that_cant_be_are_refused() -> None:
    for wrong in ({"kind": "explode"}, {"kind": "fail", "commit": 0}, {"kind": "fail", "commit": True}):
        with pytest.raises(InvalidArguments):
            Faults().schedule(**wrong)  # type: ignore[arg-type]


# -- the wire ------------------------------------------------------------------------------------------------------


@given(st.integers(0, 1_000), st.floats(0, 0.5), st.floats(0, 1), st.floats(0, 0.5))
@settings(max_examples=30)
def test_messages_are_lost_delayed_overtaken_and_doubled_as_the_odds_say(seed: int, lost: float, delayed: float, duplicated: float) -> None:
    async def main() -> None:
        faults = Faults(wire=WireFaults(lost=lost, delayed=delayed, delay_s=3.0, duplicated=duplicated), seed=seed)
        wire = FaultyWire(MemoryWire(), faults)
        faults.start()
        came: list[int] = []

        async def serve(payload: bytes) -> bytes:
            came.append(int(payload))
            return payload

        await wire.serve("s", serve)
        for number in range(50):
            await wire.send("s", str(number).encode())
        await asyncio.sleep(4.0)
        assert set(came) <= set(range(50))
        assert lost > 0 or set(came) == set(range(50))
        assert duplicated > 0 or len(came) == len(set(came))
        assert delayed > 0 or came == sorted(came)
        came.clear()
        ended = await asyncio.gather(*(wire.request("s", str(number).encode(), timeout_s=2.0) for number in range(50)), return_exceptions=True)
        assert all(end == str(number).encode() or isinstance(end, WireTimeout) for number, end in enumerate(ended))
        assert all(number in came for number, end in enumerate(ended) if isinstance(end, bytes))
        await wire.close()

    run(main())


def test_a_wire_that_closes_lets_go_of_what_is_on_its_way() -> None:
    async def main() -> None:
        faults = Faults(wire=WireFaults(delayed=1.0, delay_s=100.0))
        wire = FaultyWire(MemoryWire(), faults)
        faults.start()
        for number in range(10):
            await wire.send("s", str(number).encode())
        waiting = asyncio.create_task(wire.request("s", b"1", timeout_s=200.0))
        await asyncio.sleep(0)
        waiting.cancel()
        await wire.close()

    run(main())


def test_nobody_is_told_more_than_a_client_could_know() -> None:
    async def main() -> None:
        async with TestPlatform(agents=[Shop, Warehouse]) as platform:
            platform.faults.schedule("crash-after", agent="Shop/a")
            with pytest.raises(OutcomeUnknown):
                await platform.agent(Shop, "a").order(1)
            await platform.restart()
            await platform.at_rest()
            assert await platform.state(platform.agent(Shop, "a")) == {"orders": 1}
            assert [event.type for event in platform.published()] == ["order.placed"]

    run(main())
