"""Bytes that changed on the disk: found, named, and nothing written over them; whoever isn't hit goes on."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jidosystem import Agent, Platform, RecordUnreadable, action
from jidosystem.core.codec import seal
from jidosystem.core.errors import StoreError
from tests.runtime.harness import until, until_async


class Clerk(Agent):
    """Leaves one of everything behind."""

    count: int = 0
    heard: int = 0
    rung: int = 0

    @action
    async def work(self, friend: str) -> int:
        self.count += 1
        self.emit("clerk.worked", {"who": self.key, "count": self.count})
        self.cast(self.agent(Clerk, friend).hear)
        self.remind("ring", after=0.05, action=self.ring)
        return self.count

    @action
    async def hear(self) -> None:
        self.heard += 1

    @action
    async def ring(self) -> None:
        self.rung += 1

    @action(readonly=True)
    async def books(self) -> tuple[int, int, int]:
        return self.count, self.heard, self.rung


class Later(Agent):
    """Rings in an hour, so that its row is still there."""

    rung: int = 0

    @action
    async def promise(self, after_s: float) -> None:
        self.remind("ring", after=after_s, action=self.ring)

    @action
    async def ring(self) -> None:
        self.rung += 1

    @action(readonly=True)
    async def count(self) -> int:
        return self.rung


class Home(Agent, resident=True):
    """Lives from the start."""

    value: int = 0

    @action
    async def add(self) -> int:
        self.value += 1
        return self.value


AGENTS = [Clerk, Later, Home]
NAMES = "abcdef"


async def settled(platform: Platform) -> None:
    async def done() -> bool:
        return [await platform.agent(Clerk, name).books() for name in NAMES] == [(1, 1, 1)] * len(NAMES)

    await until_async(done, "the casts and reminders")


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A store with something of everything in it, closed."""
    path = tmp_path / "damage.db"
    async with Platform(f"sqlite:///{path}", agents=AGENTS) as platform:
        for name, friend in zip(NAMES, NAMES[1:] + NAMES[:1], strict=True):
            await platform.agent(Clerk, name).work(friend)
            await platform.agent(Later, name).promise(3600.0)
            await platform.agent(Home, name).add()
        await settled(platform)
    return path


def names(error: Exception, *words: str) -> None:
    assert any(word in str(error) for word in words), f"{error} names nothing"


def change(path: Path, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(path)) as file, file:
        assert file.execute(statement, values).rowcount == 1, "the damage hit nothing"


