"""Storms over clusters of three to five nodes, a seed each: `--jido-seed=N` shows one again, `--jido-seeds=N` runs more of them."""

from __future__ import annotations

from collections import Counter

import pytest

from jidosystem.distribution.members import NodeDown
from tests.distribution.cluster import TIMES
from tests.distribution.storm import start

SEEDS = 25
RAGE_S = 60.0
seen: Counter[str] = Counter()


@pytest.mark.jido(seeds=SEEDS)
async def test_in_a_storm_nobody_serves_who_is_void_and_afterwards_all_is_well(jido_seed: int) -> None:
    there, storm = await start(jido_seed, skew=0.9 * TIMES.max_skew)
    try:
        await storm.rage(RAGE_S)
        await storm.calm()
        await storm.one_more_death()
    finally:
        await storm.end()
        await there.end()
    seen.update(storm.did)
    seen["declared dead"] += sum(isinstance(event, NodeDown) and not event.planned for node in there.ever for event in node.events)


@pytest.mark.jido(seeds=SEEDS)
async def test_outages_of_the_store_alone_never_void_anybody(jido_seed: int) -> None:
    there, storm = await start(jido_seed, skew=0.01)
    try:
        for _ in range(4):
            storm.outage()
            await there.pass_time(storm.random.uniform(12, 15))
            storm.check()
            assert all(node.serves for node in there.living())
    finally:
        await storm.end()
        await there.end()
    assert not any(node.lost or [event for event in node.events if isinstance(event, NodeDown)] for node in there.ever)


def test_the_storms_did_what_they_are_for() -> None:
    """A storm that breaks nothing shows nothing. After the tests above, in one process."""
    if not seen:
        pytest.skip("no storm has run in this process")
    assert {what for what, count in seen.items() if count} >= {
        "killed", "paused", "cut off from the store", "stale reads", "outage", "outage with late writes", "unlucky commits", "deaf", "left", "lost",
        "declared dead",
    }  # fmt: skip
