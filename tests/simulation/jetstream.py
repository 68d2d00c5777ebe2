"""JetStream on three servers, as far as our adapters speak to it, under leaders that come back: streams with conditions, batches and reads.

Each stream has one true leader, which alone can commit, with one more server at least. A server that led when it was stopped or cut off
goes on leading in its own eyes until it hears of its successor: what it is asked then it answers out of its old state, or it takes a write that
will never be, and says nothing. Whoever leads in its own eyes is subscribed to the stream's subjects, so a message reaches
all of them, and the sender hears who answers first.

What is on its way to a server that stands still is handled when it goes on; what its sender has given up by then happens all the same.
"""

from __future__ import annotations

import asyncio
import base64
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from contextvars import Context
from functools import lru_cache
from random import Random
from typing import Any, NamedTuple, Protocol

import msgspec

from jidosystem.backends.nats.jetstream import IN_FLIGHT, INCOMPLETE_BATCH, NO_MESSAGE, NO_STREAM, WRONG_SEQUENCE

ELECTION_S = (4.0, 9.0)
OVERTAKEN_S = (0.0, 1.5)
"""So long a leader that was stopped goes on leading in its own eyes after it is back."""
CUT_OFF_S = (10.0, 20.0)
"""So long one that is cut off does at most."""
STAGED_S = 10.0
HOP_S = (0.0001, 0.0008)
COMMIT_S = (0.0005, 0.004)
NO_LEADER = 10008
NOT_LEADER = (503, 0, "raft: not leader")
_ERRORS = {
    IN_FLIGHT: "wrong last sequence for subject, another write is in flight",
    INCOMPLETE_BATCH: "atomic publish is incomplete and was abandoned",
    NO_LEADER: "JetStream system temporarily unavailable",
    NO_MESSAGE: "no message found",
    NO_STREAM: "stream not found",
}


class Sent(NamedTuple):
    """A message on its way to a stream."""

    client: Client
    subject: str
    reply: str
    headers: bytes
    payload: bytes


class Kept(NamedTuple):
    """A message as it is stored; its sequence is its place."""

    subject: str
    headers: bytes
    payload: bytes


class Client(Protocol):
    """Who is connected."""

    server: Server | None

    def deliver(self, subject: str, payload: bytes, headers: dict[str, str] | None) -> None:
        """A message for one of its inboxes."""
        ...

    def hung_up(self) -> None:
        """Its server has gone."""
        ...

    def stands_still(self) -> None:
        """Its server doesn't answer any more."""
        ...


