"""A look at a store's file without owning it: nothing is created, migrated or written, whatever state it is in.

A file whose log is empty is read as it is. One that a crash left commits beside is read through SQLite's own recovery, read-only; the
index that SQLite makes for that is taken away again. One that a process owns is read beside it, as that process's own reader does.
Whoever starts to own the file meanwhile isn't disturbed: then nothing is said.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ...core.errors import StoreError
from ...core.inspection import StoreFacts
from .file import APPLICATION_ID, VERSION, translate
from .records import verify

Look = Callable[[sqlite3.Connection], Any]


def inspect_file(path: str, *, whole: bool) -> StoreFacts:
    """The facts of a file; `whole`: everything in it is read once."""
    facts = StoreFacts(f"SQLite {sqlite3.sqlite_version}", path, newest=VERSION)
    try:
        status = os.stat(path)
        if not os.path.isfile(path):
            return facts._replace(exists=True, trouble=f"{path} isn't a file")
        facts = facts._replace(
            exists=True, size_bytes=status.st_size, changed_s=max(status.st_mtime, _changed_s(path)), log_bytes=_size(f"{path}-wal"), **_owner(path)
        )
    except FileNotFoundError:
        return facts
    except (OSError, ValueError) as error:
        return facts._replace(trouble=f"{path} can't be looked at: {error}")
    before = _stamp(path)
    looked = _looked(path, facts, whole=whole)
    if _stamp(path) != before and not facts.owned:
        return facts._replace(trouble="a process opened it while it was looked at; nothing was disturbed, look again", **_owner(path))
    return looked


def _looked(path: str, facts: StoreFacts, *, whole: bool) -> StoreFacts:
    """The facts with what stands in the file; the thread may be given up by Ctrl-C, which ends its statement at once."""
    index = f"{path}-shm"
    had_index = os.path.exists(index)
    name = f"{Path(path).absolute().as_uri()}?mode=ro{'' if facts.owned or facts.log_bytes else '&immutable=1'}"
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(name, uri=True, isolation_level=None, check_same_thread=False)
        with ThreadPoolExecutor(1) as thread:
            try:
                version, damage = thread.submit(_read, connection, path, whole).result()
            except BaseException:
                connection.interrupt()
                raise
        return facts._replace(version=version, damage=damage)
    except sqlite3.Error as error:
        return facts._replace(trouble=str(translate(error, path)))
    except StoreError as error:
        return facts._replace(trouble=str(error))
    finally:
        if connection is not None:
            connection.close()
        if not had_index and not facts.owned:
            _take_away(index, path)


def _read(connection: sqlite3.Connection, path: str, whole: bool) -> tuple[int, tuple[str, ...] | None]:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and (application or tables):
        raise StoreError(f"{path} is a SQLite file of another program")
    return version, tuple(verify(connection)) if whole and 0 < version <= VERSION else None


def _take_away(index: str, path: str) -> None:
    """Remove the index that a look has made: under the lock, so that nobody can be using it."""
    lock = _shared_lock(path)
    if lock is not None and lock >= 0:
        Path(index).unlink(missing_ok=True)
        os.close(lock)


def _owner(path: str) -> dict[str, Any]:
    """Whether a process holds the lock, and its pid. Asking takes it, shared, for an instant."""
    lock = _shared_lock(path)
    if lock is None:
        return {"owned": False, "owner": 0}
    if lock >= 0:
        os.close(lock)
        return {"owned": False, "owner": 0}
    try:
        told = Path(f"{path}-lock").read_bytes()[:32].decode(errors="replace").strip()
    except OSError:
        told = ""
    return {"owned": True, "owner": int(told) if told.isascii() and told.isdigit() else 0}


def _shared_lock(path: str) -> int | None:
    """The lock's file, held shared; -1 if a process owns the store; None if there never was a lock."""
    try:
        lock = os.open(f"{path}-lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return -1
    return lock


def _stamp(path: str) -> tuple[int, ...]:
    """What changes when a process opens the file: the lock's file is written anew."""
    try:
        lock = os.stat(f"{path}-lock")
    except OSError:
        return ()
    return lock.st_mtime_ns, lock.st_size


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


def _changed_s(path: str) -> float:
    return os.stat(f"{path}-wal").st_mtime if os.path.exists(f"{path}-wal") else 0.0
