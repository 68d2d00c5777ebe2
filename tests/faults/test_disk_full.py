"""No room left: each call that needs some is refused whole, naming file and reason; with room again everything goes on, without a restart."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from typing import Any

import pytest

from jidosystem import Agent, JidoError, Platform, StoreUnavailable, action
from jidosystem.backends.sqlite import open_store
from jidosystem.core.errors import StoreFull
from tests.runtime.harness import PlatformOn, until_async


class Hoard(Agent):
    """Grows."""

    kept: list[bytes] = field(default_factory=list)
    heard: int = 0

    @action
    async def keep(self, size_bytes: int, friend: str) -> int:
        self.kept.append(os.urandom(size_bytes))
        self.emit("kept", {"who": self.key, "count": len(self.kept)})
        self.cast(self.agent(Hoard, friend).hear)
        return len(self.kept)

    @action
    async def hear(self) -> None:
        self.heard += 1

    @action
    async def empty(self) -> None:
        self.kept.clear()

    @action(readonly=True)
    async def books(self) -> tuple[int, int]:
        return len(self.kept), self.heard


async def fill(platform: Platform) -> tuple[dict[str, int], StoreFull]:
    """Calls from eight callers until the store has refused each of them; what was answered, and an error."""
    answered: dict[str, int] = {}
    refusals: list[StoreFull] = []

    async def caller(key: str) -> None:
        ref = platform.agent(Hoard, key)
        while True:
            try:
                answered[key] = await ref.keep(20_000, f"friend of {key}")
            except StoreFull as full:
                refusals.append(full)
                return

    await asyncio.wait_for(asyncio.gather(*(caller(f"h{i}") for i in range(8))), 60)
    return answered, refusals[0]


async def check(platform: Platform, answered: dict[str, int]) -> None:
    """What was answered is there once, and nothing of what was refused."""
    told: dict[str, int] = {}
    async for event in platform.events.read_all("kept"):
        told[event.data["who"]] = told.get(event.data["who"], 0) + 1
    assert told == answered
    for key, count in answered.items():
        assert (await platform.agent(Hoard, key).books())[0] == count
    assert await platform.verify() == []


async def goes_on(platform: Platform, answered: dict[str, int]) -> None:
    """There is room again: the same platform goes on, and the casts that found none have come."""

    async def adds() -> bool:
        with suppress(StoreUnavailable):
            answered["h0"] = await platform.agent(Hoard, "h0").keep(10, "friend of h0")
            return True
        return False

    async def heard() -> bool:
        with suppress(JidoError):
            books = [(await platform.agent(Hoard, f"friend of {key}").books())[1] for key in answered]
            return books == list(answered.values())
        return False

    await until_async(adds, "a call that succeeds")
    await until_async(heard, "the casts")
    await check(platform, answered)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def grow(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=60m", folder], check=True)


async def test_a_full_disk_refuses_whole_calls_and_goes_on_with_room(small_disk: Path) -> None:
    path = small_disk / "full.db"
    async with Platform(f"sqlite:///{path}", agents=[Hoard]) as platform:
        answered, full = await fill(platform)
        assert "full.db" in str(full)
        assert "full" in str(full).replace("full.db", "")
        await check(platform, answered)  # reading needs no room
        await asyncio.to_thread(grow, small_disk)
        await goes_on(platform, answered)
    async with Platform(f"sqlite:///{path}", agents=[Hoard]) as platform:
        await check(platform, answered)


async def test_a_full_disk_at_the_start_is_told_and_harms_nothing(small_disk: Path) -> None:
    path = small_disk / "full.db"
    async with Platform(f"sqlite:///{path}", agents=[Hoard]) as platform:
        answered, _full = await fill(platform)
    filler = small_disk / "filler"
    with suppress(OSError):
        filler.write_bytes(bytes(4_000_000))
    assert os.statvfs(small_disk).f_bavail == 0
    with pytest.raises(StoreUnavailable, match=r"full\.db"):
        async with Platform(f"sqlite:///{path}", agents=[Hoard]) as platform:
            while True:  # a log kept from the life before has room for some
                answered["h0"] = await platform.agent(Hoard, "h0").keep(20_000, "friend of h0")
    filler.unlink()
    await asyncio.to_thread(grow, small_disk)
    async with Platform(f"sqlite:///{path}", agents=[Hoard]) as platform:
        await goes_on(platform, answered)


async def test_a_file_that_may_not_grow_refuses_whole_calls_and_goes_on_with_room(tmp_path: Path) -> None:
    path = str(tmp_path / "full.db")
    records: Any = await open_store(path, max_page_count=400)
    async with PlatformOn(records, [Hoard]) as platform:
        answered, full = await fill(platform)
        assert "full.db" in str(full)
        await check(platform, answered)
        await lift(records)
        await goes_on(platform, answered)
    assert answered
    records = await open_store(path)
    async with PlatformOn(records, [Hoard]) as platform:
        await check(platform, answered)


async def lift(records: Any) -> None:
    """Let the file grow: on the writer's own connection and thread."""
    from jidosystem.backends.sqlite.statements import Call

    done = asyncio.get_running_loop().create_future()
    settled: Callable[[Any, Any], None] = lambda value, _error: done.set_result(value)  # noqa: E731
    records._put(Call(settled, lambda connection: connection.execute("PRAGMA max_page_count = 100000").fetchone()))
    await done
