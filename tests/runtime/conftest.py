"""Most tests of the runtime run on both stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jidosystem import Platform
from jidosystem.backends.memory import MemoryRecords
from jidosystem.backends.sqlite import open_store
from jidosystem.core.records import Records
from tests.runtime.harness import Crashable, FakeClock, PlatformOn, Store


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store's address."""
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/agents.db"


@pytest.fixture
async def platform(url: str) -> AsyncIterator[Platform]:
    """A running platform, on each store."""
    async with Platform(url) as running:
        yield running


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    """A store that outlives its platform."""
    return f"sqlite:///{tmp_path}/agents.db"


@pytest.fixture
async def store() -> Store:
    """A store that fails when it is told to."""
    return Store()


@pytest.fixture
async def on_store(store: Store) -> AsyncIterator[Platform]:
    """A platform on that store."""
    async with PlatformOn(store) as running:
        yield running


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still."""
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite"])
async def stored(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Records]:
    """What is stored, whatever becomes of the platforms on it."""
    records: Records = MemoryRecords() if request.param == "memory" else await open_store(str(tmp_path / "agents.db"))
    yield records
    await records.close()


@pytest.fixture
async def world(stored: Records) -> AsyncIterator[Crashable]:
    """Platforms that crash and start again on one store, each kind of store."""
    world = Crashable(stored)
    yield world
    await world.close()


@pytest.fixture
async def timed_world(clock: FakeClock) -> AsyncIterator[Crashable]:
    """The same in memory, under a clock that stands still."""
    world = Crashable(MemoryRecords(clock), clock)
    yield world
    await world.close()
