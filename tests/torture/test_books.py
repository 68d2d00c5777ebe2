"""The checker catches what it is for: each seeded fault in a good history is named. A checker that passes everything proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from jidosystem import Event
from tests.torture.books import RELAYS, Books, Op
from tests.torture.program import TICK_S, fold


@dataclass
class History:
    """What callers said, what the log holds, what the agents hold; each can be spoiled."""

    asked: dict[int, Op] = field(default_factory=dict)
    answers: list[tuple[int, Any]] = field(default_factory=list)
    refusals: list[tuple[int, str]] = field(default_factory=list)
    log: list[Event] = field(default_factory=list)
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    tallies: dict[str, dict[str, Any]] = field(default_factory=dict)

    def emit(self, what: str, op: int, agent: str, **data: Any) -> None:
        state = self.states.setdefault(f"Account/{agent}", {"count": 0, "trace": 0, "balance": 0})
        state["count"] += 1
        state["trace"] = fold(state["trace"], what, op)
        state["balance"] += data.get("amount", 0) * (-1 if what == "sent" else 1)
        self.append(f"t.{what}", f"Account/{agent}", {"op": op, "n": state["count"], **data})

    def append(self, kind: str, source: str, data: dict[str, Any]) -> None:
        at = len(self.log) + 1
        self.log.append(Event(f"e{at}", kind, source, "", 100.0 + at, data, source, {}, position=at))

    def books(self) -> Books:
        """Everything told, as the runs tell it."""
        books = Books()
        for number, op in self.asked.items():
            books.asked(number, op)
        for number, reply in self.answers:
            books.answered(number, reply)
        for number, why in self.refusals:
            books.refused(number, why)
        for event in self.log:
            books.see(event)
        books.compare(self.states, self.tallies)
        books.reckon(now_s=1_000.0)
        return books

    # -- spoiling ------------------------------------------------------------------------------------------------

    def index(self, what: str) -> int:
        return next(at for at, event in enumerate(self.log) if event.type == f"t.{what}")

    def drop(self, what: str) -> None:
        del self.log[self.index(what)]

    def double(self, what: str) -> None:
        event = self.log[self.index(what)]
        self.log.append(msgspec.structs.replace(event, position=self.log[-1].position + 1))

    def change(self, what: str, **data: Any) -> None:
        at = self.index(what)
        self.log[at] = msgspec.structs.replace(self.log[at], data={**self.log[at].data, **data})

    def swap(self, one: int, other: int) -> None:
        first, second = self.log[one], self.log[other]
        self.log[one] = msgspec.structs.replace(second, position=first.position)
        self.log[other] = msgspec.structs.replace(first, position=second.position)


def good() -> History:
    """One operation of each kind, all whole; one that nobody was answered and that isn't there, one that is."""
    h = History()
    h.asked = {
        1: Op("deposit", "a"), 2: Op("transfer", "a", keyed=True), 3: Op("relay", "a"), 4: Op("promise", "b"), 5: Op("nest", "a"), 6: Op("post", "b"),
        7: Op("toss", "b"), 8: Op("publish", "a"), 9: Op("refuse", "a"), 10: Op("deposit", "a"), 11: Op("transfer", "a"), 12: Op("toss", "b"),
    }  # fmt: skip
    h.emit("deposited", 1, "a", amount=5)
    h.emit("sent", 2, "a", to="b", amount=3)
    h.emit("received", 2, "b", amount=3)
    for left, agent in zip(range(RELAYS, -1, -1), "abab", strict=True):
        h.emit("relayed", 3, agent, path=(["b", "a", "b"])[RELAYS - left :])
    h.emit("promised", 4, "b", due_s=107.5)
    h.emit("kept", 4, "b")
    h.emit("deposited", 5, "b", amount=1)
    h.emit("nested", 5, "a", other="b", inner=h.states["Account/b"]["count"])
    h.emit("received", 6, "b", amount=9)
    h.emit("received", 7, "b", amount=9)
    h.append("t.published", "platform", {"op": 8})
    h.emit("sent", 11, "a", to="b", amount=4)
    h.emit("received", 11, "b", amount=4)
    h.answers = [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, None), (7, None), (8, 14), (12, None)]
    h.refusals = [(9, "Rejected")]
    n = {event.data["op"]: event.data["n"] for event in h.log if event.type in ("t.relayed", "t.promised", "t.nested") and "n" in event.data}
    h.answers = [(3, h.log[3].data["n"]) if number == 3 else (number, n.get(number, reply)) for number, reply in h.answers]
    h.tallies = {of: {"count": state["count"], "trace": state["trace"]} for of, state in h.states.items()}
    return h


