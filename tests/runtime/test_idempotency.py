"""Idempotency keys: a keyed call takes effect once, whoever repeats it, and its reply is kept with the state."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jidosystem import (
    Agent,
    CallCycle,
    CallTimeout,
    IdempotencyConflict,
    IdempotencyFull,
    InvalidArguments,
    Platform,
    Rejected,
    Retry,
    ShuttingDown,
    action,
    field,
)
from jidosystem.runtime.blocks import Resilience
from tests.runtime.harness import Crashable, FakeClock, PlatformOn, Store, settle, until


class Account(Agent):
    balance: int = 0
    log_of: list[int] = field(default_factory=list)
    runs: int = 0
    _attempts: int = 0

    @action
    async def pay(self, amount: int, note: str = "") -> list[int]:
        self.balance += amount
        self.log_of.append(amount)
        return self.log_of

    @action
    async def take(self, amount: int) -> int:
        self.balance -= amount
        return self.balance

    @action(readonly=True)
    async def get(self) -> int:
        return self.balance

    @action
    async def same(self) -> str:
        return "same"

    @action
    async def refuse_once(self) -> int:
        self._attempts += 1
        if self._attempts == 1:
            raise Rejected("not_now")
        self.balance += 1
        return self.balance

    @action(copy=False)
    async def wait(self, gate: Any = None) -> int:
        self.balance += 1
        if gate is not None:
            await gate.wait()
        return self.balance

    @action(readonly=True)
    async def read(self) -> int:
        return self.balance


class Gated(Agent):
    value: int = 0
    _gate: Any = None

    @action(copy=False)
    async def set_gate(self, gate: Any) -> None:
        self._gate = gate

    @action
    async def go(self, amount: int = 1) -> int:
        self.value += amount
        await self._gate.wait()
        return self.value

    @action
    async def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    @action
    async def ask(self, key: str) -> int:
        return await self.call(self.agent(Gated, key).go, idempotency_key="one")

    @action
    async def join(self, key: str, idempotency_key: str) -> int:
        return await self.call(self.agent(Gated, key).ask_back, "one", idempotency_key=idempotency_key)

    @action
    async def ask_back(self, key: str) -> int:
        await self._gate.wait()
        return await self.call(self.agent(Gated, key).go, idempotency_key="two")


async def test_a_repeated_keyed_call_takes_effect_once_and_returns_the_same(platform: Platform) -> None:
    ref = platform.agent(Account, "a")
    first = await platform.call(ref.pay, 5, idempotency_key="k")
    await ref.pay(7)
    again = await platform.call(ref.pay, 5, idempotency_key="k")
    assert (first, again) == ([5], [5])
    assert await ref.get() == 12


async def test_the_key_and_its_reply_outlive_the_activation_and_the_platform(file_url: str) -> None:
    async with Platform(file_url) as platform:
        ref = platform.agent(Account, "a")
        await platform.call(ref.pay, 5, idempotency_key="k")
        await platform.agents.stop(ref)
        assert await platform.call(ref.pay, 5, idempotency_key="k") == [5]
    async with Platform(file_url) as platform:
        ref = platform.agent(Account, "a")
        assert await platform.call(ref.pay, 5, idempotency_key="k") == [5]
        assert await ref.get() == 5


async def test_the_key_is_in_the_same_commit_as_the_state(on_store: Platform, store: Store) -> None:
    ref = on_store.agent(Account, "a")
    await on_store.call(ref.pay, 5, idempotency_key="k")
    [(_agent, head, rows, _events)] = store.commits_of("Account/a")
    assert head is not None
    assert [(row.kind, row.name, row.create) for row in rows] == [("key", "k", True)]


async def test_after_a_crash_an_answer_that_was_stored_is_found_again(world: Crashable) -> None:
    platform = await world.start()
    await platform.call(platform.agent(Account, "a").pay, 5, idempotency_key="k")
    await world.crash()
    platform = await world.start()
    ref = platform.agent(Account, "a")
    assert await platform.call(ref.pay, 5, idempotency_key="k") == [5]
    assert await ref.get() == 5


@pytest.mark.parametrize("other", [("pay", (6,), None), ("take", (5,), None), ("pay", (5, "note"), None)])
async def test_the_same_key_for_something_else_is_a_conflict(platform: Platform, other: tuple[str, tuple[Any, ...], None]) -> None:
    ref = platform.agent(Account, "a")
    await platform.call(ref.pay, 5, idempotency_key="k")
    with pytest.raises(IdempotencyConflict, match=r"Account/a.*'k'"):
        await platform.call(getattr(ref, other[0]), *other[1], idempotency_key="k")
    assert await ref.get() == 5


async def test_by_name_and_by_position_is_the_same_call_and_so_is_a_default_that_is_spelled_out(platform: Platform) -> None:
    ref = platform.agent(Account, "a")
    await platform.call(ref.pay, 5, idempotency_key="k")
    await platform.call(ref.pay, args={"amount": 5}, idempotency_key="k")
    await platform.call(ref.pay, 5, "", idempotency_key="k")
    assert await ref.get() == 5


async def test_keys_belong_to_their_agent(platform: Platform) -> None:
    one, two = platform.agent(Account, "a"), platform.agent(Account, "b")
    await platform.call(one.pay, 5, idempotency_key="k")
    await platform.call(two.pay, 6, idempotency_key="k")
    assert (await one.get(), await two.get()) == (5, 6)


async def test_calls_of_one_key_at_the_same_time_join_the_first(platform: Platform) -> None:
    ref, gate = platform.agent(Gated, "a"), asyncio.Event()
    await ref.set_gate(gate)
    calls = [asyncio.ensure_future(platform.call(ref.go, idempotency_key="k")) for _ in range(5)]
    await until(lambda: platform._node.hosts["Gated"].live["a"].writer)
    conflict = asyncio.ensure_future(platform.call(ref.go, 2, idempotency_key="k"))
    with pytest.raises(IdempotencyConflict):
        await conflict
    gate.set()
    assert await asyncio.gather(*calls) == [1] * 5


async def test_a_joined_result_is_each_callers_own(platform: Platform) -> None:
    ref = platform.agent(Account, "a")
    one, two = await asyncio.gather(*(platform.call(ref.pay, 5, idempotency_key="k") for _ in range(2)))
    one.append(99)
    assert two == [5]


async def test_one_who_gives_up_doesnt_stop_those_who_joined(platform: Platform) -> None:
    ref, gate = platform.agent(Gated, "a"), asyncio.Event()
    await ref.set_gate(gate)
    first = asyncio.ensure_future(platform.call(ref.go, idempotency_key="k"))
    await until(lambda: platform._node.hosts["Gated"].live["a"].writer)
    impatient = asyncio.ensure_future(platform.call(ref.go, idempotency_key="k", timeout=0.02))
    patient = asyncio.ensure_future(platform.call(ref.go, idempotency_key="k"))
    with pytest.raises(CallTimeout) as caught:
        await impatient
    assert caught.value.uncertain is True
    first.cancel()
    gate.set()
    assert await patient == 1


async def test_who_joins_may_be_more_patient_than_the_first(platform: Platform) -> None:
    ref, gate = platform.agent(Gated, "a"), asyncio.Event()
    await ref.set_gate(gate)
    busy = asyncio.ensure_future(ref.go())
    await until(lambda: platform._node.hosts["Gated"].live["a"].writer)
    first = asyncio.ensure_future(platform.call(ref.go, idempotency_key="k", timeout=0.03))
    await settle()
    patient = asyncio.ensure_future(platform.call(ref.go, idempotency_key="k"))
    with pytest.raises(CallTimeout):
        await first
    await asyncio.sleep(0.05)
    gate.set()
    assert await asyncio.gather(busy, patient) == [1, 2]


async def test_a_keyed_call_that_never_began_says_so(platform: Platform) -> None:
    ref, gate = platform.agent(Gated, "a"), asyncio.Event()
    await ref.set_gate(gate)
    busy = asyncio.ensure_future(ref.go())
    await until(lambda: platform._node.hosts["Gated"].live["a"].writer)
    with pytest.raises(CallTimeout) as caught:
        await platform.call(ref.go, idempotency_key="k", timeout=0.02)
    assert caught.value.uncertain is False
    gate.set()
    await busy
    assert await ref.add(0) == 1


async def test_a_keyed_call_that_timed_out_can_be_repeated_and_takes_effect_once(platform: Platform) -> None:
    ref, gate = platform.agent(Gated, "a"), asyncio.Event()
    await ref.set_gate(gate)
    with pytest.raises(CallTimeout) as caught:
        await platform.call(ref.go, idempotency_key="k", timeout=0.02)
    assert caught.value.uncertain is True
    gate.set()
    assert await platform.call(ref.go, idempotency_key="k") == 1
    assert await ref.add(0) == 1


async def test_a_turn_that_raised_stored_nothing(platform: Platform) -> None:
    ref = platform.agent(Account, "a")
    with pytest.raises(Rejected):
        await platform.call(ref.refuse_once, idempotency_key="k")
    assert await platform.call(ref.refuse_once, idempotency_key="k") == 1
    assert await platform.call(ref.refuse_once, idempotency_key="k") == 1


async def test_a_keyed_call_commits_although_nothing_changed(on_store: Platform, store: Store) -> None:
    ref = on_store.agent(Account, "a")
    assert await on_store.call(ref.same, idempotency_key="k") == "same"
    assert len(store.commits_of("Account/a")) == 1
    assert await on_store.call(ref.same, idempotency_key="k") == "same"
    assert len(store.commits_of("Account/a")) == 1


async def test_a_key_on_a_read_only_action_stores_nothing(on_store: Platform, store: Store) -> None:
    ref = on_store.agent(Account, "a")
    assert await on_store.call(ref.read, idempotency_key="k") == 0
    assert store.commits_of("Account/a") == []
    await ref.pay(3)
    assert await on_store.call(ref.read, idempotency_key="k") == 3


async def test_keys_expire() -> None:
    clock = FakeClock()
    store = Store(clock=clock)
    async with PlatformOn(store, clock=clock, config={"agents.idempotency_retention": 60}) as platform:
        ref = platform.agent(Account, "a")
        await platform.call(ref.take, 5, idempotency_key="k")
        clock.pass_by(59)
        await platform.call(ref.take, 5, idempotency_key="k")
        assert await ref.get() == -5
        clock.pass_by(2)
        await platform.call(ref.take, 5, idempotency_key="k")
        assert await ref.get() == -10


async def test_at_the_limit_a_keyed_call_is_refused_until_old_keys_expire() -> None:
    clock = FakeClock()
    store = Store(clock=clock)
    async with PlatformOn(store, clock=clock, config={"agents.idempotency_retention": 60, "agents.idempotency_max_keys": 3}) as platform:
        ref = platform.agent(Account, "a")
        for i in range(3):
            await platform.call(ref.take, 1, idempotency_key=str(i))
        for _ in range(2):
            with pytest.raises(IdempotencyFull, match="3"):
                await platform.call(ref.take, 1, idempotency_key="one more")
        assert await platform.call(ref.take, 1, idempotency_key="0") == -1  # none was forgotten
        assert await ref.take(1) == -4  # without a key it goes on
        clock.pass_by(61)
        assert await platform.call(ref.take, 1, idempotency_key="one more") == -5


async def test_many_at_once_respect_the_limit() -> None:
    async with Platform(config={"agents.idempotency_max_keys": 3}) as platform:
        ref = platform.agent(Account, "a")
        results = await asyncio.gather(*(platform.call(ref.take, 1, idempotency_key=str(i)) for i in range(10)), return_exceptions=True)
        assert sorted(r for r in results if isinstance(r, int)) == [-3, -2, -1]
        assert sum(isinstance(r, IdempotencyFull) for r in results) == 7
        assert await ref.get() == -3


@pytest.mark.parametrize("key", ["", "x" * 513, 3, b"k", "\ud800"])
async def test_an_impossible_key_is_refused(platform: Platform, key: Any) -> None:
    ref = platform.agent(Account, "a")
    with pytest.raises(InvalidArguments, match="idempotency_key"):
        await platform.call(ref.take, 1, idempotency_key=key)
    with pytest.raises(InvalidArguments, match="idempotency_key"):
        await platform.cast(ref.take, 1, idempotency_key=key)
    assert await ref.get() == 0


async def test_a_keyed_cast_takes_effect_once(platform: Platform) -> None:
    ref = platform.agent(Account, "a")
    for _ in range(3):
        await platform.cast(ref.take, 5, idempotency_key="k")
    await until(lambda: platform._node.hosts["Account"].live["a"].turns)
    await settle()
    assert await ref.get() == -5
    assert await platform.call(ref.take, 5, idempotency_key="k") == -5


async def test_a_turn_may_use_keys_too(platform: Platform) -> None:
    ref, gate = platform.agent(Gated, "b"), asyncio.Event()
    await ref.set_gate(gate)
    gate.set()
    assert [await platform.agent(Gated, "a").ask("b"), await platform.agent(Gated, "c").ask("b")] == [1, 1]


async def test_joining_counts_as_waiting_so_a_cycle_of_joined_calls_is_found(platform: Platform) -> None:
    one, two, gate = platform.agent(Gated, "one"), platform.agent(Gated, "two"), asyncio.Event()
    await one.set_gate(gate)
    await two.set_gate(gate)
    first = asyncio.ensure_future(platform.call(two.ask_back, "one", idempotency_key="j"))
    await until(lambda: platform._node.hosts["Gated"].live["two"].writer)
    joined = asyncio.ensure_future(one.join("two", "j"))  # now `one` waits for `two` …
    await until(lambda: platform._node.hosts["Gated"].live["one"].writer)
    await settle()
    gate.set()  # … which calls `one`
    with pytest.raises(CallCycle):
        await first
    with pytest.raises(CallCycle):
        await joined


async def test_a_keyed_turn_that_is_retried_keeps_its_key(platform: Platform) -> None:
    class Retried(Agent):
        resilience = Resilience(retry=Retry.fixed(3, delay=0.001))
        value: int = 0
        _attempts: int = 0

        @action
        async def go(self) -> int:
            self._attempts += 1
            self.value += 1
            if self._attempts < 3:
                raise ConnectionError("again")
            return self.value

    ref = platform.agent(Retried, "a")
    assert await platform.call(ref.go, idempotency_key="k") == 1
    assert await platform.call(ref.go, idempotency_key="k") == 1


async def test_keyed_calls_of_one_agent_are_taken_in_the_order_in_which_they_were_made(file_url: str) -> None:
    class Listed(Agent):
        numbers: list[int] = field(default_factory=list)

        @action
        async def note(self, number: int) -> None:
            self.numbers.append(number)

        @action(readonly=True)
        async def noted(self) -> list[int]:
            return self.numbers

    async def some(platform: Platform, first: int, waves: int) -> None:
        calls = []
        for number in range(first, first + 20 * waves):
            calls.append(asyncio.ensure_future(platform.call(platform.agent(Listed, "a").note, number, idempotency_key=f"k{number}")))
            if number % 20 == 19:  # some come when the first are loading it, some when it lives
                await asyncio.sleep(0)
        await asyncio.gather(*calls)

    for life in range(2):  # a new agent, and one that has keys
        async with Platform(file_url, agents=[Listed]) as platform:
            await some(platform, life * 200, 10)
            assert await platform.agent(Listed, "a").noted() == list(range((life + 1) * 200))


async def test_a_keyed_call_that_waits_for_its_repetition_is_answered_when_the_platform_closes() -> None:
    class Retried(Agent):
        resilience = Resilience(retry=Retry.fixed(3, delay=60.0))

        @action
        async def go(self) -> None:
            raise ConnectionError

    async with Platform(agents=[Retried]) as platform:
        call = asyncio.ensure_future(platform.call(platform.agent(Retried, "a").go, timeout=100.0, idempotency_key="k"))
        await settle()
    with pytest.raises(ShuttingDown):
        await call
