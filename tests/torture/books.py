"""What must hold after any number of kills, as a pure machine: told what was asked, answered and found, it names what is wrong.

Fed in any order of lives: `asked`, `answered` and `refused` as the callers said, `see` with each event of the log in
order of positions, `states` with what the agents hold. An operation is there whole (noted in the log, in the state,
with everything that it caused) or not at all; an answered one is there; a refused one isn't.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jidosystem import Event
from tests.torture.program import TICK_S, fold

RELAYS = 3
"""How many more agents a relayed message passes through."""

PRIMARY = {
    "deposit": "deposited", "transfer": "sent", "relay": "relayed", "promise": "promised", "nest": "nested", "post": "received", "toss": "received",
    "publish": "published", "refuse": "never",
}  # fmt: skip
"""What an operation of each kind notes where it was asked for."""


CAUSES: dict[str, set[str]] = {
    "deposited": {"deposit", "nest"}, "sent": {"transfer"}, "received": {"transfer", "post", "toss"}, "relayed": {"relay"}, "promised": {"promise"},
    "kept": {"promise"}, "nested": {"nest"}, "published": {"publish"}, "never": set(),
}  # fmt: skip
"""Which kinds of operation lead to a note."""


class Op(NamedTuple):
    """One operation as it was asked for; `agent` is the account's key."""

    kind: str
    agent: str
    keyed: bool = False


class Mark(NamedTuple):
    """Something noted: what, for which operation, by whom, and how many hops were left."""

    what: str
    op: int
    source: str
    left: int = 0


@dataclass
class Noted:
    """What the log tells of one agent."""

    count: int = 0
    trace: int = 0
    balance: int = 0


