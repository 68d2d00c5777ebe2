"""When a node may be declared dead, as the others see it.

A lease is void when somebody replaces it by a tombstone, by compare-and-set on a revision that they saw unchanged for T *while the
store answered them*. Whatever shows that it didn't, a read that failed, a renewal of their own that wasn't acknowledged, a break
between answers, starts the clocks of all leases again: an outage of the store declares nobody dead, and after it owners have T to
renew. Who is wrong about that is stopped by the compare-and-set. Silence on the wire raises suspicion and nothing more. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from .leases import Fact, LeaseTimes


@dataclass(frozen=True, slots=True)
class Steady:
    """Since when something has answered without a break longer than `max_gap_s`."""

    max_gap_s: float
    began: float = inf
    last: float = -inf

    def answered(self, now: float) -> Steady:
        """It answered."""
        return replace(self, began=now if self.since(now) == inf else self.began, last=now)

    def failed(self) -> Steady:
        """It didn't: the next answer begins anew."""
        return replace(self, began=inf)

    def since(self, now: float) -> float:
        """When the stretch of answers began that goes on now; infinity: it doesn't."""
        return inf if now - self.last > self.max_gap_s else self.began


@dataclass(frozen=True, slots=True)
class Watched:
    """One lease as somebody else sees it.

    Attributes:
        incarnation: whose it is; 0: a vacant or an unreadable one
        revision: the newest that was read
        since: when that was first known
        told: the newest revision that its owner told of over the wire, which is a hint
        told_at: when
    """

    incarnation: int
    revision: int
    since: float
    told: int = 0
    told_at: float = -inf

    def seen(self, fact: Fact, now: float) -> Watched:
        """It was read. An older revision is a stale read and says nothing. One that its owner told of before is as old as that."""
        if fact.revision <= self.revision:
            return self
        since = self.told_at if fact.revision == self.told else now
        return replace(self, incarnation=fact.incarnation or self.incarnation, revision=fact.revision, since=since)

    def hint(self, revision: int, now: float) -> Watched:
        """Its owner says that it has renewed. Nothing but the age of a revision that is read later follows from it."""
        return replace(self, told=revision, told_at=now) if revision > max(self.revision, self.told) else self

    def refused(self, now: float) -> Watched:
        """Voiding it was refused, so it has been renewed: its time begins again."""
        return replace(self, since=now)

    def void_at(self, times: LeaseTimes, steady_since: float) -> float:
        """When it may be declared void, if nothing happens until then; infinity: not before the store answers."""
        return max(self.since, steady_since) + times.lease_s


@dataclass(frozen=True, slots=True)
class Heard:
    """What the wire says of a node: enough to suspect it, never more."""

    at: float
    unreachable: bool = False

    def beat(self, now: float) -> Heard:
        """It gave a sign of life."""
        return Heard(now)

    def missed(self) -> Heard:
        """A message to it reached nobody."""
        return replace(self, unreachable=True)

    def suspect(self, times: LeaseTimes, wire_since: float, now: float) -> bool:
        """Whether it is to be suspected: it can't be reached, or was silent while the wire worked; `wire_since` says since when it does."""
        return self.unreachable or now - max(self.at, wire_since) > times.suspect_s
