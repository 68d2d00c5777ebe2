"""`jido` in a process of its own, as a shell runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

JIDO = Path(sys.executable).parent / "jido"


def jido(*arguments: str, cwd: Path, check: int | None = 0, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end; `check`: the exit code that is expected, None for any."""
    env = {**os.environ, "XDG_RUNTIME_DIR": "", "XDG_STATE_HOME": str(cwd / ".state"), **environ}
    ended = subprocess.run([JIDO, *arguments], cwd=cwd, env=env, capture_output=True, text=True, check=False, errors="surrogateescape")
    assert "Traceback" not in ended.stderr, ended.stderr
    assert check is None or ended.returncode == check, f"{ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    return ended