def test_a_good_history_is_good() -> None:
    books = good().books()
    assert books.wrong == []
    assert books.to_come(1_000.0) == {}


def test_what_was_asked_and_never_answered_may_be_there_or_not() -> None:
    history = good()
    assert 10 not in {event.data["op"] for event in history.log}
    assert 11 in {event.data["op"] for event in history.log}
    assert history.books().wrong == []


def after_the_answer(h: History) -> None:
    h.answers.append((2, 7))


def without_state(h: History) -> None:
    h.states["Account/a"] = {"count": 0, "trace": 0, "balance": 0}


def state_off(name: str) -> Callable[[History], None]:
    def spoil(h: History) -> None:
        h.states["Account/a"][name] += 1

    return spoil


def tally_off(name: str) -> Callable[[History], None]:
    def spoil(h: History) -> None:
        h.tallies["Account/b"][name] += 1

    return spoil


def from_nowhere(what: str, op: int, **data: Any) -> Callable[[History], None]:
    return lambda h: h.emit(what, op, "a", **data)


def last_lost(h: History) -> None:
    """The newest turn of b is gone from log and state alike: only the effect that caused it knows."""
    gone = h.log.pop()
    assert gone.type == "t.received"
    states = good()
    states.log.pop()
    h.states["Account/b"] = {"count": 0, "trace": 0, "balance": 0}
    for event in h.log:
        if event.source == "Account/b":
            state = h.states["Account/b"]
            state["count"] += 1
            state["trace"] = fold(state["trace"], event.type.removeprefix("t."), event.data["op"])
            state["balance"] += event.data.get("amount", 0)
    h.tallies["Account/b"] = {name: h.states["Account/b"][name] for name in ("count", "trace")}


def unanswered_half(h: History) -> None:
    """Money left a in an operation that nobody was answered, and nothing else of it is there."""
    h.states["Account/a"]["balance"] -= 3


