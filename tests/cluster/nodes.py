"""A cluster of real processes: NATS servers, and nodes that are `jido run` itself, which tests kill, pause and restart by signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from urllib.parse import quote

from jidosystem.backends.nats.server import NatsCluster
from jidosystem.backends.nats.settings import NatsSettings

from .namespaces import inside

PROGRAM = Path(__file__).with_name("program.py")
JIDO = (sys.executable, "-m", "jidosystem")
START_S = 60.0
END_S = 40.0


def url_of(settings: NatsSettings, replicas: int, servers: Iterable[str] = ()) -> str:
    """The URL that a node is given; `servers`: other addresses of the same servers."""
    hosts = ",".join(server.partition("://")[2] for server in servers or settings.servers)
    return f"nats://{quote(settings.user, safe='')}:{quote(settings.password, safe='')}@{hosts}?replicas={replicas}&partitions=1"


class NodeProcess:
    """One node. Started again after its end it has the same name and another port.

    Attributes:
        taking: whether whoever spreads calls over the nodes should send any here, as a load balancer's list of targets says it
        command: what runs it
        namespace: of the network in which it is; "": this one
        environment: in which it runs from its next start on
        port: of its HTTP API; 0: nobody knows
        pid: of its last process
    """

    def __init__(self, name: str, url: str, folder: Path) -> None:
        self.name, self._folder = name, folder
        self.environment = dict(os.environ) | {"XDG_RUNTIME_DIR": str(folder), "JIDO_STORE": url}
        self.command: Sequence[str | Path] = JIDO
        self.namespace = ""
        self._process: asyncio.subprocess.Process | None = None
        self.taking = False
        self.port = self.pid = 0
        self.token = ""

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def socket(self) -> socket.socket:
        """By which its HTTP API can be reached."""
        with inside(self.namespace) if self.namespace else nullcontext():
            there = socket.socket()
        there.setblocking(False)
        return there

    def log(self) -> str:
        return (self._folder / f"{self.name}.log").read_text(errors="replace")

    async def start(self) -> None:
        """Returns when it has joined and serves."""
        with (self._folder / f"{self.name}.log").open("ab") as log:
            process = self._process = await asyncio.create_subprocess_exec(
                *(*self.command, "run", PROGRAM, "--name", self.name, "--port", "0", "--json"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self.environment,
                cwd=self._folder,
            )
        assert process.stdout is not None
        async with asyncio.timeout(START_S):
            line = await process.stdout.readline()
        if not line:
            await process.wait()
            raise AssertionError(f"{self.name} doesn't start:\n{self.log()[-3000:]}")
        self.pid, self.port = process.pid, int(json.loads(line)["url"].rpartition(":")[2])
        self.token = json.loads((self._folder / "jidosystem" / f"{self.name}.json").read_text())["token"]
        self.taking = True

    async def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self.taking = False
        if self.running:
            self._process.kill()
        await self._process.wait()

    async def ended(self) -> None:
        """Wait until its process has ended by itself."""
        assert self._process is not None
        await self._process.wait()
        self.taking = False

    def pause(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def stop(self) -> int:
        """SIGTERM, as an orderly end; the exit code."""
        assert self._process is not None
        self.taking = False
        if self.running:
            self._process.terminate()
        async with asyncio.timeout(END_S):
            return await self._process.wait()


class NodeCluster:
    """The nodes, by name, and the servers that they stand on."""

    def __init__(self, servers: NatsCluster, folder: Path) -> None:
        self.servers, self._folder = servers, folder
        self._replicas = 3 if len(servers.servers) > 1 else 1
        self.nodes: dict[str, NodeProcess] = {}

    def add(self, name: str, *, by: Iterable[str] = ()) -> NodeProcess:
        """A node that isn't started yet; `by`: the addresses by which it reaches the servers."""
        node = self.nodes[name] = NodeProcess(name, url_of(self.servers.settings(), self._replicas, by), self._folder)
        return node

    def taking(self) -> list[NodeProcess]:
        return [node for node in self.nodes.values() if node.taking]

    async def start(self) -> None:
        """All of them. The first one makes the streams alone."""
        first, *others = self.nodes.values()
        await first.start()
        await asyncio.gather(*(node.start() for node in others))

    def said(self, what: str) -> list[str]:
        """The lines of all nodes' logs that hold some words."""
        return [f"{name}: {line}" for name, node in self.nodes.items() for line in node.log().splitlines() if what in line]

    async def end(self) -> None:
        for node in self.nodes.values():
            if node.running:
                node.resume()
        await asyncio.gather(*(node.kill() for node in self.nodes.values() if node.running))


@asynccontextmanager
async def node_cluster(servers: NatsCluster, folder: Path, *names: str) -> AsyncIterator[NodeCluster]:
    """Nodes that are gone afterwards."""
    cluster = NodeCluster(servers, folder)
    try:
        for each in names:
            cluster.add(each)
        if names:
            await cluster.start()
        yield cluster
    finally:
        await cluster.end()
