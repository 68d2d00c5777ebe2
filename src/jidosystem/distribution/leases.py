"""The lease of a node: the record that says it lives, and what its owner may conclude from it.

A lease says *when* others may take over, never who may write: that is decided by the revision of each agent's own record. Its
owner serves until its own deadline, which counts from the moment before it *sent* the last renewal that was acknowledged, less a
margin; whoever watches it waits the whole time from the moment that it saw the last renewal (`watching.py`). So the owner has stopped before
anybody takes over, however long a message took, as long as no clock runs faster or slower than the margin allows. Pure: every function is
given the time, of a clock that counts the machine's sleep too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import Annotated, NamedTuple

import msgspec

from ..core.codec import encode, seal, unseal
from ..core.errors import InvalidArguments, RecordUnreadable
from ..core.records import Record

LEASE_TYPE = "jido.node"
"""The type under which leases are stored: the lease of node `a` is the record `jido.node/a`."""
MAX_SENT = 8
"""Renewals of which nobody knows whether they were stored, and which still count if they are found to be."""
_Whole = Annotated[int, msgspec.Meta(ge=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """How long things take, in seconds.

    Attributes:
        lease_s: T: so long after a renewal that nothing followed may others declare the node dead
        renew_s: between two renewals, and between two looks at the leases of others
        margin_s: so much before T the owner stops; also the longest stop of its event loop that it doesn't take for a pause
        retry_s: before a renewal that failed is tried again
        answer_s: so long is waited for an answer of the store, which counts as failed then
        list_s: between two lists of all leases, for nodes that say nothing over the wire; those that are known are looked at each `renew_s`
        suspect_s: a node of which nothing was heard for so long is suspected, no more
    """

    lease_s: float = 3.0
    renew_s: float = 1.0
    margin_s: float = 0.5
    retry_s: float = 0.25
    answer_s: float = 1.0
    list_s: float = 5.0
    suspect_s: float = 2.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0 or not isfinite(value):
                raise InvalidArguments(f"LeaseTimes({name}={value!r}): seconds, more than 0", path=f"$.{name}")
        if self.lease_s < 2 * self.renew_s + self.margin_s:
            raise InvalidArguments(
                f"LeaseTimes(lease_s={self.lease_s:g}): at least two renewals and the margin must fit in, {2 * self.renew_s + self.margin_s:g} s",
                path="$.lease_s",
            )

    @property
    def max_skew(self) -> float:
        """By what part of their rate two clocks may be wrong, each in its own direction, until the margin is used up.

        An owner's slow clock shows `lease_s - margin_s` after `(lease_s - margin_s) / (1 - skew)` seconds, a watcher's fast one `lease_s` after
        `lease_s / (1 + skew)`; equal at this skew. What is left of it covers the way from looking at the clock to the answer on the wire.
        """
        return self.margin_s / (2 * self.lease_s - self.margin_s)

    @property
    def max_gap_s(self) -> float:
        """Two answers of the store that are further apart than this have a break between them: it is asked each `renew_s`."""
        return 1.5 * self.renew_s


# -- the record --------------------------------------------------------------------------------------------------


class Lease(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node says of itself in its lease. A field that this release doesn't know is passed over, so that a newer one may add some.

    Attributes:
        name: the node's
        instance: drawn anew for each joining; by it a node knows its own creation again
        incarnation: the revision at which the lease was created; 0 in that first revision itself, and in a vacant one
        began: the incarnation with which its process joined first; 0: this one
        beat: number of the renewal
        subject: where the node is reached over the wire
        protocol: the newest version of the frames that it speaks
        oldest_protocol: the oldest one
        types: the agent types that it hosts, with the versions of their state
        draining: takes no new agents and hands over those that it has
        vacant: nobody's: stands where a lease ought to be and none is, until it has stood there for T
    """

    name: str
    instance: str = ""
    incarnation: _Whole = 0
    began: _Whole = 0
    beat: _Whole = 0
    subject: str = ""
    protocol: _Whole = 0
    oldest_protocol: _Whole = 0
    types: dict[str, int] = {}
    draining: bool = False
    vacant: bool = False


_decoder = msgspec.msgpack.Decoder(Lease)


def encode_lease(lease: Lease) -> bytes:
    """The lease as it is stored."""
    return seal(encode(lease))


def decode_lease(address: str, head: bytes) -> Lease:
    """The lease that was stored, or `RecordUnreadable`."""
    try:
        return _decoder.decode(unseal(head))
    except (ValueError, RecursionError) as error:
        raise RecordUnreadable(f"the lease {address} can't be read: {error}", agent=address) from error


