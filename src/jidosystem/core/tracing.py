"""Spans through OpenTelemetry where the application has set it up, and W3C trace context everywhere.

Whether there is tracing is decided once, when a platform starts; without it nothing of OpenTelemetry is imported and a
`traceparent` is handed on as it came. Whether a trace is sampled is decided before a span is made, and the decision of
whoever began the trace is kept. What isn't a traceparent (https://www.w3.org/TR/trace-context/) is ignored, not refused.
"""

from __future__ import annotations

import os
import random
import re
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from .errors import Rejected, describe

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import TracerProvider

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII | re.DOTALL)
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16

Attributes: TypeAlias = Mapping[str, str | bool | int | float]


class Traceparent(NamedTuple):
    """A position in a trace: 32 and 16 lower-case hexadecimal digits, not all zero, and whether the trace is sampled."""

    trace_id: str
    span_id: str
    sampled: bool

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


def parse_traceparent(text: object) -> Traceparent | None:
    """The parts of a `traceparent`; None if it isn't one. A later version is read as far as this one knows it."""
    match = _TRACEPARENT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more is not None) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return Traceparent(trace_id, span_id, bool(int(flags, 16) & 1))


def new_traceparent(*, sampled: bool, random_bits: Callable[[int], int] = random.getrandbits) -> Traceparent:
    """The beginning of a trace."""
    return Traceparent(f"{random_bits(128) or 1:032x}", f"{random_bits(64) or 1:016x}", sampled)


class Span(Protocol):
    """A piece of work in a trace. `traceparent` is what to hand on to whatever it causes."""

    @property
    def traceparent(self) -> str | None:
        """The position to hand on; None: there is no trace."""
        ...

    def make_current(self) -> None:
        """Make it the parent of the spans that other libraries make in this context (a task has one of its own)."""
        ...

    def end(self, error: BaseException | None = None) -> None:
        """The work has ended, well or with an error."""
        ...


class _Carried:
    """No span: only the position in a trace is handed on."""

    __slots__ = ("traceparent",)

    def __init__(self, traceparent: str | None) -> None:
        self.traceparent = traceparent

    def make_current(self) -> None:
        pass

    def end(self, error: BaseException | None = None) -> None:
        pass


_NOTHING = _Carried(None)


class _Recorded:
    """A span of OpenTelemetry."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: OtelSpan) -> None:
        context = span.get_span_context()
        self._span = span
        self.traceparent = str(Traceparent(f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags.sampled))

    def make_current(self) -> None:
        from opentelemetry.context import attach
        from opentelemetry.trace import set_span_in_context

        attach(set_span_in_context(self._span))

    def end(self, error: BaseException | None = None) -> None:
        if isinstance(error, Rejected):
            self._span.set_attribute("jido.rejected", error.reason)
        elif error is not None:
            from opentelemetry.trace import Status, StatusCode

            self._span.record_exception(error)
            self._span.set_status(Status(StatusCode.ERROR, describe(error)))
        self._span.end()


class Tracing:
    """The tracer of one platform. Ask `enabled` before anything is done for a span."""

    __slots__ = ("_random", "_sample_rate", "_tracer", "enabled")

    def __init__(self, provider: TracerProvider | None = None, *, sample_rate: float = 1.0, seeded: random.Random | None = None) -> None:
        """`provider`: by default the one that the application has set up, if any. `sample_rate`: the share of the
        traces begun here that are sampled. `seeded`: where ids and decisions come from."""
        found = provider if provider is not None else _application_provider()
        self._tracer = found.get_tracer("jidosystem") if found is not None else None
        self._sample_rate = sample_rate
        self._random = seeded if seeded is not None else random.Random()
        self.enabled = self._tracer is not None

    def start(self, name: str, attributes: Attributes | None = None, traceparent: str | None = None) -> Span:
        """Begin a span, the child of `traceparent`, or else of the span that the application is in."""
        parent = parse_traceparent(traceparent)
        if self._tracer is None:
            return _NOTHING if parent is None else _Carried(str(parent))
        context: Context | None = None
        if parent is None:
            parent = _ambient()
        else:
            context = _remote(parent)
        if parent is None and self._random.random() >= self._sample_rate:
            parent = new_traceparent(sampled=False, random_bits=self._random.getrandbits)
        if parent is not None and not parent.sampled:
            return _Carried(str(parent))
        return _Recorded(self._tracer.start_span(name, context, attributes=attributes))


def ambient_traceparent() -> str | None:
    """The position of the application's own current span, None without one; a look at a dictionary where OpenTelemetry isn't loaded."""
    position = _ambient() if "opentelemetry.trace" in sys.modules else None
    return None if position is None else str(position)


def _application_provider() -> TracerProvider | None:
    """The provider that the application has set up; None if there is none that does anything."""
    if "opentelemetry.trace" not in sys.modules and "OTEL_PYTHON_TRACER_PROVIDER" not in os.environ:
        return None
    from opentelemetry.trace import NoOpTracerProvider, ProxyTracerProvider, get_tracer_provider

    provider = get_tracer_provider()
    return None if isinstance(provider, NoOpTracerProvider | ProxyTracerProvider) else provider


def _ambient() -> Traceparent | None:
    """The position of the application's own current span."""
    from opentelemetry.trace import get_current_span

    context = get_current_span().get_span_context()
    return Traceparent(f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags.sampled) if context.is_valid else None


def _remote(parent: Traceparent) -> Context:
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    return set_span_in_context(NonRecordingSpan(SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=flags)))
