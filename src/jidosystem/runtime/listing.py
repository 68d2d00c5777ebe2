"""The agents that there are, in order of key: what is stored of them, what lives here, and what lives on other nodes.

A node is asked for its live agents of a type a page at a time, never for one agent: a list costs each of them a request for
some thousand agents. Of a node that doesn't answer the records tell.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec

from ..core.codec import encode
from ..core.errors import JidoError, describe
from ..core.records import Record
from ..distribution.frames import NodeFrame
from ..distribution.members import Member

if TYPE_CHECKING:
    from .control import AgentInfo
    from .host import Host
    from .node import Node

MAX_PAGE = 2_000
"""Agents that a node tells of at once: about half a megabyte."""
PATIENCE_S = 5.0
"""How long a node may take to tell of its agents."""


class _Afar:
    """The live agents of a type on another node, asked for as far as they are looked at."""

    __slots__ = ("_after", "_ended", "_host", "_infos", "_limit", "_member")

    def __init__(self, host: Host, member: Member, after: str, limit: int) -> None:
        self._host, self._member, self._after, self._limit = host, member, after, limit
        self._infos: deque[AgentInfo] = deque()
        self._ended = False

    async def fetch(self) -> None:
        """The next page."""
        node = self._host.node
        assert node.router is not None
        frame = NodeFrame("live", self._host.type.name, self._after, self._limit)
        try:
            infos = _infos_in(await node.router.ask_node(self._member, frame, PATIENCE_S))
        except JidoError as error:
            node.log.warning("a node doesn't tell which agents live there", member=self._member.name, error=describe(error))
            self._ended = True
            return
        self._infos.extend(infos)
        self._ended = len(infos) < self._limit
        if infos:
            self._after = infos[-1].key

    async def find(self, key: str) -> AgentInfo | None:
        """The agent of that key, if it lives there; keys are asked for in order."""
        infos = self._infos
        while True:
            while infos and infos[0].key < key:
                infos.popleft()
            if infos or self._ended:
                return infos.popleft() if infos and infos[0].key == key else None
            await self.fetch()


class Listing:
    """See the module. One a node."""

    __slots__ = ("_node",)

    def __init__(self, node: Node) -> None:
        self._node = node
        node.asked["live"], node.asked["count"] = self._tell_live, self._tell_counts

    async def agents(self, host: Host, after: str = "", state: str | None = None, *, page: int = MAX_PAGE) -> AsyncIterator[AgentInfo]:
        """Every agent of a type after a key that has a record or is live, in order of key, without fields. `page`: so many are likely looked at."""
        afar = await self._afar(host, after, min(page, MAX_PAGE))
        unstored = deque(sorted(key for key, activation in host.live.items() if activation.revision == 0 and key > after))
        async for records in self._node.records.scan_agents(host.type.name, host.prefix + after):
            for record in records:
                key = record.agent.removeprefix(host.prefix)
                while unstored and unstored[0] <= key:
                    first = unstored.popleft()
                    if first != key and (info := self._here(host, first)) is not None and state in (None, info.state):
                        yield info
                info = self._here(host, key) or await _first(afar, key) or self._stored(host, key, record)
                if state in (None, info.state):
                    yield info
        for key in unstored:
            if (info := self._here(host, key)) is not None and state in (None, info.state):
                yield info

    async def page(self, host: Host, after: str, limit: int, state: str | None) -> list[AgentInfo]:
        """The first of them, at most `limit`."""
        found: list[AgentInfo] = []
        agents = self.agents(host, after, state, page=limit)
        async for info in agents:
            found.append(info)
            if len(found) >= limit:
                break
        return found

    async def live_counts(self, types: list[str]) -> dict[str, dict[str, int] | None]:
        """How many agents of each type live, by node; None of a node that doesn't answer."""
        counts: dict[str, dict[str, int] | None] = {self._node.name: {name: len(self._node.hosts[name].live) for name in types}}
        router = self._node.router
        if router is None:
            return counts
        frame, others = NodeFrame("count", ",".join(types)), router.others()
        told = await asyncio.gather(*(router.ask_node(member, frame, PATIENCE_S) for member in others), return_exceptions=True)
        for member, answer in zip(others, told, strict=True):
            if isinstance(answer, bytes):
                counts[member.name] = _counts_in(answer)
            elif not isinstance(answer, JidoError):
                raise answer
            else:
                self._node.log.warning("a node doesn't tell how many agents live there", member=member.name, error=describe(answer))
                counts[member.name] = None
        return counts

    async def _afar(self, host: Host, after: str, limit: int) -> list[_Afar]:
        router = self._node.router
        if router is None:
            return []
        afar = [_Afar(host, member, after, limit) for member in router.others() if host.type.name in member.types]
        await asyncio.gather(*(one.fetch() for one in afar))
        return afar

    def _here(self, host: Host, key: str) -> AgentInfo | None:
        live = host.live.get(key)
        return None if live is None else self._node.control.of_live(host, live)

    def _stored(self, host: Host, key: str, record: Record) -> AgentInfo:
        return self._node.control.of_head(host, key, record.revision, record.head or b"", record.damage)

    async def _tell_live(self, frame: NodeFrame) -> bytes:
        """What this node has to say of its agents to another."""
        host = self._node.hosts.get(frame.about)
        live = {} if host is None else host.live
        keys = heapq.nsmallest(min(frame.limit, MAX_PAGE), (key for key in live if key > frame.after))
        return encode([] if host is None else [self._node.control.of_live(host, live[key]) for key in keys])

    async def _tell_counts(self, frame: NodeFrame) -> bytes:
        return encode({name: len(self._node.hosts[name].live) for name in frame.about.split(",") if name in self._node.hosts})


async def _first(afar: list[_Afar], key: str) -> AgentInfo | None:
    for one in afar:
        if (info := await one.find(key)) is not None:
            return info
    return None


def _infos_in(answer: bytes) -> list[AgentInfo]:
    from .control import AgentInfo

    return msgspec.msgpack.decode(answer, type=list[AgentInfo])


def _counts_in(answer: bytes) -> dict[str, int]:
    return msgspec.msgpack.decode(answer, type=dict[str, int])
