"""Each measurement in a process of its own; the peers' environment, made when it is first needed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .measure import decode_result
from .table import OURS, Source

ROOT = Path(__file__).parent.parent
SCRATCH = ROOT / ".bench"
TIMEOUT_S = 1_800
QUICK_TIMEOUT_S = 120


def peers_environment() -> Path:
    """Where the peers of this interpreter are installed."""
    default = Path(sys.prefix).name in (".venv", Path(sys.base_prefix).name)
    suffix = "" if default else f"-{sys.version_info.major}.{sys.version_info.minor}"
    return ROOT / f".venv-bench{suffix}"


def install_peers() -> list[str]:
    """Make the peers' environment and bring it up to the pins; a peer that can't be installed is left out, and named."""
    environment = peers_environment()
    pins = ROOT / "benchmarks" / "peers.txt"
    stamp = environment / ".pins"
    if stamp.exists() and stamp.stat().st_mtime >= pins.stat().st_mtime:
        return stamp.read_text().split()
    print(f"Making {environment.name} for the peers, once ...", file=sys.stderr)
    if not (environment / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    left_out: list[str] = []
    if subprocess.run([*pip, "-r", str(pins)], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        # One pin that this interpreter has no build of must not cost the others.
        for line in pins.read_text().splitlines():
            pin = line.partition("#")[0].strip()
            if pin and subprocess.run([*pip, "--no-deps", pin], stderr=subprocess.DEVNULL, check=False).returncode != 0:
                left_out.append(re.split("[=<>]", pin)[0])
    stamp.write_text("\n".join(left_out))
    return left_out


def measure(source: Source, loop: str, *, quick: bool) -> dict[str, Any]:
    """Run one measurement: `{"values": …, "notes": …}`, or `{"absent": …}`, or `{"failed": …}`."""
    python = Path(sys.executable) if source.environment == OURS else peers_environment() / "bin" / "python"
    if not python.exists():
        return {"absent": f"{python.parent.parent.name} isn't there"}
    SCRATCH.mkdir(exist_ok=True)
    scratch = tempfile.mkdtemp(dir=SCRATCH)
    command = [str(python), "-m", "benchmarks.child", source.module, source.function, loop, scratch, *(["--quick"] if quick else [])]
    paths = [str(ROOT), str(ROOT / "src")] if source.environment == OURS else [str(ROOT)]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "ignore", "RAY_DEDUP_LOGS": "0"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False, timeout=QUICK_TIMEOUT_S if quick else TIMEOUT_S
        )
    except subprocess.TimeoutExpired as late:
        return {"failed": f"not done after {late.timeout:.0f} s"}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    result = decode_result(done.stdout)
    if result is None or done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return {"failed": lines[-1] if lines else f"exit status {done.returncode}"}
    return result
