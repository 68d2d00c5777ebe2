"""What the tests of faults share: a disk that fails when it is told to."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("shim.c")


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that stands between a process and its disk."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C compiler here: a disk that fails can't be made")
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    assert os.spawnl(os.P_WAIT, compiler, compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl") == 0
    return library
