"""`jido cluster`: the nodes of a cluster, asked of any of them, draining one, and alerts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from . import node
from .node import NodeOption
from .output import Json, say, table, tell, tell_json

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=False, help="Show the nodes of a cluster, drain one; alerts.")


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


@app.command()
def undrain(
    name: Annotated[str, typer.Argument(help="A node that drains.")],
    node_name: NodeOption = None,
    as_json: Json = False,
) -> None:
    """Have a node that was drained take agents again. Its share of those that there are comes back slowly, idle ones first."""
    answer = node.ask(node.find(node_name), "POST", node.path_of("cluster", "undrain", name))
    tell_json(answer) if as_json else tell(f"{answer['undrained']} takes agents again")


@app.command()
def alerts(
    clear: Annotated[tuple[str, str] | None, typer.Option("--clear", metavar="KIND ABOUT", help="End an alert by hand.")] = None,
    node_name: NodeOption = None,
    as_json: Json = False,
) -> None:
    """List what somebody has to look at, the oldest first. An alert ends by itself when what it tells is over."""
    found = node.find(node_name)
    if clear is not None:
        answer = node.ask(found, "DELETE", node.path_of("alerts", *clear))
        tell_json(answer) if as_json else tell("cleared" if answer["cleared"] else "there is no such alert")
        return
    answer = node.ask(found, "GET", node.path_of("alerts"))
    if as_json:
        tell_json(answer)
        return
    rows = [(_moment(one["since_s"]), *(one[name] for name in ("level", "kind", "about", "told"))) for one in answer["alerts"]]
    table(("SINCE", "LEVEL", "KIND", "ABOUT", "TOLD"), rows)


def _moment(time_s: float) -> str:
    return f"{datetime.fromtimestamp(time_s).astimezone():%Y-%m-%d %H:%M:%S}"
