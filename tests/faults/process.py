"""Drives `counter.py` from a test."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Counter:
    """The process, and the answers that are on their way."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._numbers = count()
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._listening = asyncio.ensure_future(self._listen())

    def ask(self, do: str, key: str = "a", timeout: float = 30.0) -> asyncio.Future[Any]:
        """Have something done; the future holds what it answered, an error as text."""
        number, future = next(self._numbers), asyncio.get_running_loop().create_future()
        self._open[number] = future
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"number": number, "do": do, "key": key, "timeout": timeout}).encode() + b"\n")
        return future

    async def _listen(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            number, told = json.loads(line)
            self._open.pop(number).set_result(told)
        for future in self._open.values():
            future.cancel()

    async def end(self, *, kill: bool = False) -> int:
        """Close it in order, or as `kill -9` does."""
        assert self.process.stdin is not None
        if kill:
            self.process.kill()
        self.process.stdin.close()
        await self._listening
        return await self.process.wait()


@asynccontextmanager
async def counter(path: Path, env: Mapping[str, str] | None = None) -> AsyncIterator[Counter]:
    """A process on a store; killed if the test leaves it running."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.counter", str(path), cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    running = Counter(process)
    try:
        yield running
    finally:
        if process.returncode is None:
            await running.end(kill=True)
