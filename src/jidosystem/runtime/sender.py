"""Durable casts from outside: stored before they return, by an agent of the platform's own whose turn sends them."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any
from zlib import crc32

from ..core.codec import encode
from ..core.errors import IdempotencyConflict
from . import calls
from .agent import Agent
from .blocks import Lifecycle
from .definition import ActionSpec, action
from .effects import CastEffect
from .host import Host
from .keyed import check_idempotency_key
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


async def durable_cast(
    sender_host: Host, to: Host, key: str, spec: ActionSpec, arguments: tuple[Any, ...], named: dict[str, Any], idempotency_key: str | None = None
) -> None:
    """Return once the message is stored; it is delivered at least once and applied once. With a key repetitions of this send it once."""
    blob = spec.signature.to_plain(arguments, named)
    spec.signature.from_plain(blob)  # what doesn't fit is refused here, not a dead letter later
    address = to.prefix + key
    sender = str(crc32(address.encode()) % SENDERS)  # the same in every process
    if idempotency_key is None:
        await sender_host.ref(sender).send(address, spec.name, blob)
        return
    check_idempotency_key(idempotency_key)
    key_of_its_own = blake2b(encode([address, idempotency_key]), digest_size=24).hexdigest()
    try:
        await calls.call(sender_host, sender, sender_host.type.actions["send"], (address, spec.name, blob), {}, None, key_of_its_own)
    except IdempotencyConflict as error:
        told = f"{address}: the idempotency key {idempotency_key!r} was used before with another action or other arguments"
        raise IdempotencyConflict(told, agent=address) from error
