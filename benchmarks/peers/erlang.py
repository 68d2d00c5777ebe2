"""Erlang/OTP (Debian's `erlang-base`), through `bench.erl` beside this file."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from ..measure import Absent, Run

SOURCE = Path(__file__).with_name("bench.erl")


def _run(run: Run, what: str, full: int, quick: int) -> None:
    if shutil.which("erl") is None or shutil.which("erlc") is None:
        raise Absent("Erlang isn't installed (Debian: erlang-base)")
    subprocess.run(["erlc", "-o", str(run.scratch), str(SOURCE)], check=True, timeout=60)
    arguments = [what, str(run.repetitions), str(run.some(full, quick)), str(run.scratch)]
    command = ["erl", "-noshell", "+P", "2000000", "-pa", str(run.scratch), "-run", "bench", "main", *arguments]
    output = subprocess.run(command, check=True, timeout=300, capture_output=True, text=True).stdout
    for line in output.splitlines():
        name, value = line.split()
        run.record(float(value), "" if name == "value" else name)
    release = subprocess.run(
        ["erl", "-noshell", "-eval", 'io:format("~s", [erlang:system_info(otp_release)]), halt().'],
        check=True, timeout=60, capture_output=True, text=True,
    )  # fmt: skip
    run.note(f"OTP {release.stdout.strip()}")


def ask(run: Run) -> None:
    """`gen_server:call`, one caller."""
    _run(run, "ask", 300_000, 5_000)


def ask_100(run: Run) -> None:
    """100 callers, 100 servers."""
    _run(run, "ask_100", 300_000, 5_000)


def one_way(run: Run) -> None:
    """`gen_server:cast`."""
    _run(run, "one_way", 1_000_000, 10_000)


def memory(run: Run) -> None:
    """Bytes of an idle `gen_server` with three small fields."""
    _run(run, "memory", 100_000, 2_000)


def fan_out_100(run: Run) -> None:
    """A message to each of 100 processes."""
    _run(run, "fan_out_100", 10_000, 100)


def dets_1(run: Run) -> None:
    """dets, synced after each increment."""
    _run(run, "dets_1", 3_000, 50)


def dets_64(run: Run) -> None:
    """dets, one sync for all who wait."""
    _run(run, "dets_64", 64 * 200, 640)
