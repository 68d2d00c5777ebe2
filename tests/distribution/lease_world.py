"""A small world of one lease: its owner, some who watch it, a store, and time that each of them counts a little differently.

The machines are those of the package; this drives them as `Membership` does and lets happen what can: messages that are slow, lost or
answered by nobody, writes that arrive late, stale reads, owners that stand still, a store that is away. Everything is drawn by hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count, cycle
from math import inf
from typing import Any

from hypothesis import strategies as st

from jidosystem.distribution.leases import Fact, Lease, LeaseTimes, Owner, granted
from jidosystem.distribution.watching import Steady, Watched

TIMES = LeaseTimes()
Span = tuple[float, float]


@dataclass(frozen=True)
class Fate:
    """What becomes of one message to the store: how long it takes there and back, and what is lost."""

    there_s: float = 0.0
    back_s: float = 0.0
    lost: bool = False
    unanswered: bool = False
    stale_s: float = 0.0


@dataclass(frozen=True)
class Plan:
    """Everything that is drawn."""

    owner_fates: list[Fate]
    watcher_fates: list[Fate]
    cut: Span = (inf, 0.0)
    owner_rate: float = 1.0
    watcher_rates: tuple[float, ...] = (1.0, 1.0)
    pauses: tuple[Span, ...] = ()
    outages: tuple[Span, ...] = ()
    crash_at: float = inf
    hears_beats: bool = True


def plans(*, faults: bool, skew: float, outages: bool, pauses: bool, max_delay_s: float = 6.0) -> st.SearchStrategy[Plan]:
    """Plans with or without what is named."""
    slow = st.sampled_from([0.0, 0.001, 0.05, 0.2]) | st.floats(0, max_delay_s)
    fates = st.builds(
        Fate,
        there_s=slow,
        back_s=slow,
        lost=st.booleans() if faults else st.just(False),
        unanswered=st.booleans() if faults else st.just(False),
        stale_s=st.sampled_from([0.0, 0.0, 0.5, 20.0]) if faults else st.just(0.0),
    )
    rate = st.sampled_from([1 - skew, 1.0, 1 + skew]) | st.floats(1 - skew, 1 + skew)
    spans = st.lists(st.tuples(st.floats(2, 25), st.floats(0.01, 12)), max_size=3).map(tuple)
    many = st.lists(fates | st.just(Fate()), min_size=1, max_size=12)
    return st.builds(
        Plan,
        owner_fates=many,
        watcher_fates=many | st.just([Fate()]),
        cut=st.tuples(st.floats(1, 20), st.floats(1, 12)) if faults else st.just((inf, 0.0)),
        owner_rate=rate,
        watcher_rates=st.tuples(rate, rate),
        pauses=spans if pauses else st.just(()),
        outages=spans if outages else st.just(()),
        crash_at=st.just(inf) | st.floats(1, 25),
        hears_beats=st.booleans(),
    )


class World:
    """One run. `voided_at` is when the tombstone came, in real time; `believed` the time by then of the owner's own clock that it had left."""

    def __init__(self, plan: Plan, owner_kind: type[Owner] = Owner, times: LeaseTimes = TIMES, watch_times: LeaseTimes = TIMES) -> None:
        self.plan, self.times, self.watch_times = plan, times, watch_times
        self.now = 0.0
        self.voided_at: float | None = None
        self.left_s: float | None = None
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._owner_fates, self._watcher_fates = cycle(plan.owner_fates), cycle(plan.watcher_fates)
        self.history: list[tuple[float, Fact]] = [(0.0, Fact(7, Lease("a", "i")))]
        first = granted(times, 7, 0.0, 0.0)
        self.owner = owner_kind(**{name: getattr(first, name) for name in Owner.__slots__})
        self.watchers = [Watcher(self, rate) for rate in plan.watcher_rates]
        self._owner_looks()
        self._owner_ticks()

    # -- time ------------------------------------------------------------------------------------------------

    def at(self, when: float, what: Callable[[], None]) -> None:
        heappush(self._events, (when, next(self._numbers), what))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, what = heappop(self._events)
            what()
            self._check()
        self.now = until

    def owner_now(self) -> float:
        return self.now * self.plan.owner_rate

    def by_owner(self, when: float, what: Callable[[], None]) -> None:
        """Something that the owner's process does, which stands still at times and ends at some."""
        for began, lasts in sorted(self.plan.pauses):
            if began <= when < began + lasts:
                when = began + lasts
        if when < self.plan.crash_at:
            self.at(when, what)

    # -- the store -------------------------------------------------------------------------------------------

    def owners_fate(self) -> Fate:
        began, lasts = self.plan.cut
        return Fate(lost=True) if began <= self.now < began + lasts else next(self._owner_fates)

    def watchers_fate(self) -> Fate:
        return next(self._watcher_fates)

    def ask(self, fate: Fate, what: Callable[[], Any], told: Callable[[Any], None], back: Callable[[float, Callable[[], None]], None]) -> None:
        """A message to the store; what it takes while it is away it does late, or never."""
        arrives = self.now + fate.there_s
        away_until = next((b + d for b, d in self.plan.outages if b <= arrives < b + d), None)
        if fate.lost or (away_until is not None and fate.back_s < 0.1):
            return
        if away_until is not None:
            arrives = away_until

        def arrived() -> None:
            answer = what()
            if not fate.unanswered:
                back(self.now + fate.back_s, lambda: told(answer))

        self.at(arrives, arrived)

    def fact(self, stale_s: float = 0.0) -> Fact:
        return next(fact for when, fact in reversed(self.history) if when <= self.now - stale_s or when == 0.0)

    def swap(self, expected: int, lease: Lease | None) -> int | None:
        """Compare-and-set: the new revision, or None."""
        present = self.history[-1][1]
        if present.revision != expected:
            return None
        fact = Fact(expected + 1, lease)
        self.history.append((self.now, fact))
        if lease is None:
            self.voided_at = self.now
            self.left_s = self.owner.may_serve_until - self.owner_now()
        return fact.revision

    # -- the owner -------------------------------------------------------------------------------------------

    def _owner_looks(self) -> None:
        self.owner = self.owner.look(self.owner_now())
        self.by_owner(self.now + self.times.margin_s / 2, self._owner_looks)

    def _owner_ticks(self) -> None:
        if self.owner.lost:
            return
        now = self.owner_now()
        if now < self.owner.renew_at:
            self.by_owner(self.now + (self.owner.renew_at - now) / self.plan.owner_rate + 1e-6, self._owner_ticks)
            return
        self.owner = self.owner.renewing(now)
        beat, open_ = self.owner.beat, [True]
        lease = Lease("a", "i", incarnation=7, beat=beat)
        expected = self.owner.revision

        def told(revision: int | None) -> None:
            if not open_:
                return
            open_.clear()
            if revision is None:
                self._read_back()
                return
            self.owner = self.owner.renewed(beat, revision)
            if self.plan.hears_beats:
                for watcher in self.watchers:
                    self.at(self.now + self.owners_fate().there_s, lambda w=watcher: w.hint(revision))  # type: ignore[misc]
            self._owner_ticks()

        def given_up() -> None:
            if open_:
                open_.clear()
                self.owner = self.owner.failed(self.owner_now())
                self._owner_ticks()

        self.ask(self.owners_fate(), lambda: self.swap(expected, lease), told, self.by_owner)
        self.by_owner(self.now + self.times.answer_s, given_up)

    def _read_back(self) -> None:
        open_, fate = [True], self.owners_fate()

        def told(fact: Fact) -> None:
            if open_:
                open_.clear()
                self.owner = self.owner.found(fact, self.owner_now())
                self._owner_ticks()

        self.ask(fate, lambda: self.fact(fate.stale_s), told, self.by_owner)
        self.by_owner(self.now + self.times.answer_s, lambda: told(Fact(0)))

    def _check(self) -> None:
        """Once void, the owner may never serve again: what it had left by then only runs out."""
        if self.voided_at is not None:
            self.left_s = max(self.left_s or -inf, self.owner.may_serve_until - self.voided_at * self.plan.owner_rate)


