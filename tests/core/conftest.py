"""A bus on a store in memory, closed after each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from jidosystem.core.bus import EventBus
from tests.core.bench import Bench


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        bench = Bench(stack)
        stack.push_async_callback(bench.records.close)
        stack.push_async_callback(bench.bus.close, 0.01)
        yield bench


@pytest.fixture
def bus(bench: Bench) -> EventBus:
    return bench.bus
