"""Alerts: what somebody has to look at, told once for all nodes, from its beginning to its end.

An agent of the platform's own keeps those that are open, so that an alert, and the event that tells it, are one commit, and of several nodes that see
the same thing one is the first. What happens is numbered, by the lives of nodes or by time: who tells late of what is over isn't heard.
While the store is away nothing can be told; it is then as soon as it is back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from contextvars import Context
from dataclasses import field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import msgspec

from ..core.errors import AgentFailed, JidoError, RecordUnreadable, ShuttingDown, describe
from ..core.shown import cut
from .agent import Agent
from .blocks import Lifecycle
from .definition import action
from .outbox import backoff_s

if TYPE_CHECKING:
    from .node import Node

Kind: TypeAlias = Literal["node_down", "node_suspect", "store_unavailable", "weak_server", "agent_failed", "dead_letters"]
Level: TypeAlias = Literal["warning", "critical"]
LEVELS: Mapping[Kind, Level] = {
    "node_down": "critical", "node_suspect": "warning", "store_unavailable": "critical", "weak_server": "warning", "agent_failed": "critical",
    "dead_letters": "warning",
}  # fmt: skip
MAX_ALERTS = 1_000
"""How many are kept open; the oldest goes for one more."""
MAX_UNTOLD = 1_000
"""How many a node keeps in mind while the store is away."""
MAX_CHARS = 500


class Alert(msgspec.Struct, frozen=True):
    """An alert.

    Attributes:
        kind: "node_down", "node_suspect", "store_unavailable", "weak_server", "agent_failed" or "dead_letters"
        about: whom it concerns: a node, an agent's address, a server
        level: "warning" or "critical"
        told: what has happened, in a sentence
        since_s: when that was noticed, seconds since the epoch
        number: of two about the same, the later one has the larger number
    """

    kind: Kind
    about: str
    level: Level
    told: str
    since_s: float
    number: int


class _Over(NamedTuple):
    kind: Kind
    about: str
    number: int


BOARD = "jido.alerts"


class AlertBoard(Agent, name=BOARD):
    """The alerts that are open, and up to which number those about something are over."""

    lifecycle = Lifecycle(shutdown_grace_period=0)
    alerts: dict[str, Alert] = field(default_factory=dict)
    over: dict[str, int] = field(default_factory=dict)

    @action
    async def begin(self, alert: Alert) -> bool:
        """Whether it is news."""
        name = f"{alert.kind} {alert.about}"
        if alert.number <= self.over.get(name, -1):
            return False
        known = self.alerts.get(name)
        if known is not None:
            self.alerts[name] = msgspec.structs.replace(known, number=max(known.number, alert.number))
            return False
        _make_room(self.alerts)
        self.alerts[name] = alert
        self._tell(alert, "begun")
        return True

    @action
    async def end(self, kind: Kind, about: str, number: int) -> bool:
        """Whether there was one."""
        name = f"{kind} {about}"
        self.over.pop(name, None)
        _make_room(self.over)
        self.over[name] = number
        alert = self.alerts.get(name)
        if alert is None or alert.number > number:
            return False
        del self.alerts[name]
        self._tell(alert, "ended")
        return True

    @action
    async def dismiss(self, kind: str, about: str) -> bool:
        """End one, whatever its number is; whether there was one."""
        alert = self.alerts.get(f"{kind} {about}")
        return alert is not None and await self.end(alert.kind, about, alert.number)

    @action(readonly=True)
    async def all(self) -> list[Alert]:
        """Those that are open, the oldest first."""
        return sorted(self.alerts.values(), key=lambda alert: alert.since_s)

    def _tell(self, alert: Alert, state: str) -> None:
        data = {"state": state, "about": alert.about, "level": alert.level, "told": alert.told, "since_s": alert.since_s}
        self.emit(f"jido.alert.{alert.kind}", data, stream="jido.alerts")


def _make_room(kept: dict[str, Any]) -> None:
    while len(kept) >= MAX_ALERTS:
        del kept[next(iter(kept))]


class Alerts:
    """The alerts that one node tells of. It never waits: what can't be told yet is told later."""

    __slots__ = ("_node", "_telling", "_untold")

    def __init__(self, node: Node) -> None:
        self._node = node
        self._untold: deque[Alert | _Over] = deque(maxlen=MAX_UNTOLD)
        self._telling = False

    def begin(self, kind: Kind, about: str, told: str, number: int | None = None) -> None:
        """Something has happened; `number`: by default the time."""
        now_s = self._node.clock.time_s()
        self._tell(Alert(kind, cut(about, MAX_CHARS), LEVELS[kind], cut(told, MAX_CHARS), now_s, _number(now_s) if number is None else number))

    def end(self, kind: Kind, about: str, number: int | None = None) -> None:
        """It is over, up to that number."""
        self._tell(_Over(kind, cut(about, MAX_CHARS), _number(self._node.clock.time_s()) if number is None else number))

    def are_now(self, kind: Kind, all_of_it: Mapping[str, str]) -> None:
        """All that there is of a kind: what it is about, and what is to be told. Others of it are over."""
        for about, told in all_of_it.items():
            self.begin(kind, about, told)
        self._node.own(self._end_others(kind, {cut(about, MAX_CHARS) for about in all_of_it}))

    async def _end_others(self, kind: Kind, abouts: set[str]) -> None:
        try:
            alerts = await self.all()
        except JidoError as error:
            self._node.log.warning("whether alerts are over isn't known", kind=kind, error=describe(error))
            return
        for alert in alerts:
            if alert.kind == kind and alert.about not in abouts:
                self.end(kind, alert.about)

    async def all(self) -> list[Alert]:
        """Those of all nodes that are open, the oldest first."""
        alerts: list[Alert] = await self._board().all()
        return alerts

    async def dismiss(self, kind: str, about: str) -> bool:
        """End one by hand; whether there was one."""
        over: bool = await self._board().dismiss(kind, about)
        return over

    def _board(self) -> Any:
        return self._node.hosts[BOARD].ref("cluster")

    def _tell(self, what: Alert | _Over) -> None:
        if not self._node.closing:
            self._untold.append(what)
            if not self._telling:
                self._telling = True
                self._node.loop.call_soon(self._begin_to_tell, context=Context())  # on nobody's behalf, whoever's turn it is

    def _begin_to_tell(self) -> None:
        self._node.own(self._tell_all())

    async def _tell_all(self) -> None:
        tries = 0
        try:
            while self._untold:
                what = self._untold[0]
                try:
                    await self._tell_one(what)
                except (AgentFailed, RecordUnreadable) as error:
                    self._node.log.error("alerts can't be kept", error=describe(error))
                except ShuttingDown:
                    return
                except JidoError:
                    tries += 1
                    await asyncio.sleep(backoff_s(tries, self._node.random()))
                    continue
                tries = 0
                if self._untold and self._untold[0] is what:
                    self._untold.popleft()
        finally:
            self._telling = False

    async def _tell_one(self, what: Alert | _Over) -> None:
        kept = BOARD in self._node.hosts
        if isinstance(what, Alert):
            if not kept or await self._board().begin(what):
                log = self._node.log.critical if what.level == "critical" else self._node.log.warning
                log("an alert", kind=what.kind, about=what.about, told=what.told)
        elif kept and await self._board().end(*what):
            self._node.log.info("an alert is over", kind=what.kind, about=what.about)


def _number(time_s: float) -> int:
    return int(time_s * 1_000)
