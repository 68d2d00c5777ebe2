"""The repository's own promises: dependencies that are declared and used, pins without addresses, a detector that detects."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from blockbuster import BlockingError

import jidosystem

ROOT = Path(__file__).parents[1]
PACKAGE = Path(jidosystem.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NEVER_IMPORTED = {"tzdata"}
"""zoneinfo finds the zones in it by itself."""


def named(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9_-]", requirement)[0].replace("-", "_") for requirement in requirements}


def imported() -> set[str]:
    roots: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                roots.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                roots.add(node.module.split(".")[0])
    return roots - set(sys.stdlib_module_names) - {"jidosystem"}


def provided_by(requirements: set[str]) -> set[str]:
    other = {"opentelemetry_api": "opentelemetry", "opentelemetry_sdk": "opentelemetry", "nats_py": "nats"}
    return {other.get(name, name) for name in requirements}


def test_what_the_package_imports_is_declared() -> None:
    extras = {name for requirements in PROJECT["optional-dependencies"].values() for name in named(requirements)}
    assert imported() - provided_by(named(PROJECT["dependencies"]) | extras) == set()


def test_what_is_declared_is_imported() -> None:
    assert provided_by(named(PROJECT["dependencies"]) - NEVER_IMPORTED) - imported() == set()


def test_pins_are_names_and_versions_only() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.!+]+", line), line


def sleeper() -> Callable[[], None]:
    """A function that looks as if it stood in the package."""
    namespace: dict[str, Callable[[], None]] = {}
    source = "import time\ndef sleep():\n    time.sleep(0)\n"
    exec(compile(source, str(PACKAGE / "core" / "sleeper.py"), "exec"), namespace)
    return namespace["sleep"]


async def test_a_function_of_the_package_that_blocks_the_loop_fails_its_test() -> None:
    with pytest.raises(BlockingError):
        sleeper()()


@pytest.mark.blocking
async def test_a_test_may_block_the_loop_on_purpose() -> None:
    sleeper()()


def test_the_public_names_are_loaded_when_they_are_asked_for():
    code = "import sys, jidosystem; print('jidosystem.runtime' in sys.modules); jidosystem.Agent; print('jidosystem.runtime' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "True"]


def test_what_is_loaded_is_what_type_checkers_are_told():
    tree = ast.parse(Path(jidosystem.__file__).read_text())
    told = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    homes = {alias.name: line.module for line in told.body if isinstance(line, ast.ImportFrom) and line.module != "typing" for alias in line.names}
    assert sorted(homes) == sorted(jidosystem.__all__)
    for name, module in homes.items():
        home = importlib.import_module(module if module == "dataclasses" else f"jidosystem.{module}")
        there = home.errors if name == "errors" else getattr(home, name)
        assert getattr(jidosystem, name) is there, name
