"""Seams for seeing what goes on, free when nobody looks: plain counters, logs with ids, spans only if somebody set up tracing.

Counters are plain integers that the runtime increments; Prometheus text is made from them when it is asked for.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

BUCKETS = 40
_TRACEPARENT = re.compile(r"^00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})$")


class TurnMeter:
    """The counters of one agent type; `buckets[n]` counts turns that took less than 2**n microseconds (and no less than half of it)."""

    __slots__ = ("activations", "buckets", "commits", "crashes", "dropped", "events", "failures", "passivations")

    def __init__(self) -> None:
        self.buckets = [0] * (BUCKETS + 30)
        self.failures = self.commits = self.events = self.crashes = self.dropped = self.activations = self.passivations = 0

    @property
    def turns(self) -> int:
        """How many turns ended."""
        return sum(self.buckets)

    def observe(self, seconds: float) -> None:
        """Count a turn that took so long."""
        self.buckets[int(seconds * 1e6).bit_length()] += 1


COUNTERS = {
    "failures": "Turns that failed by the agent's own fault",
    "commits": "Commits of agents' records",
    "events": "Events emitted by turns",
    "crashes": "Crashes of activations",
    "dropped": "Messages dropped from full mailboxes",
    "activations": "Agents activated",
    "passivations": "Agents passivated",
}


class Meters:
    """All counters of one platform, and gauges that are read when somebody looks."""

    def __init__(self) -> None:
        self._of: dict[str, TurnMeter] = {}
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def of(self, agent_type: str) -> TurnMeter:
        """The counters of an agent type."""
        meter = self._of.get(agent_type)
        if meter is None:
            meter = self._of[agent_type] = TurnMeter()
        return meter

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """A number of the whole platform, `jido_<name>`, read at each scrape."""
        self._gauges[name] = (help_text, read)

    def registry(self) -> Any:
        """A Prometheus registry of its own that reads these counters."""
        from prometheus_client import CollectorRegistry

        registry = CollectorRegistry()
        registry.register(self)  # type: ignore[arg-type]
        return registry

    def text(self) -> str:
        """Everything in Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry()).decode()

    def collect(self) -> Iterator[Any]:
        """The collector protocol of prometheus_client."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for name, help_text in COUNTERS.items():
            family = CounterMetricFamily(f"jido_{name}", help_text, labels=["agent_type"])
            for kind, meter in self._of.items():
                family.add_metric([kind], getattr(meter, name))
            yield family
        turns = HistogramMetricFamily("jido_turn_seconds", "How long turns took, from begin to end of their code", labels=["agent_type"])
        for kind, meter in self._of.items():
            total, total_s, edges = 0, 0.0, []
            for power, count in enumerate(meter.buckets):
                total += count
                total_s += count * 0.75 * 2**power / 1e6
                if power < BUCKETS:
                    edges.append((f"{2**power / 1e6:.6f}", total))
            turns.add_metric([kind], [*edges, ("+Inf", total)], total_s)
        yield turns
        for name, (help_text, read) in self._gauges.items():
            yield GaugeMetricFamily(f"jido_{name}", help_text, value=read())


# -- logs ----------------------------------------------------------------------------------------------------------


class _Logger:
    """Structured lines through the standard library's logging: the host application's handlers and levels rule."""

    __slots__ = ("_bound", "_logger")

    def __init__(self, logger: logging.Logger, bound: dict[str, Any]) -> None:
        self._logger = logger
        self._bound = bound

    def bind(self, **ids: Any) -> _Logger:
        """A logger whose lines carry these as well."""
        return _Logger(self._logger, {**self._bound, **ids})

    def debug(self, event: str, **fields: Any) -> None:
        """For those who look closely."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Worth knowing."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Somebody may want to look into it."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Somebody has to look into it."""
        self._log(logging.ERROR, event, fields)

    def _log(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            told = {**self._bound, **fields}
            self._logger.log(level, "%s %s", event, " ".join(f"{k}={json.dumps(v, default=str)}" for k, v in told.items()), extra={"jido": told})


def logger(name: str) -> _Logger:
    """A structured logger on top of `logging.getLogger(name)`; configures nothing."""
    return _Logger(logging.getLogger(name), {})


# -- traces --------------------------------------------------------------------------------------------------------


def valid_traceparent(value: object) -> str | None:
    """A W3C `traceparent` as it is, None if it isn't one: what comes from outside is ignored rather than refused."""
    return value if isinstance(value, str) and _TRACEPARENT.match(value) else None


def child_traceparent(parent: str | None) -> str | None:
    """The same trace with a span id of its own; None without a trace."""
    match = _TRACEPARENT.match(parent) if parent else None
    return f"00-{match[1]}-{secrets.token_hex(8)}-{match[3]}" if match else None


class Tracing:
    """Spans through OpenTelemetry, if the application has set a tracer provider up; otherwise nothing at all."""

    __slots__ = ("_tracer", "enabled")

    def __init__(self, provider: Any = None) -> None:
        self._tracer: Any = None
        if provider is None and "opentelemetry.sdk.trace" in sys.modules:
            from opentelemetry import trace

            provider = trace.get_tracer_provider()
        if provider is not None:
            self._tracer = provider.get_tracer("jidosystem")
        self.enabled = self._tracer is not None

    def span(self, name: str, attributes: dict[str, Any], traceparent: str | None = None) -> AbstractContextManager[Any]:
        """A span around what follows, the child of a `traceparent`."""
        if not self.enabled:
            return nullcontext()
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        context = TraceContextTextMapPropagator().extract({"traceparent": traceparent}) if traceparent else None
        manager: AbstractContextManager[Any] = self._tracer.start_as_current_span(name, context=context, attributes=attributes)
        return manager