FAULTS: dict[str, tuple[Callable[[History], object], str]] = {
    "an answered call is gone": (lambda h: h.drop("deposited"), "lost: operation 1"),
    "an answered call is there twice": (lambda h: h.double("deposited"), "doubled: Mark(what='deposited', op=1"),
    "an effect never came": (last_lost, "lost: Mark(what='received', op=11"),
    "an effect came twice": (lambda h: h.double("received"), "doubled: Mark(what='received', op=2"),
    "a hop is missing": (lambda h: h.drop("relayed"), "lost: operation 3"),
    "a hop came twice": (lambda h: h.double("relayed"), "doubled: Mark(what='relayed', op=3"),
    "a reminder never came": (lambda h: h.drop("kept"), "lost: Mark(what='kept', op=4"),
    "a reminder came twice": (lambda h: h.double("kept"), "doubled: Mark(what='kept', op=4"),
    "a reminder came too early": (lambda h: h.change("promised", due_s=900.0), "too early: Mark(what='kept', op=4"),
    "a published event is gone": (lambda h: h.drop("published"), "lost: operation 8"),
    "a published event is there twice": (lambda h: h.double("published"), "doubled: Mark(what='published', op=8"),
    "a published event is elsewhere": (lambda h: h.answers.append((8, 3)), "two answers: operation 8"),
    "a durable cast is gone": (lambda h: h.asked.update({20: Op("post", "a")}) or h.answers.append((20, None)), "lost: operation 20"),
    "a call within a call is gone": (lambda h: h.log.pop(h.index("nested") - 1), "torn: Account/a says of 5 that b answered"),
    "a call within a call answered something else": (lambda h: h.change("nested", inner=99), "torn: Account/a says of 5"),
    "another answer than the log's": (lambda h: h.answers.insert(0, (1, 77)), "torn: operation 1"),
    "two answers": (after_the_answer, "two answers: operation 2"),
    "a turn that raised left an event": (from_nowhere("never", 9), "nobody asked: Mark(what='never', op=9"),
    "a turn that raised left an effect": (from_nowhere("received", 9, amount=1), "nobody asked: Mark(what='received', op=9"),
    "a turn that raised left a reminder": (from_nowhere("kept", 9), "nobody asked: Mark(what='kept', op=9"),
    "a refused call is there": (lambda h: h.refusals.append((1, "MailboxFull")), "torn: operation 1"),
    "a call that nobody made": (from_nowhere("deposited", 99, amount=1), "nobody asked: Mark(what='deposited', op=99"),
    "an effect without its cause": (lambda h: h.drop("sent"), "nothing caused it: Mark(what='received', op=2"),
    "an effect of an operation that isn't there": (
        lambda h: h.asked.update({21: Op("transfer", "b")}) or h.emit("received", 21, "a", amount=1), "nothing caused it: Mark(what='received', op=21",  # noqa: E501
    ),
    "the state lacks what the log has": (without_state, "torn: Account/a.count is 0"),
    "the state has counted once more": (state_off("count"), "torn: Account/a.count"),
    "the state's order is another": (state_off("trace"), "torn: Account/a.trace"),
    "half a turn": (unanswered_half, "torn: Account/a.balance"),
    "a subscription missed one or had one twice": (tally_off("count"), "the tally of Account/b has count"),
    "a subscription had another order": (tally_off("trace"), "the tally of Account/b has trace"),
    "a hole in an agent's events": (lambda h: h.change("nested", n=50), "lost or doubled: Account/a noted nested"),
    "two events in the wrong order": (lambda h: h.swap(0, 1), "lost or doubled: Account/a noted sent of 2 as its 2th"),
    "positions that go back": (lambda h: h.log.insert(0, h.log.pop()), "out of order"),
    "an account that nobody looked at": (lambda h: h.states.pop("Account/a"), "not every account was looked at"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_history_is_named(fault: str) -> None:
    history = good()
    spoil, says = FAULTS[fault]
    spoil(history)
    wrong = history.books().wrong
    assert any(line.startswith(says) or says in line for line in wrong), wrong


def test_what_is_still_to_come_is_known_before_it_is_due() -> None:
    history = good()
    history.drop("kept")
    books = Books(ops=history.asked)
    for event in history.log:
        books.see(event)
    assert {mark.op for mark in books.to_come(107.0)} == set()
    assert {mark.op for mark in books.to_come(108.0)} == {4}
    assert books.latest_due_s(50.0) == 107.5


def test_a_tally_that_lags_is_known() -> None:
    history = good()
    books = history.books()
    assert set(books.untallied()) == {"Account/a", "Account/b", "platform"}
    for of, noted in books.agents.items():
        history.append("tally", f"Tally/{of}", {"of": of, "count": noted.count})
        books.see(history.log[-1])
    assert books.untallied() == {}


def test_a_tick_that_is_missing_is_noticed() -> None:
    books = Books()
    history = History()
    history.append("t.began", "Ticker/t", {"op": 0, "n": 1})
    due = int(1.0 / TICK_S)
    history.append("t.ticked", "Ticker/t", {"op": due - 1, "n": 2, "ticks": due - 1})
    for event in history.log:
        books.see(event)
    assert books.wrong == []
    assert not books.ticks_again(101.0)


def test_ticks_that_come_too_often_are_noticed() -> None:
    books = Books()
    history = History()
    history.append("t.began", "Ticker/t", {"op": 0, "n": 1})
    due = int(1.0 / TICK_S)
    history.append("t.ticked", "Ticker/t", {"op": due, "n": 2, "ticks": due})
    history.append("t.ticked", "Ticker/t", {"op": 5 * due, "n": 3, "ticks": 5 * due})
    for event in history.log[:2]:
        books.see(event)
    assert books.wrong == []
    assert books.ticks_again(101.0)
    assert not books.ticks_again(103.0)
    books.see(history.log[2])
    assert books.wrong[0].startswith("doubled: ")
