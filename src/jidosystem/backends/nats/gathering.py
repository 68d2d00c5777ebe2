"""Requests of one moment to one subject go as one message, and are answered by as few as there are moments with answers.

Many callers of one node wake in the same step of the event loop, and each has its next request then. A message costs the servers,
the sockets and both parsers the same whether it holds one of them or sixty. Each request keeps its own answer, deadline and verdict: one that takes
long holds up none of the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from enum import IntEnum

import msgspec

from ...core.codec import encode
from ...core.deadlines import Deadlines
from ...core.errors import JidoError, NodeUnreachable, OutcomeUnknown, TooLarge, WireTimeout
from .client import Headers
from .connection import Connection
from .protocol import NO_RESPONDERS

MAX_TOGETHER = 16
"""More leave in several messages, so that the other side begins with the first while the next ones are made."""
ROOM_BYTES = 16
"""What a request or an answer needs beside its bytes."""


class Verdict(IntEnum):
    """What became of a request: it was answered, or not taken, or its answer is larger than the wire takes."""

    ANSWERED = 0
    BUSY = 1
    TOO_LARGE = 2


payloads_of = msgspec.msgpack.Decoder(list[bytes]).decode
_answers_of = msgspec.msgpack.Decoder(list[tuple[int, int, bytes]]).decode


class _Waiting:
    """A request that waits for its answer; once it was sent, in a group."""

    __slots__ = ("answer", "deadline", "group", "payload", "timeout_s")

    def __init__(self, payload: bytes, timeout_s: float, deadline: float, answer: asyncio.Future[bytes]) -> None:
        self.payload, self.timeout_s, self.deadline, self.answer = payload, timeout_s, deadline, answer
        self.group: Group | None = None


class Gathering:
    """What a wire asks. `where` makes the subject of NATS for requests that go together, `judge` raises what a verdict means."""

    def __init__(self, connection: Connection, where: Callable[[str], str], judge: Callable[[str, Verdict], None]) -> None:
        self.connection, self.judge = connection, judge
        self.groups: set[Group] = set()
        self.waiting = 0
        self.deadlines = Deadlines(asyncio.get_running_loop())
        self._where = where
        self._loop = asyncio.get_running_loop()
        self._leaving: dict[str, list[_Waiting]] = {}
        self._called = False

    async def ask(self, subject: str, payload: bytes, timeout_s: float) -> bytes:
        """The answer of a request, which leaves with all others of this step; at once if none is under way. `NodeUnreachable` if too many wait."""
        one = self._begin(subject, payload, timeout_s)
        try:
            return await one.answer
        except asyncio.CancelledError:
            if one.group is not None:
                one.group.forget(one)
            raise

    def _begin(self, subject: str, payload: bytes, timeout_s: float) -> _Waiting:
        if self.waiting >= self.connection.settings.max_requests:
            raise NodeUnreachable(f"{self.waiting} requests wait for an answer (`max_requests`); nothing was sent", subject=subject)
        self.waiting += 1
        one = _Waiting(payload, timeout_s, self._loop.time() + timeout_s, self._loop.create_future())
        if not self.groups and not self._leaving:
            self._send_all(subject, [one])
            return one
        line = self._leaving.get(subject)
        if line is None:
            if not self._called:
                self._called = True
                self._loop.call_soon(self._leave)
            line = self._leaving[subject] = []
        line.append(one)
        if len(line) == MAX_TOGETHER:
            del self._leaving[subject]
            self._send_all(subject, line)
        return one

    def _leave(self) -> None:
        self._called = False
        leaving, self._leaving = self._leaving, {}
        for subject, line in leaving.items():
            self._send_all(subject, line)

    def _send_all(self, subject: str, line: Sequence[_Waiting]) -> None:
        for first, last in cut([len(one.payload) for one in line], self.connection.max_payload_bytes - ROOM_BYTES):
            self._send(subject, line[first:last])
        self.connection.hurry()

    def _send(self, subject: str, line: Sequence[_Waiting]) -> None:
        group = Group(self, subject, line)
        self.groups.add(group)
        try:
            self.connection.publish(self._where(subject), encode([one.payload for one in line]), reply=group.inbox)
        except (NodeUnreachable, TooLarge) as error:
            kind, told = type(error), f"a request to {subject!r} can't be sent: {error}"
            group.fail(lambda: kind(told, subject=subject))
        except Exception as defect:  # it must not leave anybody waiting
            group.fail(lambda: OutcomeUnknown(f"a request to {subject!r} may not have been sent", subject=subject))
            self._loop.call_exception_handler({"message": f"sending a request to {subject!r} failed", "exception": defect})
        else:
            group.wait()

    def close(self) -> None:
        """Nobody waits any more."""
        self._leave()
        for group in list(self.groups):
            group.fail(lambda: OutcomeUnknown("the connection was closed while a request was under way"))
        self.deadlines.clear()


class Group:
    """Requests that went as one message."""

    __slots__ = ("_gathering", "_number", "_subject", "_waiting", "inbox", "slot")

    def __init__(self, gathering: Gathering, subject: str, line: Sequence[_Waiting]) -> None:
        self._gathering, self._subject = gathering, subject
        self._waiting = dict(enumerate(line))
        for one in line:
            one.group = self
        self._number, self.inbox = gathering.connection.listen(self.take)
        self.slot: int | None = None

    def wait(self) -> None:
        """It was sent: see to it that nobody waits past a deadline."""
        self._gathering.deadlines.add(min(one.deadline for one in self._waiting.values()), self)

    def expire(self, now: float) -> None:
        """The first deadline has passed."""
        for number, one in list(self._waiting.items()):
            if one.deadline <= now:
                told = f"no answer from {self._subject!r} within {one.timeout_s:g} s; whether it was handled is unknown"
                self._end(number, WireTimeout(told, subject=self._subject))
        if self._waiting:
            self.wait()

    def take(self, _subject: bytes, _reply: bytes, data: bytes, headers: Headers) -> None:
        """Some of the answers."""
        if headers is not None and headers.get("Status") == NO_RESPONDERS:
            self.fail(lambda: NodeUnreachable(f"nobody serves {self._subject!r}; nothing was done", subject=self._subject))
            return
        waiting = self._waiting
        try:
            answers = _answers_of(data)
        except ValueError as wrong:
            told = f"what {self._subject!r} answered can't be read: {wrong}; whether it was handled is unknown"
            self.fail(lambda: OutcomeUnknown(told, subject=self._subject))
            return
        for number, verdict, answer in answers:
            if verdict:
                self._judged(number, Verdict(verdict))
                continue
            one = waiting.pop(number, None)
            if one is not None:
                self._gathering.waiting -= 1
                if not one.answer.done():
                    one.answer.set_result(answer)
        if not waiting:
            self._close()

    def forget(self, one: _Waiting) -> None:
        """Nobody waits for its answer any more."""
        number = next((number for number, waiting in self._waiting.items() if waiting is one), None)
        if number is not None:
            self._end(number, None)

    def fail(self, error: Callable[[], JidoError]) -> None:
        """None of those that still wait is answered."""
        for number in list(self._waiting):
            self._end(number, error())

    def _judged(self, number: int, verdict: Verdict) -> None:
        try:
            self._gathering.judge(self._subject, verdict)
        except JidoError as error:
            self._end(number, error)

    def _end(self, number: int, error: JidoError | None) -> None:
        one = self._waiting.pop(number, None)
        if one is not None:
            self._gathering.waiting -= 1
            if error is not None and not one.answer.done():
                one.answer.set_exception(error)
        if not self._waiting:
            self._close()

    def _close(self) -> None:
        gathering = self._gathering
        gathering.groups.discard(self)
        gathering.deadlines.discard(self)
        gathering.connection.deafen(self._number)


class Answers:
    """The answers to requests that came together: those of one step of the loop leave together."""

    __slots__ = ("_connection", "_leaving", "_loop", "_reply", "_scheduled")

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop, reply: bytes) -> None:
        self._connection, self._loop, self._reply = connection, loop, reply.decode()
        self._leaving: list[tuple[int, int, bytes]] = []
        self._scheduled = True  # whoever makes it calls `leave`

    def add(self, number: int, verdict: Verdict, answer: bytes = b"") -> None:
        """The answer to one of them."""
        self._leaving.append((number, verdict, answer))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.leave)

    def leave(self) -> None:
        """Send what there is. What can't be sent is lost, as it may be on any connection that breaks."""
        self._scheduled = False
        leaving, self._leaving = self._leaving, []
        try:
            for first, last in cut([len(answer) for _, _, answer in leaving], self._connection.max_payload_bytes - ROOM_BYTES):
                self._connection.publish(self._reply, encode(leaving[first:last]))
            self._connection.hurry()
        except (NodeUnreachable, TooLarge) as error:  # their requesters can't be told; they will see their time run out
            self._connection.tell("error", f"{len(leaving)} answers couldn't be sent: {error}")


def cut(sizes_bytes: Sequence[int], max_bytes: int) -> list[tuple[int, int]]:
    """Where to cut a line so that each part, and what it needs besides, fits a message and holds at most `MAX_TOGETHER`; as (first, past the last).
    One that is too large for any message is a part of its own."""
    parts: list[tuple[int, int]] = []
    first = total = 0
    for at, size_bytes in enumerate(sizes_bytes):
        needed = size_bytes + ROOM_BYTES
        if at > first and (total + needed > max_bytes or at - first >= MAX_TOGETHER):
            parts.append((first, at))
            first, total = at, 0
        total += needed
    if sizes_bytes:
        parts.append((first, len(sizes_bytes)))
    return parts
