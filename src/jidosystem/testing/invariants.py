"""What must hold at every moment of a cluster: an agent is served by one node, and written by whoever claimed it last.

By what is really in the store, as it is written; nobody's view, and no clock, is believed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ..core.ids import split_address
from ..core.records import Record
from ..distribution.leases import LEASE_TYPE, fact_of
from ..runtime.head import Owner, decode_head
from .nats_model import SimulatedNats

SERVICE = "jido."
"""What the addresses of the platform's own records begin with; agents of its own types are claimed as others are, and aren't judged here."""


class Served(Protocol):
    """A node, as far as it is looked at here."""

    process: str

    def serving(self) -> Iterable[str]:
        """The agents that it would answer for now."""
        ...


class Invariants:
    """Watches a `SimulatedNats`. `broken` holds what didn't hold, in sentences; `claims` and `takeovers` count agents that were claimed, and
    those of them that had been another node's whose lease is void.
    """

    def __init__(self, nats: SimulatedNats) -> None:
        self.broken: list[str] = []
        self.claims = self.takeovers = 0
        self._owners: dict[str, Owner | None] = {}  # agent -> whose it is, by its record
        self._processes: dict[Owner, str] = {}  # which process created a lease
        self._void: dict[str, int] = {}  # node -> below this revision every incarnation is void
        nats.on_commit.append(self._wrote)

    def void_below(self, node: str) -> int:
        """Below this revision every incarnation of a node is void: it grows when the node is declared dead, leaves, or begins anew."""
        return self._void.get(node, 0)

    def check(self, nodes: Iterable[Served]) -> None:
        """Raise what didn't hold so far, and what doesn't now."""
        served: dict[str, str] = {}
        for node in nodes:
            for address in node.serving():
                other = served.setdefault(address, node.process)
                if other != node.process:
                    self.broken.append(f"{address} is live and served on {other} and on {node.process}")
        if self.broken:
            raise AssertionError("\n".join(self.broken[:10]))

    # -- what is written -------------------------------------------------------------------------------------

    def _wrote(self, process: str, record: Record) -> None:
        kind, name = split_address(record.agent)
        if kind == LEASE_TYPE:
            self._lease(process, name, record)
        elif not kind.startswith(SERVICE):
            self._agent(process, record)

    def _lease(self, process: str, name: str, record: Record) -> None:
        fact = fact_of(record)
        void = fact.revision if fact.tombstone else fact.incarnation
        self._void[name] = max(self._void.get(name, 0), void)
        if fact.lease is not None and not fact.lease.vacant and not fact.lease.incarnation:
            self._processes[Owner(name, record.revision)] = process

    def _agent(self, process: str, record: Record) -> None:
        before = self._owners.get(record.agent)
        after = None if record.head is None else decode_head(record.head, record.agent).owner
        self._owners[record.agent] = after
        writer = self._processes.get(before) if before is not None else None
        if after is not None and after != before:
            self.claims += 1
            if self._processes.get(after) != process:
                self._tell(f"{process} wrote {record.agent} (revision {record.revision}) for {after}")
            if before is not None and before.node == after.node and before.incarnation > after.incarnation:
                self._tell(f"{after} claimed {record.agent} (revision {record.revision}) after {before}")
            if before is not None and writer != process:
                self.takeovers += 1
                if self._void.get(before.node, 0) <= before.incarnation:
                    self._tell(f"{after} claimed {record.agent} (revision {record.revision}) over {before}, which isn't void")
        elif before is not None and writer != process and self._void.get(before.node, 0) <= before.incarnation:
            self._tell(f"{process} wrote {record.agent} (revision {record.revision}), which is {before}'s")

    def _tell(self, what: str) -> None:
        self.broken.append(what)
