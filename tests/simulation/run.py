"""Many seeds, in as many processes as there are cores: `python -m tests.simulation.run --seeds 2000 [--first 0]`; `--seed 7`: one again;
`--adapters`: storms over the adapters of records and log alone.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import structlog

from jidosystem import testing
from tests.simulation import adapters, storm

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


class Told(NamedTuple):
    """A seed: how many of its operations succeeded, what was done, what of that was felt; `wrong`: what was, or ""."""

    seed: int
    wrong: str
    operations: int
    did: Counter[str]
    felt: Counter[str]
    takeovers: int


def of_platforms(seed: int) -> Told:
    """A storm over whole platforms."""
    outcome = testing.run(storm.run(seed), patience_s=PATIENCE_S)
    return Told(seed, "", outcome.operations, outcome.did, outcome.felt, outcome.takeovers)


def of_adapters(seed: int) -> Told:
    """A storm over the adapters of records and log alone."""
    outcome = testing.run(adapters.run(seed), patience_s=PATIENCE_S)
    return Told(seed, "", sum(one.outcome == "ok" for one in outcome.history.operations), outcome.did, outcome.felt, 0)


def judged(run: Callable[[int], Told], seed: int) -> Told:
    """A seed, whatever becomes of it."""
    with hushed():
        try:
            return run(seed)
        except Exception:  # whatever it is, the seed has found it
            return Told(seed, traceback.format_exc(), 0, Counter(), Counter(), 0)


def digests(seeds: Iterable[int]) -> list[str]:
    """What each of some seeds was, in a word."""
    with hushed():
        return [testing.run(storm.run(seed), patience_s=PATIENCE_S).digest for seed in seeds]


def main() -> int:
    """Run them; the first failures are shown, and how to have them again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="one of them again")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--within", type=float, default=float("inf"), help="seconds after which no more seeds are begun")
    parser.add_argument("--adapters", action="store_true", help="only the adapters of records and log, with servers whose leaders come and go")
    asked = parser.parse_args()
    run = of_adapters if asked.adapters else of_platforms
    if asked.seed is not None:
        told = judged(run, asked.seed)
        print(told.wrong or told)
        return 1 if told.wrong else 0
    return many(run, range(asked.first, asked.first + asked.seeds), asked.processes, asked.within)


def many(run: Callable[[int], Told], seeds: range, processes: int, within_s: float) -> int:
    """Judge many seeds; the exit status."""
    began = time.monotonic()
    did: Counter[str] = Counter()
    felt: Counter[str] = Counter()
    failed: list[int] = []
    done = operations = takeovers = 0
    slots = threading.Semaphore(2 * processes)
    with multiprocessing.Pool(processes) as pool:
        for told in pool.imap_unordered(partial(judged, run), _until(began + within_s, seeds, slots)):
            slots.release()
            done += 1
            did, felt = did + told.did, felt + told.felt
            operations, takeovers = operations + told.operations, takeovers + told.takeovers
            if told.wrong:
                failed.append(told.seed)
                if len(failed) <= SHOWN:
                    print(f"seed {told.seed} fails (`--seed {told.seed}`: it alone):\n{told.wrong}", flush=True)
    took_s = time.monotonic() - began
    print(f"{done} seeds of {len(seeds)} in {took_s:.0f} s ({done / took_s:.1f} a second): {operations} operations, ", end="")
    print(f"{felt.total()} faults felt of {did.total()}, {takeovers} takeovers")
    print(", ".join(f"{what}: {felt[what]} of {count}" for what, count in sorted(did.items())))
    print(f"failed: {sorted(failed) or 'none'}")
    return 1 if failed or not done else 0


def _until(end_s: float, seeds: Iterable[int], slots: threading.Semaphore) -> Iterator[int]:
    """The seeds, until time is up: each when one before it is done, for a pool takes all that it can have."""
    for seed in seeds:
        slots.acquire()
        if time.monotonic() >= end_s:
            return
        yield seed


if __name__ == "__main__":
    sys.exit(main())
