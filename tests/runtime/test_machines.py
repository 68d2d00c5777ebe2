"""Machines driven at random against a model: the mailbox's queue, and an agent with its head, its effects and its keys through crashes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from jidosystem import Agent, IdempotencyConflict, action, field
from jidosystem.backends.memory import MemoryRecords
from jidosystem.runtime.mailbox import Queue
from jidosystem.runtime.turn import CALL, CAST, DELIVERY
from tests.runtime.harness import PATIENCE_S, Crashable, settle

T = TypeVar("T")


class Message:
    """As much of a turn as a queue looks at."""

    def __init__(self, number: int, kind: int) -> None:
        self.number, self.kind, self.withdrawn = number, kind, False


class QueueMachine(RuleBasedStateMachine):
    """A queue against a plain list: order, length, who is dropped, and who of those waiting for room is let in."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.queue: Any = Queue()
        self.model: list[Message] = []
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.number = 0

    def teardown(self) -> None:
        self.loop.close()

    def _let_in(self) -> None:
        if self.waiting:
            assert self.waiting.popleft().done(), "the one who has waited longest is let in"

    @rule(kind=st.sampled_from([CALL, CAST, DELIVERY]), first=st.booleans())
    def put(self, kind: int, first: bool) -> None:
        self.number += 1
        message = Message(self.number, kind)
        if first:
            self.queue.put_first(message)
            self.model.insert(0, message)
        else:
            self.queue.turns.append(message)
            self.model.append(message)

    @precondition(lambda self: self.model)
    @rule()
    def take(self) -> None:
        assert self.queue.first() is self.model.pop(0)
        self.queue.take()
        self._let_in()

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        message = self.model.pop(data.draw(st.integers(0, len(self.model) - 1)))
        message.withdrawn = True
        self.queue.withdraw()
        self._let_in()

    @rule()
    def drop_oldest(self) -> None:
        oldest = next((message for message in self.model if message.kind in (CALL, CAST)), None)
        assert self.queue.drop_oldest() is oldest
        if oldest is not None:
            assert oldest.withdrawn
            self.model.remove(oldest)
            self._let_in()

    @rule(again=st.booleans())
    def ask_for_room(self, again: bool) -> None:
        future: asyncio.Future[None] = self.loop.create_future()
        self.queue.ask_for_room(future, again=again)
        if again:
            self.waiting.appendleft(future)
        else:
            self.waiting.append(future)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up_waiting(self, data: st.DataObject) -> None:
        future = self.waiting[data.draw(st.integers(0, len(self.waiting) - 1))]
        self.waiting.remove(future)
        self.queue.no_longer_ask(future)
        self.queue.let_in()
        assert not future.done()
        self._let_in()

    @rule()
    def drain(self) -> None:
        assert self.queue.drain() == self.model
        self.model = []
        while self.waiting:
            self._let_in()

    @invariant()
    def it_agrees_with_the_model(self) -> None:
        assert len(self.queue) == len(self.model)
        assert bool(self.queue) == bool(self.model)
        assert self.queue.first() is (self.model[0] if self.model else None)
        assert not any(future.done() for future in self.waiting)
        assert len(self.queue.turns) <= 2 * len(self.model) + 17  # what was withdrawn doesn't pile up


class Sink(Agent):
    """Notes what it gets; refuses to be reached while it is told so."""

    got: list[int] = field(default_factory=list)

    @action
    async def take(self, number: int) -> None:
        self.got = [*self.got, number]


class Source(Agent):
    value: int = 0

    @action
    async def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    @action
    async def send(self, *, to: list[str], numbers: list[int], fail: bool) -> None:
        self.value += 1
        for key, number in zip(to, numbers, strict=True):
            self.cast(self.agent(Sink, key).take, number)
        if fail:
            raise ValueError("no")


SINKS = ("x", "y")


