"""Worker threads for actions written as `def`: they never block the loop, and one that hangs never blocks the exit.

The threads are daemons: a turn that is given up leaves its thread behind, and a new one takes its place.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any

from ..core.outside import Outside, outside_of

MAX_THREADS = 32

_Job = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], asyncio.Future[Any], Any]


class Threads:
    """A pool of daemon threads that grows when all are busy, up to `limit`; beyond it work waits its turn."""

    __slots__ = ("_busy", "_closed", "_jobs", "_lock", "_loop", "_outside", "_threads", "_waiting", "limit")

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int = MAX_THREADS) -> None:
        self._loop = loop
        self._outside = outside_of(loop)
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._busy = 0
        self._closed = False
        self._waiting: set[asyncio.Future[Any]] = set()
        self.limit = limit

    async def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function in a thread, within the caller's context. A thread can't be stopped: a cancelled wait goes on
        until it ends, and is cancelled then."""
        future: asyncio.Future[Any] = self._loop.create_future()
        with self._lock:
            self._busy += 1
            if self._busy > self._threads and self._threads < self.limit:
                self._threads += 1
                threading.Thread(target=self._work, name=f"jido-action-{self._threads}", daemon=True).start()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        if self._outside is not None:
            what = f"a thread running {getattr(function, '__qualname__', function)}"
            self._outside.began(what)
            future.add_done_callback(partial(_ended, self._outside, what))
        self._jobs.put((function, args, kwargs, future, copy_context()))
        cancelled: asyncio.CancelledError | None = None
        while not future.done():
            try:
                await asyncio.shield(future)
            except asyncio.CancelledError as error:
                cancelled = error
            except BaseException:  # the function's own; raised below
                break
        if cancelled is not None:
            raise cancelled
        return future.result()

    def lose_one(self) -> None:
        """A thread hangs for good: let another take its place."""
        with self._lock:
            self.limit += 1

    def leave_behind(self) -> None:
        """Nobody waits any more for what runs; others take the places of those threads."""
        for future in tuple(self._waiting):
            future.cancel()
            self.lose_one()

    def close(self) -> None:
        """Let idle threads end; those at work end after it, and nobody waits for them any more."""
        self._closed = True
        self.leave_behind()
        for _ in range(self._threads):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            function, args, kwargs, future, context = job
            value: Any = None
            error: BaseException | None = None
            try:
                value = context.run(function, *args, **kwargs)
            except BaseException as raised:  # it belongs to the turn, not to this thread
                error = raised
            with self._lock:
                self._busy -= 1
            try:
                self._loop.call_soon_threadsafe(_settle, future, value, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return
            del job, function, args, kwargs, future, context, value, error


def _ended(outside: Outside, what: str, _future: asyncio.Future[Any]) -> None:
    outside.ended(what)


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    elif isinstance(error, StopIteration):
        future.set_exception(RuntimeError("an action raised StopIteration"))
    else:
        future.set_exception(error)
