"""A node and its own lease: it takes it, renews it, gives it up, or finds that it was taken.

What may be concluded is `leases.Owner`'s business; here are the clock, the store and the waiting.
"""

from __future__ import annotations

import asyncio
from asyncio import Future, TimerHandle
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any, Protocol

from msgspec.structs import replace as with_fields

from ..core.errors import CommitUnknown, Conflict, NodeNameTaken, ShuttingDown, StoreError, StoreUnavailable
from .lease_records import LeaseRecords
from .leases import Fact, Lease, LeaseTimes, Owner, granted
from .watching import Steady, Watched

Now = Callable[[], float]
LEAST_WAIT_S = 0.001
"""A timer may be early by what its clock can't tell apart: whoever then waited for the rest would go round without end."""


class Bell:
    """Wakes one who waits, before their time. A ring that nobody waits for is kept."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake whoever waits, or will."""
        self._rung.set()

    async def wait(self, seconds: float) -> None:
        """Wait so long, or until it rings."""
        timer = asyncio.get_running_loop().call_later(max(LEAST_WAIT_S, seconds), self._rung.set)
        try:
            await self._rung.wait()
        finally:
            timer.cancel()
        self._rung.clear()


class Told(Protocol):
    """Who is told how the lease is doing, on the loop, without waiting."""

    def serves_until(self, until: float) -> None:
        """Until when the node may serve; minus infinity: not at all."""
        ...

    def renewed(self) -> None:
        """The store acknowledged a renewal."""
        ...

    def missed(self) -> None:
        """It didn't, as far as is known."""
        ...

    def lost(self) -> None:
        """The lease is void."""
        ...


# -- taking it ---------------------------------------------------------------------------------------------------


async def take_lease(
    leases: LeaseRecords, lease: Lease, times: LeaseTimes, now: Now, timeout_s: float, wanted: Callable[[], bool] = lambda: True
) -> Owner:
    """Create the lease of a node, behind the end of an earlier one of its name.

    One that is renewed meanwhile is `NodeNameTaken`; one that isn't for T is replaced. A store that doesn't answer for `timeout_s` in
    a row is its `StoreError`. When it isn't `wanted` any more it isn't taken: `ShuttingDown`.
    """
    taking = _Taking(leases, lease, times, now)
    answered = now()
    while wanted():
        try:
            owner = await taking.step()
        except StoreUnavailable:
            if now() - answered >= timeout_s:
                raise
            taking.reads = taking.reads.failed()
        else:
            answered = now()
            if owner is not None:
                return owner
        await asyncio.sleep(times.retry_s)
    raise ShuttingDown(f"node {lease.name} was to leave before it had joined", name=lease.name)


class _Taking:
    """The steps of `take_lease`: look, and create the lease if nobody's is in the way."""

    def __init__(self, leases: LeaseRecords, lease: Lease, times: LeaseTimes, now: Now) -> None:
        self.leases, self.lease, self.times, self.now = leases, lease, times, now
        self.reads = Steady(times.max_gap_s)
        self.watched: Watched | None = None
        self.sent = inf
        """When the first attempt was sent."""

    async def step(self) -> Owner | None:
        fact = await self.leases.read(self.lease.name)
        self.reads = self.reads.answered(self.now())
        if fact.lease is not None and fact.lease.instance == self.lease.instance:  # an attempt that nobody told of
            return granted(self.times, fact.revision, self.sent, self.now())
        if not self._free(fact):
            return None
        sent = self.now()
        self.sent = min(self.sent, sent)
        try:
            revision = await self.leases.write(self.lease.name, fact.revision, self.lease)
        except (Conflict, CommitUnknown):
            return None
        return granted(self.times, revision, sent, self.now())

    def _free(self, fact: Fact) -> bool:
        """Whether a new lease may take the place of what was read."""
        if fact.tombstone or fact.revision == 0:
            return True
        before, now = self.watched, self.now()
        if before is None:
            self.watched = Watched(fact.incarnation, fact.revision, now)
        else:
            self.watched = before.seen(fact, now)
            if fact.revision > before.revision and 0 < fact.incarnation == before.incarnation:
                raise _taken(self.lease.name, fact)
        return now >= self.watched.void_at(self.times, self.reads.since(now))


def _taken(name: str, fact: Fact) -> NodeNameTaken:
    return NodeNameTaken(
        f"a living node is named {name!r} (incarnation {fact.incarnation}): give this one another name, or stop that one first",
        name=name,
        incarnation=fact.incarnation,
    )


