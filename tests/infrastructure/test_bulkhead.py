"""The bulkhead: never more than allowed at a time, those who wait are served in turn, and no place is ever lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jidosystem.core.errors import BulkheadFull, DefinitionError
from jidosystem.infrastructure.bulkhead import Bulkhead, BulkheadState


def bulkhead(max_concurrent: int = 1, max_waiting: int = 1000) -> BulkheadState:
    return BulkheadState(Bulkhead(max_concurrent=max_concurrent, max_waiting=max_waiting), "Payments")


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_free_places_are_taken_without_waiting() -> None:
    state = bulkhead(max_concurrent=2)
    assert [state.try_acquire() for _ in range(3)] == [True, True, False]
    state.release()
    assert state.try_acquire()


async def test_one_more_than_may_wait_is_refused_by_name_and_had_no_effect() -> None:
    state = bulkhead(max_concurrent=2, max_waiting=3)
    for _ in range(2):
        await state.acquire()
    waiting = [asyncio.create_task(state.acquire()) for _ in range(3)]
    await settle()
    with pytest.raises(BulkheadFull, match="Payments: 2 at a time run and 3 wait") as refused:
        await state.acquire()
    assert refused.value.fields == {"agent": "Payments", "running": 2, "waiting": 3}
    for _ in range(5):
        state.release()
    await asyncio.gather(*waiting)
    assert (state.running, state.waiting) == (0, 0)


async def test_nobody_waits_where_nobody_may() -> None:
    state = bulkhead(max_waiting=0)
    await state.acquire()
    with pytest.raises(BulkheadFull):
        await state.acquire()


async def test_those_who_wait_are_served_in_turn_and_nobody_slips_in() -> None:
    state, served = bulkhead(), []

    async def visit(name: int) -> None:
        async with state.place():
            served.append(name)
            await asyncio.sleep(0)

    await state.acquire()
    tasks = [asyncio.create_task(visit(name)) for name in range(20)]
    await settle()
    state.release()
    assert not state.try_acquire(), "the place was already given to the one who waited longest"
    await asyncio.gather(*tasks)
    assert served == list(range(20))


async def test_giving_up_while_waiting_leaves_no_trace() -> None:
    state = bulkhead()
    await state.acquire()
    waiting = [asyncio.create_task(state.acquire()) for _ in range(10)]
    await settle()
    for task in waiting[::2]:
        task.cancel()
    await settle()
    assert state.waiting == 5
    for _ in range(6):
        state.release()
    await asyncio.gather(*waiting[1::2])
    assert (state.running, state.waiting) == (0, 0)


async def test_giving_up_in_the_moment_of_being_served_passes_the_place_on() -> None:
    state = bulkhead()
    await state.acquire()
    first, second = asyncio.create_task(state.acquire()), asyncio.create_task(state.acquire())
    await settle()
    state.release()  # it is first's now, but first hasn't run yet
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await asyncio.wait_for(second, 10)
    assert state.running == 1
    state.release()
    assert state.running == 0


async def test_a_place_given_back_passes_by_who_has_just_given_up() -> None:
    state = bulkhead()
    await state.acquire()
    first, second = asyncio.create_task(state.acquire()), asyncio.create_task(state.acquire())
    await settle()
    first.cancel()
    state.release()  # first has been told, but hasn't run yet
    await asyncio.wait_for(second, 10)
    assert first.cancelled()
    assert (state.running, state.waiting) == (1, 0)


async def test_a_block_that_raises_gives_its_place_back() -> None:
    state = bulkhead()
    with pytest.raises(ValueError, match="boom"):
        async with state.place():
            raise ValueError("boom")
    assert state.running == 0


def test_a_place_that_nobody_holds_cannot_be_given_back() -> None:
    with pytest.raises(RuntimeError, match="Payments"):
        bulkhead().release()


@given(
    st.integers(1, 4),
    st.integers(0, 6),
    st.lists(st.tuples(st.sampled_from(["come", "leave", "give up", "breathe"]), st.integers(0, 50)), max_size=60),
)
def test_in_any_order_of_events_places_and_queue_keep_their_limits(limit: int, waiting: int, script: list[tuple[str, int]]) -> None:
    async def play() -> None:
        state = bulkhead(limit, waiting)
        inside: list[int] = []
        refused = 0
        doors: dict[int, asyncio.Event] = {}
        tasks: dict[int, asyncio.Task[None]] = {}

        async def visit(name: int) -> None:
            nonlocal refused
            try:
                async with state.place():
                    inside.append(name)
                    try:
                        await doors[name].wait()
                    finally:
                        inside.remove(name)
            except BulkheadFull:
                refused += 1

        for number, (what, which) in enumerate(script):
            if what == "come":
                doors[number] = asyncio.Event()
                tasks[number] = asyncio.create_task(visit(number))
            elif what == "leave" and inside:
                doors[inside[which % len(inside)]].set()
            elif what == "give up" and tasks:
                tasks[list(tasks)[which % len(tasks)]].cancel()
            else:
                await settle()
            assert len(inside) <= limit
            assert state.running <= limit
        await settle()
        open_tasks = [task for task in tasks.values() if not task.done()]
        assert len(inside) == min(limit, len(open_tasks)), "a place is free although somebody waits"
        for door in doors.values():
            door.set()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        assert (state.running, state.waiting, inside) == (0, 0, [])

    asyncio.run(play())


@pytest.mark.parametrize(
    "options", [{"max_concurrent": 0}, {"max_concurrent": 1.5}, {"max_concurrent": True}, {"max_waiting": -1}, {"max_waiting": None}]
)
def test_what_cannot_be_is_refused_by_name(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(DefinitionError, match=rf"Bulkhead\({name}="):
        Bulkhead(**options)
