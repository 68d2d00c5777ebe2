"""Which node an agent is on, and the way there and back: calls, casts and deliveries end where it lives, wherever they are made.

Where it was found last is remembered; else it is looked for where it belongs by the rendezvous of the living nodes, which claims it
if it is nobody's and otherwise says who has it. What certainly didn't begin is sent again until the caller's patience ends; so is
what can't hurt, calls that only read or have an idempotency key. Anything else that may have begun on a node that is gone ends at
once with `OutcomeUnknown`. What came over the wire is never sent on: whoever sent it is told where to go.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ..coordination.placement import Placement, candidates, choose
from ..core.errors import CallTimeout, JidoError, Moved, NodeBusy, NodeUnreachable, NoHost, OutcomeUnknown, ShuttingDown, WireTimeout, describe
from ..core.ids import split_address
from ..distribution.frames import (
    AboutAgentFrame,
    AgentFrame,
    CallFrame,
    CastFrame,
    DeliveryFrame,
    ErrorFrame,
    FamilyFrame,
    Frame,
    NodeFrame,
    Order,
    ReplyFrame,
    TextCallFrame,
    error_of,
)
from ..distribution.members import Member
from . import calls
from .control import AgentInfo
from .definition import ActionSpec
from .head import Owner
from .host import Host
from .turn import Origin, Turn

if TYPE_CHECKING:
    from .node import Node
    from .ownership import Cluster

T = TypeVar("T")
_info = msgspec.msgpack.Decoder(AgentInfo).decode
MAX_KNOWN = 1_000_000
"""Agents on other nodes whose place is remembered; of others it is worked out."""
ANSWER_LATE_S = 0.25
"""How much longer than its patience a caller listens: the other node knows better what became of a call that ran out of time."""
DELIVERY_S = 330.0
"""How long a delivery may take on its receiver's node: longer than a turn may by default."""
SILENCE_S = 3.0
"""After so long without an answer what can't hurt is asked again, then after twice as long: the way there and back may lose messages, a server
that stood still for example all that came to it."""
FIRST_PAUSE_S, LAST_PAUSE_S = 0.01, 0.25
"""Between two searches for an agent that had moved whenever it was found."""


class NamedType:
    """An agent type that this node knows by its name alone: what is done to its agents is done on nodes that host it."""

    __slots__ = ("live", "needs", "prefix")

    def __init__(self, type_name: str) -> None:
        self.prefix = type_name + "/"
        self.live: Mapping[str, object] = {}
        self.needs = 0


