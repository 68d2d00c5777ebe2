"""The physical limits in one process: the bare mechanism of each row with nothing around it.

Each stands for the least that a system doing the row's work must do. They promise nothing (no isolation, no roll-back,
no deadlines) and are measured in the same run, on the same machine, as what is held against them.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from .measure import Absent, Run, resident_bytes


class Counter:
    """An idle agent reduced to its memory: a few slots and a dictionary of state."""

    __slots__ = ("busy", "state")

    def __init__(self) -> None:
        self.busy = False
        self.state: dict[str, Any] = {"value": 0}

    async def get(self) -> int:
        return int(self.state["value"])

    async def add(self, amount: int = 1) -> int:
        self.state["value"] += amount
        value: int = self.state["value"]
        return value


async def _direct(agents: dict[str, Counter], key: str) -> int:
    agent = agents[key]
    if agent.busy:
        raise RuntimeError("busy")
    agent.busy = True
    try:
        return await agent.get()
    finally:
        agent.busy = False


async def direct_call(run: Run) -> None:
    """Look-up, busy flag, await on the agent's coroutine."""
    n = run.some(500_000, 20_000)
    agents = {"a": Counter()}

    async def once() -> None:
        for _ in range(n):
            await _direct(agents, "a")

    await run.repeat(n, once)


async def _each(callers: int, n: int, call: Callable[[int], Coroutine[Any, Any, object]]) -> None:
    async def caller(number: int) -> None:
        for _ in range(n // callers):
            await call(number)

    await asyncio.gather(*map(caller, range(callers)))


async def direct_call_100(run: Run) -> None:
    """The same from 100 tasks over 100 agents."""
    n = run.some(500_000, 20_000)
    agents = {str(number): Counter() for number in range(100)}
    names = list(agents)
    await run.repeat(n, lambda: _each(100, n, lambda number: _direct(agents, names[number])))


class TextbookActor:
    """The actor of the textbooks: a task that takes (message, future) from a queue."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[tuple[Callable[[], Coroutine[Any, Any, Any]], asyncio.Future[Any]]] = asyncio.Queue()
        self.agent = Counter()
        self.task = asyncio.ensure_future(self._serve())

    async def _serve(self) -> None:
        while True:
            action, reply = await self.inbox.get()
            reply.set_result(await action())

    async def call(self, action: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.inbox.put_nowait((action, reply))
        return await reply


async def textbook_actor(run: Run) -> None:
    """One queue and one future a call, one caller."""
    n = run.some(100_000, 10_000)
    actor = TextbookActor()

    async def once() -> None:
        for _ in range(n):
            await actor.call(actor.agent.add)

    await run.repeat(n, once)
    actor.task.cancel()


async def eager_task(run: Run) -> None:
    """A task a call that takes its first step at once (Python 3.12 and later)."""
    if sys.version_info < (3, 12):
        raise Absent("asyncio has no eager tasks before Python 3.12")
    n = run.some(300_000, 10_000)
    loop = asyncio.get_running_loop()
    agent = Counter()

    async def once() -> None:
        for _ in range(n):
            await asyncio.Task(agent.add(), loop=loop, eager_start=True)

    await run.repeat(n, once)


async def one_way(run: Run) -> None:
    """A deque that one callback of the loop drains."""
    n = run.some(1_000_000, 20_000)
    loop = asyncio.get_running_loop()
    agent = Counter()
    inbox: deque[int] = deque()
    drained = loop.create_future()

    def drain() -> None:
        state = agent.state
        while inbox:
            state["value"] += inbox.popleft()
        drained.set_result(None)

    def cast(amount: int) -> None:
        if not inbox:
            loop.call_soon(drain)
        inbox.append(amount)

    async def once() -> None:
        nonlocal drained
        for _ in range(n // 1_000):
            drained = loop.create_future()
            for _ in range(1_000):
                cast(1)
            await drained

    await run.repeat(n, once)


def idle_object(run: Run) -> None:
    """Resident bytes of an object with slots and a dictionary of three small fields."""
    n = run.some(1_000_000, 50_000)
    before = resident_bytes()
    kept = {}
    for number in range(n):
        agent = kept[f"agent-{number:07}"] = Counter()
        agent.state = {"name": f"name-{number}", "count": number + 1_000, "share": number / 7}
    run.record((resident_bytes() - before) / n)


async def fan_out_100(run: Run) -> None:
    """One value handed to 100 functions: half of them plain, half coroutines that don't wait."""
    n = run.some(20_000, 500)
    seen = 0

    def plain(_event: object) -> None:
        nonlocal seen
        seen += 1

    async def waiting(_event: object) -> None:
        nonlocal seen
        seen += 1

    plain_ones = [plain] * 50
    waiting_ones = [waiting] * 50

    async def once() -> None:
        for number in range(n):
            for function in plain_ones:
                function(number)
            for coroutine in waiting_ones:
                try:  # noqa: SIM105 - a context manager would cost more than the call
                    coroutine(number).send(None)
                except StopIteration:
                    pass

    await run.repeat(n * 100, once)
