"""NATS as it was measured, for simulations: one store for all nodes, and all that it does to those who ask it.

Decisions only, drawn from a seed or said exactly: when what was sent arrives, whether it takes effect, whether its sender hears of it.
`SimulatedRecords` and `SimulatedLog` carry them out. Compare-and-set is exact, always. Everything else may fail:

- A write that timed out may be applied seconds later, or never; its sender is told that it doesn't know.
- Without a leader, for 4 to 9 seconds, nothing is acknowledged; what is asked fails at once or times out.
- A node cut off with an old leader reads what was there when it was cut off, for up to 20 seconds, and has no write acknowledged or applied.
- A watch, or a follower of the log, may hear nothing for 19.5 seconds, and of no error.
- A write may be refused for the moment, although nothing speaks against it.
- A node may reach nothing, and a disk may be slow, failing or full.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Any

from ..backends.memory import MemoryRecords
from ..core.clock import Clock
from ..core.errors import InvalidArguments
from ..core.records import Record

LEADERLESS_S = (4.0, 9.0)
"""How long there is no leader after one was lost: the election timeout is fixed in the server."""
STALE_S = 20.0
"""How long at most a leader that was cut off goes on answering reads."""
SILENT_S = 19.5
"""How long a watch hears nothing when the server that held its consumer died."""
MAX_JOURNAL = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class NatsOdds:
    """How likely, from 0 to 1, each operation on a healthy store meets a fault, and how long things take. `unknown`: a write isn't
    acknowledged; `late`: how many of the writes that weren't are applied, up to `late_s` seconds after their sender gave up. `refused`: a
    write fails for the moment, and that is known. `read_fail`: a read fails. `slow`: something takes up to `slow_s` seconds. `silenced`: how many
    watches go silent when a leader is lost. `at_once`: how much of what is asked without a leader fails at once; the rest times out.
    """

    latency_s: float = 0.001
    unknown: float = 0.0
    late: float = 0.5
    late_s: float = 10.0
    refused: float = 0.0
    read_fail: float = 0.0
    slow: float = 0.0
    slow_s: float = 1.0
    silenced: float = 0.3
    at_once: float = 0.3

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            most = inf if name.endswith("_s") else 1
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
                raise InvalidArguments(f"NatsOdds({name}={value!r}): a number from 0{'' if most == inf else ' to 1'}", path=f"$.{name}")


@dataclass(slots=True)
class Link:
    """A node's way to the store.

    Attributes:
        node: whose
        cut_until: until then nothing arrives, in either direction
        stale_until: until then it is answered by an old leader
        old: what that one has
        silent_until: until then its watches hear nothing
        last_arrival: of what it sent: what it sends arrives in order
        heard: what waits for its watches to hear again
        closed: the process is gone: nothing more is taken from it
    """

    node: str
    cut_until: float = -inf
    stale_until: float = -inf
    old: MemoryRecords | None = None
    silent_until: float = -inf
    last_arrival: float = -inf
    heard: list[asyncio.Future[None]] = field(default_factory=list)
    closed: bool = False


class SimulatedNats:
    """One store that behaves as NATS does, for all nodes of one loop of virtual time, which get to it by `SimulatedRecords` and `SimulatedLog`.
    The same seed and the same questions in the same order give the same run. `journal` says what was done to whom, in words; `felt` counts, by the
    method that began it and the node (or ""), what a trouble has done to somebody.

    `timeout_s` is how long an adapter waits before it says that it doesn't know. `store` is what is really there, for a test to look at;
    `on_commit` is called at once with each commit that is applied: whose it is, and the record that it made.
    """

    def __init__(self, *, seed: int = 0, odds: NatsOdds | None = None, timeout_s: float = 5.0, clock: Clock | None = None) -> None:
        self.odds = odds or NatsOdds()
        self.timeout_s = timeout_s
        self.store = MemoryRecords(clock=clock)
        self.journal: deque[str] = deque(maxlen=MAX_JOURNAL)
        self.felt: Counter[tuple[str, str]] = Counter()
        self.on_commit: list[Callable[[str, Record], object]] = []
        self._random = Random(f"nats {seed}")
        self._links: dict[str, Link] = {}
        self._leaderless_until = -inf
        self._disk_until = -inf
        self._disk_s = 0.0
        self._disk = ""

    def link(self, node: str) -> Link:
        """A node's way to the store."""
        found = self._links.get(node)
        if found is None:
            found = self._links[node] = Link(node)
        return found

    # -- what a test says ------------------------------------------------------------------------------------

    def lose_leader(self, seconds: float | None = None) -> float:
        """The server that leads dies: nothing is acknowledged for 4 to 9 seconds, or so many, and some nodes' watches go silent. How long it is."""
        lasts_s = self._random.uniform(*LEADERLESS_S) if seconds is None else seconds
        self._leaderless_until = max(self._leaderless_until, _now() + lasts_s)
        self.note(f"the leader is lost, for {lasts_s:.3f} s")
        for link in self._links.values():
            if self._random.random() < self.odds.silenced:
                self.silence(link.node)
        return lasts_s

    def cut(self, node: str, seconds: float) -> None:
        """A node reaches nothing and hears nothing. What it sends meanwhile may arrive when the way is free again."""
        link = self.link(node)
        link.cut_until = _now() + seconds
        self._silent(link, seconds)
        self.note(f"{node} is cut off from the store for {seconds:.3f} s")

    def cut_with_old_leader(self, node: str, seconds: float = STALE_S) -> None:
        """A node is cut off together with the leader, which goes on answering its reads, at most 20 seconds. After them nothing answers until
        `seconds` are over.
        """
        link = self.link(node)
        link.old = link.old if link.old is not None and _now() < link.stale_until else self.store.copy()
        link.stale_until = _now() + min(seconds, STALE_S)
        link.cut_until = _now() + seconds
        self._silent(link, seconds)
        self.note(f"{node} is cut off with the old leader for {seconds:.3f} s")

    def silence(self, node: str, seconds: float = SILENT_S) -> None:
        """A node's watches and followers hear nothing, and of no error."""
        self._silent(self.link(node), seconds)
        self.note(f"the watches of {node} are silent for {seconds:.3f} s")

    def slow_disk(self, seconds: float, each_s: float) -> None:
        """For so long each write takes up to `each_s` seconds more."""
        self._spoil("slow", seconds, each_s)

    def fail_disk(self, seconds: float, *, full: bool = False) -> None:
        """For so long each write fails, and that is known; `full`: because there is no room."""
        self._spoil("full" if full else "failing", seconds, 0.0)

    def close(self, node: str) -> None:
        """A node's process is gone: what it has sent may arrive, nothing more is taken from it."""
        self.link(node).closed = True
        self.note(f"{node} is gone")

    def heal(self) -> None:
        """All is well from now on, but for what is under way."""
        self._leaderless_until = self._disk_until = -inf
        for link in self._links.values():
            link.cut_until = link.stale_until = link.silent_until = -inf
            link.old = None
            self._hear(link)
        self.note("all is well")

    def note(self, what: str) -> None:
        """Put something into the journal."""
        self.journal.append(f"{_now():.6f} s: {what}")

    def _spoil(self, how: str, seconds: float, each_s: float) -> None:
        self._disk, self._disk_s, self._disk_until = how, each_s, _now() + seconds
        self.note(f"the disk is {how} for {seconds:.3f} s")

    # -- what the adapters ask -------------------------------------------------------------------------------

    def is_leaderless(self) -> bool:
        """Whether nothing is acknowledged just now."""
        return _now() < self._leaderless_until

    def reaches(self, link: Link) -> bool:
        """Whether what is acknowledged now gets to the node."""
        if self.is_leaderless():
            self.felt["lose_leader", ""] += 1
            return False
        if _now() < link.cut_until:
            self.felt["cut", link.node] += 1
            return False
        return True

    def disk(self) -> str:
        """What is wrong with the disk now."""
        if _now() >= self._disk_until:
            return ""
        self.felt["disk", ""] += 1
        return self._disk

    def draws(self, odds: float) -> bool:
        """Whether something of these odds happens. Nothing is drawn where nothing can."""
        return odds > 0 and (odds >= 1 or self._random.random() < odds)

    def arrival_s(self, link: Link, *, writes: bool) -> float:
        """When what is sent now arrives: after what the node sent before."""
        takes_s = self.odds.latency_s * (0.5 + self._random.random() / 2)
        if self.draws(self.odds.slow):
            takes_s += self._random.random() * self.odds.slow_s
        if writes and self.disk() == "slow":
            takes_s += self._random.random() * self._disk_s
        link.last_arrival = max(link.last_arrival + 1e-6, _now() + takes_s)
        return link.last_arrival

    def late_s(self, link: Link) -> float | None:
        """When a write is applied whose sender gives up; None: never. While a node is cut off, and while there is no leader, not before that is over;
        and an old leader's writes never are.
        """
        if _now() < link.stale_until or not self.draws(self.odds.late):
            return None
        free_s = max(_now(), link.cut_until, self._leaderless_until)
        return max(free_s, _now() + self.timeout_s) + self._random.random() * self.odds.late_s

    async def heard(self, link: Link) -> None:
        """Wait until a node's watches hear again."""
        while _now() < link.silent_until:
            self.felt["silence", link.node] += 1
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            link.heard.append(future)
            await future

    def _silent(self, link: Link, seconds: float) -> None:
        link.silent_until = max(link.silent_until, _now() + seconds)
        at(link.silent_until, self._hear, link)

    def _hear(self, link: Link) -> None:
        waiting, link.heard = link.heard, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


def _now() -> float:
    return asyncio.get_running_loop().time()


def at(when: float, what: Callable[..., object], *args: Any) -> None:
    """Do something then, on nobody's behalf: it happens although the node that asked for it stands still."""
    asyncio.get_running_loop().call_at(when, what, *args, context=Context())
