"""Libraries that stand between a process and the machine, from C sources of ours."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest


def built(source: Path, folder: Path) -> Path:
    """The library, for `LD_PRELOAD`. Skips where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip(f"no C compiler here: {source.name} can't be built")
    library = folder / f"{source.stem}.so"
    assert os.spawnl(os.P_WAIT, compiler, compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl") == 0
    return library
