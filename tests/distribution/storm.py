"""A seeded storm over a cluster: nodes are killed, paused, cut off and started again, the store goes away, answers late, stale or not at all.

After every step of time the promises of membership are checked against what the store says, which the nodes never see whole.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random

from jidosystem.core.errors import NodeNameTaken, ShuttingDown, StoreError
from jidosystem.distribution.leases import fact_of
from jidosystem.testing import StoreFaults, VirtualLoop
from tests.distribution.cluster import TIMES, Cluster, Node

CALM_S = 12.0


class Storm:
    """What happens, drawn from a seed; `did` counts it."""

    def __init__(self, there: Cluster, seed: int) -> None:
        self.there, self.random = there, Random(f"storm {seed}")
        self.did: Counter[str] = Counter()
        self.voided: dict[str, int] = {}
        """By name the revision below which every incarnation is known to be void in the store."""
        self._looked: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._paused_until: dict[Node, float] = {}
        there.when_lost = self.lost

    # -- what happens ----------------------------------------------------------------------------------------

    async def rage(self, seconds: float) -> None:
        """Let things happen for so long, each beside the others, and check all the while."""
        loop, until = self.there.loop, self.there.loop.time() + seconds
        what: list[Callable[[], None]] = [
            self.kill,
            self.pause,
            self.pause,
            self.cut_off,
            self.stale,
            self.outage,
            self.unlucky,
            self.deaf,
            self.leave,
        ]
        next_at = loop.time()
        while loop.time() < until:
            if loop.time() >= next_at:
                next_at = loop.time() + self.random.expovariate(0.5)
                self.random.choice(what)()
                self.later(next_at - loop.time(), lambda: None)
            await loop.moved()
            await loop.idle()
            self.check()

    def later(self, delay_s: float, what: Callable[[], object]) -> None:
        self.there.loop.call_later(delay_s, what)

    def some(self) -> Node | None:
        up = [node for node in self.there.living() if node not in self._paused_until]
        return self.random.choice(up) if up else None

    def kill(self) -> None:
        node = self.some()
        if node is not None and len(self.there.living()) > 1:
            self.did["killed"] += 1
            node.kill()
            self.later(self.random.random() * 8, lambda: self.start(node.name, node.rate))

    def start(self, name: str, rate: float) -> None:
        """A new process under an old name."""
        if self.there.now[name].dead:
            self.join(self.there.add(name, rate=rate))

    def join(self, node: Node) -> None:
        task = self.there.nodes.start(node.process, self._join(node))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self, node: Node) -> None:
        while not node.dead:
            try:
                await node.membership.join(timeout_s=3.0)
            except (StoreError, NodeNameTaken, ShuttingDown) as error:
                self.did[type(error).__name__] += 1
                await asyncio.sleep(0.5)
            else:
                return

    def lost(self, node: Node) -> None:
        """A node that lost its lease joins again."""
        self.did["lost"] += 1
        self.later(self.random.random(), lambda: None if node.dead else self.join(node))

    def pause(self) -> None:
        node = self.some()
        if node is not None:
            self.did["paused"] += 1
            lasts_s = self.random.choice([0.3, 0.7, 2.0, 4.0, 12.0]) * (0.5 + self.random.random())
            node.pause()
            self._paused_until[node] = self.there.loop.time() + lasts_s
            self.later(lasts_s, lambda: self.resume(node))

    def resume(self, node: Node) -> None:
        self._paused_until.pop(node, None)
        if not node.dead:
            node.resume()

    def cut_off(self) -> None:
        node = self.some()
        if node is not None:
            self.did["cut off from the store"] += 1
            node.records.silent = True
            self.later(self.random.random() * 10, lambda: setattr(node.records, "silent", False))

    def stale(self) -> None:
        node = self.some()
        if node is not None:
            self.did["stale reads"] += 1
            self._tasks.add(task := asyncio.ensure_future(node.records.freeze()))
            task.add_done_callback(self._tasks.discard)
            self.later(self.random.random() * 20, lambda: setattr(node.records, "stale", None))

    def outage(self) -> None:
        """The store is away for all; in half of the cases what was written meanwhile arrives when it is back."""
        lasts_s, late = self.random.random() * 9, self.random.random() < 0.5
        self.did["outage with late writes" if late else "outage"] += 1
        for node in self.there.ever:
            if late and node.records.held is None:
                node.records.held = []
                self.later(lasts_s, lambda node=node: node.records.let_go(self.random))  # type: ignore[misc]
            elif not late:
                node.records.silent = True
                self.later(lasts_s, lambda node=node: setattr(node.records, "silent", False))  # type: ignore[misc]

    def unlucky(self) -> None:
        node = self.some()
        if node is not None:
            self.did["unlucky commits"] += 1
            node.faults.store = StoreFaults(fail=0.1, unknown=0.2, slow=0.3, slow_s=6.0, read_fail=0.1)
            node.faults.start()
            self.later(self.random.random() * 10, node.faults.stop)

    def deaf(self) -> None:
        one, other = self.random.choice(self.there.ever).process, self.random.choice(self.there.ever).process
        self.did["deaf"] += 1
        self.there.nodes.cut.add((one, other))
        self.later(self.random.random() * 10, lambda: self.there.nodes.cut.discard((one, other)))

    def leave(self) -> None:
        node = self.some()
        if node is not None and len(self.there.living()) > 1:
            self.did["left"] += 1
            node.dead = True  # nothing is expected of it any more
            task = self.there.nodes.start(node.process, self._leave(node))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _leave(self, node: Node) -> None:
        await node.membership.leave()
        self.later(self.random.random() * 3, lambda: self.start(node.name, node.rate))

    # -- what must hold --------------------------------------------------------------------------------------

    def check(self) -> None:
        """After every step: who may serve isn't void, is alone under its name, and no view says of anybody what the store doesn't."""
        for name in self.there.now:
            record = self.there.records.read(f"jido.node/{name}").result()
            if record is not None and record.revision != self._looked.get(name):
                self._looked[name] = record.revision
                fact = fact_of(record)
                self.voided[name] = max(self.voided.get(name, 0), fact.revision if fact.tombstone else fact.incarnation)
        serving: Counter[str] = Counter()
        for node in self.there.ever:
            membership = node.membership
            if membership.may_serve():
                serving[node.name] += 1
                assert membership.incarnation >= self.voided.get(node.name, 0), f"{node.process} may serve as {membership.incarnation} and is void"
            for member in membership.view.nodes.values():
                if member.void:
                    assert self.voided.get(member.name, 0) >= member.incarnation, f"{node.process} takes {member.name} for void"
        assert all(count == 1 for count in serving.values()), f"two of one name may serve: {serving}"

    async def calm(self) -> None:
        """No more faults; after a while everybody lives, serves, and sees the same."""
        for node in list(self._paused_until):
            self.resume(node)
        for node in self.there.ever:
            node.faults.stop()
            node.records.silent, node.records.stale = False, None
            node.records.let_go(self.random)
        self.there.nodes.cut.clear()
        until = self.there.loop.time() + CALM_S + 10  # what was under way, a late start among it, then a joining
        while self.there.loop.time() < until:
            await self.there.loop.moved()
            await self.there.loop.idle()
            self.check()
        for node in self.there.living():
            assert node.membership.may_serve(), f"{node.process} doesn't serve again"
            for other in self.there.living():
                seen = node.membership.view.get(other.name)
                assert seen is not None and seen.state.value == "alive", f"{node.process} sees {seen}"
                assert seen.incarnation == other.membership.incarnation
            for dead in self.there.ever:
                if dead.dead and dead.membership.incarnation:
                    assert node.membership.view.is_void(dead.name, dead.membership.incarnation)

    async def one_more_death(self) -> None:
        """In a calm: who dies is known to be dead by all in time."""
        node = self.random.choice(self.there.living())
        node.kill()
        slowest = min(one.rate for one in self.there.living())
        name, incarnation = node.name, node.membership.incarnation
        await self.there.until(
            lambda: all(one.membership.view.is_void(name, incarnation) for one in self.there.living()),
            (TIMES.lease_s + TIMES.renew_s) / slowest + 0.1,
        )

    async def end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        self.there.nodes.end()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def start(seed: int, skew: float) -> tuple[Cluster, Storm]:
    """A cluster of three to five nodes whose clocks run so much faster and slower than they ought to, and its storm."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    there = Cluster(loop, seed)
    storm = Storm(there, seed)
    for name in "abcde"[: storm.random.randint(3, 5)]:
        node = there.add(name, rate=1 + storm.random.uniform(-skew, skew))
        await node.join()
    return there, storm
