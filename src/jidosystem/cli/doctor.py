"""`jido doctor`: what a person would look at, what it means, and what to do. Nothing is changed."""

from __future__ import annotations

import shutil
import stat
import sys
import textwrap
from collections.abc import Iterator
from typing import Annotated

import typer

from ..api.doctor import Finding, examine
from . import node as nodes
from .output import FAILED, Failure, Json, Quiet, colour, say, tell, tell_json

app = typer.Typer(rich_markup_mode=None, add_completion=False)
_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}
CLUSTER_S = 10.0
"""How long a node may take to ask its servers."""
_INDENT = " " * 9


@app.command()
def doctor(
    store: Annotated[str | None, typer.Option(help="A store to look at: sqlite:///app.db", metavar="URL", show_default=False)] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Don't read the whole store.")] = False,
    as_json: Json = False,
) -> None:
    """Look for what is wrong with this machine, the installation, jido.toml, the nodes that run here and a store.

    Nothing is created, migrated or written. The exit code is 1 if there is a problem; warnings leave it at 0.
    """
    if store is not None and not quick and sys.stderr.isatty():
        say(f"reading {store} ...", "dim")
    found: list[Finding] = []
    for finding in (*examine(store, whole=not quick), *node_files()):
        found.append(finding)
        if not as_json:
            show(finding)
    problems = sum(finding.level == "problem" for finding in found)
    warnings = sum(finding.level == "warning" for finding in found)
    if as_json:
        tell_json({"findings": [finding._asdict() for finding in found], "problems": problems, "warnings": warnings})
    else:
        say(f"\n{_counted(problems, 'problem')}, {_counted(warnings, 'warning')}.")
    if problems:
        raise Quiet(FAILED)


def show(finding: Finding) -> None:
    """One finding: a line, and what to do below it, as wide as the terminal."""
    room = max(20, shutil.get_terminal_size().columns - len(_INDENT)) if sys.stdout.isatty() else 100_000
    lines = [line for text in (f"{finding.check}: {finding.found}", finding.advice) for line in textwrap.wrap(text, room, break_on_hyphens=False)]
    tell(f"{colour(f'{finding.level:<8}', _COLOURS[finding.level])} {lines[0]}")
    for line in lines[1:]:
        tell(f"{_INDENT}{line}")


def node_files() -> Iterator[Finding]:
    """What nodes of this user have written down, without tidying it up."""
    folder = nodes.folder()
    if not folder.is_dir():
        yield Finding("nodes", "ok", "none runs here")
        return
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        yield Finding("nodes", "problem", f"{folder} isn't this user's alone", f"chmod 700 {folder}: the tokens of nodes stand there")
    running: list[str] = []
    clusters: list[nodes.NodeFile] = []
    for path in sorted(folder.glob("*.json")):
        found = nodes._read(path)
        if isinstance(found, str):
            yield Finding("nodes", "problem", found, "no command can use it")
        elif found is not None and nodes._lives(found.pid):
            running.append(f"{found.name} (process {found.pid}, {found.program})")
            clusters.append(found)
        elif found is not None:
            yield Finding(
                "nodes", "warning", f"{path} tells of {found.name}, which is gone", "it was killed; the next command that looks for nodes removes it"
            )
    yield Finding("nodes", "ok", ", ".join(running) or "none runs here")
    yield from cluster_servers(clusters)


def cluster_servers(running: list[nodes.NodeFile]) -> Iterator[Finding]:
    """In what the NATS servers of nodes that run here are set up weaker than they are to be; a node of no cluster says nothing."""
    told: dict[str, None] = {}
    names: list[str] = []
    for one in running:
        try:
            answer = nodes.ask(one, "GET", nodes.path_of("cluster"), patience_s=CLUSTER_S)
        except Failure as failure:
            if failure.code != "invalid-arguments":
                yield Finding("cluster", "warning", str(failure), "look at its log")
            continue
        names.append(one.name)
        told.update(dict.fromkeys(answer["weaknesses"]))
    for weakness in told:
        yield Finding("cluster", "warning", weakness, "after a power cut of all of them what was acknowledged may be missing")
    if names and not told:
        yield Finding("cluster", "ok", f"the NATS servers of {', '.join(names)} write before they acknowledge")


def _counted(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
