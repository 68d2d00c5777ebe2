"""A blocked event loop is told by agent and action, from a thread that isn't blocked."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from typing import Any

import pytest

from jidosystem import Agent, Platform, action, on_load
from jidosystem.runtime.watchdog import Watchdog
from tests.runtime.harness import until

PATIENCE_S = 0.25
"""Long beside what a busy machine keeps a thread waiting that could run: that would be told, too."""
PATIENCE = {"agents.watchdog_timeout": PATIENCE_S}
BLOCKED = "the event loop is blocked"

pytestmark = pytest.mark.blocking


class Told(logging.Handler):
    """The lines about blocked loops; a blocker may wait for one."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []
        self.seen = threading.Semaphore(0)

    def emit(self, record: logging.LogRecord) -> None:
        line = json.loads(record.getMessage())
        if line["event"].startswith(BLOCKED):
            self.lines.append(line)
            self.seen.release()

    def wait(self) -> None:
        """Block until the next line."""
        assert self.seen.acquire(timeout=10.0), "nobody told that the loop is blocked"


TOLD: list[Told] = []


@pytest.fixture
def told() -> Any:
    handler = Told()
    logger = logging.getLogger("jidosystem")
    logger.addHandler(handler)
    TOLD.append(handler)
    yield handler
    TOLD.clear()
    logger.removeHandler(handler)


class Blocker(Agent):
    """Waits without letting anybody else run."""

    value: int = 0
    loads_slowly: bool = False

    @action
    async def block(self) -> None:
        self.value += 1
        self._sink_in()

    def _sink_in(self) -> None:
        TOLD[-1].wait()

    @action
    async def block_after_waiting(self) -> None:
        await asyncio.sleep(0)
        TOLD[-1].wait()

    @action
    async def let_another_block(self) -> None:
        await self.agent(Blocker, "inner").block()

    @action
    async def block_twice(self) -> None:
        TOLD[-1].wait()
        TOLD[-1].wait()

    @action(readonly=True)
    async def block_reading(self) -> None:
        TOLD[-1].wait()

    @action
    def block_in_a_thread(self) -> None:
        time.sleep(2 * PATIENCE_S)

    @action
    async def take_long(self) -> None:
        await asyncio.sleep(2 * PATIENCE_S)

    @on_load
    def load(self) -> None:
        if self.loads_slowly:
            TOLD[-1].wait()

    @action
    async def load_slowly(self) -> None:
        self.loads_slowly = True


@pytest.mark.parametrize("name", ["block", "block_after_waiting", "block_reading"])
async def test_agent_and_action_are_named_with_the_place(told: Told, name: str) -> None:
    async with Platform(config=PATIENCE) as platform:
        await getattr(platform.agent(Blocker, "b"), name)()
    [line] = told.lines
    assert (line["agent"], line["action"], line["level"]) == ("Blocker/b", name, "error")
    assert f"in {name}" in line["stack"]
    assert "TOLD[-1].wait()" in line["stack"]
    assert line["blocked_s"] >= PATIENCE_S


async def test_the_innermost_of_nested_turns_is_the_one(told: Told) -> None:
    async with Platform(config=PATIENCE) as platform:
        await platform.agent(Blocker, "outer").let_another_block()
    [line] = told.lines
    assert (line["agent"], line["action"]) == ("Blocker/inner", "block")
    assert "in _sink_in" in line["stack"]


async def test_it_is_told_again_as_time_goes_on(told: Told) -> None:
    async with Platform(config=PATIENCE) as platform:
        await platform.agent(Blocker, "b").block_twice()
    first, second = told.lines
    assert second["blocked_s"] == 2 * first["blocked_s"]


async def test_code_of_no_turn_is_told_by_its_stack(told: Told) -> None:
    async with Platform(config=PATIENCE):
        told.wait()
    [line] = told.lines
    assert (line["agent"], line["action"]) == (None, None)
    assert "test_code_of_no_turn" in line["stack"]


async def test_code_that_runs_while_an_agent_is_loaded(told: Told) -> None:
    async with Platform(config=PATIENCE) as platform:
        ref = platform.agent(Blocker, "b")
        await ref.load_slowly()
        await platform.agents.stop(ref)
        await platform.agents.start(Blocker, "b")
    [line] = told.lines
    assert "in load" in line["stack"]


async def test_waiting_and_threads_block_nothing(told: Told) -> None:
    async with Platform(config=PATIENCE) as platform:
        await asyncio.gather(platform.agent(Blocker, "a").take_long(), platform.agent(Blocker, "b").block_in_a_thread())
    assert told.lines == []


async def test_nought_is_no_watch_and_it_can_be_set_while_running(told: Told) -> None:
    async with Platform(config={"agents.watchdog_timeout": 0}) as platform:
        time.sleep(2 * PATIENCE_S)  # noqa: ASYNC251 - blocking is what is tested
        assert told.lines == []
        await platform.config.update("agents.watchdog_timeout", PATIENCE_S)
        await asyncio.to_thread(time.sleep, 1.1)  # the next look at the setting
        told.wait()
    assert len(told.lines) == 1


def watchdogs() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "jido-watchdog"}


async def test_the_thread_ends_with_the_platform() -> None:
    before = watchdogs()  # that of the test before, told to end, may not have returned yet
    async with Platform():
        [thread] = watchdogs() - before
    await until(lambda: not thread.is_alive(), "the end of the thread")


def test_a_loop_that_is_gone_ends_the_watch() -> None:
    async def abandon() -> None:
        await Platform(config=PATIENCE).__aenter__()

    before = watchdogs()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(abandon())
    [thread] = watchdogs() - before
    for task in asyncio.all_tasks(loop):
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    thread.join(timeout=5.0)
    assert not thread.is_alive()


def test_a_loop_that_closes_without_the_sign_that_it_was_asked_for_ends_the_watch(told: Told) -> None:
    loop, asked = asyncio.new_event_loop(), threading.Event()

    def patience_s() -> float:
        asked.set()
        return 0.05

    before = watchdogs()
    Watchdog(loop, logging.getLogger("jidosystem"), patience_s).start()
    [thread] = watchdogs() - before
    assert asked.wait(5.0)
    while not loop._ready:  # type: ignore[attr-defined]
        time.sleep(0.001)
    loop.close()
    thread.join(timeout=5.0)
    assert not thread.is_alive()
    assert told.lines == []
