"""A turn is run in three places, two of them written out for speed: whichever it is, the same comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import field
from typing import Any, NamedTuple

import pytest

from jidosystem import Agent, Platform, action


class Till(Agent):
    """Does everything that an action can do."""

    sum: int = 0
    items: list[int] = field(default_factory=list)

    @action
    async def add(self, amount: int) -> int:
        self.sum += amount
        return self.sum

    @action
    async def look(self, amount: int) -> int:
        """Could write, and doesn't."""
        return self.sum + amount

    @action(readonly=True)
    async def read(self, amount: int) -> int:
        return self.sum + amount

    @action(readonly=True)
    async def read_slowly(self, amount: int) -> int:
        await asyncio.sleep(0)
        return self.sum + amount

    @action(readonly=True)
    async def write_though_readonly(self, amount: int) -> None:
        self.sum = amount

    @action
    async def add_slowly(self, amount: int) -> int:
        self.sum += amount
        await asyncio.sleep(0)
        return self.sum

    @action
    async def hand_out(self, amount: int) -> list[int]:
        """Returns its own state, which the caller gets a copy of."""
        self.items.append(amount)
        return self.items

    @action
    async def refuse(self, amount: int) -> int:
        self.sum += amount
        raise ValueError(f"not {amount}")

    @action
    async def refuse_slowly(self, amount: int) -> int:
        self.sum += amount
        await asyncio.sleep(0)
        raise ValueError(f"not {amount}")

    @action
    async def spoil(self, amount: int) -> int:
        self.sum = str(amount)  # type: ignore[assignment]
        return amount

    @action
    async def hold_what_cannot_be_carried(self, amount: int) -> int:
        self.items.append(object())  # type: ignore[arg-type]
        return amount

    @action
    async def return_nonsense(self, amount: int) -> int:
        self.sum += amount
        return str(amount)  # type: ignore[return-value]

    @action
    async def give_up(self, amount: int) -> int:
        self.sum += amount
        raise asyncio.CancelledError

    @action
    async def tell(self, amount: int) -> int:
        self.emit("till.told", {"amount": amount})
        return amount

    @action
    async def count(self, amount: int) -> None:
        await self.agent(Counted, "one").add(amount)

    @action
    async def send(self, amount: int) -> None:
        self.sum += amount
        await self.cast(self.agent(Counted, "two").add, amount)

    @action
    async def wait(self, gate: str) -> None:
        await GATES[gate].wait()


class Counted(Agent):
    """Is told."""

    sum: int = 0

    @action
    async def add(self, amount: int) -> None:
        self.sum += amount

    @action(readonly=True)
    async def read(self) -> int:
        return self.sum


GATES: dict[str, asyncio.Event] = {}
ACTIONS = sorted(set(Till.__jido_type__.actions) - {"wait"})


class Seen(NamedTuple):
    """What can be seen of a turn afterwards."""

    told: Any
    state: bytes
    turns: int
    idle: bool
    busy: Any
    ended: int
    failed: int
    events: list[Any]


async def _short(platform: Platform, till: Till, name: str) -> Any:
    """The agent is idle: its caller runs the action in its own step."""
    return await getattr(till, name)(3)


async def _by_name(platform: Platform, till: Till, name: str) -> Any:
    """Arguments by name take the long way."""
    return await platform.call(getattr(till, name), args={"amount": 3})


async def _queued(platform: Platform, till: Till, name: str) -> Any:
    """The agent is busy: the turn waits in the mailbox, and is run from there."""
    gate = GATES[till.key] = asyncio.Event()
    waiting = asyncio.ensure_future(till.wait(till.key))
    await asyncio.sleep(0)
    called = asyncio.ensure_future(getattr(till, name)(3))
    await asyncio.sleep(0)
    gate.set()
    await waiting
    return await called


WAYS: dict[str, Callable[[Platform, Till, str], Awaitable[Any]]] = {"short": _short, "by name": _by_name, "queued": _queued}


async def _seen(platform: Platform, way: str, name: str) -> Seen:
    till = platform.agent(Till, f"{name} {way}")
    await till.add(1)
    host = platform._node.hosts["Till"]
    activation, meter = host.live[till.key], host.meter
    before = (activation.turns, meter.turns, meter.failures)
    end = await _end_of(platform)
    try:
        told = await WAYS[way](platform, till, name)
    except Exception as error:
        told = type(error), str(error).replace(till.key, "KEY")
    waits = 1 if way == "queued" else 0  # the turn that kept the agent busy; it changed nothing
    events = [event.data async for event in platform.events.read_all("till.*", after=end)]
    activation = host.live[till.key]
    busy = activation.writer, activation.readers, activation.batch, activation.inflight
    return Seen(
        told,
        activation.state,
        activation.turns - before[0],
        activation.idle,
        busy,
        meter.turns - before[1] - waits,
        meter.failures - before[2],
        events,
    )


async def _end_of(platform: Platform) -> int:
    return max([event.position async for event in platform.events.read_all()], default=0)


@pytest.mark.parametrize("name", ACTIONS)
async def test_the_same_comes_of_a_turn_wherever_it_is_run(platform: Platform, name: str) -> None:
    short = await _seen(platform, "short", name)
    assert short.idle
    assert short.busy == (None, 0, None, None)
    assert await _seen(platform, "by name", name) == short
    assert await _seen(platform, "queued", name) == short
