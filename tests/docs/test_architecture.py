"""The page on architecture names what is there: every file, and in each the functions that it speaks of."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import jidosystem

SOURCES = Path(jidosystem.__file__).parent
PAGE = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
MODULES = {str(path.relative_to(SOURCES)) for path in SOURCES.rglob("*.py") if path.name != "__init__.py"}


def named_files() -> dict[str, set[str]]:
    """The files that the page names, by what stands in its backticks, and the functions and classes named right behind each."""
    found: dict[str, set[str]] = {}
    for file, name in re.findall(r"`([\w/]+\.py)`(?::\s+`(\w+)`)?", PAGE):
        found.setdefault(file, set()).update({name} - {""})
    return found


def modules_of(file: str) -> set[str]:
    """A name without a folder stands for the module of that name, wherever it is."""
    return {module for module in MODULES if module == file or module.endswith(f"/{file}")}


@pytest.mark.parametrize("file", sorted(named_files()))
def test_a_file_that_is_named_is_there_with_what_is_named_of_it(file: str) -> None:
    modules = modules_of(file)
    assert modules, f"there is no {file}"
    names = {
        node.name
        for module in modules
        for node in ast.walk(ast.parse((SOURCES / module).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    assert named_files()[file] - names == set()


def test_every_module_is_named() -> None:
    assert MODULES - {module for file in named_files() for module in modules_of(file)} == set()
