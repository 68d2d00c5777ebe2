"""What a store that fails at the wrong moment has brought to light, each found by the test kit's seeds and told here exactly."""

from __future__ import annotations

import asyncio

import pytest

from jidosystem import Agent, StoreUnavailable, action, field
from jidosystem.testing import StoreFaults, TestPlatform, run


class Sender(Agent):
    """Casts, at once or after a while."""

    sent: int = 0

    @action
    async def tell(self, seconds: float = 0.0) -> int:
        await asyncio.sleep(seconds)
        self.sent += 1
        self.cast(self.agent(Receiver, "r").hear, self.sent)
        return self.sent

    @action
    async def tell_now(self) -> int:
        self.sent += 1
        self.cast(self.agent(Receiver, "r").hear, self.sent)
        return self.sent


class Receiver(Agent):
    """Notes what it hears."""

    heard: list[int] = field(default_factory=list)

    @action
    async def hear(self, number: int) -> None:
        self.heard = [*self.heard, number]


def test_a_turn_that_ends_while_the_commit_before_it_is_in_doubt_is_committed_too() -> None:
    async def main() -> None:
        async with TestPlatform(agents=[Sender, Receiver], store=StoreFaults(slow=1.0)) as platform:
            sender = platform.agent(Sender, "s")
            assert await sender.tell() == 1
            platform.faults.schedule("done", agent="Sender/s")
            assert await asyncio.gather(sender.tell(), sender.tell(0.01)) == [2, 3]
            await platform.at_rest()
            assert await platform.state(platform.agent(Receiver, "r")) == {"heard": [1, 2, 3]}

    run(main())


def test_what_was_cast_before_a_commit_failed_goes_before_what_is_cast_after_it() -> None:
    async def main() -> None:
        async with TestPlatform(agents=[Sender, Receiver]) as platform:
            sender, receiver = platform.agent(Sender, "s"), platform.agent(Receiver, "r")
            await platform.agents.pause(receiver)
            await sender.tell()
            await sender.tell()
            platform.faults.schedule("fail", agent="Sender/s")
            failing = asyncio.create_task(sender.tell(0.01))
            await asyncio.sleep(0)
            following = [asyncio.create_task(call) for call in (sender.tell(), sender.tell_now())]  # one begins before that is known, one waits
            with pytest.raises(StoreUnavailable):
                await failing
            await asyncio.wait(following)
            assert following[1].result() == 3
            await platform.agents.resume(receiver)
            await platform.at_rest()
            assert await platform.state(receiver) == {"heard": [1, 2, 3]}

    run(main())


def test_what_was_cast_before_a_commit_failed_goes_out_although_nobody_calls_the_sender_again() -> None:
    async def main() -> None:
        async with TestPlatform(agents=[Sender, Receiver]) as platform:
            sender, receiver = platform.agent(Sender, "s"), platform.agent(Receiver, "r")
            await platform.agents.pause(receiver)
            await sender.tell()
            await sender.tell()
            platform.faults.schedule("fail", agent="Sender/s")
            with pytest.raises(StoreUnavailable):
                await sender.tell()
            await platform.agents.resume(receiver)
            await platform.at_rest()
            assert await platform.state(receiver) == {"heard": [1, 2]}

    run(main())
