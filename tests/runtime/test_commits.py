"""Nothing leaves before the commit, one commit may carry several turns, and what happens when the store fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jidosystem import Agent, Platform, action, field, on_terminate
from jidosystem.core.errors import CommitUnknown, Conflict, StoreFull, StoreUnavailable, TooLarge
from jidosystem.runtime.head import decode_head
from tests.runtime.harness import PlatformOn, Store, settle, until


class Cell(Agent):
    value: int = 0
    text: str = ""

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    @action
    async def add_and_emit(self) -> int:
        self.value += 1
        self.emit("cell.added", {"value": self.value})
        return self.value

    @action
    async def add_and_cast(self, key: str) -> None:
        self.value += 1
        self.cast(self.agent(Cell, key).add, 10)

    @action
    async def add_then_fail(self) -> None:
        self.value += 100
        raise ValueError("no")

    @action(readonly=True)
    async def get(self) -> int:
        return self.value

    @action
    async def same(self) -> int:
        return self.value

    @action
    async def write(self, text: str) -> None:
        self.text = text

    @action
    async def add_then_ask(self, key: str) -> int:
        """Commits nothing itself before it asks."""
        return await self.agent(Cell, key).get() + self.value

    @action(readonly=True)
    async def read_then_ask(self, key: str) -> int:
        value = self.value
        await self.agent(Cell, key).add()
        return value

    @action(copy=False)
    async def wait(self, gate: asyncio.Event) -> int:
        self.value += 1
        await gate.wait()
        return self.value


async def value_of(store: Store, agent: str) -> int:
    record = await store.read(agent)
    if record is None or record.head is None:
        return 0
    import msgspec

    state = decode_head(record.head, agent).state
    assert state is not None
    return int(msgspec.msgpack.decode(state)["value"])


# -- durable before reply ------------------------------------------------------------------------------------------


async def test_the_reply_comes_after_the_commit(on_store: Platform, store: Store) -> None:
    ref = on_store.agent(Cell, "a")
    store.hold()
    call = asyncio.ensure_future(ref.add())
    await until(lambda: store.held)
    await settle()
    assert not call.done()
    store.release()
    assert await call == 1
    assert await value_of(store, "Cell/a") == 1


async def test_a_reader_that_has_seen_a_change_is_answered_when_it_is_durable(on_store: Platform, store: Store) -> None:
    ref = on_store.agent(Cell, "a")
    await ref.get()
    store.hold()
    write = asyncio.ensure_future(ref.add())
    await until(lambda: store.held)
    read, nothing = asyncio.ensure_future(ref.get()), asyncio.ensure_future(ref.same())
    await settle()
    assert not (write.done() or read.done() or nothing.done())
    store.release()
    assert await asyncio.gather(write, read, nothing) == [1, 1, 1]


async def test_events_and_casts_leave_after_the_commit(on_store: Platform, store: Store) -> None:
    ref = on_store.agent(Cell, "a")
    store.hold()
    calls = [asyncio.ensure_future(ref.add_and_emit()), asyncio.ensure_future(ref.add_and_cast("b"))]
    await until(lambda: store.held)
    await settle()
    assert [event async for event in on_store.events.read_all()] == []
    assert "b" not in on_store._node.hosts["Cell"].live
    store.release()
    await asyncio.gather(*calls)
    assert [event.data async for event in on_store.events.read_all()] == [{"value": 1}]
    await until(lambda: store.commits_of("Cell/b"))


@pytest.mark.parametrize("method", ["add_then_ask", "read_then_ask"])
async def test_a_call_from_a_turn_waits_until_what_the_turn_has_seen_is_durable(on_store: Platform, store: Store, method: str) -> None:
    ref, other = on_store.agent(Cell, "a"), on_store.agent(Cell, "b")
    await other.get()
    store.hold()
    write = asyncio.ensure_future(ref.add())
    await until(lambda: store.held)
    nested = asyncio.ensure_future(getattr(ref, method)("b"))
    await settle()
    assert on_store._node.hosts["Cell"].live["b"].idle  # not even asked
    store.release()
    assert await asyncio.gather(write, nested) == [1, 1]


async def test_a_call_from_a_turn_fails_with_the_commit_it_depends_on(on_store: Platform, store: Store) -> None:
    ref, other = on_store.agent(Cell, "a"), on_store.agent(Cell, "b")
    await other.get()
    store.hold()
    write = asyncio.ensure_future(ref.add())
    await until(lambda: store.held)
    nested = asyncio.ensure_future(ref.read_then_ask("b"))
    await settle()
    store.fail_all()
    store.release()
    assert [type(r) for r in await asyncio.gather(write, nested, return_exceptions=True)] == [StoreUnavailable, StoreUnavailable]
    store.heal()
    assert await other.get() == 0


# -- several turns in one commit -----------------------------------------------------------------------------------


async def test_turns_that_end_while_a_commit_is_in_flight_share_the_next_one(on_store: Platform, store: Store) -> None:
    ref = on_store.agent(Cell, "a")
    await ref.get()
    store.hold()
    calls = [asyncio.ensure_future(ref.add()) for _ in range(10)]
    await until(lambda: store.held)
    await settle()
    assert store.held == 1
    store.release()
    assert await asyncio.gather(*calls) == list(range(1, 11))
    assert len(store.commits_of("Cell/a")) == 2
    assert (await on_store.agents.describe(ref)).turns == 10


async def test_a_later_exception_rolls_back_to_the_end_of_the_turn_before(on_store: Platform, store: Store) -> None:
    ref = on_store.agent(Cell, "a")
    await ref.get()
    store.hold()
    calls = [asyncio.ensure_future(call) for call in (ref.add(), ref.add(), ref.add_then_fail(), ref.add())]
    await until(lambda: store.held)
    await until(calls[2].done)  # a failed turn has seen nothing that isn't told by its error
    store.release()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [results[0], results[1], results[3]] == [1, 2, 3]
    assert isinstance(results[2], ValueError)
    assert await value_of(store, "Cell/a") == 3


async def test_a_commit_carries_at_most_64_turns(on_store: Platform, store: Store) -> None:
    ref = on_store.agent(Cell, "a")
    await ref.get()
    store.hold()
    calls = [asyncio.ensure_future(ref.add()) for _ in range(200)]
    await until(lambda: store.held)
    await settle()
    assert on_store._node.hosts["Cell"].live["a"].turns == 1 + 64
    store.release()
    assert await asyncio.gather(*calls) == list(range(1, 201))
    assert len(store.commits_of("Cell/a")) == 5  # 1, 64, 64, 64, 7


async def test_a_commit_carries_at_most_256_kilobytes(on_store: Platform, store: Store) -> None:
    ref = on_store.agent(Cell, "a")
    await ref.get()
    store.hold()
    calls = [asyncio.ensure_future(ref.write(str(i) * 100_000)) for i in range(8)]
    await until(lambda: store.held)
    await settle()
    assert on_store._node.hosts["Cell"].live["a"].turns == 1 + 3
    store.release()
    await asyncio.gather(*calls)
    assert len(store.commits_of("Cell/a")) == 4


async def test_a_turn_that_changes_and_causes_nothing_isnt_written(on_store: Platform, store: Store) -> None:
    ref = on_store.agent(Cell, "a")
    assert [await ref.same(), await ref.get()] == [0, 0]
    assert store.commits_of("Cell/a") == []


# -- the store fails -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [StoreUnavailable("gone"), StoreFull("full")])
async def test_a_store_that_fails_fails_the_turn_and_heals(on_store: Platform, store: Store, error: Exception) -> None:
    ref = on_store.agent(Cell, "a")
    await ref.add(5)
    store.fail_all(error)
    for _ in range(3):
        with pytest.raises(type(error)):
            await ref.add()
        assert await ref.get() == 5
    store.heal()
    assert await ref.add() == 6
    assert await value_of(store, "Cell/a") == 6


async def test_a_failed_commit_fails_its_turns_and_all_after_it(on_store: Platform, store: Store) -> None:
    ref = on_store.agent(Cell, "a")
    await ref.add()
    store.hold()
    calls = [asyncio.ensure_future(call) for call in (ref.add(), ref.add(), ref.get(), ref.add_and_emit(), ref.add_and_cast("b"))]
    await until(lambda: store.held)
    await settle()
    store.fail_all()
    store.release()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable] * 5
    store.heal()
    assert await ref.add() == 2
    assert [event async for event in on_store.events.read_all()] == []
    await settle()
    assert await on_store.agent(Cell, "b").get() == 0
    assert (await on_store.agents.describe(ref)).pending_effects == 0


async def test_a_turn_that_ran_during_a_commit_that_fails_is_doomed(on_store: Platform, store: Store) -> None:
    ref, gate = on_store.agent(Cell, "a"), asyncio.Event()
    await ref.add()
    store.hold()
    first = asyncio.ensure_future(ref.add())
    await until(lambda: store.held)
    second = asyncio.ensure_future(ref.wait(gate))
    await settle()
    third = asyncio.ensure_future(ref.add())
    store.fail_once("Cell/a")
    store.release()
    with pytest.raises(StoreUnavailable):
        await first
    gate.set()
    with pytest.raises(StoreUnavailable):
        await second
    assert await third == 2
    assert await value_of(store, "Cell/a") == 2


async def test_a_doomed_turn_of_an_agent_with_rows_cant_commit_beside_its_successor(on_store: Platform, store: Store) -> None:
    ref, gate = on_store.agent(Cell, "a"), asyncio.Event()
    await ref.add_and_cast("b")
    store.hold()
    first = asyncio.ensure_future(ref.add_and_cast("b"))
    await until(lambda: store.held)
    second = asyncio.ensure_future(ref.wait(gate))
    await settle()
    third = asyncio.ensure_future(ref.add())
    store.fail_once("Cell/a")
    store.release()
    with pytest.raises(StoreUnavailable):
        await first
    assert await third == 2
    gate.set()
    with pytest.raises(StoreUnavailable):
        await second
    assert await ref.add() == 3
    assert await value_of(store, "Cell/a") == 3


async def test_calls_to_an_agent_that_cant_be_read_fail_and_the_next_tries_again(on_store: Platform, store: Store) -> None:
    ref = on_store.agent(Cell, "a")
    store.reads_fail = True
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await ref.get()
    store.reads_fail = False
    assert await ref.add() == 1


async def test_casts_whose_commit_fails_are_told_in_the_log(on_store: Platform, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    ref = on_store.agent(Cell, "a")
    await ref.add()
    store.fail_all()
    for _ in range(3):
        await on_store.cast(ref.add)
    await until(lambda: "casts failed" in caplog.text)
    assert '"agent": "Cell/a", "casts": 3' in caplog.text
    store.heal()
    assert await ref.get() == 1


@pytest.mark.parametrize("outcome", ["happened", "lost"])
async def test_an_unknown_outcome_holds_the_agent_until_reading_back_decides(on_store: Platform, store: Store, outcome: str) -> None:
    ref = on_store.agent(Cell, "a")
    await ref.add()
    store.unknown = outcome
    store.reads_fail = True
    call = asyncio.ensure_future(ref.add(10))
    await until(lambda: on_store._node.hosts["Cell"].live["a"].status.name == "HELD")
    later = [asyncio.ensure_future(ref.get()), asyncio.ensure_future(ref.add(100))]
    await asyncio.sleep(0.1)
    assert not call.done()
    assert not any(waiting.done() for waiting in later)
    assert (await on_store.agents.describe(ref)).state == "held"
    store.reads_fail = False
    if outcome == "happened":
        assert await asyncio.gather(call, *later) == [11, 11, 111]
    else:
        with pytest.raises(CommitUnknown):
            await call
        assert await asyncio.gather(*later) == [1, 101]
    assert await value_of(store, "Cell/a") == (111 if outcome == "happened" else 101)


class Farewell(Cell):
    @on_terminate
    async def say(self) -> None:
        self.value += 1_000


@pytest.mark.parametrize("outcome", ["happened", "lost"])
async def test_an_agent_goes_although_the_outcome_of_its_last_commit_is_unknown(on_store: Platform, store: Store, outcome: str) -> None:
    ref = on_store.agent(Farewell, "a")
    await ref.add()
    store.unknown = outcome
    await on_store.agents.stop(ref)
    assert (await on_store.agents.describe(ref)).state == "passive"
    assert await ref.get() == (1_001 if outcome == "happened" else 1)


@pytest.mark.parametrize("outcome", ["happened", "lost"])
async def test_a_held_agent_can_be_stopped(on_store: Platform, store: Store, outcome: str) -> None:
    ref = on_store.agent(Cell, "a")
    await ref.add()
    store.unknown, store.reads_fail = outcome, True
    call = asyncio.ensure_future(ref.add(10))
    await until(lambda: on_store._node.hosts["Cell"].live["a"].status.name == "HELD")
    stopping = asyncio.ensure_future(on_store.agents.stop(ref))
    await settle()
    assert not stopping.done()
    store.reads_fail = False
    await asyncio.gather(call, stopping, return_exceptions=True)
    assert (await on_store.agents.describe(ref)).state == "passive"


@pytest.mark.parametrize("outcome", ["happened", "lost"])
async def test_effects_of_a_commit_of_unknown_outcome_leave_once_or_not_at_all(on_store: Platform, store: Store, outcome: str) -> None:
    ref, other = on_store.agent(Cell, "a"), on_store.agent(Cell, "b")
    store.unknown = outcome
    call = asyncio.gather(ref.add_and_cast("b"), return_exceptions=True)
    [result] = await call
    assert (result is None) == (outcome == "happened")
    await ref.add_and_emit()
    if outcome == "happened":
        await until(lambda: store.commits_of("Cell/b"))
    await settle()
    assert await other.get() == (10 if outcome == "happened" else 0)


async def test_a_record_that_somebody_else_wrote_is_read_again(on_store: Platform, store: Store) -> None:
    ref = on_store.agent(Cell, "a")
    await ref.add()
    record = await store.read("Cell/a")
    assert record is not None
    await store.inner.commit("Cell/a", record.revision, record.head)
    with pytest.raises(Conflict):
        await ref.add()
    assert await ref.add() == 2


async def test_state_over_the_stores_limit_is_refused_and_the_agent_goes_on(on_store: Platform, store: Store) -> None:
    store.inner.max_head_bytes = 1000
    ref = on_store.agent(Cell, "a")
    await ref.add()
    with pytest.raises(TooLarge, match="Cell/a"):
        await ref.write("x" * 2000)
    assert await ref.add() == 2


async def test_an_event_that_is_too_large_fails_its_turn(on_store: Platform, store: Store) -> None:
    class Loud(Agent):
        value: int = 0

        @action
        async def shout(self, count: int) -> int:
            self.value += 1
            self.emit("loud.shouted", "x" * count)
            return self.value

    store.inner.log.max_event_bytes = 1000
    ref = on_store.agent(Loud, "a")
    with pytest.raises(TooLarge):
        await ref.shout(2000)
    assert await ref.shout(10) == 1


async def test_many_agents_keep_their_promises_while_the_store_comes_and_goes() -> None:
    """What was acknowledged is stored, what failed isn't, whatever the order."""
    import random

    seeded = random.Random(7)
    store = Store()
    acknowledged: dict[str, int] = {}

    async def call(platform: Platform, key: str) -> None:
        for _ in range(40):
            try:
                await platform.agent(Cell, key).add()
            except (StoreUnavailable, CommitUnknown):
                await asyncio.sleep(0)
            else:
                acknowledged[key] = acknowledged.get(key, 0) + 1

    def sometimes(agent: str) -> BaseException | None:
        if agent.startswith("jido."):
            return None
        chance = seeded.random()
        if chance < 0.1:
            store.unknown = seeded.choice(["happened", "lost"])
        return StoreUnavailable("now and then") if chance > 0.8 else None

    async with PlatformOn(store) as platform:
        store.failing = sometimes
        await asyncio.gather(*(call(platform, str(i % 5)) for i in range(20)))
        store.heal()
        for key, count in acknowledged.items():
            assert await platform.agent(Cell, key).get() == count
            assert await value_of(store, f"Cell/{key}") == count


class Ledger(Agent):
    entries: list[int] = field(default_factory=list)

    @action
    async def note(self, number: int) -> None:
        self.entries.append(number)
        self.emit("ledger.noted", number)


async def test_events_are_stored_in_the_order_of_the_turns_and_with_their_commit(on_store: Platform, store: Store) -> None:
    ref = on_store.agent(Ledger, "a")
    await asyncio.gather(*(ref.note(i) for i in range(150)))
    events: list[Any] = [event async for event in on_store.events.read("Ledger/a")]
    assert [event.data for event in events] == list(range(150))
    assert sum(len(events_) for _a, _h, _r, events_ in store.commits_of("Ledger/a")) == 150
    assert {(event.source, event.subject, event.stream, event.type) for event in events} == {("Ledger/a", "a", "Ledger/a", "ledger.noted")}
