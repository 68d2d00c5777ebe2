"""Agents that go to other nodes: all of them when this node drains, their fair share when another one has come.

One after another, some side by side, idle ones first; each is released by a commit that makes it nobody's, and whoever calls
it next finds it where it belongs. A node that has just come gets its share slowly: nobody is to notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..core.eager import start_eagerly

if TYPE_CHECKING:
    from .activation import Activation
    from .node import Node

SIDE_BY_SIDE = 64
SETTLE_S = 2.0
"""How long after the last change of the cluster a node's agents begin to go where they belong now: a node that restarts comes back soon."""
SHARE_A_SECOND = 500
"""How many agents go in a second when another node has come."""
ROUNDS = 30
"""So often agents that were busy are asked again, a second apart; then they stay until they are passivated."""


class Moving:
    """See the module. One a node of a cluster."""

    __slots__ = ("_balancing", "_node")

    def __init__(self, node: Node) -> None:
        self._node = node
        self._balancing: asyncio.Task[None] | None = None

    async def drain(self) -> None:
        """Give all agents away; returns when none is left here, or they are to stay. Calls that wait for them go after them."""
        ownership = self._node.ownership
        assert ownership is not None
        ownership.draining = True
        self.close()
        while ownership.draining and (live := self._live()):
            before = len(live)
            await self._give_away(live)
            if len(self._live()) >= before:
                await asyncio.sleep(0.05)  # what is left is loading, crashing or being deleted: soon it is something else

    def close(self) -> None:
        """Nobody goes any more."""
        if self._balancing is not None:
            self._balancing.cancel()

    def balance(self) -> None:
        """The cluster has changed: let agents go that belong elsewhere now."""
        self.close()
        task: asyncio.Future[None] = start_eagerly(self._balance(), self._node.loop)
        self._balancing = task  # type: ignore[assignment]
        self._node.adopt(task)

    async def _balance(self) -> None:
        router = self._node.router
        assert router is not None
        await asyncio.sleep(SETTLE_S)
        for _ in range(ROUNDS):
            strangers = [activation for activation in self._live() if not router.belongs_here(activation.host, activation.key)]
            if not strangers:
                return
            idle = [activation for activation in strangers if activation.host.may_passivate(activation)]
            await self._give_away(idle[:SHARE_A_SECOND])
            await asyncio.sleep(1.0)

    def _live(self) -> list[Activation]:
        return [activation for host in self._node.hosts.values() for activation in host.live.values()]

    async def _give_away(self, leaving: Iterable[Activation]) -> None:
        ownership, room = self._node.ownership, asyncio.Semaphore(SIDE_BY_SIDE)
        assert ownership is not None

        async def one(activation: Activation) -> None:
            async with room:  # to its end, also if the cluster changes meanwhile: half of it would leave an agent that nobody can call
                await self._node.see_through(ownership.give_away(activation))

        await asyncio.gather(*map(one, leaving))
