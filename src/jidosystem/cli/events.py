"""`jido events`: the events of a running node, as they come or as they are stored, and its dead letters."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from . import node
from .node import NodeFile, NodeOption
from .output import NO_NODE, Failure, Json, colour, say, table, tell, tell_json, usage

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
Name = Annotated[str | None, typer.Option("--name", help="The subscription, the receiver of a cast or the reminder.")]


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
    name: Name = None,
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
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="The ids of dead letters.")] = None,
    source: Source = None,
    name: Name = None,
    everything: Annotated[bool, typer.Option("--all", help="All that there are.")] = False,
    node_name: NodeOption = None,
    as_json: Json = False,
) -> None:
    """Run dead letters again; each is removed once that has worked."""
    chosen = [each is not None and each != [] for each in (ids, source or name, everything or None)]
    if sum(chosen) != 1:
        hint = "name ids, or --source or --name for those of one kind, or --all"
        raise usage("which dead letters?" if not any(chosen) else "ids, --source or --name, and --all exclude each other", hint)
    found = node.find(node_name)
    redriven: list[str] = []
    failed: dict[str, Failure] = {}
    for letter in dict.fromkeys(ids) if ids else _listed(found, source, name):
        try:
            node.ask(found, "POST", node.path_of("dead-letters", letter, "redrive"), patience_s=60)
        except Failure as failure:
            if failure.exit_code == NO_NODE:
                raise
            failed[letter] = failure
        else:
            redriven.append(letter)
            if not as_json:
                tell(f"redriven: {letter}")
    if as_json:
        tell_json({"redriven": redriven})
    elif not redriven and not failed:
        say("no dead letters", "dim")
    if failed:
        raise _not_redriven(failed, len(redriven))


def _listed(found: NodeFile, source: str | None, name: str | None) -> Iterator[str]:
    """Each of a kind once, the oldest first; those that fail stay in the list."""
    seen: set[str] = set()
    while True:
        query = {"source": source, "name": name, "limit": 1_000}
        fresh = [letter["id"] for letter in node.ask(found, "GET", node.path_of("dead-letters"), query=query)["dead_letters"]]
        fresh = [letter for letter in fresh if letter not in seen]
        if not fresh:
            return
        seen.update(fresh)
        yield from fresh


def _not_redriven(failed: Mapping[str, Failure], redriven: int) -> Failure:
    if len(failed) == 1 and not redriven:
        return next(iter(failed.values()))
    lines = "\n".join(f"{letter}: {failure}" for letter, failure in failed.items())
    message = f"{len(failed)} of {len(failed) + redriven} dead letters weren't redriven"
    return Failure(message, code="redrive-failed", lines=lines, details={"failed": {letter: str(failure) for letter, failure in failed.items()}})


@letters_app.command()
def clear(source: Source = None, node_name: NodeOption = None, as_json: Json = False) -> None:
    """Remove the dead letters of one source, or all, for good."""
    answer = node.ask(node.find(node_name), "DELETE", node.path_of("dead-letters"), query={"source": source}, patience_s=60)
    tell_json(answer) if as_json else tell(f"cleared: {answer['cleared']}")
