"""`platform.alerts`: what somebody has to look at."""

from __future__ import annotations

import builtins

from ..core.errors import InvalidArguments
from ..core.near import one_of
from ..core.traces import leaves
from ..runtime.alerts import LEVELS, Alert
from ..runtime.node import Node


class Alerts:
    """What `platform.alerts` is: the alerts of all nodes, asked of any of them."""

    __slots__ = ("_node", "_node_name")

    _node: Node
    _node_name: str

    @classmethod
    def _on(cls, node: Node) -> Alerts:
        alerts = cls()
        alerts._node, alerts._node_name = node, node.name
        return alerts

    def __repr__(self) -> str:
        return f"<alerts, asked of node {self._node_name}>"

    @leaves
    async def list(self) -> builtins.list[Alert]:
        """The alerts of all nodes that are open, the oldest first. Raises the store's errors."""
        return await self._node.alerts.all()

    @leaves
    async def clear(self, kind: str, about: str) -> bool:
        """End an alert by hand, for example `("node_down", "east-1")` of a node that won't come back; whether there was one. What happens
        again is told again. `InvalidArguments` for a kind that there isn't.
        """
        if kind not in LEVELS:
            raise InvalidArguments(f"kind={kind!r}: {one_of(kind, tuple(LEVELS))}", path="$.kind")
        return await self._node.alerts.dismiss(kind, about)
