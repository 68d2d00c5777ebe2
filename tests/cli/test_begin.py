"""Ctrl-C at every instant of a command's life: exit code 130, and no traceback. Instants are counted, in imports, not timed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

INTERRUPTED_AT = """
import os, sys

instant, count, begun = int(sys.argv.pop(1)), 0, False

def interrupt(event, args):
    global count, begun
    if event == "import":
        begun = begun or args[0] == "signal"  # the first thing that jido imports; what was before is Python's own
        count += begun
        if count == instant:
            os.kill(os.getpid(), 2)

sys.addaudithook(interrupt)
from jidosystem.__main__ import main
code = main()
if instant < 0:
    print(count, file=sys.stderr)
sys.exit(code)
"""
AT_THE_END = """
import atexit, os, sys
from jidosystem.__main__ import main
atexit.register(lambda: os.kill(os.getpid(), 2))
sys.exit(main())
"""


def ran(home: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=home, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("command", [("ps",), ("--help",)], ids=" ".join)
def test_an_interrupt_at_any_instant_of_the_start_is_quiet(home: Path, command: tuple[str, ...]) -> None:
    whole = ran(home, INTERRUPTED_AT, "-1", *command)
    imports = int(whole.stderr.split()[-1])
    assert imports > 40
    for instant in [*range(1, 10), *range(10, imports, imports // 12)]:
        interrupted = ran(home, INTERRUPTED_AT, str(instant), *command)
        assert (interrupted.returncode, interrupted.stdout, interrupted.stderr) == (130, "", ""), instant


@pytest.mark.parametrize(("command", "code"), [("ps", "no node runs here"), ("--help", "")])
def test_an_interrupt_when_all_is_said_is_quiet_too(home: Path, command: str, code: str) -> None:
    interrupted = ran(home, AT_THE_END, command)
    assert interrupted.returncode == 130
    assert "Traceback" not in interrupted.stderr
    assert code in interrupted.stderr


def test_an_interrupt_that_is_ignored_stays_ignored(home: Path) -> None:
    code = f"import signal; signal.signal(2, signal.SIG_IGN)\n{INTERRUPTED_AT}"
    ignored = ran(home, code.replace('args[0] == "signal"', "True"), "30", "ps")
    assert (ignored.returncode, "no node runs here" in ignored.stderr) == (3, True)


def test_the_module_begins_as_the_command_does(home: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "jidosystem", "--version"], cwd=home, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "80"}
    )
    assert ended.stdout.startswith("jidosystem ")
