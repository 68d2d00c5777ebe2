"""An asyncio loop whose clock jumps to the next timer when there is nothing else to do.

A real loop: callbacks, tasks, timers, threads and sockets are asyncio's own; only its clock is ours. Time stands still
while anything runs, on the loop or in a thread that it knows of, and passes in no time when nothing does. What can never
happen is told at once: the test that waits for it gets `Stuck`, which names what waits, where.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextlib import contextmanager
from heapq import heappop, heappush
from itertools import count
from typing import Any, TypeVar, TypeVarTuple, Unpack

from .stacks import waiting_point, where_it_waits

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Ready = list[tuple[selectors.SelectorKey, int]]
START_US = 1_000_000_000
"""What a new loop's clock shows: not zero, which some take for no time at all."""
LOOK_EVERY = 512
"""After how many turns of the loop it is looked whether the test gets anywhere."""
NOWHERE = (object(), 0.0)
"""Where the test was at a look that never was: not even None, which is where it is while it runs."""


class Stuck(AssertionError):
    """An `AssertionError`, raised where the test waits for what can't happen any more or hasn't happened for too long. Its message names who
    waits, and in which line, and what the platform is still at.
    """


class OutsideWork:
    """What is under way beside the loop, by name."""

    def __init__(self) -> None:
        self._under_way: Counter[str] = Counter()
        self._total = 0

    def began(self, what: str) -> None:
        """See `core.outside`."""
        self._under_way[what] += 1
        self._total += 1

    def ended(self, what: str, count: int = 1) -> None:
        """See `core.outside`."""
        self._under_way[what] -= count
        self._total -= count

    def __bool__(self) -> bool:
        return self._total > 0

    def __str__(self) -> str:
        return ", ".join(f"{what} ({n})" if n > 1 else what for what, n in self._under_way.items() if n)


