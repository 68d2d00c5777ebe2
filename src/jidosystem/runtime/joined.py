"""A node that has joined a cluster: its lease, the others, and what it does when one of them comes or goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from ..core.bus import EventBus
from ..core.errors import InvalidArguments, JidoError, NoHost, ShuttingDown, StoreError, StoreUnavailable, describe
from ..core.position import Runner
from ..core.wire import Wire
from ..distribution.frames import Frame, NodeFrame
from ..distribution.members import Member, MemberState, NodeDown, NodeDraining, NodeRecovered, NodeSuspect, NodeUndrained, NodeUp, Occurrence, View
from ..distribution.membership import Membership
from ..distribution.mesh import Mesh
from .definition import AgentType
from .door import answer
from .head import Owner
from .occurrences import Occurrences
from .outbox import backoff_s
from .ownership import Claim, decide
from .types import tell_type

if TYPE_CHECKING:
    from .host import Host
    from .node import Node

GAUGES = {"cluster_nodes_alive": MemberState.ALIVE, "cluster_nodes_suspect": MemberState.SUSPECT, "cluster_nodes_draining": MemberState.DRAINING}

SUSPECT_S = 15.0
"""How long nothing is heard of a node before that is an alert."""
OUTAGE_S = 5.0
"""How long the store doesn't take a renewal before that is one: longer than most elections of a leader."""


def _advertised(cls: type) -> tuple[str, int]:
    kind = getattr(cls, "__jido_type__", None)
    if not isinstance(kind, AgentType):
        raise NoHost(f"{cls!r} isn't an agent class: derive it from jidosystem.Agent")
    return kind.name, kind.version


