"""`jido generate`: an agent or a sensor for the project in the working directory, each with its test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..api.scaffold import write_modules
from ..api.scaffold_agent import Project, agent_files, find_project
from ..core.near import near
from .output import Json, say, tell, tell_json

Force = Annotated[bool, typer.Option("--force", help="Write over what is there.")]


class Kinds(TyperGroup):
    """What can be generated; a wrong word is answered with a near one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first argument names."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            others = f"; there are {', '.join(self.commands)}"
            ctx.fail(f"there is no {args[0]!r} to generate{near(args[0], self.commands) or others}")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Kinds,
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    help="Add an agent or a sensor, with its test, to the project that you are in.",
)


@app.command()
def agent(
    name: Annotated[str, typer.Argument(help="Its class, for example Invoice.", show_default=False)],
    fields: Annotated[list[str] | None, typer.Argument(help="Its fields: name:type=default, for example total:Decimal.", show_default=False)] = None,
    action: Annotated[list[str] | None, typer.Option(help="An action: 'pay(total, note:str)'.", show_default=False)] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write an agent and its test.

    For example: jido generate agent Invoice total:Decimal paid:bool=false tags:list[str] --action 'pay(paid, note:str)'

    An argument that is named like a field has its type and sets it; each action tells of itself by an event. Without --action there is
    one, change, that sets every field.
    """
    project = find_project(Path.cwd())
    _write(project, agent_files(project, name, fields or (), action or ()), force=force, as_json=as_json)


@app.command()
def sensor(
    name: Annotated[str, typer.Argument(help="Its class, for example Prices.", show_default=False)],
    every: Annotated[float | None, typer.Option(help="Look again after so many seconds.", metavar="SECONDS")] = None,
    cron: Annotated[str | None, typer.Option(help="Look by the clock, in UTC: '0 7 * * *'.", metavar="EXPRESSION")] = None,
    watch: Annotated[str | None, typer.Option(help="Take files that are new or changed in a folder.", metavar="FOLDER")] = None,
    http: Annotated[str | None, typer.Option(help="Take what is sent to a path: /hooks/{key}.", metavar="PATH")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write an agent with a sensor, and its test. Each item that the sensor yields is one turn of the agent.

    Exactly one of --every, --cron, --watch and --http says when it runs.
    """
    from ..api.scaffold_sensor import sensor_files

    project = find_project(Path.cwd())
    _write(project, sensor_files(project, name, every=every, cron=cron, watch=watch, http=http), force=force, as_json=as_json)


def _write(project: Project, content: dict[str, str], *, force: bool, as_json: bool) -> None:
    app_path = f"{project.folder}/app.py"
    written = write_modules(project.root, content, replace=frozenset({app_path}), force=force)
    if as_json:
        tell_json({"files": sorted(written), "hosted": app_path in content})
        return
    for path in sorted(written):
        tell(path)
    if app_path not in content:
        module = next(iter(content)).removesuffix(".py").replace("/", ".").removeprefix("src.")
        say(f"\n{app_path} isn't as `jido new` made it, and was left alone: import {module} there, so that `jido run` hosts it.")
