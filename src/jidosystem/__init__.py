"""JidoSystem: the platform for autonomous agents in Python.

from jidosystem import Agent, Platform, action

class Counter(Agent):
    value: int = 0

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

async with Platform("sqlite:///counter.db") as platform:
    print(await platform.agent(Counter, "home").add(2))
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

from .api.agents import Agents
from .api.platform import Platform
from .core import errors
from .core.bus import EventBus, Forwarder, Subscription
from .core.config import Config
from .core.dead_letters import DeadLetter, DeadLetters
from .core.errors import (
    ActionFailed,
    AgentCrashed,
    AgentFailed,
    BulkheadFull,
    CallCycle,
    CallTimeout,
    CircuitOpen,
    DefinitionError,
    IdempotencyConflict,
    IdempotencyFull,
    InvalidArguments,
    InvalidConfig,
    InvalidKey,
    JidoError,
    MailboxFull,
    NoPlatform,
    NotAnAction,
    NotYetAvailable,
    OutboxFull,
    OutcomeUnknown,
    ReadOnlyTurn,
    RecordUnreadable,
    Rejected,
    ShuttingDown,
    StateMismatch,
    StoreLocked,
    StoreUnavailable,
    StreamConflict,
    Transient,
    TurnTimeout,
)
from .core.events import Event
from .core.hooks import HttpRequest
from .core.restarts import Supervision
from .infrastructure.breaker import CircuitBreaker
from .infrastructure.bulkhead import Bulkhead
from .infrastructure.retry import Retry
from .runtime.agent import Agent
from .runtime.blocks import Lifecycle, Mailbox, Resilience
from .runtime.control import AgentInfo
from .runtime.definition import action, migrate_state, on_child_failed, on_event, on_load, on_start, on_state_change, on_terminate
from .runtime.sensor import Item, sensor

if TYPE_CHECKING:
    from .infrastructure.forwarders import LogFileForwarder, WebhookForwarder

__version__ = "0.1.0"

__all__ = [
    "ActionFailed", "Agent", "AgentCrashed", "AgentFailed", "AgentInfo", "Agents", "Bulkhead", "BulkheadFull", "CallCycle", "CallTimeout",
    "CircuitBreaker", "CircuitOpen", "Config", "DeadLetter", "DeadLetters", "DefinitionError", "Event", "EventBus", "Forwarder", "HttpRequest",
    "IdempotencyConflict", "IdempotencyFull", "InvalidArguments", "InvalidConfig", "InvalidKey", "Item", "JidoError", "Lifecycle", "LogFileForwarder",
    "Mailbox", "MailboxFull", "NoPlatform", "NotAnAction", "NotYetAvailable", "OutboxFull", "OutcomeUnknown", "Platform", "ReadOnlyTurn",
    "RecordUnreadable", "Rejected", "Resilience", "Retry", "ShuttingDown", "StateMismatch", "StoreLocked", "StoreUnavailable",
    "StreamConflict", "Subscription", "Supervision", "Transient", "TurnTimeout", "WebhookForwarder", "action", "errors", "field",
    "migrate_state", "on_child_failed", "on_event", "on_load", "on_start", "on_state_change", "on_terminate", "sensor",
]  # fmt: skip


if not TYPE_CHECKING:  # a type checker knows every name that there is

    def __getattr__(name: str) -> Any:
        if name in ("LogFileForwarder", "WebhookForwarder"):  # they bring what few programs need
            from .infrastructure import forwarders

            return getattr(forwarders, name)
        from .api.later import NAMES, not_yet

        if name in NAMES:
            raise not_yet(f"jidosystem.{name}", NAMES[name])
        from .core.near import near

        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{near(name, __all__)}")
