"""Where a suspended task waits: the future at the end of its chain, and the line of code in words."""

from __future__ import annotations

import asyncio
import linecache
from pathlib import Path
from types import FrameType
from typing import Any

INNER = (str(Path(__file__).parents[1]), str(Path(asyncio.__file__).parent))
MAX_DEPTH = 100


def waiting_point(task: asyncio.Future[Any]) -> asyncio.Future[Any] | None:
    """The future that nobody runs for, at which a task and those that it waits for have come to stand."""
    future: asyncio.Future[Any] | None = task
    for _ in range(MAX_DEPTH):
        if not hasattr(future, "_coro"):  # no task
            return future
        future = getattr(future, "_fut_waiter", None)
    return None


def where_it_waits(task: asyncio.Future[Any]) -> str | None:
    """The innermost line of a task that is neither the platform's own nor asyncio's; None if it has none."""
    theirs = [frame for frame in _frames(getattr(task, "_coro", None)) if not frame.f_code.co_filename.startswith(INNER)]
    if not theirs:
        return None
    code, number = theirs[-1].f_code, theirs[-1].f_lineno
    line = linecache.getline(code.co_filename, number).strip()
    return f"{code.co_qualname} waits at {Path(code.co_filename).name}:{number}" + (f": {line}" if line else "")


def _frames(coro: Any) -> list[FrameType]:
    """From the outermost coroutine to the innermost."""
    frames: list[FrameType] = []
    while coro is not None and len(frames) < MAX_DEPTH:
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "ag_frame", None) or getattr(coro, "gi_frame", None)
        if frame is None:
            break
        frames.append(frame)
        coro = getattr(coro, "cr_await", None) or getattr(coro, "ag_await", None) or getattr(coro, "gi_yieldfrom", None)
    return frames
