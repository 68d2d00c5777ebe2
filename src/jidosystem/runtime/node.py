"""One process that hosts agents: its agent types, its live agents, its clocks and its way in.

Everything hangs off this value; there is no global. `Platform` makes one and hands it the contracts.
"""

from __future__ import annotations

import asyncio
import heapq
import random as random_module
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..core.clock import Clock
from ..core.deadlines import Deadlines, Line
from ..core.eager import start_eagerly
from ..core.errors import DefinitionError, JidoError, NoHost, ShuttingDown, StoreError, describe
from ..core.ids import Ids, check_key
from ..core.log import LogApart
from ..core.observability import Meters
from ..core.outside import later_in_passing
from ..core.records import Records
from ..core.tracing import Tracing
from ..distribution.frames import NodeFrame
from ..infrastructure.breaker import DEFAULT_THRESHOLD
from .alerts import Alerts
from .collector import Collector
from .commits import leave_in_doubt
from .control import Control
from .definition import AgentType
from .family import Family
from .head import Owner
from .host import Host
from .keyed import give_up
from .listing import Listing
from .mailbox import Queues
from .moving import Moving
from .owed import Owed
from .ownership import Cluster, Ownership
from .recovery import Recovery
from .reference import make_ref_class
from .reminders import Reminders
from .router import Router
from .sensors import STOPPING_S as SENSORS_STOPPING_S
from .sensors import Sensors
from .status import Status
from .threads import Threads
from .turn import steps_on
from .watchdog import Watchdog

if TYPE_CHECKING:
    from .activation import Activation

SWEEP_EVERY_S = 1.0
CLEAN_EVERY_S = 60.0
HOOKS_S = 1.0
"""What `on_terminate` gets at least when the platform closes, however short the grace period is."""
STOPPING_S = 1.0
"""How long a cancelled action may take to stop when the platform closes."""
EXPIRED_AT_ONCE = 1_000
"""How many expired rows one transaction removes."""


class Limits(Protocol):
    """The `agents` section of the configuration, as far as the runtime reads it; times in seconds."""

    default_timeout: float
    max_queue_size: int
    supervision_strategy: Any
    idempotency_retention: float
    idempotency_max_keys: int
    max_pending_effects: int
    max_live: int
    idle_timeout: float
    watchdog_timeout: float


class DeadLetterBox(Protocol):
    """Where what keeps failing is put."""

    async def bury(
        self,
        source: Literal["event", "cast", "reminder", "sensor"],
        name: str,
        agent: str | None,
        payload: dict[str, Any],
        *,
        series: str,
        number: int,
        attempts: int,
        error: BaseException,
    ) -> str:
        """Store a letter and return its id; a repeated call for the same (source, name, agent, series, number) stores it once."""
        ...


