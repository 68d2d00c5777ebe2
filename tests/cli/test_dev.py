"""`jido dev` as a process: saves of every kind, and the deaths of whoever takes part."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jidosystem.cli import node
from tests.cli.conftest import Jido
from tests.cli.test_run import JIDO

PROGRAM = """
from jidosystem import Agent, action


class Counter(Agent):
    {field}: int = 0

    @action
    async def add(self) -> int:
        self.{field} += {step}
        return self.{field}
"""


class Dev:
    """A running `jido dev --json`."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self._program = home / "counter.py"
        self.process = subprocess.Popen(
            [*JIDO, "dev", "counter.py", "--json", "--port", "0", *arguments], stdout=subprocess.PIPE, text=True, cwd=home, start_new_session=True
        )

    def save(self, step: int, field: str = "value", more: str = "") -> None:
        """Save a program that counts by some step; as editors do, in one piece."""
        fresh = self._program.with_suffix(".new")
        fresh.write_text(PROGRAM.format(step=step, field=field) + more)
        fresh.replace(self._program)

    def until(self, *events: str) -> dict[str, Any]:
        """The next of these things that happens."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            happened: dict[str, Any] = json.loads(line)
            if happened["event"] in events:
                return happened
        raise AssertionError(f"jido dev ended before {events}")

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def dev(home: Path) -> Iterator[Callable[..., Dev]]:
    """Start it on a program that counts by one."""
    made: list[Dev] = []

    def start(*arguments: str) -> Dev:
        started = Dev.__new__(Dev)
        (home / "counter.py").write_text(PROGRAM.format(step=1, field="value"))
        started.__init__(home, *arguments)  # type: ignore[misc]
        made.append(started)
        return started

    yield start
    for one in made:
        if one.process.poll() is None:
            os.killpg(one.process.pid, signal.SIGKILL)
        assert one.process.stdout is not None
        one.process.stdout.close()
        one.process.wait(30)


def gone(pid: int) -> bool:
    """Wait until a process that isn't ours to wait for has ended."""
    for _ in range(600):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_a_save_brings_the_agents_back_with_their_state(dev: Callable[..., Dev], jido: Jido) -> None:
    running = dev()
    first = running.until("serving")
    assert jido("call", "Counter/home", "add").out == "1\n"
    running.save(10)
    second = running.until("reloaded", "failed")
    assert second["event"] == "reloaded"
    assert second["pid"] != first["pid"]
    assert jido("call", "Counter/home", "add").out == "11\n"
    assert gone(first["pid"])
    assert running.end() == 0
    assert gone(second["pid"])
    assert node.running() == ([], [])


