"""How workloads are measured."""

from __future__ import annotations

from pathlib import Path

from benchmarks.measure import QUICK_REPETITIONS, TURNS, Run


async def test_what_is_held_against_each_other_takes_turns_and_the_first_turn_counts_for_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, quick=True)
    order: list[str] = []

    async def ours() -> None:
        order.append("ours")

    async def limit() -> None:
        order.append("limit")

    await run.by_turns(1, {"": ours, "limit": limit})
    assert order == ["ours", "limit"] * (1 + QUICK_REPETITIONS * TURNS)
    assert {name: len(values) for name, values in run.values.items()} == {"": QUICK_REPETITIONS * TURNS, "limit": QUICK_REPETITIONS * TURNS}
