"""What a figure was measured on: without it a figure says little."""

from __future__ import annotations

import os
import platform
import sqlite3
from pathlib import Path


def describe_machine() -> str:
    """Processor, cores, memory and system."""
    return f"{_processor()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB, {platform.system()} {platform.release()}"


def describe_interpreter() -> str:
    """Python and SQLite."""
    return f"{platform.python_implementation()} {platform.python_version()}, SQLite {sqlite3.sqlite_version}"


def load() -> str:
    """How busy the machine is with other things."""
    return ", ".join(f"{value:.1f}" for value in os.getloadavg())


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
