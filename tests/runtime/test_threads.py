"""Actions written as `def`: a worker thread runs them, the loop never waits for them, and nor does the exit."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from jidosystem import Agent, Lifecycle, Platform, TurnTimeout, action
from jidosystem.core.errors import AgentCrashed, InvalidArguments, OutsideTurn
from tests.runtime.harness import settle, until_async


class Other(Agent):
    got: int = 0

    @action
    async def take(self, number: int) -> int:
        self.got += number
        return self.got


class Late(Agent):
    got: int = 0

    @action
    async def take(self, number: int) -> None:
        self.got += number


class Worker(Agent):
    value: int = 0

    @action
    def where(self) -> str:
        return threading.current_thread().name

    @action
    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    @action
    def fail(self, error: str) -> None:
        self.value = 99
        if error == "exit":
            raise SystemExit(3)
        raise ValueError("no")

    @action
    def cause(self) -> None:
        self.value += 1
        self.emit("worker.done", {"value": self.value})
        self.cast(self.agent(Other, "a").take, 3)
        self.remind("later", after=3600, action=self.add, args={"amount": 1})

    @action
    def cast_to_new_type(self) -> None:
        self.cast(self.agent(Late, "a").take, 3)

    @action(copy=False)
    def hang(self, until_set: Any) -> None:
        self.value = 99
        until_set.wait()
        self.emit("worker.hung")

    @action(readonly=True)
    def get(self) -> int:
        return self.value

    @action
    def call_from_here(self) -> int:
        return asyncio.run(self.agent(Other, "a").take(1))


class Hasty(Worker):
    lifecycle = Lifecycle(turn_timeout=1.0)  # long beside what a thread takes to start on a busy machine


async def test_a_plain_def_runs_in_a_thread_and_the_loop_goes_on(platform: Platform) -> None:
    assert (await platform.agent(Worker, "a").where()).startswith("jido-action")
    assert await platform.agent(Worker, "a").add(3) == 3
    assert await platform.agent(Worker, "a").get() == 3


async def test_it_rolls_back_like_any_other(platform: Platform) -> None:
    ref = platform.agent(Worker, "a")
    with pytest.raises(ValueError, match="no"):
        await ref.fail("error")
    with pytest.raises(AgentCrashed, match="SystemExit"):
        await ref.fail("exit")
    assert await ref.add(1) == 1


async def test_it_may_emit_cast_and_remind(platform: Platform) -> None:
    other = platform.agent(Other, "a")
    await platform.agent(Worker, "a").cause()
    assert [event.data async for event in platform.events.read_all()] == [{"value": 1}]
    assert (await platform.agents.describe(platform.agent(Worker, "a"))).reminders == ("later",)

    async def taken() -> bool:
        return await other.take(0) == 3

    await until_async(taken)


async def test_it_may_refer_to_a_type_that_nobody_has_named_before(platform: Platform) -> None:
    await platform.agent(Worker, "a").cast_to_new_type()
    ref = platform.agent(Late, "a")
    async with asyncio.timeout(5):
        async for fields, _revision in platform.agents.watch(ref):
            assert fields == {"got": 3}
            break


async def test_it_cant_call(platform: Platform) -> None:
    with pytest.raises((OutsideTurn, RuntimeError), match="thread"):
        await platform.agent(Worker, "a").call_from_here()
    assert await platform.agent(Other, "a").take(0) == 0


async def test_a_thread_that_hangs_is_given_up_and_its_agent_goes_on() -> None:
    async with Platform() as platform:
        ref, event = platform.agent(Hasty, "a"), threading.Event()
        with pytest.raises(TurnTimeout):
            await ref.hang(event)
        assert await ref.add(1) == 1
        event.set()
        await settle()
        assert await ref.add(1) == 2
        assert [e async for e in platform.events.read_all()] == []


async def test_many_at_once(platform: Platform) -> None:
    class Sleeper(Agent):
        @action
        def sleep(self) -> int:
            time.sleep(0.001)
            return threading.active_count()

    counts = await asyncio.gather(*(platform.agent(Sleeper, str(i)).sleep() for i in range(500)))
    assert max(counts) < 60


async def test_wrong_arguments_are_refused_before_any_thread(platform: Platform) -> None:
    with pytest.raises(InvalidArguments):
        await platform.agent(Worker, "a").add()  # type: ignore[call-arg]


HANGS = """
import asyncio, threading
from jidosystem import Agent, Lifecycle, Platform, action

class Hung(Agent):
    lifecycle = Lifecycle(shutdown_grace_period=0.1)
    value: int = 0

    @action
    def hang(self) -> None:
        self.value = 99
        entered.set()
        threading.Event().wait()

    @action
    async def swallow(self) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                print("swallowed", flush=True)
                if going == "thread":
                    raise

async def main():
    async with Platform("sqlite:///{path}") as platform:
        task = asyncio.ensure_future(platform.agent(Hung, "a").hang())
        await asyncio.to_thread(entered.wait)
    print("closed", repr(await asyncio.gather(task, return_exceptions=True)), flush=True)

going, entered = "thread", threading.Event()
asyncio.run(main())
print("left", flush=True)
"""


async def test_a_thread_that_hangs_doesnt_keep_the_process_alive(tmp_path: Path) -> None:
    """The platform closes, says who hung, its caller is answered, and the program ends."""
    program = tmp_path / "hangs.py"
    program.write_text(HANGS.replace("{path}", str(tmp_path / "x.db")))
    done = await asyncio.to_thread(subprocess.run, [sys.executable, str(program)], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "left"
    assert "ShuttingDown" in done.stdout
    assert "hang" in done.stderr
