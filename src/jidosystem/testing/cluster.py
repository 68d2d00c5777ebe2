"""`TestCluster`: the platforms of several nodes in one process, on one virtual clock, one simulated NATS and one wire, all from one seed.

Everything in it is the platforms' own code. What a test adds is what happens to nodes, to the store and between them, and eyes: what must
hold at every moment is looked at whenever an agent's record is written and whenever the test looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from random import Random
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from ..api.platform import Platform
from ..backends.memory import MemoryWire
from ..core.config import Config
from ..core.ids import Ids
from ..core.log import LogApart
from ..core.records import Records
from ..core.wire import Wire
from ..runtime.agent import Agent
from ..runtime.joined import Joined
from ..runtime.node import Node
from ..runtime.status import Status
from .crash import bury
from .faults import Faults, WireFaults
from .invariants import Invariants
from .loop import Stuck, VirtualLoop, virtual_loop
from .nats_model import NatsOdds, SimulatedNats
from .nats_store import SimulatedLog, SimulatedRecords
from .nodes import Nodes, NodeWire
from .platform import START, VirtualClock, moment
from .rest import unrest
from .wire import FaultyWire

T = TypeVar("T")


class ClusterNode(Platform):
    """One node of a `TestCluster`: a `Platform`. What is asked of it by a test is asked with `TestCluster.at`.

    Attributes:
        process: which process of its name it is: what its way to the store and its end of the wire are called
        faults: what goes wrong with what it sends over the wire
    """

    __test__ = False

    def __init__(self, cluster: TestCluster, name: str, process: str, agents: Iterable[type[Agent]], options: Mapping[str, Any]) -> None:
        super().__init__(agents=agents, name=name, clock=cluster.clock, **options)
        self.process = process
        self.faults = Faults(wire=cluster.wire_odds, seed=cluster.draw())
        self._cluster = cluster
        self._random = Random(f"node {cluster.draw()}").random
        self._lease_clock = cluster.loop.time
        self._watched = False
        self.dead = False
        self.leaving, self.ready = asyncio.Event(), asyncio.Event()
        self.life: asyncio.Task[None]

    async def _new_config(self) -> Config:
        return Config(self._given, url=self._url, node=self._name, file=None, environ={})  # a run is its seed's, on every machine

    def _new_ids(self) -> Ids:
        return Ids(self.process)

    async def _open_records(self, config: Config) -> Records:
        self.store = self._cluster.open_records(self)
        return self.store

    async def _open_log(self) -> LogApart | None:
        return self._cluster.open_log(self)

    async def _open_wire(self) -> Wire | None:
        self.wire = NodeWire(FaultyWire(self._cluster.wire, self.faults), self._cluster.nodes, self.process)
        return self.wire

    async def _close_node(self, node: Node, config: Config, joined: Joined | None) -> None:
        await super()._close_node(node, config, None if self.dead else joined)  # a dead one hands nothing over

    async def live(self) -> None:
        """From its start until it is told to leave."""
        async with self:
            self.ready.set()
            await self.leaving.wait()

    def alive(self, cls: type[Agent]) -> dict[str, Any]:
        """The agents of a type that are in its memory, by key."""
        return self._node.host_of(cls).live if self._node is not None else {}

    def belongs_here(self, cls: type[Agent], key: str) -> bool:
        """Whether an agent is to be looked for on this node."""
        node = self._running()
        assert node.router is not None
        return node.router.elsewhere(node.host_of(cls), key) is None

    def serves(self) -> bool:
        """Whether its lease lets it start a turn, or let an answer leave, now."""
        return not self.dead and self._node is not None and self._node.ownership is not None and self._node.ownership.cluster.may_serve()

    def serving(self) -> Iterable[str]:
        """The addresses of the agents that it would answer for now."""
        if self._node is None or not self.serves():
            return []
        hosts = self._node.hosts.values()
        return [host.prefix + key for host in hosts for key, activation in host.live.items() if activation.status is Status.LIVE]

    def unrest(self, log_end: int | None) -> Iterable[str]:
        """What it is still at, in sentences."""
        if self._node is None or self._events is None or self._subscriptions is None:
            return []
        return unrest(self._node, self._events, self._subscriptions, log_end)

    async def fall(self) -> None:
        """Take what a killed node left behind off the loop."""
        if self._node is not None and self._events is not None and self._subscriptions is not None:
            await bury(self._node, self._events, self._subscriptions)
        self.life.cancel()


class TestCluster:
    """Nodes of one cluster, under virtual time. `nodes`: names of those that are there from the start; `agents`: what all of them host; `seed`: of
    every fault, retry and identifier; `odds` and `wire`: how likely the store and the wire fail, from the moment these nodes have started;
    `start`: when time begins, with its zone; `config` and `checking` as a `Platform`'s, but neither `jido.toml` nor the environment is read.
    Same seed, same run, in any process, as long as the test itself draws from nothing else.

    Attributes:
        now: the nodes that are there, by name
        ever: all that there were, in the order of their starts
        nats: the store: `SimulatedNats`, with more faults than are named here; a node is known to it by its `process`
        nodes: the processes and the ways between them: `Nodes`
        loop: the loop, and what the nodes measure time by
        clock: what the clock on the wall of all of them shows
    """

    __test__ = False  # no test, although its name begins like one
    node_class: ClassVar[type[ClusterNode]] = ClusterNode

    def __init__(
        self,
        nodes: Iterable[str] = ("a", "b", "c"),
        *,
        agents: Iterable[type[Agent]],
        seed: int = 0,
        odds: NatsOdds | None = None,
        wire: WireFaults | None = None,
        start: str = START,
        config: Mapping[str, Any] | None = None,
        checking: bool = True,
    ) -> None:
        self.seed = seed
        self.wire_odds = wire or WireFaults()
        self.start_s = moment(start).timestamp()
        self.clock: VirtualClock
        self.now: dict[str, ClusterNode] = {}
        self.ever: list[ClusterNode] = []
        self.loop: VirtualLoop
        self._names, self._agents, self._odds = tuple(nodes), tuple(agents), odds
        self._options = {"config": dict(config or {}), "checking": checking}
        self._random = Random(f"cluster {seed}")
        self._faulty = False

    def draw(self) -> int:
        """A number from the seed, another one each time."""
        return self._random.getrandbits(32)

    # -- life ------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self.loop = virtual_loop()
        self.nodes, self.wire = Nodes(self.loop), MemoryWire()
        self.clock = VirtualClock(self.loop, self.start_s)
        self.nats = SimulatedNats(seed=self.seed, clock=self.clock)
        self.invariants = Invariants(self.nats)
        try:
            await self.start(*self._names)
        except BaseException:
            await self._end()
            raise
        self._faulty = True
        self.nats.odds = self._odds or self.nats.odds
        for node in self.ever:
            node.faults.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            error.add_note(f"a cluster of seed {self.seed}; the last that was done to its store:\n  " + "\n  ".join(list(self.nats.journal)[-12:]))
        await self._end()

    async def _end(self) -> None:
        self.heal()
        self.nodes.end()
        for node in self.now.values():
            node.leaving.set()
        for node in self.ever:
            if node.dead:
                await node.fall()
        ended = await asyncio.gather(*(node.life for node in self.ever), return_exceptions=True)
        failed = [one for node, one in zip(self.ever, ended, strict=True) if isinstance(one, BaseException) and not node.dead]
        if failed:
            raise failed[0]

    def open_records(self, node: ClusterNode) -> Records:
        """A node's way to the records; a test may bring others."""
        return SimulatedRecords(self.nats, node.process)

    def open_log(self, node: ClusterNode) -> LogApart | None:
        """A node's way to the log; None: the records have one."""
        return SimulatedLog(self.nats, node.process)

    # -- what happens to nodes -------------------------------------------------------------------------------

    async def start(self, *names: str, agents: Iterable[type[Agent]] | None = None) -> list[ClusterNode]:
        """Start nodes, one after another, and wait until each has joined. A name may be used again when its node is gone. Raises what starting
        a platform does.
        """
        started = [self.begin(name, agents) for name in names]
        for node in started:
            ready = asyncio.ensure_future(node.ready.wait())
            await asyncio.wait([ready, node.life], return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            if node.life.done():
                self.now.pop(node.name, None)
                await node.life
        await self.pass_time(0.1)
        return started

    def begin(self, name: str, agents: Iterable[type[Agent]] | None = None) -> ClusterNode:
        """Start a node and don't wait for it: `ready` and `life` tell how it goes."""
        again = sum(node.name == name for node in self.ever)
        node = self.node_class(self, name, f"{name}#{again}" if again else name, self._agents if agents is None else agents, self._options)
        if self._faulty:
            node.faults.start()
        self.ever.append(node)
        self.now[name] = node
        node.life = self.nodes.start(node.process, node.live())
        return node

    def at(self, node: ClusterNode | str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do something on behalf of a node, as its own process would. If the node is killed it never ends."""
        return self.nodes.start(self._process(node), work)

    async def leave(self, name: str) -> None:
        """Let a node end in order."""
        node = self.now.pop(name)
        node.leaving.set()
        await node.life

    def kill(self, name: str) -> None:
        """A node is gone: it runs nothing, serves nothing, writes nothing. What it has sent is on its way."""
        node = self.now.pop(name)
        node.dead = True
        self.nodes.kill(node.process)
        self.nats.close(node.process)
        if hasattr(node, "wire"):
            node.wire.die()

    def pause(self, name: str) -> None:
        """Let a node stand still."""
        self.nodes.pause(self._process(name))

    def resume(self, name: str) -> None:
        """Let it go on."""
        self.nodes.resume(self._process(name))

    # -- what happens between them ---------------------------------------------------------------------------

    def cut(self, one: str, other: str, *, both: bool = True) -> None:
        """Nothing that is sent from one node arrives at another; `both`: nor the other way."""
        ends = self._process(one), self._process(other)
        self.nodes.cut.add(ends)
        if both:
            self.nodes.cut.add((ends[1], ends[0]))

    def cut_off(self, name: str, seconds: float, *, old_leader: bool = False) -> None:
        """A node doesn't reach the store for so long; `old_leader`: it is cut off together with a leader that goes on answering its reads."""
        (self.nats.cut_with_old_leader if old_leader else self.nats.cut)(self._process(name), seconds)

    def heal(self) -> None:
        """No faults any more: nodes reach each other and the store, and those that stood still go on. What is under way stays so."""
        self.nodes.cut.clear()
        self.nodes.between.clear()
        self.nats.heal()
        self.nats.odds, self._faulty = NatsOdds(), False
        for node in self.ever:
            node.faults.stop()
        for node in self.now.values():
            self.nodes.resume(node.process)

    def _process(self, node: ClusterNode | str) -> str:
        return (self.now[node] if isinstance(node, str) else node).process

    # -- time, and what a test wants to see ------------------------------------------------------------------

    def where(self, cls: type[Agent], key: str) -> list[str]:
        """On which nodes an agent is in memory."""
        return [name for name, node in self.now.items() if key in node.alive(cls)]

    async def pass_time(self, seconds: float) -> None:
        """Let so much time pass, with all that is due meanwhile."""
        await asyncio.sleep(seconds)
        await self.loop.idle()
        self.check()

    async def until(self, what: Callable[[], Any], within_s: float = 60.0) -> float:
        """Let time pass until something is so; how long that took. `Stuck` if it isn't within that time."""
        began = self.loop.time()
        await self.loop.idle()
        while not what():
            if self.loop.time() - began > within_s:
                raise Stuck("\n  ".join([f"not within {within_s:g} s", *self.busy(None)]))
            await self.loop.moved()
            await self.loop.idle()
        self.check()
        return self.loop.time() - began

    async def at_rest(self, within_s: float = 600.0) -> None:
        """Wait until every node serves and nothing runs, is due or undelivered on any. `Stuck` names what goes on for longer."""
        began = self.loop.time()
        while True:
            await self.loop.idle()
            busy = self.busy(await self.nats.store.events.last())
            if not busy:
                self.check()
                return
            if self.loop.time() - began > within_s:
                raise Stuck("\n  ".join([f"not at rest within {within_s:g} s:", *busy]))
            await asyncio.sleep(0.1)

    def busy(self, log_end: int | None) -> list[str]:
        """What the nodes are still at."""
        told = [f"node {name} doesn't serve" for name, node in self.now.items() if not node.serves()]
        return told + [f"node {name}: {what}" for name, node in self.now.items() for what in node.unrest(log_end)]

    def check(self) -> None:
        """What must hold at every moment: `AssertionError` naming what doesn't. The methods that let time pass do it themselves."""
        self.invariants.check(self.ever)
