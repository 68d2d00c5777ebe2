"""A file system that can't be written, from the start or from one moment to the next. Tests may run as root: mode bits prove nothing, mounts do."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jidosystem import Platform, StoreUnavailable
from tests.faults.counter import Tally
from tests.faults.process import counter
from tests.runtime.harness import until


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A folder, and the same folder where it can't be written."""
    folder, view = tmp_path / "folder", tmp_path / "view"
    folder.mkdir()
    view.mkdir()
    mounted = subprocess.run(["mount", "--bind", folder, view], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.decode().strip()}")
    mount("-o", "remount,bind,ro", view)
    yield folder, view
    subprocess.run(["umount", "-l", view], check=True)


@pytest.mark.parametrize("there", [True, False], ids=["an old file", "no file yet"])
async def test_at_the_start_it_is_told_and_nothing_is_touched(bound: tuple[Path, Path], there: bool) -> None:
    folder, view = bound
    if there:
        async with Platform(f"sqlite:///{folder}/app.db", agents=[Tally]) as platform:
            assert await platform.agent(Tally, "a").add() == 1
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(StoreUnavailable, match=r"app\.db.*[Rr]ead-only"):
        async with Platform(f"sqlite:///{view}/app.db", agents=[Tally]):
            pass
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    async with Platform(f"sqlite:///{folder}/app.db", agents=[Tally]) as platform:
        assert await platform.agent(Tally, "a").add() == (2 if there else 1)


async def test_in_the_middle_writes_are_refused_reads_go_on_and_so_does_all_when_it_can_be_written_again(tmp_path: Path, shim: Path) -> None:
    """A file system whose disk errs is made read-only under open files by the kernel alone; the shim answers as it does then."""
    path, flag = tmp_path / "app.db", tmp_path / "failing"
    async with counter(path, {"LD_PRELOAD": str(shim), "FAULT_FLAG": str(flag)}) as process:
        assert [await process.ask("add"), await process.ask("add", "b")] == [1, 1]
        flag.write_bytes(b"r")
        refused = [process.ask("add"), process.ask("add", "b"), process.ask("add", "new")]
        await until(lambda: flag.stat().st_size > 1, "a write that failed")
        assert [await process.ask("get", "c"), await process.ask("events")] == [0, [1]]
        flag.unlink()
        for answer in refused:
            told = await asyncio.wait_for(answer, 20)
            assert told.startswith("StoreUnavailable: ")
            assert "app.db" in told
        assert [await process.ask("get"), await process.ask("get", "b"), await process.ask("get", "new")] == [1, 1, 0]
        assert [await process.ask("add"), await process.ask("add", "new")] == [2, 1]
        assert await process.end() == 0
    async with counter(path) as process:
        assert [await process.ask("get"), await process.ask("get", "b"), await process.ask("get", "new")] == [2, 1, 1]
        assert [await process.ask("events"), await process.ask("damage")] == [[1, 2], []]
