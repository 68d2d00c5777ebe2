"""What the tests of faults share: a disk that fails when it is told to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.shims import built


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that stands between a process and its disk."""
    return built(Path(__file__).with_name("shim.c"), tmp_path_factory.mktemp("shim"))
