"""Listing all messages of some subjects, each in its newest form, none left out.

A stream of one message a subject changes while it is read: a message that is written again moves to the end. A listing
therefore ends when it has caught up, not at the sequence that was the last when it began: whatever was there then has been seen
where it was, or where it went. And it has caught up only when it has seen a mark that was written for it, for the server that holds its
consumer may lag behind the others, or be cut off from them.

A consumer with patterns is dear to a stream that changes: for each message behind its beginning it looks at all subjects that match, with the
stream's lock in its hand. So it tells only what stood there when it began, of which it makes a list once; the leader's own list of subjects, in a
state no older than the mark, says which are missing, and those are read one by one. Only a list of very many is read to its end.

A consumer may die with its server: whatever doesn't come in time is asked for again, of a new consumer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence

from ...core.errors import CommitUnknown, NodeUnreachable, StoreUnavailable
from .client import Headers
from .connection import Subscription
from .jetstream import FULL, Entry, JetStream, Refused, Stored, refusal
from .places import Subjects
from .reading import Reading

A_FEW, MANY = 256, 100_000
"""Up to so many messages are read without a consumer; up to so many subjects are told in one answer.
"""
PULL = 500
SILENT_S = 2.0
"""So long nothing may come before a consumer is taken to be dead."""
INACTIVE_S = 30
EMPTY = 5
EMPTY_PAUSE_S = 0.02
"""A consumer that has nothing more, although its mark is still to come, is asked again so often, after growing pauses; then it is replaced.
"""
_NANO = 1_000_000_000
_ENDED = {"404", "408"}


class _Consumer:
    """One consumer's messages, as they come."""

    def __init__(self, jetstream: JetStream, stream: str) -> None:
        self._jetstream, self._stream = jetstream, stream
        self._name = f"list-{os.urandom(9).hex()}"
        self._inbox = f"{jetstream.connection.settings.inbox_prefix}.{self._name}"
        self._subscription: Subscription | None = None
        self._come = asyncio.Event()
        self._got: list[tuple[Stored, int]] = []
        self._missing = 0
        self.status = ""

    async def make(self, patterns: Sequence[str], after: int, *, headers_only: bool) -> None:
        """Create it on the server; without patterns it tells everything. One with patterns that begins at a sequence costs the server a look at
        all subjects that match for each message that it tells, while it keeps writers waiting; one that begins with the newest of each subject
        makes its list once."""
        self._subscription = await self._jetstream.connection.subscribe(self._inbox, self._take)
        start = (
            {"deliver_policy": "by_start_sequence", "opt_start_seq": after + 1}
            if after
            else {"deliver_policy": "last_per_subject" if patterns else "all"}
        )
        config = {
            **start, "name": self._name, "ack_policy": "none", "filter_subjects": list(patterns), "headers_only": headers_only,
            "inactive_threshold": INACTIVE_S * _NANO, "mem_storage": True, "num_replicas": 1,
        }  # fmt: skip
        body = {"stream_name": self._stream, "config": config, "action": "create"}
        await self._jetstream.api(f"CONSUMER.CREATE.{self._stream}.{self._name}", body)

    def pull(self) -> None:
        """Ask for the next messages that are there."""
        self.status, self._missing = "", PULL
        self._jetstream.connection.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}", b'{"batch":%d,"no_wait":true}' % PULL, reply=self._inbox.encode()
        )

    async def next(self) -> list[tuple[Stored, int]]:
        """What has come, with how many are left behind each; `TimeoutError` if nothing comes."""
        async with asyncio.timeout(SILENT_S):
            await self._come.wait()
        self._come.clear()
        got, self._got = self._got, []
        return got

    @property
    def is_done(self) -> bool:
        """Whether what was asked for last has come, as far as it was there."""
        return not self._got and (self._missing <= 0 or self.status != "")

    async def drop(self) -> None:
        """Take no more; the server forgets it."""
        connection = self._jetstream.connection
        if self._subscription is not None:
            await self._subscription.close()
        if connection.is_up:
            with contextlib.suppress(NodeUnreachable):  # it forgets it by itself a little later
                connection.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._name}")

    def _take(self, subject: bytes, reply: bytes, data: bytes, headers: Headers) -> None:
        if not reply:
            self.status = (headers or {}).get("Status", "")
        else:
            sequence, left = _numbers(reply)
            self._missing -= 1
            self._got.append((Stored(subject.decode(), sequence, data, headers or {}), left))
        self._come.set()


def _numbers(reply: bytes) -> tuple[int, int]:
    """The sequence of a message and how many are left behind it, out of the subject where it would be acknowledged."""
    tokens = reply.split(b".")
    at = 5 if len(tokens) == 9 else 7  # with a domain and an account's hash before
    return int(tokens[at]), int(tokens[at + 3])


