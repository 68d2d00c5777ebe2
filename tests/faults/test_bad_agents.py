"""Agents that misbehave, one way each, beside one that doesn't and is called all the while: it never notices."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import field
from pathlib import Path
from typing import Any

import pytest

from jidosystem import Agent, AgentFailed, JidoError, Lifecycle, MailboxFull, Platform, Supervision, action, on_start
from jidosystem.core.errors import AgentCrashed, InvalidResult, TurnTimeout
from tests.runtime.harness import until, until_async

LEFT: list[Any] = []


class Good(Agent):
    """Counts."""

    count: int = 0

    @action
    async def add(self) -> int:
        self.count += 1
        return self.count


class Fatal(BaseException):
    """Nobody expects it."""


class Bad(Agent):
    """Everything that an action shouldn't do."""

    lifecycle = Lifecycle(turn_timeout=0.2)
    supervision = Supervision(max_restarts=1000)
    value: int = 0
    kept: list[int] = field(default_factory=list)

    @action
    async def loop_for_ever(self) -> None:
        self.value = -1
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    @action
    async def block_the_loop(self) -> None:
        self.value = -1
        time.sleep(0.3)  # noqa: ASYNC251
        raise ValueError("at last")

    @action
    async def leak(self) -> None:
        self.value = -1
        LEFT.append(asyncio.ensure_future(asyncio.sleep(60)))
        LEFT.append(bytearray(1_000_000))
        raise MemoryError("no more")

    @action
    async def raise_base_exception(self) -> None:
        self.value = -1
        raise Fatal("x")

    @action
    async def cancel_itself(self) -> None:
        self.value = -1
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    @action
    async def return_rubbish(self) -> list[int]:
        self.value = -1
        return [object()]  # type: ignore[list-item]

    @action
    async def change_afterwards(self) -> None:
        kept = self.kept
        asyncio.get_running_loop().call_soon(kept.append, 666)
        LEFT.append(kept)
        raise ValueError("and changes its state later")

    @action
    async def add(self) -> int:
        self.value += 1
        self.kept.append(self.value)
        return self.value


class NeverStarts(Agent):
    """Crashes on every start."""

    supervision = Supervision(max_restarts=2, within=60.0)

    @on_start
    async def start(self) -> None:
        raise Fatal("no")

    @action
    async def add(self) -> int:
        return 1


@asynccontextmanager
async def beside(platform: Platform) -> AsyncIterator[None]:
    """A good agent is called as long as this lasts; each call is answered, in order."""
    ended, answered = False, 0

    async def call() -> None:
        nonlocal answered
        while not ended:
            answered += 1
            assert await platform.agent(Good, "g").add() == answered
            await asyncio.sleep(0)

    calling = asyncio.ensure_future(call())
    await until(lambda: answered > 5)
    try:
        yield
        before = answered
        await until(lambda: answered > before + 5 or calling.done(), "calls to others")
    finally:
        ended = True
        await calling


@pytest.fixture(params=["memory", "sqlite"])
async def platform(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Platform]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/bad.db"
    async with Platform(url, agents=[Good, Bad, NeverStarts]) as running:
        yield running
    for left in LEFT:
        if isinstance(left, asyncio.Future):
            left.cancel()
    await asyncio.gather(*(left for left in LEFT if isinstance(left, asyncio.Future)), return_exceptions=True)
    LEFT.clear()


@pytest.mark.blocking
@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("loop_for_ever", TurnTimeout), ("block_the_loop", ValueError), ("leak", MemoryError), ("raise_base_exception", AgentCrashed),
        ("cancel_itself", JidoError), ("return_rubbish", InvalidResult), ("change_afterwards", ValueError),
    ],
)  # fmt: skip
async def test_an_action_that_misbehaves_has_done_nothing_and_hurts_nobody_else(platform: Platform, what: str, error: type[BaseException]) -> None:
    ref = platform.agent(Bad, "b")
    assert await ref.add() == 1
    async with beside(platform):
        for _ in range(2):
            with pytest.raises(error):
                await getattr(ref, what)()
    assert await ref.add() == 2
    shown = await platform.agents.describe(ref)
    assert shown.fields == {"value": 2, "kept": [1, 2]}
    await platform.agents.stop(ref)
    assert await ref.add() == 3


async def test_an_agent_that_crashes_on_every_start_fails_for_good_and_hurts_nobody_else(platform: Platform) -> None:
    ref = platform.agent(NeverStarts, "n")
    async with beside(platform):

        async def failed() -> bool:
            with suppress(AgentCrashed):
                try:
                    await ref.add()
                except AgentFailed as error:
                    return "NeverStarts/n" in str(error)
            return False

        await until_async(failed, "the verdict")
    assert (await platform.agents.describe(ref)).state == "failed"


async def test_a_hundred_thousand_calls_at_once_are_answered_or_refused_and_counted_right(platform: Platform) -> None:
    ref, calls, limit = platform.agent(Good, "flooded"), 100_000, 10_000
    deepest = 0

    async def watch() -> None:
        nonlocal deepest
        while True:
            queue = platform._node.hosts["Good"].live["flooded"].queue if "flooded" in platform._node.hosts["Good"].live else None
            deepest = max(deepest, len(queue) if queue else 0)
            await asyncio.sleep(0)

    watching = asyncio.ensure_future(watch())
    answered = refused = 0

    async def call() -> None:
        nonlocal answered, refused
        try:
            await platform.call(ref.add, timeout=60.0)
        except MailboxFull:
            refused += 1
        else:
            answered += 1

    await asyncio.gather(*(call() for _ in range(calls)))
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert answered + refused == calls
    assert deepest <= limit
    assert await ref.add() == answered + 1
