"""`jido new` and `jido generate` as they are typed: what comes of it, and what is said when it can't be."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jidosystem.cli import main
from tests.cli.jido import JIDO, jido

ROOT = Path(__file__).parents[2]


def test_a_project_is_made_and_what_comes_next_is_said(tmp_path: Path) -> None:
    ended = jido("new", "shop", cwd=tmp_path)
    assert "shop/shop/account.py" in ended.stdout.splitlines()
    assert "cd shop" in ended.stderr
    made = json.loads(jido("new", "other", "--json", cwd=tmp_path).stdout)
    assert made["project"] == str(tmp_path / "other") and "other/app.py" in made["files"]


def test_an_agent_is_added_and_hosted(tmp_path: Path) -> None:
    jido("new", "shop", cwd=tmp_path)
    shop = tmp_path / "shop"
    ended = jido("generate", "agent", "Invoice", "total:Decimal", "paid:bool=false", "--action", "pay(paid, note:str)", cwd=shop)
    assert ended.stdout.split() == ["shop/app.py", "shop/invoice.py", "tests/test_invoice.py"]
    assert "from shop.invoice import Invoice" in (shop / "shop/app.py").read_text()
    refused = jido("generate", "agent", "Invoice", cwd=shop, check=1)
    assert "--force" in refused.stderr and "scaffold" in refused.stderr
    (shop / "shop/app.py").write_text("# mine\n")
    forced = jido("generate", "agent", "Invoice", "--force", cwd=shop)
    assert "import shop.invoice there" in forced.stderr and (shop / "shop/app.py").read_text() == "# mine\n"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["nwe"], 2, "did you mean 'new'"),
        (["new"], 2, "missing argument"),
        (["new", "a", "b"], 2, "unexpected extra argument"),
        (["new", "class"], 1, "word of Python's"),
        (["new", "json"], 1, "Python's own module"),
        (["new", "a/b"], 1, "without a path"),
        (["new", "b\u00fcro"], 1, "letter of a to z"),
        (["new", "\udcff\udcfe"], 1, "letter of a to z"),
        (["new", "\x1b[31mred"], 1, "letter of a to z"),
        (["new", "shop", "--source", "missing"], 1, "can't be read"),
        (["new", "shop", "--sourec", "x"], 2, "--source"),
        (["generate", "agnet", "X"], 2, "did you mean 'agent'"),
        (["generate", "agent"], 2, "missing argument"),
        (["generate", "agent", "Invoice"], 1, "there is no project"),
        (["generate", "sensor", "Feed", "--every", "x"], 2, "valid number"),
    ],
)
def test_what_cannot_be_is_refused_with_what_could(tmp_path: Path, arguments: list[str], code: int, told: str) -> None:
    ended = jido(*arguments, cwd=tmp_path, check=code)
    assert told in ended.stderr.replace("\n       ", " ")
    assert "\x1b" not in ended.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != ".state"] == []


words = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)
options = st.sampled_from(
    ["--json", "--force", "--source", "--action", "--every", "--cron", "--watch", "--http", "--", "-", "--help", "-h", "--store"]
)
specs = st.sampled_from(
    ["a:int", "b:list[str]", "c:datetime?", "pay(a)", "shop", "Invoice", "60", "*/5 * * * *", "inbox", "/hooks/{key}", "/hooks", "1e400", "nan"]
)


@settings(max_examples=150)
@given(st.sampled_from([["new"], ["generate"], ["generate", "agent"], ["generate", "sensor"]]), st.lists(words | options | specs, max_size=5))
def test_whatever_is_typed_ends_with_a_code_and_words(command: list[str], rest: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            patch.chdir(folder)
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main([*command, *rest])
            assert code in (0, 1, 2), err.getvalue()
            assert "mistake in jido" not in err.getvalue(), err.getvalue()
            assert code == 0 or err.getvalue()
            assert not [name for name in os.listdir(folder) if name.startswith(".")]


@pytest.mark.parametrize(
    ("arguments", "when"),
    [
        (["--every", "60"], "every=60"),
        (["--every", "0.5"], "every=0.5"),
        (["--cron", "0 7 * * *"], 'cron="0 7 * * *"'),
        (["--watch", "in box"], 'watch="in box"'),
        (["--http", "/hooks/{key}"], 'http="/hooks/{key}"'),
        (["--http", "/hooks"], 'http="/hooks", key="main"'),
    ],
)
def test_a_sensor_is_added_and_hosted(tmp_path: Path, arguments: list[str], when: str) -> None:
    jido("new", "shop", cwd=tmp_path)
    jido("generate", "sensor", "Feed", *arguments, cwd=tmp_path / "shop")
    assert f'@sensor({when}, action="take")' in (tmp_path / "shop/shop/feed.py").read_text()
    assert "from shop.feed import Feed" in (tmp_path / "shop/shop/app.py").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "exactly one of"),
        (["--every", "1", "--http", "/x"], "--every and --http given"),
        (["--every", "0"], "every"),
        (["--every", "nan"], "every"),
        (["--every", "-1"], "every"),
        (["--every", "1e400"], "every"),
        (["--cron", "soon"], "cron"),
        (["--cron", ""], "printable"),
        (["--watch", ""], "printable"),
        (["--http", "hooks"], "begins with"),
        (["--http", "/a b"], "path"),
        (["--http", "/{key}/{key}"], "path"),
        (["--watch", 'a"b'], "without quotes"),
    ],
)
def test_a_sensor_that_cannot_be_is_refused(tmp_path: Path, arguments: list[str], told: str) -> None:
    jido("new", "shop", cwd=tmp_path)
    before = sorted(path.name for path in (tmp_path / "shop").rglob("*"))
    assert told in jido("generate", "sensor", "Feed", *arguments, cwd=tmp_path / "shop", check=1).stderr
    assert sorted(path.name for path in (tmp_path / "shop").rglob("*")) == before


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    ended = subprocess.run([os.fsencode(JIDO), b"new", b"\xff\xfe"], cwd=tmp_path, capture_output=True, check=False)
    assert ended.returncode == 1 and b"letter of a to z" in ended.stderr
    jido("new", "shop", cwd=tmp_path)
    ended = subprocess.run(
        [os.fsencode(JIDO), b"generate", b"agent", b"Invoice", b"a:str=\xff"], cwd=tmp_path / "shop", capture_output=True, check=False
    )
    assert ended.returncode == 1 and b"printable" in ended.stderr


def test_a_terminal_without_utf8_and_without_colour_is_spoken_to_as_well(tmp_path: Path) -> None:
    ended = jido("new", "b\u00fcro", cwd=tmp_path, check=1, PYTHONIOENCODING="ascii", LC_ALL="C", NO_COLOR="1", COLUMNS="40", PYTHONUTF8="0")
    assert ended.stderr.isascii()


def test_a_closed_pipe_is_no_error_and_the_project_is_whole(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run([JIDO, "new", "shop"], cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert "Traceback" not in ended.stderr
    assert (tmp_path / "shop/README.md").is_file()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert "Permission denied" in jido("new", "shop", cwd=tmp_path, check=1).stderr
    finally:
        tmp_path.chmod(0o700)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))

    ended = subprocess.run([JIDO, "new", "shop"], cwd=tmp_path, preexec_fn=limited, capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and "nothing was left behind" in ended.stderr
    assert os.listdir(tmp_path) == []


def test_an_interruption_at_any_moment_leaves_all_or_nothing(tmp_path: Path) -> None:
    for number in range(8):
        process = subprocess.Popen([JIDO, "new", "shop"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05 * number)
        process.send_signal(signal.SIGINT)
        process.communicate()
        there = os.listdir(tmp_path)
        assert there in ([], ["shop"])
        if there:
            assert (tmp_path / "shop/tests/test_account.py").is_file() and (tmp_path / "shop/README.md").is_file()
            (tmp_path / "shop").rename(tmp_path.parent / f"{tmp_path.name}-{number}")


@pytest.mark.timeout(900)
def test_a_new_project_is_green_at_once_with_a_wheel_of_this_release(tmp_path: Path) -> None:
    """Everything that its README says: made, installed into a new environment, tested, run, called."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path], cwd=ROOT, check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    began = time.monotonic()
    jido("new", "my-shop", "--source", str(wheel), cwd=tmp_path)
    project, binaries = tmp_path / "my-shop", tmp_path / "my-shop/.venv/bin"
    subprocess.run([sys.executable, "-m", "venv", ".venv"], cwd=project, check=True)
    installing = [binaries / "python", "-m", "pip", "install", "-q", "--no-compile", "-c", ROOT / "constraints.txt", "-e", ".[test]"]
    installed = subprocess.run(installing, cwd=project, capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr
    tested = subprocess.run([binaries / "pytest", "-q"], cwd=project, capture_output=True, text=True, check=False)
    assert tested.returncode == 0 and "5 passed" in tested.stdout, tested.stdout
    sys.stderr.write(f"jido new to its own green test: {time.monotonic() - began:.0f} s\n")
    env = {**os.environ, "XDG_RUNTIME_DIR": "", "XDG_STATE_HOME": str(tmp_path / "state")}
    for balance in (500, 1000):
        running = [binaries / "jido", "run", "my_shop/app.py", "--port", "0", "--json"]
        with subprocess.Popen(running, cwd=project, env=env, stdout=subprocess.PIPE, text=True) as node:
            assert node.stdout is not None and json.loads(node.stdout.readline())["agents"] == ["Account"]
            called = subprocess.run(
                [binaries / "jido", "call", "Account/alice", "deposit", "amount=500"],
                cwd=project,
                env=env,
                capture_output=True,
                text=True,
                check=False,
            )
            node.kill()
        assert called.stdout.strip() == str(balance), called.stderr
