from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jidosystem.core.events import Event
from jidosystem.core.lanes import FIRST_DELAY_S, MAX_DELAY_S, MAX_TOLD_DELAY_S, Lane, Lanes, Work


def event(position: int) -> Event:
    return Event(f"e{position}", "a.b", "test", "", 0.0, None, "s", position=position)


def taken(lanes: Lanes, now: float = 0.0) -> Work:
    work = lanes.take(now)
    assert work is not None
    return work


def positions(work: Work) -> list[int]:
    return [one.position for one in work.events]


def offer(lanes: Lanes, *keys: str, start: int = 1) -> None:
    for position, key in enumerate(keys, start):
        lanes.offer(event(position), (key,) if key else ())


# -- order ---------------------------------------------------------------------------------------------------------


def test_one_of_a_lane_is_under_way_and_others_go_side_by_side() -> None:
    lanes = Lanes(0)
    offer(lanes, "a", "a", "b")
    first, second = taken(lanes), taken(lanes)
    assert [(first.lane.key, positions(first)), (second.lane.key, positions(second))] == [("a", [1]), ("b", [3])]
    assert lanes.take(0.0) is None
    lanes.finish(first.lane)
    assert positions(taken(lanes)) == [2]


def test_a_batch_is_what_follows_in_its_lane_up_to_its_size() -> None:
    lanes = Lanes(0, batch=3)
    offer(lanes, "a", "b", "a", "a", "a")
    assert [positions(taken(lanes)) for _ in range(2)] == [[2], [1, 3, 4]]


def test_only_whole_batches_may_be_asked_for() -> None:
    lanes = Lanes(0, batch=2)
    offer(lanes, "a", "b", "a", "b", "c", "a", "b")
    whole = [lanes.take(0.0, full=True) for _ in range(3)]
    assert [positions(work) for work in whole if work is not None] == [[1, 3], [2, 4]]
    for work in whole:
        if work is not None:
            lanes.finish(work.lane)
    assert lanes.take(0.0, full=True) is None
    assert [positions(taken(lanes)) for _ in range(3)] == [[5], [6], [7]]
    assert lanes.take(0.0) is None


def test_a_lane_that_fills_up_while_it_waits_starts_once() -> None:
    lanes = Lanes(0, batch=2)
    offer(lanes, "a", "a", "a")
    work = taken(lanes)
    assert lanes.take(0.0) is None
    lanes.finish(work.lane)
    assert positions(taken(lanes)) == [3]
    assert lanes.take(0.0) is None


def test_lanes_take_turns() -> None:
    lanes = Lanes(0)
    offer(lanes, *("a" * 3), "b", "c")
    order = []
    while (work := lanes.take(0.0)) is not None:
        order.append(work.lane.key)
        lanes.finish(work.lane)
    assert order == ["a", "b", "c", "a", "a"]


def test_an_event_of_several_lanes_is_finished_when_all_have_finished_it() -> None:
    lanes = Lanes(0)
    lanes.offer(event(7), ("a", "b", "a"))
    assert lanes.size == 2
    first, second = taken(lanes), taken(lanes)
    lanes.finish(first.lane)
    assert lanes.trailing == 6
    lanes.finish(second.lane)
    assert lanes.trailing == 7


def test_what_is_nobodys_moves_the_position_on() -> None:
    lanes = Lanes(3)
    assert lanes.trailing == 3
    lanes.offer(event(9), ())
    assert (lanes.trailing, lanes.position, lanes.size) == (9, 9, 0)


def test_the_position_stays_below_what_isnt_finished() -> None:
    lanes = Lanes(0)
    offer(lanes, "a", "b", "c")
    first, second, third = taken(lanes), taken(lanes), taken(lanes)
    lanes.finish(third.lane)
    lanes.finish(second.lane)
    assert lanes.trailing == 0
    lanes.finish(first.lane)
    assert lanes.trailing == 3


# -- failure -------------------------------------------------------------------------------------------------------


def test_a_failure_delays_its_lane_and_no_other() -> None:
    lanes = Lanes(0)
    offer(lanes, "a", "b")
    first = taken(lanes)
    assert lanes.fail(first.lane, 0.0, 1.0) is None
    second = taken(lanes)
    assert second.lane.key == "b"
    assert lanes.take(0.0) is None
    when = lanes.next_time()
    assert when == FIRST_DELAY_S
    assert lanes.take(when - 0.001) is None
    assert positions(taken(lanes, when)) == [1]
    assert lanes.next_time() is None


