"""Which adapters a URL stands for: the only module that imports backends."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from msgspec.structs import replace

from ..core.clock import Clock
from ..core.errors import InvalidConfig, NodeUnreachable, NotYetAvailable
from ..core.inspection import StoreFacts
from ..core.log import LogApart
from ..core.near import near_or_all
from ..core.observability import Log
from ..core.records import Records
from ..core.wire import Wire

if TYPE_CHECKING:
    from ..backends.nats.connection import Connection, Notice
    from ..backends.nats.publishing import Publisher
    from ..backends.nats.settings import NatsSettings

_LATER = {"postgresql": "the PostgreSQL adapter", "postgres": "the PostgreSQL adapter"}
_FORMS = '"memory://", "sqlite:///relative.db", "sqlite:////absolute.db" or "nats://host:4222"'
_OF_NATS = {"token": "token", "credentials": "credentials_path", "ca": "tls_ca_path", "cert": "tls_cert_path", "key": "tls_key_path"}
_NUMBERS_OF_NATS = ("replicas", "partitions", "records_bytes", "log_bytes")
LEASES_BYTES = 16 * 1024**2
LEASE_ATTEMPT_S = 1.0
"""A renewal that an election has swallowed is sent again: those that follow it wait for what becomes of it."""
LEASE_PING_S = 0.4
"""Between two pings of the server that the leases go through: one that stands still is left for another before a lease runs out."""


def check_url(url: str) -> tuple[str, str]:
    """(engine, path) of a store's URL, or `InvalidConfig`."""
    scheme, separator, rest = str(url).partition("://")
    if scheme in _LATER and separator:
        raise NotYetAvailable(f"{url!r}: {scheme}:// comes with {_LATER[scheme]}; for now use {_FORMS}")
    if scheme == "memory" and separator and rest in ("", "/"):
        return "memory", ""
    if rest == "/:memory:":
        raise InvalidConfig(f'{url!r}: what is kept in memory needs no SQLite: use "memory://"', path="url", value=url, allowed=_FORMS)
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return "sqlite", rest[1:]
    if scheme in ("nats", "tls") and separator:
        _nats_options(url)
        return "nats", rest
    raise InvalidConfig(f"{url!r} isn't a store's URL: use {_FORMS}", path="url", value=url, allowed=_FORMS)


class Parts:
    """What a URL stands for, opened one after another; these are of one process. Records, logs and wires are closed by whoever opened them; `close`
    closes what they stand on.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._stack = AsyncExitStack()

    async def open_records(self, config: Any, clock: Clock, log: Log) -> Records:
        """The records; first of all."""
        engine, path = check_url(self._url)
        if engine == "memory":
            from ..backends.memory import MemoryRecords

            return MemoryRecords(clock=clock)
        from ..backends.sqlite import open_store

        return await open_store(path, durability=config.infrastructure.durability, clock=clock)

    async def open_log(self) -> LogApart | None:
        """The log, if the records have none."""
        return None

    async def open_wire(self) -> Wire | None:
        """The way to other nodes; None: there are none."""
        return None

    async def open_leases(self, clock: Clock) -> Records | None:
        """Records on a connection of their own, for leases; None: the records will do."""
        return None

    async def weaknesses(self) -> list[str]:
        """A sentence for everything that promises rest on and that isn't so on the store's servers. Takes a second."""
        return []

    async def close(self) -> None:
        """Let go of everything."""
        await self._stack.aclose()


class NatsParts(Parts):
    """What is of a cluster. Leases have a connection of their own, so that no bulk stands before them."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._options = _nats_options(url)
        self._settings: NatsSettings
        self._connections: list[Connection] = []
        self._log: Log

    async def open_records(self, config: Any, clock: Clock, log: Log) -> Records:
        """Records on JetStream."""
        from ..backends.nats.settings import NatsSettings

        options = {name: value for name, value in self._options.items() if name not in _NUMBERS_OF_NATS}
        self._log = log
        self._settings = NatsSettings(**options, cluster=config.platform.cluster_name)
        return await self._records("records", self._settings, clock, **self._given(partitions="partitions", max_bytes="records_bytes"))

    async def open_log(self) -> LogApart | None:
        """The one log of the cluster."""
        from ..backends.nats.log import LogSettings, NatsLog

        settings = LogSettings(**self._given(replicas="replicas", max_bytes="log_bytes"))
        return await NatsLog.open(self._settings, settings, told=self._told)

    async def open_wire(self) -> Wire | None:
        """Core NATS."""
        from ..backends.nats.wire import NatsWire

        return await NatsWire.open(self._settings, told=self._told)

    async def open_leases(self, clock: Clock) -> Records | None:
        """On a connection and in a stream of their own."""
        settings = replace(self._settings, ping_interval_s=LEASE_PING_S)
        return await self._records("leases", settings, clock, partitions=1, max_bytes=LEASES_BYTES, attempt_timeout_s=LEASE_ATTEMPT_S)

    async def weaknesses(self) -> list[str]:
        """What the servers tell of how they are set up."""
        from ..backends.nats.facts import servers_of, weaknesses

        try:
            return weaknesses(await servers_of(self._connections[0]))
        except NodeUnreachable as error:
            return [f"how the NATS servers are set up can't be asked just now: {error.args[0]}"]

    async def _records(self, name: str, to: NatsSettings, clock: Clock, **how: Any) -> Records:
        from ..backends.nats.connection import Connection
        from ..backends.nats.partitions import RecordsSettings
        from ..backends.nats.records import open_records

        connection = await Connection.open(to, name=f"jido {to.cluster} {name}", told=self._told)
        self._stack.push_async_callback(connection.close)
        self._connections.append(connection)
        settings = RecordsSettings(name=name, **self._given(replicas="replicas"), **how)
        return await open_records(connection, settings, clock=clock)

    def _given(self, **names: str) -> dict[str, Any]:
        """What the URL says of settings, each under its name there."""
        return {setting: self._options[name] for setting, name in names.items() if name in self._options}

    def _told(self, notice: Notice) -> None:
        self._log.warning(notice.text, nats=notice.kind)


