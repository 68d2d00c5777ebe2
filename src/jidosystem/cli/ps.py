"""`jido ps`: the agents of a running node, a page at a time, and how many there are."""

from __future__ import annotations

from typing import Annotated

import typer

from . import node
from .node import NodeOption
from .output import Json, say, table, tell, tell_json, usage

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(context_settings={"allow_extra_args": True})
def ps(
    ctx: typer.Context,
    type_name: Annotated[str | None, typer.Option("--type", help="Only agents of this type.")] = None,
    state: Annotated[str | None, typer.Option("--state", help="Only agents in this state, for example failed.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000, help="How many to show.")] = 20,
    after: Annotated[str, typer.Option("--after", help="Go on after this agent.")] = "",
    node_name: NodeOption = None,
    as_json: Json = False,
) -> None:
    """List agents by type and key, with totals per type."""
    if ctx.args:
        word = ctx.args[0]
        hint = f"`jido describe {word}` shows one agent" if "/" in word else f"`jido ps --type {word}` lists the agents of one type"
        raise usage(f"ps takes options only, not {word!r}", hint)
    found = node.find(node_name)
    query = {"type": type_name, "state": state, "limit": limit, "after": after}
    answer = node.ask(found, "GET", node.path_of("agents"), query=query)
    if as_json:
        tell_json(answer)
        return
    agents = answer["agents"]
    if agents:
        rows = [(f"{a['type']}/{a['key']}", a["state"], a["turns"], a["queued"], a["cause"]) for a in agents]
        causes = any(row[-1] for row in rows)
        head = ("AGENT", "STATE", "TURNS", "QUEUED", "CAUSE")
        table(head if causes else head[:-1], rows if causes else [row[:-1] for row in rows])
        tell("")
    for name, total in answer["totals"].items():
        tell(f"{name}: {total['stored']:,} stored, {total['live']:,} live")
    if answer["next"] is not None:
        say(f"more: --after {answer['next']}", "dim")
