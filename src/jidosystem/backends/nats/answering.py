"""The other side of `gathering.py`: what came together is done once and answered as often as it is asked.

Who asks may send the same again when it hears nothing. So for each of them, answers are kept until it says that nobody waits for them any more,
or that all before a number are over. A number that was asked more than once may still be on its way then: it is remembered until that is over too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import IntEnum

import msgspec

from ...core.codec import encode
from ...core.errors import NodeUnreachable, TooLarge
from .connection import Connection

MAX_TOGETHER = 16
"""More leave in several messages, so that the other side begins with the first while the next ones are made."""
ROOM_BYTES = 16
"""What a request or an answer needs beside its bytes."""
MAX_CLOSED = 16
"""Numbers of groups that are over which one message tells."""
HEAD_BYTES = 200
"""What a message of them needs besides, those numbers too."""
KEEPING_BYTES = 64
"""What keeping an answer takes beside its bytes."""
MAX_KEPT_BYTES = 16 * 1024 * 1024
"""Of answers to one who asks; what was answered first is given up first."""


class Verdict(IntEnum):
    """What became of a request: it was answered, or not taken, or its answer is larger than the wire takes or isn't known any more."""

    ANSWERED = 0
    BUSY = 1
    TOO_LARGE = 2
    FORGOTTEN = 3


class Asking(msgspec.Struct, frozen=True, array_like=True):
    """Requests that go together.

    Attributes:
        sender: who asks, drawn at random
        number: of these; later ones are larger
        oldest: of all that the sender still waits for
        closed: those to this subject that it doesn't wait for any more, each told once; negative: of which something may be on its way
        payloads: the requests
    """

    sender: int
    number: int
    oldest: int
    closed: Sequence[int]
    payloads: list[bytes]


asking_of = msgspec.msgpack.Decoder(Asking).decode
answers_of = msgspec.msgpack.Decoder(list[tuple[int, int, bytes]]).decode


class Heard:
    """What one sender has asked of a subject. `kept_bytes`: of the answers that are kept."""

    __slots__ = ("_floor", "_known", "_spent", "kept_bytes")

    def __init__(self) -> None:
        self._known: dict[int, Answers] = {}
        self._floor = 0
        self._spent: set[int] = set()
        self.kept_bytes = 0

    def answers(self, number: int) -> Answers | None:
        """The answers to what was asked under a number, those that there are and those to come; None: it is new, or spent."""
        return self._known.get(number)

    def is_spent(self, number: int) -> bool:
        """Whether it was asked before, and is forgotten."""
        return number < self._floor or number in self._spent

    def begin(self, asking: Asking, answers: Answers) -> None:
        """It is new; forget what the sender has no use for."""
        for number in asking.closed:
            self._forget(abs(number))
            if number < 0:
                self._spent.add(-number)
        if asking.oldest > self._floor:
            self._floor = asking.oldest
            while self._known and (first := next(iter(self._known))) < self._floor:
                self._forget(first)
            if self._spent:
                self._spent = {number for number in self._spent if number >= self._floor}
        if self.kept_bytes > MAX_KEPT_BYTES:
            self._give_up_some()
        self._known[asking.number] = answers
        answers.kept_by = self

    def _give_up_some(self) -> None:
        for number in [number for number, answers in self._known.items() if answers.kept_bytes]:
            if self.kept_bytes <= MAX_KEPT_BYTES // 2:
                return
            self._forget(number)
            self._spent.add(number)

    def _forget(self, number: int) -> None:
        answers = self._known.pop(number, None)
        if answers is not None:
            self.kept_bytes -= answers.kept_bytes
            answers.kept_by = None


class Answers:
    """The answers to requests that came together: those of one step of the loop leave together. `kept_by`: who keeps them, if anybody does."""

    __slots__ = ("_connection", "_leaving", "_loop", "_reply", "_scheduled", "_told", "kept_by", "kept_bytes")

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop, reply: bytes) -> None:
        self._connection, self._loop, self._reply = connection, loop, reply.decode()
        self.kept_by: Heard | None = None
        self._leaving: list[tuple[int, int, bytes]] = []
        self._told: list[tuple[int, int, bytes]] = []
        self._scheduled = True  # whoever makes it calls `leave`
        self.kept_bytes = 0

    def add(self, number: int, verdict: Verdict, answer: bytes = b"") -> None:
        """The answer to one of them."""
        self._leaving.append((number, verdict, answer))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.leave)

    def leave(self) -> None:
        """Send what there is. What can't be sent now is sent when it is asked for again."""
        self._scheduled = False
        leaving, self._leaving = self._leaving, []
        if self.kept_by is not None:
            kept_bytes = sum([len(answer) + KEEPING_BYTES for _, _, answer in leaving])
            self.kept_bytes += kept_bytes
            self.kept_by.kept_bytes += kept_bytes
            self._told += leaving
        self._send(leaving)

    def again(self, reply: bytes) -> None:
        """It was asked again: send what was answered, and the rest when it is there."""
        self._reply = reply.decode()
        self._send(self._told)

    def _send(self, answers: list[tuple[int, int, bytes]]) -> None:
        try:
            for first, last in cut([len(answer) for _, _, answer in answers], self._connection.max_payload_bytes):
                self._connection.publish(self._reply, encode(answers[first:last]))
            self._connection.hurry()
        except (NodeUnreachable, TooLarge) as error:
            self._connection.tell("error", f"{len(answers)} answers couldn't be sent: {error}")


def cut(sizes_bytes: Sequence[int], max_bytes: int) -> list[tuple[int, int]]:
    """Where to cut a line so that each part, and what it needs besides, fits a message and holds at most `MAX_TOGETHER`; as (first, past the last).
    One that is too large for any message is a part of its own."""
    parts: list[tuple[int, int]] = []
    first, total = 0, HEAD_BYTES
    for at, size_bytes in enumerate(sizes_bytes):
        needed = size_bytes + ROOM_BYTES
        if at > first and (total + needed > max_bytes or at - first >= MAX_TOGETHER):
            parts.append((first, at))
            first, total = at, HEAD_BYTES
        total += needed
    if sizes_bytes:
        parts.append((first, len(sizes_bytes)))
    return parts
