"""How an agent type looks from outside, for whoever knows it by its name alone; asked of another node if this one doesn't host it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.errors import JidoError, NoHost, describe
from ..distribution.frames import NodeFrame

if TYPE_CHECKING:
    from .host import Host
    from .node import Node

ASK_S = 5.0
"""How long a node may take to tell how a type looks."""


async def type_info_at(node: Node, type_name: str) -> bytes | None:
    """The JSON of `type_info`, told by another node that hosts the type; None: none does."""
    if node.router is None:
        return None
    for member in node.router.others():
        if type_name in member.types and not type_name.startswith("jido."):
            try:
                return await node.router.ask_node(member, NodeFrame("type", type_name), ASK_S)
            except JidoError as error:
                node.log.warning("a node doesn't tell how an agent type looks", member=member.name, agent_type=type_name, error=describe(error))
    return None


async def tell_type(node: Node, frame: NodeFrame) -> bytes:
    """What this node tells another one that asks for a type."""
    host = node.hosts.get(frame.about)
    if host is None:
        raise NoHost(f"node {node.name} hosts no agent type {frame.about!r}", agent_type=frame.about)
    return msgspec.json.encode(type_info(host))


def type_info(host: Host) -> dict[str, Any]:
    """Its fields, actions and subscriptions, and the JSON schemas of the arguments."""
    kind = host.type
    return {
        "call_timeout": host.node.limits.default_timeout, "name": kind.name, "version": kind.version, "description": kind.description,
        "resident": kind.resident,
        "fields": {field.name: inspect.formatannotation(field.hint) for field in kind.codec.fields},
        "actions": {
            name: {
                "description": (spec.function.__doc__ or "").strip(), "readonly": spec.readonly,
                "signature": spec.signature.told(), "arguments": spec.signature.json_schema(),
            }
            for name, spec in sorted(kind.actions.items())
        },
        "events": {name: options.pattern for name, (_spec, options) in sorted(kind.events.items())},
    }  # fmt: skip
