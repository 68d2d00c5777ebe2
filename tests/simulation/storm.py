"""A storm over whole platforms, driven by a seed: what happens to nodes, store and wire, and how it is judged when it is over."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter as Count
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import msgspec

from jidosystem import errors
from jidosystem.runtime.recovery import LOOK_EVERY_S
from jidosystem.testing import (
    ClusterNode,
    History,
    NatsOdds,
    Recording,
    TestCluster,
    WireFaults,
    check_bank,
    check_counters,
    check_exercised,
    check_registers,
)
from tests.simulation.clients import Clients
from tests.simulation.world import ACCOUNTS, AGENTS, OPENING, Account, Bell, Counter, Emitter, Listener, Register

RAGE_S = 60.0
REST_S = 300.0
ANSWER_S = 5.0
"""After which a node gives up a commit."""
SEEN_S = 6.0
"""So long after a fault is over something shows whether it was felt."""
VOID_S = 15.0
"""Likewise whether a node was declared dead, or began anew: its lease runs out meanwhile, unless the store is away."""
LEAST_FELT = 0.5
"""How many of a run's faults must have been felt."""
LEAST_DONE = 60
"""So many operations must have succeeded. A storm that let fewer through, one in sixty does, rages on for `MORE_S`, `MOST_MORE` times at most."""
MORE_S, MOST_MORE = 10.0, 12
EVERY_S = 2.0
"""Between two things that happen, on the average."""
ODDS = NatsOdds(unknown=0.004, refused=0.004, read_fail=0.004, slow=0.01, slow_s=1.5)
WIRE = WireFaults(lost=0.004, delayed=0.03, delay_s=0.3)
CONFIG = {"agents.default_timeout": 10}
Options = dict[str, Any]


class Outcome(NamedTuple):
    """What a run was: `digest` of its whole history, what was done to it, what of it was felt, how many operations succeeded, how many takeovers."""

    digest: str
    did: Count[str]
    felt: Count[str]
    operations: int
    takeovers: int


class Fault:
    """One that was begun; `sign` counts what shows that it is felt."""

    def __init__(self, kind: str, target: str, start: float, end: float, sign: Callable[[], int]) -> None:
        self.kind, self.target, self.start, self.end, self._sign, self._before = kind, target, start, end, sign, sign()
        self.seen: int | None = None

    def look(self) -> None:
        """Whether it was felt, before others come that are felt too."""
        if self.seen is None:
            self.seen = self._sign() - self._before


