"""How to reach a NATS cluster, as one frozen value. Seconds and bytes; nothing here opens anything."""

from __future__ import annotations

import re
import ssl

import msgspec

from ...core.errors import InvalidConfig

MAX_CLUSTER_CHARS = 32
_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_CLUSTER_CHARS}}}")


class NatsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the servers are, who we are, and how patient we are. The NATS account is the one that the credentials belong to.

    Attributes:
        servers: addresses, `nats://host:port` or `tls://host:port`; one is enough, the servers tell the others
        cluster: first token of every subject and start of every stream's name: two platforms share one NATS under different ones
        user: with `password`; or else `token`, or `credentials_path`
        password: of `user`
        token: alone
        credentials_path: a file with a user's JWT and seed; needs the package `nkeys`
        tls_ca_path: whom to trust; given, or an address with `tls://`: the connection is encrypted
        tls_cert_path: our own certificate, with `tls_key_path`
        tls_key_path: its key
        inbox_prefix: where answers come to; a node that may subscribe to its own inboxes only has one of its own
        connect_timeout_s: of one attempt to connect
        ping_interval_s: between two pings of the server
        max_outstanding_pings: so many unanswered ones end a connection
        reconnect_wait_s: between two attempts at the same server
        max_pending_bytes: what waits to be sent; more is refused
        max_requests: that wait for an answer; more are refused
    """

    servers: tuple[str, ...]
    cluster: str = "jido"
    user: str = ""
    password: str = ""
    token: str = ""
    credentials_path: str = ""
    tls_ca_path: str = ""
    tls_cert_path: str = ""
    tls_key_path: str = ""
    inbox_prefix: str = "_INBOX"
    connect_timeout_s: float = 2.0
    ping_interval_s: float = 1.0
    max_outstanding_pings: int = 2
    reconnect_wait_s: float = 0.2
    max_pending_bytes: int = 64 * 1024 * 1024
    max_requests: int = 100_000

    def __post_init__(self) -> None:
        if not self.servers:
            raise InvalidConfig("no NATS server is named", path="servers", value=self.servers, allowed="one address or more")
        for server in self.servers:
            if not server.startswith(("nats://", "tls://")):
                raise InvalidConfig(
                    f"{server!r} isn't a NATS server's address", path="servers", value=server, allowed="nats://host:port, tls://host:port"
                )
        if _NAME.fullmatch(self.cluster) is None:
            allowed = f"1 to {MAX_CLUSTER_CHARS} letters, digits, '_' and '-'"
            raise InvalidConfig(f"{self.cluster!r} can't be a cluster's name: {allowed}", path="cluster", value=self.cluster, allowed=allowed)

    def __repr__(self) -> str:
        return f"<NatsSettings {self.cluster} at {', '.join(self.servers)}>"  # no password gets into a log by accident

    def tls(self) -> ssl.SSLContext | None:
        """The context of an encrypted connection, or None. Reads files."""
        if not self.tls_ca_path and not any(server.startswith("tls://") for server in self.servers):
            return None
        context = ssl.create_default_context(cafile=self.tls_ca_path or None)
        if self.tls_cert_path:
            context.load_cert_chain(self.tls_cert_path, self.tls_key_path or None)
        return context
