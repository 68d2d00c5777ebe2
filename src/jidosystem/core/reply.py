"""The future of an answer that its one waiter goes on with at once.

A future of asyncio's wakes its waiter in the next turn of the event loop, which for a lone caller is a trip through the
selector more for each answer. Whoever tells the answers from the loop itself, with nothing of its own half done, can let
the waiter go on within this very step.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import current_task
from collections.abc import Callable
from contextvars import Context
from typing import Any, Self


class Reply(asyncio.Future[Any]):
    """See the module: for one coroutine that awaits it. Everything but `tell` behaves as with any future."""

    _wake: Callable[[Any], object] | None = None
    _wake_in: Context | None = None

    def add_done_callback(self, fn: Callable[[Self], object], /, *, context: Context | None = None) -> None:
        """A task that awaits this future says how it is woken."""
        if self._wake is None and context is not None and not self.done():
            self._wake, self._wake_in = fn, context
        else:
            super().add_done_callback(fn, context=context)

    def remove_done_callback(self, fn: Callable[[Self], object], /) -> int:
        """Forget a callback; how often it was there."""
        if fn != self._wake:
            return super().remove_done_callback(fn)
        self._wake = None
        return 1

    def set_result(self, result: Any) -> None:
        """The answer; its waiter goes on when the loop comes round."""
        super().set_result(result)
        self._wake_soon()

    def set_exception(self, exception: type | BaseException) -> None:
        """What became of it instead."""
        super().set_exception(exception)
        self._wake_soon()

    def cancel(self, msg: Any | None = None) -> bool:
        """The waiter gives up."""
        cancelled = super().cancel(msg)
        if cancelled:
            self._wake_soon()
        return cancelled

    def tell(self, result: Any) -> None:
        """The answer, from a callback of the loop: the waiter goes on before this returns, whatever it then does."""
        super().set_result(result)
        wake, context = self._wake, self._wake_in
        if wake is None or context is None:
            return
        loop = self.get_loop()
        if current_task(loop) is not None:
            self._wake_soon()
            return
        self._wake = None
        try:
            context.run(wake, self)
        except BaseException as stop:  # what ends the loop (`SystemExit`) ends it, but not those who are told after this one
            loop.call_soon(_raise, stop)

    def _wake_soon(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            self.get_loop().call_soon(wake, self, context=self._wake_in)


def _raise(stop: BaseException) -> None:
    raise stop
