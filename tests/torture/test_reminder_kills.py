"""SIGKILL between the setting of reminders and their firing, and again while the next life starts and catches up: each rings exactly once."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

LIFE = str(Path(__file__).with_name("ringing.py"))


async def start(store: Path, what: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, LIFE, str(store), what, stdout=subprocess.PIPE)


async def die_under_load(store: Path, told: dict[str, int]) -> None:
    """A life long enough that reminders are set, wait and fire, killed at any moment of that."""
    child = await start(store, "load")
    assert child.stdout is not None
    assert await child.stdout.readline() == b"ready\n"
    await asyncio.sleep(random.uniform(0.02, 0.5))
    child.kill()
    for line in (await child.stdout.read()).splitlines(keepends=True):
        if line.endswith(b"\n"):
            key, number = line.decode().split()
            told[key] = max(told.get(key, 0), int(number))
    await child.wait()


async def die_while_starting(store: Path) -> bool:
    """Killed while the platform opens, recovers and lets ring what is due; whether that was before it was ready."""
    child = await start(store, "load")
    assert child.stdout is not None
    ready = asyncio.ensure_future(child.stdout.readline())
    await asyncio.wait([ready], timeout=random.uniform(0.0, 0.35))
    early = not ready.done()
    child.kill()
    await ready
    await child.stdout.read()
    await child.wait()
    return early


async def check(store: Path, told: dict[str, int]) -> int:
    """What stands in the books of a life that nobody calls."""
    child = await start(store, "settle")
    answer, _ = await child.communicate()
    assert child.returncode == 0
    found = json.loads(answer)
    for key, (was_set, rung, waiting) in found["books"].items():
        assert was_set >= told.get(key, 0), f"{key} lost a reminder that was acknowledged"
        assert sorted(found["rung"][key]) == [*range(1, was_set + 1)], f"{key}: reminders were lost or rang twice"
        assert (rung, waiting) == (was_set, 0)
    assert found["damage"] == []
    assert found["letters"] == 0
    return sum(was_set for was_set, _rung, _waiting in found["books"].values())


async def kills(store: Path, rounds: int) -> None:
    told: dict[str, int] = {}
    total = 0
    for _ in range(rounds):
        await die_under_load(store, told)
        while not await die_while_starting(store):
            pass  # a machine fast today: until one dies before it is ready
        total = await check(store, told)
    assert total


async def test_reminders_ring_once_whatever_dies_around_them(tmp_path: Path) -> None:
    await kills(tmp_path / "bells.db", 2)


@pytest.mark.torture
async def test_reminders_ring_once_through_a_hundred_rounds_of_kills(tmp_path: Path) -> None:
    await kills(tmp_path / "bells.db", 100)