class Joined:
    """The `Cluster` of a node, made of its membership and the wire."""

    def __init__(self, node: Node, wire: Wire, events: EventBus, make: Callable[..., Membership], classes: Iterable[type]) -> None:
        self._node = node
        self._types = dict(map(_advertised, classes))
        self.membership = make(types=self._types, on_event=self._happened, on_lost=self._lost)
        self._mesh = Mesh(wire, self.membership, partial(answer, node))
        node.on_hosted.append(self._hosted)
        self._occurrences = Occurrences(node, self, events)
        for name, state in GAUGES.items():
            node.meters.gauge(name, f"Nodes of the cluster that are {state.value}, as seen here", partial(self._count, state))
        node.asked["drain"], node.asked["undrain"] = self._drain_for, self._undrain_for
        node.asked["type"] = partial(tell_type, node)
        self._owner = Owner(node.name, 0)
        self._drains = False  # it is asked to drain, perhaps before the others know
        self._missing = False  # renewals fail, and it is being looked whether that goes on
        self.membership.on_missed = self._missed

    # -- what the runtime asks -------------------------------------------------------------------------------

    @property
    def owner(self) -> Owner:
        """See `ownership.Cluster`. From the moment that the lease is this life's: others ask for agents before joining has ended."""
        incarnation = self.membership.incarnation
        if self._owner.incarnation != incarnation:
            self._owner = Owner(self.membership.name, incarnation)
        return self._owner

    @property
    def view(self) -> View:
        """See `ownership.Cluster`."""
        return self.membership.view

    def may_serve(self) -> bool:
        """See `ownership.Cluster`."""
        return self.membership.may_serve()

    def wait_serving(self) -> Awaitable[None]:
        """See `ownership.Cluster`."""
        return self.membership.wait_serving()

    def find_out(self, owner: Owner) -> Awaitable[bool]:
        """See `ownership.Cluster`."""
        return self.membership.is_void(owner.node, owner.incarnation)

    def request(self, member: Member, frame: Frame, deadline: float) -> Awaitable[Frame]:
        """See `ownership.Cluster`."""
        return self._mesh.request(member.name, frame, deadline, incarnation=member.incarnation)

    # -- what the event bus asks -----------------------------------------------------------------------------

    @property
    def runner(self) -> Runner:
        """See `position.Sharing`."""
        return Runner(self.membership.name, self.membership.incarnation)

    def is_mine(self, name: str) -> bool:
        """See `position.Sharing`."""
        assert self._node.router is not None
        return self._node.router.sees_to(name, name)

    async def announce(self, name: str) -> None:
        """See `position.Sharing`. Names of subscriptions, which hold a slash, stand beside those of agent types in the lease."""
        self._types[name] = 0
        await self._tell_types()

    async def withdraw(self, name: str) -> None:
        """See `position.Sharing`."""
        if self._types.pop(name, None) is not None:
            await self._tell_types()

    async def _tell_types(self) -> None:
        with suppress(StoreUnavailable):  # without a lease: the next one has them
            await self.membership.set_types(dict(self._types))

    async def is_over(self, runner: Runner) -> bool:
        """See `position.Sharing`."""
        owner = Owner(*runner)
        claim = decide(owner, Owner(*self.runner), self.view)
        return await self.find_out(owner) if claim is Claim.ASK else claim is Claim.TAKE

    def on_change(self, call: Callable[[], None]) -> Callable[[], None]:
        """See `position.Sharing`."""

        def changed(_view: View) -> None:
            call()

        self.membership.listeners.append(changed)
        return partial(self.membership.listeners.remove, changed)

    # -- life ------------------------------------------------------------------------------------------------

    async def join(self) -> None:
        """Take the lease, learn who else is there, and be reached by them."""
        await self.membership.join(self._mesh.listen)

    def others(self) -> bool:
        """Whether there is another node that could have this one's agents."""
        return any(member.name != self._node.name and not member.draining for member in self.view.living())

    async def drain(self) -> None:
        """Take no new agents, and give away those that are here; returns when none is left. Calls wait and follow them, none fails."""
        self._drains = True
        await self._drain()

    async def _drain(self) -> None:
        try:
            if self._drains:
                await self.membership.set_draining()
        except StoreError as error:  # without a lease there is nothing to be given away
            self._node.log.warning("the others couldn't be told that this node drains", error=describe(error))
        assert self._node.moving is not None
        if self._drains:  # nobody has thought better of it meanwhile
            await self._node.moving.drain()

    def start_draining(self) -> None:
        """Drain, and stay; `InvalidArguments` if nobody is there to take the agents."""
        if not self.others():
            raise InvalidArguments(f"node {self._node.name} can't be drained: no other node takes its agents", path="$.node")
        if self._node.ownership is not None and not self._node.ownership.draining:
            self._node.log.warning("this node drains: it gives its agents away and takes no new ones until `jido cluster undrain`, or its next start")
            self._drains = True
            self._node.own(self._drain())

    async def undrain(self) -> None:
        """Take agents again; its share comes back slowly. No error if it doesn't drain. `ShuttingDown` if it is about to end."""
        if self._node.closing:
            raise ShuttingDown(f"node {self._node.name} is about to end", name=self._node.name)
        assert self._node.ownership is not None
        self._drains = self._node.ownership.draining = False
        await self.membership.set_draining(draining=False)
        self._node.recovery.review()

    async def _undrain_for(self, _frame: NodeFrame) -> bytes:
        await self.undrain()
        return b""

    async def _drain_for(self, _frame: NodeFrame) -> bytes:
        self.start_draining()
        return b""

    def _count(self, state: MemberState) -> int:
        return sum(member.state is state for member in self.view.living())

    async def leave(self) -> None:
        """Leave the cluster, with everything answered that has come."""
        await self._mesh.leave()

    def _hosted(self, host: Host) -> None:
        """A type came to be hosted that wasn't named at the start: the others are told."""
        name, version = host.type.name, host.type.version
        if self._types.get(name) != version:
            self._types[name] = version
            self._node.own(self._node.recovery.read_until_told(partial(self.membership.set_types, dict(self._types))))

    def _happened(self, what: Occurrence) -> None:
        self._node.log.info("the cluster has changed", what=type(what).__name__, node=what.name, incarnation=what.incarnation)
        self._occurrences.happened(what)
        self._alert(what)
        if not isinstance(what, NodeSuspect | NodeRecovered):  # each agent is this node's or another's as before: no node suspects itself
            self._node.recovery.review()
        if self._node.moving is not None and isinstance(what, NodeUp | NodeDraining | NodeUndrained) and not self._node.closing:
            self._node.moving.balance()

    def _alert(self, what: Occurrence) -> None:
        alerts, name, incarnation = self._node.alerts, what.name, what.incarnation
        if isinstance(what, NodeUp):
            alerts.end("node_down", name, incarnation - 1)
        elif isinstance(what, NodeSuspect):
            self._node.later(SUSPECT_S, partial(self._still_suspect, what))
        elif isinstance(what, NodeRecovered | NodeDown):
            alerts.end("node_suspect", name, incarnation)
        if isinstance(what, NodeDown) and not what.planned:
            alerts.begin("node_down", name, f"node {name} is out: it hasn't renewed its lease; others take over its agents", incarnation)

    def _still_suspect(self, what: NodeSuspect) -> None:
        member = self.view.get(what.name)
        if member is not None and member.incarnation == what.incarnation and member.suspect and not member.void:
            told = f"node {what.name} renews its lease, but node {self._node.name} hears nothing of it: look at the way between them"
            self._node.alerts.begin("node_suspect", what.name, told, what.incarnation)

    def _missed(self) -> None:
        if not self._missing and not self._node.closing:
            self._missing = True
            self._node.own(self._see_outage())

    async def _see_outage(self) -> None:
        """Renewals fail: if the node serves nothing any more after a while, that is an alert, told once the store is back."""
        try:
            await asyncio.sleep(OUTAGE_S)
            if self.may_serve() or not self.membership.incarnation:
                return
            self._node.log.critical("the store doesn't answer; until it does nothing is served that must be certain")
            began_s = self._node.clock.time_s()
            await self.wait_serving()
            told = f"node {self._node.name} was without its store for {OUTAGE_S + self._node.clock.time_s() - began_s:.0f} s"
            self._node.alerts.begin("store_unavailable", "store", told, int(began_s * 1_000))
            self._node.alerts.end("store_unavailable", "store")
        finally:
            self._missing = False

    def _lost(self, incarnation: int) -> None:
        node = self._node
        node.log.error("this node's lease is void; it lets go of its agents and joins again", incarnation=incarnation)
        assert node.ownership is not None
        node.ownership.lose()
        if not node.closing:
            node.own(self._join_again())

    async def _join_again(self) -> None:
        attempt = 1
        while not self._node.closing:
            try:
                await self.join()
            except JidoError as error:
                self._node.log.error("the node can't join again just now", error=describe(error))
                await asyncio.sleep(backoff_s(attempt, self._node.random()))
                attempt += 1
            else:
                self._node.recovery.review()
                return
