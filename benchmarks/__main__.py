"""`make bench`: every workload beside its limit and its peers, in one go.

    python -m benchmarks [--quick] [--only NAME]... [--no-peers] [--loop asyncio|uvloop]

A full run writes `RESULTS.md`; a run with `--only` brings these rows up to date in it; a quick one writes nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from . import machine, processes, report
from .bars import FAIL
from .results import Results, place
from .table import GROWTH, PEERS, Growth, Row, Source, rows

EXPECTED = ("3.11", "3.13")
"""The interpreters that are reported; one without figures is "not run"."""
RESULTS = Path(__file__).with_name("RESULTS.md")


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--quick", action="store_true", help="a look: small numbers, nothing is written")
    parser.add_argument("--only", action="append", default=[], help="names of rows, with * and ?; several with commas")
    parser.add_argument("--no-peers", action="store_true", help="keep the peers' figures of an earlier run")
    parser.add_argument("--list", action="store_true", help="the names of the rows")
    return parser.parse_args(arguments)


def chosen(names: Iterable[str], only: list[str]) -> list[str]:
    """The names that were asked for; an unknown one ends the run."""
    patterns = [pattern for given in only for pattern in given.split(",") if pattern]
    names = list(names)
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in names):
            raise SystemExit(f"no row is named {pattern!r}: one of {', '.join(names)}")
    return [name for name in names if not patterns or any(fnmatch(name, pattern) for pattern in patterns)]


class Bench:
    """One run: measures each source once, however many rows it stands in."""

    def __init__(self, results: Results, *, quick: bool, peers: bool) -> None:
        self.results, self.quick, self.peers = results, quick, peers
        self._done: set[str] = set()

    def measure(self, source: Source) -> None:
        """Measure a source under each of its loops, unless that was done in this run."""
        if source.environment == PEERS and not self.peers:
            return
        for loop in source.loops:
            key = place(source, loop)
            if key not in self._done:
                self._done.add(key)
                self.results.measured[key] = self._run(source, loop)

    def _run(self, source: Source, loop: str) -> dict[str, Any]:
        print(f"  ... {source.name}: {source.module.removeprefix('benchmarks.')}.{source.function}, {loop}", file=sys.stderr, flush=True)
        return processes.measure(source, loop, quick=self.quick)

    def row(self, row: Row) -> None:
        """Measure a row with all that stands beside it, and show it."""
        for source in (*row.limits, row.ours, *row.peers):
            self.measure(source)
        print(report.terminal_row(row, self.results), flush=True)

    def growth(self, growth: Growth) -> None:
        """Measure a growth series and show it."""
        self.measure(growth.ours)
        print(f"{growth.title}  [{growth.name}], {growth.unit}\n  {report.growth_series(self.results, growth.name)}", flush=True)


def main(arguments: list[str]) -> int:
    """Run, show, keep. The exit status says whether everything that must hold, and was run, holds."""
    given = parse(arguments)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    table = rows((sys.version_info.major, sys.version_info.minor))
    names = chosen([*(row.name for row in table), *(growth.name for growth in GROWTH)], given.only)
    if given.list:
        print("\n".join(names))
        return 0
    left_out = [] if given.no_peers else processes.install_peers()
    results = Results(python) if given.quick or (not given.only and not given.no_peers) else Results.load(python)
    results.about = {
        "Machine": machine.describe_machine(),
        "Interpreter": machine.describe_interpreter(),
        "Date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "Load before the run": machine.load(),
    }
    if left_out:
        results.about["Peers' libraries that couldn't be installed"] = ", ".join(left_out)
    for name, value in results.about.items():
        print(f"{name}: {value}")
    bench = Bench(results, quick=given.quick, peers=not given.no_peers)
    for row in table:
        if row.name in names:
            bench.row(row)
    for growth in GROWTH:
        if growth.name in names:
            bench.growth(growth)
    if not given.quick:
        keep(results)
    return 1 if summary([row for row in table if row.name in names], results) else 0


def keep(results: Results) -> None:
    """Write the results of this interpreter and the page about all of them."""
    results.save()
    by_python = {python: Results.load(python) for python in sorted({*EXPECTED, results.python})}
    RESULTS.write_text(report.markdown(by_python))
    print(f"\nkept in {RESULTS.relative_to(processes.ROOT)}")


def summary(table: list[Row], results: Results) -> int:
    """How many lines there are of each verdict; returns how many fail."""
    verdicts = [line.verdict() for row in table for line in report.lines_of(row, results)]
    print("\n" + ", ".join(f"{verdict}: {verdicts.count(verdict)}" for verdict in dict.fromkeys(sorted(verdicts))))
    return verdicts.count(FAIL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
