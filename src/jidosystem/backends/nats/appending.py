"""How events get into the log's stream: appends that wait are joined to atomic batches, each message of a stream on condition.

Every batch is conditional on what each of its streams ended at, also where the caller expects nothing: only so can an unknown
outcome be resolved. A batch whose acknowledgement was lost may be applied later, by a server that was paused; and one that is refused
may be applied all the same, for a leader that doesn't know yet that it is none any more answers beside the one that is. It is sent
again on the same conditions: then one of the two is applied, or neither ever will be. If a server says that they don't hold, the
message right behind the one that we built on says whether the batch is in: it bears our nonce, or somebody else's. If there is none,
the answer came from a server that was overtaken.

One batch a stream is under way at a time. Where others write to one of its streams too and were first, its appends go on stream by
stream, and hold up nobody. An event that is too large for one message lies in parts right before it, in the same batch: there is nothing to
collect when it fails.
"""

from __future__ import annotations

import asyncio
import random
from asyncio import Future
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from nats.nuid import NUID

from ...core.errors import CommitUnknown, StoreError, StoreUnavailable, StreamConflict, TooLarge
from ...core.events import Event, encode_event
from .jetstream import IN_FLIGHT, MAX_BATCH, NOT_NOW, WRONG_SEQUENCE, Entry, JetStream, Refused, Stored, refusal

MAX_FLIGHTS = 2
"""Batches under way side by side: while one is stored the next is filled. More were no faster, and on a single server a batch costs six fsyncs."""
FLIGHT_BYTES = 4 * 1024 * 1024
MAX_WAITING_BYTES = 128 * 1024 * 1024
KNOWN_STREAMS = 100_000
HEADER_BYTES = 1_024
PAUSE_S = (0.005, 0.05)
EXPECTED, NONCE, PARTS = "Nats-Expected-Last-Subject-Sequence", "Jido-Nonce", "Jido-Parts"
_nuid = NUID()


class Names(NamedTuple):
    """The log's stream and its subjects.

    Attributes:
        stream: name of the stream
        events: of this followed by a stream's token is an event
        parts: the subject of the parts of large events
        marks: of this followed by an emitter's token: the number that it has emitted last
    """

    stream: str
    events: str
    parts: str
    marks: str


class Append:
    """Events of one call, as the messages that they become."""

    __slots__ = ("expected", "future", "marked", "messages", "offsets", "size_bytes", "streams", "subjects")

    def __init__(self, events: Sequence[Event], expected: int | None, names: Names, token: Callable[[str], str], room_bytes: int, limit: int) -> None:
        self.expected = expected
        self.future: Future[Sequence[int]] = asyncio.get_running_loop().create_future()
        self.messages: list[tuple[str, bytes, int]] = []  # subject, payload, parts before it (-1: it is a part)
        self.offsets: list[int] = []
        self.marked: tuple[int, ...] = ()  # where the mark of an emitter is, if it has one
        self.size_bytes = 0
        self.streams: dict[str, str] = {}  # subject -> stream, in order of appearance
        for event in events:
            blob = encode_event(event)
            if len(blob) > limit:
                raise TooLarge(f"event {event.type!r} has {len(blob)} bytes, over {limit}; nothing was written", limit=limit)
            subject = names.events + token(event.stream)
            self.streams[subject] = event.stream
            self._add(subject, blob, names.parts, room_bytes)
        if len(self.messages) > MAX_BATCH:
            what = f"{len(events)} events at once are {len(self.messages)} messages, over {MAX_BATCH}"
            raise TooLarge(f"{what}; nothing was written", limit=MAX_BATCH)
        self.subjects = tuple(self.streams)

    def mark(self, emitter: str, subject: str, number: int, expected: int) -> None:
        """Store with it that an emitter has emitted a number, on condition that its last mark is where it was."""
        self.expected, self.marked = expected, (len(self.messages),)
        self.messages.append((subject, str(number).encode(), 0))
        self.streams = {subject: emitter} | self.streams
        self.subjects = tuple(self.streams)

    def _add(self, subject: str, blob: bytes, parts: str, room_bytes: int) -> None:
        self.size_bytes += len(blob)
        count = 0
        if len(blob) > room_bytes:
            cut = [blob[start : start + room_bytes] for start in range(0, len(blob), room_bytes)]
            self.messages += [(parts, part, -1) for part in cut]
            blob, count = b"", len(cut)
        self.offsets.append(len(self.messages))
        self.messages.append((subject, blob, count))

    def done(self, first: int) -> None:
        """It is stored, its first message at this sequence."""
        if not self.future.done():
            self.future.set_result([first + offset for offset in self.offsets])

    def failed(self, error: Exception) -> None:
        """It isn't, or nobody knows."""
        if not self.future.done():
            self.future.set_exception(error)


