"""The limit of the durable rows: SQLite with `synchronous=FULL` behind one writer thread that commits in groups.

Callers put (key, state) into a list and await a future; the thread takes all that waits, writes it in one transaction and
wakes the loop once. Nothing is checked, encoded or kept in memory: no system that puts each call's state into SQLite
off the loop's thread can be faster than this by much.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from time import perf_counter

from .measure import Run

STATE = b"\x81\xa5value\xcd\x03\xe8"
EVENT = b"\x9c" + b"e" * 150


class BareWriter:
    """The thread and its connection."""

    def __init__(self, path: Path, statement: str, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._statement = statement
        self._path = path
        self._waiting: deque[tuple[tuple[object, ...], asyncio.Future[None]]] = deque()
        self._work = threading.Semaphore(0)
        self._closing = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def write(self, row: tuple[object, ...]) -> asyncio.Future[None]:
        """Write a row; the future is done when it is durable."""
        future = self._loop.create_future()
        waiting = self._waiting
        waiting.append((row, future))
        if len(waiting) == 1:
            self._work.release()
        return future

    def close(self) -> None:
        """Stop the thread."""
        self._closing = True
        self._work.release()
        self._thread.join()

    def _serve(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS heads (agent TEXT PRIMARY KEY, head BLOB) WITHOUT ROWID")
        connection.execute("CREATE TABLE IF NOT EXISTS log (position INTEGER PRIMARY KEY, type TEXT, body BLOB)")
        waiting = self._waiting
        while True:
            if not waiting:
                if self._closing:
                    break
                self._work.acquire()
                continue
            batch = [waiting.popleft() for _ in range(len(waiting))]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(self._statement, [row for row, _ in batch])
            connection.execute("COMMIT")
            self._loop.call_soon_threadsafe(_wake, [future for _, future in batch])
        connection.close()


def _wake(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


UPSERT = "INSERT INTO heads VALUES (?, ?) ON CONFLICT DO UPDATE SET head = excluded.head"
APPEND = "INSERT INTO log (type, body) VALUES (?, ?)"
LIMIT = "bare writer"
"""The name of this limit's figures; they are measured by turns with ours, in the same process."""


@contextmanager
def bare_writer(
    run: Run, statement: str, callers: int, each: int, row: tuple[object, ...] | None = None
) -> Iterator[Callable[[], Awaitable[object]]]:
    """What so many callers at once do to the bare writer, each waiting so often until its row, or its agent's next state, is durable."""
    writer = BareWriter(run.scratch / "bare.db", statement, asyncio.get_running_loop())
    written = count()

    async def caller(number: int) -> None:
        agent = f"Counter/agent-{number}"
        for _ in range(each):
            # Each state differs from the one before: SQLite writes nothing, and syncs nothing, where bytes don't change.
            await writer.write(row or (agent, STATE + next(written).to_bytes(8, "big")))

    try:
        yield lambda: asyncio.gather(*map(caller, range(callers)))
    finally:
        writer.close()


def read_rows(run: Run) -> None:
    """Rows of 150 bytes read in order, in pages, without looking into them."""
    n = run.some(500_000, 5_000)
    connection = sqlite3.connect(run.scratch / "bare.db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE log (position INTEGER PRIMARY KEY, type TEXT, body BLOB)")
    connection.executemany(APPEND, (("bench.happened", EVENT) for _ in range(n)))
    connection.commit()

    def once() -> None:
        cursor = connection.execute("SELECT position, body FROM log ORDER BY position")
        while cursor.fetchmany(1_000):
            pass

    run.repeat_sync(n, once)


def fsync_4k(run: Run) -> None:
    """4 KiB appended and fsynced."""
    n = run.some(1_000, 50)
    page = os.urandom(4096)
    with (run.scratch / "file").open("wb", buffering=0) as file:

        def once() -> None:
            for _ in range(n):
                file.write(page)
                os.fsync(file.fileno())

        run.repeat_sync(n, once)


def read_states(run: Run) -> None:
    """10,000 states read from a file and put into objects, in a process that is up already; seconds."""
    n = run.some(10_000, 1_000)
    connection = sqlite3.connect(run.scratch / "bare.db")
    connection.execute("CREATE TABLE heads (agent TEXT PRIMARY KEY, head BLOB) WITHOUT ROWID")
    connection.executemany("INSERT INTO heads VALUES (?, ?)", ((f"Resident/agent-{number}", STATE) for number in range(n)))
    connection.commit()
    for _ in range(run.repetitions + 1):
        began = perf_counter()
        live = {agent: deque([head], 1) for agent, head in connection.execute("SELECT agent, head FROM heads")}
        assert len(live) == n
        run.record(perf_counter() - began)
