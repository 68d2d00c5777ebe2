"""The sensors of one node: begun when an agent begins to live, ended when it no longer does, at most one of a kind at a time.

Each runs in a task of its own, owned here. It is cancelled when its activation ends, whatever ends it, and gets some seconds
for its `finally`; what doesn't stop then is named and left to itself, and nothing that it still yields counts. What fails
again and again is tried at growing intervals, also by the activations that follow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..core.errors import StoreError, describe
from ..core.hooks import Receivers
from ..core.traces import for_log
from .activation import SYSTEM_READ, nothing
from .definition import ActionOptions, ActionSpec
from .folders import Folders, check_installed
from .outbox import backoff_s
from .receiving import Reception
from .sensing import Packed, Sensing
from .turn import TurnTask

if TYPE_CHECKING:
    from .activation import Activation
    from .host import Host
    from .node import Node
    from .sensor import SensorSpec

STOPPING_S = 5.0
"""How long a sensor that was cancelled may take for its `finally`."""


class Sensors:
    """See the module."""

    __slots__ = ("_node", "_stopping", "_tasks", "_troubles", "_waiting", "folders", "nothing", "receivers")

    def __init__(self, node: Node) -> None:
        self._node = node
        self._tasks: dict[tuple[str, str], TurnTask] = {}  # (address, sensor) -> what runs, or is stopping
        self._stopping: set[TurnTask] = set()
        self._troubles: dict[tuple[str, str], int] = {}  # how often in a row it failed
        self._waiting: dict[Sensing, float] = {}  # since when an item's turn is awaited
        self.folders = Folders(self._own, node.log)
        self.receivers = Receivers()
        self.nothing = ActionSpec("sensor", nothing, SYSTEM_READ.signature, ActionOptions(copy=False))
        """The turn that only stores what is kept of a sensor."""
        node.meters.gauge("sensor_lag_seconds", "How long the item that waits longest for its turn has been waiting", self._lag_s)

    # -- types ---------------------------------------------------------------------------------------------------

    def check(self, host: Host) -> None:
        """`DefinitionError` or `UsageError` if the sensors of a type can't run on this node."""
        for name, spec in host.type.sensors.items():
            owner = f"{host.type.name}.{name}"
            if spec.options.watch is not None:
                check_installed(owner)
            if spec.options.http is not None:
                self.receivers.check(spec.options.http, owner)

    def mount(self, host: Host) -> None:
        """Take the requests that the sensors of a type are there for."""
        for name, spec in host.type.sensors.items():
            if spec.options.http is not None:
                self.receivers.mount(spec.options.http, Reception(self, host, spec).receive, f"{host.type.name}.{name}")

    # -- life ----------------------------------------------------------------------------------------------------

    def begin(self, activation: Activation) -> None:
        """The agent lives: its sensors run, but those that wait for requests."""
        if self._node.closing:
            return
        for spec in activation.host.type.sensors.values():
            if spec.options.http is None:
                self.start(activation, spec, Sensing(self, activation, spec).go_on)

    def start(self, activation: Activation, spec: SensorSpec, run: Callable[[], Coroutine[Any, Any, Any]]) -> TurnTask:
        """Run something of a sensor in a task that ends with the activation, once what ran before it has ended."""
        key = (activation.address, spec.name)
        previous = self._tasks.get(key)
        task = self._node.step(self._after(key, previous, run), None)
        assert isinstance(task, TurnTask)
        self._tasks[key] = task
        extra = activation.need_extra()
        if extra.sensing is None:
            extra.sensing = set()
        extra.sensing.add(task)
        task.add_done_callback(partial(self._ended, activation, key))
        return task

    async def _after(self, key: tuple[str, str], previous: TurnTask | None, run: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        await asyncio.sleep(0)  # nothing of it runs inside of whoever has woken the agent
        if previous is not None:
            await self._give_up(await _still_running([previous], STOPPING_S))
        return await run()

    def end(self, activation: Activation) -> None:
        """The activation ends, or is paused: so do its sensors."""
        self._cancel(activation.extra.sensing or () if activation.extra is not None else ())

    def _cancel(self, tasks: Iterable[TurnTask]) -> None:
        for task in tuple(tasks):
            if task not in self._stopping:  # a second time would hit its `finally`
                self._stopping.add(task)
                task.cancel()

    async def ended(self, activation: Activation) -> None:
        """Wait until they have, but not for ever. How often they have failed is forgotten."""
        if activation.extra is not None and activation.extra.sensing:
            await self._give_up(await _still_running(tuple(activation.extra.sensing), STOPPING_S))
        self.forget(activation)

    def forget(self, activation: Activation) -> None:
        """Nothing of this agent's troubles counts any more."""
        for name in activation.host.type.sensors:
            self._troubles.pop((activation.address, name), None)

    async def close(self, at_most_s: float) -> None:
        """The platform closes: every sensor ends."""
        running = tuple(self._tasks.values())
        self._cancel(running)
        await self._give_up(await _still_running(running, at_most_s))

    async def _give_up(self, hung: Iterable[TurnTask]) -> None:
        for task in hung:
            key = next((key for key, present in self._tasks.items() if present is task), ("", ""))
            self._node.log.error("a sensor ignored its cancellation and was given up", agent=key[0], sensor=key[1])
            task.disown()

    def _ended(self, activation: Activation, key: tuple[str, str], task: asyncio.Future[Any]) -> None:
        assert isinstance(task, TurnTask)
        self._stopping.discard(task)
        if self._tasks.get(key) is task:
            del self._tasks[key]
        if activation.extra is not None and activation.extra.sensing is not None:
            activation.extra.sensing.discard(task)
        self._node.tell(task)

    def _own(self, coro: Coroutine[Any, Any, None]) -> asyncio.Future[Any]:
        task = self._node.loop.create_task(coro)
        self._node.adopt(task)
        return task

    # -- what becomes of runs and items --------------------------------------------------------------------------

    def pause_s(self, address: str, name: str) -> float:
        """How long to wait before a sensor is run: not at all, if it didn't fail."""
        troubles = self._troubles.get((address, name), 0)
        return backoff_s(troubles, self._node.random()) if troubles else 0.0

    def failed(self, activation: Activation, name: str, error: BaseException, *, steady: bool = False) -> None:
        """A run failed. `steady`: it had gone on for long, so this is the first trouble."""
        key = (activation.address, name)
        self._troubles[key] = 1 if steady else self._troubles.get(key, 0) + 1
        activation.host.meter.sensor_failures += 1
        told = "a sensor failed; it is run again from its last position"
        self._node.log.error(told, agent=activation.address, sensor=name, error=describe(error), exc_info=error)

    def went_well(self, address: str, name: str) -> None:
        """A run came to its end."""
        self._troubles.pop((address, name), None)

    def told(self, activation: Activation, name: str, settle: Callable[[BaseException | None], None], error: BaseException | None) -> None:
        """What became of an item's turn. Where the store failed, a new activation may have to begin again: not at once, and again."""
        if isinstance(error, StoreError):
            key = (activation.address, name)
            self._troubles[key] = self._troubles.get(key, 0) + 1
        settle(error)

    @contextmanager
    def waiting(self, sensing: Sensing) -> Generator[None, None, None]:
        """An item's turn is awaited meanwhile."""
        self._waiting[sensing] = monotonic()
        try:
            yield
        finally:
            del self._waiting[sensing]

    def _lag_s(self) -> float:
        since = tuple(self._waiting.copy().values())
        return monotonic() - min(since) if since else 0.0

    async def bury(self, activation: Activation, spec: SensorSpec, packed: Packed, attempts: int, error: BaseException) -> None:
        """Make a dead letter of an item; one with a position is known again and makes one letter, however often it comes."""
        known = None if packed.position is None else blake2b(packed.position + packed.arguments, digest_size=16).hexdigest()
        address, name = activation.address, f"{activation.host.type.name}.{spec.name}"
        payload = {"sensor": spec.name, "args": packed.arguments}
        self._node.log.error(
            "an item of a sensor is moved to the dead letters", agent=address, sensor=spec.name, error=describe(error), exc_info=for_log(error)
        )
        await self._node.letters.bury("sensor", name, address, payload, series=known or self._node.ids(), number=0, attempts=attempts, error=error)


async def _still_running(tasks: Iterable[TurnTask], at_most_s: float) -> Iterable[TurnTask]:
    waiting = [task for task in tasks if not task.done()]
    if not waiting:
        return ()
    _done, late = await asyncio.wait(waiting, timeout=at_most_s)
    return late
