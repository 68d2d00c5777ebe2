"""What waits in the store is taken up although nobody calls: unreleased effects, due reminders, agents that are always there.

At the start of a node, whenever its cluster has changed, and from time to time, for what a dead node has sent may be stored when nobody
looks any more; for a type that comes to be hosted later from then on. What waits for a type that nobody hosts
is named once in the log and stays. A store that fails is asked again, without end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from ..core.errors import StoreError, describe
from ..core.ids import split_address
from .host import Host
from .outbox import backoff_s

if TYPE_CHECKING:
    from .node import Node


WAKES_AT_ONCE = 200
"""While a node of a cluster claims so many agents it wakes no other that nobody has called."""
LOOK_EVERY_S = 30.0
"""How long something that was stored late, and is owed, waits at most until a node of a cluster finds it."""


class Recovery:
    """See the module. One a node."""

    __slots__ = ("_again", "_node", "_reviewing", "_unhosted", "reviews")

    def __init__(self, node: Node) -> None:
        self._node = node
        self._again = self._reviewing = False
        self.reviews: list[Callable[[], Coroutine[Any, Any, None]]] = []  # what else looks when the cluster has changed
        self._unhosted: dict[str, list[Callable[[], None]]] = {}  # what waits for a type, under its name

    def review(self) -> None:
        """The cluster has changed: what is to be done although nobody calls may be this node's now."""
        self._again = True
        if not self._reviewing and not self._node.closing:
            self._reviewing = True
            self._node.own(self._review())

    async def _review(self) -> None:
        try:
            while self._again and not self._node.closing:
                self._again = False
                self._hand_on()
                for look in self.reviews:
                    await self.read_until_told(look)
                await self.read_until_told(self._wake_pending)
                await self.read_until_told(self._node.reminders.rescan)
                for host in tuple(self._node.hosts.values()):
                    await self.read_until_told(partial(self._wake_residents, host))
        finally:
            self._reviewing = False

    def _hand_on(self) -> None:
        """What waits for a type goes to the node that hosts it now."""
        for type_name in [name for name, waiting in self._unhosted.items() if waiting and self._is_elsewhere(name)]:
            for call in self._unhosted.pop(type_name):
                call()

    async def recover(self) -> None:
        """The node has started."""
        await self.read_until_told(self._wake_pending)
        await self.read_until_told(self._node.reminders.start)
        for host in tuple(self._node.hosts.values()):
            await self.read_until_told(partial(self._wake_residents, host))
        if self._node.ownership is not None:
            self._node.later(LOOK_EVERY_S, self._look_soon)

    def _look_soon(self) -> None:
        self._node.own(self._look())

    async def _look(self) -> None:
        """What a node had sent before it died is stored whenever NATS comes to it, perhaps after the others have looked: its agent is nobody's."""
        try:
            await self.read_until_told(self._wake_pending)
            await self.read_until_told(self._node.reminders.rescan)
        finally:
            if not self._node.closing:
                self._node.later(LOOK_EVERY_S, self._look_soon)

    async def recover_type(self, host: Host) -> None:
        """A type was registered after the start: what waits for it in the store."""
        waiting = self._unhosted.pop(host.type.name, None)
        if waiting is not None:
            for call in waiting:
                call()
            await self.read_until_told(partial(self._wake_pending, host.type.name))
            await self.read_until_told(self._node.reminders.rescan)
        await self.read_until_told(partial(self._wake_residents, host))

    def is_hosted(self, address: str, **what: str) -> bool:
        """Whether this node hosts the type of an address; if no node does, that is said once in the log."""
        type_name = split_address(address)[0]
        if type_name in self._node.hosts:
            return True
        if not self._is_elsewhere(type_name):
            self.wait_for_type(type_name, None, **(what or {"agent": address}))
        return False

    def _is_elsewhere(self, type_name: str) -> bool:
        return self._node.router is not None and self._node.router.is_hosted(type_name)

    def wait_for_type(self, type_name: str, call: Callable[[], None] | None, **what: str) -> None:
        """Call when a type comes to be hosted; its name is logged once, with what was the first to wait for it."""
        waiting = self._unhosted.get(type_name)
        if waiting is None:
            waiting = self._unhosted[type_name] = []
            self._node.log.warning("work waits for an agent type that isn't hosted here", agent_type=type_name, **what)
        if call is not None:
            waiting.append(call)

    async def read_until_told(self, read: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """What waits in the store must be found sooner or later: a store that fails is asked again, and that is said."""
        attempt = 1
        while True:
            try:
                await read()
            except StoreError as error:
                self._node.log.error("what waits in the store can't be read just now", error=describe(error))
                await asyncio.sleep(backoff_s(attempt, self._node.random()))
                attempt += 1
            else:
                return

    async def _wake_pending(self, type_name: str | None = None) -> None:
        async for page in self._node.records.scan("pending"):
            for row in page:
                if self.is_hosted(row.agent) if type_name is None else split_address(row.agent)[0] == type_name:
                    await self._wake(row.agent)

    async def _wake_residents(self, host: Host) -> None:
        if host.type.resident:
            async for page in self._node.records.scan_agents(host.type.name):
                for record in page:
                    await self._wake(record.agent)

    async def _wake(self, address: str) -> None:
        """Activate an agent. On a cluster that is a claim: whoever calls has the right of way, and a store that has lost a server enough to do."""
        type_name, key = split_address(address)
        if self._node.ownership is not None:
            await self._node.ownership.wait_room(WAKES_AT_ONCE)
        if not self._node.closing and (self._node.router is None or self._node.router.is_here(address)):
            self._node.hosts[type_name].find(key)