class Listing:
    """See the module."""

    def __init__(self, jetstream: JetStream, subjects: Subjects, reading: Reading) -> None:
        self._jetstream, self._subjects, self._reading = jetstream, subjects, reading

    async def newest(
        self, partition: int, patterns: Sequence[str], *, headers_only: bool = False, wanted: Callable[[str], bool] | None = None
    ) -> dict[str, Stored]:
        """The messages of the subjects that match, each in its newest form; removed ones aren't among them. With `headers_only` there may be no
        payloads, and those whose subjects aren't `wanted` may be left out."""
        mark, names = await self._mark(partition), list[str]()
        for pattern in patterns:
            names += await self._reading.names(partition, pattern, mark, most=MANY)
        if len(names) > MANY:
            found, _position = await self._list(partition, [*patterns, self._subjects.mark(partition)], 0, mark, headers_only=headers_only)
        else:
            found = await self._named(partition, patterns, names if wanted is None else list(filter(wanted, names)), mark, headers_only)
        return {subject: message for subject, message in found.items() if not _is_removed(message)}

    async def _named(self, partition: int, patterns: Sequence[str], names: Sequence[str], mark: int, headers_only: bool) -> dict[str, Stored]:
        """The messages of these subjects, and perhaps others that match: from a consumer what it tells at once, the rest one by one."""
        found: dict[str, Stored] = {}
        if len(names) > A_FEW:
            with contextlib.suppress(Refused):
                wanted = [*patterns, self._subjects.mark(partition)]
                await self._read(self._subjects.stream(partition), wanted, 0, mark, found, headers_only, complete=False)
            found.pop(self._subjects.mark(partition), None)
        missing = [name for name in names if name not in found]
        return found | {message.subject: message for message in await self._reading.all_of(partition, missing)}

    async def everything(self, partition: int) -> dict[str, Stored]:
        """All messages, as `newest` has them."""
        found, _position = await self._list(partition, (), 0, await self._mark(partition), headers_only=False)
        return {subject: message for subject, message in found.items() if not _is_removed(message)}

    async def since(self, partition: int, after: int) -> tuple[dict[str, Stored], int]:
        """Everything that was written after a sequence, removals too, without payloads; and the sequence after which to go on."""
        return await self._list(partition, (), after, await self._mark(partition), headers_only=True)

    async def _list(self, partition: int, wanted: Sequence[str], after: int, mark: int, *, headers_only: bool) -> tuple[dict[str, Stored], int]:
        stream, mark_subject = self._subjects.stream(partition), self._subjects.mark(partition)
        found: dict[str, Stored] = {}
        clock = asyncio.get_running_loop().time
        deadline_s, position, farthest, done = clock() + self._jetstream.timeout_s, after, after, False
        while not done:
            try:  # with patterns from the beginning again, which is cheaper than from a sequence
                position, done = await self._read(stream, wanted, after if wanted else position, mark, found, headers_only, complete=True)
            except Refused as refused:
                raise refusal(refused, f"listing {stream}") from refused
            if position > farthest:
                farthest, deadline_s = position, clock() + self._jetstream.timeout_s
            elif clock() > deadline_s and not done:
                raise StoreUnavailable(f"stream {stream} can't be listed: its consumers tell nothing")
        found.pop(mark_subject, None)
        return found, position

    async def _read(
        self, stream: str, patterns: Sequence[str], position: int, mark: int, found: dict[str, Stored], headers_only: bool, *, complete: bool
    ) -> tuple[int, bool]:
        """Read on from a position with a consumer of its own: where it stopped, and whether it has caught up (else the consumer tells no more).
        Unless that is to be `complete`, the mark is enough: what was written behind it isn't told."""
        consumer, empty = _Consumer(self._jetstream, stream), 0
        try:
            await consumer.make(patterns, position, headers_only=headers_only)
            consumer.pull()
            while True:
                left = -1
                for message, behind in await consumer.next():
                    position, left = message.sequence, behind
                    known = found.get(message.subject)
                    if known is None or known.sequence < message.sequence:
                        found[message.subject] = message
                if (left == 0 or consumer.status in _ENDED or not complete) and position >= mark:
                    return position, True
                if consumer.status and (consumer.status not in _ENDED or not complete):
                    return position, False  # the consumer is gone, or its server is going
                if consumer.status in _ENDED:  # many that ask at once would keep a busy server from writing the very marks that they wait for
                    empty += 1
                    if empty > EMPTY:
                        return position, False
                    await asyncio.sleep(EMPTY_PAUSE_S * empty)
                if consumer.is_done:
                    consumer.pull()
        except (TimeoutError, NodeUnreachable):
            return position, False
        finally:
            await consumer.drop()

    async def _mark(self, partition: int) -> int:
        """The sequence of a message written now, behind everything that was committed; 0 if there is no room for one."""
        try:
            return (await self._jetstream.publish(Entry(self._subjects.mark(partition), b"."))).sequence
        except CommitUnknown as error:
            raise StoreUnavailable(f"partition {partition} can't be listed: {error}") from error
        except Refused as refused:
            if refused.code in FULL:
                return 0
            raise refusal(refused, f"listing partition {partition}") from refused


def _is_removed(message: Stored) -> bool:
    return not message.payload and (message.headers.get("Nats-Msg-Size", "0") == "0")
