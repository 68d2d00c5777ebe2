"""What every adapter of `EventLog` must keep."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager

import pytest

from ...core.errors import StoreError, StreamConflict, TooLarge
from ...core.log import EventLog
from .records import event


async def numbers(log: EventLog, after: int = 0, stream: str | None = None) -> list[int]:
    """The numbers in the events that a reader finds."""
    return [e.data["number"] async for page in log.read(after, stream=stream) for e in page]


class EventLogConformance(ABC):
    """The promises of `EventLog` as a test suite, with readers that follow racing writers."""

    @abstractmethod
    def open_log(self) -> AbstractAsyncContextManager[EventLog]:
        """To be written: an async context manager that yields an empty log, closed at the end."""

    async def test_events_are_read_as_they_were_appended(self) -> None:
        async with self.open_log() as log:
            first = event("s", 1)
            positions = await log.append([first, event("s", 2)])
            found = [e async for page in log.read() for e in page]
            assert [e.position for e in found] == list(positions)
            assert (found[0].id, found[0].type, found[0].data, found[0].stream) == (first.id, first.type, first.data, "s")

    async def test_an_empty_log_ends_at_zero(self) -> None:
        async with self.open_log() as log:
            assert await log.last() == 0
            assert await log.last("s") == 0
            assert await numbers(log) == []

    async def test_positions_grow_and_streams_share_them(self) -> None:
        async with self.open_log() as log:
            one = (await log.append([event("s", 1)]))[0]
            two = (await log.append([event("t", 2)]))[0]
            three = (await log.append([event("s", 3)]))[0]
            assert 0 < one < two < three
            assert await numbers(log, stream="s") == [1, 3]
            assert await numbers(log, after=one) == [2, 3]
            assert await numbers(log, after=one, stream="s") == [3]
            assert (await log.last(), await log.last("s"), await log.last("t"), await log.last("u")) == (three, three, two, 0)

    async def test_an_append_expects_the_stream_as_it_is(self) -> None:
        async with self.open_log() as log:
            one = (await log.append([event("s", 1)], expected=0))[0]
            for wrong in (0, one + 1):
                with pytest.raises(StreamConflict) as raised:
                    await log.append([event("s", 2)], expected=wrong)
                assert (raised.value.expected, raised.value.actual) == (wrong, one)
            await log.append([event("t", 3)])
            await log.append([event("s", 4)], expected=one)
            assert await numbers(log) == [1, 3, 4]

    async def test_of_racing_expectations_one_holds(self) -> None:
        async with self.open_log() as log:
            ended = await asyncio.gather(*(log.append([event("s", i)], expected=0) for i in range(200)), return_exceptions=True)
            assert sum(not isinstance(end, BaseException) for end in ended) == 1
            assert len(await numbers(log)) == 1

    async def test_so_many_at_once_are_taken_together_and_not_one_more(self) -> None:
        async with self.open_log() as log:
            most = min(log.max_append_events, 5_000)
            assert len(await log.append([event("s", i) for i in range(most)])) == most >= 1_000
            assert await numbers(log) == list(range(most))
            if log.max_append_events == most:
                with pytest.raises(TooLarge):
                    await log.append([event("s", i) for i in range(most + 1)])
                assert len(await numbers(log)) == most

    async def test_many_pages_come_whole_and_in_order(self) -> None:
        async with self.open_log() as log:
            await asyncio.gather(*(log.append([event("s", i * 10 + j) for j in range(10)]) for i in range(700)))
            assert await numbers(log) == list(range(7_000))

    async def test_followers_see_everything_once_in_order_while_many_append(self) -> None:
        async with self.open_log() as log:
            total = 3_000

            async def follow() -> list[int]:
                positions: list[int] = []
                async for page in log.follow():
                    assert page
                    positions += [e.position for e in page]
                    if len(positions) >= total:
                        return positions
                return positions

            async def append(writer: int) -> None:
                for i in range(total // 30):
                    await log.append([event(f"s{writer}", i)])
                    if i % 7 == writer % 7:
                        await asyncio.sleep(0)

            followers = [asyncio.create_task(follow()) for _ in range(4)]
            await asyncio.gather(*(append(writer) for writer in range(30)))
            seen = [await asyncio.wait_for(follower, 30) for follower in followers]
            there = [e.position async for page in log.read() for e in page]
            assert len(there) == total
            assert all(positions == there for positions in seen)

    async def test_a_reader_ends_at_what_was_there_when_it_began(self) -> None:
        async with self.open_log() as log:
            for first in range(0, 5_000, 1_000):
                await log.append([event("s", first + i) for i in range(1_000)])
            seen = 0
            async for page in log.read():
                seen += len(page)
                await log.append([event("s", 9)])
            assert seen == 5_000

    async def test_closing_ends_followers(self) -> None:
        async with self.open_log() as log:
            await log.append([event("s", 1)])
            follower = aiter(log.follow())
            await anext(follower)
            waiting = asyncio.ensure_future(anext(follower))
            await asyncio.sleep(0.05)
            await self.close_log(log)
            with pytest.raises(StoreError):
                await asyncio.wait_for(waiting, 10)

    @abstractmethod
    async def close_log(self, log: EventLog) -> None:
        """To be written: close the store that the log belongs to."""
