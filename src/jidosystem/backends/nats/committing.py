"""Commits on their way to one partition: grouped, sent, and decided, whatever becomes of the answers.

What waits when a flight begins goes in one atomic batch, of different agents: two commits of one agent never fly together,
so that the second is decided by what the first became. A batch that is refused is decided one by one. Each commit is
conditional on its head's sequence and carries a nonce. So one that is sent again can't happen twice, one that arrives late
finds the revision moved or is the very one that was meant, and what an answer that never came would have said is read from the head.
A refusal is no such answer if a leader that was overtaken may have given it: the one that came after it is sent the same write, and may
store it.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Protocol

from ...core.errors import (
    CommitUnknown,
    Conflict,
    NodeUnreachable,
    OutcomeUnknown,
    RecordUnreadable,
    RowExists,
    StoreError,
    StoreFull,
    StoreUnavailable,
    TooLarge,
)
from ...core.records import Committed
from .jetstream import FULL, IN_FLIGHT, NOT_NOW, WRONG_SEQUENCE, JetStream, Refused, acknowledged
from .partitions import RecordsSettings
from .stored import head_of
from .submission import Commit, Piece

GROUP_MESSAGES = 500
GROUP_BYTES = 4 * 1024 * 1024
FLIGHTS = 2
"""Of a partition at once; the server takes 50 batches a stream, from all nodes together."""
SMALL = 8
"""Fewer commits without rows fly apart: a batch is dearer than so many messages."""
LEAST_ATTEMPT_S = 0.1
AT_ONCE = 3
PATIENT_AFTER, MOST_DOUBLINGS = 4, 2
"""An election swallows attempts for some seconds; who hears nothing for longer asks a server that has too much to do, and waits twice as long
each time.
"""
PAUSE_S = (0.02, 0.25)
_SEQUENCE = re.compile(r"wrong last sequence: (\d+)")


class Preparing(Protocol):
    """What a commit needs besides sending it."""

    async def prepare(self, commit: Commit) -> None:
        """Complete a deletion: what it removes."""
        ...

    async def finish(self, commit: Commit) -> None:
        """After a deletion."""
        ...

    async def in_the_way(self, piece: Piece, agent: str) -> tuple[int, bool]:
        """The sequence of what lies where a new row is to go (0: nothing), and whether that is a row: not removed, not expired."""
        ...

    async def stands(self, commit: Commit, revision: int) -> bool:
        """Whether a majority of the servers has the agent's head at this revision; False: it hasn't, or can't be asked."""
        ...


