"""Many seeds, in as many processes as there are cores: `python -m tests.simulation.run --seeds 2000 [--first 0]`; `--seed 7`: one again."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import structlog

from jidosystem import testing
from tests.simulation.storm import Outcome, run

PATIENCE_S = 60.0
SHOWN = 5


@contextmanager
def hushed() -> Iterator[None]:
    """What the platforms log of all that is done to them isn't shown."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        structlog.configure(**before)
        logging.disable(logging.NOTSET)


def one(seed: int) -> tuple[int, Outcome | None, str]:
    """A seed: what it was, or what was wrong."""
    with hushed():
        try:
            return seed, testing.run(run(seed), patience_s=PATIENCE_S), ""
        except Exception:  # whatever it is, the seed has found it
            return seed, None, traceback.format_exc()


def digests(seeds: Iterable[int]) -> list[str]:
    """What each of some seeds was, in a word."""
    with hushed():
        return [testing.run(run(seed), patience_s=PATIENCE_S).digest for seed in seeds]


def main() -> int:
    """Run them; the first failures are shown, and how to have them again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="one of them again")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    asked = parser.parse_args()
    if asked.seed is not None:
        _seed, outcome, wrong = one(asked.seed)
        print(outcome or wrong)
        return 1 if wrong else 0
    return many(range(asked.first, asked.first + asked.seeds), asked.processes)


def many(seeds: range, processes: int) -> int:
    """Judge many seeds; the exit status."""
    began = time.monotonic()
    did: Counter[str] = Counter()
    failed: list[int] = []
    operations = takeovers = 0
    with multiprocessing.Pool(processes) as pool:
        for seed, outcome, wrong in pool.imap_unordered(one, seeds):
            if outcome is None:
                failed.append(seed)
                if len(failed) <= SHOWN:
                    print(f"seed {seed} fails (again: python -m tests.simulation.run --seed {seed}):\n{wrong}", flush=True)
            else:
                did.update(outcome.did)
                operations, takeovers = operations + outcome.operations, takeovers + outcome.takeovers
    took_s = time.monotonic() - began
    print(f"{len(seeds)} seeds in {took_s:.0f} s ({len(seeds) / took_s:.1f} a second), {operations} operations, {takeovers} takeovers")
    print(", ".join(f"{what}: {count}" for what, count in sorted(did.items())))
    print(f"failed: {sorted(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
