"""The disk says that it couldn't keep what it was given: nobody is told otherwise, also not by what a crash brings back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.faults.process import counter
from tests.runtime.harness import until


@pytest.mark.parametrize("killed", [False, True])
async def test_what_could_not_be_made_durable_is_never_answered_and_never_comes_back(tmp_path: Path, shim: Path, killed: bool) -> None:
    path, flag = tmp_path / "fsync.db", tmp_path / "failing"
    async with counter(path, {"LD_PRELOAD": str(shim), "FAULT_FLAG": str(flag)}) as process:
        assert [await process.ask("add"), await process.ask("add", "b")] == [1, 1]
        flag.write_bytes(b"s")
        doubtful = process.ask("add")
        await until(lambda: flag.stat().st_size > 1, "an fsync that failed")
        refused = await process.ask("add", "b")
        assert refused.startswith("StoreUnavailable: ")
        assert "fsync.db" in refused
        assert not doubtful.done()
        flag.unlink()
        told = await asyncio.wait_for(doubtful, 20)
        assert told.startswith("StoreUnavailable: ")
        assert [await process.ask("get"), await process.ask("get", "b")] == [1, 1]
        if not killed:
            assert [await process.ask("add"), await process.ask("add", "b")] == [2, 2]
        await process.end(kill=killed)
    more = 0 if killed else 1
    async with counter(path) as process:
        assert [await process.ask("get"), await process.ask("get", "b")] == [1 + more, 1 + more]
        assert await process.ask("events") == [*range(1, 2 + more)]
        assert await process.ask("damage") == []


async def test_a_process_that_dies_while_its_disk_fails_has_answered_nobody(tmp_path: Path, shim: Path) -> None:
    path, flag = tmp_path / "fsync.db", tmp_path / "failing"
    async with counter(path, {"LD_PRELOAD": str(shim), "FAULT_FLAG": str(flag)}) as process:
        assert await process.ask("add") == 1
        flag.write_bytes(b"s")
        doubtful = process.ask("add")
        await until(lambda: flag.stat().st_size > 3, "attempts that failed")
        assert not doubtful.done()
        await process.end(kill=True)
    async with counter(path) as process:  # it may have happened or not: state and log say the same
        count = await process.ask("get")
        assert count in (1, 2)
        assert await process.ask("events") == [*range(1, count + 1)]
