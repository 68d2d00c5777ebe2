"""Who belongs to the cluster: a value that is read without waiting, and what changes between two of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from .leases import Lease

MAX_VOID = 1_000
"""Names of void nodes that a view remembers; the store knows the others."""


class MemberState(Enum):
    """How a node is. SUSPECT: it wasn't heard of, which decides nothing. VOID: it is out, and others may claim its agents."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DRAINING = "draining"
    VOID = "void"


class Member(NamedTuple):
    """A node as the others see it.

    Attributes:
        name: unique among those that live
        incarnation: which life of that name it is; later ones are larger
        subject: where it is reached over the wire
        protocol: the newest version of the frames that it speaks
        oldest_protocol: the oldest one
        types: the agent types that it hosts, with the versions of their state
        draining: takes no new agents
        suspect: wasn't heard of
        void: it is out for ever
        began: the incarnation with which its process joined first: all from there on were lives of a process that is still there
    """

    name: str
    incarnation: int
    subject: str = ""
    protocol: int = 0
    oldest_protocol: int = 0
    types: Mapping[str, int] = MappingProxyType({})
    draining: bool = False
    suspect: bool = False
    void: bool = False
    began: int = 0

    @property
    def state(self) -> MemberState:
        """The one word for it: void before draining before suspect."""
        if self.void:
            return MemberState.VOID
        if self.draining:
            return MemberState.DRAINING
        return MemberState.SUSPECT if self.suspect else MemberState.ALIVE


class View(NamedTuple):
    """The cluster as one node sees it at one moment; a change makes a new one.

    Attributes:
        number: grows by one with each change
        nodes: the latest known incarnation of each name, also void ones, in order of the names
        voided: by name the revision of the tombstone: every incarnation before it is void
    """

    number: int = 0
    nodes: Mapping[str, Member] = MappingProxyType({})
    voided: Mapping[str, int] = MappingProxyType({})

    def get(self, name: str) -> Member | None:
        """The latest known incarnation of a name."""
        return self.nodes.get(name)

    def living(self) -> Iterator[Member]:
        """All that aren't void."""
        return (member for member in self.nodes.values() if not member.void)

    def outlived(self, name: str, incarnation: int) -> bool:
        """Whether it is known that no process died with that life: it left in order, or lost its lease and has joined again."""
        member = self.nodes.get(name)
        if member is None or member.void:
            return member is not None and member.draining and member.incarnation == incarnation
        return member.began <= incarnation < member.incarnation

    def is_void(self, name: str, incarnation: int) -> bool:
        """Whether an incarnation is known to be void. False says nothing: it may be so, and not known here."""
        member = self.nodes.get(name)
        return self.voided.get(name, 0) > incarnation or (member is not None and member.incarnation > incarnation)


# -- what happened -----------------------------------------------------------------------------------------------


class NodeUp(NamedTuple):
    """A node belongs to the cluster now.

    Attributes:
        name: the node's
        incarnation: which life of that name
        at_s: when it was noticed here, seconds since the epoch
    """

    name: str
    incarnation: int
    at_s: float


class NodeSuspect(NamedTuple):
    """Nothing was heard of a node. Nothing follows from it.

    Attributes:
        name: the node's
        incarnation: which life of that name
        at_s: when it was noticed here, seconds since the epoch
    """

    name: str
    incarnation: int
    at_s: float


class NodeRecovered(NamedTuple):
    """A node that was suspected was heard of again.

    Attributes:
        name: the node's
        incarnation: which life of that name
        at_s: when it was noticed here, seconds since the epoch
    """

    name: str
    incarnation: int
    at_s: float


class NodeDraining(NamedTuple):
    """A node takes no new agents any more and hands over those that it has.

    Attributes:
        name: the node's
        incarnation: which life of that name
        at_s: when it was noticed here, seconds since the epoch
    """

    name: str
    incarnation: int
    at_s: float


class NodeUndrained(NamedTuple):
    """A node that drained takes agents again.

    Attributes:
        name: the node's
        incarnation: which life of that name
        at_s: when it was noticed here, seconds since the epoch
    """

    name: str
    incarnation: int
    at_s: float


class NodeDown(NamedTuple):
    """A node is void: this incarnation never serves or commits again.

    Attributes:
        name: the node's
        incarnation: which life of that name
        at_s: when it was noticed here, seconds since the epoch
        planned: it left by itself, as far as is known here
    """

    name: str
    incarnation: int
    at_s: float
    planned: bool = False


Occurrence: TypeAlias = NodeUp | NodeSuspect | NodeRecovered | NodeDraining | NodeUndrained | NodeDown


def member_of(lease: Lease, incarnation: int, *, suspect: bool = False) -> Member:
    """The node that a lease speaks of."""
    types, began = MappingProxyType(lease.types), lease.began or incarnation
    return Member(lease.name, incarnation, lease.subject, lease.protocol, lease.oldest_protocol, types, lease.draining, suspect, began=began)


def changes(before: View, after: View, at_s: float) -> list[Occurrence]:
    """What happened between two views, those that went before those that came. Each incarnation comes up once and goes down at most once."""
    downs: list[Occurrence] = [
        NodeDown(name, old.incarnation, at_s, old.draining) for name, old in before.nodes.items() if not old.void and name not in after.nodes
    ]
    others: list[Occurrence] = []
    for name, new in after.nodes.items():
        old = before.nodes.get(name)
        if old == new:
            continue
        if old is not None and not old.void and (new.void or new.incarnation != old.incarnation):
            planned = old.draining or (new.draining and new.incarnation == old.incarnation)
            downs.append(NodeDown(name, old.incarnation, at_s, planned))
        if not new.void:
            others += _of_living(old, new, at_s)
    return downs + others


def _of_living(old: Member | None, new: Member, at_s: float) -> Iterator[Occurrence]:
    same = old if old is not None and old.incarnation == new.incarnation else None
    if same is None:
        yield NodeUp(new.name, new.incarnation, at_s)
    if new.draining != (same is not None and same.draining):
        drains = NodeDraining if new.draining else NodeUndrained
        yield drains(new.name, new.incarnation, at_s)
    if new.suspect != (same is not None and same.suspect):
        kind = NodeSuspect if new.suspect else NodeRecovered
        yield kind(new.name, new.incarnation, at_s)