@dataclass
class Books:
    """See the module."""

    ops: dict[int, Op] = field(default_factory=dict)
    replies: dict[int, Any] = field(default_factory=dict)
    refusals: dict[int, str] = field(default_factory=dict)
    position: int = 0
    wrong: list[str] = field(default_factory=list)
    agents: dict[str, Noted] = field(default_factory=dict)
    marks: dict[Mark, tuple[int, int]] = field(default_factory=dict)  # position, n
    _to_come: dict[Mark, float] = field(default_factory=dict)  # and since when (wall clock)
    _tallied: dict[str, int] = field(default_factory=dict)
    _began_s: float = 0.0
    ticked: tuple[float, float] | None = None  # the newest tick: when, and how many were too few by then

    # -- what callers say ----------------------------------------------------------------------------------------

    def asked(self, number: int, op: Op) -> None:
        """An operation is about to be asked for, perhaps again."""
        if self.ops.setdefault(number, op) != op:
            self._wrong(f"the test is wrong: operation {number} was asked for as {self.ops[number]} and as {op}")

    def answered(self, number: int, reply: Any) -> None:
        """A caller has its answer."""
        if self.replies.setdefault(number, reply) != reply:
            self._wrong(f"two answers: operation {number} was answered {self.replies[number]!r} and then {reply!r}")
        if number in self.refusals:
            self._wrong(f"answered after a refusal: operation {number}, {self.refusals[number]}")
        if number in self.ops and self.ops[number].kind == "post":
            self._expect(Mark("received", number, f"Account/{self.ops[number].agent}"), 0.0)

    def refused(self, number: int, why: str) -> None:
        """A caller was told that nothing happened."""
        self.refusals[number] = why

    # -- what is found -------------------------------------------------------------------------------------------

    def see(self, event: Event) -> None:
        """The next event of the log."""
        if event.position <= self.position:
            self._wrong(f"out of order: position {event.position} after {self.position}")
        self.position = event.position
        if event.type == "tally":
            self._tallied[event.data["of"]] = event.data["count"]
            return
        what, number = event.type.removeprefix("t."), event.data["op"]
        source = event.source if what != "published" else "outside"
        mark = Mark(what, number, source, len(event.data.get("path", ())))
        if what in ("began", "ticked"):
            self._see_tick(event)
        elif mark in self.marks:
            self._wrong(f"doubled: {mark} at {self.marks[mark][0]} and {event.position}")
        elif number not in self.ops or self.ops[number].kind not in CAUSES[what]:
            self._wrong(f"nobody asked: {mark}, operation {self.ops.get(number)}")
        else:
            self._check_cause(mark, event)
        self.marks[mark] = (event.position, event.data.get("n", 0))
        self._note(what, number, event.source, event.data)
        self._caused(what, number, event)

    def _note(self, what: str, number: int, source: str, data: Mapping[str, Any]) -> None:
        noted = self.agents.setdefault(source, Noted())
        noted.count += 1
        noted.trace = fold(noted.trace, what, number)
        noted.balance += data.get("amount", 0) * (-1 if what == "sent" else 1)
        if "n" in data and data["n"] != noted.count:
            self._wrong(f"lost or doubled: {source} noted {what} of {number} as its {data['n']}th, the log holds {noted.count} of it")
            noted.count = data["n"]

    def _check_cause(self, mark: Mark, event: Event) -> None:
        """What was caused comes after its cause, and a promise isn't kept before its time."""
        due_s = self._to_come.pop(mark, None)
        caused = mark.what == "kept" or (mark.what == "received" and self.ops[mark.op].kind == "transfer") or self._is_relayed(mark)
        if caused and due_s is None:
            self._wrong(f"nothing caused it: {mark}")
        elif due_s is not None and event.time_s < due_s:
            self._wrong(f"too early: {mark}, by {due_s - event.time_s:.3f} s")

    def _is_relayed(self, mark: Mark) -> bool:
        return mark.what == "relayed" and mark.left < RELAYS

    def _caused(self, what: str, number: int, event: Event) -> None:
        data = event.data
        if what == "sent":
            self._expect(Mark("received", number, f"Account/{data['to']}"), event.time_s)
        elif what == "relayed" and data["path"]:
            self._expect(Mark("relayed", number, f"Account/{data['path'][0]}", len(data["path"]) - 1), event.time_s)
        elif what == "promised":
            self._expect(Mark("kept", number, event.source), data["due_s"])
        elif what == "nested":
            inner = self.marks.get(Mark("deposited", number, f"Account/{data['other']}"))
            if inner is None or inner[1] != data["inner"]:
                self._wrong(f"torn: {event.source} says of {number} that {data['other']} answered {data['inner']}, the log says {inner}")

    def _expect(self, mark: Mark, since_s: float) -> None:
        if mark not in self.marks:
            self._to_come[mark] = since_s

    def _see_tick(self, event: Event) -> None:
        if event.type == "t.began":
            self._began_s = event.time_s
            return
        due = (event.time_s - self._began_s) / TICK_S
        self.ticked = (event.time_s, due - event.data["ticks"])
        if event.data["ticks"] > due + 1:
            self._wrong(f"doubled: {event.data['ticks']} ticks in {due:.3f} times their interval")

    # -- what is still to come -----------------------------------------------------------------------------------

    def to_come(self, now_s: float) -> dict[Mark, float]:
        """What must come by itself: effects that were noted and haven't arrived, promises that are due."""
        return {mark: since_s for mark, since_s in self._to_come.items() if since_s <= now_s}

    def latest_due_s(self, now_s: float) -> float:
        """When the last promise is due; `now_s` if none is."""
        return max(self._to_come.values(), default=now_s)

    def ticks_again(self, since_s: float) -> bool:
        """Whether, since then, a tick has come in time and no earlier one is missing. Nobody began ticking: nothing to come."""
        return not self._began_s or (self.ticked is not None and self.ticked[0] >= since_s and self.ticked[1] < 0.9)

    def untallied(self, but: Iterable[str] = ()) -> dict[str, tuple[int, int]]:
        """Agents whose tally hasn't followed the log to its end: (tallied, noted)."""
        found = {of: (self._tallied.get(of, 0), noted.count) for of, noted in self.agents.items() if of not in but}
        return {of: counts for of, counts in found.items() if counts[0] != counts[1]}

    # -- the reckoning -------------------------------------------------------------------------------------------

    def reckon(self, now_s: float) -> list[str]:
        """Everything that is wrong so far, with what should have come by now."""
        for mark, since_s in self.to_come(now_s).items():
            self._wrong(f"lost: {mark} never came, {now_s - since_s:.3f} s after it was due")
        for number in self.replies:
            self._check_answered(number)
        for number, why in self.refusals.items():
            self._check_refused(number, why)
        return self.wrong

    def forget_decided(self) -> None:
        """Answers and refusals were checked once; their operations stay known, so that nothing comes twice later."""
        self.replies.clear()
        self.refusals.clear()

    def _check_answered(self, number: int) -> None:
        op, reply = self.ops[number], self.replies[number]
        if op.kind == "toss":
            return
        mark = self._primary(number)
        found = self.marks.get(mark)
        if found is None:
            self._wrong(f"lost: operation {number}, {op}, was answered {reply!r}; {mark} isn't in the log")
        elif op.kind == "publish" and found[0] != reply:
            self._wrong(f"torn: event {number} was answered position {reply}, it is at {found[0]}")
        elif op.kind not in ("post", "publish") and found[1] != reply:
            self._wrong(f"torn: operation {number}, {op}, was answered {reply!r}; the log says {found[1]}")

    def _check_refused(self, number: int, why: str) -> None:
        if self._primary(number) in self.marks:
            self._wrong(f"torn: operation {number}, {self.ops[number]}, was refused ({why}) and is in the log")

    def _primary(self, number: int) -> Mark:
        op = self.ops[number]
        source = "outside" if op.kind == "publish" else f"Account/{op.agent}"
        return Mark(PRIMARY[op.kind], number, source, RELAYS if op.kind == "relay" else 0)

    def compare(self, states: Mapping[str, Mapping[str, Any]], tallies: Mapping[str, Mapping[str, Any]]) -> None:
        """What the agents hold, beside what the log tells of them."""
        for source, state in states.items():
            noted = self.agents.get(source, Noted())
            for name in ("count", "trace", "balance"):
                if name in state and state[name] != getattr(noted, name):
                    self._wrong(f"torn: {source}.{name} is {state[name]}, by the log it should be {getattr(noted, name)}")
        for source, tally in tallies.items():
            noted = self.agents.get(source, Noted())
            for name in ("count", "trace"):
                if tally[name] != getattr(noted, name):
                    self._wrong(f"lost or doubled: the tally of {source} has {name} {tally[name]}, by the log it should be {getattr(noted, name)}")
        if not set(states) >= {source for source in self.agents if source.startswith("Account/")}:
            self._wrong("the test is wrong: not every account was looked at")

    def _wrong(self, what: str) -> None:
        if what not in self.wrong:
            self.wrong.append(what)
