"""What `jido doctor` looks at: the machine, the installation, the settings and the store. It changes nothing.

Facts are gathered first; what they mean is decided by functions of the facts and the time.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from ..core.config import Config
from ..core.errors import JidoError
from ..core.inspection import StoreFacts
from . import assembly

Level = Literal["ok", "warning", "problem"]
MIN_FILES = 1024
MIN_FREE_BYTES, FEW_FREE_BYTES = 100 * 1024**2, 1024**3
AHEAD_S = 60.0
"""How far a file's time may be in the future: clocks of file servers differ."""
RELEASED_S = 1_767_225_600.0
"""2026-01-01: no machine that runs this release has an earlier date."""
REMOTE = frozenset(
    {"9p", "afs", "ceph", "cifs", "davfs", "fuse.sshfs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs", "vboxsf", "virtiofs"}
)
FLEETING = frozenset({"ramfs", "tmpfs"})
PARTS = {
    "server": (("fastapi", "httpx2", "uvicorn"), "the HTTP API, webhooks and the command line"),
    "uvloop": (("uvloop",), "a faster event loop"),
    "otel": (("opentelemetry.sdk",), "sending traces"),
}


class Finding(NamedTuple):
    """One thing that was looked at. `found`: what it is; `advice`: what it means and what to do, unless all is well."""

    check: str
    level: Level
    found: str
    advice: str = ""


def examine(url: str | None, *, whole: bool = True, config_file: str = "jido.toml") -> Iterator[Finding]:
    """Everything, the quick things first. `url`: a store; `InvalidConfig` if it isn't one's URL."""
    if url is not None:
        assembly.check_url(url)
    yield judge_python(sys.version_info[:2], platform.python_implementation())
    yield from installed()
    yield judge_open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    yield settings(url or "memory://", config_file)
    facts = None if url is None else assembly.inspect_store(url, whole=whole)
    now_s = time.time()
    yield judge_clock(now_s, facts.changed_s if facts is not None else 0.0)
    if facts is not None:
        yield from store(facts)


# -- the machine ---------------------------------------------------------------------------------------------------


def judge_python(version: tuple[int, ...], implementation: str) -> Finding:
    """Whether this Python is one that the platform is made for."""
    found = f"{implementation} {'.'.join(map(str, version))}"
    if version < (3, 11):
        return Finding("python", "problem", found, "Python 3.11 or later is needed")
    if implementation != "CPython":
        return Finding("python", "warning", found, "only CPython is tested")
    return Finding("python", "ok", found)


def installed() -> Iterator[Finding]:
    """The extras: what is missing is only a warning, and says how it is installed."""
    for extra, (modules, purpose) in PARTS.items():
        missing = [name for name in modules if not _is_installed(name)]
        if not missing:
            yield Finding(f"extra {extra}", "ok", "installed")
        else:
            level: Level = "ok" if extra == "otel" else "warning"
            yield Finding(f"extra {extra}", level, f"without {', '.join(missing)}", f"for {purpose}: pip install 'jidosystem[{extra}]'")


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def judge_open_files(limit: int) -> Finding:
    """How many files and connections this process may have open."""
    found = "no limit" if limit == resource.RLIM_INFINITY else f"{limit:,}"
    if limit != resource.RLIM_INFINITY and limit < MIN_FILES:
        return Finding("open files", "warning", found, f"each connection is one: raise it, `ulimit -n {MIN_FILES * 4}`")
    return Finding("open files", "ok", found)


def judge_clock(now_s: float, changed_s: float) -> Finding:
    """Whether the wall clock can be right: `changed_s` is when the store was last written."""
    found = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_s))
    if now_s < RELEASED_S:
        return Finding("clock", "problem", found, "that is before this release was made: set the clock, reminders go by it")
    if changed_s > now_s + AHEAD_S:
        ahead = f"the store was last written {changed_s - now_s:,.0f} s in the future"
        return Finding(
            "clock", "problem", found, f"{ahead}: the clock was set back, or was wrong then; reminders ring late until it is reached again"
        )
    return Finding("clock", "ok", found)


def settings(url: str, file: str) -> Finding:
    """`jido.toml` and `JIDO_*`: read as a platform reads them."""
    there = os.path.lexists(file)
    try:
        Config(url=url, file=file)
    except JidoError as error:
        return Finding("settings", "problem", str(error), "no node starts with this: mend it")
    return Finding("settings", "ok", f"{file} and JIDO_* are valid" if there else f"no {file} here; JIDO_* are valid")


# -- the store -----------------------------------------------------------------------------------------------------


