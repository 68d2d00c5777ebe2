"""The stored head of an agent, and the batch of turns that one commit carries.

A head is what must be read to activate an agent and is written with every commit: the state, how many turns there
were, and counters that say which rows exist beside it, so that an agent without rows is activated by one read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from ..core.errors import RecordUnreadable
from ..core.events import Event
from ..core.records import Row
from ..core.tracing import Span

FORMAT = 1
ACTIVE, FAILED, PAUSED = range(3)
MAX_TURNS_A_COMMIT = 64
MAX_BYTES_A_COMMIT = 256 * 1024


class Marks(msgspec.Struct, array_like=True):
    """What most agents never need: status and the counters of rows."""

    status: int = ACTIVE
    cause: str = ""
    effects: int = 0  # the number of the last effect
    pending: int = 0  # rows of each kind
    due: int = 0
    children: int = 0
    keys: int = 0


class Owner(NamedTuple):
    """The node that an agent lives on, and which life of that node."""

    node: str
    incarnation: int


class Trial(NamedTuple):
    """What a claim says of an agent that was claimed from a node that died; see `trials.py`.

    Attributes:
        at_s: when it was claimed, seconds since the epoch
        dead: nodes in a row that died while it was on trial
        on: something is done of which the node may die
    """

    at_s: float
    dead: tuple[Owner, ...]
    on: bool

    @property
    def deaths(self) -> int:
        """How many."""
        return len(self.dead)


class Head(msgspec.Struct, frozen=True, array_like=True):
    """See the module. `state` is None for an agent that has never committed one (claimed, paused or failed before its first turn); `owner`
    None: nobody's, or its store belongs to one process.
    """

    format: int
    version: int
    turns: int
    state: bytes | None
    marks: Marks | None = None
    owner: Owner | None = None
    trial: Trial | None = None


encode_array = msgspec.msgpack.Encoder().encode
"""Encodes (FORMAT, version, turns, state, marks), the array that a `Head` is, without making one."""
_decode = msgspec.msgpack.Decoder(Head).decode


def encode_head(version: int, turns: int, state: bytes | None, marks: Marks | None, owner: Owner | None, trial: Trial | None = None) -> bytes:
    """The head as it is stored."""
    if owner is None:
        return encode_array((FORMAT, version, turns, state, marks))
    if trial is not None:
        return encode_array((FORMAT, version, turns, state, marks, owner, trial))
    return encode_array((FORMAT, version, turns, state, marks, owner))


def decode_head(blob: bytes, address: str) -> Head:
    """A stored head; `RecordUnreadable` naming the agent if it isn't one, or is from a newer release."""
    try:
        head = _decode(blob)
    except (msgspec.MsgspecError, ValueError) as error:
        raise RecordUnreadable(f"the record of {address} can't be read: {error}; nothing was changed", agent=address) from error
    if head.format != FORMAT:
        raise RecordUnreadable(
            f"the record of {address} has format {head.format}; this release reads {FORMAT}. A newer release wrote it: deploy that one", agent=address
        )
    return head


class Staged:
    """What turns bring to a commit beside their state."""

    __slots__ = ("after", "events", "rows")

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Row] = {}
        self.events: list[Event] = []
        self.after: list[Callable[[], None]] = []  # what is released once the commit is durable


class Batch(msgspec.Struct, eq=False):
    """The turns that the next commit carries, in order, and what goes with them.

    Casts of the plain kind, whose end is told to nobody, aren't kept: only the agent's count of turns shows them.
    """

    before: bytes | None  # the state that a failed commit falls back to
    before_turns: int
    marks_before: Marks | None
    turns: list[tuple[Any, Any]]  # each turn and what it returned
    waiters: list[tuple[Any, Any]] | None = None  # answers that have seen this batch's state
    staged: Staged | None = None
    size_bytes: int = 0
    full: bool = False  # no further turn may join
    span: Span | None = None
    deleted: bool = False
    head: bytes | None = None  # as it was handed to the store

    def stage(self) -> Staged:
        """What goes with the turns; made when the first of them brings something."""
        if self.staged is None:
            self.staged = Staged()
        return self.staged

    @property
    def traceparent(self) -> str | None:
        """Where the commit belongs in a trace: with the first turn that it carries."""
        return self.turns[0][0].traceparent if self.turns else None
