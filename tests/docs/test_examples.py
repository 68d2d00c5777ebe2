"""What executes the examples notices what is wrong with them."""

from __future__ import annotations

import importlib.util
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def examples() -> ModuleType:
    spec = importlib.util.spec_from_file_location("examples_of_the_docs", ROOT / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def shell(examples: ModuleType, tmp_path: Path) -> Iterator[Any]:
    shell = examples.Shell(tmp_path)
    yield shell
    shell.close()


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("7\n", "7\n", True),
        ("7\n", "8\n", False),
        ("7\n", "", False),
        ("", "a warning\n", False),
        ("2 passed in ...\n", "2 passed in 0.03s\n", True),
        ("2 passed in ...\n", "1 failed, 2 passed in 0.03s\n", False),
        ("first\n...\nlast\n", "first\n\nbetween\nlast  \n", True),
        ("......  [100%]\n", "......  [100%]\n", True),
        ("......  [100%]\n", "....F.  [100%]\n", False),
        ("a.b\n", "aXb\n", False),
    ],
)
def test_what_was_printed_is_compared(examples: ModuleType, expected: str, printed: str, same: bool) -> None:
    assert examples.fits(expected, printed) is same


def test_a_shell_keeps_its_directory_and_tells_of_failures(shell: Any, tmp_path: Path) -> None:
    assert shell.type("mkdir inner && cd inner", "") == ("", 0)
    assert shell.type("pwd", "...") == (f"{tmp_path}/inner\n", 0)
    assert shell.type("echo no; false", "...") == ("no\n", 1)
    assert shell.type("python -c 'import os; os.kill(os.getpid(), 9)'", "...") == ("Killed\n", 137)


def test_a_command_in_the_background_can_be_killed_by_its_number_and_is_gone_with_its_page(examples: ModuleType, tmp_path: Path) -> None:
    shell = examples.Shell(tmp_path)
    program = 'import os, time; print(os.getpid(), "is up"); time.sleep(600)'
    first, _ = shell.type(f"python -c '{program}' &", "... is up")
    second, _ = shell.type(f"python -c '{program}' &", "... is up")
    assert shell.type("kill -9 %1; wait %1", "")[1] == 137
    shell.close()
    for printed in (first, second):
        end_s = time.monotonic() + 10
        while True:  # a signal was sent: a busy machine takes its time to end what it was sent to
            state = subprocess.run(["ps", "-o", "stat=", "-p", printed.split()[0]], capture_output=True, text=True, check=False).stdout
            if not state or state.startswith("Z"):
                break
            assert time.monotonic() < end_s, "it still runs"


def test_a_page_takes_over_the_files_of_another(examples: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "1.md").write_text("```python\n# a.py\nold = 1\n```\n\n```toml\n# b/c.toml\nx = 1\n```\n\n```python\nno_file = 1\n```\n")
    (tmp_path / "2.md").write_text("<!-- goes on from: 1.md -->\n\n```python\n# a.py\nnew = 1\n```\n")
    assert examples.files_of(tmp_path / "2.md") == {"a.py": "# a.py\nnew = 1\n", "b/c.toml": "# b/c.toml\nx = 1\n"}


def test_every_file_of_a_page_is_run_by_it(examples: ModuleType) -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        if examples.files_of(page):
            assert "```console" in page.read_text(), f"nothing runs the files of {page.name}"
