"""Kills a process at random instants, starts it again, and keeps the books.

A round is a life that ends by SIGKILL. After most of them the file is read as it lies there, before anything else
opens it: heads and log must tell one story. Then a platform opens it, nobody calls anybody, and what was pending must
complete by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jidosystem import Event, Platform
from jidosystem.core.codec import unseal
from jidosystem.core.events import decode_event
from jidosystem.runtime.head import decode_head
from tests.torture.books import Books, Op
from tests.torture.program import AGENTS, CONFIG

PATIENCE_S = 30.0
"""What was pending when a process died and hasn't come by itself so long after the restart is lost. Two seconds are promised; how long it took at
most is in `Seen.slowest_recovery_s`, for on a busy machine that is the machine's word, not ours."""
ROOT = Path(__file__).resolve().parents[2]
TYPES = {cls.__jido_type__.name: cls.__jido_type__ for cls in AGENTS}
QUIET = ("Ticker/t",)
"""Who goes on noting things while the books are checked."""


@dataclass
class Seen:
    """What a run has been through: without these numbers a green run says little."""

    kills: int = 0
    kills_before_ready: int = 0
    kills_unchecked: int = 0
    asked: int = 0
    answered: int = 0
    open_keyed: int = 0
    events: int = 0
    with_pending_effects: int = 0
    pending_effects: int = 0
    promises_due_later: int = 0
    slowest_recovery_s: float = 0.0

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}" for name, value in vars(self).items())