class Fact(NamedTuple):
    """What was read of a lease.

    Attributes:
        revision: of the record; 0: there is none
        lease: None: a tombstone, or nothing that can be read
        damage: why it can't be read
    """

    revision: int
    lease: Lease | None = None
    damage: str | None = None

    @property
    def incarnation(self) -> int:
        """Whose lease it is: the revision of its creation; 0: nobody's."""
        lease = self.lease
        return 0 if lease is None or lease.vacant else lease.incarnation or self.revision

    @property
    def tombstone(self) -> bool:
        """Whether it says that every incarnation before it is void."""
        return self.revision > 0 and self.lease is None and self.damage is None

    def voids(self, incarnation: int) -> bool:
        """Whether it proves that an incarnation is void: a tombstone, or the lease of a later one. Absence proves nothing. True for ever."""
        return self.revision > incarnation if self.tombstone else self.incarnation > incarnation


def fact_of(record: Record | None) -> Fact:
    """What a record of a lease says."""
    if record is None:
        return Fact(0)
    if record.damage is not None:
        return Fact(record.revision, None, record.damage)
    if record.head is None:
        return Fact(record.revision)
    try:
        return Fact(record.revision, decode_lease(record.agent, record.head))
    except RecordUnreadable as error:
        return Fact(record.revision, None, str(error))


# -- its owner ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Owner:
    """What a node knows of its own lease. Every input is a method that returns the next state.

    Attributes:
        incarnation: the revision at which the lease was created
        revision: the last one that is known to be its own
        until: by the renewals that were acknowledged the node may serve until then, and no later
        looked: when its event loop came round last
        beat: number of the last renewal that was sent
        sent: of the last of those that weren't acknowledged, the number and when it was sent
        counts_from: a renewal that was sent before this extends nothing: the loop stood still since
        renew_at: when the next renewal is due
        lost: the lease is void, for ever
    """

    times: LeaseTimes
    incarnation: int
    revision: int
    until: float
    looked: float
    renew_at: float
    beat: int = 0
    sent: tuple[tuple[int, float], ...] = ()
    counts_from: float = -inf
    lost: bool = False

    @property
    def may_serve_until(self) -> float:
        """Past this moment no turn starts and no answer leaves. It lies in the past after a stop of the loop longer than the margin, whatever
        runs first then.
        """
        return -inf if self.lost else min(self.until, self.looked + self.times.margin_s)

    def look(self, now: float) -> Owner:
        """The loop came round. If that took longer than the margin, who knows what stood still: first renew."""
        if now - self.looked > self.times.margin_s:
            return replace(self, looked=now, until=-inf, counts_from=now, renew_at=now)
        return replace(self, looked=now)

    def renewing(self, now: float) -> Owner:
        """A renewal is about to be sent, under the number `beat` of what is returned."""
        beat = self.beat + 1
        return replace(self, beat=beat, sent=(*self.sent, (beat, now))[-MAX_SENT:], renew_at=now + self.times.renew_s)

    def renewed(self, beat: int, revision: int) -> Owner:
        """A renewal is known to be stored: it counts from when it was sent, if that is known and the loop hasn't stood still since."""
        until = self.until
        for number, sent in self.sent:
            if number == beat and sent >= self.counts_from:
                until = max(until, sent + self.times.lease_s - self.times.margin_s)
        waiting = tuple(one for one in self.sent if one[0] > beat)
        return replace(self, revision=max(self.revision, revision), until=until, sent=waiting)

    def failed(self, now: float) -> Owner:
        """A renewal failed, or nobody knows: it extends nothing, and the next one is due soon."""
        return replace(self, renew_at=now + self.times.retry_s)

    def found(self, fact: Fact, now: float) -> Owner:
        """The lease was read back. Its own renewal counts from when it was sent; what proves it void ends it; anything else, older or absent,
        is no answer.
        """
        if fact.voids(self.incarnation):
            return replace(self, lost=True)
        if fact.lease is not None and fact.incarnation == self.incarnation and fact.revision > self.revision:
            return replace(self.renewed(fact.lease.beat, fact.revision), renew_at=now)
        return self.failed(now)


def granted(times: LeaseTimes, revision: int, sent: float, now: float) -> Owner:
    """The owner of a lease that was created at a revision, by a commit that was sent at a time."""
    until = sent + times.lease_s - times.margin_s
    return Owner(times, revision, revision, until, now, renew_at=sent + times.renew_s)