@pytest.mark.parametrize(
    ("field", "more", "told"),
    [
        ("value", "x = (\n", "SyntaxError"),
        ("value", "undefined\n", "NameError"),
        ("value", "  bad: int\n", "IndentationError"),
        ("other", "", "field 'value'"),
        ("value", "class Second(Agent, name='Counter'): pass\n", "'Counter'"),
        ("value", "import os\nos._exit(3)\n", "exit code 3"),
        ("value", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", "SIGKILL"),
    ],
)
def test_the_old_program_goes_on_if_the_new_one_can_not(dev: Callable[..., Dev], jido: Jido, field: str, more: str, told: str) -> None:
    running = dev()
    running.until("serving")
    assert jido("call", "Counter/home", "add").out == "1\n"
    running.save(10, field, more)
    failed = running.until("reloaded", "failed")
    assert (failed["event"], failed["then"]) == ("failed", "the old program goes on")
    assert told in failed["message"]
    assert jido("call", "Counter/home", "add").out == "2\n"
    running.save(100)
    assert running.until("reloaded", "failed")["event"] == "reloaded"
    assert jido("call", "Counter/home", "add").out == "102\n"


def test_calls_during_reloads_wait_and_none_is_refused_or_lost(dev: Callable[..., Dev]) -> None:
    running = dev()
    running.until("serving")
    found = node.running()[0][0]
    counts: list[int] = []
    ended = threading.Event()

    def call() -> None:
        while not ended.is_set():
            counts.append(node.ask(found, "POST", "/v1/agents/Counter/home/add", patience_s=60))

    calling = threading.Thread(target=call)
    calling.start()
    try:
        for _ in range(3):
            running.save(1)
            assert running.until("reloaded", "failed")["event"] == "reloaded"
    finally:
        ended.set()
        calling.join()
    assert counts == list(range(1, len(counts) + 1))


def test_saves_in_quick_succession_end_with_the_last_one(dev: Callable[..., Dev], jido: Jido) -> None:
    running = dev()
    running.until("serving")
    for step in range(2, 12):
        running.save(step)
        time.sleep(0.03)
    running.save(1000)
    while jido("call", "Counter/home", "add", "--json").out == "" or int(jido("call", "Counter/home", "add").out) < 1000:
        running.until("reloaded")
    assert running.end() == 0


def test_a_program_that_is_broken_at_the_start_is_waited_for(dev: Callable[..., Dev], home: Path, jido: Jido) -> None:
    running = dev()
    running.save(1, more="x = (\n")
    if running.until("serving", "failed")["event"] == "serving":  # it was read before it was broken
        running.until("failed")
    running.save(5)
    running.until("serving", "reloaded")
    assert jido("call", "Counter/home", "add").out == "5\n"


def test_a_program_that_is_killed_is_started_again(dev: Callable[..., Dev], jido: Jido) -> None:
    running = dev()
    first = running.until("serving")
    assert jido("call", "Counter/home", "add").out == "1\n"
    time.sleep(2.1)  # a program that dies sooner is waited for
    os.kill(first["pid"], signal.SIGKILL)
    died = running.until("ended")
    assert died["again"]
    second = running.until("serving")
    assert second["pid"] != first["pid"]
    assert jido("call", "Counter/home", "add").out == "2\n"


def test_a_program_that_dies_at_once_waits_for_a_save(dev: Callable[..., Dev], jido: Jido) -> None:
    running = dev()
    first = running.until("serving")
    os.kill(first["pid"], signal.SIGKILL)
    assert not running.until("ended")["again"]
    running.save(7)
    running.until("serving", "reloaded")
    assert jido("call", "Counter/home", "add").out == "7\n"


def test_killed_itself_it_leaves_no_process_and_no_lock(dev: Callable[..., Dev], jido: Jido) -> None:
    running = dev()
    first = running.until("serving")
    assert jido("call", "Counter/home", "add").out == "1\n"
    running.process.kill()
    running.process.wait(30)
    assert gone(first["pid"])
    assert jido("ps").code == 3
    again = dev()
    again.until("serving")
    assert jido("call", "Counter/home", "add").out == "2\n"


@pytest.mark.parametrize("wait_s", [0.0, 0.2, 0.5, 1.0])
def test_ctrl_c_at_any_moment_ends_everything(dev: Callable[..., Dev], wait_s: float) -> None:
    running = dev()
    if wait_s == 0.5:
        running.until("serving")
        running.save(2)  # in the middle of a reload
        time.sleep(0.1)
    else:
        time.sleep(wait_s)
    os.killpg(running.process.pid, signal.SIGINT)  # as a terminal does it: everybody gets it
    assert running.process.wait(60) in (130, -signal.SIGINT, 1)
    for _ in range(600):  # nobody is left in the group
        try:
            os.killpg(running.process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        raise AssertionError("a process was left behind")
    assert node.running() == ([], [])


LIFESPAN = """
import asyncio
from contextlib import asynccontextmanager


async def heard(event):
    with open("heard", "a") as file:
        file.write(f"{{event.data}}\\n")


@asynccontextmanager
async def platform_lifespan(platform):
    await platform.events.subscribe("told", heard, durable="heard")
    await platform.events.publish("told", "{name}")
    {before}
    yield
    {after}
"""


def heard(home: Path, *expected: str) -> None:
    """Wait until the subscription has heard all of this, in this order."""
    found: list[str] = []
    for _ in range(600):
        found = (home / "heard").read_text().split() if (home / "heard").exists() else []
        if len(found) >= len(expected):
            break
        time.sleep(0.05)
    assert found == list(expected)


def lifespan(name: str, before: str = "", after: str = "") -> str:
    return LIFESPAN.format(name=name, before=before, after=after)


def test_a_lifespan_is_run_by_every_program_and_the_old_one_again_if_the_new_one_fails(dev: Callable[..., Dev], jido: Jido, home: Path) -> None:
    running = dev()
    running.until("serving")
    running.save(1, more=lifespan("first"))
    assert running.until("reloaded", "failed")["event"] == "reloaded"
    heard(home, "first")
    running.save(1, more=lifespan("second", before="undefined"))
    failed = running.until("reloaded", "failed")
    assert (failed["event"], failed["then"]) == ("failed", "the old program goes on")
    assert "in platform_lifespan" in failed["lines"]
    assert "NameError" in failed["message"]
    heard(home, "first", "second", "first")  # what the failed one published is durable
    assert jido("call", "Counter/home", "add").out == "1\n"
    running.save(1, more="async def platform_lifespan(platform): pass\n")
    assert "platform_lifespan is no async generator function" in running.until("reloaded", "failed")["message"]
    running.save(1, more=lifespan("third"))
    assert running.until("reloaded", "failed")["event"] == "reloaded"
    heard(home, "first", "second", "first", "third")  # the one of a wrong form didn't stop the old one
    assert running.end() == 0


def test_a_lifespan_that_fails_at_its_end_is_told_and_the_new_program_takes_its_place(dev: Callable[..., Dev], jido: Jido) -> None:
    running = dev()
    running.until("serving")
    running.save(1, more=lifespan("first", after="undefined"))
    assert running.until("reloaded", "failed")["event"] == "reloaded"
    running.save(5)
    failed = running.until("reloaded", "failed")
    assert (failed["event"], failed["then"]) == ("failed", "the new program takes its place")
    assert running.until("reloaded", "failed")["event"] == "reloaded"
    assert jido("call", "Counter/home", "add").out == "5\n"


def test_a_task_of_a_lifespan_that_fails_at_once_is_told_and_the_next_save_goes_on(dev: Callable[..., Dev], jido: Jido, home: Path) -> None:
    running = dev()
    running.until("serving")
    held = "async with asyncio.TaskGroup() as group: group.create_task(asyncio.to_thread(print, undefined=1)); yield"
    running.save(1, more=lifespan("first").replace("    yield\n", f"    {held}\n"))
    happened = running.until("failed", "ended")
    assert happened.get("code") in ("program", 1)  # it stood already, or didn't yet
    running.save(7)
    running.until("serving", "reloaded")
    assert jido("call", "Counter/home", "add").out == "7\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_lifespan_that_never_begins_keeps_no_process_and_no_lock(dev: Callable[..., Dev], jido: Jido, home: Path, number: int) -> None:
    running = dev()
    running.until("serving")
    text = "import os; open('pid', 'w').write(str(os.getpid())); await asyncio.Event().wait()"
    running.save(1, more=lifespan("first", before=text))
    heard(home, "first")
    for _ in range(600):
        if (home / "pid").exists() and (home / "pid").read_text():
            break
        time.sleep(0.05)
    running.process.send_signal(number)
    running.process.wait(20)
    assert gone(int((home / "pid").read_text()))
    again = dev()
    again.until("serving")
    assert jido("call", "Counter/home", "add").out == "1\n"


def test_a_lifespan_that_takes_too_long_to_begin_is_killed_and_the_old_program_goes_on(dev: Callable[..., Dev], jido: Jido, home: Path) -> None:
    running = dev("--patience", "5")
    running.until("serving")
    running.save(1, more=lifespan("first", before="import os; open('pid', 'w').write(str(os.getpid())); await asyncio.Event().wait()"))
    failed = running.until("reloaded", "failed")
    assert (failed["event"], failed["code"], failed["then"]) == ("failed", "timeout", "the old program goes on")
    assert failed["message"] == "the program took longer than 5 s to open and was killed"
    assert gone(int((home / "pid").read_text()))
    assert jido("call", "Counter/home", "add").out == "1\n"
    running.save(10)
    assert running.until("reloaded", "failed")["event"] == "reloaded"
    assert jido("call", "Counter/home", "add").out == "11\n"
    assert running.end() == 0


def test_a_lifespan_that_takes_too_long_to_end_is_killed_and_the_new_program_takes_its_place(dev: Callable[..., Dev], jido: Jido) -> None:
    running = dev("--patience", "5")
    running.until("serving")
    running.save(1, more=lifespan("first", after="await asyncio.Event().wait()"))
    stuck = running.until("reloaded", "failed")
    assert stuck["event"] == "reloaded"
    running.save(7)
    failed = running.until("reloaded", "failed")
    assert (failed["code"], failed["then"]) == ("timeout", "the new program takes its place")
    assert failed["message"] == "the program took longer than 5 s to close and was killed"
    assert running.until("reloaded", "failed")["event"] == "reloaded"
    assert gone(stuck["pid"])
    assert jido("call", "Counter/home", "add").out == "7\n"
    assert running.end() == 0


def test_a_lifespan_of_nearly_the_right_name_is_told(dev: Callable[..., Dev]) -> None:
    running = dev()
    running.until("serving")
    running.save(2, more=lifespan("first").replace("platform_lifespan", "lifespan"))
    hint = running.until("hint", "reloaded", "failed")
    assert hint["event"] == "hint"
    assert "lifespan isn't run: what is to run beside the agents is named platform_lifespan" in hint["message"]
    assert running.until("reloaded", "failed")["event"] == "reloaded"
    assert running.end() == 0
