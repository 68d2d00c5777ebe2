"""Folders that are watched: what is there, what comes, what changes, each given until a good run had it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jidosystem import Agent, Item, Platform, action, field, sensor
from jidosystem.core.errors import InvalidKey
from jidosystem.runtime.folders import files_in, folder_of
from tests.runtime.harness import until, until_async

pytest.importorskip("watchfiles", reason="the extra `server` isn't installed")

runs: list[list[str]] = []
failures: list[Exception] = []


@pytest.fixture(autouse=True)
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory's folder that agents watch."""
    monkeypatch.chdir(tmp_path)
    runs.clear()
    failures.clear()
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


class Inbox(Agent):
    """Takes lines of files, each once."""

    lines: list[str] = field(default_factory=list)

    @sensor(watch="inbox", action="take")
    async def files(self, files: list[Path], position: tuple[str, int] | None) -> AsyncIterator[Item[str]]:
        runs.append([file.name for file in files])
        if failures:
            raise failures.pop()
        for file in files:
            for number, line in enumerate(file.read_text().splitlines()):
                if position is None or (file.name, number) > tuple(position):
                    yield Item(line, position=(file.name, number))

    @action
    async def take(self, line: str) -> None:
        self.lines.append(line)

    @action(readonly=True)
    async def seen(self) -> list[str]:
        return self.lines


async def has_seen(platform: Platform, *lines: str, key: str = "a") -> None:
    agent = platform.agent(Inbox, key)

    async def seen() -> bool:
        return await agent.seen() == list(lines)

    await until_async(seen, f"having seen {lines}")


def put(folder: Path, name: str, text: str) -> None:
    """As one should: written under another name, and moved when it is whole."""
    (folder / f".{name}").write_text(text)
    os.replace(folder / f".{name}", folder / name)


@pytest.mark.blocking
async def test_what_is_there_and_what_comes_is_taken(inbox: Path) -> None:
    put(inbox, "b", "3\n4\n")
    put(inbox, "a", "1\n2\n")
    (inbox / "folder").mkdir()
    async with Platform() as platform:
        await has_seen(platform, "1", "2", "3", "4")
        put(inbox, "c", "5\n")
        await has_seen(platform, "1", "2", "3", "4", "5")
    assert runs == [["a", "b"], ["c"]]


@pytest.mark.blocking
async def test_what_came_while_nothing_ran_is_taken_and_nothing_twice(inbox: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/agents.db"
    put(inbox, "a", "1\n2\n")
    async with Platform(url) as platform:
        await has_seen(platform, "1", "2")
    put(inbox, "b", "3\n")
    async with Platform(url, agents=[Inbox]) as platform:
        await until(lambda: ["a", "b"] in runs)
        await has_seen(platform, "1", "2", "3")


@pytest.mark.blocking
async def test_a_run_that_fails_gets_the_same_files_again(inbox: Path) -> None:
    failures.append(OSError("the disk hiccups"))
    put(inbox, "a", "1\n")
    async with Platform() as platform:
        await has_seen(platform, "1")
    assert runs == [["a"], ["a"]]


@pytest.mark.blocking
async def test_a_file_that_changes_is_given_again(inbox: Path) -> None:
    put(inbox, "a", "1\n")
    async with Platform() as platform:
        await has_seen(platform, "1")
        put(inbox, "a", "1\n2\n")
        await has_seen(platform, "1", "2")


@pytest.mark.blocking
async def test_a_folder_that_isnt_there_is_told_and_taken_when_it_comes(inbox: Path, caplog: pytest.LogCaptureFixture) -> None:
    inbox.rmdir()
    async with Platform() as platform:
        assert await platform.agent(Inbox, "a").seen() == []
        await until(lambda: "there is no folder 'inbox' in" in caplog.text)
        inbox.mkdir()
        put(inbox, "a", "1\n")
        await has_seen(platform, "1")
        for file in inbox.iterdir():
            file.unlink()
        inbox.rmdir()
        await until(lambda: caplog.text.count("there is no folder 'inbox' in") > 1)
        inbox.mkdir()
        put(inbox, "b", "2\n")
        await has_seen(platform, "1", "2")


@pytest.mark.blocking
async def test_many_agents_watch_folders_of_their_own_with_one_watcher(inbox: Path) -> None:
    got: dict[str, list[str]] = {}

    class Own(Agent):
        @sensor(watch="inbox/{key}", action="take")
        async def files(self, files: list[Path]) -> AsyncIterator[str]:
            for file in files:
                yield file.name

        @action
        async def take(self, name: str) -> None:
            got.setdefault(self.key, []).append(name)

    keys = [f"k{n}" for n in range(60)]
    for key in keys:
        (inbox / key).mkdir()
    async with Platform() as platform:
        for key in keys:
            await platform.agents.start(Own, key)
        for key in keys:
            put(inbox / key, f"for {key}", "")
        await until(lambda: got == {key: [f"for {key}"] for key in keys})
        await platform.agents.stop(platform.agent(Own, "k0"))
        put(inbox / "k1", "more", "")
        await until(lambda: got["k1"] == ["for k1", "more"])
    assert {*asyncio.all_tasks()} == {asyncio.current_task()}


@pytest.mark.parametrize("key", ["..", "a/b", "../x", ".hidden", "/etc"])
def test_a_key_that_would_lead_elsewhere_has_no_folder(key: str) -> None:
    with pytest.raises(InvalidKey, match="can't stand for"):
        folder_of("inbox/{key}", key)
    assert folder_of("inbox", key) == Path("inbox")


def test_only_plain_files_that_arent_hidden_count(inbox: Path) -> None:
    put(inbox, "a", "1")
    (inbox / ".hidden").write_text("")
    (inbox / "folder").mkdir()
    os.symlink(inbox / "nowhere", inbox / "dangling")
    os.mkfifo(inbox / "pipe")
    assert [path.name for path in files_in(inbox)] == ["a"]
