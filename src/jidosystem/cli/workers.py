"""`jido run app.py --workers 3`: a cluster on this machine, a NATS server and node processes, each `jido run` itself.

The server keeps its files beside the program. A node process that ends by itself is started again, after a growing pause; if
they all keep ending soon after their start, the program is the fault and the run ends. Whoever ends this process ends them all.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from .output import FAILED, INTERRUPTED, OK, say

MAX_WORKERS = 64
GRACE_S = 30.0
"""How long nodes may take to close."""
YOUNG_S = 10.0
"""A process that ends within this time of its start counts as one that can't start."""
MAX_YOUNG = 3
LOOK_S = 0.2


class _Worker(NamedTuple):
    name: str
    process: subprocess.Popen[bytes]
    since: float


class Workers:
    """The processes. All of this blocks, in the main thread, which gets the signals."""

    def __init__(self, arguments: Sequence[str], names: Sequence[str], environment: dict[str, str]) -> None:
        self._arguments, self._names, self._environment = arguments, names, environment
        self._running: dict[str, _Worker] = {}
        self._young: dict[str, int] = dict.fromkeys(names, 0)
        self._due: dict[str, float] = {}
        self._asked = threading.Event()
        self._code = OK

    def run(self) -> int:
        """Start them, keep them, end them when a signal comes; the exit code."""
        for number, code in ((signal.SIGINT, INTERRUPTED), (signal.SIGTERM, OK)):
            signal.signal(number, lambda _number, _frame, code=code: self._signalled(code))  # type: ignore[misc]
        try:
            for name in self._names:
                self._start(name)
            while not self._asked.wait(LOOK_S):
                self._look()
        finally:
            self._end()
        return self._code

    def _signalled(self, code: int, _frame: FrameType | None = None) -> None:
        if self._asked.is_set():  # a second one is the end
            for worker in self._running.values():
                worker.process.kill()
        self._code = code
        self._asked.set()

    def _start(self, name: str) -> None:
        command = [sys.executable, "-m", "jidosystem", "run", *self._arguments, "--name", name]
        process = subprocess.Popen(command, env=self._environment, start_new_session=True)  # Ctrl-C is ours to pass on
        self._running[name] = _Worker(name, process, time.monotonic())

    def _look(self) -> None:
        now = time.monotonic()
        for worker in [worker for worker in self._running.values() if worker.process.poll() is not None]:
            del self._running[worker.name]
            young = now - worker.since < YOUNG_S
            self._young[worker.name] = self._young[worker.name] + 1 if young else 0
            pause_s = 0.5 * 2 ** self._young[worker.name] if young else 0.0
            self._due[worker.name] = now + pause_s
            say(f"{worker.name} has ended ({_how(worker.process.returncode)}); it is started again", "red")
        if not self._running and all(count >= MAX_YOUNG for count in self._young.values()):
            say("none of the nodes stays; see what they said", "red")
            self._code = FAILED
            self._asked.set()
            return
        for name in [name for name, when in self._due.items() if when <= now]:
            del self._due[name]
            self._start(name)

    def _end(self) -> None:
        for worker in self._running.values():
            worker.process.terminate()
        deadline = time.monotonic() + GRACE_S
        for worker in self._running.values():
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                say(f"{worker.name} doesn't end; it is killed", "red")
                worker.process.kill()
                worker.process.wait()


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def run_workers(target: str, program: str, count: int, options: Sequence[str], prefix: str) -> int:
    """A NATS server of this run's own, whose files are in `PROGRAM.nats` here, and so many nodes."""
    from ..api.assembly import local_cluster

    with local_cluster(Path(f"{program}.nats")) as url:
        say(f"a NATS server of its own, in {program}.nats")
        environment = dict(os.environ) | {"JIDO_STORE": url}  # no argument: it holds a password
        names = [f"{prefix}-{number}" for number in range(1, count + 1)]
        return Workers([target, *options], names, environment).run()
