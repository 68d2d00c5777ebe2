"""A cluster on this machine: three NATS servers, replicated and fsynced, and what nats-py does by itself in the same exchange.

The other node, and the raw responder, are processes of their own; raw and ours take turns.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter
from typing import Any

from jidosystem import Agent, Platform, action

from ..measure import Absent, Run
from .agents import share, together

RAW = "raw nats-py"
"""The name of the limit's figures."""
STATE = b"s" * 500
REPLICAS = 3


class Ledger(Agent):
    """A state of 500 bytes."""

    value: int = 0
    content: bytes = STATE

    @action
    async def add(self) -> int:
        self.value += 1
        return self.value

    @action(readonly=True)
    async def get(self) -> int:
        return self.value


@contextmanager
def servers(run: Run, how_many: int = 3) -> Iterator[Any]:
    """Servers that serve, with nothing in them: a node whose name an earlier round has used waits until that one's lease has run out."""
    try:
        from jidosystem.backends.nats.server import nats_servers
    except ModuleNotFoundError as missing:
        raise Absent(f"the extra `cluster`: {missing}") from missing
    with nats_servers(Path(mkdtemp(dir=run.scratch)), how_many) as cluster:
        yield cluster


def url_of(cluster: Any) -> str:
    """Of the platform's cluster on these servers."""
    settings = cluster.settings()
    hosts = ",".join(server.partition("://")[2] for server in settings.servers)
    return f"nats://{settings.user}:{settings.password}@{hosts}"