def test_delays_grow_to_a_limit() -> None:
    lanes = Lanes(0, max_attempts=100)
    offer(lanes, "a")
    now, delays = 0.0, []
    for _ in range(15):
        work = taken(lanes, now)
        lanes.fail(work.lane, now, 1.0)
        when = lanes.next_time()
        assert when is not None
        delays.append(when - now)
        now = when
    assert delays[:3] == pytest.approx([0.1, 0.2, 0.4])
    assert delays == sorted(delays)
    assert delays[-1] == pytest.approx(MAX_DELAY_S)


def test_delays_grow_for_passing_troubles_too() -> None:
    lanes = Lanes(0)
    offer(lanes, "a")
    now = 0.0
    for _ in range(50):
        lanes.fail(taken(lanes, now).lane, now, 1.0, counted=False)
        when = lanes.next_time()
        assert when is not None
        last, now = when - now, when
    assert last == pytest.approx(MAX_DELAY_S)


@pytest.mark.parametrize(("told", "delay"), [(5.0, 5.0), (0.0, FIRST_DELAY_S), (1e9, MAX_TOLD_DELAY_S)])
def test_a_receivers_own_word_is_kept(told: float, delay: float) -> None:
    lanes = Lanes(0)
    offer(lanes, "a")
    lanes.fail(taken(lanes).lane, 0.0, 1.0, counted=False, least_s=told)
    assert lanes.next_time() == delay


def test_the_last_attempt_hands_the_event_back_to_be_buried() -> None:
    lanes = Lanes(0, max_attempts=3)
    offer(lanes, "a", "a")
    for _ in range(2):
        assert lanes.fail(taken(lanes, 1e9).lane, 0.0, 0.0) is None
    work = taken(lanes, 1e9)
    last = lanes.fail(work.lane, 0.0, 0.0)
    assert last is not None
    assert (last.position, work.lane.attempts) == (1, 3)
    assert lanes.take(1e9) is None  # its lane waits until it is buried
    lanes.finish(work.lane)
    following = taken(lanes, 1e9)
    assert (positions(following), following.lane.attempts) == ([2], 0)


def test_an_event_that_cant_be_buried_comes_again_and_is_handed_back_again() -> None:
    lanes = Lanes(0, max_attempts=1)
    offer(lanes, "a")
    work = taken(lanes)
    assert lanes.fail(work.lane, 0.0, 0.0) is not None
    assert lanes.fail(work.lane, 0.0, 0.0, counted=False) is None
    assert lanes.trailing == 0
    work = taken(lanes, 1e9)
    assert lanes.fail(work.lane, 0.0, 0.0) is not None
    lanes.finish(work.lane)
    assert lanes.trailing == 1


def test_what_is_final_is_handed_back_at_once() -> None:
    lanes = Lanes(0, max_attempts=5)
    offer(lanes, "a")
    assert lanes.fail(taken(lanes).lane, 0.0, 0.0, final=True) is not None


def test_a_passing_trouble_is_no_attempt() -> None:
    lanes = Lanes(0, max_attempts=1)
    offer(lanes, "a")
    for _ in range(10):
        assert lanes.fail(taken(lanes, 1e9).lane, 0.0, 0.0, counted=False) is None


def test_a_batch_that_fails_comes_again_one_by_one_until_the_culprit_is_found() -> None:
    lanes = Lanes(0, batch=3, max_attempts=1)
    offer(lanes, *("a" * 6))
    work = taken(lanes)
    assert lanes.fail(work.lane, 0.0, 0.0) is None
    first = taken(lanes)
    assert positions(first) == [1]
    lanes.finish(first.lane)
    second = taken(lanes)
    assert positions(second) == [2]
    assert lanes.fail(second.lane, 0.0, 0.0) is not None
    lanes.finish(second.lane)
    third = taken(lanes)
    assert positions(third) == [3]
    lanes.finish(third.lane)
    assert positions(taken(lanes)) == [4, 5, 6]


def test_a_batch_that_meets_a_passing_trouble_stays_a_batch() -> None:
    lanes = Lanes(0, batch=3)
    offer(lanes, *("a" * 3))
    lanes.fail(taken(lanes).lane, 0.0, 0.0, counted=False)
    assert positions(taken(lanes, 1e9)) == [1, 2, 3]


