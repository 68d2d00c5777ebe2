"""NATS servers of each test's own, which it hurts, and the seed of its traffic."""

from __future__ import annotations

import os
from collections.abc import Iterator
from random import SystemRandom

import pytest


@pytest.fixture
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    from jidosystem.backends.nats.server import nats_servers

    with nats_servers(tmp_path_factory.mktemp("one")) as servers:
        yield servers


@pytest.fixture
def three_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    from jidosystem.backends.nats.server import nats_servers

    with nats_servers(tmp_path_factory.mktemp("three"), 3) as servers:
        yield servers


@pytest.fixture
def seed() -> int:
    """Of the run; `CLUSTER_SEED` repeats the choices of another one."""
    return int(os.environ.get("CLUSTER_SEED", SystemRandom().randrange(1_000_000)))
