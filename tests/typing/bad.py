"""What a type checker must refuse: every line that is marked, by these rules of mypy and of basedpyright, and no other line."""

from __future__ import annotations

from jidosystem import Agent, Event, Mailbox, Platform, Supervision, action, on_start
from jidosystem import Agnet  # error: attr-defined, reportAttributeAccessIssue, reportUnusedImport


class Counter(Agent):
    """Counts."""

    value: int = 0
    other = Mailbox(overflow="blok")  # error: arg-type, reportArgumentType

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    @action(readonly=True)
    async def get(self) -> int:
        return self.value

    @action
    def compute(self, factor: float, *, offset: float = 0) -> float:
        return self.value * factor + offset

    @action
    async def inside(self) -> None:
        self.agent(str, "a")  # error: type-var, reportArgumentType
        self.cast(self.ref.add, "x")  # error: arg-type, reportArgumentType
        await self.call(self.ref.get, 1)  # error: arg-type, reportArgumentType
        self.remind("x", actoin=self.add)  # error: call-arg, reportCallIssue
        self.emit(3)  # error: arg-type, reportArgumentType
        text: str = await self.call(self.ref.add, 1)  # error: arg-type, reportAssignmentType
        print(text)


Counter(valeu=3)  # error: call-arg, reportCallIssue
Counter(value="three")  # error: arg-type, reportArgumentType


class Hooked(Agent):
    """Uses decorators on what they don't take."""

    begin = on_start(3)  # error: type-var, reportArgumentType
    act = action(3)  # error: call-overload, reportCallIssue, reportArgumentType


async def use(platform: Platform) -> None:
    platform.agent(int, "a")  # error: type-var, reportArgumentType
    platform.agent(Counter, 3)  # error: arg-type, reportArgumentType
    counter = platform.agent(Counter, "a")
    await counter.add("x")  # error: arg-type, reportArgumentType
    await counter.add(1, 2)  # error: call-arg, reportCallIssue
    await counter.add(amuont=2)  # error: call-arg, reportCallIssue
    await counter.ad(2)  # error: attr-defined, reportAttributeAccessIssue
    counter.add(2)  # error: unused-coroutine, reportUnusedCoroutine
    counter.compute(2)  # error: unused-coroutine, reportUnusedCoroutine
    text: str = await counter.add(2)  # error: assignment, reportAssignmentType
    print(text)
    await platform.call(counter.add, "x")  # error: arg-type, reportArgumentType
    await platform.call(counter.add, 1, 2)  # error: arg-type, call-arg, reportArgumentType
    await platform.call(counter.get, 1)  # error: arg-type, reportArgumentType
    await platform.call(counter.value)  # error: call-overload, reportArgumentType
    await platform.call(counter.add(2))  # error: call-overload, reportArgumentType
    await platform.call(counter.add, 2, timeuot=3)  # error: call-overload, reportCallIssue
    await platform.cast(counter.add, "x")  # error: arg-type, reportArgumentType
    await platform.agents.list(state=3)  # error: arg-type, reportArgumentType
    await platform.agents.start(Counter)  # error: call-arg, reportCallIssue
    await platform.events.subscribe("a", 3)  # error: arg-type, reportArgumentType
    await platform.events.subscribe("a", handle, start="begining")  # error: arg-type, reportArgumentType
    await platform.dead_letters.list("evnt")  # error: arg-type, reportArgumentType
    print(platform.workflows)  # error: attr-defined, reportAttributeAccessIssue
    print(platform.config.agents.default_timeuot)  # error: attr-defined, reportAttributeAccessIssue


def handle(event: Event) -> None:
    event.type = "x"  # error: misc, reportAttributeAccessIssue
    print(event.nothing)  # error: attr-defined, reportAttributeAccessIssue


Platform(agents=[int])  # error: list-item, reportArgumentType
Platform(agent=[Counter])  # error: call-arg, reportCallIssue
Supervision(strategy="one_for_al")  # error: arg-type, reportArgumentType


class Bad(Agent, version="2"):  # error: arg-type, reportArgumentType, reportGeneralTypeIssues
    """A keyword of the wrong type."""
