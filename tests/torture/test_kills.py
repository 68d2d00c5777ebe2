"""SIGKILL at random instants under load: nothing that was answered is lost, nothing happens twice, nothing is torn."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.torture.run import Torture


async def torture(folder: Path, kills: int) -> Torture:
    seed = int(os.environ.get("TORTURE_SEED", random.SystemRandom().getrandbits(32)))
    run = Torture(folder, seed)
    await run.run(kills)
    print(f"\nseed {seed}: {run.seen}")
    return run


async def test_a_dozen_kills(tmp_path: Path) -> None:
    run = await torture(tmp_path, 12)
    assert run.seen.answered > 100
    assert run.seen.with_pending_effects > 0


@pytest.mark.torture
async def test_three_hundred_kills(tmp_path: Path) -> None:
    run = await torture(tmp_path, int(os.environ.get("TORTURE_KILLS", "300")))
    assert run.seen.with_pending_effects > run.seen.kills // 4
