"""`jido events`: the events of a running node, as they come or as they are stored, and its dead letters."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from . import node
from .node import NodeFile, NodeOption
from .output import NO_NODE, Failure, Json, colour, say, table, tell, tell_json

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=False, help="Follow, list and replay events; dead letters.")
letters_app = typer.Typer(
    rich_markup_mode=None, add_completion=False, no_args_is_help=False, help="What kept failing: list it, run it again, clear it."
)
app.add_typer(letters_app, name="dead-letters")

COME_BACK_S = 10.0
"""How long a follower waits for a node that reloads."""

Pattern = Annotated[str, typer.Argument(help="Types of events: * is one word, ** any number of them.")]
Stream = Annotated[str | None, typer.Option("--stream", help="Only events of this stream.")]
Source = Annotated[str | None, typer.Option("--source", help="event, cast, reminder or sensor.")]


@app.command()
def tail(
    pattern: Pattern = "**",
    stream: Stream = None,
    after: Annotated[int | None, typer.Option("--after", min=0, help="Begin after this position; by default with what comes.")] = None,
    node_name: NodeOption = None,
    as_json: Json = False,
) -> None:
    """Print events as they are stored, until Ctrl-C."""
    found = node.find(node_name)
    for event in _following(found, {"pattern": pattern, "stream": stream, "after": after}):
        _tell_event(event, as_json)


def _following(found: NodeFile, query: dict[str, Any]) -> Iterator[Any]:
    """The events of a stream that is taken up again where it ended, if the node comes back in time."""
    gone_s: float | None = None
    while True:
        try:
            for event in node.follow(found, node.path_of("events", "follow"), query):
                gone_s = None
                query["after"] = event["position"]
                yield event
        except Failure as failure:
            if gone_s is None or failure.exit_code != NO_NODE or time.monotonic() - gone_s > COME_BACK_S:
                raise
        if gone_s is None:
            gone_s = time.monotonic()
            say("the node ended the stream; waiting for it to come back ...", "dim")
        time.sleep(0.2)


@app.command(name="list")
def list_events(
    pattern: Pattern = "**",
    stream: Stream = None,
    after: Annotated[int, typer.Option("--after", min=0, help="Begin after this position.")] = 0,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000, help="How many to show.")] = 100,
    node_name: NodeOption = None,
    as_json: Json = False,
) -> None:
    """Print stored events in order."""
    query = {"pattern": pattern, "stream": stream, "after": after, "limit": limit}
    answer = node.ask(node.find(node_name), "GET", node.path_of("events"), query=query)
    if as_json:
        tell_json(answer)
        return
    for event in answer["events"]:
        _tell_event(event, as_json=False)
    if not answer["events"]:
        _say_none(pattern, stream, after)
    if answer["next"] is not None:
        say(f"more: --after {answer['next']}", "dim")


@app.command()
def replay(
    stream: Annotated[str, typer.Argument(help="A stream, for example Counter/home.")],
    after: Annotated[int, typer.Option("--after", min=0, help="Begin after this position.")] = 0,
    node_name: NodeOption = None,
    as_json: Json = False,
) -> None:
    """Print all events of a stream, to its present end."""
    event = None
    for event in node.follow(node.find(node_name), node.path_of("events", "replay"), {"stream": stream, "after": after}):
        _tell_event(event, as_json)
    if event is None and not as_json:
        _say_none("**", stream, after)


def _say_none(pattern: str, stream: str | None, after: int) -> None:
    fitting = f" that fit {pattern}" if pattern != "**" else ""
    say(f"no events{fitting}{f' in {stream}' if stream is not None else ''}{f' after position {after}' if after else ''}", "dim")


def _tell_event(event: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        tell_json(event)
        return
    data = json.dumps(event.get("data"), ensure_ascii=False)
    tell(f"{colour(str(event['position']), 'dim')} {colour(event['type'], 'cyan')} {event['stream']} {data}")


# -- dead letters ------------------------------------------------------------------------------------------------


@letters_app.command(name="list")
def list_letters(
    source: Source = None,
    name: Annotated[str | None, typer.Option("--name", help="The subscription, the receiver of a cast or the reminder.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000, help="How many to show.")] = 100,
    node_name: NodeOption = None,
    as_json: Json = False,
) -> None:
    """List the dead letters, the oldest first."""
    query = {"source": source, "name": name, "limit": limit}
    letters = node.ask(node.find(node_name), "GET", node.path_of("dead-letters"), query=query)["dead_letters"]
    if as_json:
        tell_json(letters)
    elif letters:
        table(("ID", "SOURCE", "NAME", "AGENT", "ERROR"), [(x["id"], x["source"], x["name"], x["agent"] or "", x["error"]) for x in letters])
    else:
        say("no dead letters", "dim")


@letters_app.command()
def redrive(
    letter: Annotated[str, typer.Argument(metavar="ID", help="The id of a dead letter.")],
    node_name: NodeOption = None,
    as_json: Json = False,
) -> None:
    """Run a dead letter again; it is removed once that has worked."""
    answer = node.ask(node.find(node_name), "POST", node.path_of("dead-letters", letter, "redrive"), patience_s=60)
    tell_json(answer) if as_json else tell(f"redriven: {letter}")


@letters_app.command()
def clear(source: Source = None, node_name: NodeOption = None, as_json: Json = False) -> None:
    """Remove the dead letters of one source, or all, for good."""
    answer = node.ask(node.find(node_name), "DELETE", node.path_of("dead-letters"), query={"source": source}, patience_s=60)
    tell_json(answer) if as_json else tell(f"cleared: {answer['cleared']}")