class Committer:
    """See the module; one for each partition. `committed` hears of each that is durable, with its revision, before its owner does;
    `failed` of what went wrong in telling an owner."""

    def __init__(
        self,
        jetstream: JetStream,
        stream: str,
        settings: RecordsSettings,
        preparing: Preparing,
        committed: Callable[[Commit, int], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._jetstream, self._stream, self._settings, self._preparing = jetstream, stream, settings, preparing
        self._committed, self._told = committed, failed
        self._connection = jetstream.connection
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Commit] = deque()
        self._behind: dict[str, deque[Commit]] = {}  # agent in flight -> those that wait for what becomes of it
        self._flights: set[asyncio.Task[None]] = set()
        self._called = False
        self.waiting_bytes = 0

    def submit(self, commit: Commit) -> None:
        """Have a commit decided; its owner is told."""
        if self.waiting_bytes > self._settings.max_waiting_bytes:
            text = f"{self.waiting_bytes} bytes wait to be committed already (`max_waiting_bytes`); the record of {commit.agent} wasn't written"
            raise StoreUnavailable(text)
        self.waiting_bytes += commit.size_bytes
        self._waiting.append(commit)
        self._call()

    async def close(self) -> None:
        """Until everything that was accepted is decided."""
        while self._flights or self._waiting:
            self._start()
            await asyncio.wait(self._flights)

    # -- who flies with whom ---------------------------------------------------------------------------------------

    def _call(self) -> None:
        if not self._called and len(self._flights) < FLIGHTS:
            self._called = True
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        self._called = False
        while self._waiting and len(self._flights) < FLIGHTS and (group := self._take()):
            flight = self._loop.create_task(self._fly(group))
            self._flights.add(flight)
            flight.add_done_callback(self._landed)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        if not flight.cancelled() and (error := flight.exception()) is not None:
            self._told(error if isinstance(error, Exception) else RuntimeError(str(error)))
        self._call()

    def _take(self) -> list[Commit]:
        """The next group; every agent in it is in flight from now on."""
        group: list[Commit] = []
        messages = size_bytes = 0
        while self._waiting:
            commit = self._waiting[0]
            if (behind := self._behind.get(commit.agent)) is not None:
                behind.append(self._waiting.popleft())
                continue
            messages += commit.messages
            size_bytes += commit.size_bytes
            if group and (commit.is_deletion or group[0].is_deletion or messages > GROUP_MESSAGES or size_bytes > GROUP_BYTES):
                break
            group.append(self._waiting.popleft())
            self._behind[commit.agent] = deque()
        return group

    async def _fly(self, group: list[Commit]) -> None:
        try:
            await self._carry(group)
        finally:  # a defect of ours must not leave anybody waiting for ever: reading back tells them what happened
            for commit in group:
                if not commit.is_told:
                    self._fail(commit, CommitUnknown(f"the commit of {commit.agent} was given up and may have happened"))

    async def _carry(self, group: list[Commit]) -> None:
        if group[0].is_deletion:
            await self._delete(group[0])
        elif len(group) < SMALL and all(commit.messages == 1 for commit in group):
            await self._one_by_one(group)
        else:
            await self._decide(group)

    async def _apart(self, commits: Sequence[Commit]) -> None:
        """What was refused together: heads alone are cheap, batches are halved until those that are wrong are alone."""
        if len(commits) < SMALL or all(commit.messages == 1 for commit in commits):
            await self._one_by_one(commits)
        else:
            half = len(commits) // 2
            await self._decide(commits[:half])
            await self._decide(commits[half:])

    async def _one_by_one(self, commits: Sequence[Commit]) -> None:
        if len(commits) == 1:
            await self._decide(commits)
        else:
            await asyncio.gather(*(self._decide([commit]) for commit in commits))

    async def _delete(self, commit: Commit) -> None:
        try:
            await self._preparing.prepare(commit)
        except StoreError as error:
            self._fail(commit, error)
            return
        await self._decide([commit])
        await self._preparing.finish(commit)

    # -- what becomes of them --------------------------------------------------------------------------------------

    async def _decide(self, commits: Sequence[Commit]) -> None:
        """Send until it is known what happened, or time is up."""
        deadline_s = min(commit.deadline_s for commit in commits)
        why: Exception | None = None
        silent = 0  # attempts without an answer
        for attempt in count(1):
            try:
                patience_s = self._settings.attempt_timeout_s * (1 << min(max(silent - PATIENT_AFTER, 0), MOST_DOUBLINGS))
                timeout_s = min(patience_s, max(deadline_s - self._loop.time(), LEAST_ATTEMPT_S))
                sequence = await self._send([piece for commit in commits for piece in commit.all()], timeout_s)
            except Refused as refused:
                why = refused
                if self._jetstream.replicas > 1 and _may_be_overtaken(refused, commits):
                    _doubt(commits)
                if len(commits) > 1 and refused.code not in NOT_NOW:
                    await self._apart(commits)
                    return
                if refused.code not in (*NOT_NOW, IN_FLIGHT):
                    if await self._refused(commits[0], refused):
                        return
                    if attempt <= AT_ONCE:
                        continue  # with what was found instead
            except NodeUnreachable as error:  # nothing was done
                why = error
            except OutcomeUnknown as error:
                why = error
                silent += 1
                _doubt(commits)
            except TooLarge as error:  # a server that takes less than the one that they were cut for
                if len(commits) > 1:
                    await self._apart(commits)
                else:
                    self._fail(commits[0], _out_of_time(commits[0], error) if commits[0].unknown else error)
                return
            else:
                self._succeed(commits, sequence)
                return
            left_s = deadline_s - self._loop.time()
            if left_s <= 0 or self._connection.closed:
                for commit in commits:
                    self._fail(commit, _out_of_time(commit, why))
                return
            await asyncio.sleep(min(left_s, random.uniform(*PAUSE_S)))

    async def _send(self, pieces: Sequence[Piece], timeout_s: float) -> int:
        """One attempt; the sequence of the last message."""
        connection, last = self._connection, pieces[-1]
        if len(pieces) == 1:
            answer = await connection.ask(last.subject, last.payload, headers=_headers(last, ""), timeout_s=timeout_s)
            return acknowledged(answer.data).sequence
        batch = f"Nats-Batch-Id: {os.urandom(12).hex()}\r\nNats-Batch-Sequence: "
        for number, piece in enumerate(pieces[:-1], 1):
            connection.publish(piece.subject, piece.payload, headers=_headers(piece, f"{batch}{number}\r\n"))
        headers = _headers(last, f"{batch}{len(pieces)}\r\nNats-Batch-Commit: 1\r\n")
        answer = await connection.ask(last.subject, last.payload, headers=headers, timeout_s=timeout_s)
        return acknowledged(answer.data).sequence

    async def _refused(self, commit: Commit, refused: Refused) -> bool:
        """What a refusal of a lone commit means; False: it is to be sent again."""
        try:
            if refused.code == WRONG_SEQUENCE:
                return await self._mismatched(commit, refused)
            if commit.unknown and await self._is_done(commit):
                return True
        except StoreError as error:
            self._fail(commit, _out_of_time(commit, error) if commit.unknown else error)
            return True
        if commit.unknown:
            self._fail(commit, _out_of_time(commit, refused))
        elif refused.code in FULL:
            self._fail(commit, StoreFull(f"the record of {commit.agent} wasn't written: the NATS servers are full: {refused}"))
        else:
            self._fail(commit, StoreUnavailable(f"the record of {commit.agent} wasn't written: the NATS servers refuse it: {refused}"))
        return True

    async def _mismatched(self, commit: Commit, refused: Refused) -> bool:
        if await self._is_done(commit):
            return True
        for number, piece in enumerate(commit.before):
            if piece.expected is None or piece.row is None:
                continue
            sequence, is_row = await self._preparing.in_the_way(piece, commit.agent)
            if is_row and sequence > commit.expected:  # it came with a newer head, which decides; that may be ours
                return False
            if is_row:
                row = piece.row
                self._fail(
                    commit, RowExists(f"{commit.agent} has a row {row.kind}/{row.name} already", agent=commit.agent, kind=row.kind, name=row.name)
                )
                return True
            commit.before[number] = piece._replace(expected=sequence)
        return False

    async def _is_done(self, commit: Commit) -> bool:
        """Read the head: whether that decides the commit. False: it is the expected one still, or a server that was overtaken answered."""
        head = await self._jetstream.last_of(self._stream, commit.place.head)
        actual = 0 if head is None else head.sequence
        if actual == commit.expected or (actual < commit.expected and not await self._preparing.stands(commit, actual)):
            return False
        if head is not None and actual > commit.expected:
            try:
                stored = head_of(head.payload, f"the record of {commit.agent}")
            except RecordUnreadable as error:
                self._fail(commit, CommitUnknown(f"the commit of {commit.agent} may have happened, but {error}"))
                return True
            if stored.nonce == commit.nonce:
                self._succeed([commit], actual)
                return True
            if commit.unknown and stored.base != commit.expected:  # two or more came after: ours may be one of them
                text = f"the commit of {commit.agent} may have happened: its record is at revision {actual}, and more than one commit later"
                self._fail(commit, CommitUnknown(text))
                return True
        self._fail(commit, _conflict(commit, actual))
        return True

    # -- telling ---------------------------------------------------------------------------------------------------

    def _succeed(self, commits: Sequence[Commit], sequence: int) -> None:
        """All of them are durable; the last message is the one with that sequence, the others stand right before it."""
        revisions = []
        for commit in reversed(commits):
            revisions.append(sequence)
            sequence -= commit.messages
        for commit, revision in zip(commits, reversed(revisions), strict=True):
            commit.committed = True
            self._committed(commit, revision)
            self._tell(commit, Committed(revision, ()), None)
            for follower in self._followers(commit):
                if follower.expected < revision:
                    self._tell(follower, None, _conflict(follower, revision))
                else:
                    self._waiting.append(follower)
        self._call()

    def _fail(self, commit: Commit, error: StoreError) -> None:
        self._tell(commit, None, error)
        self._waiting.extendleft(reversed(self._followers(commit)))
        self._call()

    def _followers(self, commit: Commit) -> deque[Commit]:
        return self._behind.pop(commit.agent, deque())

    def _tell(self, commit: Commit, committed: Committed | None, error: StoreError | None) -> None:
        self.waiting_bytes -= commit.size_bytes
        commit.is_told = True
        try:
            commit.settled(committed, error)
        except Exception as failure:  # one commit's owner must not keep the others from hearing of theirs
            self._told(failure)


def _may_be_overtaken(refused: Refused, commits: Sequence[Commit]) -> bool:
    """Whether a leader may have refused that is none any more: it knows less than what we built on, or doesn't decide."""
    if refused.code != WRONG_SEQUENCE:
        return refused.code in (*NOT_NOW, IN_FLIGHT)
    found = _SEQUENCE.search(str(refused))
    newest = max(piece.expected or 0 for commit in commits for piece in commit.all())
    return found is None or int(found[1]) < newest


def _doubt(commits: Sequence[Commit]) -> None:
    """They may have happened, and may still."""
    for commit in commits:
        commit.unknown = True


def _headers(piece: Piece, batch: str) -> bytes:
    expected = "" if piece.expected is None else f"Nats-Expected-Last-Subject-Sequence: {piece.expected}\r\n"
    return f"NATS/1.0\r\n{piece.headers}{expected}{batch}\r\n".encode()


def _conflict(commit: Commit, actual: int) -> Conflict:
    text = f"{commit.agent} is at revision {actual}, not {commit.expected}; nothing was written"
    return Conflict(text, agent=commit.agent, expected=commit.expected, actual=actual)


def _out_of_time(commit: Commit, why: Exception | None) -> StoreError:
    if commit.unknown:
        return CommitUnknown(f"the commit of {commit.agent} may have happened: {why}")
    return StoreUnavailable(f"the record of {commit.agent} wasn't written: {why}")
