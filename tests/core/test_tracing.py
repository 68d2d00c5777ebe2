"""Trace context is carried always; spans are made only where the application traces and the trace is sampled."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jidosystem.core.errors import Rejected
from jidosystem.core.tracing import Traceparent, Tracing, new_traceparent, parse_traceparent

sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="the extra `otel` isn't installed")

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE_ID}-{SPAN_ID}-01", f"00-{TRACE_ID}-{SPAN_ID}-00"

BAD = [
    None,
    5,
    b"00",
    "",
    "00",
    SAMPLED.upper(),
    SAMPLED + "-",
    SAMPLED + "-more",
    SAMPLED + "\n",
    " " + SAMPLED,
    SAMPLED[:-1],
    f"ff-{TRACE_ID}-{SPAN_ID}-01",
    f"00-{'0' * 32}-{SPAN_ID}-01",
    f"00-{TRACE_ID}-{'0' * 16}-01",
    f"00-{TRACE_ID}-{SPAN_ID}-0g",
    f"00-{TRACE_ID[:-1]}٣-{SPAN_ID}-01",
    f"00{TRACE_ID}{SPAN_ID}01",
]


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_traceparent_is_ignored(text: object) -> None:
    assert parse_traceparent(text) is None


@pytest.mark.parametrize(
    ("text", "sampled"),
    [(SAMPLED, True), (UNSAMPLED, False), (f"00-{TRACE_ID}-{SPAN_ID}-03", True), (f"01-{TRACE_ID}-{SPAN_ID}-01-what-comes", True)],
)
def test_a_traceparent_is_read_also_one_of_a_later_version(text: str, sampled: bool) -> None:
    assert parse_traceparent(text) == Traceparent(TRACE_ID, SPAN_ID, sampled)


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_what_is_written_is_read_again(trace_id: int, span_id: int, sampled: bool) -> None:
    parent = Traceparent(f"{trace_id:032x}", f"{span_id:016x}", sampled)
    assert parse_traceparent(str(parent)) == parent


@given(st.text(max_size=60) | st.text(alphabet="0123456789abcdef-", min_size=50, max_size=60))
def test_any_text_is_read_or_ignored(text: str) -> None:
    parent = parse_traceparent(text)
    assert parent is None or parse_traceparent(str(parent)) == parent


def test_random_zeros_make_no_invalid_ids() -> None:
    root = new_traceparent(sampled=False, random_bits=lambda _bits: 0)
    assert parse_traceparent(str(root)) == root


def test_without_tracing_the_position_is_handed_on_and_nonsense_is_dropped() -> None:
    off = Tracing()
    assert not off.enabled
    assert off.start("turn", {}, SAMPLED).traceparent == SAMPLED
    assert off.start("turn", {}, "nonsense").traceparent is None
    span = off.start("turn")
    assert span.traceparent is None
    span.make_current()
    span.end(ValueError("boom"))


# -- with the SDK ------------------------------------------------------------------------------------------------


class Recorder:
    """A provider whose finished spans are kept."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self._memory = InMemorySpanExporter()
        self.provider = sdk.TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._memory))

    @property
    def spans(self) -> tuple[sdk.ReadableSpan, ...]:
        return self._memory.get_finished_spans()


def test_a_span_continues_the_trace_it_was_called_in() -> None:
    recorder = Recorder()
    tracing = Tracing(recorder.provider)
    assert tracing.enabled
    span = tracing.start("Counter.add", {"jido.agent": "Counter/a"}, SAMPLED)
    handed_on = parse_traceparent(span.traceparent)
    span.end()
    (done,) = recorder.spans
    assert done.name == "Counter.add"
    assert done.attributes == {"jido.agent": "Counter/a"}
    assert done.parent is not None
    assert (f"{done.context.trace_id:032x}", f"{done.parent.span_id:016x}") == (TRACE_ID, SPAN_ID)
    assert handed_on == Traceparent(TRACE_ID, f"{done.context.span_id:016x}", True)


def test_nonsense_begins_a_new_trace() -> None:
    recorder = Recorder()
    Tracing(recorder.provider).start("x", {}, "00-nonsense").end()
    assert recorder.spans[0].parent is None


def test_a_trace_that_its_beginner_does_not_sample_costs_no_span() -> None:
    recorder = Recorder()
    span = Tracing(recorder.provider).start("x", {}, UNSAMPLED)
    span.end()
    assert span.traceparent == UNSAMPLED
    assert recorder.spans == ()


def test_the_share_of_sampled_traces_is_decided_here_and_handed_on() -> None:
    recorder = Recorder()
    tracing = Tracing(recorder.provider, sample_rate=0.25, seeded=random.Random(1))
    handed_on = [parse_traceparent(tracing.start("x").traceparent) for _ in range(1_000)]
    sampled = sum(parent is not None and parent.sampled for parent in handed_on)
    assert None not in handed_on
    assert 200 < sampled < 300
    assert all(not Tracing(recorder.provider, sample_rate=0).start("x").traceparent.endswith("01") for _ in range(10))  # type: ignore[union-attr]


def test_a_span_is_the_child_of_the_applications_own_and_the_parent_of_what_it_calls() -> None:
    from opentelemetry.context import attach, detach, get_current

    recorder = Recorder()
    tracing = Tracing(recorder.provider, sample_rate=0)
    token = attach(get_current())
    try:
        with recorder.provider.get_tracer("app").start_as_current_span("request"):
            ours = tracing.start("Counter.add")
            ours.make_current()
            recorder.provider.get_tracer("http").start_span("GET").end()
            ours.end()
    finally:
        detach(token)
    spans = {span.name: span for span in recorder.spans}
    assert spans["Counter.add"].parent.span_id == spans["request"].context.span_id
    assert spans["GET"].parent.span_id == spans["Counter.add"].context.span_id


def test_an_error_marks_its_span_and_a_refusal_does_not() -> None:
    recorder = Recorder()
    tracing = Tracing(recorder.provider)
    tracing.start("fails").end(ValueError("boom"))
    tracing.start("refuses").end(Rejected("payment_failed"))
    failed, refused = recorder.spans
    assert (failed.status.is_ok, failed.status.description) == (False, "ValueError: boom")
    assert [event.name for event in failed.events] == ["exception"]
    assert refused.status.is_ok
    assert refused.attributes == {"jido.rejected": "payment_failed"}


@pytest.mark.parametrize(("setup", "enabled"), [("", False), ("import opentelemetry.trace", False), ("SET", True)])
def test_only_a_provider_that_the_application_has_set_up_turns_it_on(setup: str, enabled: bool) -> None:
    if setup == "SET":
        setup = "from opentelemetry import trace; from opentelemetry.sdk.trace import TracerProvider; trace.set_tracer_provider(TracerProvider())"
    code = f"{setup}\nfrom jidosystem.core.tracing import Tracing\nprint(Tracing().enabled)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert ran.stdout.strip() == str(enabled)
