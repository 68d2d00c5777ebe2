"""Which node an agent is placed on: every node works it out alone and finds the same, without asking anybody.

Rendezvous hashing (Thaler and Ravishankar, "A name-based mapping scheme for rendezvous", 1996): each pair of agent and node has a
weight, and the heaviest node has the agent. When a node goes, only its agents move; when one comes, only those that it gets. Pure,
and the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b

from ..core.errors import NoHost
from ..core.ids import split_address
from ..distribution.members import Member, View

_WORD = 0xFFFF_FFFF_FFFF_FFFF


def choose(address: str, candidates: Iterable[str]) -> str:
    """The one of these nodes on which an agent belongs, whatever the order in which they are given; `NoHost` if there is none."""
    agent = _hash(address)
    best, heaviest = "", -1
    for node in candidates:
        weight = _weight(agent, _hash_of_node(node))
        if weight > heaviest or (weight == heaviest and node > best):
            best, heaviest = node, weight
    if heaviest < 0:
        raise NoHost(f"no node may host {address}", agent=address)
    return best


def place(address: str, view: View, version: int = 0) -> Member:
    """The member on which an agent belongs whose stored state has a version; `NoHost` says what is needed and what there is."""
    type_name = split_address(address)[0]
    return view.nodes[choose(address, candidates(view, type_name, version))]


class Placement:
    """`place` for many agents, one after another: who may take them on is worked out once for each view, and the last one's place is known."""

    __slots__ = ("_able", "_last", "_place", "_view")

    def __init__(self) -> None:
        self._view: View | None = None
        self._able: dict[tuple[str, int], Sequence[str]] = {}
        self._last: tuple[str, int] = ("", 0)
        self._place = ""

    def place(self, address: str, view: View, version: int = 0) -> Member:
        """See the function."""
        if view is not self._view:
            self._view, self._able, self._last = view, {}, ("", 0)
        if self._last == (address, version):  # it was looked for, and is claimed
            return view.nodes[self._place]
        which = (split_address(address)[0], version)
        able = self._able.get(which)
        if able is None:
            able = self._able[which] = candidates(view, *which)
        self._place, self._last = choose(address, able), (address, version)
        return view.nodes[self._place]


def candidates(view: View, type_name: str, version: int = 0) -> Sequence[str]:
    """The nodes that may take on agents of a type whose state has at least a version: alive and not draining. A suspected one only if there is
    no other. `NoHost` if there is none at all.
    """
    able = [member for member in view.living() if not member.draining and member.types.get(type_name, -1) >= version]
    if not able:
        raise NoHost(_missing(view, type_name, version), type=type_name, needed=version)
    return [member.name for member in able if not member.suspect] or [member.name for member in able]


def _missing(view: View, type_name: str, version: int) -> str:
    living = list(view.living())
    hosts = [member for member in living if type_name in member.types]
    if not living:
        there = "the cluster has no living node"
    elif not hosts:
        names = ", ".join(sorted(member.name for member in living))
        return f"no node of the cluster hosts {type_name}: there are {names}; name it in the Platform(agents=[…]) of one of them"
    else:
        there = ", ".join(sorted(f"{m.name} has version {m.types[type_name]}{' and is draining' if m.draining else ''}" for m in hosts))
    return f"{type_name} needs a node that hosts its state of version {version} or later and isn't draining: {there}"


def _weight(agent: int, node: int) -> int:
    """Mixes two words as splitmix64 ends (Steele, Lea and Flood, 2014), so that every bit of the sum depends on every bit of both."""
    word = agent ^ node
    word = ((word ^ (word >> 30)) * 0xBF58_476D_1CE4_E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D0_49BB_1331_11EB) & _WORD
    return word ^ (word >> 31)


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


_hash_of_node = lru_cache(maxsize=1_024)(_hash)
