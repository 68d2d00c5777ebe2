"""Who we are and how it is kept from others' eyes: passwords, tokens, a user's JWT, certificates."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import nkeys
import pytest

from jidosystem.backends.nats.connection import Connection
from jidosystem.backends.nats.jetstream import JetStream
from jidosystem.backends.nats.server import NatsCluster, NatsServer, nats_servers
from jidosystem.backends.nats.server_config import Tls
from jidosystem.backends.nats.settings import NatsSettings
from jidosystem.core.errors import StoreUnavailable


@contextmanager
def server_with(directory: Path, who: str) -> Iterator[NatsServer]:
    """A server whose accounts are set up in another way than ours."""
    cluster = NatsCluster(directory, 1)
    cluster._make()
    server = cluster.servers[0]
    text = server._text
    server._text = text[: text.index("accounts {")] + who
    server.start()
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


async def works(settings: NatsSettings) -> None:
    connection = await Connection.open(settings)
    assert "limits" in await JetStream(connection).api("INFO")
    await connection.close()


async def test_a_token_is_enough(tmp_path: Path) -> None:
    with server_with(tmp_path, 'authorization { token: "open sesame" }\n') as server:
        await works(NatsSettings(servers=(server.url,), token="open sesame"))
        with pytest.raises(StoreUnavailable, match="refuses our credentials"):
            await Connection.open(NatsSettings(servers=(server.url,), token="wrong"))


def key(prefix: int) -> nkeys.KeyPair:
    """A new key of a kind."""
    import os

    return nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), prefix)))


def signed(claims: dict[str, object], issuer: nkeys.KeyPair, subject: nkeys.KeyPair, name: str) -> str:
    """A JWT as NATS wants it."""

    def part(value: object) -> str:
        raw = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    body: dict[str, object] = {
        "iat": int(time.time()),
        "iss": issuer.public_key.decode(),
        "sub": subject.public_key.decode(),
        "name": name,
        "nats": claims,
    }
    body["jti"] = base64.b32encode(sha256(json.dumps(body).encode()).digest()).decode().rstrip("=")
    text = f"{part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{part(body)}"
    return f"{text}.{part(issuer.sign(text.encode()))}"


async def test_a_file_of_credentials_is_enough(tmp_path: Path) -> None:
    operator, account, system, user = (
        key(kind) for kind in (nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER)
    )
    limits = {"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
    storage = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    of_operator = signed({"type": "operator", "version": 2}, operator, operator, "O")
    of_account = signed({"type": "account", "version": 2, "limits": limits | storage}, operator, account, "A")
    of_system = signed({"type": "account", "version": 2, "limits": limits}, operator, system, "SYS")
    of_user = signed({"type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1}, account, user, "U")
    ours, theirs = account.public_key.decode(), system.public_key.decode()
    who = (
        f"operator: {of_operator}\nresolver: MEMORY\nresolver_preload: {{ {ours}: {of_account}, {theirs}: {of_system} }}\nsystem_account: {theirs}\n"
    )
    credentials = tmp_path / "user.creds"
    credentials.write_text(
        f"-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    with server_with(tmp_path / "server", who) as server:
        await works(NatsSettings(servers=(server.url,), credentials_path=str(credentials)))
        with pytest.raises(StoreUnavailable):
            await Connection.open(NatsSettings(servers=(server.url,), user="jido", password="wrong"), timeout_s=3)


def certificate(directory: Path) -> Tls:
    """A certificate for loopback, by an authority of its own."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)

    (directory / "names").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority", "-days", "2")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=server")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-out", "server.pem", "-days", "2", "-extfile", "names")
    return Tls(ca_path=str(directory / "ca.pem"), cert_path=str(directory / "server.pem"), key_path=str(directory / "server.key"))


async def test_clients_and_routes_are_encrypted_if_there_is_a_certificate(tmp_path: Path) -> None:
    tls = certificate(tmp_path)
    with nats_servers(tmp_path / "servers", 3, tls=tls) as cluster:
        settings = cluster.settings()
        assert all(server.startswith("tls://") for server in settings.servers)
        connection = await Connection.open(settings)
        assert connection.server["tls_required"] is True
        await JetStream(connection).ensure_stream({"name": "here", "subjects": ["here"], "num_replicas": 3, "max_bytes": 1_000_000})
        await connection.close()
        plain = NatsSettings(
            servers=tuple(f"tls://127.0.0.1:{server.peer.port}" for server in cluster.servers), user="jido", password=settings.password
        )
        with pytest.raises(StoreUnavailable):  # an authority that it doesn't trust
            await Connection.open(plain, timeout_s=2)
