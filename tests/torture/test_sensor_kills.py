"""SIGKILL at random instants while sensors read growing files: every line is had exactly once, in order, and nobody calls."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from jidosystem import Platform
from tests.torture.run import ROOT
from tests.torture.tailing import READERS, Reader

PATIENCE_S = 60.0


class Files:
    """The files that are read: grown from outside, a line in the middle of being written among them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.paths = [folder / f"r{number}.txt" for number in range(READERS)]
        self.counts = [0] * READERS
        self._random = random.Random(seed)
        for path in (*self.paths, folder / "total.txt"):
            path.touch()

    def grow(self, at_most: int) -> None:
        for index, path in enumerate(self.paths):
            with path.open("a") as file:
                for _ in range(self._random.randrange(at_most)):
                    self.counts[index] += 1
                    file.write(f"{self.counts[index]}\n")


async def live_and_die(folder: Path, files: Files, random_: random.Random, how: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.torture.tailing", "sensors.db", how, cwd=folder, env=environment, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    if how == "begin" or random_.random() < 0.8:
        assert await child.stdout.readline() == b"ready\n"
    for _ in range(random_.randrange(1, 6)):
        files.grow(60)
        await asyncio.sleep(random_.uniform(0.0, 0.1))
    assert child.returncode is None, "it ended by itself"
    child.kill()
    await child.wait()


async def _all_read(platform: Platform, files: Files, seed: int) -> list[tuple[str, object]]:
    """The events, once everything was read; how long that takes is the machine's affair, as long as it goes on."""
    progress: object = None
    while True:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                books = [await platform.agent(Reader, path.stem).book() for path in files.paths]
                assert [wrong for _last, wrong, _told in books] == [[]] * READERS, f"seed {seed}"
                events = [(event.source, event.data) async for event in platform.events.read_all("line.read")]
                told = (await platform.agent(Reader, "total").book())[2]
                if (
                    [last for last, *_ in books] == files.counts
                    and told == sum(count // 7 for count in files.counts)
                    and len(events) >= sum(files.counts)
                ):
                    return events
                if (seen := (books, told, len(events))) != progress:
                    progress = seen
                    break
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)


async def kills(folder: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = int(os.environ.get("TORTURE_SEED", random.SystemRandom().getrandbits(32)))
    print(f"seed {seed}")
    random_, files = random.Random(seed), Files(folder, seed)
    for life in range(count):
        await live_and_die(folder, files, random_, "begin" if life == 0 else "go on")
    monkeypatch.chdir(folder)
    async with Platform("sqlite:///sensors.db", agents=[Reader]) as platform:
        events = await _all_read(platform, files, seed)
        for path, lines in zip(files.paths, files.counts, strict=True):
            assert [number for source, number in events if source == f"Reader/{path.stem}"] == list(range(1, lines + 1)), f"seed {seed}"
        assert await platform.dead_letters.list() == []
        assert await platform.verify() == []


@pytest.mark.blocking
async def test_every_line_is_had_once_whatever_dies_around_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await kills(tmp_path, 5, monkeypatch)


@pytest.mark.torture
@pytest.mark.blocking
async def test_every_line_is_had_once_over_two_hundred_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await kills(tmp_path, int(os.environ.get("TORTURE_KILLS", "200")), monkeypatch)
