"""The demonstration: start the node, kill it with SIGKILL at a random moment, start it again, compare the books.

This process holds nothing of the agents' state; all that outlives a kill is the node's SQLite file. Its exit code is 0 only
if every total of every agent is what the CSV says, and every nonsense row was refused.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random, SystemRandom
from time import monotonic
from typing import Any, NamedTuple

from .books import Book, Books, differences, reckon, sums
from .rows import ALL_MONTHS, airport_names
from .screen import Screen

ROOT = Path(__file__).parents[2]
SILENCE_TIMEOUT_S = 180.0
"""A node that says nothing for so long hangs: it is stopped and the demonstration has failed."""
MAX_LINE_BYTES = 64 * 1024 * 1024
MAX_SHOWN = 20


class Plan(NamedTuple):
    """What is to be shown."""

    months: frozenset[int]
    days: int
    callers: int
    corrupt: int
    seed: int
    kills: int
    folder: Path


class Life(NamedTuple):
    """What one life of the node told: the rows that it refused, and the books if it lived to the end."""

    refused: Sequence[tuple[int, str]]
    books: Books | None


def parse_plan(arguments: Sequence[str]) -> Plan:
    """The plan that a command line describes."""
    parser = argparse.ArgumentParser(prog="make demo ARGS=…", description="Real flights through durable agents, with a kill -9 in the middle.")
    parser.add_argument("--all", action="store_true", help="the whole year instead of January")
    parser.add_argument("--months", default="1", help="which months of 2013, with commas between them (default: 1)")
    parser.add_argument("--days", type=int, default=31, help="only so many days of each month (default: all)")
    parser.add_argument("--callers", type=int, default=1_000, help="calls under way at a time (default: 1,000)")
    parser.add_argument("--corrupt", type=int, default=0, metavar="N", help="put N nonsense rows among the real ones")
    parser.add_argument("--kills", type=int, default=1, help="how often the node is killed (default: 1)")
    parser.add_argument("--seed", type=int, help="repeats the random choices of another run")
    parser.add_argument("--folder", type=Path, default=ROOT / ".demo", help="where the node's file goes (default: .demo)")
    given = parser.parse_args(arguments)
    try:
        months = ALL_MONTHS if given.all else frozenset(map(int, given.months.split(",")))
    except ValueError:
        parser.error(f"--months {given.months}: numbers from 1 to 12 with commas between them")
    if not months <= ALL_MONTHS:
        parser.error(f"--months {given.months}: numbers from 1 to 12 with commas between them")
    if given.callers < 1 or given.days < 1 or given.corrupt < 0 or given.kills < 0:
        parser.error("--callers and --days are at least 1, --corrupt and --kills at least 0")
    seed = given.seed if given.seed is not None else SystemRandom().randrange(1_000_000)
    return Plan(months, given.days, given.callers, given.corrupt, seed, given.kills, given.folder)


@asynccontextmanager
async def node(plan: Plan) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A node process; it never outlives the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "examples.flights.load", "--store", f"sqlite:///{plan.folder.resolve()}/flights.db"),
        *("--months", ",".join(map(str, sorted(plan.months))), "--days", str(plan.days), "--callers", str(plan.callers)),
        *("--corrupt", str(plan.corrupt), "--seed", str(plan.seed)),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        limit=MAX_LINE_BYTES,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def messages(process: asyncio.subprocess.Process) -> AsyncIterator[dict[str, Any]]:
    """What the node says, until it ends."""
    assert process.stdout is not None
    while line := await asyncio.wait_for(process.stdout.readline(), SILENCE_TIMEOUT_S):
        yield json.loads(line)


async def live(plan: Plan, screen: Screen, random: Random, *, kill: bool) -> Life:
    """One life of the node, with or without a violent end."""
    refused: Sequence[tuple[int, str]] = ()
    total = 0
    # Beyond 1: after the last flight, while the airports wait for their reminders and close their books.
    share = random.uniform(0.02, 1.05)
    delay_s = random.uniform(0.0, 0.05)
    began_s = monotonic()
    screen.begin()
    async with node(plan) as process:
        async for message in messages(process):
            if "flights" in message:
                total, refused, began_s = message["flights"], message["refused"], monotonic()
                screen.say(f"Node {process.pid} is up: {total:,} flights to feed, {_agents(message['agents'])} to keep the books.")
            elif "done" in message:
                done = message["done"]
                screen.progress(done, total, done / max(monotonic() - began_s, 1e-6))
            if kill and (message.get("done", 0) >= share * total > 0 or "open_books" in message):
                await asyncio.sleep(delay_s)
                process.send_signal(signal.SIGKILL)
                await process.wait()
                screen.leave()
                screen.say(f"kill -9 {process.pid}", "red")
                return Life(refused, None)
            if "books" in message:
                screen.leave()
                screen.say(f"Every flight is in after {monotonic() - began_s:,.1f} s, and all books are closed.")
                if await process.wait() == 0:
                    return Life(refused, message["books"])
    raise SystemExit(f"the node ended by itself with exit code {process.returncode}; what it said stands above")


def _agents(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items())


def show_refused(screen: Screen, plan: Plan, refused: Sequence[tuple[int, str]]) -> bool:
    """The rows that were refused; whether they are as many as were put in."""
    if not plan.corrupt and not refused:
        return True
    screen.say()
    screen.say(f"{plan.corrupt:,} nonsense rows were put in, {len(refused):,} were refused:", "bold")
    for line, reason in refused[:MAX_SHOWN]:
        screen.say(f"  line {line:>7,}: {reason}")
    if len(refused) > MAX_SHOWN:
        screen.say(f"  … and {len(refused) - MAX_SHOWN:,} more")
    return len(refused) == plan.corrupt


TOTALS = (
    ("Aircraft", "flights", "flights"),
    ("Aircraft", "distance", "miles flown"),
    ("Aircraft", "air_time", "minutes in the air"),
    ("Aircraft", "dep_delay", "minutes late at departure"),
    ("Aircraft", "arr_delay", "minutes late at arrival"),
    ("Aircraft", "cancelled", "cancelled"),
    ("Aircraft", "astray", "departed, no landing on record"),
    ("Aircraft", "unseen_returns", "return flights that nobody saw"),
    ("Aircraft", "implausible", "departures before the last arrival"),
    ("Airport", "departures", "departures"),
    ("Airport", "arrivals", "arrivals"),
    ("Airport", "days_closed", "days closed"),
    ("Airport", "movements_closed", "movements on closed days"),
    ("Airline", "flights", "flights"),
    ("Airline", "cancelled", "cancelled"),
    ("Airline", "distance", "miles flown"),
)


def show_totals(screen: Screen, expected: Books, found: Books) -> None:
    """Totals of the agents beside totals of the file."""
    screen.say()
    screen.say(f"{'':10}{'':36}{'the agents':>14}{'the CSV':>14}", "bold")
    before = ""
    for kind, name, words in TOTALS:
        agents, file = sums(found, kind).get(name, 0), sums(expected, kind).get(name, 0)
        _row(screen, kind if kind != before else "", words, agents, file)
        before = kind
    names = airport_names()
    busiest = sorted((agent for agent in expected if agent.startswith("Airport/")), key=lambda agent: -expected[agent].get("movements_closed", 0))
    for n, agent in enumerate(busiest[:5]):
        code = agent.partition("/")[2]
        there = f"{code} {names.get(code, '')}".strip()[:35]
        _row(screen, "Busiest" if n == 0 else "", there, _movements(found.get(agent, {})), _movements(expected[agent]))


def _movements(book: Book) -> int:
    return book.get("movements_closed", 0)


def _row(screen: Screen, kind: str, words: str, agents: int, file: int) -> None:
    verdict = screen.paint("agree", "green") if agents == file else screen.paint("DIFFER", "red")
    screen.say(f"{kind:10}{words:36}{agents:>14,}{file:>14,}  {verdict}")


def show_verdict(screen: Screen, expected: Books, found: Books) -> bool:
    """Whether every total of every agent is what the file says, in plain words."""
    wrong = differences(expected, found)
    screen.say()
    if not wrong:
        totals = sum(map(len, found.values()))
        screen.say(f"The books balance: {totals:,} totals of {len(found):,} agents, compared one by one, all as the CSV says.", "green")
        return True
    screen.say(f"THE BOOKS DON'T BALANCE: {len(wrong):,} totals differ from the CSV.", "red")
    for sentence in wrong[:MAX_SHOWN]:
        screen.say(f"  {sentence}")
    if len(wrong) > MAX_SHOWN:
        screen.say(f"  … and {len(wrong) - MAX_SHOWN:,} more")
    return False


async def show(plan: Plan, screen: Screen) -> bool:
    """The demonstration; whether all is as it should be."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    for left_over in plan.folder.glob("flights.db*"):
        left_over.unlink()
    random = Random(plan.seed)
    months = "the whole of 2013" if plan.months == ALL_MONTHS else f"2013, month {', '.join(map(str, sorted(plan.months)))}"
    screen.say(f"Flights from New York, {months}: each one a durable call, fsynced, by {plan.callers} callers at a time (seed {plan.seed})", "bold")
    for _ in range(plan.kills):
        await live(plan, screen, random, kill=True)
        screen.say(
            "Started again on the same file. The loader died too and feeds from the first row: what took effect before is answered from its key."
        )
    life = await live(plan, screen, random, kill=False)
    assert life.books is not None
    expected = reckon(plan.months, plan.days)
    all_refused = show_refused(screen, plan, life.refused)
    show_totals(screen, expected, life.books)
    return show_verdict(screen, expected, life.books) and all_refused


def main(arguments: Sequence[str]) -> int:
    """Run the demonstration; the exit code."""
    plan = parse_plan(arguments)
    try:
        return 0 if asyncio.run(show(plan, Screen())) else 1
    except KeyboardInterrupt:
        return 130
