"""`jido call Counter/home add amount=2`: one action of an agent on a running node."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from ..core.near import near
from . import node
from .node import NodeOption
from .output import Json, tell, tell_json, usage

app = typer.Typer(rich_markup_mode=None, add_completion=False)

ANSWER_LATE_S = 5.0
"""How much longer than its patience a caller listens: the node knows better what became of a call that ran out of time."""


@app.command()
def call(
    agent: Annotated[str, typer.Argument(help="type/key, for example Counter/home.")],
    action: Annotated[str, typer.Argument(help="The action's name.")],
    arguments: Annotated[list[str] | None, typer.Argument(metavar="NAME=VALUE", help="Arguments; - reads a JSON object from stdin.")] = None,
    args: Annotated[str | None, typer.Option("--args", help="Arguments as a JSON object.")] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", help="Patience in seconds.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Idempotency key: a repetition takes effect once.")] = None,
    node_name: NodeOption = None,
    as_json: Json = False,
) -> None:
    """Call an action of an agent and print its result.

    A value is JSON where the parameter's type wants it (2, true, [1, 2], null) and text otherwise.
    """
    type_name, agent_key = address(agent)
    if timeout is not None and not (math.isfinite(timeout) and timeout >= 0):
        raise usage(f"--timeout {timeout:g}: seconds, 0 or more")
    given, pairs = _given(arguments or [], args)
    found = node.find(node_name)
    kind = node.ask(found, "GET", node.path_of("types", type_name))  # it also shows, soon, whether the node hangs
    given |= _typed(pairs, _parameters(kind, action))
    headers = {"Idempotency-Key": key} if key is not None else None
    patience_s = (kind["call_timeout"] if timeout is None else timeout) + ANSWER_LATE_S
    path = node.path_of("agents", type_name, agent_key, action)
    result = node.ask(found, "POST", path, query={"timeout": timeout}, body=given, headers=headers, patience_s=patience_s)
    if as_json:
        tell_json(result)
    elif isinstance(result, str):
        tell(result)
    elif result is not None:
        tell_json(result, indent=2 if isinstance(result, dict | list) else None)


def address(text: str) -> tuple[str, str]:
    """(type, key) of `type/key`."""
    type_name, slash, key = text.partition("/")
    if not (type_name and slash and key):
        raise usage(f"{text!r} names no agent: write type/key, for example Counter/home")
    return type_name, key


def _given(arguments: Sequence[str], args: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """What is given as JSON, and what is given as name=value."""
    given = _object(args, "--args") if args is not None else {}
    pairs: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if argument == "-":
            given |= _object(sys.stdin.read(), "standard input")
        elif not equals or not name:
            raise usage(f"{argument!r} is no argument: write name=value, for example amount=2")
        elif name in pairs:
            raise usage(f"{name!r} is given twice")
        else:
            pairs[name] = value
    return given, pairs


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        found = parse(text)
    except (ValueError, RecursionError) as error:
        raise usage(f"{where} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise usage(f"{where} is to be a JSON object of arguments by name")
    return found


def parse(text: str) -> Any:
    """JSON without what only Python takes for it; `ValueError` or `RecursionError`."""

    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def _parameters(kind: Mapping[str, Any], action: str) -> Mapping[str, Any]:
    """The JSON schemas of an action's parameters."""
    type_name, actions = kind["name"], kind["actions"]
    if action not in actions:
        there = near(action, actions) or f"; it has {', '.join(actions) or 'none'}"
        raise usage(f"{type_name} has no action {action!r}{there}", f"`jido describe {type_name}` shows them")
    properties: Mapping[str, Any] = actions[action]["arguments"]["properties"]
    return properties


def _typed(pairs: Mapping[str, str], parameters: Mapping[str, Any]) -> dict[str, Any]:
    for name in pairs:
        if name not in parameters:
            raise usage(f"there is no parameter {name!r}{near(name, parameters) or f'; there are {chr(44).join(parameters)}'}")
    return {name: typed(text, parameters[name]) for name, text in pairs.items()}


def typed(text: str, schema: Mapping[str, Any]) -> Any:
    """A value as a parameter of this schema wants it: JSON if that fits, else the text."""
    kinds = _kinds(schema, schema.get("$defs", {}))
    if kinds == {"string"}:
        return text
    try:
        value = parse(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, str) and "string" in kinds:
        return text
    return value if not kinds or "string" not in kinds or _kind(value) in kinds else text


def _kinds(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> set[str]:
    """The kinds of JSON values that a schema takes; empty: any, or unknown."""
    if "$ref" in schema:
        return _kinds(definitions.get(str(schema["$ref"]).rpartition("/")[2], {}), {})
    if "enum" in schema:
        return {_kind(value) for value in schema["enum"]}
    if "anyOf" in schema:
        parts = [_kinds(part, definitions) for part in schema["anyOf"]]
        return set().union(*parts) if all(parts) else set()
    kind = schema.get("type", [])
    kinds = {kind} if isinstance(kind, str) else set(kind)
    return kinds | {"integer"} if "number" in kinds else kinds


def _kind(value: object) -> str:
    names: dict[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")
