"""Names the agent and action that block the event loop.

A turn's time limit is a timer of the loop: while an action blocks the loop, no limit fires and nothing else runs. A
thread therefore asks the loop for a sign of life and, when none comes in time, looks at what the loop's thread is
doing: which turn, and where in its code. It changes nothing; turns cost nothing for being found.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

from ..core.context import current
from ..core.eager import context_in
from ..core.outside import outside_of
from .turn import Turn

SLICES = 4
"""In so many parts the patience is waited out: a process that was stopped for a while (suspended, in a debugger) isn't a blocked loop."""
MAX_FRAMES = 50
THREAD = "the watchdog's thread"

_BEAT, _STOP = object(), object()


class Watchdog:
    """Watches one event loop from a thread of its own. `patience_s` is asked before each look: 0 is no watch at all."""

    __slots__ = ("_ended", "_log", "_loop", "_loop_thread", "_patience_s", "_signs")

    def __init__(self, loop: asyncio.AbstractEventLoop, log: Any, patience_s: Callable[[], float]) -> None:
        self._loop = loop
        self._log = log
        self._patience_s = patience_s
        self._loop_thread = threading.get_ident()
        self._signs: SimpleQueue[object] = SimpleQueue()
        self._ended: asyncio.Future[None] = loop.create_future()

    def start(self) -> None:
        """Begin to watch; called on the loop's thread."""
        threading.Thread(target=self._run, name="jido-watchdog", daemon=True).start()

    async def close(self) -> None:
        """Watch no more; returns when the thread is about to end."""
        outside = outside_of(self._loop)
        if outside is not None:
            outside.began(THREAD)
        self._signs.put(_STOP)
        try:
            await self._ended
        finally:
            if outside is not None:
                outside.ended(THREAD)

    # -- the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._watch_once():
                continue
            self._loop.call_soon_threadsafe(self._end)
        except RuntimeError:
            return  # the loop is closed: nobody is there to be watched

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _watch_once(self) -> bool:
        """Ask for a sign of life and wait for it, however long it takes; False when it is time to stop."""
        patience_s = self._patience_s()
        if patience_s > 0:
            self._loop.call_soon_threadsafe(self._signs.put, _BEAT)
            sign = self._wait_for_sign(patience_s)
            if sign is None:
                sign = self._tell_until_sign(patience_s)
            if sign is _STOP:
                return False
        return self._pause(patience_s / SLICES if patience_s > 0 else 1.0)

    def _wait_for_sign(self, patience_s: float) -> object | None:
        for _ in range(SLICES):
            try:
                return self._signs.get(timeout=patience_s / SLICES)
            except Empty:
                if self._loop.is_closed():  # it was asked for a sign that it can't give any more
                    return _STOP
        return None

    def _pause(self, seconds: float) -> bool:
        try:
            return self._signs.get(timeout=seconds) is not _STOP
        except Empty:
            return True

    def _tell_until_sign(self, patience_s: float) -> object:
        """Tell what blocks the loop, again whenever twice the time has passed, until it runs again."""
        blocked_s = patience_s
        while True:
            frames = _frames_of(self._loop_thread)
            turn = _turn_in(frames)
            self._log.error(
                "the event loop is blocked: nothing else runs meanwhile. Await, or make it a `def` action, which runs in a thread",
                agent=turn.activation.address if turn is not None else None,
                action=turn.spec.name if turn is not None else None,
                blocked_s=blocked_s,
                stack=_told(frames),
            )
            del frames, turn  # they hold what the loop is working with
            sign = self._wait_for_sign(blocked_s)
            if sign is not None:
                return sign
            blocked_s *= 2


def _frames_of(thread: int) -> list[FrameType]:
    """The frames of a thread as it stands, the innermost first."""
    frames: list[FrameType] = []
    frame = sys._current_frames().get(thread)
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


def _turn_in(frames: list[FrameType]) -> Turn | None:
    """The turn whose code runs: every turn's code runs in a task's step, the innermost is the one at work."""
    for frame in frames:
        context = context_in(frame)
        if context is not None:
            turn = context.get(current)
            return turn if isinstance(turn, Turn) else None
    return None


def _told(frames: list[FrameType]) -> str:
    """The stack in words, down to the innermost frame, as a traceback has it."""
    summary = traceback.StackSummary.extract(((frame, frame.f_lineno) for frame in reversed(frames[:MAX_FRAMES])), lookup_lines=True)
    return "".join(summary.format())
