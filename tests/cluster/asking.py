"""Asking a node by its HTTP API, so that whoever asks knows whether what it asked for can have happened."""

from __future__ import annotations

import asyncio
import json
import re
from itertools import count
from typing import Any, Literal, NamedTuple

from .nodes import NodeProcess

_LIVE = re.compile(r"^\w*live_agents(?:\{.*\})? (\S+)$", re.MULTILINE)


class Told(NamedTuple):
    """How one attempt ended. `failed`: it certainly had no effect."""

    outcome: Literal["ok", "failed", "unknown"]
    value: Any


class Line:
    """A connection to a node that is kept from request to request."""

    def __init__(self) -> None:
        self._to = 0
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def ask(self, node: NodeProcess, path: str, body: object, *, key: str = "", timeout_s: float = 15.0) -> Told:
        """POST, or GET without a body; what the node told, or that it told nothing."""
        try:
            reader, writer = await self._connected(node)
        except OSError as error:
            return Told("failed", f"no connection: {error}")
        head = f"{'GET' if body is None else 'POST'} {path}{'' if body is None else f'?timeout={timeout_s:g}'} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        content = b"" if body is None else json.dumps(body).encode()
        keyed = f"Idempotency-Key: {key}\r\n" if key else ""
        try:
            async with asyncio.timeout(timeout_s + 2.0):  # a node that stands still tells nothing
                writer.write(f"{head}Authorization: Bearer {node.token}\r\n{keyed}Content-Length: {len(content)}\r\n\r\n".encode() + content)
                status, answer = await _answer(reader)
        except (OSError, EOFError, TimeoutError) as error:
            self.close()
            return Told("unknown", f"no answer: {error!r}")
        if status == 200:
            return Told("ok", answer)
        error = answer["error"]
        return Told("failed" if error["outcome_known"] and not error["fields"].get("uncertain") else "unknown", error["message"])

    async def _connected(self, node: NodeProcess) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._writer is None or self._to != node.port or self._reader.at_eof():
            self.close()
            self._to = node.port
            async with asyncio.timeout(2.0):
                self._reader, self._writer = await _connection(node)
        return self._reader, self._writer


async def _connection(node: NodeProcess) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    there = node.socket()
    try:
        await asyncio.get_running_loop().sock_connect(there, ("127.0.0.1", node.port))
        return await asyncio.open_connection(sock=there)
    except BaseException:
        there.close()
        raise


async def _answer(reader: asyncio.StreamReader) -> tuple[int, Any]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
    content = await reader.readexactly(length)
    return int(lines[0].split()[1]), json.loads(content or b"null") if b"content-type: application/json" in lines else content.decode()


async def ask_once(node: NodeProcess, path: str, body: object = None) -> Told:
    """On a connection of its own."""
    line = Line()
    try:
        return await line.ask(node, path, body)
    finally:
        line.close()


async def owner_of(node: NodeProcess, agent: str) -> str | None:
    """The node that has claimed an agent."""
    told = await ask_once(node, f"/v1/agents/{agent}")
    assert told.outcome == "ok", told
    owner: str | None = told.value["node"]
    return owner


async def agent_on(node: NodeProcess, type_name: str, action: str, arguments: object) -> str:
    """An agent that a node has claimed, after one such call."""
    for number in count():
        agent = f"{type_name}/on-{number}"
        told = await ask_once(node, f"/v1/agents/{agent}/{action}", arguments)
        if told.outcome == "ok" and await owner_of(node, agent) == node.name:
            return agent
    raise AssertionError


async def live_agents(node: NodeProcess) -> int:
    """How many agents a node has in memory, as it says itself."""
    told = await ask_once(node, "/v1/metrics")
    found = _LIVE.search(str(told.value))
    assert found is not None, told
    return int(float(found[1]))
