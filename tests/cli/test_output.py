"""Terminals that are narrow, colourless, without UTF-8, or gone."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from jidosystem.cli import main, output
from jidosystem.cli.output import FAILED, INTERRUPTED, Failure
from tests.cli.conftest import Jido, NodeThread

JIDO = [sys.executable, "-m", "jidosystem"]


def on_terminal(home: Path, *arguments: str, columns: int = 80, **environ: str) -> str:
    """What a command writes to a terminal of that width."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm", **environ}
    with subprocess.Popen([*JIDO, *arguments], stdout=theirs, stderr=theirs, stdin=theirs, env=env, cwd=home) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                some = os.read(ours, 65536)
            except OSError:
                break
            if not some:
                break
            written += some
        process.wait(30)
    os.close(ours)
    return written.decode()


def test_forty_columns_are_enough(running: NodeThread, home: Path, jido: Jido) -> None:
    for number in range(3):
        jido("call", f"Counter/a-customer-with-a-long-name-{number}", "add")
    shown = on_terminal(home, "ps", columns=40, NO_COLOR="1")
    assert "Counter/a-customer-with-a-long-name-0\r\n  state: live\r\n" in shown
    assert max(len(line) for line in on_terminal(home, "call", "--help", columns=40, NO_COLOR="1").splitlines()) <= 60
    failed = on_terminal(home, "call", "Counter/a", "nosuchaction", columns=40, NO_COLOR="1")
    assert max(len(line) for line in failed.splitlines()) <= 50


def test_colours_are_for_terminals_that_want_them(running: NodeThread, home: Path, jido: Jido) -> None:
    jido("call", "Counter/a", "add")
    assert "\x1b[" in on_terminal(home, "describe", "Counter/a")
    assert "\x1b[" not in on_terminal(home, "describe", "Counter/a", NO_COLOR="1")
    assert "\x1b[" not in on_terminal(home, "describe", "Counter/a", TERM="dumb")
    assert "\x1b[" not in jido("describe", "Counter/a").out


def test_a_value_can_not_make_a_terminal_do_things(running: NodeThread, home: Path, jido: Jido) -> None:
    assert jido("call", "Counter/evil", "name", "label=\x1b[2Jgone").out == "\x1b[2Jgone\n"
    assert "\x1b[2J" not in on_terminal(home, "call", "Counter/evil", "name", "label=\x1b[2Jgone", NO_COLOR="1")
    assert "\x1b[2J" not in on_terminal(home, "describe", "Counter/evil", NO_COLOR="1")


def test_without_utf8_everything_is_still_said(running: NodeThread, home: Path) -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    plain = subprocess.run(
        [*JIDO, "call", "Counter/u", "name", "label=1 \u00d7 2 → € 😀"], env=env, capture_output=True, text=True, cwd=home, timeout=60, check=False
    )
    assert (plain.returncode, plain.stdout) == (0, "1 x 2 -> \\u20ac \\U0001f600\n")
    as_json = subprocess.run(
        [*JIDO, "call", "Counter/u", "name", "label=€😀", "--json"], env=env, capture_output=True, text=True, cwd=home, timeout=60, check=False
    )
    assert json.loads(as_json.stdout) == "€😀"


def test_a_closed_pipe_ends_a_command_in_silence(running: NodeThread, home: Path, jido: Jido) -> None:
    for _ in range(3):
        jido("call", "Counter/pipe", "add")
    for arguments in ("ps --json", "events replay Counter/pipe", "--help", "describe Counter"):
        read, write = os.pipe()
        os.close(read)
        ran = subprocess.run([*JIDO, *arguments.split()], stdout=write, stderr=subprocess.PIPE, text=True, cwd=home, timeout=60, check=False)
        os.close(write)
        assert (ran.returncode, ran.stderr) == (FAILED, ""), arguments


def test_a_closed_error_stream_loses_nothing_else(home: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run([*JIDO, "ps"], stdout=subprocess.PIPE, stderr=write, text=True, cwd=home, timeout=60, check=False)
    os.close(write)
    assert ran.stdout == ""
    assert ran.returncode != 0


def test_an_error_has_one_shape(capsys: pytest.CaptureFixture[str]) -> None:
    failure = Failure("it\nbroke", code="BROKEN", hint="mend it", details={"part": 1}, lines="at line 3\n")
    assert output.told(failure) == FAILED
    assert capsys.readouterr().err == "at line 3\nerror: it\n       broke\n  mend it\n  [BROKEN]\n"
    output.told(failure, as_json=True)
    assert json.loads(capsys.readouterr().err) == {"error": {"code": "BROKEN", "message": "it\nbroke", "hint": "mend it", "details": {"part": 1}}}


def test_without_the_extra_the_install_line_is_told(home: Path) -> None:
    code = "import sys; sys.modules['typer'] = None; from jidosystem.cli import main; sys.exit(main(['ps']))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=home, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (1, "jido needs more than the core: pip install 'jidosystem[standard]'\n")


def test_ctrl_c_inside_a_command_is_its_exit_code(monkeypatch: pytest.MonkeyPatch, home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> str:
        raise KeyboardInterrupt

    class Stdin:
        read = staticmethod(interrupted)

    monkeypatch.setattr("sys.stdin", Stdin)
    assert main(["call", "Counter/a", "add", "-"]) == INTERRUPTED
    assert capfd.readouterr().err == ""
