"""The file itself: owned by one process, recognised, of a version that we know, opened with the settings that we promise."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from weakref import WeakSet

from ...core.errors import StoreCorrupt, StoreError, StoreFull, StoreLocked, StoreUnavailable, StoreVersion

APPLICATION_ID = 0x4A49444F  # "JIDO"
VERSION = 2
CACHE_KIB = 64 * 1024
CHECKPOINT_PAGES = 4_000
LOG_BYTES = CHECKPOINT_PAGES * 4_096
LOG_CHUNK_BYTES = 1024 * 1024

# Only `pending` and `due` rows are ever listed across agents: `listed` keeps the others out of that index.
# The trigger refuses an update of a head that isn't there: the writer's one statement would else insert it.
MIGRATIONS = (
    (
        "CREATE TABLE heads (agent TEXT PRIMARY KEY, revision INTEGER NOT NULL, head BLOB) WITHOUT ROWID",
        "CREATE TRIGGER heads_begin_at_one AFTER INSERT ON heads WHEN NEW.revision <> 1 BEGIN SELECT RAISE(ABORT, 'no such head'); END",
        """CREATE TABLE rows (
            agent TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, expires REAL, listed INTEGER NOT NULL,
            PRIMARY KEY (agent, kind, name)
        ) WITHOUT ROWID""",
        "CREATE INDEX rows_listed ON rows (kind, name, agent) WHERE listed = 1",
        "CREATE TABLE events (position INTEGER PRIMARY KEY, stream TEXT NOT NULL, event BLOB NOT NULL)",
        "CREATE INDEX events_of_stream ON events (stream, position)",
    ),
    ("CREATE INDEX rows_expiring ON rows (expires) WHERE expires IS NOT NULL",),
)
UNLISTED = frozenset({"key", "from", "sub", "seg", "child", "redrive"})
"""Kinds of rows that are found only through their agent; scanning them reads the whole table."""


def translate(error: sqlite3.Error, path: str) -> StoreError:
    """SQLite's error as ours; nothing was written."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StoreFull(f"{path} is full: {error}; nothing was written", path=path)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreCorrupt(f"{path} is damaged: {error}; nothing was changed. Restore it from a backup", path=path)
    return StoreUnavailable(f"{path} doesn't work just now: {error}; nothing was written", path=path)


class FileLock:
    """Exclusive ownership of a store's file: a lock beside it that the kernel drops with the process, and the owner's pid in it.

    A process that is forked has the lock's file open too, and would keep the lock beyond its parent's death: it closes it first.
    """

    __slots__ = ("__weakref__", "_fd", "path")

    def __init__(self, path: str) -> None:
        _check_place(path)
        self.path = f"{path}-lock"
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreUnavailable(f"{path} can't be opened: {error}; mend its path or permissions", path=path) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            told = os.read(self._fd, 32).decode(errors="replace").strip()
            os.close(self._fd)
            pid = int(told) if told.isdigit() else None
            raise StoreLocked(
                f"{path} is owned by process {pid if pid is not None else 'unknown'}; one process at a time opens it."
                " Stop that one, or call it instead",
                path=path,
                pid=pid,
            ) from None
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, str(os.getpid()).encode(), 0)
        except OSError as error:
            os.close(self._fd)
            raise StoreUnavailable(f"{path} can't be written: {error}; mend its permissions", path=path) from error
        _held.add(self)

    def release(self) -> None:
        """Let go; the lock's file stays, so that nobody can lock a file that another is about to remove. In a process that was forked: nothing."""
        if self in _held:
            _held.discard(self)
            fcntl.flock(self._fd, fcntl.LOCK_UN)  # closing alone leaves it to whoever got the file some other way
            os.close(self._fd)


_held: WeakSet[FileLock] = WeakSet()


def _leave_to_parent() -> None:
    for lock in _held:
        os.close(lock._fd)
    _held.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


class LogSpace:
    """Room at the end of the write-ahead log, made before it is needed; only for the thread that writes.

    Making a file durable that has grown makes the file system write its own journal too, which doubles the time of a commit.
    The log grows until the first checkpoint after every start, so here it grows by many frames at a time. SQLite ignores what lies
    behind the last frame whose checksum fits; behind every checkpoint something does.
    """

    __slots__ = ("_commits", "_fd", "_made", "_path")

    def __init__(self, path: str) -> None:
        self._path = f"{path}-wal"
        self._fd = -1
        self._made = 0  # how far it reaches by our doing
        self._commits = 0

    def make(self, commits: int) -> None:
        """Look whether there is room, every few dozen commits; to be called between transactions."""
        self._commits += commits
        if self._commits < 32 or self._made >= LOG_BYTES:
            return
        self._commits = 0
        try:
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            size = os.fstat(self._fd).st_size
            if size >= LOG_BYTES:
                self._made = size  # it grew so far by itself: nothing more to look for
            elif self._made < size:
                self._made = size + os.pwrite(self._fd, bytes(LOG_CHUNK_BYTES), size)
        except OSError:  # a disk that is full, say: whether it matters, the next commit tells
            return

    def close(self) -> None:
        """Let go of the log's file."""
        if self._fd >= 0:
            os.close(self._fd)


def connect(path: str, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection with our settings, for one thread at a time."""
    mode = "ro" if read_only else "rwc"
    connection = sqlite3.connect(
        f"{Path(path).absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False, cached_statements=512
    )
    try:
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute("PRAGMA temp_store = MEMORY")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def open_file(path: str, durability: str, max_page_count: int | None) -> sqlite3.Connection:
    """The writer's connection to a file that is ours, brought up to the present version."""
    _check_place(path)
    connection: sqlite3.Connection | None = None
    try:
        connection = connect(path)
        _recognise(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        if max_page_count is not None:
            connection.execute(f"PRAGMA max_page_count = {max_page_count}")
        _migrate(connection)
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise translate(error, path) from error
    except StoreError:
        if connection is not None:
            connection.close()
        raise
    return connection


def _check_place(path: str) -> None:
    place = Path(path).absolute()
    if place.is_dir():
        raise StoreUnavailable(f"{path} is a folder; the store is a file, for example {path}/app.db", path=path)
    if not place.parent.is_dir():
        raise StoreUnavailable(f"{path} can't be opened: there is no folder {place.parent}; make it first", path=path)


def _recognise(connection: sqlite3.Connection, path: str) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and (application or tables):
        raise StoreVersion(f"{path} is a SQLite file of another program; nothing was changed. Choose another path", path=path)
    if version > VERSION:
        raise StoreVersion(
            f"{path} was written by a newer release (format {version}, this one knows {VERSION}); nothing was changed. Start that release", path=path
        )


def _migrate(connection: sqlite3.Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    for number in range(version, VERSION):
        connection.execute("BEGIN IMMEDIATE")
        for statement in MIGRATIONS[number]:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {number + 1}")
        connection.execute("COMMIT")