class Appender:
    """See the module. `grew` is called with (subject, last sequence) of each stream that has new events.

    Attributes:
        newest: the highest sequence of an event that was ever acknowledged to us
    """

    def __init__(self, jetstream: JetStream, names: Names, timeout_s: float, grew: Callable[[dict[str, int]], None]) -> None:
        self._jetstream, self._names, self._timeout_s, self._grew = jetstream, names, timeout_s, grew
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Append] = deque()
        self._waiting_bytes = 0
        self._flights: set[asyncio.Task[list[list[Append]]]] = set()
        self._beaten: set[asyncio.Task[list[list[Append]]]] = set()  # those of one stream, after others were first
        self._flying: set[str] = set()
        self._last: OrderedDict[str, int] = OrderedDict()
        self._pumped = False
        self.newest = 0

    def put(self, append: Append) -> None:
        """Accept one: it is decided without its caller."""
        if self._waiting_bytes + append.size_bytes > MAX_WAITING_BYTES and self._waiting:
            append.failed(StoreUnavailable(f"{self._waiting_bytes} bytes wait to be appended already; nothing was written"))
            return
        self._waiting.append(append)
        self._waiting_bytes += append.size_bytes
        if not self._pumped:
            self._pumped = True
            self._loop.call_soon(self._pump)

    def last_known(self, subject: str) -> int:
        """What a stream ended at when we last heard of it; 0 if we never did."""
        return self._last.get(subject, 0)

    async def finish(self) -> None:
        """Until everything that was accepted is decided."""
        self._pump()
        while self._flights or self._beaten:
            await asyncio.wait(self._flights | self._beaten, return_when=asyncio.FIRST_COMPLETED)

    def _pump(self) -> None:
        self._pumped = False
        while self._waiting and len(self._flights) < MAX_FLIGHTS:
            appends = self._pick()
            if not appends:
                return
            self._launch(appends, self._flights)

    def _launch(self, appends: list[Append], among: set[asyncio.Task[list[list[Append]]]]) -> None:
        self._flying.update(subject for append in appends for subject in append.subjects)
        task = self._loop.create_task(self._fly(appends))
        among.add(task)
        task.add_done_callback(partial(self._landed, appends))

    def _landed(self, appends: Sequence[Append], task: asyncio.Task[list[list[Append]]]) -> None:
        self._flying.difference_update(subject for append in appends for subject in append.subjects)
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            for append in appends:
                append.failed(CommitUnknown("the append was ended in a way that wasn't foreseen, and may have happened"))
            if error is not None:
                self._loop.call_exception_handler({"message": "appending events failed", "exception": error, "task": task})
        else:
            for group in task.result():
                self._launch(group, self._beaten)
        self._flights.discard(task)
        self._beaten.discard(task)
        if self._waiting:
            self._pump()

    def _pick(self) -> list[Append]:
        """What goes together: in the order in which it came, no stream that is under way or that somebody before waits for."""
        picked: list[Append] = []
        blocked, seen, left = set(self._flying), set[str](), deque[Append]()
        messages = size_bytes = 0
        while self._waiting:
            append = self._waiting.popleft()
            fits = not picked or (messages + len(append.messages) <= MAX_BATCH and size_bytes + append.size_bytes <= FLIGHT_BYTES)
            # Who expects an end can't know that of a batch which isn't stored yet: it must be the first of its stream.
            first = append.expected is None or append.subjects[0] not in seen
            if not fits or not first or not blocked.isdisjoint(append.subjects):
                blocked.update(append.subjects)
                left.append(append)
                if not fits:
                    break
                continue
            picked.append(append)
            seen.update(append.subjects)
            messages += len(append.messages)
            size_bytes += append.size_bytes
        left.extend(self._waiting)
        self._waiting = left
        self._waiting_bytes -= size_bytes
        return picked

    async def _fly(self, appends: list[Append]) -> list[list[Append]]:
        """Decide them, but for those that it returns, which go on apart."""
        nonce, deadline = _nuid.next().decode(), self._loop.time() + self._timeout_s
        bases: dict[str, int] = {}
        attempt, unknown = 0, False
        while appends:
            attempt += 1
            left_s = deadline - self._loop.time()
            trouble: StoreError
            try:
                if not unknown:
                    bases = await self._bases(appends)
                    appends = _still_expected(appends, bases)
                if not appends or await self._attempt(appends, bases, nonce, attempt, max(left_s, 0.0)):
                    return []
                unknown, trouble = False, StoreUnavailable("others write to the streams all the time; nothing was written")
                groups = _by_stream(appends)
                if len(groups) > 1:
                    return groups
            except CommitUnknown as error:
                unknown, trouble = True, error
            except StoreError as error:
                return _fail(appends, error, unknown=unknown)
            if left_s <= 0:
                return _fail(appends, trouble, unknown=unknown)
            await asyncio.sleep(random.uniform(*PAUSE_S))
        return []

    async def _attempt(self, appends: Sequence[Append], bases: dict[str, int], nonce: str, attempt: int, timeout_s: float) -> bool:
        """Whether they are stored; False: others were first. `CommitUnknown`: they may be."""
        entries = _entries(appends, bases, nonce)
        try:
            ack = await self._jetstream.publish_batch(entries, batch_id=f"{nonce}-{attempt}", timeout_s=timeout_s)
        except Refused as refused:
            if refused.code not in (WRONG_SEQUENCE, IN_FLIGHT, *NOT_NOW):
                raise refusal(refused, "appending events") from refused
            behind = await self._behind(bases) if refused.code == WRONG_SEQUENCE else None
            if behind is None:
                raise CommitUnknown(f"events may be stored, although a server refused them: {refused}") from refused
            mark, _, index = behind.headers.get(NONCE, "").partition(".")
            if mark == nonce:
                self._stored(appends, behind.sequence - int(index))
            return mark == nonce
        self._stored(appends, ack.sequence - len(entries) + 1)
        return True

    async def _behind(self, bases: dict[str, int]) -> Stored | None:
        """A message right behind the base of its stream; what we knew of the ends of all of them is forgotten. None: no server that
        answers has one."""
        for subject in bases:
            self._last.pop(subject, None)
        try:
            for subject, base in bases.items():
                found = await self._jetstream.next_of(self._names.stream, subject, base + 1)
                if found is not None:
                    return found
        except StoreUnavailable as error:
            raise CommitUnknown(f"whether events were stored can't be read: {error}") from error
        return None

    async def _bases(self, appends: Sequence[Append]) -> dict[str, int]:
        """What each stream ends at, as far as we know; asked of the leader if we don't."""
        subjects = dict.fromkeys(subject for append in appends for subject in append.subjects)
        for append in appends:  # who expects something else may know better: others append to the same streams
            if append.expected is not None and self._last.get(append.subjects[0]) != append.expected:
                self._last.pop(append.subjects[0], None)
        unknown = [subject for subject in subjects if subject not in self._last]
        ends = await asyncio.gather(*(self._jetstream.last_of(self._names.stream, subject) for subject in unknown))
        for subject, end in zip(unknown, ends, strict=True):
            self._note(subject, 0 if end is None else end.sequence)
        return {subject: self._last[subject] for subject in subjects}

    def _stored(self, appends: Sequence[Append], first: int) -> None:
        ends: dict[str, int] = {}
        for append in appends:
            for offset in append.offsets:
                ends[append.messages[offset][0]] = first + offset
            for offset in append.marked:  # readers of events never see one: nobody may wait for it
                self._note(append.messages[offset][0], first + offset)
            append.done(first)
            first += len(append.messages)
        for subject, end in ends.items():
            self._note(subject, end)
        if ends:
            self.newest = max(self.newest, *ends.values())
            self._grew(ends)

    def _note(self, subject: str, end: int) -> None:
        self._last[subject] = end
        self._last.move_to_end(subject)
        if len(self._last) > KNOWN_STREAMS:
            oldest = next(iter(self._last))
            if oldest not in self._flying:
                del self._last[oldest]


