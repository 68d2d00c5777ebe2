"""Whoever watches a lease: its time counts only while the store answers, and hints shorten nothing that they mustn't."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from jidosystem.distribution.leases import Fact, Lease, LeaseTimes
from jidosystem.distribution.watching import Heard, Steady, Watched

TIMES = LeaseTimes()
LEASE = Lease("a", "i", incarnation=7)


# -- the store's answers -----------------------------------------------------------------------------------------


def test_a_stretch_of_answers_begins_with_the_first_and_ends_with_a_failure_or_a_gap() -> None:
    steady = Steady(1.5)
    assert steady.since(0.0) == inf
    steady = steady.answered(10.0).answered(11.0).answered(12.5)
    assert steady.since(12.6) == 10.0
    assert steady.since(14.1) == inf, "too long without an answer"
    assert steady.answered(14.1).since(14.1) == 14.1
    assert steady.failed().since(12.6) == inf
    assert steady.failed().answered(13.0).since(13.0) == 13.0


@given(st.lists(st.tuples(st.floats(0.01, 3), st.booleans()), max_size=30))
def test_no_stretch_holds_a_failure_or_a_gap(steps: list[tuple[float, bool]]) -> None:
    steady, now, breaks, last = Steady(1.5), 0.0, 0.0, -inf
    for passed, answers in steps:
        now += passed
        if answers:
            if now - last > 1.5:
                breaks = now
            steady, last = steady.answered(now), now
        else:
            steady, breaks = steady.failed(), now
        assert steady.since(now) >= breaks


# -- a lease -----------------------------------------------------------------------------------------------------


def test_time_counts_from_the_moment_that_a_revision_was_seen_first() -> None:
    watched = Watched(7, 7, 100.0).seen(Fact(8, LEASE), 101.0)
    assert (watched.revision, watched.since) == (8, 101.0)
    assert watched.seen(Fact(8, LEASE), 102.0).since == 101.0, "unchanged"
    assert watched.seen(Fact(7, LEASE), 102.0) == watched, "a stale read"
    assert watched.void_at(TIMES, 0.0) == 104.0
    assert watched.void_at(TIMES, 101.5) == 104.5, "the store answers only since then"
    assert watched.void_at(TIMES, inf) == inf


def test_a_revision_that_its_owner_told_of_is_as_old_as_that_and_no_older() -> None:
    watched = Watched(7, 7, 100.0).hint(8, 100.5)
    assert (watched.revision, watched.since) == (7, 100.0), "a hint alone changes nothing"
    assert watched.seen(Fact(8, LEASE), 101.4).since == 100.5
    assert watched.seen(Fact(9, LEASE), 101.4).since == 101.4, "it was told of another"
    assert watched.hint(8, 101.0).told_at == 100.5
    assert watched.hint(6, 101.0) == watched


def test_a_refusal_begins_its_time_again() -> None:
    assert Watched(7, 7, 100.0).refused(103.0).void_at(TIMES, 0.0) == 106.0


def test_a_later_incarnation_takes_its_place_and_what_cant_be_read_keeps_it() -> None:
    watched = Watched(7, 7, 100.0)
    assert watched.seen(Fact(12, Lease("a", "j")), 101.0) == Watched(12, 12, 101.0)
    assert watched.seen(Fact(8, None, "damaged"), 101.0) == Watched(7, 8, 101.0)


# -- the wire ----------------------------------------------------------------------------------------------------


def test_silence_is_suspicious_while_the_wire_works() -> None:
    heard = Heard(100.0)
    assert not heard.suspect(TIMES, 0.0, 102.0)
    assert heard.suspect(TIMES, 0.0, 102.1)
    assert not heard.suspect(TIMES, 101.0, 102.1), "the wire came back only then"
    assert not heard.suspect(TIMES, inf, 200.0), "nobody is heard of"
    assert not heard.beat(102.0).suspect(TIMES, 0.0, 102.1)


def test_a_message_that_reached_nobody_is_suspicious_until_the_next_sign_of_life() -> None:
    heard = Heard(100.0).missed()
    assert heard.suspect(TIMES, 0.0, 100.1)
    assert not heard.beat(100.2).suspect(TIMES, 0.0, 100.3)
