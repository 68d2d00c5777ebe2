"""`jido config`: the configuration of a running node, read and changed."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..core.near import near
from . import node
from .call import parse
from .node import NodeOption
from .output import Json, table, tell, tell_json


class Configuring(TyperGroup):
    """A word that is no command is answered with a near one, or with all that there are."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first argument names."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            others = f"; there are {', '.join(self.commands)}, and `jido config get` without a path prints all values"
            ctx.fail(f"there is no command {args[0]!r}{near(args[0], self.commands) or others}")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Configuring, rich_markup_mode=None, add_completion=False, no_args_is_help=False, help="Read and change the configuration."
)  # fmt: skip


@app.command()
def get(
    path: Annotated[str | None, typer.Argument(help="section.key; left out: everything.")] = None,
    node_name: NodeOption = None,
    as_json: Json = False,
) -> None:
    """Print a value, or the whole configuration."""
    found = node.find(node_name)
    if path is not None:
        value = node.ask(found, "GET", node.path_of("config", path))["value"]
        tell_json(value) if as_json or not isinstance(value, str) else tell(value)
        return
    sections = node.ask(found, "GET", node.path_of("config"))
    if as_json:
        tell_json(sections)
        return
    for name, section in sections.items():
        for key, value in section.items():
            tell(f"{name}.{key} = {json.dumps(value, ensure_ascii=False)}")


@app.command(name="set")
def set_value(
    path: Annotated[str, typer.Argument(help="section.key")],
    value: Annotated[str, typer.Argument(help="JSON, or else text.")],
    node_name: NodeOption = None,
    as_json: Json = False,
) -> None:
    """Validate, store and apply a value, on every node."""
    try:
        sent = parse(value)
    except (ValueError, RecursionError):
        sent = value
    answer = node.ask(node.find(node_name), "PUT", node.path_of("config", path), body=json.dumps(sent).encode())
    tell_json(answer) if as_json else tell(f"{path} = {json.dumps(answer['value'], ensure_ascii=False)} (version {answer['version']})")


@app.command()
def history(node_name: NodeOption = None, as_json: Json = False) -> None:
    """List the stored updates, the oldest first."""
    versions = node.ask(node.find(node_name), "GET", node.path_of("config", "history"))["versions"]
    if as_json:
        tell_json(versions)
    elif versions:
        from datetime import UTC, datetime

        rows = [(v["version"], datetime.fromtimestamp(v["time_s"], UTC).isoformat(" ", "seconds"), v["path"]) for v in versions]
        table(("VERSION", "TIME", "CHANGED"), rows)


@app.command()
def rollback(
    version: Annotated[int, typer.Argument(help="A version of `history`; 0: no stored updates.")],
    node_name: NodeOption = None,
    as_json: Json = False,
) -> None:
    """Make the stored updates what they were at a version."""
    answer = node.ask(node.find(node_name), "POST", node.path_of("config", "rollback"), body={"version": version})
    tell_json(answer) if as_json else tell(f"version {answer['version']} is what version {version} was")
