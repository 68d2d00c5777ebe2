"""A lease: its owner has stopped before anybody may take over, whatever happens to messages, processes, the store and the clocks."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jidosystem.core.codec import encode, seal
from jidosystem.core.errors import InvalidArguments, RecordUnreadable
from jidosystem.core.records import Record
from jidosystem.distribution.leases import MAX_SENT, Fact, Lease, LeaseTimes, Owner, decode_lease, encode_lease, fact_of, granted
from tests.distribution.lease_world import TIMES, Fate, Plan, World, plans

UNTIL_S = 40.0
anything = plans(faults=True, skew=TIMES.max_skew, outages=True, pauses=True)

# -- the promise -------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(anything)
def test_nobody_voids_a_lease_whose_owner_still_believes_that_it_holds_it(plan: Plan) -> None:
    world = World(plan)
    world.run(UNTIL_S)
    if world.voided_at is not None:
        assert world.left_s is not None and world.left_s <= 1e-6


@settings(max_examples=150)
@given(plans(faults=False, skew=0.01, outages=True, pauses=False, max_delay_s=0.1), st.floats(2, 20), st.floats(0.01, 15))
def test_an_outage_of_the_store_voids_nobody(plan: Plan, began: float, lasts: float) -> None:
    world = World(replace(plan, outages=((began, lasts),), crash_at=inf))
    world.run(UNTIL_S)
    assert world.voided_at is None
    assert world.owner.may_serve_until > world.owner_now(), "and the owner serves again"


@settings(max_examples=100)
@given(plans(faults=False, skew=TIMES.max_skew, outages=False, pauses=False, max_delay_s=0.1), st.floats(1, 20))
def test_the_lease_of_a_node_that_died_is_void_soon_when_the_store_works(plan: Plan, crash_at: float) -> None:
    world = World(replace(plan, crash_at=crash_at))
    world.run(UNTIL_S)
    # Its last renewal arrives 0.1 s later at most and is seen a look and its way later, T passes on the slowest clock, and the tombstone has its way.
    slowest = min(plan.watcher_rates)
    assert world.voided_at is not None
    assert crash_at <= world.voided_at <= crash_at + 0.1 + 1.0 + 0.2 + TIMES.lease_s / slowest + 0.2


class CountsFromTheAnswer(Owner):
    """Wrong: the renewal may have been stored long before its answer came."""

    def renewed(self, beat: int, revision: int) -> Owner:
        late = replace(self, sent=tuple((number, max(sent, self.looked)) for number, sent in self.sent))
        return Owner.renewed(late, beat, revision)


class CountsUnknown(Owner):
    """Wrong: what wasn't acknowledged may not have happened."""

    def failed(self, now: float) -> Owner:
        return replace(self, until=self.sent[-1][1] + self.times.lease_s - self.times.margin_s, renew_at=now + self.times.retry_s)


CUT_OFF = Plan(owner_fates=[Fate()], watcher_fates=[Fate(there_s=0.05)], cut=(5.0, 12.0), hears_beats=False)
SKEWED = replace(CUT_OFF, owner_rate=0.92, watcher_rates=(1.08, 1.0), hears_beats=True)


@pytest.mark.parametrize(
    ("plan", "broken"),
    [
        (replace(CUT_OFF, owner_fates=[Fate(back_s=0.9)]), {"owner_kind": CountsFromTheAnswer}),
        (CUT_OFF, {"owner_kind": CountsUnknown}),
        (SKEWED, {"times": LeaseTimes(margin_s=0.01)}),
        (SKEWED, {"watch_times": LeaseTimes(lease_s=2.5)}),
    ],
    ids=["counts from the answer", "counts what is unknown", "no margin for clocks", "watchers wait too short"],
)
def test_a_lease_that_keeps_less_is_found_out(plan: Plan, broken: dict[str, Any]) -> None:
    right, wrong = World(plan), World(plan, **broken)
    for world in (right, wrong):
        world.run(UNTIL_S)
    assert right.left_s is not None and right.left_s <= 1e-6
    assert wrong.left_s is not None and wrong.left_s > 1e-6


# -- the owner, step by step -------------------------------------------------------------------------------------


def owner_at(sent: float = 100.0) -> Owner:
    return granted(TIMES, 7, sent, sent + 0.2)


def test_the_deadline_counts_from_before_the_sending() -> None:
    owner = owner_at()
    assert owner.until == 102.5
    later = owner.look(100.9).renewing(101.0).look(101.3).renewed(1, 8)
    assert (later.until, later.revision, later.incarnation) == (103.5, 8, 7)


def test_a_stop_of_the_loop_longer_than_the_margin_asks_for_a_renewal_that_was_sent_after_it() -> None:
    owner = owner_at().look(100.5).renewing(100.6)
    assert owner.may_serve_until == 101.0, "whatever runs first after a stop finds it in the past"
    after = owner.look(101.2)
    assert after.may_serve_until == -inf
    assert after.renew_at == 101.2
    assert after.renewed(1, 8).may_serve_until == -inf, "sent before the stop"
    assert after.renewed(1, 8).renewing(101.3).renewed(2, 9).until == 103.8


