"""Routes on the cluster: its nodes as this one sees them, draining one of them, and the alerts of all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Response

from ...core.errors import InvalidArguments
from ...core.near import near
from ...distribution.frames import Ask, NodeFrame
from ...distribution.members import Member
from .answers import answer

if TYPE_CHECKING:
    from ...runtime.joined import Joined
    from ..platform import Platform

DRAIN_S = 10.0
"""How long another node may take to say that it drains."""


class ClusterRoutes:
    """See the module."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._node = platform._running()

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(prefix="/v1", tags=["cluster"])
        router.add_api_route("/cluster", self.status, methods=["GET"])
        router.add_api_route("/cluster/drain/{name}", self.drain, methods=["POST"])
        router.add_api_route("/cluster/undrain/{name}", self.undrain, methods=["POST"])
        router.add_api_route("/alerts", self.alerts, methods=["GET"])
        router.add_api_route("/alerts/{kind}/{about:path}", self.clear_alert, methods=["DELETE"])
        return router

    async def status(self) -> Response:
        """The nodes that live, with their state and how many agents live there (null: it doesn't tell), and in what the store's servers are set up
        weaker than they are to be.
        """
        joined = self._joined()
        types = [name for name in self._node.hosts if not name.startswith("jido.")]
        counts = await self._node.listing.live_counts(types)
        nodes: list[dict[str, Any]] = []
        for member in joined.view.living():
            live = counts.get(member.name)
            told = {"name": member.name, "state": member.state.value, "incarnation": member.incarnation}
            nodes.append({**told, "agents": None if live is None else sum(live.values())})
        weaknesses = await self._platform._parts.weaknesses()
        return answer({"name": self._platform.config.platform.cluster_name, "node": self._platform.name, "nodes": nodes, "weaknesses": weaknesses})

    async def drain(self, name: str) -> Response:
        """Have a node give away its agents. It takes no new ones, sends calls after them, and stays until its process is ended."""
        joined, member = self._joined(), self._member(name)
        if name == self._platform.name:
            joined.start_draining()
        else:
            await self._ask(member, "drain")
        return answer({"draining": name})

    async def undrain(self, name: str) -> Response:
        """Have a node that drains take agents again."""
        joined, member = self._joined(), self._member(name)
        if name == self._platform.name:
            await joined.undrain()
        else:
            await self._ask(member, "undrain")
        return answer({"undrained": name})

    async def alerts(self) -> Response:
        """The alerts that are open, the oldest first."""
        return answer({"alerts": await self._platform.alerts.list()})

    async def clear_alert(self, kind: str, about: str) -> Response:
        """End an alert by hand; whether there was one."""
        return answer({"cleared": await self._platform.alerts.clear(kind, about)})

    def _member(self, name: str) -> Member:
        """The living node of a name."""
        view = self._joined().view
        member = view.get(name)
        if member is None or member.void:
            names = [member.name for member in view.living()]
            raise InvalidArguments(f"the cluster has no node {name!r}{near(name, names)}; there are {', '.join(names)}", path="$.name")
        return member

    async def _ask(self, member: Member, what: Ask) -> None:
        assert self._node.router is not None
        await self._node.router.ask_node(member, NodeFrame(what), DRAIN_S)

    def _joined(self) -> Joined:
        joined = self._platform._joined
        if joined is None:
            raise InvalidArguments(f"node {self._platform.name} isn't one of a cluster: its store belongs to its process", path="$")
        return joined
