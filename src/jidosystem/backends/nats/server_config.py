"""The configuration of the NATS servers that we start: the one place that says how a server must be set up.

JetStream writes files and syncs each write before it acknowledges it (`sync_interval: always`: without it a power cut
takes the whole stream). Nobody gets in without credentials; monitoring is on loopback; WebSocket and MQTT stay off; every
size has a limit. The account `JIDO` may ask the servers how they are set up, so that a client can check what it relies on;
its users can't delete streams, restore them or unseat leaders. Deleting what's in a stream is denied by the streams themselves.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

SERVERS_SUBJECT = "$JIDO.SERVERS"
"""A request to it is answered by every server of the cluster: its version, and how JetStream is set up."""

DENIED = (
    "$JS.API.STREAM.DELETE.>", "$JS.API.STREAM.RESTORE.>", "$JS.API.STREAM.SNAPSHOT.>", "$JS.API.STREAM.PEER.>", "$JS.API.STREAM.LEADER.>",
    "$JS.API.META.>", "$JS.API.SERVER.>", "$JS.API.ACCOUNT.>",
)  # fmt: skip


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """The users of a server and their passwords: `jido` is what the platform connects as, `admin` may do everything in the same account,
    `sys` sees the servers, `route` is what the servers are to each other."""

    jido: str
    admin: str
    sys: str
    route: str

    def __repr__(self) -> str:
        return "<Secrets>"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a server may use; bytes."""

    max_file_bytes: int = 64 * 1024**3
    max_memory_bytes: int = 256 * 1024**2
    max_payload_bytes: int = 1024**2
    max_pending_bytes: int = 64 * 1024**2
    max_connections: int = 10_000


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """Files of a server's certificate; clients and routes are encrypted, and routes must show one of the same authority."""

    ca_path: str
    cert_path: str
    key_path: str


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """One server of a cluster."""

    name: str
    host: str
    port: int
    monitoring_port: int
    route_port: int


def configuration(
    me: Peer, peers: Sequence[Peer], *, store_path: str, secrets: Secrets, limits: Limits, tls: Tls | None = None, cluster: str = "jido"
) -> str:
    """The text of the configuration of one server; `peers` are all servers of the cluster, itself included, or nobody else."""
    text = json.dumps  # a JSON string is one of the configuration's language
    stored = f"max_file_store: {limits.max_file_bytes}, max_memory_store: {limits.max_memory_bytes}"
    asked = f"imports: [{{ service: {{ account: SYS, subject: {text('$SYS.REQ.SERVER.PING')} }}, to: {text(SERVERS_SUBJECT)} }}]"
    told = f"exports: [{{ service: {text('$SYS.REQ.SERVER.PING')}, accounts: [JIDO], response_type: Stream }}]"
    lines = [
        f"server_name: {text(me.name)}",
        f"listen: {text(f'{me.host}:{me.port}')}",
        f'http: "127.0.0.1:{me.monitoring_port}"',
        f"max_payload: {limits.max_payload_bytes}",
        f"max_pending: {limits.max_pending_bytes}",
        f"max_connections: {limits.max_connections}",
        "max_control_line: 4096",
        'write_deadline: "5s"',
        'ping_interval: "10s"',
        "ping_max: 2",
        f"jetstream {{ store_dir: {text(store_path)}, sync_interval: always, strict: true, {stored} }}",
        "accounts {",
        f"  JIDO {{ jetstream: enabled, users: [{_jido(secrets)}, {_user('admin', secrets.admin)}], {asked} }}",
        f"  SYS {{ users: [{_user('sys', secrets.sys)}], {told} }}",
        "}",
        "system_account: SYS",
    ]
    if tls is not None:
        lines.append(f"tls {{ {_tls(tls)} }}")
    if len(peers) > 1:
        routes = ", ".join(text(f"nats-route://route:{secrets.route}@{peer.host}:{peer.route_port}") for peer in peers if peer.name != me.name)
        lines.append(
            f"cluster {{ name: {text(cluster)}, listen: {text(f'{me.host}:{me.route_port}')},"
            f" authorization {{ user: route, password: {text(secrets.route)}, timeout: 2 }}, routes: [{routes}]"
            + (f", tls {{ {_tls(tls)}, verify: true }}" if tls is not None else "")
            + " }"
        )
    return "\n".join(lines) + "\n"


def _user(name: str, password: str) -> str:
    return f"{{ user: {name}, password: {json.dumps(password)} }}"


def _jido(secrets: Secrets) -> str:
    denied = ", ".join(map(json.dumps, DENIED))
    return f"{{ user: jido, password: {json.dumps(secrets.jido)}, permissions: {{ publish: {{ deny: [{denied}] }} }} }}"


def _tls(tls: Tls) -> str:
    return f"ca_file: {json.dumps(tls.ca_path)}, cert_file: {json.dumps(tls.cert_path)}, key_file: {json.dumps(tls.key_path)}"
