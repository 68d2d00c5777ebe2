"""Finding a running node, and asking it.

A node writes a small file for its own user: where it listens, who it is, and the token that it wants to see. A command
asks the node that `--node` names, else the only one that runs, or any if all that run are of one cluster, which answer alike.
Every question has a time limit: a node that hangs is an error that says so.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import stat
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import typer

from ..core.near import near
from .output import NO_NODE, Failure, usage

PATIENCE_S = 10.0
QUIET_S = 30.0
"""How long a stream may say nothing; a node shows every 10 seconds that it is alive."""
START = "start one: jido run counter.py"

NodeOption = Annotated[str | None, typer.Option("--node", envvar="JIDO_NODE", show_envvar=False, help="A running node: its name or its URL.")]


class NodeFile(NamedTuple):
    """What a node says of itself to its own user; `cluster`: the same for all nodes of one, "" for a node by itself."""

    name: str
    url: str
    pid: int
    program: str
    token: str
    cluster: str = ""


# -- the files ---------------------------------------------------------------------------------------------------


def folder() -> Path:
    """Where nodes of this user are written down."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isdir(runtime):
        return Path(runtime) / "jidosystem"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "jidosystem"


def write(node: NodeFile) -> Path:
    """Write a node down, for nobody but its user to read; the file."""
    place = folder()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    place.chmod(0o700)
    path = _path(node.name)
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(node._asdict(), file)
    fresh.replace(path)
    return path


def remove(node: NodeFile) -> None:
    """The node is gone; a successor that has written itself down meanwhile stays."""
    found = _read(_path(node.name))
    if isinstance(found, NodeFile) and found.pid == node.pid:
        _path(node.name).unlink(missing_ok=True)


def running() -> tuple[list[NodeFile], list[str]]:
    """The nodes of this user that run, and what is wrong with files that were left aside. Those of processes that are gone are removed."""
    nodes: list[NodeFile] = []
    wrong: list[str] = []
    place = folder()
    for path in sorted(place.glob("*.json")) if place.is_dir() else ():
        found = _read(path)
        if isinstance(found, str):
            wrong.append(found)
        elif found is not None:
            if _lives(found.pid):
                nodes.append(found)
            else:
                path.unlink(missing_ok=True)
    return nodes, wrong


def _path(name: str) -> Path:
    return folder() / f"{quote(name, safe='')[:200]}.json"


def _read(path: Path) -> NodeFile | str | None:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
                return f"{path} isn't this user's alone and is left aside: chmod 600, or remove it"
            content = json.loads(file.read(100_000))
        node = NodeFile(**content)
        if isinstance(node.pid, int) and all(isinstance(part, str) for part in node[:2] + node[3:]):
            return node
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, RecursionError):
        pass
    return f"{path} can't be read as a node's file and is left aside"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return pid > 0


def find(chosen: str | None) -> NodeFile:
    """The node to ask."""
    nodes, wrong = running()
    if chosen is not None and "://" in chosen:
        return _at_url(chosen.rstrip("/"), nodes)
    named = [node for node in nodes if chosen is None or node.name == chosen]
    if len(named) == 1 or (named and named[0].cluster and len({node.cluster for node in named}) == 1):
        token = os.environ.get("JIDO_TOKEN")
        return named[0]._replace(token=token) if token else named[0]
    there = ", ".join(f"{node.name} ({node.program})" for node in nodes)
    hint = "; ".join([*wrong, f"there are {there}" if nodes else START])
    if chosen is not None:
        similar = near(chosen, [node.name for node in nodes])
        raise Failure(f"no node {chosen!r} runs here{similar}", code="no-node", hint=hint, exit_code=NO_NODE)
    if nodes:
        raise Failure("several nodes run here", code="several-nodes", hint=f"name one with --node: {there}", exit_code=NO_NODE)
    raise Failure("no node runs here", code="no-node", hint=hint, exit_code=NO_NODE)


def _at_url(url: str, nodes: list[NodeFile]) -> NodeFile:
    try:
        parts = urlsplit(url)
        fits = parts.scheme == "http" and parts.hostname and parts.port != 0 and not parts.path
    except ValueError:
        fits = False
    if not fits:
        raise usage(f"--node {url}: a URL such as http://127.0.0.1:7450, or a node's name")
    token = os.environ.get("JIDO_TOKEN") or next((node.token for node in nodes if node.url == url), "")
    return NodeFile(url, url, 0, "", token)


# -- asking ------------------------------------------------------------------------------------------------------


