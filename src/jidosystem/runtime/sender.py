"""Durable casts from outside: stored before they return, by an agent of the platform's own whose turn sends them."""

from __future__ import annotations

from typing import Any

from .agent import Agent
from .blocks import Lifecycle
from .definition import ActionSpec, action
from .effects import CastEffect
from .host import Host
from .turn import current_turn

SENDERS = 16
"""How many of these agents share the work; messages to one receiver always take the same one, in order."""


class Sender(Agent, name="jido.sender"):
    """Takes messages from outside and casts them."""

    lifecycle = Lifecycle(shutdown_grace_period=0)  # how long a platform takes to close is its users' to say

    @action
    async def send(self, to: str, name: str, args: bytes) -> None:
        """Cast an action, its arguments encoded by name."""
        turn = current_turn()
        assert turn is not None
        why = turn.causality()
        turn.collect("cast").casts.append(CastEffect(0, to, name, args, why.correlation_id, why.causation_id, why.traceparent))


async def durable_cast(sender_host: Host, to: Host, key: str, spec: ActionSpec, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Return once the message is stored; it is delivered at least once and applied once."""
    blob = spec.signature.to_plain(arguments, named)
    address = f"{to.type.name}/{key}"
    sender = sender_host.node.ref(sender_host, str(hash_of(address) % SENDERS))
    await sender.send(address, spec.name, blob)


def hash_of(address: str) -> int:
    """A hash that is the same in every process."""
    from zlib import crc32

    return crc32(address.encode())
