"""Queues are used again: empty, and not more of them than are worth keeping."""

from __future__ import annotations

import asyncio

from jidosystem import Agent, Platform, action, field
from jidosystem.runtime.mailbox import SPARED, Queue, Queues


class Tally(Agent):
    seen: list[int] = field(default_factory=list)

    @action
    async def note(self, number: int) -> None:
        await asyncio.sleep(0)
        self.seen = [*self.seen, number]

    @action(readonly=True)
    async def all(self) -> list[int]:
        return self.seen


def test_a_queue_given_back_is_the_next_one_taken() -> None:
    queues = Queues()
    queue = queues.take()
    queues.give_back(queue)
    assert queues.take() is queue
    assert queues.take() is not queue


def test_a_node_keeps_no_more_queues_than_are_worth_it() -> None:
    queues = Queues()
    made = [Queue() for _ in range(SPARED + 10)]
    for queue in made:
        queues.give_back(queue)
    assert len({id(queues.take()) for _ in range(SPARED)} & {id(queue) for queue in made}) == SPARED
    assert queues.take() not in made


async def test_agents_that_share_queues_one_after_another_keep_their_messages_apart() -> None:
    async with Platform(agents=[Tally]) as platform:
        for burst in range(20):
            refs = [platform.agent(Tally, f"a{(burst + number) % 7}") for number in range(5)]
            await asyncio.gather(*(ref.note(burst) for ref in refs for _ in range(3)))
        for number in range(7):
            expected = [burst for burst in range(20) if number in {(burst + each) % 7 for each in range(5)} for _ in range(3)]
            assert await platform.agent(Tally, f"a{number}").all() == expected
