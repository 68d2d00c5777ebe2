"""The demonstration on a cluster, as a user runs it: a node is killed, another stands still, and the books balance."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

pytest.importorskip("nats", reason="the extra `cluster` isn't installed")

from examples.flights.cluster import parse_plan
from examples.flights.demo import ROOT


@pytest.mark.timeout(240)
async def test_the_books_balance_although_a_node_is_killed_and_another_stands_still(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "examples.flights.cluster", "--folder", str(tmp_path), "--days", "1", "--callers", "20", "--seed", "11"),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0, said
    assert said.count("kill -9") == said.count("kill -STOP") == 1
    assert "The books balance" in said
    assert "DIFFER" not in said


@pytest.mark.parametrize("arguments", [["--days", "0"], ["--callers", "0"]])
def test_an_impossible_plan_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_plan(arguments)
    assert "error" in capsys.readouterr().err