def stored(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as file:
        return file.execute(query).fetchall()


STATE_DAMAGED = seal(b"\x95\x01\x01\x01\xc4\x02\x81\xc1\xc0")
"""A head as it should be, whose state can't be decoded."""
GARBAGE = [b"", b"\x00", b"nonsense", seal(b""), seal(b"\xc1"), seal(b"nonsense"), STATE_DAMAGED, seal(b"\x91" * 2000)]


def unsealable(blob: bytes) -> bool:
    return len(blob) < 4 or seal(blob[4:]) != blob


@pytest.mark.parametrize("blob", GARBAGE, ids=lambda blob: f"{len(blob)}-{blob[:6].hex()}")
async def test_a_head_that_is_garbage_stops_its_agent_and_no_other(path: Path, blob: bytes) -> None:
    change(path, "UPDATE heads SET head = ? WHERE agent = 'Clerk/b'", blob)
    change(path, "UPDATE heads SET head = ? WHERE agent = 'Home/c'", blob)
    async with Platform(f"sqlite:///{path}", agents=AGENTS) as platform:
        for call in (platform.agent(Clerk, "b").work, platform.agent(Clerk, "b").work):
            with pytest.raises(RecordUnreadable, match="Clerk/b"):
                await call("a")
        with pytest.raises(RecordUnreadable, match="Home/c"):
            await platform.agent(Home, "c").add()
        assert await platform.agent(Clerk, "d").work("a") == 2
        assert await platform.agent(Home, "f").add() == 2
        told = {info.key: info.state for info in await platform.agents.list(type=Clerk)}
        assert list(told) == list(NAMES)  # states aren't read for a list: damage within one isn't told there
        assert [key for key, state in told.items() if state == "unreadable"] == ([] if blob == STATE_DAMAGED else ["b"])
        if unsealable(blob):
            assert any("Clerk/b" in wrong for wrong in await platform.verify())
    assert stored(path, "SELECT head FROM heads WHERE agent IN ('Clerk/b', 'Home/c')") == [(blob,), (blob,)]


@pytest.mark.parametrize("blob", GARBAGE, ids=lambda blob: f"{len(blob)}-{blob[:6].hex()}")
async def test_a_reminder_that_is_garbage_stops_its_agent_and_no_other(path: Path, blob: bytes) -> None:
    async with Platform(f"sqlite:///{path}", agents=AGENTS) as platform:
        platform._node.reminders.close()
        await platform.agent(Later, "missed").promise(0.001)
    with closing(sqlite3.connect(path)) as file, file:  # one in the past is read first at the start
        file.execute("UPDATE rows SET name = '00000000000000001', value = ? WHERE agent = 'Later/a' AND kind = 'due'", (blob,))
    async with Platform(f"sqlite:///{path}", agents=AGENTS) as platform:
        await until_async(lambda: rung(platform, "missed"), "another agent's reminder")
        with pytest.raises(RecordUnreadable, match="Later/a"):
            await platform.agent(Later, "a").count()
        assert await platform.agent(Home, "a").add() == 2
    assert stored(path, "SELECT value FROM rows WHERE agent = 'Later/a' AND kind = 'due'") == [(blob,)]


@pytest.mark.parametrize("blob", GARBAGE, ids=lambda blob: f"{len(blob)}-{blob[:6].hex()}")
async def test_effects_that_are_garbage_stop_their_agent_and_no_other(path: Path, blob: bytes) -> None:
    async with Platform(f"sqlite:///{path}", agents=AGENTS) as platform:
        await platform.agents.pause(platform.agent(Clerk, "f"))
        await platform.agent(Clerk, "e").work("f")  # its cast is still to be taken
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("INSERT INTO rows VALUES ('Clerk/0', 'pending', '0', ?, NULL, 1)", (blob,))  # before everybody else's
    async with Platform(f"sqlite:///{path}", agents=AGENTS) as platform:
        await platform.agents.resume(platform.agent(Clerk, "f"))
        await until_async(lambda: heard(platform, "f", 2), "another agent's cast")
        await until(lambda: set(NAMES) <= platform._node.hosts["Home"].live.keys(), "the residents")
    assert stored(path, "SELECT value FROM rows WHERE agent = 'Clerk/0'") == [(blob,)]


async def rung(platform: Platform, key: str) -> int:
    return await platform.agent(Later, key).count()


async def heard(platform: Platform, key: str, count: int) -> bool:
    return (await platform.agent(Clerk, key).books())[1] == count


@pytest.mark.parametrize("blob", GARBAGE, ids=lambda blob: f"{len(blob)}-{blob[:6].hex()}")
async def test_an_event_that_is_garbage_is_named_by_position_and_the_log_goes_on(path: Path, blob: bytes) -> None:
    change(path, "UPDATE events SET event = ? WHERE stream = 'Clerk/b'", blob)
    ((position,),) = stored(path, "SELECT position FROM events WHERE stream = 'Clerk/b'")
    async with Platform(f"sqlite:///{path}", agents=AGENTS) as platform:
        with pytest.raises(RecordUnreadable, match=f"position {position} "):
            _all = [event async for event in platform.events.read_all("clerk.*")]
        assert await platform.agent(Clerk, "b").work("c") == 2
        after = [event.data["who"] async for event in platform.events.read_all("clerk.*", after=position)]
        assert after == ["c", "d", "e", "f", "b"]
        assert [event.data async for event in platform.events.read("Clerk/d")] == [{"who": "d", "count": 1}]
        assert any(f"position {position} " in told for told in await platform.verify())
    assert (blob,) in stored(path, "SELECT event FROM events")


@pytest.mark.parametrize("seed", range(12))
async def test_bytes_flipped_anywhere_are_found_or_harmless_never_believed(path: Path, seed: int) -> None:
    """Whatever the bytes meant: an answer is a state that the agent had, or an error of the store; nobody is served what nobody wrote."""
    chance = random.Random(seed)
    data = bytearray(path.read_bytes())
    for _ in range(1 + seed * 2):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    try:
        async with Platform(f"sqlite:///{path}", agents=AGENTS) as platform:
            for name in NAMES:
                try:
                    assert await platform.agent(Clerk, name).books() in ((1, 1, 1), (0, 0, 0))
                except StoreError as error:
                    names(error, "Clerk/", "damage.db")
    except StoreError as error:
        names(error, "damage", "can't be read")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.6, 0.9])
async def test_a_file_cut_short_is_found_or_empty(path: Path, share: float) -> None:
    whole = path.read_bytes()
    kept = whole[: int(len(whole) * share)]
    path.write_bytes(kept)
    wrong: list[str] = []
    try:
        async with Platform(f"sqlite:///{path}", agents=AGENTS) as platform:
            wrong += await platform.verify()
            if not kept:  # a file without a byte is a new store; a backup isn't told from it
                assert await platform.agent(Clerk, "a").books() == (0, 0, 0)
                return
    except StoreError as error:
        wrong.append(str(error))
    assert wrong


@pytest.mark.parametrize("seed", range(8))
async def test_a_write_ahead_log_with_flipped_bytes_ends_there_and_what_is_left_is_whole(tmp_path: Path, seed: int) -> None:
    """What a crash left in the write-ahead log counts up to the first damaged frame: whole turns, state and log alike."""
    path, copy = tmp_path / "live.db", tmp_path / "copy.db"
    async with Platform(f"sqlite:///{path}", agents=AGENTS) as platform:
        for _ in range(10):
            await platform.agent(Clerk, "a").work("a")
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    wal = Path(f"{copy}-wal")
    data, chance = bytearray(wal.read_bytes()), random.Random(seed)
    assert len(data) > 10_000, "nothing stands in the write-ahead log"
    data[chance.randrange(32, len(data))] ^= 1 << chance.randrange(8)
    wal.write_bytes(data)
    try:
        async with Platform(f"sqlite:///{copy}", agents=AGENTS) as platform:
            count = (await platform.agent(Clerk, "a").books())[0]
            assert [event.data["count"] async for event in platform.events.read_all("clerk.*")] == [*range(1, count + 1)]
            assert await platform.verify() == []
    except StoreError as error:
        names(error, "copy.db")
