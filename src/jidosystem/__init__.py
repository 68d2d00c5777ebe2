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

# Nothing is imported here: until `jido` has begun, Ctrl-C would show where. Type checkers know the name.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from dataclasses import field
    from typing import Any

    from .api.agents import Agents
    from .api.alerts import Alerts
    from .api.forwarders import NatsForwarder
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
    from .infrastructure.forwarders import LogFileForwarder, WebhookForwarder
    from .infrastructure.retry import Retry
    from .runtime.agent import Agent
    from .runtime.alerts import Alert
    from .runtime.blocks import Lifecycle, Mailbox, Resilience
    from .runtime.control import AgentInfo
    from .runtime.definition import action, migrate_state, on_child_failed, on_event, on_load, on_start, on_state_change, on_terminate
    from .runtime.sensor import Item, sensor

__version__ = "0.1.0"

__all__ = [
    "ActionFailed", "Agent", "AgentCrashed", "AgentFailed", "AgentInfo", "Agents", "Alert", "Alerts", "Bulkhead", "BulkheadFull", "CallCycle",
    "CallTimeout", "CircuitBreaker", "CircuitOpen", "Config", "DeadLetter", "DeadLetters", "DefinitionError", "Event", "EventBus", "Forwarder",
    "HttpRequest", "IdempotencyConflict", "IdempotencyFull", "InvalidArguments", "InvalidConfig", "InvalidKey", "Item", "JidoError", "Lifecycle",
    "LogFileForwarder", "Mailbox", "MailboxFull", "NatsForwarder", "NoPlatform", "NotAnAction", "NotYetAvailable", "OutboxFull", "OutcomeUnknown",
    "Platform", "ReadOnlyTurn", "RecordUnreadable", "Rejected", "Resilience", "Retry", "ShuttingDown", "StateMismatch", "StoreLocked",
    "StoreUnavailable", "StreamConflict", "Subscription", "Supervision", "Transient", "TurnTimeout", "WebhookForwarder", "action", "errors", "field",
    "migrate_state", "on_child_failed", "on_event", "on_load", "on_start", "on_state_change", "on_terminate", "sensor",
]  # fmt: skip


_HOMES: dict[str, tuple[str, ...]] = {
    "dataclasses": ("field",),
    ".api.agents": ("Agents",),
    ".api.alerts": ("Alerts",),
    ".api.forwarders": ("NatsForwarder",),
    ".api.platform": ("Platform",),
    ".core.bus": ("EventBus", "Forwarder", "Subscription"),
    ".core.config": ("Config",),
    ".core.dead_letters": ("DeadLetter", "DeadLetters"),
    ".core.events": ("Event",),
    ".core.hooks": ("HttpRequest",),
    ".core.restarts": ("Supervision",),
    ".infrastructure.breaker": ("CircuitBreaker",),
    ".infrastructure.bulkhead": ("Bulkhead",),
    ".infrastructure.retry": ("Retry",),
    ".runtime.agent": ("Agent",),
    ".runtime.alerts": ("Alert",),
    ".runtime.blocks": ("Lifecycle", "Mailbox", "Resilience"),
    ".runtime.control": ("AgentInfo",),
    ".runtime.definition": ("action", "migrate_state", "on_child_failed", "on_event", "on_load", "on_start", "on_state_change", "on_terminate"),
    ".runtime.sensor": ("Item", "sensor"),
    ".infrastructure.forwarders": ("LogFileForwarder", "WebhookForwarder"),
}
"""Where the names are; the rest are errors. Each is loaded when it is first asked for: the command line starts without the runtime."""


if not TYPE_CHECKING:  # a type checker knows every name that there is

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name == "errors":
            return import_module(".core.errors", __name__)
        if name in __all__:
            home = next((home for home, names in _HOMES.items() if name in names), ".core.errors")
            value = globals()[name] = getattr(import_module(home, __name__), name)
            return value
        from .api.later import NAMES, not_yet

        if name in NAMES:
            raise not_yet(f"jidosystem.{name}", NAMES[name])
        from .core.near import near

        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{near(name, __all__)}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
