"""Storms over the adapters of records and log, a seed each: whatever leaders do, nothing is told that isn't so. And builds that believe a leader that
is none any more are found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jidosystem import testing
from jidosystem.backends.nats import committing
from jidosystem.backends.nats.appending import Appender
from jidosystem.backends.nats.jetstream import Stored
from jidosystem.backends.nats.removal import Removal
from tests.simulation.adapters import run
from tests.simulation.run import hushed

SEEDS = 30
FOUND_WITHIN = 60
"""So many seeds at most are needed to find a defect."""
FELT_WITHIN = 60
"""The rarest thing is felt by one storm in twelve."""


def storm(seed: int) -> Any:
    """One of them."""
    with hushed():
        return testing.run(run(seed))


@pytest.mark.jido(seeds=SEEDS)
def test_what_is_told_is_so(jido_seed: int) -> None:
    storm(jido_seed)


def test_the_storms_feel_everything() -> None:
    missing = {
        "leaders overtaken", "reads of an old leader", "writes that found no leader", "writes committed by the next leader",
        "refused by an old leader: 10071", "refused by an old leader: 10164", "refused by an old leader: 0",
    }  # fmt: skip
    for seed in range(FELT_WITHIN):
        missing -= {what for what, count in storm(seed).signs.items() if count}
        if not missing:
            return
    raise AssertionError(f"{FELT_WITHIN} storms felt none of {missing}")


def test_a_seed_is_the_same_run_again() -> None:
    one, again = (list(map(str, storm(7).history.operations)) for _ in range(2))
    assert one == again


# -- builds that are broken on purpose ---------------------------------------------------------------------------


def believes_numbers(patch: pytest.MonkeyPatch) -> None:
    """Takes any refusal of a commit for the true leader's."""
    patch.setattr(committing, "_may_be_overtaken", lambda _refused, _commits: False)


def believes_reads(patch: pytest.MonkeyPatch) -> None:
    """Takes any read of a head for the truth."""

    async def stands(_self: Removal, _commit: Any, _revision: int) -> bool:
        return True

    patch.setattr(Removal, "stands", stands)


def appends_anew(patch: pytest.MonkeyPatch) -> None:
    """Takes any refusal of a batch for a sign that others were first, and sends it again behind what it reads then."""

    async def behind(self: Appender, bases: dict[str, int]) -> Stored | None:
        for subject in bases:
            self._last.pop(subject, None)
        return Stored("", 0, b"", {})

    patch.setattr(Appender, "_behind", behind)


@pytest.mark.parametrize("build", [believes_numbers, believes_reads, appends_anew])
def test_a_broken_build_is_found(build: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    build(monkeypatch)
    assert any(_fails(seed) for seed in range(FOUND_WITHIN))


def _fails(seed: int) -> bool:
    try:
        storm(seed)
    except AssertionError:
        return True
    return False