def parts_of(url: str) -> Parts:
    """The parts that a URL stands for, none of them open yet; `InvalidConfig`."""
    return NatsParts(url) if check_url(url)[0] == "nats" else Parts(url)


def _nats_options(url: str) -> dict[str, Any]:
    """The fields of `NatsSettings`, and numbers for a new cluster, that stand in a URL: `nats://user:password@host:4222,other:4222?replicas=3`."""
    scheme, _, rest = str(url).partition("://")
    place, _, query = rest.partition("?")
    who, at, where = place.rpartition("@")
    user, colon, password = who.partition(":")
    hosts = [host for host in where.rstrip("/").split(",") if host]
    try:
        servers = tuple(f"{scheme}://{host}" if urlsplit(f"//{host}").port else f"{scheme}://{host}:4222" for host in hosts)
    except ValueError as error:
        raise _no_nats(url, str(error)) from None
    if not servers or (at and not colon):
        raise _no_nats(url, "it names no server" if not servers else "user and password are needed before the @")
    options: dict[str, Any] = {"servers": servers, "user": unquote(user), "password": unquote(password)}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in _OF_NATS:
            options[_OF_NATS[name]] = value
        elif name in _NUMBERS_OF_NATS and value.isdecimal():
            options[name] = int(value)
        else:
            known = [*_OF_NATS, *_NUMBERS_OF_NATS]
            raise _no_nats(url, f"{name}={value!r}{near_or_all(name, known, 'possible are')}")
    return options


def _no_nats(url: str, why: str) -> InvalidConfig:
    return InvalidConfig(f"{_hidden(url)!r} isn't a cluster's URL: {why}", path="url", value=_hidden(url), allowed=_FORMS)


def _hidden(url: str) -> str:
    """A URL without what mustn't be shown."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


def open_publisher(url: str, *, stored: bool, timeout_s: float) -> Publisher:
    """What sends messages to subjects of the NATS servers of a URL; it connects when the first one goes out. `InvalidConfig`."""
    if urlsplit(str(url)).scheme not in ("nats", "tls"):
        raise _no_nats(url, "it begins with nats:// or tls://")
    from ..backends.nats.publishing import Publisher
    from ..backends.nats.settings import NatsSettings

    options = {name: value for name, value in _nats_options(url).items() if name not in _NUMBERS_OF_NATS}
    return Publisher(NatsSettings(**options), stored=stored, timeout_s=timeout_s)


@contextmanager
def local_cluster(folder: Path) -> Generator[str]:
    """A NATS server of this process's own, with JetStream in a folder; the URL of the cluster on it. Blocks. `StoreUnavailable`."""
    from ..backends.nats.server import nats_servers

    with nats_servers(folder.resolve()) as servers:
        settings = servers.settings()
        hosts = ",".join(server.partition("://")[2] for server in settings.servers)
        yield f"nats://{quote(settings.user, safe='')}:{quote(settings.password, safe='')}@{hosts}"


def shown(url: str) -> str:
    """A store's URL as it may be shown: without password."""
    return _hidden(url) if url.startswith(("nats://", "tls://")) else url


def inspect_store(url: str, *, whole: bool = True) -> StoreFacts:
    """What can be learnt of a store without owning or changing it; `whole`: everything in it is read. Blocks."""
    engine, path = check_url(url)
    if engine == "memory":
        return StoreFacts("memory", exists=True)
    if engine == "nats":
        raise NotYetAvailable(f"{_hidden(url)!r}: a cluster is looked at through one of its nodes, `jido doctor` on a running one")
    from ..backends.sqlite import inspect_file

    return inspect_file(path, whole=whole)
