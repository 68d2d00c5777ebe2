"""The process that one workload has to itself: `python -m benchmarks.child MODULE FUNCTION LOOP SCRATCH [--quick]`."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

from .measure import Absent, Run, encode_result


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The event loop to run under."""
    if name == "asyncio":
        return None
    try:
        import uvloop
    except ImportError as error:
        raise Absent(f"uvloop: {error}") from error
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def measure(module: str, function: str, loop: str, run: Run) -> None:
    """Run one workload."""
    workload = getattr(importlib.import_module(module), function)
    if inspect.iscoroutinefunction(workload):
        with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
            runner.run(workload(run))
    else:
        workload(run)


def main(arguments: list[str]) -> None:
    """Run one workload and say what came out; a missing library is told apart from a failure."""
    module, function, loop, scratch, *options = arguments
    run = Run(Path(scratch), quick="--quick" in options)
    try:
        measure(module, function, loop, run)
    except Absent as absent:
        print(encode_result({"absent": str(absent)}), flush=True)
    except ModuleNotFoundError as missing:
        print(encode_result({"absent": f"{missing.name} isn't installed"}), flush=True)
    else:
        print(encode_result(run.result()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