@dataclass
class Torture:
    """One store, killed again and again."""

    folder: Path
    seed: int
    books: Books = field(default_factory=Books)
    seen: Seen = field(default_factory=Seen)
    life: int = 0
    _open: dict[int, Op] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.path = self.folder / "torture.db"

    async def run(self, kills: int) -> None:
        """Kill so often; after every life but some, and after the last one, check everything."""
        while self.seen.kills < kills:
            await self.live_and_die()
            if self.seen.kills == kills or self.random.random() < 0.75:
                await self.check()
            else:
                self.seen.kills_unchecked += 1

    # -- living and dying ----------------------------------------------------------------------------------------

    async def live_and_die(self) -> None:
        """Start a process and kill it: mostly under load, sometimes while it starts and recovers."""
        self.life += 1
        again = [(number, op.kind, op.agent) for number, op in self._open.items()]
        told = {
            "path": str(self.path), "life": self.life, "seed": self.random.getrandbits(32), "again": again,
            "uvloop": find_spec("uvloop") is not None and self.random.random() < 0.5,
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.torture.load", json.dumps(told), cwd=ROOT, stdout=asyncio.subprocess.PIPE, limit=2**20
        )
        assert process.stdout is not None
        early = self.random.random() < 0.2
        if not early:
            await process.stdout.readline()
        listener = asyncio.ensure_future(self._listen(process.stdout))
        await asyncio.sleep(self.random.uniform(0.1, 0.6) if early else self.random.uniform(0.0, 0.8) ** 1.5)
        if process.returncode is not None:
            raise AssertionError(f"the process ended by itself with {process.returncode}, seed {self.seed}, life {self.life}")
        process.kill()
        ready = await listener
        await process.wait()
        self.seen.kills += 1
        self.seen.kills_before_ready += early and not ready

    async def _listen(self, pipe: asyncio.StreamReader) -> bool:
        """Take down what the process says, to its last whole line; whether it was ready."""
        ready = False
        while line := await pipe.readline():
            if not line.endswith(b"\n"):
                break  # the process died within this line: it says nothing
            kind, *told = json.loads(line)
            ready = ready or kind == "ready"
            if kind == "?":
                number, op = told[0], Op(*told[1:])
                self.books.asked(number, op)
                self.seen.asked += 1
                if op.keyed:
                    self._open[number] = op
            elif kind == "!":
                self.books.answered(*told)
                self.seen.answered += 1
                self._open.pop(told[0], None)
            elif kind == "x":
                self.books.refused(*told)
                self._open.pop(told[0], None)
        return ready

    # -- checking ------------------------------------------------------------------------------------------------

    async def check(self) -> None:
        """The file as the kill left it, then what a platform makes of it without being called."""
        if not self.path.exists():
            return
        self.seen.open_keyed += len(self._open)
        self._read_file()
        await self._recover()
        self._read_file(tallies=True)
        self.books.reckon(time.time())
        self.books.forget_decided()
        if self.books.wrong:
            raise AssertionError(f"seed {self.seed}, life {self.life}, {self.path}:\n" + "\n".join(self.books.wrong[:20]))

    def _read_file(self, *, tallies: bool = False) -> None:
        """Heads and log as they lie in the file, at one instant."""
        with contextlib.closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as connection:
            if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                return  # killed before anything was stored
            for position, blob in connection.execute(
                "SELECT position, event FROM events WHERE position > ? ORDER BY position", (self.books.position,)
            ):
                self._see(decode_event(blob, position))
            states = {agent: _state(agent, head) for agent, head in connection.execute("SELECT agent, head FROM heads WHERE head IS NOT NULL")}
        noting = {agent: state for agent, state in states.items() if state is not None and not agent.startswith("Tally/")}
        told = {agent.removeprefix("Tally/"): state for agent, state in states.items() if state is not None and agent.startswith("Tally/")}
        self.books.compare(noting, {of: state for of, state in told.items() if of not in QUIET} if tallies else {})

    def _see(self, event: Event) -> None:
        self.books.see(event)
        self.seen.events += 1

    async def _recover(self) -> None:
        """Start, call nobody, and wait for what must come by itself; then close in order."""
        books, now_s = self.books, time.time()
        pending = len(books.to_come(now_s))
        self.seen.pending_effects += pending
        self.seen.with_pending_effects += pending > 0
        self.seen.promises_due_later += books.latest_due_s(now_s) > now_s
        async with Platform(f"sqlite:///{self.path}", agents=AGENTS, config=CONFIG) as platform:
            began_s = time.time()
            patience_s = max(books.latest_due_s(began_s), began_s) - began_s + PATIENCE_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._follow_until_done(platform, began_s)
            if late := books.to_come(time.time() - PATIENCE_S) or books.untallied(QUIET):
                books.wrong.append(f"lost: {patience_s:.1f} s after the restart this hadn't come by itself: {dict(list(late.items())[:5])}")
            letters = await platform.dead_letters.list()
            if not books.ticks_again(began_s):
                books.wrong.append(f"lost: ticks; the newest at {books.ticked}, restarted at {began_s}")
            if letters:
                books.wrong.append(f"lost: dead letters: {letters[:3]}")
            books.wrong += await platform.verify()

    async def _follow_until_done(self, platform: Platform, began_s: float) -> None:
        books = self.books

        def done() -> bool:
            return not books.to_come(float("inf")) and not books.untallied(QUIET)

        if done() and books.ticks_again(began_s):
            return
        completed_s = began_s if done() else None
        last_due_s = books.latest_due_s(began_s)
        async with contextlib.aclosing(_follow(platform, books.position)) as events:
            async for event in events:
                self._see(event)
                if completed_s is None and done():
                    completed_s = time.time()
                    self.seen.slowest_recovery_s = max(self.seen.slowest_recovery_s, completed_s - max(began_s, last_due_s))
                if done() and books.ticks_again(began_s):
                    return


async def _follow(platform: Platform, after: int) -> AsyncIterator[Event]:
    async for event in platform.events.follow("**", after=after):
        yield event


def _state(agent: str, head: bytes) -> Mapping[str, Any] | None:
    kind = TYPES.get(agent.partition("/")[0])
    if kind is None:
        return None
    state = decode_head(bytes(unseal(head)), agent).state
    return None if state is None else kind.codec.mapping(state)