class Router:
    """See the module. One a node of a cluster."""

    __slots__ = ("_known", "_node", "_placement", "cluster")

    def __init__(self, node: Node, cluster: Cluster, placement: Placement) -> None:
        self._node, self.cluster = node, cluster
        self._known: OrderedDict[str, Owner] = OrderedDict()
        self._placement = placement

    # -- where -----------------------------------------------------------------------------------------------

    def elsewhere(self, host: Host | NamedType, key: str) -> Member | None:
        """The other node that an agent is to be looked for on; None: this one. `NoHost`: there is none that could have it."""
        return None if key in host.live else self._unless_here(self._find(host.prefix + key, host.needs))

    def _find(self, address: str, version: int) -> Member:
        """Where an agent was found last, else where it belongs."""
        view = self.cluster.view
        if (owner := self._known.get(address)) is not None:
            member = view.get(owner.node)
            if member is not None and member.incarnation == owner.incarnation and not member.void:
                return member
            del self._known[address]
        return self._placement.place(address, view, version)

    def is_hosted(self, type_name: str) -> bool:
        """Whether any node that lives hosts a type."""
        return any(type_name in member.types for member in self.cluster.view.living())

    def is_here(self, address: str) -> bool:
        """Whether this node sees to what must be done for an agent although nobody calls."""
        type_name, key = split_address(address)
        host = self._node.hosts.get(type_name)
        with suppress(JidoError):
            return host is not None and self.elsewhere(host, key) is None
        return False

    def sees_to(self, what: str, type_name: str) -> bool:
        """Whether something that isn't an agent, but is done by one of the nodes that host a type, is this node's to do."""
        with suppress(JidoError):
            return choose(what, candidates(self.cluster.view, type_name)) == self.cluster.owner.node
        return False

    def belongs_here(self, host: Host, key: str) -> bool:
        """Whether an agent that lives here would be placed here today; also if it could be nowhere else."""
        with suppress(JidoError):
            return self._unless_here(self._placement.place(host.prefix + key, self.cluster.view, host.type.version)) is None
        return True

    def _unless_here(self, member: Member) -> Member | None:
        return None if member.name == self.cluster.owner.node else member

    def note(self, address: str, owner: Owner | None) -> None:
        """An agent was found somewhere, or (None) not where it was thought to be."""
        self._known.pop(address, None)
        if owner is not None:  # this node too: it may have the claim of an agent that is passive and would be placed elsewhere today
            self._known[address] = owner
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)

    def moved(self, address: str, moved: Moved) -> None:
        """Somebody has said where an agent is, or that it isn't with them."""
        self.note(address, Owner(moved.owner, moved.incarnation) if moved.owner else None)

    # -- calls, casts and orders -----------------------------------------------------------------------------

    async def call(
        self,
        host: Host,
        key: str,
        spec: ActionSpec,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        caller: Turn | None,
        deadline: float,
        keyed: str | None,
    ) -> Any:
        """Call an action of an agent wherever it is; see the module for what is repeated."""
        address, harmless = host.prefix + key, spec.readonly or keyed is not None

        def here() -> Coroutine[Any, Any, Any]:
            return calls.call_here(host, key, spec, args, kwargs, caller, deadline, keyed)

        async def afar(member: Member) -> Any:
            left_s = max(0.0, deadline - self._node.loop.time())
            frame = call_frame(address, spec, spec.signature.to_plain(args, kwargs), left_s, keyed, caller)
            return spec.signature.decode_result(await self._ask(address, member, frame, deadline + ANSWER_LATE_S, harmless=harmless))

        try:
            return await self._where_it_is(host, key, here, afar, deadline, spec.name, harmless=harmless)
        except WireTimeout:
            raise _no_answer(address, spec.name) from None

    async def cast(self, host: Host, key: str, spec: ActionSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any], keyed: str | None) -> None:
        """Put a message into the mailbox of an agent wherever it is. Whether it got there may be unknown, if its node ends meanwhile."""
        deadline = self._node.loop.time() + self._node.limits.default_timeout

        def here() -> Coroutine[Any, Any, None]:
            return calls.cast_here(host, key, spec, args, kwargs, keyed)

        async def afar(member: Member) -> None:
            frame = CastFrame(host.prefix + key, spec.name, spec.signature.to_plain(args, kwargs), keyed)
            await self._ask(host.prefix + key, member, frame, deadline)

        await self._where_it_is(host, key, here, afar, deadline, spec.name)

    async def call_by_name(self, to: str, action: str, body: bytes, timeout_s: float | None, keyed: str | None) -> bytes:
        """Call an action of a type that only other nodes know: arguments and result are JSON. Nobody here knows whether it only reads."""
        type_name, key = split_address(to)
        patience_s = self._node.limits.default_timeout if timeout_s is None else timeout_s
        deadline = self._node.loop.time() + patience_s

        host = NamedType(type_name)

        async def here() -> bytes:
            return _hosted(host).prefix.encode()

        async def afar(member: Member) -> bytes:
            frame = TextCallFrame(to, action, body, max(0.0, deadline - self._node.loop.time()), keyed)
            return await self._ask(to, member, frame, deadline + ANSWER_LATE_S, harmless=keyed is not None)

        try:
            return await self._where_it_is(host, key, here, afar, deadline, action, harmless=keyed is not None)
        except WireTimeout:
            raise _no_answer(to, action) from None

    def send_on(self, turn: Turn) -> None:
        """A cast that waited in the mailbox of an agent that has moved: nobody waits for it but the agent."""
        self._node.own(self._send_on(turn))

    async def _send_on(self, turn: Turn) -> None:
        host, key = turn.activation.host, turn.activation.key
        try:
            await self.cast(host, key, turn.spec, turn.args, turn.kwargs or {}, None)
        except JidoError as error:
            told = "a cast was lost when its agent moved"
            self._node.log.warning(told, agent=host.prefix + key, action=turn.spec.name, error=describe(error))

    def start_there(self, host: Host, key: str) -> None:
        """Have an agent started on the node that it belongs on."""
        self._node.own(self._start_there(host, key))

    async def _start_there(self, host: Host, key: str) -> None:
        try:
            await self.order(host, key, "start")
        except NoHost:  # there is nobody to take it: whoever comes next looks for what waits in the store
            return
        except JidoError as error:  # the others look for what waits in the store when this node is gone
            self._node.log.warning("an agent couldn't be started where it went", agent=host.prefix + key, error=describe(error))

    async def order(self, host: Host | NamedType, key: str, order: Order) -> AgentInfo | None:
        """Have something done to an agent by the node that has it; what `describe` tells."""
        deadline = self._node.loop.time() + self._node.limits.default_timeout

        def here() -> Coroutine[Any, Any, AgentInfo | None]:
            return self._node.control.orders[order](_hosted(host), key)

        async def afar(member: Member) -> AgentInfo | None:
            told = await self._ask(host.prefix + key, member, AgentFrame(host.prefix + key, order), deadline, harmless=True)
            return _info(told) if told else None

        return await self._where_it_is(host, key, here, afar, deadline, order, harmless=True)

    def order_by_name(self, address: str, order: Order) -> Coroutine[Any, Any, AgentInfo | None]:
        """The same for an agent whose type this node doesn't know."""
        type_name, key = split_address(address)
        return self.order(NamedType(type_name), key, order)

    async def tell_family(self, host: Host | NamedType, key: str, frame: FamilyFrame) -> None:
        """Have supervision heard where the agent is that it concerns; heard twice it does no harm that a second crash wouldn't do."""
        deadline = self._node.loop.time() + self._node.limits.default_timeout

        def here() -> Coroutine[Any, Any, None]:
            return self._node.family.hear(_hosted(host), key, frame)

        async def afar(member: Member) -> None:
            await self._ask(frame.to, member, frame, deadline)

        await self._where_it_is(host, key, here, afar, deadline, frame.what, harmless=True)

    async def _where_it_is(
        self,
        host: Host | NamedType,
        key: str,
        here: Callable[[], Coroutine[Any, Any, T]],
        afar: Callable[[Member], Coroutine[Any, Any, T]],
        deadline: float,
        what: str,
        *,
        harmless: bool = False,
    ) -> T:
        """Do something where the agent is; again while it is known not to have begun, or if it is harmless."""
        address, pause_s = host.prefix + key, 0.0
        while True:
            member = None
            try:
                member = self.elsewhere(host, key)
                return await (here() if member is None else afar(member))
            except Moved as moved:
                why: JidoError = moved
                self.moved(address, moved)
            except (NodeUnreachable, NodeBusy) as refused:
                why = refused
                self.note(address, None)
            except ShuttingDown as leaving:  # it leaves the cluster; soon another node has its agents
                if member is None:
                    raise
                why = leaving
                self.note(address, None)
            except OutcomeUnknown as unknown:
                if not harmless or member is None or isinstance(unknown, WireTimeout):
                    raise
                why = unknown
            if deadline - self._node.loop.time() <= pause_s:
                at = f"node {member.name}" if member is not None else "this node"
                told = f"{address}.{what} wasn't found in time; last it was looked for on {at}: {why}; nothing has happened"
                raise CallTimeout(told, agent=address, uncertain=False)
            if pause_s:
                await asyncio.sleep(pause_s * (0.5 + self._node.random() / 2))
            pause_s = min(max(pause_s * 2, FIRST_PAUSE_S), LAST_PAUSE_S)

    # -- deliveries ------------------------------------------------------------------------------------------

    def deliver(self, member: Member, address: str, frame: DeliveryFrame, origin: Origin) -> None:
        """Have another node apply what the platform delivers; it answers through its origin, which tries again."""
        self._node.own(self._deliver(member, address, frame, origin))

    def deliver_by_name(self, address: str, frame: DeliveryFrame, origin: Origin) -> bool:
        """The same for an agent of a type that isn't hosted here; False: nor anywhere else."""
        try:
            member = self._find(address, 0)
        except NoHost:
            return False
        self.deliver(member, address, frame, origin)
        return True

    async def _deliver(self, member: Member, address: str, frame: DeliveryFrame, origin: Origin) -> None:
        try:
            await self._ask(address, member, frame, self._node.loop.time() + DELIVERY_S, harmless=True)
        except JidoError as error:
            if isinstance(error, Moved):
                self.moved(address, error)
            elif isinstance(error, NodeUnreachable):
                self.note(address, None)
            elif isinstance(error, OutcomeUnknown):  # no attempt that failed: it is numbered, and made again until somebody says what became of it
                error = NodeUnreachable(f"node {member.name} hasn't told what became of a delivery to {address}: {error}", node=member.name)
            origin.settled(error)
        else:
            origin.settled(None)

    # -- asking ----------------------------------------------------------------------------------------------

    def others(self) -> list[Member]:
        """The other nodes that live."""
        return [member for member in self.cluster.view.living() if member.name != self.cluster.owner.node]

    def node_names(self) -> list[str]:
        """The names of all nodes that live, of this one too."""
        return sorted(member.name for member in self.cluster.view.living())

    async def ask_node(self, member: Member, frame: NodeFrame, timeout_s: float) -> bytes:
        """Ask another node something that concerns no single agent. Raises what it answers, and what `Cluster.request` does."""
        return _result_of(member.name, await self.cluster.request(member, frame, self._node.loop.time() + timeout_s))

    async def _ask(self, address: str, member: Member, frame: AboutAgentFrame, deadline: float, *, harmless: bool = False) -> bytes:
        """Ask until there is an answer, if it is harmless: the other node joins what has the same key, and does what has the same number once."""
        silence_s, answer = SILENCE_S if harmless else inf, None
        while answer is None:
            until = min(deadline, self._node.loop.time() + silence_s)
            try:
                answer = await self.cluster.request(member, frame, until)
            except WireTimeout:
                if until == deadline:
                    raise
                silence_s *= 2
        result = _result_of(address, answer)
        if address not in self._known:
            self.note(address, Owner(member.name, member.incarnation))
        return result


