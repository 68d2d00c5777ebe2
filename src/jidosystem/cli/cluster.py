"""`jido cluster`: the nodes of a cluster, asked of any of them, and draining one."""

from __future__ import annotations

from typing import Annotated

import typer

from . import node
from .node import NodeOption
from .output import Json, say, table, tell, tell_json

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=False, help="Show the nodes of a cluster, and drain one.")


@app.command()
def status(node_name: NodeOption = None, as_json: Json = False) -> None:
    """List the nodes that live, with their state and how many agents live there, as the node that is asked sees them."""
    answer = node.ask(node.find(node_name), "GET", node.path_of("cluster"))
    if as_json:
        tell_json(answer)
        return
    rows = [(one["name"], one["state"], "?" if one["agents"] is None else one["agents"], one["incarnation"]) for one in answer["nodes"]]
    table(("NODE", "STATE", "AGENTS", "INCARNATION"), rows)
    for weakness in answer["weaknesses"]:
        say(weakness, "bold")


@app.command()
def drain(
    name: Annotated[str, typer.Argument(help="A node of the cluster, as `jido cluster status` names it.")],
    node_name: NodeOption = None,
    as_json: Json = False,
) -> None:
    """Have a node give its agents to the others. Returns at once; `jido cluster status` shows how many are left.

    No call fails: calls wait and follow their agents. The node takes no new agents, answers what it is asked, and stays drained until its
    process is ended (Ctrl-C, SIGTERM), which leaves nothing to be moved.
    """
    answer = node.ask(node.find(node_name), "POST", node.path_of("cluster", "drain", name))
    tell_json(answer) if as_json else tell(f"{answer['draining']} drains")
