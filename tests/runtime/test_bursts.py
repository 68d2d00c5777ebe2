"""Bursts of casts: the short way into the mailbox and out of it does what the long way does."""

from __future__ import annotations

import asyncio
from dataclasses import field

import pytest

from jidosystem import Agent, Platform, action
from jidosystem.core.errors import InvalidArguments, MailboxFull
from jidosystem.runtime.blocks import Mailbox
from jidosystem.runtime.head import MAX_TURNS_A_COMMIT


class Tape(Agent):
    """Writes down what it is told."""

    mailbox = Mailbox(max_size=100)

    heard: list[int] = field(default_factory=list)
    sum: int = 0

    @action
    async def hear(self, number: int) -> None:
        self.heard.append(number)

    @action
    async def add(self, amount: int) -> int:
        self.sum += amount
        return self.sum

    @action
    async def hear_slowly(self, number: int) -> None:
        await asyncio.sleep(0)
        self.heard.append(number)

    @action
    async def refuse(self, number: int) -> None:
        self.heard.append(number)
        raise ValueError(number)

    @action
    async def spoil(self) -> None:
        self.sum = "not a number"  # type: ignore[assignment]

    @action
    async def keep(self, numbers: list[int]) -> None:
        self.heard = numbers

    @action
    async def tell(self, number: int) -> None:
        self.emit("tape.told", number)

    @action(readonly=True)
    async def all(self) -> list[int]:
        return list(self.heard)


async def _warm(platform: Platform) -> Tape:
    tape = platform.agent(Tape, "a")
    await tape.add(0)  # from now on the reference knows the live agent
    return tape


async def test_a_burst_runs_in_the_order_of_its_casts_whatever_their_turns_do() -> None:
    async with Platform(checking=False) as platform:
        tape = await _warm(platform)
        for number in range(0, 40, 4):
            await platform.cast(tape.hear, number)
            await platform.cast(tape.refuse, number + 1)
            await platform.cast(tape.hear_slowly, number + 2)
            await platform.cast(tape.tell, number + 3)
        assert await tape.all() == [number for number in range(40) if number % 4 in (0, 2)]
        assert [event.data async for event in platform.events.read_all("tape.told")] == list(range(3, 40, 4))


async def test_casts_of_one_burst_share_commits() -> None:
    async with Platform(checking=False) as platform:
        tape = await _warm(platform)
        commits = _commits(platform)
        for _ in range(MAX_TURNS_A_COMMIT):
            await platform.cast(tape.add, 1)
        assert await tape.add(0) == MAX_TURNS_A_COMMIT
        assert 1 <= _commits(platform) - commits <= 2


async def test_a_turn_that_leaves_nonsense_takes_no_other_with_it() -> None:
    async with Platform(checking=False) as platform:
        tape = await _warm(platform)
        await platform.cast(tape.add, 1)
        await platform.cast(tape.spoil)
        await platform.cast(tape.add, 1)
        assert await tape.add(0) == 2


async def test_wrong_arguments_are_refused_at_once() -> None:
    async with Platform(checking=False) as platform:
        tape = await _warm(platform)
        with pytest.raises(InvalidArguments):
            await platform.cast(tape.add)  # type: ignore[call-arg]
        with pytest.raises(InvalidArguments):
            await platform.cast(tape.add, 1, 2)  # type: ignore[call-arg]


async def test_what_can_be_changed_is_copied() -> None:
    async with Platform(checking=False) as platform:
        tape = await _warm(platform)
        numbers = [1]
        await platform.cast(tape.keep, numbers)
        numbers.append(2)
        assert await tape.all() == [1]


async def test_a_full_mailbox_refuses_a_burst() -> None:
    async with Platform(checking=False) as platform:
        tape = await _warm(platform)
        for _ in range(100):
            await platform.cast(tape.add, 1)
        with pytest.raises(MailboxFull):
            await platform.cast(tape.add, 1)
        await asyncio.sleep(0)
        assert await tape.add(0) == 100


async def test_an_agent_that_was_stopped_meanwhile_is_activated_again() -> None:
    async with Platform(checking=False) as platform:
        tape = await _warm(platform)
        await platform.agents.stop(tape)
        await platform.cast(tape.add, 5)
        assert await tape.add(0) == 5


def _commits(platform: Platform) -> int:
    lines = platform.metrics().splitlines()
    return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("jido_commits_total{") and "Tape" in line))