class Server:
    """One of them."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.up, self.stopped, self.apart = True, False, False
        self.waiting: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        """What came while it stood still."""

    @property
    def is_well(self) -> bool:
        """Whether the others hear it."""
        return self.up and not (self.stopped or self.apart)

    def hears(self, other: Server) -> bool:
        """Whether what one of them sends gets to the other, now or when it goes on."""
        return self is other or not (self.apart or other.apart)


class Copy:
    """What one server knows of a stream."""

    def __init__(self) -> None:
        self.leads = False
        self.old: int | None = None
        """The sequence that it stopped at, of a leader that was overtaken."""
        self.in_flight: Counter[str] = Counter()
        self.batches: dict[str, list[Sent]] = {}


class Proposal:
    """A write that a leader has taken."""

    __slots__ = ("copy", "messages", "server")

    def __init__(self, server: Server, copy: Copy, messages: list[Sent]) -> None:
        self.server, self.copy, self.messages = server, copy, messages


class Stream:
    """A stream: what is true of it, and what each server knows."""

    def __init__(self, config: dict[str, Any], servers: int) -> None:
        self.config = config
        self.kept: list[Kept] = []
        self.sequences: dict[str, list[int]] = {}
        self.copies = [Copy() for _ in range(servers)]
        self.leader: Server | None = None
        self.pending: list[Proposal] = []
        self.replicated: int | None = None
        """Since its leader is in trouble: so many of those that are pending the others have."""
        self.term = 0
        self.last_commit_s = 0.0

    @property
    def is_led(self) -> bool:
        """Whether its leader is there, and is heard."""
        return self.leader is not None and self.leader.is_well and self.copies[self.leader.number].leads

    def last_of(self, subject: str, copy: Copy) -> int:
        """The last sequence of a subject, or of all that begin like it, as a server knows it."""
        if subject.endswith(">"):
            found = [self._last(one, copy) for one in self.sequences if one.startswith(subject[:-1])]
            return max(found, default=0)
        return self._last(subject, copy)

    def _last(self, subject: str, copy: Copy) -> int:
        sequences = self.sequences.get(subject)
        if not sequences:
            return 0
        if copy.old is None:
            return sequences[-1]
        before = bisect_right(sequences, copy.old)
        return sequences[before - 1] if before else 0

    def next_of(self, subject: str, first: int, copy: Copy) -> int:
        """The first sequence of a subject from one on, as a server knows it; 0: there is none."""
        sequences = self.sequences.get(subject, [])
        at = bisect_right(sequences, first - 1)
        return sequences[at] if at < len(sequences) and sequences[at] <= self.end_of(copy) else 0

    def end_of(self, copy: Copy) -> int:
        """The last sequence that a server knows."""
        return len(self.kept) if copy.old is None else copy.old

    def keep(self, messages: list[Sent]) -> int:
        """Store what was committed; the last sequence."""
        for sent in messages:
            self.kept.append(Kept(sent.subject, sent.headers, sent.payload))
            self.sequences.setdefault(sent.subject, []).append(len(self.kept))
        return len(self.kept)


class Servers:
    """The three, and what is done to them. The same seed and the same questions give the same run. `felt` counts what only happens to those who are
    in trouble.
    """

    def __init__(self, seed: int, count: int = 3) -> None:
        self.random = Random(f"servers {seed}")
        self.all = [Server(number) for number in range(count)]
        self.streams: dict[str, Stream] = {}
        self.clients: list[Client] = []
        self.felt: Counter[str] = Counter()
        self._arrivals: dict[tuple[int, int], float] = {}
        self.stream_of = lru_cache(maxsize=None)(self._stream_of)

    # -- what is done to them --------------------------------------------------------------------------------

    def kill(self, server: Server, seconds: float) -> None:
        """It is gone at once, with all that it hadn't told anybody, and comes back as a follower."""
        if not server.up:
            return
        self._trouble(server)
        server.up = False
        server.waiting.clear()
        for stream in self.streams.values():
            self._follow(stream.copies[server.number])
        for client in self.clients:
            if client.server is server:
                client.hung_up()
        at(seconds, self._start, server)

    def stop(self, server: Server, seconds: float) -> None:
        """It stands still; what is sent to it waits."""
        if server.up and not server.stopped:
            self._trouble(server)
            server.stopped = True
            for client in self.clients:
                if client.server is server:
                    client.stands_still()
            at(seconds, self._go_on, server)

    def cut_off(self, server: Server, seconds: float) -> None:
        """The other servers don't hear it, nor it them; its clients do."""
        if server.up and not server.apart:
            self._trouble(server)
            server.apart = True
            at(seconds, self._join, server)

    def hand_over(self, stream: Stream) -> None:
        """Its leader steps down, and tells another one."""
        leader = stream.leader
        if leader is None or not leader.is_well:
            return
        stream.replicated = self.random.randint(0, len(stream.pending))
        stream.leader = None
        stream.term += 1
        self._overtake(stream, leader)
        at(self.random.uniform(0, 0.2), self._follow_of, stream, leader)
        at(self.random.uniform(0.02, 0.5), self._elect, stream, stream.term)

    def heal(self) -> None:
        """All are there, and hear each other."""
        for server in self.all:
            self._start(server)
            self._go_on(server)
            self._join(server)

    def _start(self, server: Server) -> None:
        server.up = True
        self._recovered()

    def _go_on(self, server: Server) -> None:
        if server.stopped:
            server.stopped = False
            self._back(server)
            waiting, server.waiting = server.waiting, []
            for what, args in waiting:
                what(*args)

    def _join(self, server: Server) -> None:
        if server.apart:
            server.apart = False
            self._back(server)

    def _back(self, server: Server) -> None:
        """Whom others have overtaken it hears only after a while."""
        for stream in self.streams.values():
            if stream.copies[server.number].leads and stream.leader is not server:
                self.felt["leaders overtaken"] += 1
                at(self.random.uniform(*OVERTAKEN_S), self._follow_of, stream, server)
        self._recovered()

    def _recovered(self) -> None:
        for stream in self.streams.values():
            if stream.is_led:
                stream.replicated = None
                self._commit(stream)

    # -- who leads -------------------------------------------------------------------------------------------

    def _trouble(self, server: Server) -> None:
        for stream in self.streams.values():
            if stream.leader is server:
                if stream.replicated is None:
                    stream.replicated = self.random.randint(0, len(stream.pending))
                at(self.random.uniform(*ELECTION_S), self._elect, stream, stream.term)

    def _elect(self, stream: Stream, term: int) -> None:
        if term != stream.term or stream.is_led:
            return
        able = [server for server in self.all if server.is_well]
        if len(able) * 2 <= len(self.all):
            at(self.random.uniform(0.5, 2), self._elect, stream, term)
            return
        if stream.leader is not None and stream.copies[stream.leader.number].leads:
            self._overtake(stream, stream.leader)
        stream.term += 1
        stream.leader = new = self.random.choice(able)
        copy = stream.copies[new.number]
        self._follow(copy)
        copy.leads = True
        there = stream.pending[: stream.replicated]
        stream.pending, stream.replicated = [], None
        for proposal in there:
            self.felt["writes committed by the next leader"] += 1
            stream.keep(proposal.messages)

    def _overtake(self, stream: Stream, old: Server) -> None:
        copy = stream.copies[old.number]
        copy.old = len(stream.kept)
        if old.apart:
            at(self.random.uniform(*CUT_OFF_S), self._follow_of, stream, old)

    def _follow_of(self, stream: Stream, server: Server) -> None:
        if stream.leader is not server and not server.stopped:
            self._follow(stream.copies[server.number])

    def _follow(self, copy: Copy) -> None:
        copy.leads, copy.old = False, None
        copy.in_flight.clear()
        copy.batches.clear()

    # -- messages --------------------------------------------------------------------------------------------

    def arrive(self, server: Server, sent: Sent) -> None:
        """A client's message has come to its server."""
        if not server.up:
            return
        if server.stopped:
            self._waits(server, self.arrive, server, sent)
        elif sent.subject.startswith("$JS.API."):
            self._api(server, sent)
        elif (stream := self.stream_of(sent.subject)) is not None:
            leading = [other for other in self.all if other.up and stream.copies[other.number].leads and server.hears(other)]
            if not leading:
                self.felt["writes that found no leader"] += 1
                self.answer(server, sent, b"", {"Status": "503"})
            for other in leading:
                self._pass(server, other, self._write, stream, sent)

    def _pass(self, server: Server, other: Server, what: Callable[..., None], stream: Stream, sent: Sent) -> None:
        if other is server:
            what(other, stream, sent)
        else:
            now = asyncio.get_running_loop().time()
            route = (server.number, other.number)  # what is sent stays in order
            self._arrivals[route] = max(self._arrivals.get(route, 0) + 1e-6, now + self.random.uniform(*HOP_S))
            at(self._arrivals[route] - now, self._routed, other, what, stream, sent)

    def _routed(self, server: Server, what: Callable[..., None], stream: Stream, sent: Sent) -> None:
        if server.stopped:
            self._waits(server, self._routed, server, what, stream, sent)
        elif server.up and stream.copies[server.number].leads:
            what(server, stream, sent)

    def _waits(self, server: Server, what: Callable[..., None], *args: Any) -> None:
        self.felt["messages to a server that stood still"] += 1
        server.waiting.append((what, args))

    def answer(self, server: Server, sent: Sent, payload: bytes, headers: dict[str, str] | None = None) -> None:
        """Send an answer, if there is a way."""
        if sent.reply:
            at(self.random.uniform(*HOP_S), self._answered, server, sent, payload, headers)

    def _answered(self, server: Server, sent: Sent, payload: bytes, headers: dict[str, str] | None) -> None:
        theirs = sent.client.server
        if theirs is not None and theirs.up and not theirs.stopped and server.up and not server.stopped and server.hears(theirs):
            sent.client.deliver(sent.reply, payload, headers)

    def refuse(self, server: Server, sent: Sent, code: int, text: str = "", *, status: int = 400) -> None:
        """Answer with an error."""
        error = {"code": status, "err_code": code, "description": text or _ERRORS[code]}
        self.answer(server, sent, msgspec.json.encode({"error": error}))

    # -- writes ----------------------------------------------------------------------------------------------

    def _write(self, server: Server, stream: Stream, sent: Sent) -> None:
        copy = stream.copies[server.number]
        is_old = stream.leader is not server
        if is_old:
            self.felt["writes to an old leader"] += 1
        messages = self._staged(server, copy, sent)
        if messages is None:
            return
        for message in messages:
            expected = header(message.headers, "Nats-Expected-Last-Subject-Sequence")
            if expected is None:
                continue
            subject = header(message.headers, "Nats-Expected-Last-Subject-Sequence-Subject") or message.subject
            if copy.in_flight[subject]:
                self._refused(server, sent, is_old, IN_FLIGHT)
                return
            last = stream.last_of(subject, copy)
            if last != int(expected):
                self._refused(server, sent, is_old, WRONG_SEQUENCE, f"wrong last sequence: {last}")
                return
        if is_old and (refusal := self.random.choice([None, None, NOT_LEADER, (503, NO_LEADER, _ERRORS[NO_LEADER])])) is not None:
            status, code, text = refusal
            self._refused(server, sent, is_old, code, text, status)
            return
        copy.in_flight.update(message.subject for message in messages)
        if not is_old:
            self._propose(server, copy, stream, messages)

    def _refused(self, server: Server, sent: Sent, is_old: bool, code: int, text: str = "", status: int = 400) -> None:
        if is_old:
            self.felt[f"refused by an old leader: {code}"] += 1
        self.refuse(server, sent, code, text, status=status)

    def _staged(self, server: Server, copy: Copy, sent: Sent) -> list[Sent] | None:
        """What is to be written now: a message, a batch that is complete, or nothing."""
        batch = header(sent.headers, "Nats-Batch-Id")
        if batch is None:
            return [sent]
        if header(sent.headers, "Nats-Batch-Sequence") == "1":
            copy.batches[batch] = []
            at(STAGED_S, copy.batches.pop, batch, None)
        staged = copy.batches.get(batch)
        if staged is None or header(sent.headers, "Nats-Batch-Sequence") != str(len(staged) + 1):
            copy.batches.pop(batch, None)
            if sent.reply:
                self.felt["batches whose beginning was lost"] += 1
                self.refuse(server, sent, INCOMPLETE_BATCH)
            return None
        staged.append(sent)
        if header(sent.headers, "Nats-Batch-Commit") is None:
            return None
        return copy.batches.pop(batch)

    def _propose(self, server: Server, copy: Copy, stream: Stream, messages: list[Sent]) -> None:
        stream.pending.append(Proposal(server, copy, messages))
        now = asyncio.get_running_loop().time()
        stream.last_commit_s = max(stream.last_commit_s, now + self.random.uniform(*COMMIT_S))
        at(stream.last_commit_s - now, self._commit, stream, 1)

    def _commit(self, stream: Stream, most: int | None = None) -> None:
        """The leader stores what another one has, and says so."""
        leader = stream.leader
        if leader is None or not stream.is_led or sum(server.is_well for server in self.all) * 2 <= len(self.all):
            return
        for _ in range(len(stream.pending) if most is None else min(most, len(stream.pending))):
            proposal = stream.pending.pop(0)
            last = stream.keep(proposal.messages)
            proposal.copy.in_flight.subtract(message.subject for message in proposal.messages)
            ack = {"stream": stream.config["name"], "seq": last}
            self.answer(leader, proposal.messages[-1], msgspec.json.encode(ack))

    # -- the API ---------------------------------------------------------------------------------------------

    def _api(self, server: Server, sent: Sent) -> None:
        path = sent.subject.removeprefix("$JS.API.")
        what, _, name = path.rpartition(".")
        stream = self.streams.get(name)
        if what == "STREAM.CREATE" and stream is None:
            stream = self._create(msgspec.json.decode(sent.payload))
        if stream is None:
            self.refuse(server, sent, NO_STREAM, status=404)
            return
        do = self._get if what == "STREAM.MSG.GET" else self._describe
        leading = [other for other in self.all if other.up and stream.copies[other.number].leads and server.hears(other)]
        if not leading and self.random.random() < 0.3:
            self.refuse(server, sent, NO_LEADER, status=503)
        for other in leading:
            self._pass(server, other, do, stream, sent)

    def _create(self, config: dict[str, Any]) -> Stream:
        stream = self.streams[config["name"]] = Stream(config, len(self.all))
        stream.leader = self.random.choice([server for server in self.all if server.is_well])
        stream.copies[stream.leader.number].leads = True
        self.stream_of.cache_clear()
        return stream

    def _describe(self, server: Server, stream: Stream, sent: Sent) -> None:
        wanted = msgspec.json.decode(sent.payload) if sent.payload else {}
        copy = stream.copies[server.number]
        state: dict[str, Any] = {"last_seq": stream.end_of(copy)}
        if (pattern := wanted.get("subjects_filter")) is not None:
            state["subjects"] = {one: 1 for one in stream.sequences if one.startswith(pattern.rstrip(">")) and stream.last_of(one, copy)}
        told = {"config": stream.config, "state": state, "total": len(state.get("subjects", ()))}
        self.answer(server, sent, msgspec.json.encode(told))

    def _get(self, server: Server, stream: Stream, sent: Sent) -> None:
        wanted, copy = msgspec.json.decode(sent.payload), stream.copies[server.number]
        if stream.leader is not server:
            self.felt["reads of an old leader"] += 1
        if "last_by_subj" in wanted:
            sequence = stream.last_of(wanted["last_by_subj"], copy)
        elif "next_by_subj" in wanted:
            sequence = stream.next_of(wanted["next_by_subj"], wanted["seq"], copy)
        else:
            sequence = wanted["seq"] if wanted["seq"] <= stream.end_of(copy) else 0
        if not sequence:
            self.refuse(server, sent, NO_MESSAGE, status=404)
            return
        kept = stream.kept[sequence - 1]
        message = {"subject": kept.subject, "seq": sequence, "data": base64.b64encode(kept.payload).decode()}
        if kept.headers:
            message["hdrs"] = base64.b64encode(kept.headers).decode()
        self.answer(server, sent, msgspec.json.encode({"message": message}))

    def _stream_of(self, subject: str) -> Stream | None:
        for stream in self.streams.values():
            if any(subject == one or (one.endswith(">") and subject.startswith(one[:-1])) for one in stream.config["subjects"]):
                return stream
        return None


@lru_cache(maxsize=100)
def _pattern(name: str) -> re.Pattern[bytes]:
    return re.compile(rb"\r\n%b: ?([^\r]*)" % name.encode())


def header(headers: bytes, name: str) -> str | None:
    """One of the headers of a message."""
    found = _pattern(name).search(headers)
    return None if found is None else found[1].decode()


def at(after_s: float, what: Callable[..., object], *args: Any) -> None:
    """Do something later, on nobody's behalf."""
    asyncio.get_running_loop().call_later(after_s, what, *args, context=Context())