def _entries(appends: Sequence[Append], bases: dict[str, int], nonce: str) -> list[Entry]:
    entries: list[Entry] = []
    conditional = set[str]()
    for append in appends:
        for subject, payload, parts in append.messages:
            headers: dict[str, str] = {}
            if parts > 0:
                headers[PARTS] = str(parts)
            if parts >= 0 and subject not in conditional:  # once a subject: the server checks it against what was there before the batch
                conditional.add(subject)
                headers[EXPECTED] = str(bases[subject])
                headers[NONCE] = f"{nonce}.{len(entries)}"
            entries.append(Entry(subject, payload, headers))
    return entries


def _still_expected(appends: list[Append], bases: dict[str, int]) -> list[Append]:
    """Those whose expectation holds; the others are told."""
    left: list[Append] = []
    for append in appends:
        subject = append.subjects[0]
        if append.expected is None or append.expected == bases[subject]:
            left.append(append)
            continue
        stream, actual = append.streams[subject], bases[subject]
        text = f"stream {stream!r} ends at {actual}, not at {append.expected}; nothing was written"
        append.failed(StreamConflict(text, stream=stream, expected=append.expected, actual=actual))
    return left


def _by_stream(appends: Sequence[Append]) -> list[list[Append]]:
    groups: dict[str, list[Append]] = {}
    for append in appends:
        groups.setdefault(append.subjects[0], []).append(append)
    return list(groups.values())


def _fail(appends: Sequence[Append], error: StoreError, *, unknown: bool) -> list[list[Append]]:
    if unknown and not isinstance(error, CommitUnknown):
        error = CommitUnknown(f"whether the events were stored is unknown: {error}")
    for append in appends:
        append.failed(error)
    return []