class Node:
    """See the module."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, name: str, records: Records, limits: Limits, clock: Clock, ids: Ids, meters: Meters, log: Any,
        letters: DeadLetterBox, checking: bool = False, tracing: Tracing | None = None,
        breaker_threshold: Callable[[], int] = lambda: DEFAULT_THRESHOLD, random: Callable[[], float] = random_module.random,
        watched: bool = True,
    ) -> None:  # fmt: skip
        self.loop = loop
        self._thread = get_ident()
        self.name = name
        self.records = records
        self.limits = limits
        self.clock = clock
        self.monotonic = clock.monotonic_s
        self.ids = ids
        self.meters = meters
        self.log = log
        self.letters = letters
        self.checking = checking
        self.tracing = tracing if tracing is not None else Tracing()
        self.log_apart: LogApart | None = None
        self.ownership: Ownership | None = None
        self.router: Router | None = None
        self.moving: Moving | None = None
        meters.gauge("live_agents", "Agents in memory on this node", lambda: self.live_count)
        meters.gauge("waiting_turns", "Messages in the mailboxes of this node", self._waiting_turns)
        self.breaker_threshold = breaker_threshold
        self.random = random
        self._watched = watched  # no thread of its own looks after the loop where time isn't real
        self.closing = False
        self.closed = False
        self.hosts: dict[str, Host] = {}
        self.guests: dict[str, Host] = {}  # types that are referenced here and hosted by other nodes only
        self.complete = False  # hosts no other types than it does now
        self.live_count = 0
        self.outliving: set[Activation] = set()  # gone, while the code of a turn still runs
        self._collector = Collector(lambda: self.live_count)
        self._cleaned = self.monotonic()
        self.deadlines = Deadlines(loop)
        self.committing = Line(loop)
        self.step, self.steps = steps_on(loop)
        self.queues = Queues()
        self.threads = Threads(loop)
        self.reminders = Reminders(self)
        self.family = Family(self)
        self.owed = Owed(self)
        self.alerts = Alerts(self)
        self.asked: dict[str, Callable[[NodeFrame], Awaitable[bytes]]] = {}  # what other nodes may ask of this one
        self.control = Control(self)
        self.listing = Listing(self)
        self.sensors = Sensors(self)
        self.recovery = Recovery(self)
        self._by_class: dict[type, Host] = {}
        self.on_hosted: list[Callable[[Host], None]] = []
        self.on_takes: list[Callable[[Host, str], None]] = []
        self._tasks: set[asyncio.Future[Any]] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._sweep_handle: asyncio.TimerHandle | None = None
        self._watchdog: Watchdog | None = None
        self._started = False

    # -- types and references --------------------------------------------------------------------------------

    def host_of(self, cls: type) -> Host:
        """The host of an agent class, registered now if it is new, on a node that is `complete` as a guest; two classes of one name are an error."""
        kind = getattr(cls, "__jido_type__", None)
        if not isinstance(kind, AgentType) or kind.cls is not cls:
            raise NoHost(f"{cls!r} isn't an agent class: derive it from jidosystem.Agent")
        if "__init__" in cls.__dict__:
            raise DefinitionError(f"{kind.name}: something has given it an __init__, perhaps @dataclass; an agent class has fields without that")
        host = self.known(kind.name)
        if host is None and get_ident() != self._thread:
            return self._on_loop(partial(self.host_of, cls))
        if host is None:
            host = Host(self, kind)
            host.ref_class = make_ref_class(host)
            if self.complete:
                self.guests[kind.name] = host
                host.needs = 0
            else:
                self._take_on(host)
        elif host.type.cls is not cls:
            raise DefinitionError(
                f'two agent classes are named {kind.name!r}: {_where(host.type.cls)} and {_where(cls)}; give one of them `name="…"`'
            )
        return host

    def _take_on(self, host: Host) -> None:
        self.sensors.check(host)
        self.hosts[host.type.name] = host
        self.sensors.mount(host)
        for call in self.on_hosted:
            call(host)
        if self._started:
            self.own(self.recovery.recover_type(host))

    def known(self, type_name: str) -> Host | None:
        """The host of a type that is hosted or referenced here."""
        return self.hosts.get(type_name) or self.guests.get(type_name)

    def tell_takes(self, host: Host, key: str) -> None:
        """An agent that was paused takes deliveries again."""
        for call in self.on_takes:
            call(host, key)

    def _on_loop(self, call: Callable[[], Host]) -> Host:
        """Do something on the loop's thread for an action that runs in another, which waits for it."""
        from concurrent.futures import Future

        done: Future[Host] = Future()

        def run() -> None:
            try:
                done.set_result(call())
            except JidoError as error:
                done.set_exception(error)

        self.loop.call_soon_threadsafe(run)
        return done.result()

    def ref_to(self, cls: type, key: str) -> Any:
        """A reference to an agent; `InvalidKey`, and what `host_of` raises."""
        host = self._by_class.get(cls) if isinstance(cls, type) else None
        if host is None:
            host = self._by_class[cls] = self.host_of(cls)
        return host.ref_class(host, check_key(key))

    def join(self, cluster: Cluster) -> None:
        """The node is one of a cluster: agents are claimed, and those of other nodes are called there. Before any type is hosted."""
        self.ownership = ownership = Ownership(self, cluster)
        self.router, self.moving = Router(self, cluster, ownership.placement), Moving(self)

    @property
    def owner(self) -> Owner | None:
        """Who this node is in the records of its agents; None: their store belongs to it alone."""
        return None if self.ownership is None else self.ownership.cluster.owner

    # -- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Recover what a crash left behind: unreleased effects, due reminders, resident agents. Calls are served meanwhile."""
        self._started = True
        self._collector.relax()
        if self._watched:
            self._watchdog = Watchdog(self.loop, self.log, lambda: self.limits.watchdog_timeout)
            self._watchdog.start()
        self._sweep_handle = later_in_passing(self.loop)(SWEEP_EVERY_S, self._sweep)
        self.own(self.recovery.recover())

    def count_in(self) -> None:
        """One more lives; over the limit the least recently used idle ones go."""
        self.live_count += 1
        if self.live_count > self.limits.max_live:
            self._evict(max(1, self.limits.max_live // 100))

    def count_out(self) -> None:
        """One fewer lives."""
        self.live_count -= 1

    def _waiting_turns(self) -> int:
        return sum(len(a.queue) for host in self.hosts.values() for a in tuple(host.live.values()) if a.queue)

    def _evict(self, count: int) -> None:
        idle = [a for host in self.hosts.values() if not host.type.resident for a in host.live.values() if a.idle]
        for activation in heapq.nsmallest(count, idle, key=_last_used):
            activation.host.passivate(activation)

    def _sweep(self) -> None:
        """Passivate what has been idle for long; remove expired rows."""
        now = self.monotonic()
        for host in tuple(self.hosts.values()):
            limit_s = host.type.lifecycle.idle_timeout or self.limits.idle_timeout
            stale = [a for a in host.live.values() if a.idle and now - a.last_used > limit_s and not host.type.resident]
            for activation in stale:
                host.passivate(activation)
        if now - self._cleaned > CLEAN_EVERY_S:
            self._cleaned = now
            self.own(self._clean())
        every_s = max(SWEEP_EVERY_S, self.live_count / 100_000)
        self._sweep_handle = later_in_passing(self.loop)(every_s, self._sweep)

    async def _clean(self) -> None:
        try:
            while await self.records.remove_expired(self.clock.time_s(), EXPIRED_AT_ONCE) >= EXPIRED_AT_ONCE:
                pass  # the commits of others go in between
        except StoreError as error:
            self.log.warning("expired rows couldn't be removed", error=describe(error))

    async def close(self, grace_s: float) -> None:
        """No new work; running turns get until `grace_s`, then are cancelled; `on_terminate`; effects stay in their records."""
        self.closing = True
        self.reminders.close()
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
        for handle in self._timers:
            handle.cancel()
        refused = ShuttingDown("the platform is closing and takes no new work")
        activations = [*(a for host in self.hosts.values() for a in host.live.values()), *self.outliving]
        if self.moving is not None:
            self.moving.close()
        for activation in activations:
            activation.refuse_waiting(refused)
            activation.disown_turns()  # asyncio.run would wait for them at a second Ctrl-C
        for host in self.hosts.values():
            for turn in tuple(host.repeating):
                turn.fail(refused)
        await self.sensors.close(min(max(grace_s, HOOKS_S), SENSORS_STOPPING_S))
        busy = [a for a in activations if not a.idle]
        await self._end({asyncio.ensure_future(a.at_rest()): a for a in busy}, grace_s)
        await self._end({asyncio.ensure_future(a.host.go(a)): a for a in activations if _has_last_words(a)}, max(grace_s, HOOKS_S))
        for host in self.hosts.values():
            for activation in tuple(host.live.values()):
                for turn in host.drop(activation):
                    turn.fail(refused)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for activation in activations:
            leave_in_doubt(activation)
        for host in self.hosts.values():
            give_up(host)
        self.deadlines.clear()
        self.committing.clear()
        self.threads.close()
        if self._watchdog is not None:
            await self._watchdog.close()
        self._collector.restore()
        self.closed = True

    def shutting_down(self, to: str) -> ShuttingDown:
        """What refuses new work for an agent once the platform closes; a reference to it may have been kept for long."""
        if self.closed:
            return ShuttingDown(f"{to}: the platform is closed; take the reference from the platform that runs now", agent=to)
        return ShuttingDown(f"{to}: the platform is closing and takes no new work", agent=to)

    async def _end(self, ends: dict[asyncio.Future[None], Activation], grace_s: float) -> None:
        """Wait for the ends of what runs; after the grace period cancel it, and name what doesn't stop then."""
        if not ends:
            return
        _done, late = await asyncio.wait(ends, timeout=grace_s)
        if late:
            busy = [ends[end] for end in late]
            for activation in busy:
                activation.cancel_turns(ShuttingDown("the platform closed before the action ended; it was rolled back"))
            _done, hung = await asyncio.wait(late, timeout=STOPPING_S)
            for activation in busy:
                for turn in activation.running():
                    self.log.error("an action didn't stop when the platform closed", agent=activation.address, action=turn.spec.name)
            for end in hung:
                end.cancel()
            self.threads.leave_behind()
            for activation in busy:
                activation.abandon_turns()
        await asyncio.gather(*ends, return_exceptions=True)

    # -- work of the platform itself -------------------------------------------------------------------------

    def own(self, coro: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine as a task of this node, which waits for it when it closes; its failure is a fault of ours and logged loudly."""
        task = start_eagerly(coro, self.loop)
        if task.done():
            self.tell(task)
        else:
            self.adopt(task)

    async def see_through(self, coro: Coroutine[Any, Any, object]) -> None:
        """Do what somebody outside asked for, to its end even if they give up: half a stop would leave an agent that nobody can call."""
        task = start_eagerly(coro, self.loop)
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and self.closing:
                raise ShuttingDown("the platform closed before it was done") from None
            raise

    def adopt(self, task: asyncio.Future[Any]) -> None:
        """Own a task that runs already."""
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        self.tell(task)

    def tell(self, task: asyncio.Future[Any]) -> None:
        """A task has ended that nobody waits for: how, if it is a fault."""
        if not task.cancelled() and (error := task.exception()) is not None and not (self.closing and isinstance(error, JidoError)):
            self.loop.call_exception_handler({"message": "a task of the platform failed", "exception": error, "future": task})

    def later(self, delay_s: float, call: Callable[[], Any]) -> None:
        """Call after a while, unless the node closes first."""
        handle: asyncio.TimerHandle

        def run() -> None:
            self._timers.discard(handle)
            if not self.closing:
                call()

        handle = self.loop.call_later(delay_s, run)
        self._timers.add(handle)


def _has_last_words(activation: Activation) -> bool:
    """Whether an agent whose platform closes is to be given another turn; not one whose code didn't stop."""
    if activation.status not in (Status.LIVE, Status.PAUSED) or any(activation.running()):
        return False
    outbox = activation.extra.outbox if activation.extra is not None else None
    if activation.host.type.hook_terminate is None and (outbox is None or not outbox.unnoted):
        return False
    activation.leave()
    return True


def _last_used(activation: Activation) -> float:
    return activation.last_used


def _where(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
