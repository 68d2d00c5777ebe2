"""The pages on the command line and on the HTTP API say what the programs themselves say."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from jidosystem import Platform
from jidosystem.api.http.answers import STATUS
from jidosystem.api.http.gateway import application
from jidosystem.cli import main, output
from jidosystem.cli.app import COMMANDS, Commands, app

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
CLI = (REFERENCE / "cli.md").read_text()
HTTP = (REFERENCE / "http.md").read_text()


def commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The command and everything below it."""
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))


def every_command() -> list[tuple[str, ...]]:
    group = typer.main.get_command(app)
    assert isinstance(group, Commands)
    return [path for name in COMMANDS for path in commands(group.get_command(None, name), (name,))]


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_the_help_of_every_command_is_on_its_page(path: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERMINAL_WIDTH", "100")
    assert main([*path, "--help"]) == 0
    told = capsys.readouterr().out.strip()
    heading = f"## `jido {' '.join(path)}`"
    assert heading in CLI
    block = re.search(r"```text\n(.*?)```", CLI[CLI.index(heading) :], flags=re.DOTALL)
    assert block is not None
    assert block[1].strip() == told


def test_no_command_is_on_the_page_that_is_not_there() -> None:
    assert set(re.findall(r"^## `jido (.+)`$", CLI, flags=re.MULTILINE)) >= {" ".join(path) for path in every_command()}
    assert {name.split()[0] for name in re.findall(r"^## `jido (.+)`$", CLI, flags=re.MULTILINE)} <= set(COMMANDS)


def test_every_exit_code_is_on_the_page() -> None:
    codes = {output.OK, output.FAILED, output.USAGE, output.NO_NODE, output.INTERRUPTED}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", CLI, flags=re.MULTILINE)} == codes


def test_every_route_is_on_the_page_and_no_other() -> None:
    async def routes() -> set[tuple[str, str]]:
        async with Platform() as platform:
            paths = application(platform, closing=asyncio.Event()).openapi()["paths"]
        return {(method.upper(), path) for path, methods in paths.items() for method in methods}

    told = set(re.findall(r"^\| `([A-Z]+) ([^` ]+)` \|", HTTP, flags=re.MULTILINE))
    assert told == asyncio.run(routes())


def test_every_status_is_on_the_page() -> None:
    told = dict.fromkeys(int(status) for status in re.findall(r"^\| (\d{3}) \|", HTTP, flags=re.MULTILINE))
    assert {status for _kind, status in STATUS} | {401, 405, 421, 500} <= set(told)
