"""`jido new`: a project with an agent, a test and a README, that runs as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..api.scaffold import project_files, write_project
from .output import Json, say, tell, tell_json

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Its name, for example my-shop.", show_default=False)],
    source: Annotated[str | None, typer.Option(help="A wheel of JidoSystem, or a checkout, to depend on.", metavar="PATH")] = None,
    as_json: Json = False,
) -> None:
    """Make a project: a folder NAME with an agent, its test, settings and a README.

    The folder is written whole or not at all, and never into one that has something in it.
    """
    content = project_files(name, source)
    place = write_project(Path.cwd(), name, content)
    if as_json:
        tell_json({"project": str(place), "files": sorted(content)})
        return
    for path in sorted(content):
        tell(f"{name}/{path}")
    say(f"\n{name} is made. Next:\n\n  cd {name}\n  pip install -e '.[test]'\n  pytest\n\nREADME.md says how to run it and how to call it.")
