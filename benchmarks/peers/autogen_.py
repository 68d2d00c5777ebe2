"""AutoGen Core (https://github.com/microsoft/autogen): its `SingleThreadedAgentRuntime`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from autogen_core import (
    AgentId,
    DefaultTopicId,
    MessageContext,
    RoutedAgent,
    SingleThreadedAgentRuntime,
    TypeSubscription,
    event,
    message_handler,
    rpc,
)

from ..measure import Run, resident_bytes


@dataclass
class Add:
    amount: int


@dataclass
class Happened:
    number: int


class Counter(RoutedAgent):
    def __init__(self) -> None:
        super().__init__("counts")
        self.value = 0

    @rpc
    async def add(self, message: Add, ctx: MessageContext) -> int:
        self.value += message.amount
        return self.value


class Record(RoutedAgent):
    def __init__(self) -> None:
        super().__init__("records")

    @message_handler
    async def add(self, message: Add, ctx: MessageContext) -> int:
        number = message.amount
        self.name, self.count, self.share = f"name-{number}", number + 1_000, number / 7
        return number


SEEN = 0


class Listener(RoutedAgent):
    def __init__(self) -> None:
        super().__init__("listens")

    @event
    async def happened(self, message: Happened, ctx: MessageContext) -> None:
        global SEEN  # noqa: PLW0603 - counts over all listeners
        SEEN += 1


async def _runtime(cls: type[Any], name: str) -> SingleThreadedAgentRuntime:
    runtime = SingleThreadedAgentRuntime()
    await cls.register(runtime, name, cls)
    runtime.start()
    return runtime


async def ask(run: Run, actors: int = 1) -> None:
    """One caller."""
    n = run.some(5_000, 300)
    runtime = await _runtime(Counter, "counter")

    async def caller(number: int) -> None:
        for _ in range(n // actors):
            await runtime.send_message(Add(1), AgentId("counter", str(number)))

    async def once() -> None:
        await asyncio.gather(*map(caller, range(actors)))

    await run.repeat(n, once)
    await runtime.stop()


async def ask_100(run: Run) -> None:
    """100 callers, 100 agents."""
    await ask(run, 100)


async def fan_out_100(run: Run) -> None:
    """Publish to 100 agents."""
    n = run.some(100, 5)
    runtime = SingleThreadedAgentRuntime()
    for number in range(100):
        await Listener.register(runtime, f"listener{number}", Listener)
        await runtime.add_subscription(TypeSubscription(topic_type="default", agent_type=f"listener{number}"))
    runtime.start()

    async def once() -> None:
        for number in range(n):
            await runtime.publish_message(Happened(number), DefaultTopicId())
        await runtime.stop_when_idle()
        runtime.start()

    await run.repeat(n * 100, once)
    await runtime.stop()


async def memory(run: Run) -> None:
    """Bytes of an idle agent with three small fields."""
    n = run.some(20_000, 500)
    runtime = await _runtime(Record, "record")
    await runtime.send_message(Add(0), AgentId("record", "warm"))
    before, began = resident_bytes(), perf_counter()
    for number in range(n):
        await runtime.send_message(Add(number), AgentId("record", str(number)))
    run.record(n / (perf_counter() - began), "spawn")
    run.record((resident_bytes() - before) / n)
    await runtime.stop()
