"""Commands as whole processes, the interpreter's start and end included."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from ..measure import Run
from .agents import on_disk

PROGRAM = """
from jidosystem import Agent, action

class Counter(Agent):
    value: int = 0

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value
"""
JIDO = (sys.executable, "-m", "jidosystem")
AGENTS = 100_000
FILLED_AT_ONCE = 2_000


def _env(run: Run) -> dict[str, str]:
    # With compiled modules kept, as pip leaves them.
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | {"XDG_RUNTIME_DIR": str(run.scratch)}


def _timed(run: Run, *arguments: str) -> float:
    started_s = perf_counter()
    subprocess.run([*JIDO, *arguments], check=True, capture_output=True, timeout=60, env=_env(run), cwd=run.scratch)
    return (perf_counter() - started_s) * 1000


def _record(run: Run, *arguments: str) -> None:
    _timed(run, *arguments)
    for _ in range(run.some(15, 2)):
        run.record(_timed(run, *arguments))


@contextmanager
def _node(run: Run, command: str = "run") -> Iterator[subprocess.Popen[str]]:
    (run.scratch / "counter.py").write_text(PROGRAM)
    store = on_disk(run.scratch / "counter.db")
    arguments = [*JIDO, command, "counter.py", "--json", "--port", "0", "--store", store]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=_env(run), cwd=run.scratch) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it serves
        try:
            yield process
        finally:
            process.terminate()


def help_time(run: Run) -> None:
    """Milliseconds of `jido --help`."""
    _record(run, "--help")


def call_time(run: Run) -> None:
    """Milliseconds of `jido call`, a durable turn included."""
    with _node(run):
        _record(run, "call", "Counter/home", "add", "amount=2")


def ps_time(run: Run) -> None:
    """Milliseconds of `jido ps` beside a store of 100,000 agents."""
    asyncio.run(_fill(run.scratch / "counter.db", run.some(AGENTS, 2_000)))
    with _node(run):
        _record(run, "ps")


async def _fill(file: Path, count: int) -> None:
    from jidosystem import Platform

    namespace: dict[str, object] = {"__name__": "counter"}
    exec(PROGRAM, namespace)
    counter = namespace["Counter"]
    async with Platform(on_disk(file), agents=[counter]) as platform:  # type: ignore[list-item]
        for first in range(0, count, FILLED_AT_ONCE):
            await asyncio.gather(*(platform.agent(counter, f"{key:06d}").add(1) for key in range(first, first + FILLED_AT_ONCE)))  # type: ignore[type-var,attr-defined]


def reload_time(run: Run) -> None:
    """Milliseconds from a save to the new program's being open, its agents' state there."""
    with _node(run, "dev") as process:
        assert process.stdout is not None
        for repetition in range(run.some(12, 2)):
            started_s = perf_counter()
            (run.scratch / "counter.py").write_text(f"{PROGRAM}# {repetition}\n")
            event = json.loads(process.stdout.readline())
            if event["event"] != "reloaded":
                raise RuntimeError(f"the program wasn't reloaded: {event}")
            run.record((perf_counter() - started_s) * 1000)
            subprocess.run([sys.executable, "-c", "import time; time.sleep(3)"], check=True)  # as long as one looks at what one wrote
