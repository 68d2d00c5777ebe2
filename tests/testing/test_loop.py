"""Virtual time: it stands still while anything runs, jumps when nothing does, and says so when nothing can."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jidosystem.testing import Stuck, outside, run
from jidosystem.testing.loop import LOOK_EVERY

YEAR_S = 365 * 86_400.0


def elapsed(main: Callable[[], Coroutine[Any, Any, Any]]) -> float:
    """How far the clock has moved."""

    async def timed() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await main()
        return loop.time() - began

    return run(timed(), patience_s=5.0)


@given(st.lists(st.floats(0.0, 10 * YEAR_S), min_size=1, max_size=20))
def test_sleeps_end_in_order_each_at_its_time_however_long_they_are(delays: list[float]) -> None:
    async def main() -> list[tuple[float, float]]:
        loop = asyncio.get_running_loop()
        began, ended = loop.time(), []

        async def sleeper(delay: float) -> None:
            await asyncio.sleep(delay)
            ended.append((delay, loop.time() - began))

        await asyncio.gather(*map(sleeper, delays))
        return ended

    ended = run(main())
    assert all(-1e-6 <= at - delay < 2e-6 for delay, at in ended)
    assert all(later - earlier > -2e-6 for (earlier, _), (later, _) in pairwise(ended))


@given(st.floats(0.0, 100 * YEAR_S), st.integers(1, 50))
def test_a_timer_set_again_and_again_moves_the_clock(zero_s: float, times: int) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(zero_s)
        due = loop.time() + 1.0
        for _ in range(times):  # as schedulers do that count by a clock of their own
            await asyncio.sleep(due - loop.time())
            due += 1e-7

    run(main(), patience_s=5.0)


def test_threads_take_no_virtual_time() -> None:
    async def main() -> None:
        late = asyncio.create_task(asyncio.sleep(10.0))
        assert await asyncio.wait_for(asyncio.to_thread(lambda: time.sleep(0.05) or 7), 1.0) == 7
        assert not late.done()
        late.cancel()

    assert elapsed(main) == 0.0


def test_of_nested_timeouts_the_shorter_one_ends() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(50.0):
                try:
                    async with asyncio.timeout(5.0):
                        await asyncio.Event().wait()
                except TimeoutError:
                    await asyncio.Event().wait()

    assert elapsed(main) == 50.0


def test_what_happens_outside_is_waited_for_where_the_test_says_so() -> None:
    async def main() -> None:
        with outside("a child process"):
            child = await asyncio.create_subprocess_exec(sys.executable, "-c", "print(6 * 7)", stdout=asyncio.subprocess.PIPE)
            assert (await child.communicate())[0].strip() == b"42"

    assert elapsed(main) == 0.0


def test_a_thread_of_the_tests_own_is_heard() -> None:
    async def main() -> None:
        loop, came = asyncio.get_running_loop(), asyncio.Event()
        with outside("a thread"):
            threading.Timer(0.05, loop.call_soon_threadsafe, [came.set]).start()
            async with asyncio.timeout(1.0):
                await came.wait()

    assert elapsed(main) == 0.0


def test_sockets_between_tasks_of_one_loop_need_nothing() -> None:
    async def main() -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            with outside("the connection"):
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                writer.write(b"hello\n")
                async with asyncio.timeout(1.0):
                    assert await reader.readline() == b"hello\n"
                writer.close()
                await writer.wait_closed()

    assert elapsed(main) == 0.0


def test_looking_up_a_host_is_a_threads_work() -> None:
    async def main() -> None:
        async with asyncio.timeout(0.1):
            assert await asyncio.get_running_loop().getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)

    assert elapsed(main) == 0.0


def test_what_can_never_happen_is_told_at_once_with_the_lines_that_wait() -> None:
    async def forgotten() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(forgotten())
        with pytest.raises(Stuck, match=r"nothing can happen any more") as raised:
            await asyncio.Queue[int]().get()
        assert "forgotten waits at test_loop.py" in str(raised.value)
        assert "Queue[int]().get()" in str(raised.value)
        task.cancel()

    began = time.monotonic()
    run(main())
    assert time.monotonic() - began < 20.0


def test_a_test_that_waits_for_a_task_or_many_is_told_too() -> None:
    async def never() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        with pytest.raises(Stuck):
            await asyncio.create_task(never())
        with pytest.raises(Stuck):
            await asyncio.gather(never(), never())
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(never())
                await never()

    run(main())


def test_a_loop_that_goes_round_and_round_is_stopped() -> None:
    async def main() -> None:
        async def spin() -> None:
            while True:  # noqa: ASYNC110 - that is what a test may do by mistake
                await asyncio.sleep(0)

        spinning = asyncio.create_task(spin())
        with pytest.raises(Stuck, match="although much else has"):
            await asyncio.Event().wait()
        spinning.cancel()

    run(main(), patience_s=0.2)


def test_a_test_that_runs_whenever_it_is_looked_at_isnt_stopped() -> None:
    async def main() -> None:
        for _ in range(3 * LOOK_EVERY):
            await asyncio.sleep(0)

    run(main())


def test_a_test_that_goes_round_and_round_itself_is_stopped() -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)

    with pytest.raises(Stuck, match="although much else has"):
        run(main(), patience_s=0.2)


def test_time_that_runs_on_for_nothing_is_stopped() -> None:
    async def main() -> None:
        async def tick() -> None:
            while True:  # noqa: ASYNC110 - as above
                await asyncio.sleep(60.0)

        ticking = asyncio.create_task(tick())
        with pytest.raises(Stuck, match="although much else has"):
            await asyncio.Event().wait()
        ticking.cancel()

    run(main(), patience_s=0.2)


def test_a_thread_that_hangs_is_named() -> None:
    async def main() -> None:
        go = threading.Event()

        def hang() -> None:
            go.wait(10.0)

        with pytest.raises(Stuck, match=r"outside hasn't ended.*hang"):
            await asyncio.to_thread(hang)
        go.set()

    run(main(), patience_s=0.2)


def test_looks_in_passing_neither_move_time_nor_keep_the_test_waiting() -> None:
    async def main() -> None:
        loop, looks = asyncio.get_running_loop(), []

        def look() -> None:
            looks.append(loop.time())
            loop.call_later_in_passing(1.0, look)

        look()
        began = loop.time()
        await asyncio.sleep(1_000_000.0)
        await loop.idle()
        assert looks == [began, began + 1_000_000.0]
        with pytest.raises(Stuck):
            await asyncio.Event().wait()

    run(main())


def test_errors_and_cancellations_go_through_and_leave_nothing_behind() -> None:
    async def main() -> None:
        sleeping = asyncio.create_task(asyncio.sleep(100.0))
        await asyncio.sleep(0)
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping
        raise ZeroDivisionError

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ZeroDivisionError):
            run(main())


def test_on_a_loop_of_real_time_outside_changes_nothing() -> None:
    async def main() -> int:
        with outside():
            await asyncio.sleep(0)
        return 3

    assert asyncio.run(main()) == 3
