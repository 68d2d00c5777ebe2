"""What goes wrong in a test, when: drawn from a seed, or said exactly. Decisions only; `FaultyRecords` and `FaultyWire` carry them out.

The same seed and the same questions in the same order give the same faults. Everything that was made to fail is in `journal`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import inf
from random import Random
from typing import Literal, NamedTuple, get_args

from ..core.errors import InvalidArguments

Kind = Literal["fail", "lost", "done", "slow", "crash-before", "crash-after"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MAX_JOURNAL = 1_000
TOLD = 12


def _check_odds(odds: StoreFaults | WireFaults) -> None:
    for name in odds.__slots__:
        value = getattr(odds, name)
        most = inf if name.endswith("_s") else 1
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            raise InvalidArguments(f"{type(odds).__name__}({name}={value!r}): a number from 0{'' if most == inf else ' to 1'}", path=f"$.{name}")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreFaults:
    """How likely, from 0 to 1, each operation meets a fault. `fail`: a commit or append fails, known not to have happened. `unknown`: its
    outcome is unknown; half of those have happened. `slow`: commits and reads take up to `slow_s` seconds. `read_fail`: a read fails.
    `away`: from there on everything fails for up to `away_s` seconds. What can't be odds is `InvalidArguments`.
    """

    fail: float = 0.0
    unknown: float = 0.0
    slow: float = 0.0
    slow_s: float = 1.0
    read_fail: float = 0.0
    away: float = 0.0
    away_s: float = 10.0

    def __post_init__(self) -> None:
        _check_odds(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class WireFaults:
    """The same for requests and messages. `lost`: it, or its answer, never arrives. `delayed`: it takes up to `delay_s` seconds, and later
    ones overtake it. `duplicated`: it arrives twice, which no wire of the contract does; receivers that must bear it are tested so.
    """

    lost: float = 0.0
    delayed: float = 0.0
    delay_s: float = 1.0
    duplicated: float = 0.0

    def __post_init__(self) -> None:
        _check_odds(self)


class Fate(NamedTuple):
    """What becomes of one operation; `delay_s` counts for "slow"."""

    kind: Kind
    delay_s: float = 0.0


@dataclass(slots=True)
class _Scheduled:
    kind: Kind
    agent: str
    left: int
    seconds: float


class Faults:
    """What goes wrong, when: drawn from the seed by the odds in `store` and `wire`, or scheduled. `seed` and the odds are attributes;
    `journal` holds the last 1,000 things that were made to fail, in words. Each `TestPlatform` has one in `faults`; make one of your own
    for `FaultyRecords` and `FaultyWire`.
    """

    def __init__(self, store: StoreFaults | None = None, wire: WireFaults | None = None, *, seed: int = 0) -> None:
        self.seed = seed
        self.store = store or StoreFaults()
        self.wire = wire or WireFaults()
        self.journal: deque[str] = deque(maxlen=MAX_JOURNAL)
        self._random = Random(f"faults {seed}")
        self._on = False
        self._scheduled: list[_Scheduled] = []
        self._away_until = -inf
        self._commits = 0

    # -- what a test says ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Draw faults from now on. A `TestPlatform` does it when it has started."""
        self._on = True

    def stop(self) -> None:
        """No faults any more, nor what was scheduled; a store that was away is back."""
        self._on = False
        self._scheduled.clear()
        self._away_until = -inf

    def schedule(self, kind: Kind, *, commit: int = 1, agent: str = "*", seconds: float = 1.0) -> None:
        """Let the n-th commit from now on, of agents whose address fits (`Counter/a`, `Counter/*`), meet a fault. An append to the event log is a
        commit of `log/<stream>`; the platform's own records begin with `jido.`.

        What becomes of the commit, by `kind`:

        - `fail`: it doesn't happen, and that is known: `StoreUnavailable`
        - `lost`: it doesn't happen, and nobody knows: `CommitUnknown`
        - `done`: it happens, and nobody knows: `CommitUnknown`
        - `slow`: it takes so many seconds
        - `crash-before`: the platform crashes when it is asked for
        - `crash-after`: the platform crashes when it is durable and nobody has been told
        """
        if kind not in KINDS:
            raise InvalidArguments(f"kind={kind!r}: one of {', '.join(KINDS)}", path="$.kind")
        if isinstance(commit, bool) or not isinstance(commit, int) or commit < 1:
            raise InvalidArguments(f"commit={commit!r}: a whole number, at least 1", path="$.commit")
        self._scheduled.append(_Scheduled(kind, agent, commit, seconds))

    def go_away(self, seconds: float) -> None:
        """The store fails everything for so many seconds."""
        self._away_until = asyncio.get_running_loop().time() + seconds
        self._note(f"the store is away for {seconds:g} s")

    @property
    def pending(self) -> list[str]:
        """What was scheduled and hasn't happened yet, in words; empty: all of it has."""
        return [f"{entry.kind} at commit {entry.left} of {entry.agent}" for entry in self._scheduled]

    @property
    def commits(self) -> int:
        """How many commits and appends were asked for so far."""
        return self._commits

    # -- what the adapters ask -------------------------------------------------------------------------------

    def of_commit(self, agent: str, now_s: float) -> Fate | None:
        """What becomes of a commit; None: nothing special."""
        self._commits += 1
        fate = self._planned(agent) or self._drawn(now_s)
        if fate is not None:
            self._note(f"commit {self._commits}, of {agent}: {fate.kind}")
        return fate

    def of_read(self, what: str, now_s: float) -> Fate | None:
        """The same for a read: "fail", "slow", or None."""
        odds = self.store
        fate: Fate | None = None
        if now_s < self._away_until or (self._on and self._draw(odds.read_fail)):
            fate = Fate("fail")
        elif self._on and self._draw(odds.slow):
            fate = Fate("slow", self._random.random() * odds.slow_s)
        if fate is not None:
            self._note(f"a read of {what}: {fate.kind}")
        return fate

    def of_message(self, subject: str) -> tuple[bool, bool, float, int]:
        """Of a message or request: whether it is lost, whether its answer is, its delay in seconds, how often it arrives."""
        if not self._on:
            return False, False, 0.0, 1
        odds = self.wire
        lost = self._draw(odds.lost)
        answer_lost = lost and self._draw(0.5)
        delay_s = self._random.random() * odds.delay_s if self._draw(odds.delayed) else 0.0
        times = 2 if self._draw(odds.duplicated) else 1
        if lost or delay_s or times > 1:
            told = ["answer lost" if answer_lost else "lost"] * lost + [f"delayed {delay_s:.3f} s"] * (delay_s > 0) + ["twice"] * (times > 1)
            self._note(f"a message to {subject}: {', '.join(told)}")
        return lost and not answer_lost, answer_lost, delay_s, times

    def _planned(self, agent: str) -> Fate | None:
        hit: Fate | None = None
        for entry in tuple(self._scheduled):
            if fnmatchcase(agent, entry.agent):
                entry.left -= 1
                if not entry.left:
                    self._scheduled.remove(entry)
                    hit = hit or Fate(entry.kind, entry.seconds)
        return hit

    def _drawn(self, now_s: float) -> Fate | None:
        if now_s < self._away_until:
            return Fate("fail")
        if not self._on:
            return None
        odds = self.store
        if self._draw(odds.away):
            self.go_away(self._random.random() * odds.away_s)
            return Fate("fail")
        if self._draw(odds.fail):
            return Fate("fail")
        if self._draw(odds.unknown):
            return Fate("done" if self._draw(0.5) else "lost")
        return Fate("slow", self._random.random() * odds.slow_s) if self._draw(odds.slow) else None

    def _draw(self, odds: float) -> bool:
        return odds > 0 and self._random.random() < odds

    def _note(self, what: str) -> None:
        self.journal.append(f"{asyncio.get_running_loop().time():.3f} s: {what}")

    def __repr__(self) -> str:
        left_out = len(self.journal) - TOLD
        lines = [*([f"… {left_out} more before"] if left_out > 0 else []), *list(self.journal)[-TOLD:]]
        return "\n  ".join([f"Faults(seed={self.seed}), made to fail so far: {len(self.journal) or 'nothing'}", *lines])
