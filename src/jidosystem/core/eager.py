"""Tasks that take their first step at once.

A coroutine that never really waits is then finished when `start_eagerly` returns, without a trip through the
event loop; one that waits goes on as an ordinary task of its own, with its own cancellation and `current_task()`.
Python 3.12 and later can do this natively; for 3.11 there is `EagerTask`, built on asyncio's interface for
third-party tasks (`_enter_task`, `_leave_task`, `_register_task`, `_unregister_task`).
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.tasks import current_task
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextvars import Context, ContextVar, copy_context
from sys import getrefcount
from types import CodeType, FrameType
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

# asyncio's interface for third-party tasks; typed for its own class only, which ours can't derive from.
_enter_task: Callable[[Any, Any], None] = asyncio.tasks._enter_task
_leave_task: Callable[[Any, Any], None] = asyncio.tasks._leave_task
_register_task: Callable[[Any], None] = asyncio.tasks._register_task
_unregister_task: Callable[[Any], None] = asyncio.tasks._unregister_task


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

    def _go_on(self, coro: Coroutine[Any, Any, T], context: Context, waits_for: Any, outer: Any) -> None:
        """The coroutine has taken its first step as this task and waits; `outer` is the current task again."""
        self._coro, self._context = coro, context
        _register_task(self)
        _swap(self.get_loop(), outer)
        self._wait_for(waits_for)

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

    def disown(self) -> None:
        """Let `asyncio.run` end without it: code that ignores its cancellation would hold the process for ever."""
        _unregister_task(self)

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


if sys.version_info >= (3, 12):
    _swap: Callable[[Any, Any], Any] = asyncio.tasks._swap_current_task
else:
    _current_tasks: dict[Any, Any] = asyncio.tasks._current_tasks  # type: ignore[attr-defined]

    def _swap(loop: asyncio.AbstractEventLoop, task: Any) -> Any:
        """Make a task (None: no task) the loop's current one; the one that was."""
        outer = _current_tasks.get(loop)
        if task is None:
            _current_tasks.pop(loop, None)
        else:
            _current_tasks[loop] = task
        return outer


class FirstSteps(NamedTuple):
    """What takes first steps on one loop, in a context where a variable has a value of the coroutine's own.

    Both return what the coroutine returned; or a task, done or not, if the coroutine waits, raised, or has given its task to
    somebody. A coroutine that does none of these costs no task: the next one takes its step in it.
    """

    step: Callable[[Coroutine[Any, Any, Any], Any], Any]
    """`step(coro, value)`"""
    steps: Callable[[], Generator[Any, tuple[Coroutine[Any, Any, Any], Any], None]]
    """A generator for many, a third quicker: `send((coro, value))` after `next`. It ends with the first task that it returns; close it."""


def first_steps_on(loop: asyncio.AbstractEventLoop, new_task: Callable[..., EagerTask[Any]], variable: ContextVar[Any]) -> FirstSteps:
    """See `FirstSteps`; `new_task` is the class of its tasks."""
    spare: list[EagerTask[Any]] = []
    set_value, swap, refcount, copy, new = variable.set, _swap, getrefcount, copy_context, new_task
    task = new(loop=loop)
    alone = refcount(task)

    def step(coro: Coroutine[Any, Any, Any], value: Any) -> Any:
        task = spare.pop() if spare else new(loop=loop)
        context = copy()
        context.run(set_value, value)
        outer = swap(loop, task)
        try:
            waits_for = context.run(coro.send, None)
        except StopIteration as stop:
            swap(loop, outer)
            if refcount(task) == alone and not task._cancels:
                spare.append(task)
                return stop.value
            task._finish(stop)
        except BaseException as end:  # how a coroutine ends, sorted in one place
            swap(loop, outer)
            task._finish(end)
        else:
            task._go_on(coro, context, waits_for, outer)
        return task

    def steps() -> Generator[Any, tuple[Coroutine[Any, Any, Any], Any], None]:
        task = spare.pop() if spare else new(loop=loop)
        outer, result = swap(loop, task), None
        alone = refcount(task)  # one more than before: it is the current one
        try:
            while True:
                coro, value = yield result
                context = copy()
                context.run(set_value, value)
                try:
                    waits_for = context.run(coro.send, None)
                except StopIteration as stop:
                    if refcount(task) == alone and not task._cancels:
                        result = stop.value
                        continue
                    end: BaseException = stop
                except BaseException as raised:  # how a coroutine ends, sorted in one place
                    end = raised
                else:
                    task._go_on(coro, context, waits_for, outer)
                    break
                swap(loop, outer)
                task._finish(end)
                break
        except GeneratorExit:
            swap(loop, outer)
            spare.append(task)
            raise
        yield task

    del task
    _STEPS.update((step.__code__, steps.__code__))
    return FirstSteps(step, steps)


_STEPS: set[CodeType] = {EagerTask._step.__code__}


def context_in(frame: FrameType) -> Context | None:
    """The context that a frame takes a coroutine's step in; None if it is no such frame."""
    if frame.f_code not in _STEPS:
        return None
    task = frame.f_locals.get("self")
    return frame.f_locals.get("context") if task is None else task._context


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
