"""Storms over whole platforms, a seed each: `--jido-seed=N` shows one again, `--jido-seeds=N` runs more of them, `make simulate` thousands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation.run import hushed
from tests.simulation.storm import run

SEEDS = 30
seen: Counter[str] = Counter()


@pytest.mark.jido(seeds=SEEDS)
async def test_in_a_storm_nothing_is_lost_and_nothing_is_done_twice(jido_seed: int) -> None:
    with hushed():
        outcome = await run(jido_seed)
    seen.update(outcome.felt)
    seen["takeover"] += outcome.takeovers


def test_what_the_storms_did_was_felt() -> None:
    """A storm that nobody feels shows nothing. After the tests above, in one process."""
    if not seen:
        pytest.skip("no storm has run in this process")
    assert {what for what, count in seen.items() if count} >= {
        "kill", "pause", "long pause", "leave", "partition", "one-way cut", "cut off from the store", "old leader", "no leader", "silence",
        "disk slow", "disk failing", "disk full", "takeover",
    }  # fmt: skip


def test_a_seed_is_the_same_run_in_every_process() -> None:
    told = [_digests_with(hash_seed) for hash_seed in ("1", "2")]
    assert told[0] == told[1]
    assert len(told[0]) == 2 and told[0][0] != told[0][1], "and another seed is another run"


def _digests_with(hash_seed: str) -> list[str]:
    code = "from tests.simulation.run import digests; print(*digests([7, 8]))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