def store(facts: StoreFacts) -> Iterator[Finding]:
    """The findings on a store, and on the place that it is in."""
    if facts.engine == "memory":
        yield Finding("store", "warning", "in memory", "nothing survives the process: use sqlite:///app.db")
        return
    yield Finding("sqlite", "ok", facts.engine)
    yield from place(facts)
    if facts.trouble:
        yield Finding("store", "problem", facts.trouble, "nothing was changed; if it is damaged, restore it from a backup")
        return
    if facts.exists:
        yield from judge_file(facts)


def place(facts: StoreFacts) -> Iterator[Finding]:
    """The folder, the file system and the room on it."""
    folder = Path(facts.path).absolute().parent
    if not folder.is_dir():
        yield Finding("store", "problem", f"there is no folder {folder}", "make it first; the file in it is made by the first start")
        return
    if not os.access(folder, os.W_OK | os.X_OK) or (facts.exists and not os.access(facts.path, os.R_OK | os.W_OK)):
        whom = folder if not os.access(folder, os.W_OK | os.X_OK) else facts.path
        yield Finding("permissions", "problem", f"{whom} can't be written by this user", "run as its owner, or change the permissions")
    if not facts.exists:
        yield Finding("store", "ok", f"{facts.path} isn't there yet", "the first start makes it")
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        yield Finding("disk", "warning", f"how full it is can't be seen: {error}")
    else:
        yield judge_room(usage.free, usage.total)
    kind = file_system(folder)
    if kind:
        yield judge_file_system(kind)


def judge_room(free_bytes: int, total_bytes: int) -> Finding:
    """Whether the disk has room for what comes."""
    found = f"{size(free_bytes)} of {size(total_bytes)} free"
    if free_bytes < MIN_FREE_BYTES:
        return Finding("disk", "problem", found, "make room: on a full disk every turn that changes something fails, and changes nothing")
    if free_bytes < FEW_FREE_BYTES:
        return Finding("disk", "warning", found, "make room soon: on a full disk turns fail")
    return Finding("disk", "ok", found)


def file_system(folder: Path, mounts: str = "/proc/self/mounts") -> str:
    """The type of the file system that a folder is on; "" where that can't be seen."""
    try:
        lines = Path(mounts).read_text(errors="surrogateescape").splitlines()
        real = str(folder.resolve())
    except (OSError, RuntimeError):
        return ""
    best, kind = "", ""
    for line in lines:
        _device, point, name, *_rest = [*line.split(" "), "", ""]
        where = point.encode("latin-1", "replace").decode("unicode_escape") if "\\" in point else point
        if where and (real == where or real.startswith(where.rstrip("/") + "/")) and len(where) >= len(best):
            best, kind = where, name
    return kind


def judge_file_system(kind: str) -> Finding:
    """Whether what is written there is there tomorrow, and whether its locks hold."""
    if kind in REMOTE:
        advice = "locks and fsync of a network file system aren't to be trusted: two owners may damage the file. Put the store on a local disk"
        return Finding("file system", "problem", kind, advice)
    if kind in FLEETING:
        return Finding("file system", "warning", kind, "it is in memory: what is durable here is gone after a reboot. Put the store on a disk")
    if kind == "overlay":
        return Finding("file system", "warning", kind, "a container's own layer goes with the container: put the store on a volume")
    return Finding("file system", "ok", kind)


def judge_file(facts: StoreFacts) -> Iterator[Finding]:
    """Owner, version, log and content of a file that could be read."""
    owner = f"process {facts.owner}" if facts.owner else "a process"
    yield Finding("owner", "ok", f"{owner} has it open" if facts.owned else "nobody has it open")
    yield judge_version(facts)
    if facts.log_bytes and not facts.owned:
        advice = f"the last owner didn't close it; the next start takes them in. Never move the file without {facts.path}-wal"
        yield Finding("log", "warning", f"{size(facts.log_bytes)} of commits beside the file", advice)
    if facts.damage:
        for told in facts.damage:
            yield Finding("content", "problem", told, "restore it from a backup; agents that aren't named here are sound")
    elif facts.damage is not None:
        yield Finding("content", "ok", f"{size(facts.size_bytes)}, read once: every record, row and event is sound")


def judge_version(facts: StoreFacts) -> Finding:
    """Whether this release can open the file, and whether that changes it."""
    version, newest = facts.version or 0, facts.newest
    if version > newest:
        return Finding("format", "problem", f"{version}, this release knows {newest}", "a newer release wrote it: install that one")
    if 0 < version < newest:
        return Finding(
            "format", "warning", f"{version}, this release writes {newest}", "the next start brings it up to date, for good: copy it first"
        )
    return Finding("format", "ok", f"{version}" if version else "an empty file, made ready by the first start")


def size(count: float) -> str:
    """Bytes as people say them."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
