"""What is removed: a deleted agent's rows, rows whose time has come, parts that nothing names any more.

Nothing is deleted by request: a message with nothing in it takes the place of the one that goes, on the condition that that
one is still there, and the server forgets it after some seconds. A node therefore needs no right to delete.

A deletion removes the rows in its own batch. Where more are there than a batch takes, it leaves a note (the *sweep*): rows
below its sequence are dead. They are removed right afterwards, or, if the node dies in between, by `remove_expired`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from ...core.errors import CommitUnknown, StoreError
from .jetstream import IN_FLIGHT, WRONG_SEQUENCE, Entry, JetStream, Refused, Stored, refusal
from .listing import Listing
from .places import Subjects, is_head, is_part, part, root_of
from .reading import Reading, gathered
from .schedule import Schedule
from .stored import BELOW, EXPIRES, GONE, head_of, row_of
from .submission import Commit, Cutter, Piece, marker_s, removal

IN_ONE_DELETION = 900
"""Rows that a deletion removes in its own batch."""
CHUNK = 200


class Removal:
    """See the module."""

    def __init__(self, jetstream: JetStream, subjects: Subjects, reading: Reading, listing: Listing, cutter: Cutter) -> None:
        self._jetstream, self._subjects, self._reading, self._listing, self._cutter = jetstream, subjects, reading, listing, cutter
        self._schedules = [Schedule() for _ in range(subjects.partitions)]

    # -- deletions -------------------------------------------------------------------------------------------------

    async def prepare(self, commit: Commit) -> None:
        """Add what a deletion removes to its messages."""
        given = {piece.subject for piece in commit.before}
        there = await self._reading.names(commit.place.partition, f"{commit.place.root}.>", commit.expected)
        sweep = self._subjects.sweep(commit.agent)
        going = [subject for subject in there if subject not in given and subject not in (commit.place.head, sweep)]
        going.sort(key=lambda subject: (is_part(subject), ".key." in subject))  # what is found without its agent goes first
        room = IN_ONE_DELETION - len(given)
        commit.before += [removal(subject) for subject in going[:room]]
        commit.left = going[room:]
        if commit.left:
            commit.before.append(self._cutter.sweep(commit.agent, commit.expected + 1))

    async def finish(self, commit: Commit) -> None:
        """Remove what didn't fit the batch. Whatever fails here, `remove_expired` does."""
        if commit.left and commit.committed:
            try:
                await self._sweep(commit.place.partition, commit.left, commit.expected + 1, self._subjects.sweep(commit.agent))
            except StoreError:
                return

    async def in_the_way(self, piece: Piece, agent: str) -> tuple[int, bool]:
        """See `Preparing`."""
        partition = self._subjects.place(agent).partition
        found = await self._jetstream.last_of(self._subjects.stream(partition), piece.subject)
        if found is None:
            return 0, False
        is_row = bool(found.payload) and self._reading.is_live(found.headers) and found.sequence >= await self._reading.below(agent)
        return found.sequence, is_row

    async def stands(self, commit: Commit, revision: int) -> bool:
        """See `Preparing`. A write that the servers accept on that condition only."""
        condition = {"Nats-Expected-Last-Subject-Sequence": str(revision), "Nats-Expected-Last-Subject-Sequence-Subject": commit.place.head}
        try:
            await self._jetstream.publish(Entry(self._subjects.mark(commit.place.partition), b".", condition))
        except (Refused, CommitUnknown):
            return False
        return True

    async def _sweep(self, partition: int, subjects: Sequence[str], below: int, note: str) -> None:
        found = await self._reading.all_of(partition, sorted({*subjects, note}))
        dead = [(one.subject, one.sequence) for one in found if one.sequence < below and one.subject != note]
        if await self.remove(partition, dead) == len(dead):
            await self.remove(partition, [(one.subject, one.sequence) for one in found if one.subject == note])

    # -- keeping house ---------------------------------------------------------------------------------------------

    async def remove_expired(self, partition: int, now_s: float, limit: int) -> int:
        """Remove up to so many rows whose time has come; how many. Ends sweeps too, and removes parts that nothing names."""
        schedule = self._schedules[partition]
        if schedule.is_incomplete(now_s):
            schedule.begin_anew()
        written, position = await self._listing.since(partition, schedule.position)
        for subject, row in written.items():
            if is_head(subject) or is_part(subject):
                continue
            if BELOW in row.headers:
                names = await self._reading.names(partition, f"{root_of(subject)}.>")
                await self._sweep(partition, names, int(row.headers[BELOW]), subject)
            elif (told := row.headers.get(EXPIRES)) is not None:
                schedule.add(float(told), subject, row.sequence)
        schedule.position = position
        removed = 0
        while removed < limit and (due := schedule.due(now_s, limit - removed)):
            try:
                removed += await self.remove(partition, [(subject, sequence) for _expires_s, subject, sequence in due])
            except StoreError:
                for one in due:
                    schedule.add(*one)
                raise
        await self._remove_parts(partition)
        return removed

    async def remove(self, partition: int, what: Sequence[tuple[str, int]]) -> int:
        """Remove messages, each if it is still the one with that sequence; how many were."""
        chunks = iter(lambda: list(islice(rest, CHUNK)), [])
        rest: Iterator[tuple[str, int]] = iter(what)
        return sum([await self._remove_chunk(chunk) for chunk in chunks])

    async def _remove_chunk(self, chunk: list[tuple[str, int]]) -> int:
        try:
            await self._jetstream.publish_batch([_removal(*one) for one in chunk], batch_id=f"remove-{chunk[0][1]}-{len(chunk)}")
        except Refused as refused:
            if refused.code not in (WRONG_SEQUENCE, IN_FLIGHT):
                raise refusal(refused, "removing rows") from refused
            if len(chunk) == 1:  # it was written again, or is being written
                return 0
        except CommitUnknown:
            if len(chunk) == 1:  # the next look tells
                return 0
        else:
            return len(chunk)
        return sum(await gathered([self._remove_chunk([one]) for one in chunk]))

    async def _remove_parts(self, partition: int) -> None:
        parts = await self._reading.names(partition, self._subjects.parts(partition))
        if not parts:
            return
        stored = await self._reading.all_of(partition, parts)
        named: set[str] = set()
        roots = {root_of(one.subject) for one in stored}
        for root in roots:
            found = await self._reading.all_of(partition, await self._reading.names(partition, f"{root}.>"))
            named.update(*(_parts_of(one) for one in found if not is_part(one.subject)))
        await self.remove(partition, [(one.subject, one.sequence) for one in stored if one.subject not in named])


def _parts_of(one: Stored) -> list[str]:
    read = head_of if is_head(one.subject) else row_of
    whole = read(one.payload, f"what lies at {one.subject}")
    return [part(one.subject, number) for number in range(whole.parts)]


def _removal(subject: str, sequence: int) -> Entry:
    return Entry(subject, b"", {GONE: "1", "Nats-TTL": f"{marker_s()}s", "Nats-Expected-Last-Subject-Sequence": str(sequence)})
