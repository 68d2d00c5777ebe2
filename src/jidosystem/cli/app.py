"""The commands of `jido`: their names, one line on each, and the module that is imported once one of them is run.

`jido --help` reads this table alone. A command's module has an `app`, a `typer.Typer` with one command or a group of them.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..core.near import near
from .output import FAILED, INTERRUPTED, OK, USAGE, Quiet, prepare, tell, told
from .plain import read_plainly

COMMANDS = {
    "new": "Make a project: an agent, its test and a README.",
    "generate": "Add an agent or a sensor to a project.",
    "run": "Host the agents of a program.",
    "dev": "Host them, and reload the program on every save.",
    "call": "Call an action of an agent.",
    "ps": "List agents.",
    "describe": "Show an agent, or an agent type.",
    "events": "Follow, list and replay events; dead letters.",
    "cluster": "Show the nodes of a cluster, drain one; alerts.",
    "config": "Read and change the configuration.",
    "doctor": "Look for what is wrong here.",
    "bench": "Measure this machine.",
}
"""Each is the module `cli/<name>.py`."""


class Commands(TyperGroup):
    """The commands by name, imported when they are needed."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name, or None."""
        if cmd_name not in COMMANDS:
            return None
        app: typer.Typer = importlib.import_module(f".{cmd_name}", __package__).app
        command = typer.main.get_command(app)
        command.name = cmd_name
        read_plainly(command)
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first argument names, or an error that names near ones."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            others = f"; there are {', '.join(COMMANDS)}"
            ctx.fail(f"there is no command {args[0]!r}{near(args[0], COMMANDS) or others}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The table, without importing what stands behind it."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    name="jido", cls=Commands, rich_markup_mode=None, add_completion=False, invoke_without_command=True, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@app.callback()
def jido(ctx: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Durable autonomous agents: run programs, and talk to the nodes that run them."""
    if version:
        from .. import __version__

        tell(f"jidosystem {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        tell(ctx.get_help())
        raise typer.Exit(USAGE)


def run(arguments: list[str]) -> int:
    """Run one command; whatever goes wrong is told in one shape, and returned as an exit code."""
    prepare()
    as_json = "--json" in arguments
    try:
        try:
            return _done(arguments)
        except Exception as error:
            if isinstance(error, BrokenPipeError):
                raise
            return told(error, as_json=as_json)
    except BrokenPipeError:  # whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere, in silence
        return FAILED


def _done(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    read_plainly(command)
    try:
        code = command.main(arguments, prog_name="jido", standalone_mode=False)
        sys.stdout.flush()
    except Quiet as quiet:
        return quiet.code
    except typer.Abort:
        return INTERRUPTED
    return code if isinstance(code, int) else OK
