"""Live subscriptions: each event at most once, to whoever is there when it comes.

One follower of the log hands each event to all that its type concerns. A function is called; a coroutine function takes
its first step at once, in a task of its own, and costs no trip through the event loop unless it really waits. Nothing
that a handler does, raises or never finishes reaches another one. Handlers that wait are bounded per subscription
(`max_in_flight`), and so is what waits behind them: what comes to a full buffer is dropped, counted and logged.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple

from .eager import EagerTask, first_steps
from .errors import StoreError, describe
from .events import Event
from .log import EventLog
from .observability import Log

Handler = Callable[[Event], object]

MAX_BUFFERED = 10_000
"""How many events a live subscription may have waiting behind its slow handlers."""
MAX_TYPES = 10_000
"""For how many event types it is remembered whom they concern."""
SLICE = 4_000
"""How many deliveries are made before the event loop gets its turn."""


class HandlerTask(EagerTask[Any]):
    """The task of a handler that waits. What would end the event loop (`SystemExit`) is a failure of that handler only."""

    def _finish(self, end: BaseException) -> None:
        try:
            super()._finish(end)
        except (KeyboardInterrupt, SystemExit):  # it is kept as this task's exception, and told like any other
            return


class Live:
    """One live subscription. `kind`: what its handler is known to be; "mixed" is a function that may return something to await."""

    __slots__ = ("buffer", "dropped", "failed", "handler", "kind", "matches", "max_in_flight", "pattern", "room", "waiting")

    def __init__(self, handler: Handler, pattern: str, matches: Callable[[str], bool], max_in_flight: int) -> None:
        self.handler: Handler = handler
        self.pattern: str = pattern
        self.matches: Callable[[str], bool] = matches
        self.max_in_flight: int = max_in_flight
        called = getattr(handler, "__call__", None)  # noqa: B004 - an object whose class defines it as a coroutine function
        self.kind: str = "coroutine" if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(called) else "plain"
        self.waiting: set[asyncio.Future[Any]] = set()
        self.buffer: deque[Event] = deque()
        self.room: asyncio.Event | None = None  # told when a handler has ended, if somebody waits for it
        self.dropped: int = 0
        self.failed: int = 0

    @property
    def is_full(self) -> bool:
        """Whether the next event has to wait."""
        return bool(self.buffer) or len(self.waiting) >= self.max_in_flight


class _Concerned(NamedTuple):
    """Whom an event type concerns, by what their handlers are."""

    plain: list[tuple[Handler, Live]]
    coroutines: list[Live]
    mixed: list[Live]


class LiveDispatch:
    """All live subscriptions of one bus."""

    def __init__(self, log: EventLog, lines: Log) -> None:
        self._log = log
        self._lines = lines
        self._live: list[Live] = []
        self._joining: list[tuple[int, Live]] = []  # those who came while the follower was behind: (their position, they)
        self._of_type: dict[str, _Concerned] = {}
        self._position = 0  # the last event dispatched
        self._task: asyncio.Task[None] | None = None
        self._own: dict[Live, asyncio.Task[None]] = {}  # those that began in the past follow the log by themselves
        self._closed = False

    # -- coming and going ------------------------------------------------------------------------------------------

    async def add(self, live: Live) -> None:
        """From now on."""
        after = await self._log.last()
        if self._closed:
            return
        if self._task is None:
            self._position = after
            self._task = self._followed(self._run())
        if self._position >= after:
            self._live.append(live)
            self._of_type.clear()
        else:  # the follower has yet to come to what was stored before this subscription
            self._joining.append((after, live))

    def add_after(self, live: Live, after: int) -> None:
        """From a position on. It reads at its own pace: nothing is dropped, and nobody else waits for it."""
        self._own[live] = self._followed(self._run_alone(live, after))

    async def remove(self, live: Live) -> None:
        """Take no more; wait for its handlers (but not for the one that asks)."""
        if live in self._live:
            self._live.remove(live)
            self._of_type.clear()
        self._joining = [entry for entry in self._joining if entry[1] is not live]
        live.buffer.clear()
        stop = self._own.pop(live, None)
        if not self._live and not self._joining and stop is None:
            stop, self._task = self._task, None  # nobody is left to follow for
        if stop is not None:
            stop.cancel()
            await asyncio.gather(stop, return_exceptions=True)
        others = live.waiting - {asyncio.current_task()}
        if others:
            await asyncio.wait(others)

    async def close(self, grace_s: float) -> None:
        """Stop dispatching; handlers get a while to end, then are cancelled. One that won't end is left behind and named."""
        self._closed = True
        everyone = {*self._live, *self._own, *(live for _after, live in self._joining)}
        followers = [task for task in (self._task, *self._own.values()) if task is not None]
        self._task = None
        self._live, self._joining, self._own = [], [], {}
        self._of_type.clear()
        for follower in followers:
            follower.cancel()
        await asyncio.gather(*followers, return_exceptions=True)
        late = {task for live in everyone for task in live.waiting} - {asyncio.current_task()}
        if late:
            _done, late = await asyncio.wait(late, timeout=grace_s)
        for task in late:
            task.cancel()
        if late:
            _done, late = await asyncio.wait(late, timeout=grace_s)
        for live in everyone:
            if late & live.waiting:
                self._lines.error("a subscriber neither ends nor lets itself be cancelled; it is left behind", subscription=name_of(live))

    # -- following -------------------------------------------------------------------------------------------------

    def _followed(self, running: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(running)
        task.add_done_callback(self._died)
        return task

    def _died(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:  # a defect of ours
            asyncio.get_running_loop().call_exception_handler({"message": "live subscriptions stand still", "exception": error, "task": task})

    async def _run(self) -> None:
        wait_s = 0.1
        me = asyncio.current_task()
        while True:
            try:
                async for page in self._log.follow(self._position):
                    wait_s = 0.1
                    since = 0
                    for event in page:
                        if self._joining:
                            self._join(event.position)
                        if self._task is not me:  # everybody left in the middle of the page
                            return
                        self.dispatch(event)
                        self._position = event.position
                        since += len(self._live)
                        if since >= SLICE:
                            since = 0
                            await asyncio.sleep(0)
                    await asyncio.sleep(0)
            except StoreError as error:
                self._lines.error("live subscriptions can't read just now", after=self._position, error=describe(error))
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, 5.0)

    def _join(self, position: int) -> None:
        arrived = [live for after, live in self._joining if after < position]
        if arrived:
            self._joining = [(after, live) for after, live in self._joining if after >= position]
            self._live += arrived
            self._of_type.clear()

    async def _run_alone(self, live: Live, after: int) -> None:
        wait_s = 0.1
        live.room = asyncio.Event()
        while True:
            try:
                async for page in self._log.follow(after):
                    wait_s = 0.1
                    for event in page:
                        if live.matches(event.type):
                            while live.is_full:
                                live.room.clear()
                                await live.room.wait()
                            self._deliver(live, event)
                        after = event.position
                    await asyncio.sleep(0)
            except StoreError as error:
                self._lines.error("a live subscription can't read just now", subscription=name_of(live), after=after, error=describe(error))
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, 5.0)

    # -- delivering ------------------------------------------------------------------------------------------------

    def dispatch(self, event: Event) -> None:
        """Hand a stored event to every live subscription that its type concerns."""
        concerned = self._of_type.get(event.type)
        if concerned is None:
            concerned = self._choose(event.type)
        for handler, live in concerned.plain:
            try:
                result = handler(event)
            except BaseException as error:  # the handler's own, whatever it is
                self._tell(live, event, error)
            else:
                if result is not None:
                    self._returned(live, event, result)
        if concerned.coroutines:
            self._start(concerned.coroutines, event)
        for live in concerned.mixed:
            if live.is_full:
                self._put_aside(live, event)
            else:
                self._deliver(live, event)

    def _choose(self, event_type: str) -> _Concerned:
        if len(self._of_type) >= MAX_TYPES:
            self._of_type.clear()
        concerned = _Concerned([], [], [])
        for live in self._live:
            if live.matches(event_type):
                if live.kind == "plain":
                    concerned.plain.append((live.handler, live))
                else:
                    (concerned.coroutines if live.kind == "coroutine" else concerned.mixed).append(live)
        self._of_type[event_type] = concerned
        return concerned

    def _start(self, concerned: list[Live], event: Event) -> None:
        ready: list[Live] = []
        coros: list[Coroutine[Any, Any, Any]] = []
        for live in concerned:
            if live.buffer or len(live.waiting) >= live.max_in_flight:
                self._put_aside(live, event)
                continue
            try:
                coros.append(live.handler(event))  # type: ignore[arg-type]
            except BaseException as error:  # it can't even be called so
                self._tell(live, event, error)
            else:
                ready.append(live)
        started = first_steps(coros, asyncio.get_running_loop(), lambda index, error: self._tell(ready[index], event, error), HandlerTask)
        for index, task in started:
            self._watch(ready[index], event, task)

    def _deliver(self, live: Live, event: Event) -> None:
        try:
            result = live.handler(event)
        except BaseException as error:  # the handler's own, whatever it is
            self._tell(live, event, error)
        else:
            if result is not None:
                self._returned(live, event, result)

    def _returned(self, live: Live, event: Event, result: object) -> None:
        """A function has returned something: if it can be awaited, it is; other values mean nothing."""
        if not inspect.iscoroutine(result):
            if not inspect.isawaitable(result):
                return
            result = _awaiting(result)
        if live.kind == "plain":
            live.kind = "mixed"
            self._of_type.clear()
        for _index, task in first_steps([result], asyncio.get_running_loop(), lambda _index, error: self._tell(live, event, error), HandlerTask):
            self._watch(live, event, task)

    def _watch(self, live: Live, event: Event, task: EagerTask[Any]) -> None:
        live.waiting.add(task)
        task.add_done_callback(partial(self._ended, live, event))

    def _ended(self, live: Live, event: Event, task: asyncio.Future[Any]) -> None:
        live.waiting.discard(task)
        if task.cancelled():
            if not self._closed:
                self._tell(live, event, asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self._tell(live, event, error)
        if live.room is not None:
            live.room.set()
        if live.buffer:
            self._go_on(live)

    def _go_on(self, live: Live) -> None:
        """Take from the buffer while there is room; a good deal of it waits for the loop's next turn."""
        for _ in range(SLICE // 40):
            if not live.buffer or len(live.waiting) >= live.max_in_flight or self._closed:
                return
            self._deliver(live, live.buffer.popleft())
        asyncio.get_running_loop().call_soon(self._go_on, live)

    def _put_aside(self, live: Live, event: Event) -> None:
        if len(live.buffer) < MAX_BUFFERED:
            live.buffer.append(event)
            return
        live.dropped += 1
        if live.dropped & (live.dropped - 1) == 0:  # the first, the second, the fourth …
            self._lines.error("a live subscription is too slow and loses events; make it durable", subscription=name_of(live), dropped=live.dropped)

    def _tell(self, live: Live, event: Event, error: BaseException) -> None:
        live.failed += 1
        if live.failed <= 10 or live.failed & (live.failed - 1) == 0:  # one that always fails must not drown the log
            self._lines.error(
                "a subscriber failed", subscription=name_of(live), type=event.type, position=event.position, failed=live.failed, error=describe(error)
            )


def name_of(live: Live) -> str:
    """How a live subscription is called where it is told of: its pattern and its handler."""
    return f"{live.pattern} → {getattr(live.handler, '__qualname__', None) or repr(live.handler)}"


async def _awaiting(awaitable: Awaitable[Any]) -> None:
    await awaitable
