"""The timer wheel: never early, hardly late, nothing left behind. Time is a loop's that the test moves by hand."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from typing import Any

import looptime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from jidosystem.core.deadlines import Deadlines, Line

TICK_S = 0.02


class Entry:
    def __init__(self, expire: Callable[[Entry, float], None] | None = None) -> None:
        self.slot: int | None = None
        self.deadline = 0.0
        self.expired: list[float] = []
        self._then = expire

    def expire(self, now: float) -> None:
        self.expired.append(now)
        if self._then is not None:
            self._then(self, now)


class Timer:
    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when, self.call, self.cancelled = when, call, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """The part of an event loop that the wheel uses, with time that only moves when told."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now
        self.timers: list[Timer] = []
        self.made = 0
        self.errors: list[dict[str, Any]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], None]) -> Timer:
        self.made += 1
        timer = Timer(when, call)
        self.timers.append(timer)
        return timer

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)

    @property
    def pending(self) -> list[Timer]:
        self.timers = [timer for timer in self.timers if not timer.cancelled]
        return self.timers

    def advance_to(self, when: float) -> None:
        """Run every timer up to a moment, each at its time."""
        while due := [timer for timer in self.pending if timer.when <= when]:
            timer = min(due, key=lambda timer: timer.when)
            self.timers.remove(timer)
            self.now = max(self.now, timer.when)
            timer.call()
        self.now = max(self.now, when)


def wheel(now: float = 1_000.0) -> tuple[Loop, Deadlines]:
    loop = Loop(now)
    return loop, Deadlines(loop, TICK_S)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.floats(-10, 1e7), st.booleans()), max_size=50), st.floats(0, 1e9))
def test_each_entry_expires_once_never_early_and_at_most_a_tick_late(deadlines: list[tuple[float, bool]], start: float) -> None:
    loop, entries = Loop(start), []
    deadlines_ = Deadlines(loop, TICK_S)  # type: ignore[arg-type]
    for offset, keep in deadlines:
        entry = Entry()
        entry.deadline = start + offset
        deadlines_.add(entry.deadline, entry)
        entries.append((entry, keep))
    for entry, keep in entries:
        if not keep:
            deadlines_.discard(entry)
    loop.advance_to(start + 2e7)
    for entry, keep in entries:
        assert len(entry.expired) == keep
        if keep:
            assert entry.deadline <= entry.expired[0]
            assert entry.expired[0] <= max(start, entry.deadline) + TICK_S + 1e-6
    assert len(deadlines_) == 0
    assert not loop.pending


class Wheel(RuleBasedStateMachine):
    """Any order of additions, moves, removals and passing time, against a dictionary of deadlines."""

    def __init__(self) -> None:
        super().__init__()
        self.loop, self.deadlines = wheel()
        self.expected: dict[Entry, float] = {}
        self.entries = [Entry(self.gone) for _ in range(8)]

    def gone(self, entry: Entry, now: float) -> None:
        assert self.expected.pop(entry) <= now

    @rule(which=st.integers(0, 7), offset=st.floats(0, 3) | st.floats(0, 1e6))
    def add(self, which: int, offset: float) -> None:
        entry = self.entries[which]
        self.expected[entry] = self.loop.now + offset
        self.deadlines.add(self.loop.now + offset, entry)

    @rule(which=st.integers(0, 7))
    def discard(self, which: int) -> None:
        self.deadlines.discard(self.entries[which])
        self.expected.pop(self.entries[which], None)

    @rule(step=st.floats(0, 2) | st.floats(0, 1e6))
    def advance(self, step: float) -> None:
        self.loop.advance_to(self.loop.now + step)

    @rule()
    @precondition(lambda self: len(self.expected) > 5)
    def clear(self) -> None:
        self.deadlines.clear()
        self.expected.clear()
        assert not self.loop.pending

    @invariant()
    def nothing_is_overdue_or_forgotten(self) -> None:
        assert len(self.deadlines) == len(self.expected)
        assert all(deadline + TICK_S + 1e-6 >= self.loop.now for deadline in self.expected.values())
        assert len(self.loop.pending) <= 1
        assert len(self.loop.pending) == 1 or not self.expected
        assert {entry for entry in self.entries if entry.slot is not None} == set(self.expected)


TestWheel = Wheel.TestCase


def test_a_million_entries_come_and_go_and_nothing_stays() -> None:
    loop, deadlines = wheel()
    entry = Entry()
    for number in range(1_000_000):
        deadlines.add(1_000 + number * 7.3 % 1e6, entry)
        deadlines.discard(entry)
    assert len(deadlines._slots) < 200
    assert len(deadlines._heap) < 200
    assert len(loop.pending) == 1