# -- keeping it --------------------------------------------------------------------------------------------------


class Holder:
    """Keeps a lease until it is given up or lost. `owner` is what is known of it, `lease` what it says with the next renewal."""

    def __init__(self, leases: LeaseRecords, lease: Lease, owner: Owner, now: Now, told: Told) -> None:
        self.lease, self.owner = lease, owner
        self._leases, self._now, self._told = leases, now, told
        self._times = owner.times
        self._bell = Bell()
        self._ends = False
        self._waiting: list[tuple[int, Future[None]]] = []
        self._look_handle: TimerHandle | None = None
        self._set(owner)
        self._look()

    def _set(self, owner: Owner) -> None:
        sooner = owner.renew_at < self.owner.renew_at
        self.owner = owner
        self._told.serves_until(-inf if self._ends else owner.may_serve_until)
        if sooner:
            self._bell.ring()

    def _look(self) -> None:
        self._set(self.owner.look(self._now()))
        self._look_handle = asyncio.get_running_loop().call_later(self._times.margin_s / 2, self._look)

    async def renew_on(self) -> None:
        """Renew the lease in time, as long as it is held."""
        while not self.owner.lost:
            await self._bell.wait(self.owner.renew_at - self._now())
            if self._now() >= self.owner.renew_at:
                await self._renew()

    async def _renew(self) -> None:
        sending = self.owner.renewing(self._now())
        self._set(sending)
        lease = with_fields(self.lease, incarnation=sending.incarnation, beat=sending.beat)
        try:
            revision = await self._leases.write(lease.name, sending.revision, lease)
        except Conflict:
            await self._read_back()
        except StoreError:
            self._missed()
        else:
            self._set(self.owner.renewed(sending.beat, revision))
            self._acknowledged(sending.beat)

    async def _read_back(self) -> None:
        """Somebody wrote: this node, in an attempt that nobody told of, or one that declared it dead."""
        try:
            fact = await self._leases.read(self.lease.name)
        except StoreError:
            self._missed()
            return
        before = self.owner.revision
        self._set(self.owner.found(fact, self._now()))
        if self.owner.lost:
            self._end(StoreUnavailable(f"node {self.lease.name} has lost its lease"))
            self._told.lost()
        elif self.owner.revision > before and fact.lease is not None:
            self._acknowledged(fact.lease.beat)
        else:
            self._told.missed()

    def _missed(self) -> None:
        self._set(self.owner.failed(self._now()))
        self._told.missed()

    def _acknowledged(self, beat: int) -> None:
        for needed, future in self._waiting[:]:
            if needed <= beat:
                self._waiting.remove((needed, future))
                if not future.done():
                    future.set_result(None)
        self._told.renewed()

    async def change(self, **fields: Any) -> None:
        """Say something else in the lease; returns when it is stored. `StoreUnavailable` if the lease is lost or given up before."""
        if self._ends or self.owner.lost:
            raise StoreUnavailable(f"node {self.lease.name} has no lease any more")
        self.lease = with_fields(self.lease, **fields)
        stored: Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((self.owner.beat + 1, stored))
        self._set(replace(self.owner, renew_at=self._now()))
        await stored

    # -- giving it up ----------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Serve nothing any more. What was renewed stays until it runs out."""
        self._ends = True
        self._end(StoreUnavailable(f"node {self.lease.name} gives up its lease"))

    def _end(self, error: StoreError) -> None:
        if self._look_handle is not None:
            self._look_handle.cancel()
        self._told.serves_until(-inf)
        for _needed, future in self._waiting:
            if not future.done():
                future.set_exception(error)
        self._waiting.clear()

    async def void(self, timeout_s: float) -> bool:
        """Void the lease, so that nobody has to wait for its end; whether that is known to have happened in time. After `stop`, and when
        nothing renews any more.
        """
        until, revision = self._now() + timeout_s, self.owner.revision
        while not self.owner.lost:
            try:
                await self._leases.write(self.lease.name, revision, None)
            except Conflict:
                revision = await self._newer(revision)
            except StoreError:
                pass
            else:
                break
            if revision == 0 or self._now() >= until:
                return revision == 0
            await asyncio.sleep(self._times.retry_s)
        return True

    async def _newer(self, revision: int) -> int:
        """A late renewal's revision; 0: the lease is void."""
        try:
            fact = await self._leases.read(self.lease.name)
        except StoreError:
            return revision
        if fact.voids(self.owner.incarnation):
            return 0
        return fact.revision if fact.incarnation == self.owner.incarnation else revision
