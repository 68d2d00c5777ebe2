"""Nodes that die at named points of our own code, each of them many times, while clients ask: all is judged as after any storm."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from functools import partial
from random import Random
from typing import Any

import pytest

from jidosystem import testing
from jidosystem.testing import ClusterNode, NatsOdds, TestCluster
from jidosystem.testing.nodes import NODE, on_its_way
from tests.faults.points import POINTS, armed, unsuspected
from tests.simulation.run import PATIENCE_S, hushed
from tests.simulation.storm import Storm, run

LEAST_SEEDS_A_HIT, MOST_SEEDS_A_HIT = 16, 20
"""Those that are left when every point has had its deaths go through all points again."""
ODDS = NatsOdds(unknown=0.08, refused=0.004, slow=0.01, slow_s=1.5)
"""Commits are often enough of unknown outcome for a node to die while it finds out."""
REACHED_S = 8.0
"""So long a point is waited for before the next one has its turn."""


class Crashes(Storm):
    """Every node that dies, dies at a point of the plan."""

    def __init__(self, plan: Iterable[str], *parts: Any) -> None:
        super().__init__(*parts)
        self._plan = deque(plan)
        self._armed, self._skip = "", 0
        self._hit = asyncio.Event()

    async def rage(self, seconds: float) -> None:
        end = self.there.loop.time() + seconds
        with armed(self.reached):
            while (left_s := end - self.there.loop.time()) > 0:
                self._armed, self._skip = self._plan[0], self.random.choice([0, 0, 1, 3, 10])
                self._plan.rotate(-1)
                self._hit.clear()
                try:
                    async with asyncio.timeout(min(left_s, REACHED_S)):
                        await self._hit.wait()
                except TimeoutError:
                    self.random.choice([self.leave, self.pause, self.no_leader])()
                self.there.check()
            self._armed = ""

    def reached(self, point: str) -> None:
        """Some node's code has come to a point: if it is the one, the node is dead, and what its code does within this step reaches nobody."""
        node = next((node for node in self.there.now.values() if node.process == NODE.get()), None)
        if point != self._armed or node is None:
            return
        if self._skip:
            self._skip -= 1
            return
        self._armed = ""
        self._die(node, point)
        self._hit.set()

    def _die(self, node: ClusterNode, point: str) -> None:
        now = self.there.loop.time()
        self.did[point] += 1
        self.recording.fault(point, node.process, start=now, end=now, effect="it died there")
        self.there.kill(node.name)
        node.ready.set()  # whoever waits for one that was only coming waits for the next
        on_its_way(self._own, self._come(node.name, self.random.uniform(0.5, 8)))  # not on behalf of the dead


def make(names: Iterable[str], **options: Any) -> TestCluster:
    return TestCluster(names, **(options | {"odds": ODDS}))


def one(seed: int, points: Sequence[str]) -> Counter[str]:
    """What nodes died of with a seed, of these points in some order. What fails says how to have it again."""
    plan = Random(f"plan {seed}").sample(points, len(points))
    try:
        with hushed(), unsuspected():
            return testing.run(run(seed, make, begin=partial(Crashes, plan)), patience_s=PATIENCE_S).did
    except BaseException as error:
        error.add_note(f"once more: tests.simulation.test_crash_points.one({seed}, {points!r})")
        raise


@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.torture)])
@pytest.mark.timeout(900)
def test_nodes_that_die_at_every_point_lose_nothing_and_do_nothing_twice(times: int) -> None:
    hits: Counter[str] = Counter()
    for seed in range(MOST_SEEDS_A_HIT * times):
        missing = [point for point in POINTS if hits[point] < times]
        if not missing and seed >= LEAST_SEEDS_A_HIT * times:
            return
        hits.update(one(seed, missing or [*POINTS]))
    assert not {point: hits[point] for point in POINTS if hits[point] < times}