def test_a_caller_after_the_other_sets_no_timer_of_its_own() -> None:
    loop, deadlines = wheel()
    entry = Entry()
    for number in range(10_000):
        loop.now = 1_000 + number * 1e-5
        deadlines.add(loop.now + 30, entry)
        deadlines.discard(entry)
    assert loop.made == 1
    loop.advance_to(2_000)
    assert not loop.pending


def test_days_ahead_are_reached_in_one_step() -> None:
    loop, deadlines = wheel()
    entry = Entry()
    deadlines.add(1_000 + 30 * 86_400, entry)
    loop.advance_to(1_000 + 31 * 86_400)
    assert entry.expired == [pytest.approx(1_000 + 30 * 86_400, abs=TICK_S + 1e-6)]
    assert loop.made == 1


def test_infinity_is_never_and_nonsense_is_an_error() -> None:
    loop, deadlines = wheel()
    entry = Entry()
    deadlines.add(math.inf, entry)
    assert entry.slot is None
    assert not loop.pending
    with pytest.raises(ValueError, match="NaN"):
        deadlines.add(math.nan, entry)


def test_an_entry_that_fails_is_told_to_the_loop_and_the_others_expire() -> None:
    loop, deadlines = wheel()
    fault = RuntimeError("boom")

    def fail(_entry: Entry, _now: float) -> None:
        raise fault

    entries = [Entry(fail if number % 2 else None) for number in range(10)]
    for entry in entries:
        deadlines.add(1_001, entry)
    loop.advance_to(1_002)
    assert all(len(entry.expired) == 1 for entry in entries)
    assert [context["exception"] for context in loop.errors] == [fault] * 5


def test_an_interrupt_passes_and_what_was_due_comes_with_the_next_turn() -> None:
    loop, deadlines = wheel()

    def interrupt(_entry: Entry, _now: float) -> None:
        raise KeyboardInterrupt

    first, others = Entry(interrupt), [Entry() for _ in range(5)]
    deadlines.add(1_001, first)
    for offset, entry in enumerate(others):
        deadlines.add(1_001 + offset * TICK_S, entry)
    loop.now = 1_002
    with pytest.raises(KeyboardInterrupt):
        loop.advance_to(1_002)
    loop.advance_to(1_003)
    assert [len(entry.expired) for entry in (first, *others)] == [1] * 6


def test_an_entry_may_take_another_out_that_is_due_with_it() -> None:
    loop, deadlines = wheel()
    pair: list[Entry] = []

    def take_the_other(entry: Entry, _now: float) -> None:
        deadlines.discard(pair[1 - pair.index(entry)])

    pair.extend((Entry(take_the_other), Entry(take_the_other)))
    for entry in pair:
        deadlines.add(1_001, entry)
    loop.advance_to(1_010)
    assert sum(len(entry.expired) for entry in pair) == 1


def test_an_entry_may_come_again_also_with_a_deadline_that_has_passed() -> None:
    loop, deadlines = wheel()

    def again(entry: Entry, now: float) -> None:
        if len(entry.expired) < 4:
            deadlines.add(now - 5 if len(entry.expired) < 3 else now + 5, entry)

    entry = Entry(again)
    deadlines.add(1_001, entry)
    loop.advance_to(1_010)
    assert len(entry.expired) == 4
    assert entry.expired[3] >= entry.expired[2] + 5


def test_clearing_from_within_leaves_nothing() -> None:
    loop, deadlines = wheel()
    entries = [Entry(lambda _entry, _now: deadlines.clear()) for _ in range(5)]
    for entry in entries:
        deadlines.add(1_001, entry)
    loop.advance_to(1_010)
    assert sum(len(entry.expired) for entry in entries) == 1
    assert all(entry.slot is None for entry in entries)
    assert not loop.pending


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_on_a_real_loop_deadlines_are_kept(kind: str) -> None:
    new_loop = asyncio.new_event_loop if kind == "asyncio" else pytest.importorskip("uvloop").new_event_loop

    async def wait() -> list[Entry]:
        loop = asyncio.get_running_loop()
        deadlines = Deadlines(loop)
        done: asyncio.Future[None] = loop.create_future()
        entries: list[Entry] = []

        def count(_entry: Entry, _now: float) -> None:
            if all(entry.expired for entry in entries):
                done.set_result(None)

        for number in range(40):
            entry = Entry(count)
            entry.deadline = loop.time() + number * 0.0017
            entries.append(entry)
            deadlines.add(entry.deadline, entry)
        await asyncio.wait_for(done, 10)
        return entries

    with contextlib.closing(new_loop()) as loop:
        entries = loop.run_until_complete(wait())
    assert all(len(entry.expired) == 1 and entry.expired[0] >= entry.deadline for entry in entries)


