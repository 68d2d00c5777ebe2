"""An asyncio loop whose clock jumps to the next timer when there is nothing else to do.

A real loop: callbacks, tasks, timers, threads and sockets are asyncio's own; only its clock is ours. Time stands still
while anything runs, on the loop or in a thread that it knows of, and passes in no time when nothing does. What can never
happen is told at once: the test that waits for it gets `Stuck`, which names what waits, where.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from asyncio import Handle, TimerHandle
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Iterable
from concurrent.futures import Executor
from contextlib import contextmanager
from contextvars import Context
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, TypeVar, TypeVarTuple, Unpack, cast

from .stacks import waiting_point, where_it_waits

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Timer = tuple[float, int, TimerHandle]
"""When, which of those then, and what."""
START_US = 1_000_000_000
"""What a new loop's clock shows: not zero, which some take for no time at all."""
LOOK_EVERY = 512
"""After how many turns of the loop it is looked whether the test gets anywhere."""
POLL_EVERY = 64
"""After how many turns sockets are looked at although there are none: signals come by one of the loop's own."""
RESOLUTION_S = 1e-6
"""The clock's own; asyncio's nanosecond is lost beside the seconds of a year."""
MANY_CANCELLED = 100
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
    """Knows how many sockets there are, without being asked by a call for each turn."""

    def __init__(self) -> None:
        super().__init__()
        self.sockets = 0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = super().register(fileobj, events, data)
        self.sockets += 1
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = super().unregister(fileobj)
        self.sockets -= 1
        return key


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
        self.put_aside: Callable[[Handle], bool] | None = None
        """Asked of each callback before it is run: whether it isn't to be."""
        self._now_us = START_US
        self._now = START_US / 1e6
        self._timers: list[Timer] = []
        self._passing: list[Timer] = []
        self._numbers = count()
        self._cancelled = 0
        self._idle: list[asyncio.Future[None]] = []
        self._moved: list[asyncio.Future[None]] = []
        self._main: asyncio.Future[Any] | None = None
        self._turns = 0
        self._last_look: tuple[object, float] = NOWHERE
        self._ready: Any
        self._stopping: bool
        self._debug: bool
        self._closed: bool
        self._check_closed: Callable[[], None]
        self._process_events: Callable[[list[tuple[selectors.SelectorKey, int]]], None]
        self._sockets = _Selector()
        super().__init__(self._sockets)
        self._own_sockets = self._sockets.sockets
        self._poll = self._sockets.select

    # -- time ------------------------------------------------------------------------------------------------

    def time(self) -> float:
        """Seconds; only timers and what waits for them move it."""
        return self._now

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Handle:  # type: ignore[override]
        """As asyncio's."""
        if self._closed or self._debug:
            return super().call_soon(callback, *args, context=context)
        handle = Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None) -> TimerHandle:  # type: ignore[override]
        """As asyncio's."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None) -> TimerHandle:  # type: ignore[override]
        """As asyncio's; timers of one moment are run in the order in which they were set."""
        self._check_closed()
        handle = TimerHandle(when, callback, args, self, context)
        cast("Any", handle)._scheduled = True  # it counts when it is cancelled
        heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def call_later_in_passing(self, delay: float, callback: Callable[..., object], *args: Any) -> TimerHandle:
        """A timer that time doesn't stop for: it is run when something else has moved the clock beyond it."""
        when = self.time() + delay
        handle = TimerHandle(when, callback, args, self)
        heappush(self._passing, (when, next(self._numbers), handle))
        return handle

    def run_next(self, handles: Iterable[Handle]) -> None:
        """Have callbacks run that were put aside."""
        self._ready.extend(handles)

    def _timer_handle_cancelled(self, handle: Any) -> None:
        if handle._scheduled:
            self._cancelled += 1
            if self._cancelled > MANY_CANCELLED and self._cancelled * 2 > len(self._timers):
                self._timers[:] = [timer for timer in self._timers if not timer[2]._cancelled]
                heapify(self._timers)
                self._cancelled = 0

    def _next_timer(self) -> float | None:
        """When the next one is due that wasn't cancelled."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heappop(timers)
            self._cancelled -= 1
        return timers[0][0] if timers else None

    def _jump(self, when: float) -> None:
        self._now_us = max(round(when * 1e6), self._now_us + 1)
        self._now = now = self._now_us / 1e6
        while self._passing and self._passing[0][0] <= now:
            handle = heappop(self._passing)[2]
            if not handle._cancelled:
                self._ready.append(handle)
        if self._moved:
            self._wake(self._moved)

    # -- turns -----------------------------------------------------------------------------------------------

    def _run_once(self) -> None:
        """A turn: what is ready is run, and if nothing is the clock jumps. In the place of asyncio's, which would ask the system each time."""
        self._turns = turns = self._turns + 1
        if turns % LOOK_EVERY == 0:
            self._look()
        ready = self._ready
        if turns % POLL_EVERY == 0 or self._sockets.sockets > self._own_sockets:
            self._process_events(self._poll(0))
        if not ready and not self._stopping:
            self._wait()
        timers, now = self._timers, self._now + RESOLUTION_S
        while timers and timers[0][0] < now:
            handle: Any = heappop(timers)[2]
            handle._scheduled = False
            if handle._cancelled:
                self._cancelled -= 1
            else:
                ready.append(handle)
        next_of, put_aside = ready.popleft, self.put_aside
        for _ in range(len(ready)):
            handle = next_of()
            if handle._cancelled or (put_aside is not None and put_aside(handle)):
                continue
            try:
                handle._context.run(handle._callback, *handle._args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # as asyncio does it, which takes a call more for each
                self.call_exception_handler({"message": f"Exception in callback {handle!r}", "exception": error, "handle": handle})

    def _wait(self) -> None:
        """Nothing is ready."""
        if self.outside:
            self._wait_outside()
        elif self._idle:
            self._wake(self._idle)
        elif (when := self._next_timer()) is not None:
            self._jump(when)
        else:
            self._process_events(self._poll(0))
            if not self._ready:
                self._interrupt("nothing can happen any more: nothing runs, here or outside, and no timer is set")

    def _wait_outside(self) -> None:
        self._process_events(self._poll(self.patience_s))
        if not self._ready:
            self._interrupt(f"what is under way outside hasn't ended for {self.patience_s:g} s: {self.outside}")

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
        when = self._next_timer()
        return self._now if when is None else max(self._now, when)

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
