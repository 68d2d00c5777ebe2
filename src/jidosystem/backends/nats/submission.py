"""One commit on its way: the messages that it is made of, and what is known of its outcome."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...core.codec import encode
from ...core.records import Row, Settled
from .places import Place, Subjects, part
from .stored import BELOW, EXPIRES, GONE, PARTS, Kept, StoredHead, cut, digest_of, sealed

MAX_REMEMBERED = 10_000
MARKER_S = (5, 20)
"""How long the server keeps the message in the place of a removed row. It forgets each with a sync of its own, while all others wait: those that were
removed together aren't to go together.
"""


class Piece(NamedTuple):
    """One message of a commit.

    Attributes:
        subject: where it goes
        payload: b"" removes what is there
        headers: lines of it, those of conditions and batches apart
        expected: the sequence of what must be there; None: whatever is
        row: the row that must be new, so that its name can be told
    """

    subject: str
    payload: bytes
    headers: str = ""
    expected: int | None = None
    row: Row | None = None


def marker_s() -> int:
    """How long it keeps the next one."""
    return random.randint(*MARKER_S)


def removal(subject: str) -> Piece:
    """The message in the place of one that goes."""
    return Piece(subject, b"", f"{GONE}: 1\r\nNats-TTL: {marker_s()}s\r\n")


class Commit:
    """A commit that was accepted."""

    __slots__ = (
        "agent",
        "before",
        "committed",
        "deadline_s",
        "expected",
        "head",
        "is_deletion",
        "is_told",
        "left",
        "nonce",
        "place",
        "settled",
        "size_bytes",
        "unknown",
        "value",
    )

    def __init__(
        self,
        agent: str,
        place: Place,
        expected: int,
        head: Piece,
        before: Sequence[Piece],
        nonce: bytes,
        settled: Settled,
        deadline_s: float,
        *,
        is_deletion: bool = False,
    ) -> None:
        self.agent, self.place, self.expected, self.nonce, self.settled, self.deadline_s = agent, place, expected, nonce, settled, deadline_s
        self.head = head
        self.before = list(before)
        """Rows and parts; they stand before the head, so that its revision is the largest sequence of the commit."""
        self.size_bytes = sum(len(piece.payload) + len(piece.subject) + 200 for piece in before) + len(head.payload) + len(head.subject) + 200
        self.is_deletion = is_deletion
        self.left: list[str] = []
        """Of a deletion: subjects that didn't fit the batch."""
        self.committed = self.is_told = False
        self.value: bytes | None = None
        """The head itself."""
        self.unknown = False
        """Whether an attempt was sent whose answer never came: it may have been applied, or be applied yet."""

    @property
    def messages(self) -> int:
        """How many there are."""
        return len(self.before) + 1

    def all(self) -> list[Piece]:
        """The messages, in their order."""
        return [*self.before, self.head]


class Cutter:
    """Makes the messages of heads and rows; what is larger than one takes becomes parts.

    It remembers how many parts lay where, for those that a smaller value leaves behind; what it never saw is found by
    `remove_expired`.
    """

    def __init__(self, subjects: Subjects, largest: Callable[[], int]) -> None:
        self._subjects = subjects
        self._largest = largest
        self._parts: dict[str, int] = {}

    def saw(self, subject: str, parts: int) -> None:
        """So many parts lie beside this subject."""
        if parts:
            if len(self._parts) >= MAX_REMEMBERED:
                del self._parts[next(iter(self._parts))]
            self._parts[subject] = parts

    def head(self, agent: str, place: Place, nonce: bytes, expected: int, head: bytes | None) -> tuple[Piece, list[Piece]]:
        """The message of a head, and its parts."""
        payload = sealed(StoredHead(agent, nonce, expected, head))
        headers = f"{GONE}: 1\r\n" if head is None else ""
        if len(payload) <= self._largest() or head is None:
            return Piece(place.head, payload, headers, expected), self._left(place.head, 0)
        parts = cut(head, self._largest())
        payload = sealed(StoredHead(agent, nonce, expected, b"", len(parts), digest_of(head)))
        return Piece(place.head, payload, f"{PARTS}: {len(parts)}\r\n", expected), self._placed(place.head, parts)

    def row(self, agent: str, row: Row, *, new: bool) -> list[Piece]:
        """The messages of a row; `new`: it must not be there."""
        subject = self._subjects.row(agent, row.kind, row.name)
        if row.value is None:
            return [removal(subject), *self._left(subject, 0)]
        headers = "" if row.expires_s is None else f"{EXPIRES}: {row.expires_s!r}\r\n"
        expected, told = (0, row) if new else (None, None)
        payload = sealed(Kept(agent, row.kind, row.name, row.value, row.expires_s))
        if len(payload) <= self._largest():
            return [Piece(subject, payload, headers, expected, told), *self._left(subject, 0)]
        parts = cut(row.value, self._largest())
        payload = sealed(Kept(agent, row.kind, row.name, b"", row.expires_s, len(parts), digest_of(row.value)))
        return [*self._placed(subject, parts), Piece(subject, payload, f"{headers}{PARTS}: {len(parts)}\r\n", expected, told)]

    def sweep(self, agent: str, below: int) -> Piece:
        """The note that rows of an agent are still to be removed."""
        payload = sealed(Kept(agent, "", "", encode(below)))
        return Piece(self._subjects.sweep(agent), payload, f"{BELOW}: {below}\r\n")

    def _placed(self, subject: str, parts: Sequence[bytes]) -> list[Piece]:
        left = self._left(subject, len(parts))
        self.saw(subject, len(parts))
        return [*(Piece(part(subject, number), payload) for number, payload in enumerate(parts)), *left]

    def _left(self, subject: str, parts: int) -> list[Piece]:
        """Removals of the parts that are more than there will be."""
        if not self._parts:
            return []
        return [removal(part(subject, number)) for number in range(parts, self._parts.pop(subject, 0))]