class Storm:
    """What happens; `did` counts it, and `felt` what of it was felt."""

    def __init__(self, there: TestCluster, seed: int, recording: Recording) -> None:
        self.there, self.recording = there, recording
        self.random = Random(f"storm {seed}")
        self.did: Count[str] = Count()
        self.felt: Count[str] = Count()
        self._faults: list[Fault] = []
        self._raging = True
        self._tasks: set[asyncio.Task[None]] = set()
        self._still: set[str] = set()  # who stands still, or is coming or leaving

    async def rage(self, seconds: float) -> None:
        """Let things happen for so long, each beside the others."""
        loop, end = self.there.loop, self.there.loop.time() + seconds
        what: list[Callable[[], None]] = [
            self.kill,
            self.pause,
            self.pause,
            self.deaf,
            self.deaf,
            self.cut_off,
            self.old_leader,
            self.no_leader,
            self.silence,
            self.disk,
            self.leave,
        ]
        while loop.time() < end:
            await asyncio.sleep(min(self.random.expovariate(1 / EVERY_S), end - loop.time()))
            self.there.check()
            if loop.time() < end:
                self.random.choice(what)()
        self._raging = False

    async def calm(self) -> None:
        """No more faults, and all nodes there."""
        self._raging = False
        self.there.heal()
        await asyncio.gather(*self._tasks)
        self.there.heal()
        for fault in self._faults:
            fault.look()
            self.felt[fault.kind] += bool(fault.seen)
            effect = f"seen {fault.seen} times" if fault.seen else ""
            self.recording.fault(fault.kind, fault.target, start=fault.start, end=fault.end, effect=effect)

    def _fault(self, kind: str, seconds: float, target: str, sign: Callable[[], int], seen_s: float = SEEN_S) -> None:
        loop, now = self.there.loop, self.there.loop.time()
        self.did[kind] += 1
        self._faults.append(fault := Fault(kind, target, now, now + seconds, sign))
        loop.call_at(fault.end + seen_s, fault.look)

    def _end_of(self, kind: str, node: ClusterNode, seconds: float = 0.0) -> None:
        """A fault that ends a node, as the others see it."""
        self._fault(kind, seconds, node.process, lambda: self.there.invariants.void_below(node.name), VOID_S)

    def _of_store(self, what: str, node: ClusterNode | None = None) -> Callable[[], int]:
        return lambda: self.there.nats.felt[what, "" if node is None else node.process]

    def _some(self) -> ClusterNode | None:
        """A node that runs, while others do."""
        nodes = [node for node in self.there.now.values() if node.ready.is_set() and node.name not in self._still]
        return self.random.choice(nodes) if len(nodes) > 1 else None

    def _own(self, work: Any) -> None:
        self._tasks.add(task := asyncio.ensure_future(work))
        task.add_done_callback(lambda done: self._tasks.discard(done) if not done.cancelled() and done.exception() is None else None)

    # -- nodes -----------------------------------------------------------------------------------------------

    def kill(self) -> None:
        node = self._some()
        if node is not None:
            self._end_of("kill", node)
            self.there.kill(node.name)
            self._own(self._come(node.name, self.random.uniform(0.5, 12)))

    async def _come(self, name: str, after_s: float) -> None:
        """A process of an old name, until one has come to live."""
        self._still.add(name)
        await asyncio.sleep(after_s)
        while True:
            node = self.there.begin(name)
            ready = asyncio.ensure_future(node.ready.wait())
            await asyncio.wait([ready, node.life], return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            if not node.life.done():
                break
            self.there.now.pop(name)
            error = node.life.exception()
            if not isinstance(error, errors.StoreError | errors.NodeNameTaken | errors.ShuttingDown):
                raise error or AssertionError("a node has ended by itself")
            self.there.ever.remove(node)
            self.felt["start failed"] += 1
            self.did["start failed"] += 1
            await asyncio.sleep(1)
        self._still.discard(name)

    def pause(self) -> None:
        node = self._some()
        if node is not None:
            lasts_s = self.random.choice([0.4, 1.0, 2.6, 5.0, 15.0]) * self.random.uniform(0.7, 1.3)
            if lasts_s > 3:
                self._end_of("long pause", node, lasts_s)
            else:
                self._fault("pause", lasts_s, node.process, lambda: self.there.nodes.missed[node.process])
            self._still.add(node.name)
            self.there.nodes.pause(node.process)
            self._own(self._resume(node, lasts_s))

    async def _resume(self, node: ClusterNode, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self.there.nodes.resume(node.process)
        self._still.discard(node.name)

    def leave(self) -> None:
        node = self._some()
        if node is not None:
            self._end_of("leave", node)
            self._own(self._leave(node.name))

    async def _leave(self, name: str) -> None:
        self._still.add(name)
        await self.there.leave(name)
        await self._come(name, self.random.uniform(0.1, 4))

    # -- the ways between them -------------------------------------------------------------------------------

    def deaf(self) -> None:
        one, other = self._some(), self._some()
        if one is not None and other is not None and one is not other:
            both = self.random.random() < 0.5
            lasts_s = self.random.uniform(0.5, 10)
            ends = [(one.process, other.process)] + [(other.process, one.process)] * both
            target = f"{one.process} to {other.process}"
            self._fault("partition" if both else "one-way cut", lasts_s, target, lambda: sum(self.there.nodes.missed[way] for way in ends))
            self.there.nodes.cut.update(ends)
            self.there.loop.call_later(lasts_s, self.there.nodes.cut.difference_update, ends)

    # -- the store -------------------------------------------------------------------------------------------

    def cut_off(self) -> None:
        node = self._some()
        if node is not None:
            lasts_s = self.random.uniform(0.5, 12)
            self._fault("cut off from the store", lasts_s, node.process, self._of_store("cut", node))
            self.there.cut_off(node.name, lasts_s)

    def old_leader(self) -> None:
        node = self._some()
        if node is not None:
            lasts_s = self.random.uniform(1, 25)
            self._fault("old leader", lasts_s, node.process, self._of_store("cut_with_old_leader", node))
            self.there.cut_off(node.name, lasts_s, old_leader=True)

    def no_leader(self) -> None:
        sign = self._of_store("lose_leader")
        self._fault("no leader", self.there.nats.lose_leader(), "", sign)

    def silence(self) -> None:
        node = self._some()
        if node is not None:
            self._fault("silence", 19.5, node.process, self._of_store("silence", node))
            self.there.nats.silence(node.process)

    def disk(self) -> None:
        lasts_s = self.random.uniform(0.5, 5)
        how = self.random.choice(["slow", "failing", "full"])
        self._fault(f"disk {how}", lasts_s, "", self._of_store("disk"))
        if how == "slow":
            self.there.nats.slow_disk(lasts_s, 2.0)
        else:
            self.there.nats.fail_disk(lasts_s, full=how == "full")


# -- a run -------------------------------------------------------------------------------------------------------


async def run(seed: int, make: Callable[..., TestCluster] = TestCluster, *, rage_s: float = RAGE_S, begin: Callable[..., Storm] = Storm) -> Outcome:
    """One seed, judged: `AssertionError` says what was wrong. `make` and `begin`: another cluster, another storm."""
    names = "abcde"[: Random(f"size {seed}").randint(3, 5)]
    recording = Recording()
    async with make(names, agents=AGENTS, seed=seed, odds=ODDS, wire=WIRE, config=CONFIG, checking=False) as there:
        storm, clients = begin(there, seed, recording), Clients(there, seed, recording)
        try:
            await storm.rage(rage_s)
            for _ in range(MOST_MORE):
                if _succeeded(recording.history()) >= LEAST_DONE:
                    break
                await storm.rage(MORE_S)
            await storm.calm()
            await clients.end()
            await there.pass_time(ANSWER_S + ODDS.late_s + LOOK_EVERY_S)  # so late is stored what the dead had sent, and then it is found
            await there.at_rest(REST_S)
            judge(recording.history(), await look(there))
        except BaseException:
            clients.cancel()
            raise
        history = recording.history()
        return Outcome(digest(history, there), storm.did, storm.felt, _succeeded(history), there.invariants.takeovers)


def _succeeded(history: History) -> int:
    return sum(one.outcome == "ok" for one in history.operations)


def digest(history: History, there: TestCluster) -> str:
    """One word for all that happened."""
    told = msgspec.json.encode([list(map(str, history.operations)), list(map(str, history.faults)), list(there.nats.journal)])
    return hashlib.sha256(told).hexdigest()[:16]


class Seen(NamedTuple):
    """What is there at the end."""

    registers: dict[str, Any]
    counters: dict[str, int]
    balances: dict[str, int]
    said: dict[str, list[str]]
    heard: dict[str, list[str]]
    rung: dict[str, list[str]]
    log: list[tuple[str, str]]


async def look(there: TestCluster) -> Seen:
    """Ask every node for everything: all say the same."""
    told = [await there.at(node, _look(node)) for node in list(there.now.values())]
    assert all(one == told[0] for one in told), "nodes disagree about what there is"
    log = [(event.data["to"], event.data["word"]) async for page in there.nats.store.events.read() for event in page if event.type == "storm.said"]
    return told[0]._replace(log=log)


async def _look(node: ClusterNode) -> Seen:
    return Seen(
        {key: await node.agent(Register, key).read() for key in ("r0", "r1", "r2")},
        {key: await node.agent(Counter, key).read() for key in ("c0", "c1")},
        {f"a{n}": await node.agent(Account, f"a{n}").holds() for n in range(ACCOUNTS)},
        {key: await node.agent(Emitter, key).words() for key in ("e0", "e1")},
        {key: await node.agent(Listener, key).words() for key in ("e0", "e1")},
        {key: await node.agent(Bell, key).names() for key in ("b0", "b1")},
        [],
    )


def judge(history: History, seen: Seen) -> None:
    """All checkers, and what must be there at the end."""
    end = Recording(clock=lambda: max(operation.end for operation in history.operations if operation.end < float("inf")) + 1)
    for key, value in seen.registers.items():
        end.ask("the end", "read", key).ok(value)
    for key, total in seen.counters.items():
        end.ask("the end", "read", key).ok(total)
    end.ask("the end", "snapshot", "bank").ok(seen.balances)
    whole = History([*history.operations, *end.history().operations], history.faults)
    verdicts = [
        check_registers(whole.where(lambda one: one.key in seen.registers), initial=""),
        check_counters(whole.where(lambda one: one.key in seen.counters)),
        check_bank(whole, total=ACCOUNTS * OPENING),
    ]
    wrong = [str(verdict) for verdict in verdicts if not verdict]
    wrong += _told_apart(history, "say", seen.said) + _told_apart(history, "ring", seen.rung)
    for key, said in seen.said.items():
        logged = [word for to, word in seen.log if to == key]
        if logged != said:
            wrong.append(f"{key} said {said}, and the log has {logged}")
        if seen.heard[key] != logged:
            wrong.append(f"the log has {logged} of {key}, and its listener has heard {seen.heard[key]}")
    exercised = check_exercised(history, operations=LEAST_DONE, faults={})
    if not exercised:
        wrong.append(str(exercised))
    felt = sum(bool(fault.effect) for fault in history.faults)
    if felt < max(1, LEAST_FELT * len(history.faults)):
        wrong.append(f"of {len(history.faults)} faults {felt} were felt")
    assert not wrong, "\n".join(wrong)


def _told_apart(history: History, kind: str, there: dict[str, list[str]]) -> list[str]:
    """What was acknowledged is there once, what failed isn't, the rest at most once."""
    wrong: list[str] = []
    for key, words in there.items():
        for operation in history.of_kinds(kind).get(key, []):
            count = words.count(operation.argument)
            allowed = {"ok": (1,), "failed": (0,), "unknown": (0, 1)}[operation.outcome]
            if count not in allowed:
                wrong.append(f"{operation} is there {count} times")
    return wrong
