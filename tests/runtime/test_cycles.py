"""Calls that could never be answered are refused at once, however the cycle came about; what merely looks like one isn't."""

from __future__ import annotations

import asyncio

import pytest

from jidosystem import Agent, CallCycle, Event, Mailbox, Platform, action, on_event
from tests.runtime.harness import PATIENCE_S, settle, until, until_async


class Link(Agent):
    told: str = ""
    turns: int = 0

    @action
    async def ask(self, *, path: list[str]) -> str:
        self.turns += 1
        return await self.agent(Link, path[0]).ask(path=path[1:]) if path else self.key

    @action(readonly=True)
    async def look(self, *, path: list[str]) -> str:
        return await self.agent(Link, path[0]).look(path=path[1:]) if path else self.key

    @action
    async def meet(self, others: int, path: list[str]) -> str:
        """Ask when so many have come this far."""
        Meeting.here += 1
        if Meeting.here == others:
            Meeting.complete.set()
        await Meeting.complete.wait()
        return await self.agent(Link, path[0]).ask(path=path[1:])

    @action
    async def ask_child(self, path: list[str]) -> str:
        return await self.child(Link, "son").ask(path=path)

    @action
    async def try_it(self, path: list[str]) -> str:
        try:
            return await self.agent(Link, path[0]).ask(path=path[1:])
        except CallCycle:
            self.told = "refused"
            return self.told

    @action
    async def cast_to(self, other: str) -> None:
        self.told = "cast"
        self.cast(self.agent(Link, other).ask, args={"path": [self.key]})

    @action
    async def ring(self, other: str) -> None:
        self.told = await self.agent(Link, other).ask(path=[])

    @action
    async def set(self, other: str) -> None:
        self.remind("r", after=0, action=self.ring, args={"other": other})


class Meeting:
    """Where the agents of a test wait for each other."""

    here = 0
    complete: asyncio.Event


@pytest.fixture(autouse=True)
async def _meeting() -> None:
    Meeting.here, Meeting.complete = 0, asyncio.Event()


class Listener(Agent):
    told: str = ""

    @on_event("listener.go", key="data")
    async def go(self, event: Event) -> None:
        try:
            await self.agent(Caller, self.key).call_back()
        except CallCycle as cycle:
            self.told = " → ".join(cycle.chain)

    @action
    async def nothing(self) -> None: ...


class Caller(Agent):
    @action
    async def call_back(self) -> None:
        await self.agent(Listener, self.key).nothing()


@pytest.mark.parametrize("path", [["a"], ["b", "a"], ["b", "c", "a"], ["b", "c", "b"]])
async def test_a_chain_that_comes_back_is_refused_and_told(platform: Platform, path: list[str]) -> None:
    with pytest.raises(CallCycle) as caught:
        await asyncio.wait_for(platform.agent(Link, "a").ask(path=path), PATIENCE_S)
    assert list(caught.value.chain) == [f"Link/{key}" for key in ("a", *path)]


@pytest.mark.parametrize("path", [["a"], ["b", "a"], ["b", "c", "a"]])
async def test_it_is_refused_even_if_all_only_read(platform: Platform, path: list[str]) -> None:
    with pytest.raises(CallCycle):
        await asyncio.wait_for(platform.agent(Link, "a").look(path=path), PATIENCE_S)


async def test_nobodys_turn_is_kept_and_all_go_on(platform: Platform) -> None:
    with pytest.raises(CallCycle):
        await platform.agent(Link, "a").ask(path=["b", "c", "a"])
    assert await platform.agent(Link, "a").ask(path=["b", "c"]) == "c"
    found = [(await platform.agents.describe(platform.agent(Link, key))).fields for key in "abc"]
    assert [fields["turns"] for fields in found if fields is not None] == [1, 1, 1]


async def test_who_catches_the_refusal_may_go_on(platform: Platform) -> None:
    assert await platform.agent(Link, "a").try_it(["b", "a"]) == "refused"


@pytest.mark.parametrize("size", [2, 3, 4])
async def test_agents_that_wait_for_each_other_are_found_by_the_last_to_join(platform: Platform, size: int) -> None:
    keys = [f"k{number}" for number in range(size)]
    calls = [platform.agent(Link, key).meet(size, [keys[(number + 1) % size]]) for number, key in enumerate(keys)]
    answers = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), PATIENCE_S)
    refused = [answer for answer in answers if isinstance(answer, CallCycle)]
    assert len(refused) == 1
    assert len([answer for answer in answers if isinstance(answer, str)]) == size - 1


async def test_a_child_cant_call_the_parent_that_waits_for_it(platform: Platform) -> None:
    with pytest.raises(CallCycle) as caught:
        await asyncio.wait_for(platform.agent(Link, "a").ask_child(["a"]), PATIENCE_S)
    assert list(caught.value.chain) == ["Link/a", "Link/Link/a/son", "Link/a"]


async def test_an_event_handlers_turn_begins_a_chain_of_its_own_that_may_not_come_back(platform: Platform) -> None:
    listener = platform.agent(Listener, "x")
    await listener.nothing()
    await platform.events.publish("listener.go", "x")

    async def told() -> str:
        fields = (await platform.agents.describe(listener)).fields
        return fields["told"] if fields is not None else ""

    assert await until_async(told, "the refusal") == "Listener/x → Caller/x → Listener/x"


async def test_a_cast_begins_a_new_chain(platform: Platform) -> None:
    await platform.agent(Link, "a").cast_to("b")

    async def asked() -> bool:
        fields = (await platform.agents.describe(platform.agent(Link, "a"))).fields
        return fields is not None and fields["turns"] == 1

    await until_async(asked, "the call back")
    assert await platform.dead_letters.list() == []


async def test_a_reminder_begins_a_new_chain(platform: Platform) -> None:
    await platform.agent(Link, "a").set("b")

    async def told() -> bool:
        fields = (await platform.agents.describe(platform.agent(Link, "a"))).fields
        return fields is not None and fields["told"] == "b"

    await until_async(told, "the reminder")


async def test_two_paths_to_one_agent_are_no_cycle(platform: Platform) -> None:
    answers = await asyncio.gather(*(platform.agent(Link, key).ask(path=["shared", "deeper"]) for key in "abcdef"))
    assert answers == ["deeper"] * 6


class Narrow(Agent):
    """Has room for one message."""

    mailbox = Mailbox(max_size=1, overflow="block")
    gate_open: bool = False

    @action
    async def wait_and_call(self, other: str) -> None:
        Meeting.here += 1
        await Meeting.complete.wait()
        await self.agent(Narrow, other).nothing()

    @action
    async def nothing(self) -> None: ...


async def test_waiting_for_room_in_a_mailbox_counts_as_waiting(platform: Platform) -> None:
    one, two = platform.agent(Narrow, "one"), platform.agent(Narrow, "two")
    first, second = asyncio.ensure_future(one.wait_and_call("two")), asyncio.ensure_future(two.wait_and_call("one"))
    await until(lambda: Meeting.here == 2)
    filling = [asyncio.ensure_future(ref.nothing()) for ref in (one, two)]
    await settle()
    Meeting.complete.set()
    answers = await asyncio.wait_for(asyncio.gather(first, second, return_exceptions=True), PATIENCE_S)
    assert [type(answer) for answer in answers if answer is not None] == [CallCycle]
    await asyncio.gather(*filling)
