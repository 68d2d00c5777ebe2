"""Imports, and a platform that is ready; each time in a new process."""

from __future__ import annotations

import os
import subprocess
import sys

from ..measure import Run
from .agents import on_disk

IMPORT = "from time import perf_counter as c; t = c(); from jidosystem import Agent, Platform, action; print((c() - t) * 1000)"
READY = """
import asyncio, sys
from time import perf_counter as c
from jidosystem import Platform
async def main():
    t = c()
    async with Platform(sys.argv[1]):
        print((c() - t) * 1000, flush=True)
asyncio.run(main())
"""
MODULES = "import sys; from jidosystem import Agent, Platform, action; print(len(sys.modules))"


def _python(*arguments: str) -> float:
    # With compiled modules kept, as pip leaves them: some machines forbid that for a working copy, and compile again each time.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    output = subprocess.run([sys.executable, "-c", *arguments], check=True, capture_output=True, text=True, timeout=60, env=env).stdout
    return float(output)


def import_time(run: Run) -> None:
    """Milliseconds to import the public names, the interpreter being up."""
    _python(IMPORT)
    for _ in range(run.some(15, 2)):
        run.record(_python(IMPORT))
    run.note(f"{_python(MODULES):.0f} modules are loaded then, the interpreter's own included")


def platform_ready(run: Run) -> None:
    """Milliseconds until a platform on a new SQLite file is entered, the package being imported."""
    for repetition in range(run.some(16, 3)):
        taken_ms = _python(READY, on_disk(run.scratch / f"new-{repetition}.db"))
        if repetition:
            run.record(taken_ms)
