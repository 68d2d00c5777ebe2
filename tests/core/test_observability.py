"""Counters and their Prometheus form; log lines; what is loaded only when somebody looks."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from jidosystem.core.context import Causality, current, current_causality
from jidosystem.core.observability import Meters, TurnMeter, logger

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Turn:
    def __init__(self, causality: Causality) -> None:
        self._causality = causality

    def causality(self) -> Causality:
        return self._causality


# -- counters ----------------------------------------------------------------------------------------------------


def test_a_type_has_one_meter() -> None:
    meters = Meters()
    assert meters.of("Counter") is meters.of("Counter")
    assert meters.of("Counter") is not meters.of("Other")


@given(st.lists(st.floats(0, 1e6), max_size=50))
def test_each_turn_is_in_the_bucket_of_its_duration(durations: list[float]) -> None:
    meter = TurnMeter()
    for seconds in durations:
        meter.observe(seconds)
    assert meter.turns == len(durations)
    for power, count in enumerate(meter.buckets):
        low = 0 if power == 0 else 2 ** (power - 1)
        assert count == sum(low <= int(seconds * 1e6) < 2**power for seconds in durations)


def test_a_duration_from_a_clock_gone_mad_does_no_harm() -> None:
    meter = TurnMeter()
    for seconds in (-1.0, -1e-9, 1e12):
        meter.observe(seconds)
    assert meter.turns == 3


def used_meters() -> Meters:
    meters = Meters()
    for name in ("Counter", "app.Orders"):
        meter = meters.of(name)
        meter.failures, meter.commits, meter.events, meter.crashes = 1, 2, 3, 4
        meter.dropped, meter.activations, meter.passivations = 5, 6, 7
        for seconds in (1e-7, 3e-6, 0.001, 2.0, 1e5):
            meter.observe(seconds)
    meters.gauge("live_agents", "Agents in memory", lambda: 42)
    return meters


@pytest.mark.parametrize(("openmetrics", "parse"), [(True, parse_openmetrics), (False, parse_prometheus)])
def test_the_text_says_what_was_counted_in_a_form_that_parsers_accept(openmetrics: bool, parse: object) -> None:
    text = used_meters().text(openmetrics=openmetrics)
    families = {family.name: family for family in parse(text)}  # type: ignore[operator]
    assert all(name.startswith("jido_") for name in families)
    values = {
        (sample.name, sample.labels.get("agent_type"), sample.labels.get("le")): sample.value
        for family in families.values()
        for sample in family.samples
    }
    for name, value in (
        ("jido_turns_total", 5),
        ("jido_turn_failures_total", 1),
        ("jido_commits_total", 2),
        ("jido_events_total", 3),
        ("jido_crashes_total", 4),
        ("jido_messages_dropped_total", 5),
        ("jido_activations_total", 6),
        ("jido_passivations_total", 7),
    ):
        assert values[name, "Counter", None] == values[name, "app.Orders", None] == value
    assert values["jido_live_agents", None, None] == 42
    duration = "jido_turn_duration_seconds_bucket"
    assert values[duration, "Counter", "2e-06"] == 1
    assert values[duration, "Counter", "4e-06"] == 2
    assert values[duration, "Counter", "1.048576"] == 3
    assert values[duration, "Counter", "2.097152"] == 4
    assert values[duration, "Counter", "+Inf"] == 5


def test_a_platform_without_agents_has_a_valid_text_too() -> None:
    assert list(parse_openmetrics(Meters().text(openmetrics=True)))


def test_two_platforms_count_apart() -> None:
    one, other = Meters(), Meters()
    one.of("Counter").commits = 1
    assert 'jido_commits_total{agent_type="Counter"} 1.0' in one.text()
    assert "jido_commits_total{" not in other.text()


def test_nothing_heavy_is_loaded_until_somebody_looks() -> None:
    code = (
        "import sys; from jidosystem.core.observability import Meters, Tracing, logger; from jidosystem.operations import metrics;"
        "Meters().of('A').observe(1); Tracing().start('x', {}, None).end(); logger('jidosystem').bind(node='n').debug('unseen');"
        "print([m for m in ('structlog', 'prometheus_client', 'opentelemetry', 'cronsim', 'stamina', 'pydantic') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert loaded.stdout.strip() == "[]"


# -- who is acting -----------------------------------------------------------------------------------------------


def test_outside_of_everything_nobody_acts() -> None:
    assert current_causality() is None


def test_inside_a_turn_its_ids_are_found() -> None:
    causality = Causality("c-1", "e-1", TRACE, "Counter/a")
    token = current.set(Turn(causality))
    try:
        assert current_causality() == causality
    finally:
        current.reset(token)


# -- log lines ---------------------------------------------------------------------------------------------------


def test_a_line_is_one_json_object_with_what_its_logger_is_bound_to(caplog: pytest.LogCaptureFixture) -> None:
    log = logger("jidosystem").bind(node="n1").bind(agent="Counter/a")
    log.warning("a cast failed 100%s", action="add", data=b"\xff", error="line\nline")
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("jidosystem", "WARNING")
    message = record.getMessage()
    assert "\n" not in message
    line = json.loads(message)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "a cast failed 100%s", "level": "warning", "node": "n1", "agent": "Counter/a", "action": "add", "data": line["data"],
        "error": "line\nline",
    }  # fmt: skip


def test_a_line_written_in_a_turn_carries_its_ids(caplog: pytest.LogCaptureFixture) -> None:
    token = current.set(Turn(Causality("c-1", None, TRACE, "Counter/a")))
    try:
        logger("jidosystem").error("something")
        logger("jidosystem").error("of another", agent="Other/b")
    finally:
        current.reset(token)
    logger("jidosystem").error("outside")
    lines = [json.loads(record.getMessage()) for record in caplog.records]
    assert [line.get("agent") for line in lines] == ["Counter/a", "Other/b", None]
    assert [line.get("correlation_id") for line in lines] == ["c-1", "c-1", None]
    assert [line.get("trace_id") for line in lines] == ["0af7651916cd43dd8448eb211c80319c"] * 2 + [None]


def test_an_exception_brings_its_traceback_without_the_values_of_variables(caplog: pytest.LogCaptureFixture) -> None:
    secret = "hunter2"
    try:
        raise ValueError(f"boom of {len(secret)}")
    except ValueError:
        logger("jidosystem").exception("an agent crashed")
    line = json.loads(caplog.records[0].getMessage())
    assert "ValueError: boom of 7" in line["exception"]
    assert secret not in caplog.text


def test_levels_are_the_applications(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "jidosystem.quiet")
    log = logger("jidosystem.quiet")
    log.debug("unseen")
    log.info("seen")
    assert [json.loads(record.getMessage())["event"] for record in caplog.records] == ["seen"]


def test_binding_leaves_the_logger_it_came_from_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    parent = logger("jidosystem").bind(node="n1")
    parent.bind(agent="Counter/a")
    parent.error("x")
    assert "agent" not in json.loads(caplog.records[0].getMessage())


def test_the_applications_structlog_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    import structlog

    def shout(_logger: object, _method: str, line: dict[str, object]) -> str:
        return f"SHOUT {line['event']}"

    structlog.configure(processors=[shout], logger_factory=structlog.stdlib.LoggerFactory())
    try:
        logger("jidosystem.other").error("ours")
        structlog.get_logger("theirs").error("theirs")
    finally:
        structlog.reset_defaults()
    ours, theirs = (record.getMessage() for record in caplog.records)
    assert json.loads(ours)["event"] == "ours"
    assert theirs == "SHOUT theirs"
