"""Durable subscriptions of a bus by name: who is subscribed, and how the members of a group share the events.

Names carry their kind ("durable/…", "group/…", "forward/…"), so that a user's never meets that of an agent's `type.method`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from .errors import InvalidArguments, ShuttingDown
from .events import Event
from .subscriptions import CLOSE_GRACE_S

Handler = Callable[[Event], object]


class Member:
    """One handler of a group."""

    __slots__ = ("busy", "handler", "idle")

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.busy = 0
        self.idle = asyncio.Event()


class Running(Protocol):
    """What the members of a group have in common: its events, run by this node or by another of the cluster."""

    def start(self) -> Awaitable[None]:
        """Find or store the starting position, then go."""
        ...

    def close(self, grace_s: float = CLOSE_GRACE_S) -> Awaitable[None]:
        """Take no more; what is under way gets a while to end."""
        ...


class Group:
    """A durable subscription and its members, who take turns. `options`: what all members agree on."""

    __slots__ = ("ended", "ending", "members", "options", "started", "subscription", "turn")

    def __init__(self, options: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        self.options = options
        self.members: list[Member] = []
        self.turn = 0
        self.subscription: Running
        self.started: asyncio.Future[None] = loop.create_future()
        self.ending = False  # its last member leaves
        self.ended: asyncio.Future[None] = loop.create_future()

    async def deliver(self, _lane: str, events: Sequence[Event]) -> None:
        """To the member whose turn it is."""
        self.turn += 1
        member = self.members[self.turn % len(self.members)]
        member.busy += 1
        try:
            for event in events:
                result = member.handler(event)
                if inspect.isawaitable(result):
                    await result
        finally:
            member.busy -= 1
            if not member.busy:
                member.idle.set()


class Groups:
    """The durable subscriptions of one bus."""

    __slots__ = ("_closed", "_groups")

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}
        self._closed = False

    async def find(self, name: str) -> Group | None:
        """The group of that name; one that is just ending is waited for."""
        group = self._groups.get(name)
        while group is not None and group.ending:
            await asyncio.shield(group.ended)
            group = self._groups.get(name)
        return group

    async def start(self, name: str, group: Group) -> None:
        """Start a new group, whose `subscription` is set. `find` has just said that there is none."""
        if self._closed:
            raise ShuttingDown("the platform is closing")
        self._groups[name] = group
        try:
            await group.subscription.start()
        except BaseException:
            if self._groups.get(name) is group:
                del self._groups[name]
            group.started.set_exception(ShuttingDown(f"the subscription {name!r} couldn't be started by whoever was first"))
            group.started.exception()  # retrieved: nobody need wait for it
            raise
        group.started.set_result(None)
        if self._groups.get(name) is not group:  # all were closed meanwhile
            await group.subscription.close()
            raise ShuttingDown("the platform is closing")

    async def join(self, group: Group, member: Member, options: dict[str, Any]) -> None:
        """One more member; `InvalidArguments` unless it wants what the others have."""
        if group.options != options:
            told = ", ".join(f"{name}={value!r}" for name, value in group.options.items())
            raise InvalidArguments(f"the members of a group share their options; this one has {told}", path="$.group")
        await asyncio.shield(group.started)
        if group.ending:
            raise ShuttingDown("the group's last member is just leaving; subscribe again")
        group.members.append(member)

    async def leave(self, name: str, group: Group, member: Member) -> None:
        """A member leaves, after what it is at; with the last one the subscription ends."""
        if self._groups.get(name) is not group or member not in group.members or group.ending:
            return
        if len(group.members) == 1:
            await self.end(name, group)
            return
        group.members.remove(member)
        while member.busy:
            member.idle.clear()
            await member.idle.wait()

    async def end(self, name: str, group: Group) -> None:
        """Close a group's subscription; its position stays."""
        group.ending = True
        try:
            await group.subscription.close()
        finally:
            if self._groups.get(name) is group:
                del self._groups[name]
            group.ended.set_result(None)

    async def close(self, grace_s: float) -> None:
        """Close all of them."""
        self._closed = True
        groups, self._groups = self._groups, {}
        started = [group for group in groups.values() if group.started.done()]
        await asyncio.gather(*(group.subscription.close(grace_s) for group in started))


def durable_name(durable: str | None, group: str | None) -> str:
    """The name that a position is kept under; `InvalidArguments` for what can't be one."""
    for option, value in (("durable", durable), ("group", group)):
        if value is not None and (not isinstance(value, str) or not 0 < len(value) <= 200 or "/" in value or not value.isprintable()):
            raise InvalidArguments(f"{option}={value!r}: a name of 1 to 200 printable characters without '/'", path=f"$.{option}")
    if group is None:
        return f"durable/{durable}"
    return f"group/{group}" if durable is None else f"group/{durable}/{group}"
