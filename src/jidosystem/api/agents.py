"""`platform.agents`: starting, stopping and looking at agents from outside."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar

from ..core.errors import InvalidArguments, NoHost, NotYetAvailable
from ..core.ids import check_key
from ..core.near import near_or_all, one_of
from ..core.traces import Leaving, leaves
from ..runtime.agent import Agent
from ..runtime.control import AgentInfo
from ..runtime.host import Host
from ..runtime.node import Node
from ..runtime.reference import Ref

A = TypeVar("A", bound=Agent)

STATES = ("live", "passive", "paused", "failed", "loading", "held", "stopping", "restarting", "unreadable")


class Agents:
    """What `platform.agents` is. A `ref` is what `platform.agent(…)` returns; anything else is `InvalidArguments`."""

    __slots__ = ("_node", "_node_name")

    _node: Node
    _node_name: str

    @classmethod
    def _on(cls, node: Node) -> Agents:
        agents = cls()
        agents._node, agents._node_name = node, node.name
        return agents

    def __repr__(self) -> str:
        return f"<agents of node {self._node_name}>"

    @leaves
    async def start(
        self, cls: type[A], key: str, *, resources: object = None, placement: object = None, constraints: object = None, isolation: object = None
    ) -> A:
        """Activate an agent now instead of with its first call, and return its reference. Raises `AgentCrashed` or `AgentFailed` if it can't live,
        and the store's errors. `resources`, `placement`, `constraints` and `isolation` come with a later release: `NotYetAvailable`.
        """
        for name, value in (("resources", resources), ("placement", placement), ("constraints", constraints), ("isolation", isolation)):
            if value is not None:
                part = "worker processes" if name == "isolation" else "the resource manager"
                raise NotYetAvailable(f"agents.start({cls.__name__}, {key!r}, {name}=…) comes with {part}; leave it out for now")
        host = self._node.host_of(cls)
        await self._node.control.order("start", host, check_key(key))
        ref: A = host.ref(key)
        return ref

    @leaves
    async def stop(self, ref: Agent) -> None:
        """Run what was accepted, then `@on_terminate`; the agent is passive then, its children too. The next call activates it again. No error if
        it isn't live.
        """
        await self._node.see_through(self._node.control.order("stop", *self._target(ref)))

    @leaves
    async def delete(self, ref: Agent) -> None:
        """Delete an agent: state, rows, reminders and keys go, a tombstone keeps its revision, and the next call begins from defaults. Its
        children are told durably and go each in a turn of its own, also after a crash. Casts that it has sent are still delivered. An agent
        whose record can't be read can't be deleted: `RecordUnreadable`.
        """
        await self._node.see_through(self._node.control.order("delete", *self._target(ref)))

    @leaves
    async def restart(self, ref: Agent) -> None:
        """Drop the activation and make a new one from the record. Forgives its crashes and ends the state "failed". Calls that wait go on waiting."""
        await self._node.see_through(self._node.control.order("restart", *self._target(ref)))

    @leaves
    async def pause(self, ref: Agent) -> None:
        """Durably let calls wait until their deadline; reminders and deliveries stay where they are. A paused agent stays so across restarts."""
        await self._node.see_through(self._node.control.order("pause", *self._target(ref)))

    @leaves
    async def resume(self, ref: Agent) -> None:
        """Let a paused agent go on with what waits. No error if it isn't paused."""
        await self._node.see_through(self._node.control.order("resume", *self._target(ref)))

    @leaves
    async def scale(self, cls: type[Agent], count: int) -> None:
        """Comes with pools of agents in a later release: raises `NotYetAvailable`."""
        raise NotYetAvailable(f"agents.scale({cls.__name__}, {count}) comes with the `scaling` block")

    @leaves
    async def describe(self, ref: Agent) -> AgentInfo:
        """What is known of one agent, with its durable fields as last committed or ended by a turn. Doesn't wake it. Raises `RecordUnreadable`,
        `StateMismatch`, `NoHost`.
        """
        info = await self._node.control.order("describe", *self._target(ref))
        assert info is not None
        return info

    @leaves
    async def list(self, *, type: type[Agent] | str | None = None, node: str | None = None, state: str | None = None) -> builtins.list[AgentInfo]:  # noqa: A002 - the contract's name
        """Agents that have a record or are in memory, on a cluster those of all nodes, in order of their keys; without `fields`. Reads the store:
        meant for looking, not for each call. `type`: a class or the name of one that is hosted, else `NoHost`; None: all that this platform hosts.
        `state`: one of those of `AgentInfo`, else `InvalidArguments`.
        """
        if state is not None and state not in STATES:
            raise InvalidArguments(f"state={state!r}: {one_of(state, STATES)}", path="$.state")
        found: list[AgentInfo] = []
        for host in self._hosts(type):
            found += [info async for info in self._node.listing.agents(host, state=state) if node is None or info.node == node]
        return found

    async def watch(self, ref: Agent) -> AsyncIterator[tuple[Mapping[str, Any] | None, int]]:
        """An async iterator of (durable fields, revision): now, and after each commit. The fields are None once the agent is deleted. It needn't
        be live and isn't woken. A watcher that falls more than 1,000 commits behind skips to the newest. Ends with `StoreUnavailable` when the
        platform closes.
        """
        with Leaving(self._node_name):
            async for seen in self._node.control.watch(*self._target(ref)):
                yield seen

    def _hosts(self, kind: type[Agent] | str | None) -> builtins.list[Host]:
        if kind is None:
            return [host for name, host in self._node.hosts.items() if not name.startswith("jido.")]
        if isinstance(kind, str):
            host = self._node.hosts.get(kind)
            if host is None:
                hosted = [name for name in self._node.hosts if not name.startswith("jido.")]
                raise NoHost(f"no agent type {kind!r} is hosted here: name it in Platform(agents=[…]){near_or_all(kind, hosted, 'hosted are')}")
            return [host]
        return [self._node.host_of(kind)]

    def _target(self, ref: object) -> tuple[Host, str]:
        if not isinstance(ref, Ref):
            raise InvalidArguments(f"{ref!r} isn't a reference; platform.agent(Counter, 'a') returns one", path="$.ref")
        return ref._host, ref._key
