"""What every adapter of `Wire` must keep."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager

import pytest

from ...core.errors import NodeUnreachable, OutcomeUnknown, TooLarge, WireTimeout
from ...core.wire import Answered, Wire


async def echo(payload: bytes) -> bytes:
    """Answer with the question."""
    return payload


class WireConformance(ABC):
    """The promises of `Wire` as a test suite."""

    @abstractmethod
    def open(self) -> AbstractAsyncContextManager[Wire]:
        """To be written: an async context manager that yields a wire that nobody serves yet, closed at the end."""

    async def test_a_request_is_answered(self) -> None:
        async with self.open() as wire:
            await wire.serve("here", echo)
            assert await wire.request("here", b"\x00hello", timeout_s=5) == b"\x00hello"

    async def test_a_handler_may_have_its_answer_at_once(self) -> None:
        async with self.open() as wire:
            await wire.serve("here", Answered)
            answers = [wire.request("here", b"%d" % number, timeout_s=5) for number in range(20)]
            assert await asyncio.gather(*answers) == [b"%d" % number for number in range(20)]

    async def test_requests_that_go_together_are_each_answered_for_themselves(self) -> None:
        async with self.open() as wire:
            go = asyncio.Event()

            async def serve(payload: bytes) -> bytes:
                if payload == b"raises":
                    raise ValueError("no")
                if payload == b"slow":
                    await go.wait()
                return payload * 2

            await wire.serve("here", serve)
            slow, raises, late = (
                asyncio.ensure_future(wire.request("here", payload, timeout_s=timeout_s, together=True))
                for payload, timeout_s in ((b"slow", 10), (b"raises", 0.05), (b"slow", 0.1))
            )
            quick = [wire.request("here", b"%d" % number, timeout_s=10, together=True) for number in range(100)]
            assert await asyncio.gather(*quick) == [b"%d" % number * 2 for number in range(100)]
            for failing in (raises, late):
                with pytest.raises(WireTimeout):
                    await failing
            assert not slow.done()
            go.set()
            assert await slow == b"slowslow"

    async def test_requests_that_go_together_to_nobody_are_told_so(self) -> None:
        async with self.open() as wire:
            for told in await asyncio.gather(*(wire.request("no", b"", timeout_s=60, together=True) for _ in range(40)), return_exceptions=True):
                assert isinstance(told, NodeUnreachable)

    async def test_nobody_there_is_known_at_once(self) -> None:
        async with self.open() as wire:
            with pytest.raises(NodeUnreachable):
                await asyncio.wait_for(wire.request("nowhere", b"", timeout_s=60), 5)
            served = await wire.serve("here", echo)
            await served.close()
            with pytest.raises(NodeUnreachable):
                await asyncio.wait_for(wire.request("here", b"", timeout_s=60), 5)

    async def test_an_answer_that_does_not_come_is_an_unknown_outcome(self) -> None:
        async with self.open() as wire:
            began = asyncio.Event()

            async def hang(_payload: bytes) -> bytes:
                began.set()
                await asyncio.sleep(1)
                return b""

            await wire.serve("slow", hang)
            with pytest.raises(WireTimeout) as raised:
                await wire.request("slow", b"", timeout_s=0.05)
            assert began.is_set()
            assert isinstance(raised.value, OutcomeUnknown)

    async def test_a_handler_that_raises_answers_nothing(self) -> None:
        async with self.open() as wire:

            async def fail(_payload: bytes) -> bytes:
                raise ValueError("no")

            await wire.serve("bad", fail)
            with pytest.raises(WireTimeout):
                await wire.request("bad", b"", timeout_s=0.05)

    async def test_servers_of_a_group_share_the_work(self) -> None:
        async with self.open() as wire:
            counts = [0, 0, 0]

            def server(number: int):  # type: ignore[no-untyped-def]
                async def serve(_payload: bytes) -> bytes:
                    counts[number] += 1
                    return b""

                return serve

            for number in range(3):
                await wire.serve("work", server(number), group="g")
            await asyncio.gather(*(wire.request("work", b"", timeout_s=5) for _ in range(30)))
            assert sum(counts) == 30
            assert all(counts)

    async def test_a_message_reaches_one_server_of_each_group(self) -> None:
        async with self.open() as wire:
            got: list[str] = []
            arrived = asyncio.Event()

            def server(name: str):  # type: ignore[no-untyped-def]
                async def serve(_payload: bytes) -> None:
                    got.append(name)
                    if len(got) == 2:
                        arrived.set()

                return serve

            for name in ("a1", "a2"):
                await wire.serve("news", server(name), group="a")
            await wire.serve("news", server("b1"), group="b")
            await wire.send("news", b"x")
            await asyncio.wait_for(arrived.wait(), 5)
            await asyncio.sleep(0.02)
            assert sorted(name[0] for name in got) == ["a", "b"]
            await wire.send("nobody", b"x")

    async def test_too_large_a_payload_is_refused_before_it_is_sent(self) -> None:
        async with self.open() as wire:
            await wire.serve("here", echo)
            with pytest.raises(TooLarge):
                await wire.request("here", bytes(wire.max_payload_bytes + 1), timeout_s=5)
            assert len(await wire.request("here", bytes(wire.max_payload_bytes), timeout_s=5)) == wire.max_payload_bytes

    async def test_closing_finishes_what_is_being_served(self) -> None:
        async with self.open() as wire:
            began, go = asyncio.Event(), asyncio.Event()

            async def slow(_payload: bytes) -> bytes:
                began.set()
                await go.wait()
                return b"done"

            served = await wire.serve("slow", slow)
            request = asyncio.ensure_future(wire.request("slow", b"", timeout_s=5))
            await began.wait()
            closing = asyncio.ensure_future(served.close())
            await asyncio.sleep(0)
            go.set()
            await closing
            assert await request == b"done"

    async def test_a_closed_wire_leaves_nobody_waiting(self) -> None:
        async with self.open() as wire:
            began = asyncio.Event()

            async def hang(_payload: bytes) -> bytes:
                began.set()
                await asyncio.sleep(1)
                return b""

            await wire.serve("slow", hang)
            requests = [asyncio.ensure_future(wire.request("slow", b"", timeout_s=30, together=together)) for together in (False, True)]
            await began.wait()
            await wire.close()
            for request in requests:
                with pytest.raises(OutcomeUnknown):
                    await asyncio.wait_for(request, 5)
