"""Tasks that take their first step at once.

A coroutine that never really waits is then finished when `start_eagerly` returns, without a trip through the
event loop; one that waits goes on as an ordinary task of its own, with its own cancellation and `current_task()`.
Python 3.12 and later can do this natively; for 3.11 there is `EagerTask`, built on asyncio's interface for
third-party tasks (`_enter_task`, `_leave_task`, `_register_task`).
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.tasks import current_task
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextvars import Context, copy_context
from sys import getrefcount
from typing import Any, TypeVar

T = TypeVar("T")

# asyncio's interface for third-party tasks; typed for its own class only, which ours can't derive from.
_enter_task: Callable[[Any, Any], None] = asyncio.tasks._enter_task
_leave_task: Callable[[Any, Any], None] = asyncio.tasks._leave_task
_register_task: Callable[[Any], None] = asyncio.tasks._register_task


class EagerTask(asyncio.Future[T]):
    """A task for Python 3.11 whose first step is run by `_start_own`.

    It behaves as `asyncio.Task` does towards asyncio, `asyncio.timeout` and `TaskGroup`: cancellation counts, a
    context of its own, wake-ups by the future it waits for.
    """

    # Defaults stand on the class: a task that never waits is then made without running an __init__ of ours.
    _coro: Coroutine[Any, Any, T]
    _context: Context
    _name: str | None = None
    _fut_waiter: asyncio.Future[Any] | None = None
    _must_cancel = False
    _cancels = 0
    _message: Any = None

    def _step(self, error: BaseException | None = None) -> None:
        """One step within this task's context: the loop calls it so."""
        if self._must_cancel:
            self._must_cancel = False
            if not isinstance(error, asyncio.CancelledError):
                error = asyncio.CancelledError() if self._message is None else asyncio.CancelledError(self._message)
        self._fut_waiter = None
        loop = self.get_loop()
        _enter_task(loop, self)
        try:
            waits_for = self._coro.send(None) if error is None else self._coro.throw(error)
        except BaseException as end:  # how a coroutine ends, sorted in one place
            self._finish(end)
        else:
            self._wait_for(waits_for)
        finally:
            _leave_task(loop, self)

    def _finish(self, end: BaseException) -> None:
        if isinstance(end, StopIteration):
            if self._must_cancel:  # asked to stop in its very last step
                super().cancel(self._message)
            else:
                super().set_result(end.value)
        elif isinstance(end, asyncio.CancelledError):
            super().cancel(self._message)
        else:
            super().set_exception(end)
            if isinstance(end, KeyboardInterrupt | SystemExit):
                raise end

    def _wait_for(self, waits_for: Any) -> None:
        loop = self.get_loop()
        if waits_for is None:  # a bare yield: asyncio.sleep(0)
            loop.call_soon(self._step, context=self._context)
        elif getattr(waits_for, "_asyncio_future_blocking", None) and waits_for is not self:
            waits_for._asyncio_future_blocking = False
            waits_for.add_done_callback(self._wake, context=self._context)
            self._fut_waiter = waits_for
            if self._must_cancel and waits_for.cancel(self._message):
                self._must_cancel = False
        else:
            wrong = RuntimeError(f"a task can't wait for {waits_for!r}")
            loop.call_soon(self._step, wrong, context=self._context)

    def _wake(self, future: asyncio.Future[Any]) -> None:
        try:
            future.result()
        except BaseException as error:  # whatever the future holds belongs to the coroutine
            self._step(error)
        else:
            self._step()

    def cancel(self, msg: Any = None) -> bool:
        """Ask the coroutine to stop: it gets a `CancelledError` at its next step."""
        if self.done():
            return False
        self._cancels += 1
        self._message = msg
        if self._fut_waiter is None or not self._fut_waiter.cancel(msg):
            self._must_cancel = True
        return True

    def cancelling(self) -> int:
        """How many requests to cancel are pending."""
        return self._cancels

    def uncancel(self) -> int:
        """Take one request to cancel back; how many remain."""
        self._cancels = max(0, self._cancels - 1)
        return self._cancels

    def set_result(self, result: T) -> None:
        """A task's result is its coroutine's."""
        raise RuntimeError("a task takes no result from outside")

    def set_exception(self, exception: type | BaseException) -> None:
        """A task's failure is its coroutine's."""
        raise RuntimeError("a task takes no exception from outside")

    def get_coro(self) -> Coroutine[Any, Any, T]:
        """The coroutine that this task runs."""
        return self._coro

    def get_context(self) -> Context:
        """The context that the coroutine runs in."""
        return self._context

    def get_name(self) -> str:
        """The task's name."""
        return self._name or f"eager-{id(self):x}"

    def set_name(self, value: object) -> None:
        """Give the task a name."""
        self._name = str(value)

    def get_stack(self, *, limit: int | None = None) -> list[Any]:
        """The frame that the coroutine is suspended in, if it is."""
        frame = getattr(self._coro, "cr_frame", None)
        return [] if frame is None or limit == 0 else [frame]

    def __await__(self) -> Generator[Any, None, T]:
        return super().__await__()


