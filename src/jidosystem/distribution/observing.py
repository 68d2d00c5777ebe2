"""A node and the leases of the others: it reads them each second, declares dead what may be declared dead, and keeps the view.

Those that are known are read by their names, which costs a store least; a list is for those that aren't, and is made rarely, since every node
tells over the wire that it lives.

What follows from what was read is decided by `watching.py`; here are the store and the waiting. Nothing hangs on messages between nodes: they
say that it is time to look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from types import MappingProxyType

from ..core.errors import Conflict, RecordUnreadable, StoreError
from .holding import Bell, Now
from .lease_records import LeaseRecords
from .leases import Fact, Lease, LeaseTimes
from .members import MAX_VOID, Member, View, member_of
from .watching import Heard, Steady, Watched

MAX_LOOKS = 1_000
"""Names that wait to be looked at because somebody spoke of them; the list finds the others."""


@dataclass(slots=True)
class _Other:
    """What is known of another name: its lease, when that could last be read, and what the wire says."""

    watched: Watched
    lease: Lease | None  # None: vacant, or never readable
    heard: Heard
    left: bool = False
    asked: bool = False
    """Voiding it is under way."""


class Observer:
    """Watches the leases of all others. `view` is a value; `me` is the node's own entry in it."""

    def __init__(
        self, leases: LeaseRecords, name: str, times: LeaseTimes, now: Now, changed: Callable[[View], None], voided: Callable[[str, int], None]
    ) -> None:
        self.view = View()
        self.me: Member | None = None
        self.scanned = asyncio.Event()
        self._leases, self._name, self._times, self._now = leases, name, times, now
        self._changed, self._voided = changed, voided
        self._reads, self._writes, self._wire = (Steady(times.max_gap_s) for _ in range(3))
        self._others: dict[str, _Other] = {}
        self._void: dict[str, tuple[int, Member | None]] = {}  # by name: the tombstone's revision, and whom it ended
        self._to_look_at: dict[str, None] = {}
        self._bell = Bell()
        self._look_at = self._list_at = now()

    # -- what it is told -------------------------------------------------------------------------------------

    def wrote(self) -> None:
        """The store acknowledged a write of this node."""
        self._writes = self._writes.answered(self._now())

    def failed(self) -> None:
        """The store didn't answer, or not as it should: all clocks begin again."""
        self._reads, self._writes = self._reads.failed(), self._writes.failed()

    def wire_works(self) -> None:
        """A message that this node sent to all came back to it."""
        self._wire = self._wire.answered(self._now())

    def heard(self, name: str, incarnation: int, revision: int) -> None:
        """A node says that it lives, and at which revision its lease is."""
        other = self._others.get(name)
        if other is None or other.watched.incarnation < incarnation:
            if self._void.get(name, (0,))[0] < incarnation:
                self.look_at(name)
        elif other.watched.incarnation == incarnation:
            now = self._now()
            other.watched = other.watched.hint(revision, now)
            if other.heard.suspect(self._times, self._wire.since(now), now):
                self._bell.ring()
            other.heard = other.heard.beat(now)

    def ended(self, name: str, incarnation: int, *, left: bool) -> None:
        """Somebody says that a node is void; `left`: the node itself."""
        other = self._others.get(name)
        if other is not None and other.watched.incarnation == incarnation:
            other.left = other.left or left
            self.publish()  # a later life of it mustn't be all that is seen
            self.look_at(name)

    def unreachable(self, name: str, incarnation: int) -> None:
        """A message to a node reached nobody: suspicious, and worth a look."""
        other = self._others.get(name)
        if other is not None and other.watched.incarnation == incarnation and not other.heard.unreachable:
            other.heard = other.heard.missed()
            self.look_at(name)

    def look_at(self, name: str) -> None:
        """Read a lease at once."""
        if len(self._to_look_at) < MAX_LOOKS and name != self._name:
            self._to_look_at[name] = None
            self._bell.ring()

    def publish(self) -> None:
        """Make a view of what is known, and tell of it if it says something new."""
        now = self._now()
        wire_since = self._wire.since(now)
        nodes = {name: member for name, (_revision, member) in self._void.items() if member is not None}
        if self.me is not None:
            nodes[self._name] = self.me
        for name, other in self._others.items():
            if other.lease is not None:
                member = member_of(other.lease, other.watched.incarnation, suspect=other.heard.suspect(self._times, wire_since, now))
                nodes[name] = member._replace(draining=True) if other.left else member
        voided = {name: revision for name, (revision, _member) in self._void.items()}
        if nodes != self.view.nodes or voided != self.view.voided:
            self.view = View(self.view.number + 1, MappingProxyType(dict(sorted(nodes.items()))), MappingProxyType(voided))
            self._changed(self.view)

    # -- what it does ----------------------------------------------------------------------------------------

    async def watch_on(self) -> None:
        """Look each second, and when somebody says so; void what is due."""
        async with asyncio.TaskGroup() as voiding:
            while True:
                await self._look()
                self.publish()
                for name, other in self._others.items():
                    if self._due(other) <= self._now() and not other.asked:
                        other.asked = True
                        voiding.create_task(self._void_one(name, other))
                await self._bell.wait(self._next() - self._now())

    def _due(self, other: _Other) -> float:
        now = self._now()
        return other.watched.void_at(self._times, max(self._reads.since(now), self._writes.since(now)))

    def _next(self) -> float:
        return min([self._look_at, *(self._due(other) for other in self._others.values() if not other.asked)], default=inf)

    async def _look(self) -> None:
        now = self._now()
        if now >= self._list_at and await self._list():
            self._list_at = now + self._times.list_s
        if now >= self._look_at:
            self._look_at = now + self._times.renew_s
            self._to_look_at.update(dict.fromkeys(self._others))
        names = list(self._to_look_at)
        self._to_look_at.clear()
        await asyncio.gather(*map(self._look_up, names))

    async def _look_up(self, name: str) -> None:
        try:
            await self.read(name, vacate=name in self._others)
        except StoreError:
            return  # what follows from that is noted; one that can't be read is in the list, with its revision

    async def _list(self) -> bool:
        """Whether the store answered."""
        try:
            found = await self._leases.scan()
        except StoreError:
            self.failed()
            return False
        now = self._now()
        self._reads = self._reads.answered(now)
        for name, fact in found.items():
            self._take(name, fact, now)
        for name in self._others.keys() - found.keys():  # void, or missing in the list
            self._to_look_at[name] = None
        self.publish()
        self.scanned.set()
        return True

    async def read(self, name: str, *, vacate: bool) -> Fact:
        """Read one lease and take in what it says. Absence says nothing; `vacate`: put a vacant lease there, which runs out as any other."""
        try:
            fact = await self._leases.read(name)
        except RecordUnreadable:
            self._reads = self._reads.answered(self._now())  # an answer it is
            raise
        except StoreError:
            self.failed()
            raise
        if fact.revision == 0:
            if not vacate:
                return fact
            lease = Lease(name, vacant=True)
            try:
                fact = Fact(await self._leases.write(name, 0, lease), lease)
            except Conflict:  # the read was out of date, or somebody else put it
                return Fact(0)
        now = self._now()
        self._reads = self._reads.answered(now)
        self._take(name, fact, now)
        return fact

    def _take(self, name: str, fact: Fact, now: float) -> None:
        """Take in what was read of a lease; what is older than what is known changes nothing."""
        if name == self._name or fact.revision <= self._void.get(name, (0,))[0]:
            return
        other = self._others.get(name)
        if fact.tombstone:
            if other is None or fact.voids(other.watched.incarnation):
                self._bury(name, fact.revision)
        elif other is None:
            lease = None if fact.lease is None or fact.lease.vacant else fact.lease
            self._others[name] = _Other(Watched(fact.incarnation, fact.revision, now), lease, Heard(now))
        elif fact.revision > other.watched.revision:
            before, other.watched = other.watched, other.watched.seen(fact, now)
            if fact.lease is not None and not fact.lease.vacant:
                other.lease = fact.lease
            if other.watched.incarnation != before.incarnation:
                other.heard, other.left = Heard(now), False

    def _bury(self, name: str, revision: int) -> None:
        other = self._others.pop(name, None)
        member = None
        if other is not None and other.lease is not None:
            member = member_of(other.lease, other.watched.incarnation)
            member = member._replace(void=True, draining=member.draining or other.left)
        self._void.pop(name, None)
        self._void[name] = (revision, member)
        while len(self._void) > MAX_VOID:
            del self._void[next(iter(self._void))]

    async def _void_one(self, name: str, other: _Other) -> None:
        """Declare a node dead, if nobody has heard of it since."""
        try:
            revision = await self._leases.write(name, other.watched.revision, None)
        except Conflict:
            other.watched = other.watched.refused(self._now())
            self.look_at(name)
        except StoreError:
            self.failed()
        else:
            self._take(name, Fact(revision), self._now())
            self._voided(name, other.watched.incarnation)
        other.asked = False
        self._bell.ring()
