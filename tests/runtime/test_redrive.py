"""Dead letters of casts and reminders: run again, once, by whoever asks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jidosystem import Agent, DeadLetter, InvalidArguments, Platform, action
from jidosystem.backends.memory import MemoryRecords
from jidosystem.core.errors import NoHost
from tests.runtime.harness import Crashable, FakeClock, look, settle, until_async

ATTEMPTS = 5


class Way:
    """Whether the receiver works; set afresh for each test."""

    open = False


@pytest.fixture(autouse=True)
def _way() -> None:
    Way.open = False


class Bank(Agent):
    paid: int = 0

    @action
    async def pay(self, amount: int) -> None:
        self.paid += amount
        self.emit("bank.paid", amount)
        if not Way.open:
            raise ConnectionError("no line to the bank")

    @action
    async def remind_to_pay(self, amount: int) -> None:
        self.remind("rent", action=self.pay, after=0, args={"amount": amount})

    @action
    async def remind_at(self, amount: int) -> None:
        self.remind("rent", action=self.pay, at=1_000_000.0, args={"amount": amount})

    @action(readonly=True)
    async def get(self) -> int:
        return self.paid


class Payer(Agent):
    @action
    async def pay(self, amount: int) -> None:
        self.cast(self.agent(Bank, "a").pay, amount)


async def letter_of(platform: Platform, source: Any) -> DeadLetter:
    (letter,) = await until_async(lambda: platform.dead_letters.list(source))
    return letter


async def test_a_cast_that_kept_failing_is_redriven_and_applied_once(platform: Platform) -> None:
    await platform.agent(Payer, "p").pay(5)
    letter = await letter_of(platform, "cast")
    assert (letter.agent, letter.attempts, letter.error) == ("Bank/a", ATTEMPTS, "ConnectionError: no line to the bank")
    with pytest.raises(ConnectionError):
        await platform.dead_letters.redrive(letter.id)
    assert await platform.dead_letters.list() == [letter]  # it stays until it has worked
    Way.open = True
    await asyncio.gather(*(platform.dead_letters.redrive(letter.id) for _ in range(3)))
    assert await platform.agent(Bank, "a").get() == 5
    assert await platform.dead_letters.list() == []
    assert [event.data async for event in platform.events.read_all("bank.paid")] == [5]
    with pytest.raises(InvalidArguments, match="no dead letter"):
        await platform.dead_letters.redrive(letter.id)


async def test_a_reminder_that_kept_failing_is_redriven(platform: Platform) -> None:
    await platform.agent(Bank, "a").remind_to_pay(7)
    letter = await letter_of(platform, "reminder")
    assert (letter.agent, letter.attempts) == ("Bank/a", ATTEMPTS)

    async def forgotten() -> bool:  # after the letter, never before it
        return (await platform.agents.describe(platform.agent(Bank, "a"))).reminders == ()

    await until_async(forgotten)
    Way.open = True
    await platform.dead_letters.redrive(letter.id)
    assert await platform.agent(Bank, "a").get() == 7
    assert await platform.dead_letters.list() == []


async def test_a_reminder_that_is_set_again_for_the_same_time_has_a_letter_of_its_own(platform: Platform) -> None:
    for count in (1, 2):
        await platform.agent(Bank, "a").remind_at(7)

        async def letters(count: int = count) -> bool:
            return len(await platform.dead_letters.list("reminder")) == count

        await until_async(letters)
    first, second = await platform.dead_letters.list("reminder")
    assert (first.number, first.name) == (second.number, second.name)
    Way.open = True
    await platform.dead_letters.redrive(first.id, second.id)
    assert await platform.agent(Bank, "a").get() == 14


async def test_a_letter_of_a_type_that_isnt_hosted_stays(world: Crashable) -> None:
    platform = await world.start()
    await platform.agent(Payer, "p").pay(5)
    letter = await letter_of(platform, "cast")
    await world.close()
    platform = await world.start()
    with pytest.raises(NoHost, match="'Bank'"):
        await platform.dead_letters.redrive(letter.id)
    platform.agent(Bank, "a")
    Way.open = True
    await platform.dead_letters.redrive(letter.id)
    assert await platform.agent(Bank, "a").get() == 5


async def test_a_redrive_that_was_done_before_the_letter_went_isnt_done_again(world: Crashable) -> None:
    """The process dies between the agent's commit and the letter's removal: the letter is there, and its effect too."""
    platform = await world.start([Bank])
    await platform.agent(Payer, "p").pay(5)
    letter = await letter_of(platform, "cast")
    Way.open = True
    world.store.failing = lambda agent: OSError("dead") if agent.startswith("jido.dead_letter") else None
    with pytest.raises(OSError, match="dead"):
        await platform.dead_letters.redrive(letter.id)
    await world.crash()
    platform = await world.start([Bank])
    await platform.dead_letters.redrive(letter.id)
    assert await platform.agent(Bank, "a").get() == 5
    assert await platform.dead_letters.list() == []


async def test_a_reminder_in_a_series_is_redriven_beside_it(clock: FakeClock) -> None:
    class Meter(Agent):
        readings: int = 0

        @action
        async def begin(self) -> None:
            self.remind("read", action=self.read, every=3600)

        @action
        async def read(self, missed: int) -> None:
            if not Way.open:
                raise ValueError("no reading")
            self.readings += 1 + missed

    world = Crashable(MemoryRecords(clock), clock)
    platform = await world.start()
    meter = platform.agent(Meter, "m")
    await meter.begin()
    await clock.advance(platform, 3600)
    letter = await letter_of(platform, "reminder")
    Way.open = True
    await platform.dead_letters.redrive(letter.id)
    await clock.advance(platform, 3600)
    await settle()
    await look(platform)
    info = await platform.agents.describe(meter)
    assert info.fields == {"readings": 2}
    assert info.reminders == ("read",)
    await world.close()
