"""A store that fails for a while and comes back: under load, and while a platform starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from jidosystem import Agent, StoreUnavailable, action
from jidosystem.core.records import Record, StoredRow
from tests.runtime.harness import PlatformOn, Store, settle, until, until_async


class Worker(Agent):
    """Does a little of everything."""

    done: int = 0
    heard: int = 0
    rung: int = 0

    @action
    async def work(self) -> int:
        self.done += 1
        self.emit("worked", {"who": self.key, "done": self.done})
        self.cast(self.agent(Worker, f"friend of {self.key}").hear)
        if self.done % 10 == 0:
            self.remind(f"r{self.done}", after=0.01, action=self.ring)
        return self.done

    @action
    async def hear(self) -> None:
        self.heard += 1

    @action
    async def ring(self) -> None:
        self.rung += 1

    @action(readonly=True)
    async def books(self) -> tuple[int, int, int]:
        return self.done, self.heard, self.rung


class Resident(Worker, resident=True):
    """Lives from the start."""


async def test_under_load_each_call_succeeds_or_fails_whole_and_all_goes_on_when_it_is_back() -> None:
    store = Store()
    answered = dict.fromkeys((f"w{i}" for i in range(20)), 0)
    refused, ended = 0, False
    async with PlatformOn(store, [Worker]) as platform:

        async def caller(key: str) -> None:
            nonlocal refused
            while not ended:
                try:
                    answered[key] = await platform.agent(Worker, key).work()
                except StoreUnavailable:
                    refused += 1
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for key in answered:
                group.create_task(caller(key))
            for _ in range(5):
                before = sum(answered.values())
                await until(lambda before=before: sum(answered.values()) > before + 50, "calls")
                store.fail_all()
                failed = refused
                await until(lambda failed=failed: refused > failed + 50, "refusals")
                store.heal()
            ended = True

        async def books_balance() -> bool:
            for key, done in answered.items():
                of, friend = await platform.agent(Worker, key).books(), await platform.agent(Worker, f"friend of {key}").books()
                if of != (done, 0, done // 10) or friend[1] != done:
                    return False
            return True

        await until_async(books_balance, "the books")
        told = [(event.data["who"], event.data["done"]) async for event in platform.events.read_all("worked")]
        assert sorted(told) == sorted((key, number) for key, done in answered.items() for number in range(1, done + 1))
        assert await platform.dead_letters.list() == []


class Slow(Store):
    """A store whose lists can't be read for a while."""

    failures = 0

    def _fail(self) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise StoreUnavailable("the disk is gone")

    async def scan(self, kind: str, start: str = "", end: str | None = None) -> AsyncIterator[Sequence[StoredRow]]:
        self._fail()
        async for page in super().scan(kind, start, end):
            yield page

    async def scan_agents(self, type_name: str, after: str = "") -> AsyncIterator[Sequence[Record]]:
        if type_name == "Resident":
            self._fail()
        async for page in super().scan_agents(type_name, after):
            yield page


async def test_what_a_crash_left_behind_is_found_although_the_store_fails_while_the_platform_starts() -> None:
    inner = Store()
    async with PlatformOn(inner, [Worker, Resident]) as platform:
        ref = platform.agent(Worker, "a")
        for _ in range(9):
            await ref.work()
        await platform.agent(Resident, "r").hear()
        await platform.agents.pause(platform.agent(Worker, "friend of a"))
        await ref.work()  # its cast waits; its reminder may
        await settle()
    for failures in (1, 2, 3):
        store = Slow(inner)
        store.failures = failures
        async with PlatformOn(store, [Worker, Resident]) as platform:
            await until(lambda: "r" in platform._node.hosts["Resident"].live, "the resident")
            assert store.failures == 0
    async with PlatformOn(Slow(inner), [Worker, Resident]) as platform:
        await platform.agents.resume(platform.agent(Worker, "friend of a"))
        await until_async(lambda: heard(platform), "the cast")


async def heard(platform: PlatformOn) -> bool:
    return (await platform.agent(Worker, "friend of a").books())[1] == 10


async def test_agents_that_are_woken_while_heads_cant_be_read_come_when_they_can() -> None:
    inner = Store()
    async with PlatformOn(inner, [Worker, Resident]) as platform:
        await platform.agent(Resident, "r").hear()
        await platform.agents.pause(platform.agent(Worker, "friend of a"))
        await platform.agent(Worker, "a").work()  # its cast waits
        await settle()
    store = Store(inner)
    store.reads_fail = True
    async with PlatformOn(store, [Worker, Resident]) as platform:
        hosts = platform._node.hosts
        await until(lambda: store.refused_reads >= 2, "the waking of both")
        await settle()
        assert not any(activation.idle for host in hosts.values() for activation in host.live.values())
        store.reads_fail = False
        await until(lambda: "r" in hosts["Resident"].live and hosts["Resident"].live["r"].idle, "the resident agent")
        await platform.agents.resume(platform.agent(Worker, "friend of a"))

        async def heard() -> bool:
            return (await platform.agent(Worker, "friend of a").books())[1] == 1

        await until_async(heard, "the cast")
