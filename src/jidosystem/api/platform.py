"""`Platform`: the one value that everything hangs off.

It opens the store that its URL names, hosts agents, and closes everything again in the opposite order.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, TypeVarTuple, Unpack, overload

from ..core.bus import EventBus, Forwarder
from ..core.clock import Clock, SystemClock, boot_s
from ..core.config import Config
from ..core.dead_letters import DeadLetter, DeadLetters
from ..core.errors import InvalidArguments, InvalidConfig, ShuttingDown
from ..core.ids import Ids
from ..core.log import LogApart
from ..core.logs import logger
from ..core.near import near
from ..core.observability import Meters
from ..core.records import Records
from ..core.traces import Leaving, leave
from ..core.tracing import Tracing
from ..core.wire import Wire
from ..distribution.leases import LeaseTimes
from ..distribution.membership import Membership
from ..runtime import calls
from ..runtime.agent import Agent
from ..runtime.alerts import AlertBoard
from ..runtime.joined import Joined
from ..runtime.node import Node
from ..runtime.redrive import take_letters
from ..runtime.reference import by_name, cast_at_once, target_of
from ..runtime.sender import Sender, durable_cast
from ..runtime.subscriptions import Subscriptions
from . import assembly
from .agents import Agents
from .alerts import Alerts as AlertList
from .hooks import AsgiApp, Hooks

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

A = TypeVar("A", bound=Agent)
R = TypeVar("R")
Ts = TypeVarTuple("Ts")


OWN: tuple[type[Agent], ...] = (Sender, AlertBoard)
"""Agents of the platform itself, which every node hosts."""


def _letter_buried(node: Node, letter: DeadLetter) -> None:
    told = f"there are dead letters, the first of {letter.source} {letter.name}: {letter.error}"
    node.alerts.begin("dead_letters", "dead letters", told)


class Platform:
    """One node: opens a store, hosts agents, closes everything again in the opposite order. It is entered once, with `async with`, and belongs
    to the event loop that it is entered on, its references too; from another thread use `asyncio.run_coroutine_threadsafe`.

    Making it raises `InvalidConfig` for a wrong URL, `InvalidArguments` for `agents` that is no list, and `NotYetAvailable` for an engine
    that a later release brings. Entering it raises `InvalidConfig`, `StoreLocked` (another process owns the file), `StoreVersion`,
    `StoreCorrupt`, `StoreUnavailable`, and `DefinitionError` for two classes of one name.

    Leaving it refuses new work with `ShuttingDown`, lets running turns end for the largest `shutdown_grace_period` of the hosted types but
    at most `platform.shutdown_timeout`, cancels and names what still runs, runs `@on_terminate`, and closes the store last.

    Args:
        url: `"memory://"`: nothing survives. `"sqlite:///relative.db"`, `"sqlite:////absolute.db"`: a file that this process owns while it
            is open
        agents: classes to host from the start: their events, reminders and unfinished casts are taken up without anybody calling. A class
            that is referenced later is hosted from then on; on a cluster only if `agents` isn't given. With a list, also an empty one, a
            node of a cluster hosts exactly these, and its calls to others go to nodes that host them, or are `NoHost`
        config: values by path, `{"agents.default_timeout": 10}`
        forwarders: send matching events to the outside
        clock: where time comes from, for tests: a `Clock`
        checking: True: encode at every border, compare state between turns and refuse what is assigned to no field, to find what would break
            on another node or be lost. For tests. None: `agents.checking_mode`
        name: the node's name in log lines and `AgentInfo.node`; by default `host-pid`
        tracer_provider: OpenTelemetry's; by default the one that the application has set up before, if any
    """

    def __init__(
        self,
        url: str = "memory://",
        *,
        agents: Iterable[type[Agent]] | None = None,
        config: Mapping[str, Any] | None = None,
        forwarders: Iterable[Forwarder] = (),
        clock: Clock | None = None,
        checking: bool | None = None,
        name: str | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        self._url = url
        if isinstance(agents, type):
            raise InvalidArguments(f"agents={agents.__name__}: a list of classes is needed, agents=[{agents.__name__}]", path="$.agents")
        for option, value, fits, needed in (
            ("agents", agents, agents is None or isinstance(agents, Iterable), "a list of agent classes"),
            ("config", config, config is None or isinstance(config, Mapping), "a mapping from paths to values"),
            ("forwarders", forwarders, isinstance(forwarders, Iterable), "a list of forwarders"),
            ("clock", clock, clock is None or hasattr(clock, "time_s"), "an object with time_s() and monotonic_s()"),
            ("name", name, name is None or isinstance(name, str), "a string"),
        ):
            if not fits:
                raise InvalidArguments(f"Platform({option}={value!r}): {needed} is needed", path=f"$.{option}")
        self._classes, self._hosts_any = tuple(agents or ()), agents is None
        self._given = dict(config or {})
        self._forwarders = tuple(forwarders)
        self._clock = clock or SystemClock()
        self._checking = checking
        self._tracer_provider = tracer_provider
        self._name = name or f"{socket.gethostname()}-{os.getpid()}"
        self._stack: AsyncExitStack | None = None
        self._closing: asyncio.Future[None] | None = None
        self._node: Node | None = None
        self._meters = Meters()
        self._config: Config | None = None
        self._events: EventBus | None = None
        self._letters: DeadLetters | None = None
        self._agents: Agents | None = None
        self._records: Any = None
        self._subscriptions: Subscriptions | None = None
        self._joined: Joined | None = None
        self._random: Callable[[], float] = random.random
        self._watched = True
        self._lease_times, self._lease_clock = LeaseTimes(), boot_s
        self._parts = assembly.parts_of(url)

    # -- life ------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._node is not None or self._stack is not None:
            raise InvalidConfig("a Platform is entered once; make another one", path="", value=None, allowed="")
        try:
            async with AsyncExitStack() as stack:
                await self._open(stack)
                self._stack = stack.pop_all()
        except Exception as error:
            leave(error, self._name)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            self._closing = asyncio.ensure_future(stack.aclose())
        if self._closing is not None:  # whoever closes it a second time waits for the first
            await asyncio.shield(self._closing)

    async def _open(self, stack: AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()
        ids = self._new_ids()
        config = await self._new_config()
        log = logger("jidosystem").bind(node=self._name, cluster=config.platform.cluster_name, environment=config.platform.environment)
        stack.push_async_callback(self._parts.close)
        records = self._records = await self._open_records(config)
        stack.push_async_callback(records.close)
        log_of_events = records.log
        apart = await self._open_log()
        if apart is not None:
            log_of_events = apart
            stack.push_async_callback(apart.close)
        assert log_of_events is not None
        await config.load(records, self._clock)
        stack.push_async_callback(config.close)
        letters = self._letters = DeadLetters(records, clock=self._clock, limit=config.events.max_dead_letters, node=self._name)
        bus = self._events = EventBus(log_of_events, records, dead_letters=letters, ids=ids, clock=self._clock, node=self._name, random=self._random)
        checking = config.agents.checking_mode if self._checking is None else self._checking
        node = self._node = Node(
            loop, name=self._name, records=records, limits=config.agents, clock=self._clock, ids=ids, meters=self._meters, log=log,
            letters=letters, checking=checking, tracing=Tracing(self._tracer_provider),
            breaker_threshold=lambda: config.infrastructure.circuit_breaker_threshold, random=self._random, watched=self._watched,
        )  # fmt: skip
        node.log_apart = apart
        wire, joined = await self._open_wire(), None
        if wire is not None:
            stack.push_async_callback(wire.close)
            leases = await self._parts.open_leases(self._clock)
            if leases is not None:
                stack.push_async_callback(leases.close)
            joined = bus.sharing = self._join(node, config, leases or records, wire, ids, bus)
            stack.push_async_callback(joined.leave)
        self._config, self._agents = config, Agents._on(node)
        stack.push_async_callback(self._close_node, node, config, joined)
        take_letters(node, letters)
        letters.on_buried, letters.on_emptied = partial(_letter_buried, node), partial(node.alerts.end, "dead_letters", "dead letters")
        subscriptions = self._subscriptions = Subscriptions(node, log_of_events, records, letters)
        classes: tuple[type[Agent], ...] = (*OWN, *self._classes)
        for cls in classes:
            node.host_of(cls)
        if joined is not None:
            node.complete = not self._hosts_any
            await joined.join()
            node.own(config.follow())
            node.own(self._name_weaknesses(node))
        self._joined = joined
        await bus.start()
        stack.push_async_callback(bus.close)
        stack.push_async_callback(subscriptions.close)
        await subscriptions.start()
        for forwarder in self._forwarders:
            await bus.forward(forwarder)
        await node.start()
        if config.infrastructure.metrics_port is not None:
            from ..operations.metrics import serve_metrics

            stack.push_async_callback(serve_metrics(self._meters, port=config.infrastructure.metrics_port).aclose)

    async def _new_config(self) -> Config:
        """The configuration as it is given here; it reads jido.toml."""
        return await asyncio.to_thread(Config, self._given, url=self._url, node=self._name)

    async def _open_records(self, config: Config) -> Records:
        """The store that the URL names; what is derived from this class may bring another."""
        return await self._parts.open_records(config, self._clock, logger("jidosystem").bind(node=self._name))

    async def _open_log(self) -> LogApart | None:
        """The log, where the records don't commit with events."""
        return await self._parts.open_log()

    async def _open_wire(self) -> Wire | None:
        """The wire to the other nodes of a cluster; None: the store belongs to this process."""
        return await self._parts.open_wire()

    def _join(self, node: Node, config: Config, leases: Records, wire: Wire, ids: Ids, bus: EventBus) -> Joined:
        make = partial(
            Membership, leases, wire, name=self._name, cluster=config.platform.cluster_name, times=self._lease_times, now=self._lease_clock,
            clock=self._clock, ids=ids,
        )  # fmt: skip
        joined = Joined(node, wire, bus, make, [*OWN, *self._classes])
        node.join(joined)
        return joined

    async def _name_weaknesses(self, node: Node) -> None:
        weaknesses = await self._parts.weaknesses()
        for told in weaknesses:
            node.log.warning("the store is set up weaker than what it is to promise", weakness=told)
        node.alerts.are_now("weak_server", {told: told for told in weaknesses})

    def _new_ids(self) -> Ids:
        """Where identifiers of events and runs come from."""
        return Ids()

    async def _close_node(self, node: Node, config: Config, joined: Joined | None) -> None:
        graces = [host.type.lifecycle.shutdown_grace_period for host in node.hosts.values()]
        grace_s = min(config.platform.shutdown_timeout, max(graces, default=0.0))
        if joined is not None and joined.others():
            began_s = self._clock.monotonic_s()
            with suppress(TimeoutError):  # what runs still, is ended below
                async with asyncio.timeout(grace_s):
                    await joined.drain()
            grace_s = max(0.0, grace_s - (self._clock.monotonic_s() - began_s))
        await node.close(grace_s)

    # -- agents ----------------------------------------------------------------------------------------------

    def agent(self, cls: type[A], key: str) -> A:
        """A reference to the agent of that class and key. No I/O: the agent begins to exist with its first commit. Two references are equal if
        type and key are. Raises `InvalidKey`: a key is 1 to 512 bytes of UTF-8 without control characters; `NoHost` if `cls` is no agent class;
        `DefinitionError` if another class of its name is hosted.
        """
        try:
            node = self._node or self._running()
            ref: A = node.ref_to(cls, key)
        except Exception as error:
            leave(error, self._name)
            raise
        return ref

    @overload
    async def call(
        self,
        action: Callable[[Unpack[Ts]], Coroutine[Any, Any, R]],
        /,
        *arguments: *Ts,
        args: None = None,
        timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> R: ...
    @overload
    async def call(
        self,
        action: Callable[..., Coroutine[Any, Any, R]],
        /,
        *,
        args: Mapping[str, Any],
        timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> R: ...
    async def call(  # type: ignore[misc]  # by name nothing is known of the parameters
        self,
        action: Callable[[Unpack[Ts]], Coroutine[Any, Any, R]],
        /,
        *arguments: *Ts,
        args: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> R:
        """Call `ref.action` and wait for its answer, which comes after the commit. Arguments by position, or by name in `args` (checked against
        the type hints). `timeout`: the caller's patience in seconds; by default `agents.default_timeout`, and never more than what is left of
        the call that it is made in. `idempotency_key`: text of 1 to 512 characters; repetitions with the same key take effect once and get the
        first answer.

        Raises the action's own exception; `InvalidArguments`; `CallTimeout` (its `uncertain` says whether the turn had begun); `CallCycle`;
        `MailboxFull`, `CircuitOpen`, `BulkheadFull`, `AgentFailed`, `AgentCrashed`; `IdempotencyConflict`, `IdempotencyFull`; `NoHost`;
        `RecordUnreadable`, `StateMismatch`; store errors.

        `await ref.action(…)` is the same with the defaults.
        """
        try:
            self._running()
            ref, spec = target_of(action)
            result: R = await calls.call(ref._host, ref._key, spec, arguments, by_name(spec, arguments, args), timeout, idempotency_key)
        except Exception as error:
            leave(error, self._name)
            raise
        return result

    @overload
    async def cast(
        self,
        action: Callable[[Unpack[Ts]], Coroutine[Any, Any, Any]],
        /,
        *arguments: *Ts,
        args: None = None,
        idempotency_key: str | None = None,
        durable: bool = False,
    ) -> None: ...
    @overload
    async def cast(
        self,
        action: Callable[..., Coroutine[Any, Any, Any]],
        /,
        *,
        args: Mapping[str, Any],
        idempotency_key: str | None = None,
        durable: bool = False,
    ) -> None: ...
    async def cast(  # type: ignore[misc]  # by name nothing is known of the parameters
        self,
        action: Callable[[Unpack[Ts]], Coroutine[Any, Any, Any]],
        /,
        *arguments: *Ts,
        args: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        durable: bool = False,
    ) -> None:
        """Send `ref.action` and don't wait for its answer. Returns once the message is in the agent's mailbox; it is lost with the process. With
        `durable=True` it returns once the message is stored, which is then delivered at least once and applied once. `idempotency_key`:
        repetitions of the cast with the same key take effect once. Raises `InvalidArguments`, `IdempotencyConflict`, `MailboxFull`,
        `CircuitOpen`; what the action raises is only logged (durable: after five attempts a dead letter).
        """
        try:
            node = self._node or self._running()
            if args is None and idempotency_key is None and not durable and cast_at_once(action, arguments):
                return
            ref, spec = target_of(action)
            named = by_name(spec, arguments, args)
            if durable:
                await durable_cast(node.host_of(Sender), ref._host, ref._key, spec, arguments, named, idempotency_key)
            else:
                await calls.cast(ref._host, ref._key, spec, arguments, named, idempotency_key)
        except Exception as error:
            leave(error, self._name)
            raise

    # -- the rest --------------------------------------------------------------------------------------------

    @property
    def agents(self) -> Agents:
        """Starting, stopping and looking at agents."""
        self._running()
        assert self._agents is not None
        return self._agents

    @property
    def events(self) -> EventBus:
        """The event bus of this platform."""
        self._running()
        assert self._events is not None
        return self._events

    @property
    def dead_letters(self) -> DeadLetters:
        """What kept failing: dead letters of events, casts and reminders."""
        self._running()
        assert self._letters is not None
        return self._letters

    @property
    def alerts(self) -> AlertList:
        """What somebody has to look at, on all nodes."""
        return AlertList._on(self._running())

    @property
    def config(self) -> Config:
        """The configuration as it is now."""
        self._running()
        assert self._config is not None
        return self._config

    @property
    def name(self) -> str:
        """The node's name. It can be read before the platform is entered and after it was left."""
        return self._name

    def hooks(self, otherwise: AsgiApp | None = None) -> Hooks:
        """An ASGI application that hands requests to the sensors with `http=`: uvicorn serves it as it is, FastAPI and Starlette mount it, and
        `otherwise` is the application that all other requests go to (without one they are answered with 404). Bodies may have 4 MB, else 413.
        Who may send is for what stands in front of it, and for the sensor.
        """
        return Hooks(self._running().sensors.receivers, otherwise)

    def metrics(self) -> str:
        """Everything counted so far, as Prometheus text."""
        return self._meters.text()

    async def verify(self) -> list[str]:
        """Read the whole store once, in the background: a sentence for each thing that is damaged, naming it. Empty: all is well. Nothing is
        changed.
        """
        with Leaving(self._name):
            self._running()
            return list(await self._records.verify())

    if not TYPE_CHECKING:  # a type checker knows every attribute that there is

        def __getattr__(self, name: str) -> Any:
            from .later import ROOMS, not_yet

            if name in ROOMS:
                raise not_yet(f"platform.{name}", ROOMS[name])
            public = {known for known in dir(Platform) if not known.startswith("_")}
            raise AttributeError(f"a Platform has no attribute {name!r}{near(name, public)}")

    def _running(self) -> Node:
        node = self._node
        if node is None:
            raise ShuttingDown("the platform hasn't been entered: `async with Platform(…) as platform:`")
        return node

    def __repr__(self) -> str:
        state = "new" if self._node is None else "closed" if self._stack is None else "open"
        return f"<Platform {self._url} {state}>"