class _Selector(selectors.DefaultSelector):
    """The place where a loop waits."""

    def __init__(self, wait: Callable[[Callable[[float | None], Ready], float | None], Ready]) -> None:
        super().__init__()
        self._wait = wait

    def select(self, timeout: float | None = None) -> Ready:
        return self._wait(super().select, timeout)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose clock jumps to the next timer when nothing is left to do and no thread that it knows of is at work. A test that
    has waited `patience_s` real seconds for one and the same thing, because a thread hangs, the loop goes round and round or time runs on
    for nothing, gets `Stuck`.
    """

    def __init__(self, *, patience_s: float = 30.0) -> None:
        self.patience_s = patience_s
        self.outside = OutsideWork()
        self.explain: list[Callable[[], list[str]]] = []
        """Who can say more about what is going on, for the message of `Stuck`."""
        self._now_us = START_US
        self._passing: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = count()
        self._idle: list[asyncio.Future[None]] = []
        self._moved: list[asyncio.Future[None]] = []
        self._main: asyncio.Future[Any] | None = None
        self._turns = 0
        self._last_look: tuple[object, float] = NOWHERE
        self._ready: Any
        self._scheduled: Any
        super().__init__(_Selector(self._wait))
        self._clock_resolution = 1e-6  # the clock's own; asyncio's nanosecond is lost beside the seconds of a year

    # -- time ------------------------------------------------------------------------------------------------

    def time(self) -> float:
        """Seconds; only timers and what waits for them move it."""
        return self._now_us / 1e6

    def call_later_in_passing(self, delay: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """A timer that time doesn't stop for: it is run when something else has moved the clock beyond it."""
        when = self.time() + delay
        handle = asyncio.TimerHandle(when, callback, args, self)
        heappush(self._passing, (when, next(self._numbers), handle))
        return handle

    def _jump(self) -> None:
        self._now_us = max(round(self._scheduled[0]._when * 1e6), self._now_us + 1)
        now = self.time()
        while self._passing and self._passing[0][0] <= now:
            handle = heappop(self._passing)[2]
            if not handle.cancelled():
                self._ready.append(handle)
        self._wake(self._moved)

    # -- waiting ---------------------------------------------------------------------------------------------

    def _wait(self, poll: Callable[[float | None], Ready], timeout: float | None) -> Ready:
        self._turns += 1
        if self._turns % LOOK_EVERY == 0:
            self._look()
        found = poll(0)
        if (timeout is not None and timeout <= 0) or found or self._ready:
            return found
        if self.outside:
            return self._wait_outside(poll)
        if self._idle:
            self._wake(self._idle)
        elif self._scheduled:
            self._jump()
        else:
            self._interrupt("nothing can happen any more: nothing runs, here or outside, and no timer is set")
        return []

    def _wait_outside(self, poll: Callable[[float | None], Ready]) -> Ready:
        found = poll(self.patience_s)
        if not found and not self._ready:
            self._interrupt(f"what is under way outside hasn't ended for {self.patience_s:g} s: {self.outside}")
        return found

    def _wake(self, waiting: list[asyncio.Future[None]]) -> None:
        woken = waiting[:]
        waiting.clear()
        for future in woken:
            if not future.done():
                future.set_result(None)

    async def idle(self) -> None:
        """Wait until nothing runs and nothing is under way outside; time doesn't move meanwhile."""
        future: asyncio.Future[None] = self.create_future()
        self._idle.append(future)
        await future

    async def moved(self) -> None:
        """Wait until the clock has moved on to the next timer, whosever it is."""
        future: asyncio.Future[None] = self.create_future()
        self._moved.append(future)
        await future

    def next_time(self) -> float:
        """Where the clock will move next; where it is, if nothing is set."""
        return max(self.time(), self._scheduled[0]._when) if self._scheduled else self.time()

    # -- being stuck -----------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Whether the test has been waiting for the same thing all the time, while the loop goes round and round."""
        if self._main is None:
            return
        point, now = waiting_point(self._main), time.monotonic()
        if point is not self._last_look[0]:
            self._last_look = (point, now)
        elif now - self._last_look[1] > self.patience_s:
            self._last_look = NOWHERE
            self._interrupt(f"what the test waits for hasn't happened for {self.patience_s:g} s, although much else has")

    def _interrupt(self, why: str) -> None:
        """Let whatever the test waits for raise."""
        point = waiting_point(self._main) if self._main is not None else None
        lines = [f"  {line}" for call in self.explain for line in call()]
        lines += [f"  {told}" for task in asyncio.all_tasks(self) if (told := where_it_waits(task))]
        error = Stuck("\n".join([f"{why} (the loop's clock shows {self.time() - START_US / 1e6:g} s)", *sorted(lines)]))
        if point is None or point.done():
            raise error
        point.set_exception(error)

    # -- what asyncio leaves to its loops --------------------------------------------------------------------

    def run_until_complete(self, future: Any) -> Any:
        """As asyncio's; what it runs is the test."""
        main: asyncio.Future[Any] = asyncio.ensure_future(future, loop=self)
        before, self._main = self._main, main
        self._last_look = NOWHERE
        try:
            return super().run_until_complete(main)
        finally:
            self._main = before

    def run_in_executor(self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        """As asyncio's; time stands still until the thread has ended or nobody waits for it any more."""
        future = super().run_in_executor(executor, func, *args)
        what = f"a thread running {getattr(func, '__qualname__', func)}"
        self.outside.began(what)
        future.add_done_callback(lambda _done: self.outside.ended(what))
        return future

    async def shutdown_default_executor(self, *timeout: Any) -> None:
        """As asyncio's, which waits for threads."""
        self.outside.began("the end of the threads")
        try:
            await super().shutdown_default_executor(*timeout)
        finally:
            self.outside.ended("the end of the threads")


def virtual_loop() -> VirtualLoop:
    """The running loop, which must be one of virtual time."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualLoop):
        raise RuntimeError(  # noqa: TRY004 - no argument is wrong, the loop is
            "this needs a loop of virtual time: `testing.run(main())`, or under pytest the fixture `jido_platform` or the marker `@pytest.mark.jido`"
        )
    return loop


@contextmanager
def outside(what: str = "something outside") -> Generator[None]:
    """Let time stand still within, for as long as it really takes: for sockets, subprocesses and threads of your own.

    `what` names it in the message of `Stuck`. On a loop of real time nothing changes.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualLoop):
        yield
        return
    loop.outside.began(what)
    try:
        yield
    finally:
        loop.outside.ended(what)


def run(main: Coroutine[Any, Any, T], *, patience_s: float = 30.0) -> T:
    """Run a coroutine as `asyncio.run` does, on a `VirtualLoop`."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(patience_s=patience_s)) as runner:
        return runner.run(main)