# -- visitors ------------------------------------------------------------------------------------------------------


def test_a_visitor_waits_for_the_lane_and_has_it_to_itself() -> None:
    lanes = Lanes(0)
    offer(lanes, "a", "a")
    own = taken(lanes)
    lanes.visit("a", event(77), "token")
    assert lanes.take(0.0) is None
    lanes.finish(own.lane)
    visit = taken(lanes)
    assert (positions(visit), visit.token) == ([77], "token")
    assert lanes.take(0.0) is None
    lanes.finish(visit.lane)
    assert positions(taken(lanes)) == [2]
    assert lanes.trailing == 1


def test_a_visitor_that_comes_while_one_is_under_way_isnt_taken_for_it() -> None:
    lanes = Lanes(0)
    lanes.visit("a", event(1), "one")
    first = taken(lanes)
    lanes.visit("a", event(2), "two")
    lanes.finish(first.lane)
    assert taken(lanes).token == "two"


def test_a_visitor_that_fails_isnt_repeated_and_owes_nothing() -> None:
    lanes = Lanes(5)
    lanes.visit("a", event(3), "token")
    assert lanes.fail(taken(lanes).lane, 0.0, 0.0) is None
    assert lanes.take(1e9) is None
    assert (lanes.trailing, lanes.size) == (5, 0)


def test_a_visitor_doesnt_wait_out_a_delay() -> None:
    lanes = Lanes(0)
    offer(lanes, "a", "b")
    lanes.fail(taken(lanes).lane, 0.0, 1.0)
    lanes.fail(taken(lanes).lane, 0.0, 1.0)
    lanes.visit("a", event(9), "token")
    visit = taken(lanes)
    assert visit.token == "token"
    lanes.finish(visit.lane)
    assert positions(taken(lanes)) == [1]
    assert lanes.next_time() is not None


# -- lanes at rest -------------------------------------------------------------------------------------------------


def test_a_lane_rests_until_it_is_hurried_or_its_time_has_come() -> None:
    lanes = Lanes(0, max_attempts=1)
    offer(lanes, "a", "b", "a")
    lanes.rest(taken(lanes).lane, 600.0)
    assert positions(taken(lanes)) == [2]
    assert lanes.take(599.0) is None
    lanes.hurry("a")
    assert lanes.next_time() is None
    work = taken(lanes)
    assert (positions(work), work.lane.attempts) == ([1], 0)
    lanes.rest(work.lane, 600.0)
    assert positions(taken(lanes, 600.0)) == [1]


def test_a_lane_that_is_hurried_while_it_is_under_way_does_not_rest() -> None:
    lanes = Lanes(0)
    offer(lanes, "a")
    work = taken(lanes)
    lanes.hurry("a")
    lanes.rest(work.lane, 600.0)
    assert positions(taken(lanes)) == [1]
    lanes.hurry("nobody")


def test_lanes_that_are_hurried_again_and_again_leave_nothing_behind() -> None:
    lanes = Lanes(0)
    offer(lanes, *map(str, range(50)))
    work = [taken(lanes) for _ in range(50)]
    for _ in range(1_000):
        one = work.pop()
        lanes.rest(one.lane, 600.0)
        lanes.hurry(one.lane.key)
        work.append(taken(lanes))
    assert len(lanes._delayed) < 100
    for one in work:
        lanes.finish(one.lane)
    assert lanes.next_time() is None
    assert lanes._delayed == []


# -- any order of events -------------------------------------------------------------------------------------------

KEYS = ("a", "b", "c")


