"""Supervision: what a crash means for the agent, its siblings and its parent.

A crashed agent gets a new activation after a growing delay. More than `max_restarts` crashes within `within` seconds
and it is failed, which is written in its record, so that no later start, and no other node, tries again; its parent is told, or crashes
too. Parents, children and siblings may live on different nodes of a cluster: they are told by frames, where each of them is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import new_class
from typing import TYPE_CHECKING, Any

from ..core.codec import encode
from ..core.errors import AgentFailed, Conflict, JidoError, NoHost, RecordUnreadable, RefusedError, StoreError, describe
from ..core.ids import split_address
from ..core.records import Record, Row
from ..core.restarts import Supervision, record_crash, siblings_to_restart
from ..distribution.frames import FamilyFrame
from .activation import Activation
from .agent import Agent
from .definition import DELETE
from .effects import CastEffect
from .head import ACTIVE, FAILED, Marks, decode_head, encode_head
from .host import Host
from .loading import effects_after, failed
from .reference import make_ref_class
from .router import NamedType
from .status import Status
from .turn import Turn

if TYPE_CHECKING:
    from .node import Node

MAX_TRACKED = 100_000
WRITES = 10
"""How often a status is written that somebody else's commits overtake."""


class AgentGaveUp(Exception):
    """A child has failed for good and its parent has no `@on_child_failed`."""