def _hosted(host: Host | NamedType) -> Host:
    """The host of an agent that is to be here; `NoHost` if its type isn't."""
    if isinstance(host, NamedType):
        raise NoHost(f"the agent type {host.prefix[:-1]!r} isn't hosted here", agent_type=host.prefix[:-1])
    return host


def _no_answer(address: str, action: str) -> CallTimeout:
    return CallTimeout(f"no answer from {address}.{action} in time; whether it took effect is unknown here", agent=address, uncertain=True)


def _result_of(whose: str, answer: Frame) -> bytes:
    if isinstance(answer, ReplyFrame):
        return answer.result
    if isinstance(answer, ErrorFrame):
        raise error_of(answer)
    raise OutcomeUnknown(f"the answer of {whose} is a {type(answer).__name__}; whether it took effect is unknown", agent=whose)


def call_frame(to: str, spec: ActionSpec, blob: bytes, left_s: float, key: str | None, caller: Turn | None) -> CallFrame:
    """A call as it travels: with the chain of its callers, their ids and what is left of their patience."""
    if caller is None:
        return CallFrame(to, spec.name, blob, left_s, key)
    why = caller.causality()
    return CallFrame(to, spec.name, blob, left_s, key, tuple(caller.chain()), why.correlation_id, why.causation_id, why.traceparent)
