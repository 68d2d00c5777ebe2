"""What a type checker must know: nothing here is an error, and every `assert_type` holds."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, assert_type

from jidosystem import (
    Agent,
    AgentInfo,
    DeadLetter,
    Event,
    JidoError,
    Platform,
    Subscription,
    action,
    field,
    migrate_state,
    on_child_failed,
    on_event,
    on_load,
    on_start,
    on_state_change,
    on_terminate,
)


class Counter(Agent, name="counter", version=2):
    """Every kind of action and hook."""

    value: int = 0
    seen: list[str] = field(default_factory=list)

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    @action(readonly=True)
    async def get(self) -> int:
        return self.value

    @action
    def compute(self, factor: float) -> float:
        return self.value * factor

    @action(copy=False)
    def label(self, first: str, second: int) -> str:
        return first * second

    @action
    async def move(self, to: str) -> None:
        other = self.agent(Counter, to)
        assert_type(other, Counter)
        assert_type(await other.add(1), int)
        assert_type(await self.call(other.add, 1), int)
        assert_type(await self.call(other.label, "a", 2, timeout=1.0), str)
        assert_type(await self.call(other.compute, args={"factor": 2}), float)
        self.cast(other.add, 2)
        self.cast(other.label, "a", 2)
        assert_type(self.child(Counter, "x"), Counter)
        myself: Counter = self.ref
        assert_type(await myself.get(), int)
        assert_type(self.key, str)
        self.emit("moved", {"to": to}, stream="moves")
        self.remind("later", after=3, action=self.add, args={"amount": 2})
        self.after(1.5, self.get)

    @on_start
    async def begin(self) -> None: ...
    @on_terminate
    def end(self) -> None: ...
    @on_load
    def rebuild(self) -> None: ...
    @on_state_change
    async def changed(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None: ...
    @on_child_failed
    async def failed(self, child: str, error: str) -> None: ...
    @on_event("orders.*.placed", key="data.region")
    async def placed(self, event: Event) -> None: ...
    @on_event("orders.**", key=lambda event: [event.subject], batch=10, start="new")
    async def many(self, events: list[Event]) -> None: ...
    @staticmethod
    @migrate_state(from_version=1)
    def up(state: dict[str, Any]) -> dict[str, Any]:
        return state


async def use() -> None:
    async with Platform("sqlite:///counter.db", agents=[Counter], config={"agents.default_timeout": 3}) as platform:
        assert_type(platform, Platform)
        counter = platform.agent(Counter, "home")
        assert_type(counter, Counter)
        assert_type(await counter.add(2), int)
        assert_type(await counter.add(amount=2), int)
        assert_type(await counter.compute(0.5), float)
        assert_type(await platform.call(counter.add, 2), int)
        assert_type(await platform.call(counter.add, 2, timeout=1, idempotency_key="k"), int)
        assert_type(await platform.call(counter.get), int)
        assert_type(await platform.call(counter.label, "a", 2), str)
        assert_type(await platform.call(counter.label, args={"first": "a", "second": 2}), str)
        await platform.cast(counter.label, "a", 2, durable=True)
        assert_type(await platform.agents.start(Counter, "home"), Counter)
        assert_type(await platform.agents.describe(counter), AgentInfo)
        assert_type(await platform.agents.list(type=Counter, state="failed"), list[AgentInfo])
        async for fields, revision in platform.agents.watch(counter):
            assert_type(fields, Mapping[str, Any] | None)
            assert_type(revision, int)
        assert_type(await platform.events.publish("a", {"n": 1}), Event)
        assert_type(await platform.events.subscribe("a", handle, durable="x"), Subscription)
        async for event in platform.events.read("s"):
            assert_type(event, Event)
        assert_type(await platform.dead_letters.list("cast"), list[DeadLetter])
        assert_type(platform.config.agents.default_timeout, float)
        try:
            await counter.add()
        except JidoError as error:
            assert_type(error.code, str)
            assert_type(error.node, str)
            assert_type(error.details(), dict[str, Any])


async def handle(event: Event) -> None: ...


async def alone() -> None:
    counter = Counter(value=3)
    assert_type(await counter.add(2), int)
    assert_type(await counter.compute(2), float)
    method: Callable[[float], Coroutine[Any, Any, float]] = counter.compute
    assert_type(await method(2), float)
