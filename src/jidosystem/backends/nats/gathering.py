"""Requests of one moment to one subject go as one message, and are answered by as few as there are moments with answers.

Many callers of one node wake in the same step of the event loop, and each has its next request then. A message costs the servers,
the sockets and both parsers the same whether it holds one of them or sixty. Each request keeps its own answer, deadline and verdict: one that takes
long holds up none of the others.

A group has a number. What isn't answered after a while is sent again under the same one, since a server that ends or stands still loses what is on
its way through it; the other side (`answering.py`) does it once, and answers it as often as it comes.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress

from ...core.codec import encode
from ...core.deadlines import Deadlines
from ...core.errors import JidoError, NodeUnreachable, OutcomeUnknown, TooLarge, WireTimeout
from .answering import MAX_CLOSED, MAX_TOGETHER, Asking, Verdict, answers_of, cut
from .client import Headers
from .connection import Connection
from .protocol import NO_RESPONDERS

AGAIN_S = 1.0
"""After so long what wasn't answered is sent again, then after twice as long, up to `LAST_AGAIN_S`."""
LAST_AGAIN_S = 8.0


class _Waiting:
    """A request that waits for its answer; once it was sent, in a group."""

    __slots__ = ("answer", "deadline", "group", "payload", "timeout_s")

    def __init__(self, payload: bytes, timeout_s: float, deadline: float, answer: asyncio.Future[bytes]) -> None:
        self.payload, self.timeout_s, self.deadline, self.answer = payload, timeout_s, deadline, answer
        self.group: Group | None = None


class Gathering:
    """What a wire asks. `where` makes the subject of NATS for requests that go together, `judge` raises what a verdict means."""

    def __init__(self, connection: Connection, where: Callable[[str], str], judge: Callable[[str, Verdict], None]) -> None:
        self.connection, self.judge, self.where = connection, judge, where
        self.sender = secrets.randbits(63)
        self.groups: dict[Group, None] = {}
        """Those that wait, the oldest first."""
        self.closed: dict[str, list[int]] = {}
        """By subject: the groups that wait no more, and that nobody there was told of; negative: of which something may be on its way."""
        self.waiting = 0
        self.deadlines = Deadlines(asyncio.get_running_loop())
        self.loop = asyncio.get_running_loop()
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
        one = _Waiting(payload, timeout_s, self.loop.time() + timeout_s, self.loop.create_future())
        if not self.groups and not self._leaving:
            self._send_all(subject, [one])
            return one
        line = self._leaving.get(subject)
        if line is None:
            if not self._called:
                self._called = True
                self.loop.call_soon(self._leave)
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
        for first, last in cut([len(one.payload) for one in line], self.connection.max_payload_bytes):
            self._send(subject, line[first:last])
        self.connection.hurry()

    def _send(self, subject: str, line: Sequence[_Waiting]) -> None:
        group = Group(self, subject, line)
        self.groups[group] = None
        try:
            group.send()
        except (NodeUnreachable, TooLarge) as error:
            kind, told = type(error), f"a request to {subject!r} can't be sent: {error}"
            group.fail(lambda: kind(told, subject=subject))
        except Exception as defect:  # it must not leave anybody waiting
            group.fail(lambda: OutcomeUnknown(f"a request to {subject!r} may not have been sent", subject=subject))
            self.loop.call_exception_handler({"message": f"sending a request to {subject!r} failed", "exception": defect})
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

    __slots__ = ("_again_at", "_again_s", "_clear", "_gathering", "_inbox", "_line", "_subject", "_waiting", "number", "slot")

    def __init__(self, gathering: Gathering, subject: str, line: Sequence[_Waiting]) -> None:
        self._gathering, self._subject, self._line = gathering, subject, line
        self._waiting = dict(enumerate(line))
        for one in line:
            one.group = self
        self.number, self._inbox = gathering.connection.listen(self.take)
        self._clear = True  # sent once and answered: nothing of it is on its way any more
        self._again_s = AGAIN_S
        self._again_at = gathering.loop.time() + AGAIN_S
        self.slot: int | None = None

    def send(self) -> None:
        """Send it, for the first time or again. Raises what `Connection.publish` does."""
        gathering = self._gathering
        closed = gathering.closed.get(self._subject, [])
        oldest, told = next(iter(gathering.groups)).number, closed[-MAX_CLOSED:]
        del closed[-MAX_CLOSED:]
        asking = Asking(gathering.sender, self.number, oldest, told, [one.payload for one in self._line])
        gathering.connection.publish(gathering.where(self._subject), encode(asking), reply=self._inbox)

    def wait(self) -> None:
        """It was sent: see to it that nobody waits past a deadline, and that it is sent again."""
        self._gathering.deadlines.add(min(self._again_at, *(one.deadline for one in self._waiting.values())), self)

    def _send_again(self, now: float) -> None:
        self._clear = False
        self._again_s = min(2 * self._again_s, LAST_AGAIN_S)
        self._again_at = now + self._again_s
        with suppress(NodeUnreachable, TooLarge):  # another time, then
            self.send()

    def expire(self, now: float) -> None:
        """The first deadline has passed, or it is to be sent again."""
        for number, one in list(self._waiting.items()):
            if one.deadline <= now:
                told = f"no answer from {self._subject!r} within {one.timeout_s:g} s; whether it was handled is unknown"
                self._end(number, WireTimeout(told, subject=self._subject))
        if self._waiting:
            if now >= self._again_at:
                self._send_again(now)
            self.wait()

    def take(self, _subject: bytes, _reply: bytes, data: bytes, headers: Headers) -> None:
        """Some of the answers."""
        if headers is not None and headers.get("Status") == NO_RESPONDERS:
            if self._again_s > AGAIN_S:  # what was sent before may have arrived; whoever serves may be about to be back
                return
            self.fail(lambda: NodeUnreachable(f"nobody serves {self._subject!r}; nothing was done", subject=self._subject))
            return
        waiting = self._waiting
        try:
            answers = answers_of(data)
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
        self._clear = False
        if one is not None:
            self._gathering.waiting -= 1
            if error is not None and not one.answer.done():
                one.answer.set_exception(error)
        if not self._waiting:
            self._close()

    def _close(self) -> None:
        gathering = self._gathering
        if self not in gathering.groups:
            return
        del gathering.groups[self]
        gathering.deadlines.discard(self)
        gathering.connection.deafen(self.number)
        gathering.closed.setdefault(self._subject, []).append(self.number if self._clear else -self.number)
