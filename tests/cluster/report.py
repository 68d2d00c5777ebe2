"""What long runs did and found, a line each in `benchmarks/faults.jsonl`, and what that comes to since the code was changed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from jidosystem.testing.checkers import Verdict

from .traffic import Traffic

ROOT = Path(__file__).resolve().parents[2]
FAULTS = ROOT / "benchmarks" / "faults.jsonl"
HISTORIES = ROOT / "build" / "faults"
JUDGED = ("runtime", "distribution", "backends")
GOAL = "1,000,000 operations and 500 faults"
FINE = "nothing wrong"
NOTED_BESIDE = "add"
"""What a ledger is to hold is noted beside the call that says so to a counter: one call, of which two checkers judge a side each."""


def code() -> str:
    """Of what the runs judge, a word that is another one when it has changed."""
    digest = hashlib.sha256()
    for folder in JUDGED:
        for path in sorted((ROOT / "src" / "jidosystem" / folder).rglob("*.py")):
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def note(seed: int, run: int, seconds: float, load: Traffic, verdicts: Sequence[Verdict], broken: str = "") -> dict[str, Any]:
    """Append what a run did and found; the history of one that found something is kept beside it."""
    history = load.recording.history()
    waits = sorted(operation.end - operation.start for operation in history.operations if operation.outcome == "ok") or [0.0]
    wrong = [str(verdict) for verdict in verdicts if not verdict] + [broken] * bool(broken)
    line = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"), "code": code(), "seed": seed, "run": run, "seconds": round(seconds, 1),
        "operations": sum(operation.kind != NOTED_BESIDE for operation in history.operations),
        "faults": dict(Counter(fault.kind for fault in history.faults)), "unknown": len(load.unknown),
        "failed": len(load.failed), "median_wait_s": round(waits[len(waits) // 2], 3), "p99_wait_s": round(waits[len(waits) * 99 // 100], 3),
        "longest_wait_s": round(load.held_s, 2), "took_s": load.took_s, "verdict": wrong or FINE,
    }  # fmt: skip
    with FAULTS.open("ab") as file:
        file.write(msgspec.json.encode(line) + b"\n")
    if wrong:
        HISTORIES.mkdir(parents=True, exist_ok=True)
        history.write(HISTORIES / f"{seed}-{run}.jsonl")
    return line


def told(line: dict[str, Any]) -> str:
    """A line, for people."""
    faults = ", ".join(f"{count} {kind}" for kind, count in sorted(line["faults"].items()))
    return (
        f"run {line['run']}: {line['operations']} operations ({line['operations'] / line['seconds']:.0f} a second), {sum(line['faults'].values())}"
        f" faults ({faults}); answered after {line['median_wait_s']:g} s, p99 {line['p99_wait_s']:g} s, at most {line['longest_wait_s']:g} s;"
        f" {line['unknown']} unknown; {line['verdict']}"
    )


def total() -> str:
    """What all runs of this code come to."""
    now = code()
    lines = [line for text in FAULTS.read_bytes().splitlines() if (line := msgspec.json.decode(text)).get("code") == now]
    operations, faults = sum(line["operations"] for line in lines), sum(sum(line["faults"].values()) for line in lines)
    bad = sum(line["verdict"] != FINE for line in lines)
    longest_s = max((line["longest_wait_s"] for line in lines), default=0.0)
    return (
        f"since {', '.join(JUDGED)} were changed: {operations:,} operations and {faults:,} faults in {len(lines)} runs (of {GOAL}),"
        f" {bad} with something wrong; who waited longest waited {longest_s:g} s"
    )