def test_on_virtual_time_five_minutes_pass_at_once() -> None:
    async def wait() -> float:
        loop = asyncio.get_running_loop()
        deadlines = Deadlines(loop)
        done: asyncio.Future[float] = loop.create_future()
        entry = Entry(lambda _entry, now: done.set_result(now))
        deadlines.add(loop.time() + 300, entry)
        return await done

    with contextlib.closing(looptime.new_event_loop(start=100)) as loop:
        assert loop.run_until_complete(wait()) == pytest.approx(400, abs=0.03)


class Waiting(Entry):
    """Somebody in line."""

    def __init__(self, deadline: float, expire: Callable[[Entry, float], None] | None = None) -> None:
        super().__init__(expire)
        self.deadline: float = deadline
        self.answered = False

    def expire(self, now: float) -> None:
        self.answered = True
        super().expire(now)


def in_line(loop: Loop, *waiting: Waiting) -> Line:
    line = Line(loop)  # type: ignore[arg-type]
    for entry in waiting:
        line.add(entry)
    return line


def fire(loop: Loop, now: float) -> None:
    loop.now = now
    due = [timer for timer in loop.timers if not timer.cancelled and timer.when <= now]
    loop.timers = [timer for timer in loop.timers if timer not in due]
    for timer in due:
        timer.call()


def test_in_line_only_those_expire_who_were_not_answered_in_time() -> None:
    loop = Loop()
    first, second, third = Waiting(1_001.0), Waiting(1_002.0), Waiting(1_003.0)
    line = in_line(loop, first, second, third)
    first.answered = True
    fire(loop, 1_001.0)
    assert (first.expired, second.expired, len(line)) == ([], [], 2)
    fire(loop, 1_002.5)
    assert (second.expired, third.expired, len(line)) == ([1_002.5], [], 1)
    fire(loop, 1_003.0)
    assert third.expired == [1_003.0]
    assert not line
    assert not [timer for timer in loop.timers if not timer.cancelled]


def test_the_answered_leave_the_line_as_others_come_and_one_timer_is_enough() -> None:
    loop = Loop()
    line = in_line(loop)
    for number in range(10_000):
        entry = Waiting(1_030.0 + number / 1_000)
        line.add(entry)
        entry.answered = True
    assert len(line) == 1
    assert loop.made == 1


def test_nobody_in_line_expires_early_even_behind_a_longer_patience() -> None:
    loop = Loop()
    patient, hasty = Waiting(1_030.0), Waiting(1_001.0)
    line = in_line(loop, patient, hasty)
    fire(loop, 1_001.5)
    assert hasty.expired == []  # it waits for the one before it
    patient.answered = True
    fire(loop, 1_030.0)
    assert (patient.expired, hasty.expired, len(line)) == ([], [1_030.0], 0)


def test_endless_patience_is_no_place_in_line() -> None:
    loop = Loop()
    assert len(in_line(loop, Waiting(math.inf))) == 0
    assert loop.made == 0


def test_one_in_line_who_fails_to_expire_does_not_hold_up_the_others() -> None:
    loop = Loop()

    def fail(_entry: Entry, _now: float) -> None:
        raise RuntimeError("no")

    bad, good = Waiting(1_001.0, fail), Waiting(1_001.0)
    in_line(loop, bad, good)
    fire(loop, 1_001.0)
    assert good.expired == [1_001.0]
    assert len(loop.errors) == 1


def test_a_cleared_line_lets_go_of_the_loop() -> None:
    loop = Loop()
    entry = Waiting(1_001.0)
    line = in_line(loop, entry)
    line.clear()
    fire(loop, 1_002.0)
    assert (len(line), entry.expired) == (0, [])
    assert not [timer for timer in loop.timers if not timer.cancelled]


def test_entries_of_one_tick_expire_in_the_order_in_which_they_were_added() -> None:
    loop, told = Loop(), []
    wheel = Deadlines(loop, TICK_S)  # type: ignore[arg-type]
    entries = [Entry(lambda entry, _now: told.append(entries.index(entry))) for _ in range(50)]
    for entry in entries:
        wheel.add(1_000.001, entry)
    wheel.add(1_000.001, entries[7])  # added again: it is the last
    wheel.discard(entries[9])
    loop.now = 1_001.0
    for timer in list(loop.timers):
        if not timer.cancelled:
            timer.call()
    assert told == [*(number for number in range(50) if number not in (7, 9)), 7]
