"""A trace goes on through whatever a call causes: calls, casts, events, reminders, also where a turn begins later than it was asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from jidosystem import Agent, Event, Platform, action, on_event
from tests.runtime.harness import until_async

sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="the extra `otel` isn't installed")


class Post(Agent):
    notes: int = 0

    @action
    async def send(self) -> None:
        self.emit("post.sent", {"to": "subscriber"})
        self.cast(self.agent(Post, "cast").note)
        self.remind("later", after=0, action=self.note)
        self.after(0, self.note)
        await self.agent(Post, "called").note()

    @action
    async def note(self) -> None:
        self.notes += 1
        self.emit("post.noted")

    @on_event("post.sent", key="data.to")
    async def handle(self, event: Event) -> None:
        self.emit("post.handled")


@pytest.fixture
def provider() -> Any:
    return sdk.TracerProvider(shutdown_on_exit=False)


@pytest.fixture
async def traced(url: str, provider: Any) -> AsyncIterator[Platform]:
    async with Platform(url, agents=[Post], tracer_provider=provider) as platform:
        yield platform


def in_a_span(provider: Any) -> Any:
    return provider.get_tracer("app").start_as_current_span("request")


def trace_of(span: Any) -> str:
    return f"{span.get_span_context().trace_id:032x}"


async def events(platform: Platform, count: int) -> list[Event]:
    async def enough() -> list[Event] | None:
        found = [event async for event in platform.events.read_all("post.**")]
        return found if len(found) >= count else None

    found: list[Event] = await until_async(enough)
    return found


async def test_everything_that_a_call_causes_is_in_its_trace(traced: Platform, provider: Any) -> None:
    with in_a_span(provider) as request:
        await traced.agent(Post, "a").send()
    caused = await events(traced, 6)
    notes = [f"post.noted Post/{key}" for key in ("a", "a", "called", "cast")]
    assert sorted(f"{event.type} {event.source}" for event in caused) == ["post.handled Post/subscriber", *notes, "post.sent Post/a"]
    assert {str(event.traceparent).split("-")[1] for event in caused} == {trace_of(request)}
    assert len({event.correlation_id for event in caused}) == 1


async def test_so_it_is_with_a_key_a_cast_and_a_stored_cast(traced: Platform, provider: Any) -> None:
    with in_a_span(provider) as request:
        await traced.call(traced.agent(Post, "keyed").note, idempotency_key="k")
        await traced.cast(traced.agent(Post, "cast").note)
        await traced.cast(traced.agent(Post, "stored").note, durable=True)
    caused = await events(traced, 3)
    assert {event.source for event in caused} == {"Post/keyed", "Post/cast", "Post/stored"}
    assert {str(event.traceparent).split("-")[1] for event in caused} == {trace_of(request)}


async def test_a_published_event_carries_the_trace_it_was_published_in(traced: Platform, provider: Any) -> None:
    with in_a_span(provider) as request:
        published = await traced.events.publish("post.sent", {"to": "subscriber"})
    assert str(published.traceparent).split("-")[1] == trace_of(request)
    (_, handled) = await events(traced, 2)
    assert str(handled.traceparent).split("-")[1] == trace_of(request)
    assert handled.causation_id == published.id
    assert (await traced.events.publish("post.sent", {"to": "nobody"})).traceparent is None