def _start_own(coro: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> asyncio.Future[T]:
    """Run a coroutine's first step now, in a task of its own, and return that task; it may already be done.

    Only on the thread of the running loop. The caller owns the task: it waits for it, or gives it a done callback.
    """
    task: EagerTask[T] = EagerTask(loop=loop)
    task._coro = coro
    task._context = context = copy_context()
    outer = current_task(loop)
    if outer is not None:
        _leave_task(loop, outer)
    _enter_task(loop, task)
    try:
        waits_for = context.run(coro.send, None)
    except StopIteration as stop:
        if task._must_cancel:
            task._finish(stop)
        else:
            _set_result(task, stop.value)
    except BaseException as end:  # how a coroutine ends, sorted in one place
        task._finish(end)
    else:
        _register_task(task)
        task._wait_for(waits_for)
    finally:
        _leave_task(loop, task)
        if outer is not None:
            _enter_task(loop, outer)
    return task


_set_result = asyncio.Future.set_result
if sys.version_info >= (3, 12):

    def start_eagerly(coro: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> asyncio.Future[T]:
        """See `_start_own`, which does the same where Python can't."""
        return asyncio.Task(coro, loop=loop, eager_start=True)

else:
    start_eagerly = _start_own


def first_steps(
    coros: Iterable[Coroutine[Any, Any, Any]],
    loop: asyncio.AbstractEventLoop,
    failed: Callable[[int, BaseException], None],
    new_task: Callable[..., EagerTask[Any]] = EagerTask,
) -> list[tuple[int, EagerTask[Any]]]:
    """Take the first step of many coroutines, each as a task of its own, and return (index, task) of those that wait.

    A task object is only used up by a coroutine that really waits, or that has given it to somebody, so that one which
    does neither costs a third of a task. `failed` is told of those that raise in their first step, whatever they raise.
    """
    waiting: list[tuple[int, EagerTask[Any]]] = []
    outer = current_task(loop)
    if outer is not None:
        _leave_task(loop, outer)
    task = new_task(loop=loop)
    _enter_task(loop, task)
    alone = getrefcount(task)
    try:
        for index, coro in enumerate(coros):
            context = copy_context()
            try:
                waits_for = context.run(coro.send, None)
            except BaseException as end:  # the coroutine's own, whatever it is
                if not isinstance(end, StopIteration):
                    failed(index, end)
                if getrefcount(task) == alone and not task._cancels:
                    continue
                _set_result(task, None)
                _leave_task(loop, task)
            else:
                task._coro, task._context = coro, context
                _register_task(task)
                _leave_task(loop, task)
                task._wait_for(waits_for)
                waiting.append((index, task))
            task = new_task(loop=loop)
            _enter_task(loop, task)
    finally:
        _leave_task(loop, task)
        if outer is not None:
            _enter_task(loop, outer)
    return waiting