class Family:
    """The supervisor of one node."""

    __slots__ = ("_crashes", "_node")

    def __init__(self, node: Node) -> None:
        self._node = node
        self._crashes: dict[str, tuple[float, ...]] = {}

    def crashed(self, host: Host, key: str, cause: BaseException, waiting: list[Turn]) -> None:
        """Decide what follows a crash."""
        address = host.prefix + key
        node = self._node
        policy = self._policy_of(host)
        if address not in self._crashes and len(self._crashes) >= MAX_TRACKED:
            self._crashes.pop(next(iter(self._crashes)))
        times, verdict = record_crash(self._crashes.get(address, ()), node.clock.monotonic_s(), policy, node.random())
        self._crashes[address] = times
        if node.closing:
            for turn in waiting:
                turn.fail(host.told_crash(key, cause))
        elif verdict.restart:
            host.revive(key, waiting, verdict.delay_s)
            node.own(self._restart_siblings(address))
        else:
            del self._crashes[address]
            node.own(self._fail(host, key, cause, host.hold_back(key, waiting)))

    def forgive(self, address: str) -> None:
        """Count no crash from before."""
        self._crashes.pop(address, None)

    # -- failing for good ------------------------------------------------------------------------------------

    async def _fail(self, host: Host, key: str, cause: BaseException, held: Activation) -> None:
        address = held.address
        told = describe(cause)
        error = failed(address, told)
        self._announce(address, told)
        try:
            await self.write_status(host, key, FAILED, told)
        except (StoreError, RecordUnreadable) as store_error:
            self._node.log.error("a failed agent couldn't be marked as failed", agent=address, error=describe(store_error))
        host.refuse(held, error)
        self._node.owed.send(host, key)
        await self._tell_parent(address, told)

    def _announce(self, address: str, cause: str) -> None:
        self._node.log.error("an agent has failed", agent=address, cause=cause)
        self._node.alerts.begin("agent_failed", address, str(failed(address, cause)))

    def gave_up(self, address: str, cause: str) -> None:
        """An agent was marked as failed by its claim, since it has taken its nodes along."""
        self._announce(address, cause)
        self._node.own(self._tell_parent(address, cause))

    async def write_status(self, host: Host, key: str, status: int, cause: str) -> None:
        """Write an agent's status into its record, whatever its state is; the activation must be gone. `Conflict`: others keep writing it."""
        address = host.prefix + key
        records = self._node.records
        for attempt in range(1, WRITES + 1):
            record = await records.read(address)
            if record is None or record.head is None:
                if status == ACTIVE:
                    return
                version, turns, state, owner = host.type.version, 0, None, None
                expected, marks = (record.revision, await self._marks_after_deletion(record)) if record is not None else (0, Marks())
            else:
                head = decode_head(record.head, address)
                version, turns, state, owner, marks, expected = (
                    head.version,
                    head.turns,
                    head.state,
                    head.owner,
                    head.marks or Marks(),
                    record.revision,
                )
            marks.status, marks.cause = status, cause
            try:
                await records.commit(address, expected, encode_head(version, turns, state, marks, owner))
            except Conflict:
                if attempt == WRITES:
                    raise
            else:
                if status == ACTIVE:
                    self._node.alerts.end("agent_failed", address)
                return

    async def _marks_after_deletion(self, record: Record) -> Marks:
        """What a deleted agent goes on with: its receivers remember its effects, and some may still be on their way."""
        pending = await self._node.records.read_rows(record.agent, "pending")
        return Marks(effects=effects_after(record.revision), pending=len(pending))

    # -- parents and children --------------------------------------------------------------------------------

    async def hear(self, host: Host, key: str, frame: FamilyFrame) -> None:
        """Supervision that concerns an agent of this node; `Moved` if another has it."""
        if frame.what == "renew":
            await self._renew(host, key)
            return
        parent = await host.find(key).ready()
        if parent.extra is None or frame.child not in parent.extra.children:
            return
        if frame.what == "failed":
            await self._child_failed(parent, frame.child, failed(frame.child, frame.cause))
        else:
            policy = self._policy_of(host)
            for sibling in siblings_to_restart(policy.strategy, tuple(parent.extra.children), frame.child):
                if sibling != frame.child:
                    self._node.own(self._renew_sibling(sibling, frame.child))

    async def _tell(self, to: str, frame: FamilyFrame) -> None:
        type_name, key = split_address(to)
        router, host = self._node.router, self._node.hosts.get(type_name)
        if not key:
            return
        if host is not None:
            await (self.hear(host, key, frame) if router is None else router.tell_family(host, key, frame))
        elif router is not None and router.is_hosted(type_name):
            await router.tell_family(NamedType(type_name), key, frame)

    def _policy_of(self, host: Host) -> Supervision:
        return host.type.supervision or Supervision(strategy=self._node.limits.supervision_strategy)

    async def _tell_parent(self, address: str, cause: str) -> None:
        parent = parent_of(address)
        try:
            await self._tell(parent, FamilyFrame(parent, "failed", address, cause))
        except JidoError as problem:
            self._node.log.error("a parent couldn't be told of its failed child", agent=address, error=describe(problem))

    async def _child_failed(self, parent: Activation, child: str, error: AgentFailed) -> None:
        """A parent that has no hook for it, or fails at it, crashes too."""
        hook = parent.host.type.hook_child_failed
        if hook is None:
            parent.crash(AgentGaveUp(f"its child {child} has failed: {error.cause}"))
            return
        try:
            await parent.host.run_hook(parent, hook, self._ref(child), error)
        except (RefusedError, StoreError):
            raise
        except Exception as problem:
            parent.crash(AgentGaveUp(f"its child {child} has failed, and so has {hook.name}: {describe(problem)}"))

    def _ref(self, child: str) -> Any:
        """A reference to a child. Of a class that this process has never seen only the key can be told."""
        type_name, key = split_address(child)
        host = self._node.known(type_name)
        if host is None:
            host = Host(self._node, new_class(type_name, (Agent,), {"name": type_name}).__dict__["__jido_type__"])
            host.ref_class = make_ref_class(host)
        return host.ref(key)

    async def _restart_siblings(self, address: str) -> None:
        parent = parent_of(address)
        host = self._node.known(split_address(parent)[0])
        if host is not None and self._policy_of(host).strategy == "one_for_one":  # of others their own node knows
            return
        try:
            await self._tell(parent, FamilyFrame(parent, "crashed", address))
        except JidoError as error:
            self._node.log.error("the siblings of a crashed agent can't be found", agent=address, error=describe(error))

    async def _renew_sibling(self, sibling: str, child: str) -> None:
        try:
            await self._tell(sibling, FamilyFrame(sibling, "renew", child))
        except JidoError as error:
            self._node.log.error("an agent couldn't be started again with its crashed sibling", agent=sibling, error=describe(error))

    async def _renew(self, host: Host, key: str) -> None:
        activation = host.live.get(key)
        if activation is None:
            if self._node.ownership is not None:
                await self._node.control.record_of(host, key)
        elif activation.status == Status.LIVE:
            activation.leave(crashing=True)  # what it begins now would be committed by one that is gone
            activation.when_committed(partial(_restart, activation))

    def restart_soon(self, child: str) -> None:
        """A parent's turn that asked for it is committed."""
        self._node.own(self._restart_child(child))

    async def _restart_child(self, child: str) -> None:
        try:
            await self._node.control.order_at(child, "restart")
        except JidoError as error:
            self._node.log.error("a child couldn't be started again", agent=child, error=describe(error))

    async def stop_all(self, children: Sequence[str]) -> None:
        """Children stop with their parent, the youngest first."""
        for child in reversed(children):
            try:
                await self._node.control.order_at(child, "stop")
            except NoHost:  # then it lives nowhere
                continue
            except JidoError as error:
                self._node.log.warning("a child couldn't be stopped", agent=child, error=describe(error))

    async def delete_failed(self, address: str) -> None:
        """Delete an agent that can't be activated: a tombstone, beside it only the effects that are still to be taken."""
        records = self._node.records
        kept: list[Row] = []
        for _ in range(10):
            record = await records.read(address)
            if record is None or record.head is None:
                break
            kept = [Row("pending", row.name, row.value) for row in await records.read_rows(address, "pending")]
            children = [row.value.decode() for row in await records.read_rows(address, "child")]
            if children:
                marks = decode_head(record.head, address).marks or Marks()
                casts = [CastEffect(marks.effects + n, child, DELETE, encode({})) for n, child in enumerate(reversed(children), 1)]
                kept.append(Row("pending", f"{casts[-1].number:016d}", encode(casts)))
            try:
                await records.commit(address, record.revision, None, kept)
            except Conflict:
                continue
            break
        self.forgive(address)
        self._node.alerts.end("agent_failed", address)
        if kept:
            type_name, key = split_address(address)
            self._node.hosts[type_name].find(key)  # which sends it


def parent_of(address: str) -> str:
    """The address that a child's key begins with; "" or no agent's for one that is nobody's child."""
    return address.partition("/")[2].rpartition("/")[0]


def _restart(activation: Activation) -> None:
    if activation.status == Status.CRASHING:
        activation.host.drop_and_requeue(activation)
        activation.host.find(activation.key)
