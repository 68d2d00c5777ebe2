"""Seams for seeing what goes on, free when nobody looks.

Counters are plain integers that the runtime increments; Prometheus metrics are made from them when somebody asks.
Spans (`tracing.py`) exist only where the application has set a tracer provider up. Log lines (`logs.py`) go through the
standard library's logging, so that the application's handlers and levels rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .logs import Log, logger
from .tracing import Tracing

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric

__all__ = ["Log", "Meters", "Tracing", "TurnMeter", "logger"]

BUCKETS = 64
"""`buckets[n]` holds turns of at least 2**(n-1) and less than 2**n microseconds: no turn lasts longer than the last."""
_EXPORTED = range(1, 31)  # 2 µs to 18 minutes


class TurnMeter:
    """The counters of one agent type. The runtime adds to them without a call; reading them changes nothing."""

    __slots__ = (
        "activations", "buckets", "commits", "crashes", "dropped", "events", "failures", "passivations", "sensed", "sensor_failures",
    )  # fmt: skip

    def __init__(self) -> None:
        self.buckets = [0] * BUCKETS
        self.failures = self.commits = self.events = self.crashes = self.dropped = self.activations = self.passivations = 0
        self.sensed = self.sensor_failures = 0

    @property
    def turns(self) -> int:
        """How many turns have ended, whatever their outcome."""
        return sum(self.buckets)

    def observe(self, seconds: float) -> None:
        """Count a turn that took so long."""
        self.buckets[int(seconds * 1e6).bit_length()] += 1


_COUNTERS: dict[str, tuple[str, Callable[[TurnMeter], int]]] = {
    "jido_turns": ("Turns that ended, whatever their outcome", lambda meter: meter.turns),
    "jido_turn_failures": ("Turns that failed by the agent's own fault; they were rolled back", lambda meter: meter.failures),
    "jido_commits": ("Commits of agents' records; one may carry several turns", lambda meter: meter.commits),
    "jido_events": ("Events emitted by turns", lambda meter: meter.events),
    "jido_crashes": ("Activations that crashed", lambda meter: meter.crashes),
    "jido_messages_dropped": ("Messages dropped from full mailboxes", lambda meter: meter.dropped),
    "jido_activations": ("Agents that were activated", lambda meter: meter.activations),
    "jido_passivations": ("Agents that were passivated", lambda meter: meter.passivations),
    "jido_sensor_items": ("Items of sensors whose turn is durable, or that became a dead letter", lambda meter: meter.sensed),
    "jido_sensor_failures": ("Runs of sensors that raised", lambda meter: meter.sensor_failures),
}


class Meters:
    """The counters of one platform and gauges that are read when somebody looks, which may be on another thread."""

    __slots__ = ("_gauges", "_of_type")

    def __init__(self) -> None:
        self._of_type: dict[str, TurnMeter] = {}
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def of(self, agent_type: str) -> TurnMeter:
        """The counters of an agent type; the same object each time."""
        meter = self._of_type.get(agent_type)
        if meter is None:
            meter = self._of_type[agent_type] = TurnMeter()
        return meter

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """A number of the whole platform, shown as `jido_<name>`. `read` must be quick and may be called on any thread."""
        self._gauges[f"jido_{name}"] = (help_text, read)

    def registry(self) -> CollectorRegistry:
        """A registry for prometheus_client that holds this platform's metrics and nothing else."""
        from prometheus_client import CollectorRegistry

        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(self))
        return registry

    def text(self, *, openmetrics: bool = False) -> str:
        """Every metric in Prometheus' text format, or in that of OpenMetrics."""
        registry = self.registry()
        if openmetrics:
            from prometheus_client.openmetrics import exposition

            generate: Callable[[CollectorRegistry], bytes] = exposition.generate_latest
        else:
            from prometheus_client import generate_latest as generate
        return generate(registry).decode()

    def families(self) -> Iterator[Metric]:
        """The metrics as families of prometheus_client."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        meters = list(self._of_type.items())  # in one step: another thread may add a type meanwhile
        for name, (help_text, read) in _COUNTERS.items():
            counter = CounterMetricFamily(name, help_text, labels=["agent_type"])
            for agent_type, meter in meters:
                counter.add_metric([agent_type], read(meter))
            yield counter
        durations = HistogramMetricFamily("jido_turn_duration_seconds", "How long the code of turns took", labels=["agent_type"])
        for agent_type, meter in meters:
            # No sum is kept, and none is made up: averages come from the buckets.
            durations.add_metric([agent_type], _cumulative(list(meter.buckets)), sum_value=None)
        yield durations
        for name, (help_text, gauge) in list(self._gauges.items()):
            yield GaugeMetricFamily(name, help_text, value=gauge())


class _Collector:
    """The side of `Meters` that prometheus_client sees."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters

    def collect(self) -> Iterator[Metric]:
        return self._meters.families()


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    """Pairs of (upper edge in seconds, how many turns took less)."""
    below, total, edges = 0, 0, iter(_EXPORTED)
    pairs: list[tuple[str, float]] = []
    edge = next(edges, None)
    for power, count in enumerate(buckets):
        total += count
        if power == edge:
            below = total
            pairs.append((repr(2**power / 1e6), below))
            edge = next(edges, None)
    return [*pairs, ("+Inf", total)]
