"""`FaultyWire`: any wire, with faults: messages that are lost, delayed, overtaken and doubled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from ..core.errors import WireTimeout
from ..core.wire import Serve, Served, Wire
from .faults import Faults


class FaultyWire(Wire):
    """Any wire with what `faults` says; without faults it passes the conformance suite too. What is delayed when it closes is lost."""

    def __init__(self, inner: Wire, faults: Faults) -> None:
        self.inner = inner
        self.max_payload_bytes = inner.max_payload_bytes
        self._faults = faults
        self._under_way: set[asyncio.Task[Any]] = set()

    async def request(self, subject: str, payload: bytes, *, timeout_s: float, together: bool = False) -> bytes:
        """See `Wire.request`."""
        lost, answer_lost, delay_s, times = self._faults.of_message(subject)
        for _ in range(times - 1):
            self._later(delay_s, partial(self._unheard, subject, payload, timeout_s))
        if lost:
            await asyncio.sleep(timeout_s)
            raise _timeout(subject, timeout_s)
        if delay_s >= timeout_s:
            self._later(delay_s, partial(self._unheard, subject, payload, timeout_s))
            await asyncio.sleep(timeout_s)
            raise _timeout(subject, timeout_s)
        if delay_s:
            await asyncio.sleep(delay_s)
        answer = await self.inner.request(subject, payload, timeout_s=timeout_s - delay_s, together=together)
        if answer_lost:
            await asyncio.sleep(timeout_s - delay_s)
            raise _timeout(subject, timeout_s)
        return answer

    async def send(self, subject: str, payload: bytes) -> None:
        """See `Wire.send`."""
        lost, answer_lost, delay_s, times = self._faults.of_message(subject)
        for _ in range(0 if lost or answer_lost else times):
            if delay_s:
                self._later(delay_s, partial(self.inner.send, subject, payload))
            else:
                await self.inner.send(subject, payload)

    async def serve(self, subject: str, handler: Serve, *, group: str = "") -> Served:
        """See `Wire.serve`."""
        return await self.inner.serve(subject, handler, group=group)

    async def close(self) -> None:
        """See `Wire.close`; what is delayed is lost."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self.inner.close()

    async def _unheard(self, subject: str, payload: bytes, timeout_s: float) -> None:
        """A request whose answer reaches nobody."""
        await self.inner.request(subject, payload, timeout_s=timeout_s)

    def _later(self, delay_s: float, what: Callable[[], Coroutine[Any, Any, object]]) -> None:
        task = asyncio.get_running_loop().create_task(_after(delay_s, what))
        self._under_way.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # nobody waits for it: what becomes of a message on its way is its sender's to find out


async def _after(delay_s: float, what: Callable[[], Coroutine[Any, Any, object]]) -> None:
    await asyncio.sleep(delay_s)
    await what()


def _timeout(subject: str, timeout_s: float) -> WireTimeout:
    return WireTimeout(f"no answer from {subject!r} within {timeout_s:g} s; whether it was handled is unknown (a fault of the test)", subject=subject)
