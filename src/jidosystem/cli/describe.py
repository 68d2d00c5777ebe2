"""`jido describe`: one agent with its durable fields and when its reminders are due, or an agent type with its fields and actions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from . import node
from .call import address
from .node import NodeOption
from .output import Json, colour, tell, tell_json

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def describe(
    what: Annotated[str, typer.Argument(help="An agent (Counter/home) or an agent type (Counter).")],
    node_name: NodeOption = None,
    as_json: Json = False,
) -> None:
    """Show an agent with its durable fields, or an agent type with its fields and actions."""
    if "/" in what:
        type_name, key = address(what)
        found = node.ask(node.find(node_name), "GET", node.path_of("agents", type_name, key))
    else:
        found = node.ask(node.find(node_name), "GET", node.path_of("types", what))
    if as_json:
        if "/" in what:
            found["due_in_s"] = {name: round(_seconds_until(time), 3) for name, time in _times(found["due"]).items()}
        tell_json(found)
    elif "/" in what:
        _show_agent(found)
    else:
        _show_type(found)


def _show_agent(agent: Mapping[str, Any]) -> None:
    tell(colour(f"{agent['type']}/{agent['key']}", "bold"))
    if agent["state"] == "passive" and not agent["turns"]:
        meant = " or ".join(f"{agent['type']}/{key}" for key in agent["near"])
        tell(f"  nothing is stored of it{f'; did you mean {meant}?' if meant else ''}")
        tell("  its first call begins with:")
    else:
        _show_standing(agent)
    for name, value in (agent["fields"] or {}).items():
        tell(f"  .{name} = {json.dumps(value, ensure_ascii=False)}")


def _show_standing(agent: Mapping[str, Any]) -> None:
    for name in ("state", "node", "version", "turns", "revision", "queued", "pending_effects", "reminders", "children", "cause"):
        value = agent[name]
        if name == "reminders":
            _show_reminders(agent["due"])
        elif value not in (None, "", [], 0):
            tell(f"  {name}: {', '.join(value) if isinstance(value, list) else value}")


def _show_reminders(due: Mapping[str, str]) -> None:
    """The next due first, in the zone of whoever looks."""
    for name, time in sorted(_times(due).items(), key=lambda each: each[1]):
        tell(f"  reminder {name}: {time.astimezone():%Y-%m-%d %H:%M:%S %Z}, {distance(_seconds_until(time))}")


def _times(due: Mapping[str, str]) -> dict[str, datetime]:
    return {name: datetime.fromisoformat(time) for name, time in due.items()}


def _seconds_until(time: datetime) -> float:
    return (time - datetime.now(UTC)).total_seconds()


def distance(seconds: float) -> str:
    """How far away a moment is, in its two largest units: "in 2 h 5 min", "3 s ago"."""
    rest, told = round(abs(seconds)), list[str]()
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count and len(told) < 2:
            told.append(f"{count:,} {unit}")
        elif told:
            break
    words = " ".join(told)
    return "now" if not words else f"in {words}" if seconds > 0 else f"{words} ago"


def _show_type(kind: Mapping[str, Any]) -> None:
    tell(colour(f"{kind['name']} (version {kind['version']})", "bold"))
    for line in kind["description"].splitlines():
        tell(f"  {line}".rstrip())
    for title, lines in (
        ("fields", [f"{name}: {hint}" for name, hint in kind["fields"].items()]),
        ("actions", [_action(name, spec) for name, spec in kind["actions"].items()]),
        ("events", [f"{pattern} -> {name}" for name, pattern in kind["events"].items()]),
    ):
        if lines:
            tell(colour(title, "bold"))
            for line in lines:
                tell(f"  {line}")


def _action(name: str, spec: Mapping[str, Any]) -> str:
    first = spec["description"].partition("\n")[0]
    return f"{name}{spec['signature']}{'  read-only' if spec['readonly'] else ''}{f'  # {first}' if first else ''}"