def test_an_unknown_renewal_counts_when_it_is_read_back() -> None:
    owner = owner_at().renewing(101.0).failed(102.0)
    assert (owner.until, owner.renew_at) == (102.5, 102.25)
    found = owner.found(Fact(9, Lease("a", "i", incarnation=7, beat=1)), 102.1)
    assert (found.until, found.revision, found.renew_at) == (103.5, 9, 102.1)
    assert owner.renewing(102.25).found(Fact(9, Lease("a", "i", incarnation=7, beat=1)), 102.3).until == 103.5, "also behind a later one"
    many = owner
    for _ in range(MAX_SENT):
        many = many.renewing(102.3)
    assert len(many.sent) == MAX_SENT
    forgotten = many.found(Fact(9, Lease("a", "i", incarnation=7, beat=1)), 102.4)
    assert (forgotten.until, forgotten.revision) == (102.5, 9), "when it was sent isn't known any more"


@pytest.mark.parametrize("fact", [Fact(8), Fact(9, Lease("a", "j")), Fact(12, Lease("a", "j", incarnation=9))], ids=["tombstone", "new", "newer"])
def test_a_tombstone_or_a_later_incarnation_ends_it_for_ever(fact: Fact) -> None:
    owner = owner_at().renewing(101.0).found(fact, 101.1)
    assert owner.lost
    assert owner.renewed(1, 13).may_serve_until == -inf


@pytest.mark.parametrize(
    "fact",
    [Fact(0), Fact(7, Lease("a", "i")), Fact(6), Fact(5, Lease("a", "h")), Fact(9, Lease("a", vacant=True)), Fact(9, None, "damaged")],
    ids=["absent", "stale", "stale tombstone", "stale other", "vacant", "damaged"],
)
def test_anything_else_that_is_read_back_is_no_answer(fact: Fact) -> None:
    owner = owner_at().renewing(101.0)
    assert owner.found(fact, 101.1) == replace(owner, renew_at=101.1 + TIMES.retry_s)


# -- the record --------------------------------------------------------------------------------------------------

names = st.text(max_size=10)
numbers = st.integers(0, 2**63)
leases = st.builds(
    Lease, name=names, instance=names, incarnation=numbers, beat=numbers, subject=names, protocol=numbers, oldest_protocol=numbers,
    types=st.dictionaries(names, st.integers(0, 100), max_size=3), draining=st.booleans(), vacant=st.booleans(),
)  # fmt: skip


@given(leases)
def test_a_lease_is_the_same_when_it_is_read(lease: Lease) -> None:
    assert decode_lease("jido.node/a", encode_lease(lease)) == lease


@given(st.binary(max_size=60) | st.binary(max_size=60).map(seal))
def test_anything_else_is_no_lease(blob: bytes) -> None:
    with pytest.raises(RecordUnreadable, match=r"jido\.node/a"):
        decode_lease("jido.node/a", blob)


def test_a_newer_release_may_say_more() -> None:
    assert decode_lease("jido.node/a", seal(encode({"name": "a", "zone": "west"}))) == Lease("a")


def test_the_incarnation_is_the_revision_of_the_creation() -> None:
    assert Fact(5, Lease("a", "i")).incarnation == 5
    assert Fact(9, Lease("a", "i", incarnation=5)).incarnation == 5
    assert Fact(9, Lease("a", vacant=True)).incarnation == 0
    assert Fact(9).incarnation == 0


def test_void_is_a_tombstone_or_a_later_incarnation_and_absence_is_none() -> None:
    assert Fact(6).voids(5)
    assert not Fact(6).voids(7)
    assert Fact(9, Lease("a", "i", incarnation=6)).voids(5)
    assert not Fact(9, Lease("a", "i", incarnation=5)).voids(5)
    assert not Fact(0).voids(5)
    assert not Fact(9, Lease("a", vacant=True)).voids(5)
    assert not Fact(9, None, "damaged").voids(5)


def test_what_a_record_says() -> None:
    assert fact_of(None) == Fact(0)
    assert fact_of(Record("jido.node/a", 4, None)) == Fact(4)
    assert fact_of(Record("jido.node/a", 4, encode_lease(Lease("a")))) == Fact(4, Lease("a"))
    assert fact_of(Record("jido.node/a", 4, b"", "bits fell over")) == Fact(4, None, "bits fell over")
    damaged = fact_of(Record("jido.node/a", 4, b"nonsense"))
    assert damaged.damage is not None and not damaged.tombstone


# -- times -------------------------------------------------------------------------------------------------------


def test_the_margin_says_how_far_clocks_may_differ() -> None:
    skew = TIMES.max_skew
    assert 0.09 < skew < 0.1
    assert (TIMES.lease_s - TIMES.margin_s) / (1 - skew) == pytest.approx(TIMES.lease_s / (1 + skew))


@pytest.mark.parametrize("wrong", [{"margin_s": 0}, {"lease_s": inf}, {"renew_s": -1}, {"retry_s": True}, {"lease_s": 2.0}, {"answer_s": "1"}])
def test_times_that_cant_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArguments, match=next(iter(wrong))):
        LeaseTimes(**wrong)
