"""Membership: this node's lease, the leases of the others, and the word that goes round between them.

`may_serve_until` and `view` are read without waiting, by whoever starts a turn or looks for a node. A node that finds its own lease void tells
its owner (`on_lost`), serves nothing, and may join again, as a new incarnation.
"""

from __future__ import annotations

import asyncio
from asyncio import Future, Task
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from math import inf
from typing import Any

from ..core.clock import Clock, SystemClock, boot_s
from ..core.errors import ShuttingDown, StoreError, StoreUnavailable
from ..core.ids import Ids, check_node_name
from ..core.records import Records
from ..core.wire import Wire
from .beats import Beats
from .frames import OLDEST_VERSION, VERSION, BeatFrame
from .holding import Holder, Now, take_lease
from .lease_records import LeaseRecords
from .leases import Lease, LeaseTimes
from .members import Occurrence, View, changes, member_of
from .observing import Observer

Listen = Callable[[str], Awaitable[None]]
LEAVE_S = 5.0


def _unheard(_what: object) -> None:
    """Nobody wants to know."""


def _nothing() -> None:
    """Nobody is to be told."""


class Membership:
    """A node's membership of the cluster whose leases are in `records`.

    Args:
        records: where the leases are
        wire: over which nodes say that they live
        name: of this node; no other living one may have it
        cluster: what the subjects of this cluster begin with
        types: the agent types that this node hosts, with the versions of their state
        times: the same on all nodes
        on_event: told of everything that happens to nodes, on the loop, without waiting
        on_lost: told that this node's lease is void: by then it serves nothing
        now: the clock of leases, which counts the machine's sleep; a node's own, never compared with another's
        clock: the wall clock, for the times of what happens
        ids: draws what tells this node's joinings apart

    Attributes:
        now: the clock of the lease
        may_serve_until: by `now()`; past it no turn starts and no answer leaves. One comparison, to be made again before an answer leaves
        incarnation: which life of its name this is; 0: none yet
        subject: where this life is reached over the wire
        listeners: called with each new view, on the loop, without waiting
        on_missed: called when a renewal of the lease failed, on the loop, without waiting
        error: what ended the membership although it mustn't; None: nothing
    """

    def __init__(
        self,
        records: Records,
        wire: Wire,
        *,
        name: str,
        cluster: str = "jido",
        types: Mapping[str, int] | None = None,
        times: LeaseTimes | None = None,
        on_event: Callable[[Occurrence], None] = _unheard,
        on_lost: Callable[[int], None] = _unheard,
        now: Now = boot_s,
        clock: Clock | None = None,
        ids: Ids | None = None,
    ) -> None:
        self.name = check_node_name(name)
        self.now = now
        self.may_serve_until = -inf
        self.incarnation = 0
        self._began = 0
        self._draining = False
        self.subject = ""
        self.listeners: list[Callable[[View], None]] = []
        self.on_missed: Callable[[], None] = _nothing
        self.error: BaseException | None = None
        self._clock, self._ids = clock or SystemClock(), ids or Ids()
        self._cluster, self._types = check_node_name(cluster), dict(types or {})
        self._times = times or LeaseTimes()
        self._on_event, self._on_lost = on_event, on_lost
        self._leases = LeaseRecords(records, self._times.answer_s)
        self._observer = Observer(self._leases, name, self._times, now, self._view_changed, self._voided)
        self._holder: Holder | None = None
        self._joining = False
        self._ends = 0
        self._told = View()
        self._watching: Task[None] | None = None
        self._saying: set[Task[None]] = set()
        self._renewing: list[Task[None]] = []
        self._beats = Beats(wire, f"{self._cluster}.beats", self._heard)
        self._changes: list[Future[None]] = []
        self._serving: list[Future[None]] = []

    # -- what others read ------------------------------------------------------------------------------------

    @property
    def view(self) -> View:
        """The cluster as it is known here."""
        return self._observer.view

    @property
    def times(self) -> LeaseTimes:
        """How long things take."""
        return self._times

    def may_serve(self) -> bool:
        """Whether the lease lets this node start a turn, or let an answer leave, at this moment."""
        return self.now() < self.may_serve_until

    async def wait_serving(self) -> None:
        """Wait until it does; for ever, if it never does again."""
        while not self.may_serve():
            await self._wait(self._serving)

    async def wait_changed(self, seen: View) -> View:
        """Wait until the view is another than the one that was seen."""
        while self.view is seen:
            await self._wait(self._changes)
        return self.view

    async def _wait(self, line: list[Future[None]]) -> None:
        future: Future[None] = asyncio.get_running_loop().create_future()
        line.append(future)
        try:
            await future
        finally:
            if future in line:
                line.remove(future)

    async def is_void(self, name: str, incarnation: int) -> bool:
        """Whether an incarnation of a node is void, asking the store if the view doesn't know. False isn't for ever: the others are watched from
        now on, and a lease that isn't there at all is void once it hasn't been there for T. `StoreError` if the store doesn't answer.
        """
        if self.view.is_void(name, incarnation):
            return True
        if name == self.name and incarnation >= self.incarnation and self._holder is not None:
            return False
        fact = await self._observer.read(name, vacate=True)
        self._observer.publish()
        return fact.voids(incarnation)

    def unreachable(self, name: str, incarnation: int) -> None:
        """A message to a node reached nobody."""
        self._observer.unreachable(name, incarnation)

    # -- coming ----------------------------------------------------------------------------------------------

    async def join(self, listen: Listen | None = None, *, timeout_s: float = 15.0) -> int:
        """Take the lease and learn who else is there; the incarnation.

        `listen` is given the subject of this node and awaited before the lease is taken, so that nobody who finds it in a view finds nobody
        there. A living node of this name is `NodeNameTaken`; the lease of a dead one is waited out. A store that doesn't answer for so
        many seconds is its `StoreError`; leaving before it is done is `ShuttingDown`. After `on_lost` it may be called again.
        """
        if self._holder is not None or self._joining:
            raise RuntimeError(f"node {self.name} has joined already, or is about to")
        self._joining = True
        try:
            return await self._join(listen, timeout_s)
        except BaseException:
            await self._end()  # whatever it was at: nobody renews a lease that nobody was given
            raise
        finally:
            self._joining = False

    async def _join(self, listen: Listen | None, timeout_s: float) -> int:
        instance = self._ids()
        subject = f"{self._cluster}.node.{self.name}.{instance}"
        if listen is not None:
            await listen(subject)
        await self._beats.listen(instance)
        lease = Lease(
            self.name, instance, began=self._began, subject=subject, protocol=VERSION, oldest_protocol=OLDEST_VERSION, types=dict(self._types),
            draining=self._draining,
        )  # fmt: skip
        ends = self._ends
        owner = await take_lease(self._leases, lease, self._times, self.now, timeout_s, lambda: self._ends == ends)
        if self._ends != ends:  # left meanwhile
            with suppress(StoreError):
                await self._leases.write(self.name, owner.revision, None)
            raise ShuttingDown(f"node {self.name} was to leave before it had joined", name=self.name)
        self.incarnation, self.subject = owner.incarnation, subject
        self._began = self._began or owner.incarnation
        self._holder = Holder(self._leases, lease, owner, self.now, self)
        self._show()
        self._observer.wrote()
        earlier = [task for task in self._renewing if not task.done()]
        self._renewing = [*earlier, self._start(self._holder.renew_on()), self._start(self._beat_on(self._holder))]
        if self._watching is None:
            self._watching = self._start(self._observer.watch_on())
        await self._observer.scanned.wait()
        return self.incarnation

    def _show(self) -> None:
        """Bring this node's own entry of the view up to date."""
        assert self._holder is not None
        self._observer.me = member_of(self._holder.lease, self.incarnation)._replace(void=self._holder.owner.lost)
        self._observer.publish()

    def _start(self, work: Coroutine[Any, Any, None]) -> Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None or self.error is not None:
            return
        self.error = error  # a mistake of ours: what isn't renewed or watched can't go on
        if self._holder is not None:
            self._holder.stop()
        self._call(self._on_lost, self.incarnation)

    def _call(self, callback: Callable[[Any], None], what: object) -> None:
        try:
            callback(what)
        except Exception as error:  # the loop's own handler hears of it; the membership goes on
            asyncio.get_running_loop().call_exception_handler({"message": f"{callback!r} failed", "exception": error})

    # -- what the parts tell ---------------------------------------------------------------------------------

    def serves_until(self, until: float) -> None:
        """See `holding.Told`."""
        self.may_serve_until = until
        if self._serving and self.now() < until:
            self._wake(self._serving)

    def renewed(self) -> None:
        """See `holding.Told`."""
        self._observer.wrote()
        if self._holder is not None:
            self._show()

    def missed(self) -> None:
        """See `holding.Told`."""
        self._observer.failed()
        self.on_missed()

    def lost(self) -> None:
        """See `holding.Told`."""
        incarnation = self.incarnation
        self._show()
        self._holder = None
        self._call(self._on_lost, incarnation)

    def _view_changed(self, view: View) -> None:
        happened, self._told = changes(self._told, view, self._clock.time_s()), view
        for listener in self.listeners:
            self._call(listener, view)
        for what in happened:
            self._call(self._on_event, what)
        self._wake(self._changes)

    def _voided(self, name: str, incarnation: int) -> None:
        """Declared dead by this node: the others needn't find out by themselves."""
        self._say(BeatFrame(name, incarnation, 0, "void"))

    def _say(self, word: BeatFrame) -> None:
        task = self._start(self._beats.say(word))
        self._saying.add(task)
        task.add_done_callback(self._saying.discard)

    @staticmethod
    def _wake(line: list[Future[None]]) -> None:
        woken = line[:]
        line.clear()
        for future in woken:
            if not future.done():
                future.set_result(None)

    # -- the word that goes round ----------------------------------------------------------------------------

    async def _beat_on(self, holder: Holder) -> None:
        while not holder.owner.lost:
            await self._beats.say(BeatFrame(self.name, holder.owner.incarnation, holder.owner.revision))
            await asyncio.sleep(self._times.renew_s)

    def _heard(self, frame: BeatFrame) -> None:
        if frame.node == self.name:
            if frame.incarnation == self.incarnation:
                self._observer.wire_works()
        elif frame.end:
            self._observer.ended(frame.node, frame.incarnation, left=frame.end == "left")
        else:
            self._observer.heard(frame.node, frame.incarnation, frame.revision)

    # -- going -----------------------------------------------------------------------------------------------

    async def set_draining(self, draining: bool = True) -> None:
        """Take no new agents, or take them again; returns when it is stored in the lease, where the others see it. `StoreUnavailable`: no lease."""
        self._draining = draining
        await self._change(draining=draining)

    async def set_types(self, types: Mapping[str, int]) -> None:
        """Host other types than before; returns when it is stored in the lease. `StoreUnavailable` if the lease is lost or given up before."""
        self._types = dict(types)
        await self._change(types=dict(types))

    async def _change(self, **fields: Any) -> None:
        if self._holder is None:
            raise StoreUnavailable(f"node {self.name} has no lease")
        await self._holder.change(**fields)

    async def leave(self, *, timeout_s: float = LEAVE_S) -> bool:
        """Serve nothing any more, void the lease so that nobody waits for its end, and stop. Whether it is known to be void: otherwise the others
        declare it, T later. What `error` says is raised in the end.
        """
        holder, left = self._holder, True
        if holder is not None:
            holder.stop()
            await self._stop(self._renewing)
            word = BeatFrame(self.name, self.incarnation, 0, "left")
            self._say(word)  # before, so that nobody takes the end for a death, and after, so that it is looked for
            left = await holder.void(timeout_s)
            if left:
                await self._beats.say(word)
        await self.close()
        return left

    async def close(self) -> None:
        """Stop without a word, as a crash would: the others declare this node dead when its lease has run out. What `error` says is raised."""
        await self._end()
        if self.error is not None:
            raise self.error

    async def _end(self) -> None:
        self._ends += 1
        if self._holder is not None:
            self._holder.stop()
            self._holder = None
        watching = [] if self._watching is None else [self._watching]
        await self._stop([*self._renewing, *watching, *self._saying])
        self._renewing, self._watching = [], None
        await self._beats.close()

    async def _stop(self, tasks: list[Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
