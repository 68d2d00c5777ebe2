"""A node for commands to talk to, in a thread of its own, and commands that run in this process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from jidosystem import Agent, Event, Platform, Rejected, action, on_event
from jidosystem.api.http.gateway import gateway
from jidosystem.api.http.loopback import listen, url_of
from jidosystem.api.http.server import HttpServer
from jidosystem.cli import main, node

TOKEN = "right-token"


class Counter(Agent):
    """Counts visits."""

    value: int = 0
    label: str = ""

    @action
    async def add(self, amount: int = 1) -> int:
        """Add to the value."""
        self.value += amount
        self.emit("counter.added", {"value": self.value})
        return self.value

    @action
    async def name(self, label: str, loud: bool = False, tags: list[str] | None = None) -> str:
        self.label = label.upper() if loud else label
        return self.label

    @action(readonly=True)
    async def echo(self, value: int | str | list[int] | None = None) -> int | str | list[int] | None:
        return value

    @action
    async def later(self, days: float) -> None:
        self.remind("report", every=days * 86_400, action=self.add)
        self.remind("end", after=days * 7 * 86_400, action=self.add)

    @action
    async def refuse(self) -> None:
        raise Rejected("not_today", wanted=7)

    @action
    async def fail(self) -> None:
        raise ValueError("a mistake")

    @action
    async def wait(self) -> None:
        await asyncio.sleep(60)


class Deaf(Agent):
    """Fails on every event."""

    @on_event("deaf.*", key="data.key", max_attempts=1)
    async def heard(self, event: Event) -> None:
        raise ValueError("deaf")


class Moody(Agent):
    """Fails on events while it is told to."""

    moody: bool = True

    @on_event("moody.*", key="data.key", max_attempts=1)
    async def heard(self, event: Event) -> None:
        if self.moody:
            raise ValueError("not now")

    @action
    async def cheer_up(self) -> None:
        self.moody = False


@dataclass
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str


Jido = Callable[..., Ran]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user of their own, without nodes."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("JIDO_NODE", "JIDO_TOKEN", "JIDO_STORE", "JIDO_DEBUG", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def jido(capfd: pytest.CaptureFixture[str]) -> Jido:
    """Run a command in this process."""

    def run(*arguments: str) -> Ran:
        capfd.readouterr()
        code = main(arguments)
        return Ran(code, *capfd.readouterr())

    return run


class NodeThread:
    """A platform with its API, in a thread of its own."""

    def __init__(self, name: str = "one") -> None:
        self.name = name
        self.platform: Platform
        self.written: node.NodeFile
        self.loop = asyncio.new_event_loop()
        self._ready, self._ended = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(20)

    def _run(self) -> None:
        self.loop.run_until_complete(self._serve())
        self.loop.close()

    async def _serve(self) -> None:
        async with AsyncExitStack() as stack:
            self.platform = await stack.enter_async_context(Platform(agents=[Counter, Deaf, Moody], name=self.name))
            listening = stack.enter_context(listen(port=0))
            closing = asyncio.Event()
            server = HttpServer(gateway(self.platform, TOKEN, closing=closing, program="counter.py"), listening)
            await server.start()
            self.written = node.NodeFile(self.name, url_of(listening), os.getpid(), "counter.py", TOKEN)
            self._ready.set()
            await self._ended.wait()
            closing.set()
            await server.accept_no_more()
            await server.stop()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(20)


@pytest.fixture(scope="session")
def _node_thread() -> Iterator[NodeThread]:
    running = NodeThread()
    yield running
    running.close()


@pytest.fixture
def running(_node_thread: NodeThread, home: Path) -> NodeThread:
    """A node that the user's commands find."""
    node.write(_node_thread.written)
    return _node_thread
