"""Machines of their own on this machine: each NATS server and node in a network namespace, and between them a switch of ours."""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jidosystem.backends.nats.server import NatsCluster, NatsServer, find_binary
from jidosystem.backends.nats.server_config import Peer

ROOT = Path(__file__).resolve().parents[2]
CLONE_NEWNET = 0x40000000
PORTS = {"port": 4222, "monitoring_port": 8222, "route_port": 6222}
_libc = ctypes.CDLL(None, use_errno=True)


def address_of(number: int) -> str:
    """The address of a machine."""
    return f"10.77.0.{number + 1}"


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread is in a namespace. Nothing may be awaited meanwhile; sockets that were made there stay there."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        _enter(there)
        yield
    finally:
        _enter(before)
        os.close(there)
        os.close(before)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Network:
    """Machines, and what becomes of what they send each other.

    Attributes:
        names: of the machines
    """

    def __init__(self, names: Sequence[str], seed: int) -> None:
        self.names = tuple(names)
        self._seed = seed
        self._process: subprocess.Popen[str] | None = None
        self._cut: list[tuple[str, str]] = []
        self._loss, self._delay_s = 0.0, (0.0, 0.0)

    def namespace(self, name: str) -> str:
        return f"jido{os.getpid()}-{name}"

    def command(self, name: str, *words: str | Path) -> tuple[str | Path, ...]:
        """A command, in a machine."""
        return ("nsenter", f"--net=/run/netns/{self.namespace(name)}", "--", *words)

    def start(self) -> None:
        namespaces = [self.namespace(name) for name in self.names]
        for namespace in namespaces:
            _run("ip", "netns", "add", namespace)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.switch", str(self._seed), *namespaces],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        self.let()

    def stop(self) -> None:
        if self._process is not None:
            self._process.communicate()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", self.namespace(name)], check=False, capture_output=True)

    def let(
        self, *, cut: Iterable[tuple[str, str]] | None = None, loss: float | None = None, delay_s: tuple[float, float] | None = None
    ) -> dict[str, int]:
        """From now on: what goes from whom to whom is dropped, how likely a packet is lost, how long each is on its way; what isn't named stays. What
        happened so far.
        """
        self._cut = self._cut if cut is None else list(cut)
        self._loss = self._loss if loss is None else loss
        self._delay_s = self._delay_s if delay_s is None else delay_s
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps({"cut": self._cut, "loss": self._loss, "delay_s": self._delay_s}), file=self._process.stdin, flush=True)
        told = self._process.stdout.readline()
        if not told:
            raise OSError("there is no network: the switch has ended")
        did: dict[str, int] = json.loads(told)
        return did

    def reset(self, name: str) -> int:
        """Break all connections of a machine to others with a reset; how many there were."""
        others = f"! src = {address_of(self.names.index(name))}:0 or src = {address_of(self.names.index(name))}"
        killed = _run(*map(str, self.command(name, "ss", "-HKnt", "state", "established", f"( {others} )")))
        return len(killed.splitlines())


def ways(ones: Iterable[str], others: Iterable[str], *, back: bool = True) -> set[tuple[str, str]]:
    """All ways from some to others; `back`: and back."""
    there = {(one, other) for one in ones for other in others if one != other}
    return there | {(other, one) for one, other in there} if back else there


class ApartServer(NatsServer):
    """A server in a namespace."""

    namespace = ""

    def monitoring(self, path: str, timeout_s: float = 2.0) -> dict[str, object]:
        with inside(self.namespace):
            return super().monitoring(path, timeout_s)


class ApartServers(NatsCluster):
    """Servers, each in a namespace; their names are machines of the network."""

    def __init__(self, directory: Path, network: Network, count: int = 3) -> None:
        super().__init__(directory, count)
        self._network = network

    def _make(self) -> None:
        peers = [Peer(name=name, host=address_of(number), **PORTS) for number, name in enumerate(self._network.names[: self._count])]
        self.servers = []
        for peer in peers:
            program = self._directory / f"{peer.name}.sh"
            program.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, self._network.command(peer.name, find_binary())))} "$@"\n')
            program.chmod(0o700)
            server = ApartServer(self._directory / peer.name, peer, peers, secrets=self.secrets, binary=str(program))
            server.namespace = self._network.namespace(peer.name)
            self.servers.append(server)


@contextmanager
def network_of(names: Sequence[str], seed: int) -> Iterator[Network]:
    """Machines that are gone afterwards. `OSError` where there can't be any."""
    network = Network(names, seed)
    try:
        network.start()
        yield network
    finally:
        network.stop()


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{shlex.join(words)}: {done.stderr.strip()}")
    return done.stdout
