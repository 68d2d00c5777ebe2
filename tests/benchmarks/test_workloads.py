"""Each workload runs in its quick form and returns numbers that can be true. No figure is held against a time here."""

from __future__ import annotations

import math
import sys

import pytest

from benchmarks import processes
from benchmarks.measure import Figure
from benchmarks.table import GROWTH, OURS, Source, rows

TABLE = rows((sys.version_info.major, sys.version_info.minor))
SOURCES = {
    f"{source.module}:{source.function}": source
    for row in (*TABLE, *GROWTH)
    for source in ((row.ours, *row.limits) if hasattr(row, "limits") else (row.ours,))
    if source.environment == OURS
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_workload_runs_in_its_quick_form_and_returns_sane_numbers(source: Source) -> None:
    result = processes.measure(source, "asyncio", quick=True)
    assert "failed" not in result, result
    if "absent" in result:
        pytest.skip(result["absent"])
    wanted = {row.ours.figure for row in TABLE if (row.ours.module, row.ours.function) == (source.module, source.function)}
    assert wanted <= set(result["values"])
    assert result["values"]
    for values in result["values"].values():
        assert Figure.of(values).median > 0
        assert all(math.isfinite(value) for value in values)


def test_a_workload_of_a_library_that_is_missing_is_absent_and_not_failed() -> None:
    peer = Source("nobody", "benchmarks.peers.xoscar_", "ask_direct", environment=OURS)
    assert "absent" in processes.measure(peer, "asyncio", quick=True)


def test_a_workload_that_breaks_is_failed_and_says_why() -> None:
    broken = Source("broken", "benchmarks.bare", "no_such_function")
    assert "no_such_function" in processes.measure(broken, "asyncio", quick=True)["failed"]


def test_nothing_is_left_on_the_disk() -> None:
    source = SOURCES["benchmarks.writer:fsync_4k"]
    before = set(processes.SCRATCH.iterdir()) if processes.SCRATCH.exists() else set()
    processes.measure(source, "asyncio", quick=True)
    assert set(processes.SCRATCH.iterdir()) <= before
