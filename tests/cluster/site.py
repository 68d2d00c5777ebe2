"""A whole installation on one machine: NATS servers and nodes, where it can be had each on a machine and a disk of its own, under traffic."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from jidosystem.backends.nats.server import NatsCluster

from .disks import Disk, disks_under
from .namespaces import ApartServers, Network, network_of
from .nodes import NodeCluster, node_cluster
from .servers import start

SERVERS = ("s1", "s2", "s3")


class Site(NamedTuple):
    """`network` and `disks`: None and none where there are only those of this machine."""

    servers: NatsCluster
    cluster: NodeCluster
    network: Network | None = None
    disks: Sequence[Disk] = ()


@asynccontextmanager
async def site(folder: Path, seed: int, *nodes: str, count: int = 3, apart: bool = False, disks: bool = False) -> AsyncIterator[Site]:
    """Servers that serve, and nodes that aren't started. `apart`: on machines of their own; `disks`: on disks of their own. `OSError` where that
    can't be had.
    """
    with ExitStack() as stack:
        network = stack.enter_context(network_of((*SERVERS[:count], *nodes), seed)) if apart else None
        servers = NatsCluster(folder, count) if network is None else ApartServers(folder, network, count)
        servers._make()
        stack.callback(servers.stop)
        mounted = stack.enter_context(disks_under(servers)) if disks else []
        await start(servers.servers)
        async with node_cluster(servers, folder) as cluster:
            for name in nodes:
                node = cluster.add(name)
                if network is not None:
                    node.namespace = network.namespace(name)
                    node.command = network.command(name, *node.command)
            yield Site(servers, cluster, network, mounted)


@asynccontextmanager
async def site_or_skip(folder: Path, seed: int, *nodes: str, **wanted: Any) -> AsyncIterator[Site]:
    """`site`, with its nodes started; what this machine doesn't give skips the test."""
    async with AsyncExitStack() as stack:
        try:
            there = await stack.enter_async_context(site(folder, seed, *nodes, **wanted))
        except OSError as error:
            pytest.skip(f"no such network or disks here (Linux, root, iproute2, /dev/net/tun, loop devices): {error}")
        if nodes:
            await there.cluster.start()
        yield there
