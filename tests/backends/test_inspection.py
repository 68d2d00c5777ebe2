"""A look at a store's file finds what there is to find, and changes nothing, whatever state the file is in."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from jidosystem import Agent, Platform, action
from jidosystem.api.assembly import inspect_store
from jidosystem.backends.sqlite.file import MIGRATIONS, VERSION

pytestmark = pytest.mark.blocking


class Counter(Agent):
    """Counts."""

    value: int = 0

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def filled(folder: Path) -> Path:
    file = folder / "app.db"
    async with Platform(f"sqlite:///{file}") as platform:
        for key in "abc":
            await platform.agent(Counter, key).add(7)
        await platform.events.publish("order.placed", {"id": 1})
    return file


LEFT = """
import asyncio, os, sys
from jidosystem import Platform
async def main():
    async with Platform("sqlite:///app.db") as platform:
        for number in range(50):
            await platform.events.publish("order.placed", {"id": number})
        print("ready", flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


def killed(folder: Path) -> Path:
    with subprocess.Popen([sys.executable, "-c", LEFT], cwd=folder, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
    return folder / "app.db"


async def test_a_file_that_was_closed_is_sound_and_untouched(tmp_path: Path) -> None:
    file = await filled(tmp_path)
    before = content(tmp_path)
    facts = inspect_store(f"sqlite:///{file}")
    assert (facts.exists, facts.owned, facts.version, facts.damage, facts.trouble, facts.log_bytes) == (True, False, VERSION, (), "", 0)
    assert content(tmp_path) == before


def test_what_is_not_there_is_not_made(tmp_path: Path) -> None:
    facts = inspect_store(f"sqlite:///{tmp_path}/app.db")
    assert (facts.exists, facts.trouble) == (False, "")
    assert inspect_store(f"sqlite:///{tmp_path}/no/app.db").exists is False
    assert inspect_store(f"sqlite:///{tmp_path}").trouble != ""
    assert content(tmp_path) == {}


def test_commits_that_a_kill_left_beside_the_file_are_read_and_stay_there(tmp_path: Path) -> None:
    file = killed(tmp_path)
    (tmp_path / "app.db-shm").unlink()  # as after a reboot on another machine
    before = content(tmp_path)
    facts = inspect_store(f"sqlite:///{file}")
    assert (facts.owned, facts.version, facts.damage, facts.trouble) == (False, VERSION, (), "")
    assert facts.log_bytes > 0
    assert content(tmp_path) == before


def test_an_index_that_a_kill_left_stays(tmp_path: Path) -> None:
    file = killed(tmp_path)
    before = content(tmp_path)
    assert inspect_store(f"sqlite:///{file}").damage == ()
    after = content(tmp_path)
    del before["app.db-shm"], after["app.db-shm"]
    assert after == before


async def test_a_file_that_a_process_owns_is_read_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "app.db"
    async with Platform(f"sqlite:///{file}") as platform:
        counter = platform.agent(Counter, "a")
        await counter.add(1)
        facts = inspect_store(f"sqlite:///{file}")
        assert (facts.owned, facts.owner, facts.damage, facts.trouble) == (True, os.getpid(), (), "")
        assert await counter.add(1) == 2
    async with Platform(f"sqlite:///{file}") as platform:
        assert await platform.agent(Counter, "a").add(1) == 3


async def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    file = await filled(tmp_path)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE heads SET head = x'00112233' WHERE agent LIKE '%/b'")
    connection.close()
    before = content(tmp_path)
    facts = inspect_store(f"sqlite:///{file}")
    assert facts.damage is not None and len(facts.damage) == 1 and "Counter/b" in facts.damage[0]
    assert content(tmp_path) == before


async def test_pages_that_are_torn_are_trouble_or_damage(tmp_path: Path) -> None:
    file = await filled(tmp_path)
    whole = file.read_bytes()
    for start in range(0, len(whole), 4096):
        file.write_bytes(whole[:start] + os.urandom(2048) + whole[start + 2048 :])
        facts = inspect_store(f"sqlite:///{file}")
        assert facts.damage or facts.trouble, start
    file.write_bytes(whole[: len(whole) // 2])
    facts = inspect_store(f"sqlite:///{file}")
    assert facts.damage or facts.trouble


@pytest.mark.parametrize(
    "written", [b"", b"not a database at all, but a text that is long enough to have a header of a hundred bytes, or more of them"]
)
def test_a_file_that_is_no_store_is_told_apart(tmp_path: Path, written: bytes) -> None:
    file = tmp_path / "app.db"
    file.write_bytes(written)
    facts = inspect_store(f"sqlite:///{file}")
    assert (facts.version == 0 and facts.damage is None) if written == b"" else "file is not a database" in facts.trouble
    assert content(tmp_path) == {"app.db": written}


def test_a_file_of_another_program_is_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "app.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE songs (title)")
    connection.close()
    assert "another program" in inspect_store(f"sqlite:///{file}").trouble


@pytest.mark.parametrize("version", [1, VERSION + 1])
def test_an_older_or_a_newer_format_is_looked_at_and_not_migrated(tmp_path: Path, version: int) -> None:
    file = tmp_path / "app.db"
    with sqlite3.connect(file, isolation_level=None) as connection:
        for statement in MIGRATIONS[0]:
            connection.execute(statement)
        connection.execute("PRAGMA application_id = 0x4A49444F")
        connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    before = content(tmp_path)
    facts = inspect_store(f"sqlite:///{file}")
    assert (facts.version, facts.damage) == (version, () if version == 1 else None)
    assert content(tmp_path) == before


def test_a_lock_with_nonsense_in_it_is_still_a_lock(tmp_path: Path) -> None:
    import fcntl

    file = killed(tmp_path)
    lock = os.open(f"{file}-lock", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.pwrite(lock, "²nonsense\xff".encode("latin-1"), 0)
        facts = inspect_store(f"sqlite:///{file}")
        assert (facts.owned, facts.owner) == (True, 0)
    finally:
        os.close(lock)
    assert inspect_store(f"sqlite:///{file}").owned is False