class Watcher:
    """Somebody who watches the lease, writes one of its own, and voids the other when it may."""

    def __init__(self, world: World, rate: float) -> None:
        self.world, self.rate = world, rate
        times = world.watch_times
        self.reads, self.writes = Steady(times.max_gap_s), Steady(times.max_gap_s)
        self.watched: Watched | None = None
        self.knows_void = False
        self._ticks()

    def now(self) -> float:
        return self.world.now * self.rate

    def hint(self, revision: int) -> None:
        if self.watched is not None:
            self.watched = self.watched.hint(revision, self.now())

    def _ticks(self) -> None:
        fate = self.world.watchers_fate()
        self._ask(fate, lambda: self.world.fact(fate.stale_s), self._read, self._failed)
        self._ask(self.world.watchers_fate(), lambda: 1, self._wrote, self._failed)
        self.world.at(self.world.now + 1.0, self._ticks)

    def _ask(self, fate: Fate, what: Callable[[], Any], told: Callable[[Any], None], failed: Callable[[], None]) -> None:
        open_ = [True]

        def answered(answer: Any) -> None:
            if open_:
                open_.clear()
                told(answer)

        def given_up() -> None:
            if open_:
                open_.clear()
                failed()

        self.world.ask(fate, what, answered, self.world.at)
        self.world.at(self.world.now + self.world.watch_times.answer_s, given_up)

    def _failed(self) -> None:
        self.reads, self.writes = self.reads.failed(), self.writes.failed()

    def _wrote(self, _answer: object) -> None:
        self.writes = self.writes.answered(self.now())

    def _read(self, fact: Fact) -> None:
        self.reads = self.reads.answered(self.now())
        if fact.voids(7):
            self.knows_void = True
        elif self.watched is None:
            self.watched = Watched(7, fact.revision, self.now())
        else:
            self.watched = self.watched.seen(fact, self.now())
        self._look()

    def _look(self) -> None:
        if self.watched is None or self.knows_void:
            return
        now = self.now()
        due = self.watched.void_at(self.world.watch_times, max(self.reads.since(now), self.writes.since(now)))
        if due <= now:
            expected = self.watched.revision
            self.watched = self.watched.refused(now)  # until it is answered
            self._ask(self.world.watchers_fate(), lambda: self.world.swap(expected, None), self._voided, self._failed)
        elif due < inf:
            self.world.at(self.world.now + (due - now) / self.rate + 1e-6, self._look)

    def _voided(self, revision: int | None) -> None:
        self.knows_void = revision is not None
