"""Builds that are broken on purpose: a bounded number of seeds finds each. What is wrong with them is put in here; the product has no such option."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from jidosystem import testing
from jidosystem.core.errors import Conflict, StoreError
from jidosystem.core.events import Event
from jidosystem.core.records import Committed, Record, Records, Row, Settled
from jidosystem.runtime.host import Host
from jidosystem.runtime.ownership import Claim, Ownership, claimed, decide, owner_of
from jidosystem.testing import ClusterNode, SimulatedRecords, TestCluster
from tests.simulation.run import PATIENCE_S, hushed
from tests.simulation.storm import run

SEEDS = 16
"""So many at most are needed to find a defect."""
SLOW_S = 0.5
"""So long a blind claim takes from its read to its write, which does no harm where the write is compared."""


class BlindOwnership(Ownership):
    """Claims what it has read, whatever was written since."""

    async def _claim(self, host: Host, address: str) -> Record:
        await self.cluster.wait_serving()
        record = await self._node.records.read(address)
        owner, me = owner_of(record), self.cluster.owner
        if owner is None:
            self._check_place(host, address, owner, record)
        elif decide(owner, me, self.cluster.view) is not Claim.TAKE:
            return await super()._claim(host, address)
        await asyncio.sleep(SLOW_S)
        head, revision = claimed(host.type.version, record, me), 0 if record is None else record.revision
        while True:
            try:
                return Record(address, (await self._node.records.commit(address, revision, head)).revision, head)
            except Conflict:
                now = await self._node.records.read(address)
                revision = 0 if now is None else now.revision


class BlindNode(ClusterNode):
    """Has no compare-and-set in its claims."""

    def _join(self, node: Any, *parts: Any) -> Any:
        joined = super()._join(node, *parts)
        node.ownership = BlindOwnership(node, joined)
        return joined


class LaxNode(ClusterNode):
    """Takes its lease for good, and doesn't hear that it was lost."""

    def _join(self, node: Any, *parts: Any) -> Any:
        joined = super()._join(node, *parts)
        joined.may_serve = lambda: joined.membership.incarnation > 0
        return joined


class HastyRecords(SimulatedRecords):
    """Says that a commit is durable as soon as it was sent."""

    def submit(
        self, agent: str, expected: int, head: bytes | None, rows: Sequence[Row], events: Sequence[Event], settled: Settled
    ) -> Committed | None:
        self.commit(agent, expected, head, rows, events).add_done_callback(lambda done: done.exception())
        return Committed(expected + 1, ())


class ForgetfulRecords(SimulatedRecords):
    """Doesn't know again what was delivered before, nor idempotency keys."""

    def read_row(self, agent: str, kind: str, name: str) -> Future[bytes | None]:
        return super().read_row(agent, "forgotten" if kind in ("from", "sub", "key") else kind, name)


class BlindCluster(TestCluster):
    node_class = BlindNode


class LaxCluster(TestCluster):
    node_class = LaxNode


class HastyCluster(TestCluster):
    def open_records(self, node: ClusterNode) -> Records:
        return HastyRecords(self.nats, node.process)


class ForgetfulCluster(TestCluster):
    def open_records(self, node: ClusterNode) -> Records:
        return ForgetfulRecords(self.nats, node.process)


BUILDS = [BlindCluster, LaxCluster, HastyCluster, ForgetfulCluster]


@pytest.mark.parametrize("build", BUILDS)
def test_a_broken_build_is_found_by_few_seeds(build: Callable[..., TestCluster]) -> None:
    assert any(_found(build, seed) for seed in range(SEEDS))


def _found(build: Callable[..., TestCluster], seed: int) -> str:
    """What is wrong with a build, if a seed shows it."""
    with hushed():
        try:
            testing.run(run(seed, build), patience_s=PATIENCE_S)
        except AssertionError as wrong:
            return str(wrong) or "wrong"
        except StoreError as wrong:
            return str(wrong)
    return ""
