"""The wire in memory: requests between parties of one process, with the promises of a real one."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

from ...core.errors import NodeUnreachable, OutcomeUnknown, TooLarge, WireTimeout
from ...core.wire import Serve, Wire


class _Served:
    """One handler of one subject and group; knows what it is still answering."""

    __slots__ = ("_wire", "answering", "group", "handler", "subject")

    def __init__(self, wire: MemoryWire, subject: str, group: str, handler: Serve) -> None:
        self._wire, self.subject, self.group, self.handler = wire, subject, group, handler
        self.answering: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Take no further requests; those being served are finished first."""
        self._wire.withdraw(self)
        if self.answering:
            await asyncio.wait(self.answering)


class MemoryWire(Wire):
    """Shared by all its users: they pass the same object around."""

    max_payload_bytes = 1024 * 1024

    def __init__(self) -> None:
        self._servers: dict[str, dict[str, list[_Served]]] = {}
        self._turn = count()
        self._waiting: set[asyncio.Future[bytes]] = set()
        self._closed = False

    async def request(self, subject: str, payload: bytes, *, timeout_s: float, together: bool = False) -> bytes:
        self._check(subject, payload)
        groups = self._servers.get(subject)
        if not groups:
            raise NodeUnreachable(f"nobody serves {subject!r}; nothing was sent", subject=subject)
        turn = next(self._turn)
        served = self._pick([*groups.values()][turn % len(groups)], turn)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.add(answer)
        self._start(served, payload, answer)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise WireTimeout(f"no answer from {subject!r} within {timeout_s:g} s; whether it was handled is unknown", subject=subject) from None
        finally:
            self._waiting.discard(answer)

    async def send(self, subject: str, payload: bytes) -> None:
        self._check(subject, payload)
        turn = next(self._turn)
        for servers in self._servers.get(subject, {}).values():
            self._start(self._pick(servers, turn), payload, None)

    async def serve(self, subject: str, handler: Serve, *, group: str = "") -> _Served:
        served = _Served(self, subject, group, handler)
        self._servers.setdefault(subject, {}).setdefault(group, []).append(served)
        return served

    def withdraw(self, served: _Served) -> None:
        """A server takes nothing more."""
        groups = self._servers.get(served.subject, {})
        servers = groups.get(served.group, [])
        if served in servers:
            servers.remove(served)
            if not servers:
                del groups[served.group]

    async def close(self) -> None:
        self._closed = True
        self._servers.clear()
        for answer in self._waiting:
            if not answer.done():
                answer.set_exception(OutcomeUnknown("the wire was closed while a request was under way"))

    def _check(self, subject: str, payload: bytes) -> None:
        if self._closed:
            raise NodeUnreachable("the wire is closed; nothing was sent", subject=subject)
        if len(payload) > self.max_payload_bytes:
            raise TooLarge(f"{len(payload)} bytes to {subject!r} are over the wire's {self.max_payload_bytes}; nothing was sent")

    def _pick(self, servers: list[_Served], turn: int) -> _Served:
        return servers[turn % len(servers)]

    def _start(self, served: _Served, payload: bytes, answer: asyncio.Future[bytes] | None) -> None:
        task = asyncio.get_running_loop().create_task(_handle(served, bytes(payload), answer))
        served.answering.add(task)


async def _handle(served: _Served, payload: bytes, answer: asyncio.Future[bytes] | None) -> None:
    try:
        told = await served.handler(payload)
        if answer is not None and not answer.done():
            answer.set_result(told or b"")
    except Exception:  # a handler that raises answers nothing
        return
    finally:
        task = asyncio.current_task()
        assert task is not None
        served.answering.discard(task)
