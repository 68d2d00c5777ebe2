"""A node that has joined a cluster: its lease, the others, and what it does when one of them comes or goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from ..core.bus import EventBus
from ..core.errors import InvalidArguments, JidoError, NoHost, StoreError, StoreUnavailable, describe
from ..core.position import Runner
from ..core.wire import Wire
from ..distribution.frames import Frame, NodeFrame
from ..distribution.members import Member, MemberState, NodeDraining, NodeUp, Occurrence, View
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
        node.asked["drain"] = self._drain_for
        node.asked["type"] = partial(tell_type, node)
        self._owner = Owner(node.name, 0)

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
        try:
            await self.membership.set_draining()
        except StoreError as error:  # without a lease there is nothing to be given away
            self._node.log.warning("the others couldn't be told that this node drains", error=describe(error))
        assert self._node.moving is not None
        await self._node.moving.drain()

    def start_draining(self) -> None:
        """Drain, and stay; `InvalidArguments` if nobody is there to take the agents."""
        if not self.others():
            raise InvalidArguments(f"node {self._node.name} can't be drained: no other node takes its agents", path="$.node")
        if self._node.ownership is not None and not self._node.ownership.draining:
            self._node.log.warning("this node drains: it gives its agents away and takes no new ones until it is started again")
            self._node.own(self.drain())

    async def _drain_for(self, _frame: NodeFrame) -> bytes:
        self.start_draining()
        return b""

    def _count(self, state: MemberState) -> int:
        return sum(member.state is state for member in self.view.living())

    async def leave(self) -> None:
        """Answer what has come, then give up the lease, so that nobody waits for its end."""
        await self._mesh.close()
        await self.membership.leave()

    def _hosted(self, host: Host) -> None:
        """A type came to be hosted that wasn't named at the start: the others are told."""
        name, version = host.type.name, host.type.version
        if self._types.get(name) != version:
            self._types[name] = version
            self._node.own(self._node.recovery.read_until_told(partial(self.membership.set_types, dict(self._types))))

    def _happened(self, what: Occurrence) -> None:
        self._node.log.info("the cluster has changed", what=type(what).__name__, node=what.name, incarnation=what.incarnation)
        self._occurrences.happened(what)
        self._node.recovery.review()
        if self._node.moving is not None and isinstance(what, NodeUp | NodeDraining) and not self._node.closing:
            self._node.moving.balance()

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