class LanesMachine(RuleBasedStateMachine):
    """Any order of offers, starts, ends, failures and visits: nothing is lost or twice, and the position never lies."""

    @initialize(batch=st.integers(1, 4), max_attempts=st.integers(1, 3))
    def begin(self, batch: int, max_attempts: int) -> None:
        self.lanes = Lanes(0, batch, max_attempts)
        self.batch, self.max_attempts = batch, max_attempts
        self.now = 0.0
        self.last = 0
        self.owed: dict[str, list[int]] = {key: [] for key in KEYS}
        self.under_way: list[Work] = []
        self.handled: Counter[tuple[str, int]] = Counter()
        self.offered: set[tuple[str, int]] = set()
        self.visits = 0
        self.visited = 0

    @rule(keys=st.lists(st.sampled_from(KEYS), max_size=4), gap=st.integers(1, 3))
    def offer(self, keys: list[str], gap: int) -> None:
        self.last += gap
        self.lanes.offer(event(self.last), keys)
        for key in set(keys):
            self.owed[key].append(self.last)
            self.offered.add((key, self.last))

    @rule(key=st.sampled_from(KEYS))
    def visit(self, key: str) -> None:
        self.visits += 1
        self.lanes.visit(key, event(-self.visits), object())

    @rule()
    def take(self) -> None:
        work = self.lanes.take(self.now)
        if work is None:
            waiting = {key for key in KEYS if self.owed[key]} - {under.lane.key for under in self.under_way}
            assert not waiting or self.lanes.next_time() is not None
            return
        assert work.lane.key not in {under.lane.key for under in self.under_way}
        if work.token is None:
            assert positions(work) == self.owed[work.lane.key][: len(work.events)]
            assert 1 <= len(work.events) <= self.batch
        self.under_way.append(work)

    def _pick(self, data: st.DataObject) -> Work:
        return self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))

    def _done(self, work: Work) -> None:
        if work.token is not None:
            self.visited += 1
            return
        for position in positions(work):
            self.handled[work.lane.key, position] += 1
            assert self.owed[work.lane.key].pop(0) == position

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        work = self._pick(data)
        self.lanes.finish(work.lane)
        self._done(work)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), counted=st.booleans(), final=st.booleans(), buried=st.booleans())
    def fail(self, data: st.DataObject, counted: bool, final: bool, buried: bool) -> None:
        work = self._pick(data)
        last = self.lanes.fail(work.lane, self.now, 0.5, counted=counted, final=final)
        if work.token is not None:
            assert last is None
            self.visited += 1
        elif last is not None:
            assert counted
            assert positions(work) == [last.position]
            if buried:
                self.lanes.finish(work.lane)
                self._done(work)
            else:
                assert self.lanes.fail(work.lane, self.now, 0.5, counted=False) is None

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def rest(self, data: st.DataObject) -> None:
        work = self._pick(data)
        if work.token is None:
            self.lanes.rest(work.lane, self.now + 600.0)
        else:
            self.under_way.append(work)

    @rule(key=st.sampled_from(KEYS))
    def hurry(self, key: str) -> None:
        self.lanes.hurry(key)

    @rule()
    def wait(self) -> None:
        when = self.lanes.next_time()
        if when is not None:
            self.now = max(self.now, when)

    @invariant()
    def nothing_is_handled_twice_and_the_position_is_below_the_lowest_unfinished(self) -> None:
        if not hasattr(self, "lanes"):
            return
        assert all(times == 1 for times in self.handled.values())
        lowest = min((owed[0] for owed in self.owed.values() if owed), default=None)
        assert self.lanes.trailing == (self.last if lowest is None else lowest - 1)
        assert self.lanes.size == sum(map(len, self.owed.values()))

    def teardown(self) -> None:
        if not hasattr(self, "lanes"):
            return
        for _ in range(10_000):
            for work in self.under_way:
                self.lanes.finish(work.lane)
                self._done(work)
            self.under_way.clear()
            work_now = self.lanes.take(1e12)
            if work_now is None:
                break
            self.under_way.append(work_now)
        assert set(self.handled) == self.offered
        assert self.visited == self.visits
        assert self.lanes.trailing == self.last


TestLanesInAnyOrder = LanesMachine.TestCase


@given(st.integers(1, 5), st.lists(st.sampled_from(KEYS), max_size=60), st.randoms())
def test_every_lane_sees_all_of_its_events_in_order_whatever_fails(batch: int, keys: list[str], random: object) -> None:
    chance = random.random  # type: ignore[attr-defined]
    lanes = Lanes(0, batch, max_attempts=2)
    offer(lanes, *keys)
    seen: dict[str, list[int]] = {key: [] for key in KEYS}
    now = 0.0
    while lanes.trailing < len(keys):
        work = lanes.take(now)
        if work is None:
            now = lanes.next_time() or now
            continue
        lane: Lane = work.lane
        if chance() < 0.5:
            seen[lane.key] += positions(work)
            lanes.finish(lane)
        elif (last := lanes.fail(lane, now, chance())) is not None:
            seen[lane.key].append(last.position)
            lanes.finish(lane)
    assert seen == {key: [p for p, k in enumerate(keys, 1) if k == key] for key in KEYS}