class LifeMachine(RuleBasedStateMachine):
    """One agent that is called, casts, fails, is stopped, and whose process is killed at any time: what was answered counts once."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.value = 0
        self.turns = 0
        self.sent: dict[str, list[int]] = {key: [] for key in SINKS}
        self.keys: dict[str, tuple[int, int]] = {}  # key -> amount, reply
        self.number = 0

    def do(self, coro: Coroutine[Any, Any, T]) -> T:
        async def in_time() -> T:
            async with asyncio.timeout(PATIENCE_S):
                return await coro

        return self.runner.run(in_time())

    @initialize()
    def begin(self) -> None:
        async def begin() -> None:
            self.world = Crashable(MemoryRecords())
            self.platform = await self.world.start([Sink, Source])

        self.do(begin())

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.do(self._ends_well())
            self.do(self.world.close())
        self.runner.close()

    async def _ends_well(self) -> None:
        """Once everything has settled each receiver has had what was sent, once and in order."""
        await self._restart()
        for _ in range(2_000):
            got = {key: (await self.platform.agents.describe(self.platform.agent(Sink, key))).fields for key in SINKS}
            if {key: fields["got"] for key, fields in got.items() if fields is not None} == self.sent:
                break
            await asyncio.sleep(0.001)
        else:
            raise AssertionError(f"sent {self.sent}, but there is {got}")
        await settle()
        await self.platform.agents.stop(self.platform.agent(Source, "a"))
        assert [row async for page in self.world.inner.scan("pending") for row in page] == []

    async def _restart(self) -> None:
        await self.world.crash()
        self.platform = await self.world.start([Sink, Source])

    @rule(amount=st.integers(0, 3))
    def add(self, amount: int) -> None:
        before, self.value = self.value, self.value + amount
        self.turns += self.value != before
        assert self.do(self.platform.agent(Source, "a").add(amount)) == self.value

    @rule(to=st.lists(st.sampled_from(SINKS), max_size=4), fail=st.booleans(), kill=st.booleans())
    def send(self, to: list[str], fail: bool, kill: bool) -> None:
        numbers = list(range(self.number + 1, self.number + len(to) + 1))
        self.number += len(to)

        async def send() -> None:
            try:
                await self.platform.agent(Source, "a").send(to=to, numbers=numbers, fail=fail)
            except ValueError:
                assert fail
            else:
                assert not fail
            if kill:  # between the commit and the sending
                await self._restart()

        self.do(send())
        if not fail:
            self.value += 1
            self.turns += 1
            for key, number in zip(to, numbers, strict=True):
                self.sent[key].append(number)

    @rule(key=st.sampled_from(["k", "l"]), amount=st.integers(1, 2), kill=st.booleans())
    def add_once(self, key: str, amount: int, kill: bool) -> None:
        async def add() -> int:
            try:
                return await self.platform.call(self.platform.agent(Source, "a").add, amount, idempotency_key=key)
            finally:
                if kill:
                    await self._restart()

        known = self.keys.get(key)
        if known is not None and known[0] != amount:
            with pytest.raises(IdempotencyConflict):
                self.do(add())
        elif known is not None:
            assert self.do(add()) == known[1]
        else:
            self.value += amount
            self.turns += 1
            self.keys[key] = (amount, self.value)
            assert self.do(add()) == self.value

    @rule()
    def kill(self) -> None:
        self.do(self._restart())

    @rule(key=st.sampled_from(["a", *SINKS]))
    def stop(self, key: str) -> None:
        self.do(self.platform.agents.stop(self.platform.agent(Source if key == "a" else Sink, key)))

    @rule()
    def let_time_pass(self) -> None:
        self.do(settle())

    @invariant()
    def state_and_number_of_turns_are_what_was_answered(self) -> None:
        if not hasattr(self, "platform"):
            return
        info = self.do(self.platform.agents.describe(self.platform.agent(Source, "a")))
        assert info.fields == {"value": self.value}
        assert info.turns >= self.turns


def test_a_queue_is_a_list_with_a_door() -> None:
    run_state_machine_as_test(QueueMachine, settings=settings(max_examples=60, stateful_step_count=40))  # type: ignore[no-untyped-call]


@pytest.mark.blocking
def test_what_was_answered_counts_once_through_any_life() -> None:
    run_state_machine_as_test(LifeMachine, settings=settings(max_examples=25, stateful_step_count=15))  # type: ignore[no-untyped-call]
