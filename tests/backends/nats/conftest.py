"""Real NATS servers: one for the whole run, and a cluster of three for those who hurt it. Each test has a cluster name of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import count

import pytest

pytest.importorskip("nats", reason="the extra `cluster` isn't installed")

from jidosystem.backends.nats.connection import Connection
from jidosystem.backends.nats.server import NatsCluster, nats_servers
from jidosystem.backends.nats.settings import NatsSettings

_names = count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "backends/nats" in str(item.path):
            item.add_marker(pytest.mark.timeout(180))


@pytest.fixture(scope="session")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    """A single server that nobody hurts."""
    with nats_servers(tmp_path_factory.mktemp("nats-one")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def _three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    with nats_servers(tmp_path_factory.mktemp("nats-three"), 3) as cluster:
        yield cluster


@pytest.fixture
def three_servers(_three: NatsCluster) -> Iterator[NatsCluster]:
    """Three servers that a test may kill, pause and start again (`servers[i].kill()`, `.pause()`, `.resume()`, `.start()`): they are mended
    afterwards."""
    yield _three
    for server in _three.servers:
        if server.pid:
            server.resume()
        else:
            server.start()
    for server in _three.servers:
        server.wait_ready(60)


@pytest.fixture
def settings(one_server: NatsCluster) -> NatsSettings:
    """Of the single server, under a cluster name of this test's own."""
    return one_server.settings(f"t{next(_names)}")


@pytest.fixture
def settings_of_three(three_servers: NatsCluster) -> NatsSettings:
    """Of the three servers."""
    return three_servers.settings(f"t{next(_names)}")


@pytest.fixture
async def connection(settings: NatsSettings) -> AsyncIterator[Connection]:
    """To the single server."""
    connection = await Connection.open(settings)
    yield connection
    await connection.close()
