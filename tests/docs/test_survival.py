"""Every test that the page about faults names is there, and every line names one."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "explanation" / "what-survives-what.md"


def test_each_line_of_the_tables_names_tests_that_exist() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.endswith("shown by |")]
    assert len(lines) > 30
    for line in lines:
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", line)
        assert named, f"nothing shows this: {line}"
        for file, name in named:
            assert f"def {name}(" in (TESTS / file).read_text(), f"{file} has no {name}"


def test_each_test_of_faults_stands_on_the_page() -> None:
    page = PAGE.read_text()
    for file in (TESTS / "faults").glob("test_*.py"):
        for name in re.findall(r"^(?:async )?def (test_\w+)\(", file.read_text(), re.MULTILINE):
            assert f"`faults/{file.name}::{name}`" in page, f"{file.name}::{name} isn't on the page"