def path_of(*parts: str) -> str:
    """A path under `/v1` of parts that may hold anything."""
    try:
        return "/v1/" + "/".join(quote(part, safe="") for part in parts)
    except UnicodeEncodeError:
        raise usage(f"{'/'.join(parts)!r} is no valid Unicode") from None


def ask(
    node: NodeFile, method: str, path: str, *, query: Mapping[str, object] | None = None, body: Any = None,
    headers: Mapping[str, str] | None = None, patience_s: float = PATIENCE_S,
) -> Any:  # fmt: skip
    """Ask, and return the answer's JSON; whatever the node refuses, or doesn't answer in time, is a `Failure`."""
    connection = _connection(node, patience_s)
    hung = threading.Event()

    def give_up() -> None:  # a node may also answer without end, a byte at a time
        hung.set()
        if connection.sock is not None:
            connection.sock.shutdown(socket.SHUT_RDWR)

    limit = threading.Timer(patience_s, give_up)
    limit.daemon = True
    limit.start()
    try:
        response = _send(connection, node, method, path, query, body, headers)
        content = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise _not_reached(node, TimeoutError() if hung.is_set() else error, patience_s) from None
    finally:
        limit.cancel()
        connection.close()
    if response.status >= 400:
        raise _refused(node, response.status, content)
    return _json(node, content)


def follow(node: NodeFile, path: str, query: Mapping[str, object]) -> Iterator[Any]:
    """The values of a stream, one a line, until the node ends it."""
    connection = _connection(node, QUIET_S)
    try:
        response = _send(connection, node, "GET", path, query, None, None)
        if response.status >= 400:
            raise _refused(node, response.status, response.read())
        while line := response.readline():
            if line.strip():
                yield _json(node, line)
    except (OSError, http.client.HTTPException) as error:
        raise _not_reached(node, error, QUIET_S) from None
    finally:
        connection.close()


def _connection(node: NodeFile, patience_s: float) -> http.client.HTTPConnection:
    parts = urlsplit(node.url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=patience_s)


def _send(
    connection: http.client.HTTPConnection, node: NodeFile, method: str, path: str, query: Mapping[str, object] | None, body: Any,
    headers: Mapping[str, str] | None,
) -> http.client.HTTPResponse:  # fmt: skip
    asked = {name: value for name, value in (query or {}).items() if value is not None}
    target = f"{path}?{urlencode(asked, errors='surrogateescape')}" if asked else path
    sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    all_headers = {"Content-Type": "application/json", "Authorization": f"Bearer {node.token}", **(headers or {})}
    try:
        connection.request(method, target, sent, all_headers)
    except (ValueError, UnicodeError) as error:
        if isinstance(error, OSError):
            raise
        raise usage(f"that can't be sent: {error}") from None
    return connection.getresponse()


def _json(node: NodeFile, content: bytes) -> Any:
    try:
        return json.loads(content) if content else None
    except (ValueError, RecursionError):
        raise Failure(f"what answers at {node.url} isn't a node of JidoSystem", code="no-node", exit_code=NO_NODE) from None


def _not_reached(node: NodeFile, error: Exception, patience_s: float) -> Failure:
    whom = node.name if node.name == node.url else f"node {node.name} at {node.url}"
    if isinstance(error, TimeoutError):
        hint = f"its event loop may be blocked: look at process {node.pid}" if node.pid else "it may be blocked"
        return Failure(f"{whom} hasn't answered within {patience_s:g} s", code="node-hangs", hint=hint, exit_code=NO_NODE)
    if isinstance(error, ConnectionRefusedError):
        return Failure(f"nobody listens at {node.url}", code="no-node", hint=START, exit_code=NO_NODE)
    told = re.sub(r"^\[Errno \d+\] ", "", str(error)) or type(error).__name__
    return Failure(f"{whom} didn't answer: {told}", code="node-unreachable", hint="what it was asked may have been done", exit_code=NO_NODE)


def _refused(node: NodeFile, status: int, content: bytes) -> Failure:
    try:
        error = json.loads(content)["error"]
        code, message = str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return Failure(f"{node.url} answered {status}, but isn't a node of JidoSystem", code="no-node", exit_code=NO_NODE)
    details = {**error.get("fields", {}), "outcome_known": error.get("outcome_known", True)}
    hint = "set JIDO_TOKEN, or name the node instead of its URL" if status == 401 else ""
    return Failure(message, code=code, hint=hint, exit_code=NO_NODE if status in (401, 421) else 1, details=details)
