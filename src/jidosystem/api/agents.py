"""`platform.agents`: starting, stopping and looking at agents from outside."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar

from ..core.errors import InvalidArguments, NoHost, NotYetAvailable
from ..core.ids import check_key
from ..core.near import near_or_all, one_of
from ..core.traces import leaves
from ..runtime.agent import Agent
from ..runtime.control import AgentInfo
from ..runtime.host import Host
from ..runtime.node import Node
from ..runtime.reference import Ref

A = TypeVar("A", bound=Agent)

STATES = ("live", "passive", "paused", "failed", "loading", "held", "stopping", "restarting", "unreadable")


class Agents:
    """Operations on the agents of one platform. A `ref` is what `platform.agent(…)` returns."""

    __slots__ = ("_node", "_node_name")

    _node: Node
    _node_name: str

    @classmethod
    def _on(cls, node: Node) -> Agents:
        agents = cls()
        agents._node, agents._node_name = node, node.name
        return agents

    @leaves
    async def start(
        self, cls: type[A], key: str, *, resources: object = None, placement: object = None, constraints: object = None, isolation: object = None
    ) -> A:
        """Activate an agent now and return its reference; `AgentCrashed`, `AgentFailed` or the store's error if it can't live."""
        for name, value in (("resources", resources), ("placement", placement), ("constraints", constraints), ("isolation", isolation)):
            if value is not None:
                part = "worker processes" if name == "isolation" else "the resource manager"
                raise NotYetAvailable(f"agents.start({cls.__name__}, {key!r}, {name}=…) comes with {part}; leave it out for now")
        host = self._node.host_of(cls)
        await self._node.control.start(host, check_key(key))
        ref: A = host.ref(key)
        return ref

    @leaves
    async def stop(self, ref: Agent) -> None:
        """Run what was accepted, then `on_terminate`; the agent is passive then, its children too. The next call activates it."""
        await self._node.see_through(self._node.control.stop(*self._target(ref)))

    @leaves
    async def delete(self, ref: Agent) -> None:
        """Delete an agent: state, rows and reminders; the next call begins from defaults. Its children are told durably and follow.

        Raises `RecordUnreadable` for an agent whose record can't be read, and errors of the store.
        """
        await self._node.see_through(self._node.control.delete(*self._target(ref)))

    @leaves
    async def restart(self, ref: Agent) -> None:
        """Drop the activation and make a new one from the record; ends the state "failed". Raises what `start` raises."""
        await self._node.see_through(self._node.control.restart(*self._target(ref)))

    @leaves
    async def pause(self, ref: Agent) -> None:
        """Durably let calls wait (until their deadline) and reminders and deliveries stay."""
        await self._node.see_through(self._node.control.pause(*self._target(ref)))

    @leaves
    async def resume(self, ref: Agent) -> None:
        """Let a paused agent go on."""
        await self._node.see_through(self._node.control.resume(*self._target(ref)))

    @leaves
    async def scale(self, cls: type[Agent], count: int) -> None:
        """Not yet: comes with pools of agents."""
        raise NotYetAvailable(f"agents.scale({cls.__name__}, {count}) comes with the `scaling` block")

    @leaves
    async def describe(self, ref: Agent) -> AgentInfo:
        """What is known of one agent, with its durable fields as last ended by a turn; doesn't wake it.

        `RecordUnreadable`, `StateMismatch` or `NoHost` if its fields can't be read by this class.
        """
        return await self._node.control.describe(*self._target(ref))

    @leaves
    async def list(self, *, type: type[Agent] | str | None = None, node: str | None = None, state: str | None = None) -> builtins.list[AgentInfo]:  # noqa: A002 - the contract's name
        """Agents with a record, in order of keys, and live ones, by type and state; without `fields`.

        `type`: a class or a hosted type's name (`NoHost` otherwise); `state`: one of `AgentInfo.state`, else `InvalidArguments`.
        Reads records: meant for looking, not for each call.
        """
        if state is not None and state not in STATES:
            raise InvalidArguments(f"state={state!r}: {one_of(state, STATES)}", path="$.state")
        found: list[AgentInfo] = []
        for host in self._hosts(type):
            found += [info async for info in self._node.control.list_agents(host, state) if node is None or info.node == node]
        return found

    async def watch(self, ref: Agent) -> AsyncIterator[tuple[Mapping[str, Any] | None, int]]:
        """(durable fields, revision) now and after each commit; the fields are None once the agent is deleted.

        A watcher that falls more than 1,000 commits behind skips to the newest state.
        """
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
