"""The demonstration on a cluster: a NATS server and three node processes, of which one is killed and one stands still for longer than its lease.

The first node also feeds the flights. The agents live on all three: what the killed one had is taken over by the others, and what
the one that stood still tries to write, or to answer, when it comes back, is refused. The exit code is 0 only if every total of
every agent is what the CSV says.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random, SystemRandom
from time import monotonic
from typing import NamedTuple

from jidosystem.api.assembly import local_cluster

from .books import Books, reckon
from .demo import MAX_LINE_BYTES, ROOT, messages, show_totals, show_verdict
from .screen import Screen

STANDSTILL_S = 6.0
"""Twice the time after which a node's lease may be declared void."""


class Plan(NamedTuple):
    """What is to be shown."""

    days: int
    callers: int
    seed: int
    folder: Path


def parse_plan(arguments: Sequence[str]) -> Plan:
    """The plan that a command line describes."""
    parser = argparse.ArgumentParser(prog="make demo-cluster ARGS=…", description="Flights of January on three processes, two of which fail.")
    parser.add_argument("--days", type=int, default=8, help="so many days of January (default: 8; all are 31)")
    parser.add_argument("--callers", type=int, default=200, help="calls under way at a time (default: 200)")
    parser.add_argument("--seed", type=int, help="repeats the random choices of another run")
    parser.add_argument("--folder", type=Path, default=ROOT / ".demo", help="where the server's files go (default: .demo)")
    given = parser.parse_args(arguments)
    if given.callers < 1 or given.days < 1:
        parser.error("--callers and --days are at least 1")
    seed = given.seed if given.seed is not None else SystemRandom().randrange(1_000_000)
    return Plan(given.days, given.callers, seed, given.folder / "cluster")


class Nodes:
    """The processes, by name. They find the servers by a variable of their environment: no list of processes shows the password."""

    def __init__(self, plan: Plan, url: str) -> None:
        self._plan = plan
        self._environment = dict(os.environ) | {"JIDO_STORE": url, "XDG_RUNTIME_DIR": str(plan.folder)}
        self.processes: dict[str, Process] = {}

    async def host(self, name: str) -> None:
        """A node that hosts the agents and does nothing else; returns when it has joined."""
        process = await self._start(name, "jidosystem", "run", "examples.flights.agents", "--port", "0", "--json")
        assert process.stdout is not None
        if not await process.stdout.readline():
            raise SystemExit(f"{name} has ended by itself; what it said is in {self.log_of(name)}")

    async def feed(self, name: str) -> Process:
        """The node that also feeds the flights."""
        numbers = ("--days", str(self._plan.days), "--callers", str(self._plan.callers))
        return await self._start(name, "examples.flights.load", *numbers)

    def log_of(self, name: str) -> Path:
        """What a node says of its troubles."""
        return self._plan.folder / f"{name}.log"

    async def end(self) -> None:
        """Whatever they are at."""
        for process in self.processes.values():
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _start(self, name: str, module: str, *arguments: str) -> Process:
        with self.log_of(name).open("ab") as log:
            process = self.processes[name] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, *arguments, "--name", name),
                cwd=ROOT,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=MAX_LINE_BYTES,
            )
        return process


@asynccontextmanager
async def nodes(plan: Plan, url: str) -> AsyncGenerator[Nodes]:
    """They never outlive the block."""
    there = Nodes(plan, url)
    try:
        yield there
    finally:
        await there.end()


class Course:
    """How far the feeding is, for those who wait for a share of it."""

    def __init__(self) -> None:
        self._share, self._moved = 0.0, asyncio.Event()

    def went(self, share: float) -> None:
        """It is there."""
        self._share = share
        self._moved.set()

    async def reach(self, share: float) -> None:
        """Until it is at least there."""
        while self._share < share:
            self._moved.clear()
            await self._moved.wait()


async def fail(there: Nodes, course: Course, screen: Screen, random: Random) -> None:
    """What goes wrong meanwhile."""
    await course.reach(random.uniform(0.15, 0.35))
    victim = there.processes["flights-2"]
    victim.send_signal(signal.SIGKILL)
    await victim.wait()
    screen.leave()
    screen.say(f"kill -9 {victim.pid}: flights-2 is gone; its agents are claimed by the others once its lease has run out.", "red")
    await there.host("flights-2")
    screen.say("flights-2 has been started again and gets agents back.")
    await course.reach(random.uniform(0.5, 0.7))
    sleeper = there.processes["flights-3"]
    sleeper.send_signal(signal.SIGSTOP)
    screen.leave()
    screen.say(f"kill -STOP {sleeper.pid}: flights-3 stands still for {STANDSTILL_S:g} s, twice its lease; the others declare it dead.", "red")
    await asyncio.sleep(STANDSTILL_S)
    sleeper.send_signal(signal.SIGCONT)
    screen.leave()
    screen.say("flights-3 goes on: it lets go of the agents that others have, and joins again.")


async def feed(there: Nodes, course: Course, screen: Screen) -> Books:
    """Feed all flights; the books."""
    process, total, began_s = await there.feed("flights-1"), 0, monotonic()
    screen.begin()
    async for message in messages(process):
        if "flights" in message:
            total, began_s = message["flights"], monotonic()
            screen.say(f"Three nodes are up: {total:,} flights to feed.")
        elif "done" in message:
            screen.progress(message["done"], total, message["done"] / max(monotonic() - began_s, 1e-6))
            course.went(message["done"] / total)
        elif "books" in message:
            screen.leave()
            screen.say(f"Every flight is in after {monotonic() - began_s:,.1f} s, and all books are closed.")
            books: Books = message["books"]
            return books
    raise SystemExit(f"the feeding node ended by itself with exit code {await process.wait()}; what it said is in {there.log_of('flights-1')}")


async def show(plan: Plan, url: str, screen: Screen) -> bool:
    """The demonstration; whether all is as it should be."""
    told = f"{plan.callers} callers at a time (seed {plan.seed})"
    screen.say(
        f"Flights from New York, January 2013 (days 1 to {plan.days}), on three processes and a NATS server: each one a durable call, by {told}",
        "bold",
    )
    async with nodes(plan, url) as there:
        await asyncio.gather(there.host("flights-2"), there.host("flights-3"))
        course = Course()
        failing = asyncio.create_task(fail(there, course, screen, Random(plan.seed)))
        try:
            found = await feed(there, course, screen)
            await failing
        finally:
            failing.cancel()
    expected = reckon({1}, plan.days)
    show_totals(screen, expected, found)
    return show_verdict(screen, expected, found)


def main(arguments: Sequence[str]) -> int:
    """Run the demonstration; the exit code."""
    plan = parse_plan(arguments)
    shutil.rmtree(plan.folder, ignore_errors=True)
    plan.folder.mkdir(parents=True, mode=0o700)
    try:
        with local_cluster(plan.folder / "nats") as url:
            return 0 if asyncio.run(show(plan, url, Screen())) else 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