@contextmanager
def process(what: str, url: str, name: str = "other") -> Iterator[None]:
    """Another process that does something until it is ended: a `node`, or the raw `responder`."""
    with subprocess.Popen([sys.executable, "-m", "benchmarks.ours.cluster", what, url, name], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            if child.stdout.readline() != "ready\n":
                raise RuntimeError(f"the {what} didn't start")
            yield
        finally:
            child.terminate()


@asynccontextmanager
async def raw(cluster: Any) -> AsyncIterator[Any]:
    """A connection of nats-py, as its own documentation makes one."""
    import nats

    settings = cluster.settings()
    connection = await nats.connect(list(settings.servers), user=settings.user, password=settings.password)
    try:
        yield connection
    finally:
        await connection.close()


async def _agents(platform: Platform, many: int, *, here: bool) -> list[Ledger]:
    """So many agents that live on this node, or on the other one."""
    router = platform._node.router
    host = platform._node.host_of(Ledger)
    membership = router.cluster.membership
    while sum(1 for _ in membership.view.living()) < 2:
        await membership.wait_changed(membership.view)
    keys = (key for key in (f"a{number}" for number in count()) if (router.elsewhere(host, key) is None) is here)
    found = [platform.agent(Ledger, next(keys)) for _ in range(many)]
    await asyncio.gather(*(agent.add() for agent in found))
    return found


# -- workloads -----------------------------------------------------------------------------------------------------


async def _ask(run: Run, callers: int, each: int) -> None:
    with servers(run) as cluster, process("node", url_of(cluster)), process("responder", url_of(cluster)):
        async with Platform(url_of(cluster), agents=[Ledger], name="asker") as platform, raw(cluster) as connection:
            agents = await _agents(platform, callers, here=False)
            ours = lambda: together(callers, each, lambda number: agents[number].get())  # noqa: E731
            bare = lambda: together(callers, each, lambda _number: connection.request("raw.echo", STATE[:100], timeout=30))  # noqa: E731
            await run.by_turns(callers * each, {"": ours, RAW: bare})


async def ask_1(run: Run) -> None:
    """A read-only call to an agent on the other node."""
    await _ask(run, 1, run.some(500, 20))


async def ask_64(run: Run) -> None:
    """The same, 64 callers of 64 agents."""
    await _ask(run, 64, run.some(50, 2))


async def durable_64(run: Run) -> None:
    """64 callers of 64 agents of this node, against compare-and-set of 64 keys."""
    callers, each = 64, run.some(30, 2)
    with servers(run) as cluster, process("node", url_of(cluster)):
        async with Platform(url_of(cluster), agents=[Ledger], name="asker") as platform, raw(cluster) as connection:
            agents = await _agents(platform, callers, here=True)
            write = await _compare_and_set(connection)
            ours = lambda: together(callers, each, lambda number: agents[number].add())  # noqa: E731
            bare = lambda: together(callers, each, lambda number: write(f"k{number}"))  # noqa: E731
            await run.by_turns(callers * each, {"": ours, RAW: bare})


async def claims(run: Run) -> None:
    """Agents claimed for the first time, 1,000 callers at once, against as many first writes."""
    many, round_ = run.some(10_000, 200), count()
    with servers(run) as cluster:
        async with Platform(url_of(cluster), agents=[Ledger], name="asker") as platform, raw(cluster) as connection:
            write = await _compare_and_set(connection)

            async def ours() -> None:
                prefix = next(round_)
                await share(1_000, range(many), lambda number: platform.agents.start(Ledger, f"{prefix}-{number}"))

            async def bare() -> None:
                prefix = next(round_)
                await share(1_000, range(many), lambda number: write(f"{prefix}-{number}"))

            await _once_by_turns(run, many, {"": ours, RAW: bare})


async def publish_64(run: Run) -> None:
    """Durable events, 64 publishers, against publishing with an acknowledgement."""
    publishers, each = 64, run.some(30, 2)
    with servers(run) as cluster:
        async with Platform(url_of(cluster), name="asker") as platform, raw(cluster) as connection:
            stream = connection.jetstream()
            await stream.add_stream(name="raw_log", subjects=["raw.log"], num_replicas=REPLICAS)
            ours = lambda: together(publishers, each, lambda number: platform.events.publish("bench.happened", {"number": number}))  # noqa: E731
            bare = lambda: together(publishers, each, lambda _number: stream.publish("raw.log", STATE[:150]))  # noqa: E731
            await run.by_turns(publishers * each, {"": ours, RAW: bare})


def start(run: Run) -> None:
    """Seconds from nothing to the first durable call: three servers and three nodes; then one node more."""
    for _ in range(run.some(5, 1)):
        began = perf_counter()
        with servers(run) as cluster, process("node", url_of(cluster), "one"), process("node", url_of(cluster), "two"):  # noqa: SIM117 - one after another
            with process("called", url_of(cluster), "three"):
                ready = perf_counter()
                run.record(ready - began)
                with process("called", url_of(cluster), "four"):
                    run.record(perf_counter() - ready, "one more")


async def _compare_and_set(connection: Any) -> Callable[[str], Awaitable[None]]:
    """A write of 500 bytes under a key, on condition that nobody else wrote meanwhile: what a KV bucket's `update` sends."""
    stream = connection.jetstream()
    await stream.add_stream(name="raw_kv", subjects=["raw.kv.*"], max_msgs_per_subject=1, num_replicas=REPLICAS)
    revisions: dict[str, int] = {}

    async def write(key: str) -> None:
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revisions.get(key, 0))}
        revisions[key] = (await stream.publish(f"raw.kv.{key}", STATE, headers=headers, timeout=60)).seq

    return write


async def _once_by_turns(run: Run, operations: int, each: dict[str, Callable[[], Awaitable[None]]]) -> None:
    """As `Run.by_turns`, for rounds that leave much behind: as many as `repeat` makes."""
    for once in each.values():
        await once()
    for _ in range(run.repetitions):
        for name, once in each.items():
            began = perf_counter()
            await once()
            run.record(operations / (perf_counter() - began), name)


# -- the other processes -------------------------------------------------------------------------------------------


async def _be(what: str, url: str, name: str) -> None:
    if what == "responder":
        import nats

        who, _, where = url.removeprefix("nats://").rpartition("@")
        user, _, password = who.partition(":")
        connection = await nats.connect([f"nats://{host}" for host in where.split(",")], user=user, password=password)

        async def echo(message: Any) -> None:
            await message.respond(message.data)

        await connection.subscribe("raw.echo", cb=echo)
        await connection.flush()
        print("ready", flush=True)
        await asyncio.Event().wait()
    async with Platform(url, agents=[Ledger], name=name) as platform:
        if what == "called":
            await platform.agent(Ledger, name).add()
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_be(*sys.argv[1:]))
