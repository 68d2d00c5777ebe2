"""`Wire` on core NATS: a request is a publication with an inbox of ours, an answer comes back to it.

Requests and messages of one subject go to two subjects of NATS: all servers of a subject share its requests, whatever their
groups, for a request must reach one of them; messages reach one server of each group. What is served at once has a limit:
a request over it is refused as `NodeUnreachable` (nothing was done), a message over it is dropped and told.

What can be lost is lost silently, as the contract says: a request or an answer that was under way on a connection that broke
ends as `WireTimeout`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial

from ...core.eager import start_eagerly
from ...core.errors import NodeUnreachable, OutcomeUnknown, TooLarge, WireTimeout
from ...core.wire import Answered, Serve, Wire
from .answering import Answers, Heard, Verdict, asking_of
from .client import Headers
from .connection import Connection, Notice, Subscription
from .gathering import Gathering
from .protocol import headers_of
from .settings import NatsSettings
from .subjects import token

ROUND_TRIP_S = 2.0
MAX_SENDERS = 1_000
"""Whose answers are kept; more than there are nodes at a time."""
_VERDICT = "Jido-Verdict"
_VERDICTS = {"busy": Verdict.BUSY, "too-large": Verdict.TOO_LARGE}
_BUSY = headers_of({_VERDICT: "busy"})
_TOO_LARGE = headers_of({_VERDICT: "too-large"})


class _Served:
    """One handler of one subject and group; knows what it is still answering."""

    __slots__ = ("_answering", "_handler", "_heard", "_subscriptions", "_wire", "subject")

    def __init__(self, wire: NatsWire, subject: str, handler: Serve) -> None:
        self._wire, self.subject, self._handler = wire, subject, handler
        self._answering: set[asyncio.Future[bytes | None]] = set()
        self._heard: dict[int, Heard] = {}
        """By sender; who was heard longest ago comes first."""
        self._subscriptions: list[Subscription] = []

    async def open(self, connection: Connection, group: str) -> None:
        """Subscribe, and wait until the server knows."""
        prefix, name = connection.settings.cluster, token(self.subject)
        self._subscriptions.append(await connection.subscribe(f"{prefix}.r.{name}", self.take, group="r"))
        self._subscriptions.append(await connection.subscribe(f"{prefix}.t.{name}", self.take_some, group="r"))
        self._subscriptions.append(await connection.subscribe(f"{prefix}.m.{name}", self.take, group=f"g{token(group)}"))
        if connection.is_up:
            with contextlib.suppress(NodeUnreachable):  # it went away at this moment: it hears of the subscriptions when it is back
                await connection.round_trip(ROUND_TRIP_S)

    async def close(self) -> None:
        """Take no further requests; those being served, and those that the server had sent already, are finished first."""
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            await subscription.close()
        self._wire.withdraw(self)
        if self._answering:
            await asyncio.wait(self._answering)

    def take(self, _subject: bytes, reply: bytes, data: bytes, _headers: Headers) -> None:
        """A request, or a message."""
        wire = self._wire
        if wire.serving >= wire.max_serving:
            wire.refuse(self.subject, reply)
            return
        answering = self._begin(data)
        if isinstance(answering, Answered):
            wire.answer(self.subject, reply, answering.answer)
            return
        task = start_eagerly(_wait_for(answering), wire.loop)
        wire.serving += 1
        self._answering.add(task)
        if task.done():
            self._ended(reply, task)
        else:
            task.add_done_callback(partial(self._ended, reply))

    def _begin(self, payload: bytes) -> Awaitable[bytes | None]:
        try:
            return self._handler(payload)
        except Exception as error:  # as if it had raised a step later
            return _raised(error)

    def take_some(self, _subject: bytes, reply: bytes, data: bytes, _headers: Headers) -> None:
        """Requests that came together, perhaps not for the first time."""
        try:
            asking = asking_of(data)
        except ValueError as wrong:
            self._wire.tell_unreadable(self.subject, wrong)
            return
        heard = self._heard.pop(asking.sender, None) or Heard()
        self._heard[asking.sender] = heard
        answers = heard.answers(asking.number)
        if answers is not None:
            answers.again(reply)
            return
        answers = self._wire.answers(reply)
        if heard.is_spent(asking.number):
            for number in range(len(asking.payloads)):
                answers.add(number, Verdict.FORGOTTEN)
        else:
            heard.begin(asking, answers)
            for number, payload in enumerate(asking.payloads):
                self._take_one(payload, answers, number)
        answers.leave()
        if len(self._heard) > MAX_SENDERS:
            del self._heard[next(iter(self._heard))]

    def _take_one(self, payload: bytes, answers: Answers, number: int) -> None:
        wire = self._wire
        if wire.serving >= wire.max_serving:
            wire.tell_full(self.subject)
            answers.add(number, Verdict.BUSY)
            return
        answering = self._begin(payload)
        if isinstance(answering, Answered):
            wire.add_answer(answers, number, answering.answer)
            return
        task = start_eagerly(_wait_for(answering), wire.loop)
        wire.serving += 1
        self._answering.add(task)
        task.add_done_callback(partial(self._one_ended, answers, number))

    def _one_ended(self, answers: Answers, number: int, task: asyncio.Future[bytes | None]) -> None:
        if self._has_answer(task):
            self._wire.add_answer(answers, number, task.result())

    def _ended(self, reply: bytes, task: asyncio.Future[bytes | None]) -> None:
        if self._has_answer(task):
            self._wire.answer(self.subject, reply, task.result())

    def _has_answer(self, task: asyncio.Future[bytes | None]) -> bool:
        self._wire.serving -= 1
        self._answering.discard(task)
        return not task.cancelled() and task.exception() is None  # one that raised answers nothing


class NatsWire(Wire):
    """See the module. Made by `NatsWire.open`, which gives it a connection of its own.

    Attributes:
        max_serving: requests and messages that are being served at a time
        serving: how many are
    """

    def __init__(self, connection: Connection, max_serving: int = 20_000) -> None:
        self.loop = asyncio.get_running_loop()
        self.max_serving = max_serving
        self.serving = 0
        self._connection = connection
        self._prefix = connection.settings.cluster
        self._served: set[_Served] = set()
        self._gathering = Gathering(connection, lambda subject: f"{self._prefix}.t.{token(subject)}", _judge)

    @classmethod
    async def open(cls, settings: NatsSettings, *, told: Callable[[Notice], None] | None = None, max_serving: int = 20_000) -> NatsWire:
        """Connect, with the errors of `Connection.open`."""
        return cls(await Connection.open(settings, name=f"jido {settings.cluster} wire", told=told), max_serving)

    @property
    def max_payload_bytes(self) -> int:  # type: ignore[override]
        """What the server takes, less the room that our headers may need."""
        return self._connection.max_payload_bytes - 256

    async def request(self, subject: str, payload: bytes, *, timeout_s: float, together: bool = False) -> bytes:
        self._check(subject, payload)
        if together:
            return await self._gathering.ask(subject, payload, timeout_s)
        try:
            data, headers = await self._connection.ask(f"{self._prefix}.r.{token(subject)}", payload, timeout_s=timeout_s)
        except WireTimeout:
            raise WireTimeout(f"no answer from {subject!r} within {timeout_s:g} s; whether it was handled is unknown", subject=subject) from None
        except NodeUnreachable as error:
            served = "nobody serves" if self._connection.is_up else "there is no connection to NATS to reach"
            raise NodeUnreachable(f"{served} {subject!r}; nothing was done", subject=subject) from error
        if headers is not None:
            _judge(subject, _VERDICTS.get(headers.get(_VERDICT, ""), Verdict.ANSWERED))
        return data

    async def send(self, subject: str, payload: bytes) -> None:
        self._check(subject, payload)
        self._connection.publish(f"{self._prefix}.m.{token(subject)}", payload)

    async def serve(self, subject: str, handler: Serve, *, group: str = "") -> _Served:
        served = _Served(self, subject, handler)
        self._served.add(served)
        await served.open(self._connection, group)
        return served

    def withdraw(self, served: _Served) -> None:
        """A server takes nothing more."""
        self._served.discard(served)

    def answer(self, subject: str, reply: bytes, data: bytes | None) -> None:
        """Send what a handler returned."""
        if not reply:
            return
        try:
            if data is not None and len(data) > self.max_payload_bytes:
                self._connection.publish(reply.decode(), headers=_TOO_LARGE)
            else:
                self._connection.publish(reply.decode(), data or b"")
        except NodeUnreachable as error:  # its requester can't be told; it will see its time run out
            self._connection.tell("error", f"an answer of {subject!r} couldn't be sent: {error}")

    def answers(self, reply: bytes) -> Answers:
        """Where answers to requests that came together go."""
        return Answers(self._connection, self.loop, reply)

    def add_answer(self, answers: Answers, number: int, data: bytes | None) -> None:
        """What a handler returned for one of them."""
        if data is not None and len(data) > self.max_payload_bytes:
            answers.add(number, Verdict.TOO_LARGE)
        else:
            answers.add(number, Verdict.ANSWERED, data or b"")

    def tell_unreadable(self, subject: str, wrong: Exception) -> None:
        """What came is no requests; whoever sent it gets no answer."""
        self._connection.tell("error", f"what came to {subject!r} can't be read: {wrong}")

    def tell_full(self, subject: str) -> None:
        """One too many."""
        self._connection.tell(
            "slow-consumer", f"{self.serving} requests and messages are being served (`max_serving`): one to {subject!r} was refused"
        )

    def refuse(self, subject: str, reply: bytes) -> None:
        """The same, told its requester."""
        self.tell_full(subject)
        if reply:
            with contextlib.suppress(NodeUnreachable):
                self._connection.publish(reply.decode(), headers=_BUSY)

    async def close(self) -> None:
        self._gathering.close()
        await self._connection.close()
        self._served.clear()

    def _check(self, subject: str, payload: bytes) -> None:
        if len(payload) > self.max_payload_bytes:
            raise TooLarge(f"{len(payload)} bytes to {subject!r} are over the wire's {self.max_payload_bytes}; nothing was sent")


def _judge(subject: str, verdict: Verdict) -> None:
    if verdict is Verdict.BUSY:
        raise NodeUnreachable(f"whoever serves {subject!r} is full; nothing was done", subject=subject)
    if verdict is Verdict.TOO_LARGE:
        raise OutcomeUnknown(f"{subject!r} handled the request, but its answer is larger than the wire takes", subject=subject)
    if verdict is Verdict.FORGOTTEN:
        raise OutcomeUnknown(f"{subject!r} was sent the request before; what became of it isn't known there any more", subject=subject)


async def _raised(error: Exception) -> bytes | None:
    raise error


async def _wait_for(answering: Awaitable[bytes | None]) -> bytes | None:
    return await answering
