"""A NATS server that acknowledges before it has written is named where an operator looks: in the log at the start, and in the node's answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

pytest.importorskip("nats", reason="the extra `cluster` isn't installed")

from jidosystem import Agent, Platform
from jidosystem.backends.nats.server import NatsCluster


class Nothing(Agent):
    pass


@pytest.fixture
def weak_url(tmp_path: Path) -> Iterator[str]:
    cluster = NatsCluster(tmp_path, 1)
    cluster._make()
    server = cluster.servers[0]
    server._text = server._text.replace("sync_interval: always", 'sync_interval: "10s"')
    server.start()
    try:
        server.wait_ready()
        settings = cluster.settings()
        yield f"nats://{quote(settings.user, safe='')}:{quote(settings.password, safe='')}@{settings.servers[0].partition('://')[2]}"
    finally:
        server.stop()


async def test_a_server_set_up_weaker_is_named_in_the_log_at_the_start(weak_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Platform(weak_url, agents=[Nothing], name="a") as platform:
        (told,) = await platform._parts.weaknesses()
        assert "sync_interval: always" in told
        async with asyncio.timeout(20):
            while platform._node._tasks and "set up weaker" not in caplog.text:
                await asyncio.wait(platform._node._tasks, timeout=1, return_when=asyncio.FIRST_COMPLETED)
        assert "set up weaker" in caplog.text
