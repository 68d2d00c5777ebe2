"""What happens to the nodes of a cluster, as events of the stream `jido.node/<name>`: `jido.node.up`, `down`, `suspect`, `recovered`, `draining`,
`undrained`.

Every node notices by itself; one publishes at once, chosen by rendezvous, the others look a little later whether that was done.
Each looks at the stream first and appends on condition that nothing has come since, so that an occurrence is published once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING

from ..coordination.placement import choose
from ..core.bus import EventBus
from ..core.errors import JidoError, ShuttingDown, StreamConflict, describe
from ..distribution.members import NodeDown, NodeDraining, NodeRecovered, NodeSuspect, NodeUndrained, NodeUp, Occurrence

if TYPE_CHECKING:
    from .node import Node
    from .ownership import Cluster

TYPES: dict[type[Occurrence], str] = {
    NodeUp: "jido.node.up",
    NodeDown: "jido.node.down",
    NodeSuspect: "jido.node.suspect",
    NodeRecovered: "jido.node.recovered",
    NodeDraining: "jido.node.draining",
    NodeUndrained: "jido.node.undrained",
}
SECOND_S = 3.0
"""How long those that weren't chosen wait before they look."""
MAX_STREAMS = 1_000
"""Nodes of whose streams it is remembered what was read; others are read from the beginning."""


class _Told:
    """What was read of a node's stream: up to where, and of its latest life what happened and whether it is suspected, and drains."""

    __slots__ = ("draining", "incarnation", "position", "suspect", "types")

    def __init__(self) -> None:
        self.position = self.incarnation = 0
        self.suspect = self.draining = False
        self.types: set[str] = set()

    def take(self, position: int, incarnation: int, event_type: str) -> None:
        """One more event of it."""
        self.position = position
        if incarnation > self.incarnation:
            self.incarnation, self.suspect, self.draining = incarnation, False, False
            self.types.clear()
        if incarnation == self.incarnation:
            self.types.add(event_type)
            if event_type in (TYPES[NodeSuspect], TYPES[NodeRecovered]):
                self.suspect = event_type == TYPES[NodeSuspect]
            if event_type in (TYPES[NodeDraining], TYPES[NodeUndrained]):
                self.draining = event_type == TYPES[NodeDraining]

    def lacks(self, what: Occurrence) -> bool:
        """Whether it is news."""
        if what.incarnation != self.incarnation:
            return what.incarnation > self.incarnation and not isinstance(what, NodeRecovered | NodeUndrained)
        if TYPES[NodeDown] in self.types:
            return False
        if isinstance(what, NodeSuspect | NodeRecovered):
            return self.suspect == isinstance(what, NodeRecovered)
        if isinstance(what, NodeDraining | NodeUndrained):
            return self.draining == isinstance(what, NodeUndrained)
        return TYPES[type(what)] not in self.types


class Occurrences:
    """See the module. One a node of a cluster."""

    __slots__ = ("_bus", "_cluster", "_node", "_told")

    def __init__(self, node: Node, cluster: Cluster, bus: EventBus) -> None:
        self._node, self._cluster, self._bus = node, cluster, bus
        self._told: OrderedDict[str, _Told] = OrderedDict()

    def happened(self, what: Occurrence) -> None:
        """Have it published."""
        if not self._node.closing:
            self._node.own(self._see_to(what))

    async def _see_to(self, what: Occurrence) -> None:
        if not self._is_chosen(what):
            await asyncio.sleep(SECOND_S)
            if not self._is_so(what):
                return
        try:
            await self._node.recovery.read_until_told(partial(self._publish_once, what))
        except ShuttingDown:  # the others see to it
            return
        except JidoError as error:
            self._node.log.error("what has happened to a node couldn't be published", member=what.name, error=describe(error))

    def _is_chosen(self, what: Occurrence) -> bool:
        members = [member.name for member in self._cluster.view.living() if not member.suspect]
        others = [name for name in members if name != what.name] or members
        return bool(others) and choose(f"{TYPES[type(what)]}/{what.name}/{what.incarnation}", others) == self._cluster.owner.node

    def _is_so(self, what: Occurrence) -> bool:
        """Whether it still is as it was said to have become, of what may be so and otherwise by turns."""
        member = self._cluster.view.get(what.name)
        if member is None or member.incarnation != what.incarnation:
            return not isinstance(what, NodeSuspect)
        if isinstance(what, NodeSuspect | NodeRecovered):
            return member.suspect == isinstance(what, NodeSuspect)
        if isinstance(what, NodeDraining | NodeUndrained):
            return member.draining == isinstance(what, NodeDraining)
        return True

    async def _publish_once(self, what: Occurrence) -> None:
        stream, told = f"jido.node/{what.name}", self._told.setdefault(what.name, _Told())
        while len(self._told) > MAX_STREAMS:
            self._told.popitem(last=False)
        while True:
            await self._cluster.wait_serving()
            async for event in self._bus.read(stream, told.position):
                told.take(event.position, int(event.data["incarnation"]), event.type)
            if not told.lacks(what):
                return
            data = {"node": what.name, "incarnation": what.incarnation, "at_s": what.at_s}
            if isinstance(what, NodeDown):
                data["planned"] = what.planned
            try:
                await self._bus.publish(TYPES[type(what)], data, stream=stream, expected=told.position)
            except StreamConflict:  # another node was first, perhaps with the same
                continue
            return
