"""`jido doctor` as it is typed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from jidosystem import Agent, Platform, action
from tests.cli.jido import JIDO, jido


class Counter(Agent):
    """Counts."""

    value: int = 0

    @action
    async def add(self) -> int:
        self.value += 1
        return self.value


async def filled(folder: Path) -> None:
    async with Platform(f"sqlite:///{folder}/app.db") as platform:
        await platform.agent(Counter, "a").add()


@pytest.mark.blocking
async def test_a_sound_store_is_told_of_and_left_alone(tmp_path: Path) -> None:
    await filled(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    ended = jido("doctor", "--store", "sqlite:///app.db", cwd=tmp_path)
    assert "every record, row and event is sound" in ended.stdout and "no problems" in ended.stderr
    told = json.loads(jido("doctor", "--store", "sqlite:///app.db", "--json", cwd=tmp_path).stdout)
    assert told["problems"] == 0 and {"check": "owner", "level": "ok", "found": "nobody has it open", "advice": ""} in told["findings"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.blocking
async def test_a_problem_ends_it_with_one(tmp_path: Path) -> None:
    await filled(tmp_path)
    with sqlite3.connect(tmp_path / "app.db") as connection:
        connection.execute("UPDATE heads SET head = x'00' WHERE agent = 'Counter/a'")
    connection.close()
    ended = jido("doctor", "--store", "sqlite:///app.db", cwd=tmp_path, check=1)
    assert "Counter/a" in ended.stdout and "restore it from a backup" in ended.stdout
    assert json.loads(jido("doctor", "--store", "sqlite:///app.db", "--json", cwd=tmp_path, check=1).stdout)["problems"] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--store", "app.db"], 1, "sqlite:///"),
        (["--store", ""], 1, "sqlite:///"),
        (["--store", "nats://x"], 1, "through one of its nodes"),
        (["--store"], 2, "requires an argument"),
        (["--stroe", "x"], 2, "--store"),
        (["extra"], 2, "unexpected extra argument"),
        (["--store", "sqlite:///a\x1b[31mb.db"], 0, ""),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, arguments: list[str], code: int, told: str) -> None:
    ended = jido("doctor", *arguments, cwd=tmp_path, check=code)
    assert told in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_broken_jido_toml_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "jido.toml").write_text("[agents]\n\ndefault_timeout = 'soon'\n")
    assert "jido.toml:3" in jido("doctor", cwd=tmp_path, check=1).stdout


def test_nodes_that_run_and_nodes_that_are_gone_are_told_apart(tmp_path: Path) -> None:
    place = tmp_path / ".state" / "jidosystem"
    place.mkdir(parents=True, mode=0o700)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for name, pid in (("here", os.getpid()), ("gone", gone.pid)):
        file = place / f"{name}.json"
        file.write_text(json.dumps({"name": name, "url": "http://127.0.0.1:1", "pid": pid, "program": "app.py", "token": "secret"}))
        file.chmod(0o600)
    (place / "nonsense.json").write_text("{")
    (place / "nonsense.json").chmod(0o600)
    ended = jido("doctor", cwd=tmp_path, check=1)
    assert f"here (process {os.getpid()}, app.py)" in ended.stdout
    assert "gone.json tells of gone, which is gone" in ended.stdout
    assert "nonsense.json" in ended.stdout and "secret" not in ended.stdout
    assert len(list(place.iterdir())) == 3, "the doctor tidies nothing up"


def test_it_fits_a_terminal_of_40_columns_without_colour(tmp_path: Path) -> None:
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    env = {**os.environ, "NO_COLOR": "1", "XDG_RUNTIME_DIR": "", "XDG_STATE_HOME": str(tmp_path)}
    env.pop("COLUMNS", None)
    process = subprocess.Popen(
        [JIDO, "doctor", "--store", "sqlite:///no-such-folder/app.db"], cwd=tmp_path, env=env, stdout=theirs, stderr=subprocess.DEVNULL
    )
    os.close(theirs)
    shown = b""
    try:
        while more := os.read(ours, 65_536):
            shown += more
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 1
    lines = shown.decode().splitlines()
    assert "\x1b" not in shown.decode() and any(line.startswith("problem") for line in lines)
    assert [line for line in lines if len(line) > 40 and " " in line.strip()[9:]] == []


def test_ctrl_c_and_a_closed_pipe_end_it_in_silence(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    closed = subprocess.run([JIDO, "doctor"], cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert "Traceback" not in closed.stderr
    process = subprocess.Popen([JIDO, "doctor"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate()
    assert process.returncode in (0, 1, 130, -signal.SIGINT) and "jidosystem" not in err, err  # Python itself may be interrupted while it ends
