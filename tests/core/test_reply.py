"""A reply wakes its one waiter within the step that tells it, and is an ordinary future in every other respect."""

import asyncio
from contextvars import ContextVar

import pytest

from jidosystem.core.eager import _start_own, start_eagerly
from jidosystem.core.reply import Reply

seen: ContextVar[str] = ContextVar("seen", default="")


def reply() -> Reply:
    return Reply(loop=asyncio.get_running_loop())


def from_the_loop(call, *args):
    """Run something as the loop does, outside of any task; a future of what it returned."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    loop.call_soon(lambda: done.set_result(call(*args)))
    return done


async def waits_for(future, log):
    log.append(await future)
    log.append("went on")


async def test_whoever_waits_goes_on_before_tell_returns():
    answer, log = reply(), []
    task = asyncio.create_task(waits_for(answer, log))
    await asyncio.sleep(0)

    def tell():
        answer.tell(5)
        log.append("told")

    await from_the_loop(tell)
    assert log == [5, "went on", "told"]
    await task


@pytest.mark.parametrize("start", [start_eagerly, _start_own])
async def test_an_eager_task_is_woken_too(start):
    answer, log = reply(), []
    task = start(waits_for(answer, log), asyncio.get_running_loop())
    await from_the_loop(answer.tell, 6)
    assert log == [6, "went on"]
    await task


async def test_the_waiter_goes_on_in_its_own_context():
    answer, found = reply(), []

    async def waiter():
        seen.set("the waiter's")
        await answer
        found.append(seen.get())

    task = asyncio.create_task(waiter())
    await asyncio.sleep(0)
    await from_the_loop(answer.tell, None)
    assert found == ["the waiter's"]
    await task


async def test_told_within_a_task_the_waiter_goes_on_when_the_loop_comes_round():
    answer, log = reply(), []
    task = asyncio.create_task(waits_for(answer, log))
    await asyncio.sleep(0)
    answer.tell(7)
    assert log == []
    await task
    assert log == [7, "went on"]


async def test_told_before_anybody_waits_the_answer_is_there():
    answer = reply()
    await from_the_loop(answer.tell, 8)
    assert await answer == 8


@pytest.mark.parametrize("error", [None, ValueError("no")])
async def test_as_an_ordinary_future_it_wakes_its_waiter_too(error):
    answer, log = reply(), []
    task = asyncio.create_task(waits_for(answer, log))
    await asyncio.sleep(0)
    if error is None:
        answer.set_result(9)
        await task
        assert log == [9, "went on"]
    else:
        answer.set_exception(error)
        with pytest.raises(ValueError, match="no"):
            await task


async def test_a_waiter_that_is_cancelled_stops_and_the_answer_does_no_harm():
    answer, log = reply(), []
    task = asyncio.create_task(waits_for(answer, log))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert answer.cancelled()
    assert log == []


async def test_every_other_callback_is_called_too_and_can_be_removed():
    answer, called = reply(), []
    task = asyncio.create_task(waits_for(answer, called))
    await asyncio.sleep(0)
    answer.add_done_callback(lambda _: called.append("callback"))

    def removed(_future):
        called.append("removed")

    answer.add_done_callback(removed)
    assert answer.remove_done_callback(removed) == 1
    await from_the_loop(answer.tell, 1)
    await task
    await asyncio.sleep(0)
    assert called == [1, "went on", "callback"]


def test_what_ends_the_loop_ends_it_but_not_those_who_are_told_later():
    told = []

    async def main():
        first, second = reply(), reply()

        async def stops():
            await first
            raise SystemExit(3)

        tasks = [asyncio.create_task(stops()), asyncio.create_task(waits_for(second, told))]
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(lambda: (first.tell(1), second.tell(2)))
        await asyncio.gather(*tasks)

    with pytest.raises(SystemExit):
        asyncio.run(main())
    assert told == [2, "went on"]
