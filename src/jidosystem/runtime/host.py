"""One agent type on one node: its live agents, and how they come, go, crash and are guarded."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from ..core.eager import start_eagerly
from ..core.errors import (
    AgentCrashed,
    AgentFailed,
    JidoError,
    Moved,
    NoHost,
    RecordUnreadable,
    RefusedError,
    ShuttingDown,
    StoreError,
    StoreUnavailable,
    describe,
)
from ..core.observability import TurnMeter
from ..core.records import Record
from .activation import SYSTEM_READ, Activation, nothing
from .definition import ActionSpec, AgentType
from .deliveries import give_back
from .effects import Timer
from .guards import Guards
from .loading import fill, is_paused, load_rows
from .status import Status
from .turn import CAST, HOOK, TIMER, ActivationCrash, Turn

if TYPE_CHECKING:
    from .keyed import Keyed
    from .node import Node
    from .outbox import Outbox
    from .reference import Ref

LOAD_AGAIN_S = 0.5
"""How long after the store couldn't be read an agent is loaded again that nobody has called."""
DRAIN_S = 0.5
"""How long an agent that goes waits for its effects to be taken."""


class Host:
    """See the module."""

    __slots__ = (
        "after_turn", "bulkhead", "casts_at_once", "default_state", "detours", "dummy", "guards", "joins", "live", "mailbox_limit",
        "meter", "needs", "node", "plain", "prefix", "ref_class", "repeating", "type",
    )  # fmt: skip

    def __init__(self, node: Node, kind: AgentType) -> None:
        self.node = node
        self.type = kind
        self.needs = kind.version  # the version of the state that a node must host at least to have an agent of it
        self.prefix = kind.name + "/"  # an address is this and a key
        self.live: dict[str, Activation] = {}
        self.meter: TurnMeter = node.meters.of(kind.name)
        self.mailbox_limit = kind.mailbox.max_size or node.limits.max_queue_size
        self.default_state = kind.codec.encode(kind.new_instance())
        self.joins: dict[tuple[str, str], Keyed] = {}  # keyed calls on their way: (agent's key, idempotency key)
        self.detours: dict[str, deque[Keyed]] = {}  # keyed calls that wait before they reach their agent's mailbox
        self.repeating: set[Turn] = set()  # rolled back, and waiting to be run again
        self.guards = Guards(self)
        self.dummy = Activation(self, "")  # stands in until a turn has found its agent
        self.bulkhead = self.guards.bulkhead
        self.after_turn = self.guards.after_turn if self.guards.watches else None
        watched = self.guards.watches or node.checking or node.tracing.enabled or node.ownership is not None
        self.plain = not watched and kind.hook_change is None
        self.casts_at_once = self.plain and kind.mailbox.overflow != "block"
        self.ref_class: type[Ref]  # the node's to make

    def ref(self, key: str) -> Any:
        """A reference to an agent; the key is known to be good."""
        return self.ref_class(self, key)

    # -- coming ----------------------------------------------------------------------------------------------

    def shutting_down(self, key: str) -> ShuttingDown:
        """What refuses new work for an agent once the platform closes."""
        return self.node.shutting_down(self.prefix + key)

    def find(self, key: str) -> Activation:
        """The agent's activation; if there is none, one that begins to load. Raises `ShuttingDown`."""
        activation = self.live.get(key)
        if activation is None:
            if self.node.closing:
                raise self.shutting_down(key)
            activation = self.live[key] = Activation(self, key)
            self.node.count_in()
            self._fetch(activation)
        return activation

    def _fetch(self, activation: Activation) -> None:
        """Read an agent's record; on a cluster claim it."""
        ownership, told = self.node.ownership, partial(self._loaded, activation)
        if ownership is None:
            self.node.records.fetch(self.prefix + activation.key, told)
        else:
            ownership.claim(self, activation.key, told)

    def revive(self, key: str, waiting: list[Turn], delay_s: float) -> None:
        """Start a new activation after a while; calls wait for it."""
        if key in self.live:
            self.requeue(key, waiting)
            return
        self.node.later(delay_s, partial(self._begin_loading, self._gather(key, waiting)))

    def hold_back(self, key: str, waiting: list[Turn]) -> Activation:
        """Let calls wait, on an activation that never lives, until `refuse` tells them what has become of the agent."""
        activation = self._gather(key, waiting)
        activation.leave(crashing=True)
        return activation

    def _gather(self, key: str, waiting: list[Turn]) -> Activation:
        """A new activation with turns in its mailbox, which doesn't begin to load yet."""
        activation = self.live[key] = Activation(self, key)
        self.node.count_in()
        for turn in waiting:
            turn.activation = activation
            activation.enqueue(turn)
        return activation

    def _begin_loading(self, activation: Activation) -> None:
        if activation.status == Status.LOADING:
            self._fetch(activation)

    def _loaded(self, activation: Activation, record: Record | None, error: BaseException | None) -> None:
        """The head is here: most agents live from now on; the others have rows or hooks, or can't."""
        if activation.status is not Status.LOADING:
            return
        complete = False
        if error is None:
            try:
                complete = fill(activation, record)
            except Exception as problem:  # whatever it is, `_finish_loading` sorts it
                error = problem
        if complete and self.type.hook_start is None:
            self.meter.activations += 1
            activation.begin_life()
            return
        task = start_eagerly(self._finish_loading(activation, error, complete=complete), self.node.loop)
        if not task.done():
            self.node.adopt(task)

    async def _finish_loading(self, activation: Activation, error: BaseException | None, *, complete: bool) -> None:
        """Read rows, run `on_start` and let the first call in; whatever goes wrong is told to everybody who waits."""
        timeout_s = self.type.lifecycle.startup_timeout
        try:
            if error is not None:
                raise error
            async with asyncio.timeout(timeout_s):
                if not complete:
                    await load_rows(activation)
                if self.type.hook_start is not None:
                    await asyncio.sleep(0)  # whoever has just asked for the agent waits for it first: the hook may crash it
                    await self.run_hook(activation, self.type.hook_start)
        except (RecordUnreadable, NoHost, AgentFailed, Moved, StoreError) as refused:
            await asyncio.sleep(0)  # whoever has just asked for the agent waits for it first
            self._not_here(activation, refused)
        except Exception as failed:
            await asyncio.sleep(0)
            cause: BaseException = failed
            if isinstance(failed, TimeoutError):
                cause = TimeoutError(f"{activation.address} didn't start within its startup_timeout of {timeout_s:g} s")
            self.node.log.error("an agent couldn't start", agent=activation.address, error=describe(cause))
            self.meter.crashes += 1
            self.crashed(activation, failed.cause if isinstance(failed, ActivationCrash) else cause)
        else:
            if activation.status != Status.LOADING:
                return
            self.meter.activations += 1
            stops = activation.extra is not None and activation.extra.stops
            if is_paused(activation):
                activation.status = Status.PAUSED
                give_back(activation)
                activation.proceed()
                if stops and not activation.queue:
                    self.stop_soon(activation)
            elif stops:
                self._live_once(activation)
            else:
                activation.begin_life()

    def _not_here(self, activation: Activation, refused: JidoError) -> None:
        """It can't live, or not here. Who was to live uncalled, for what waits in the store or for being resident, has nobody who asks again."""
        router = self.node.router
        if isinstance(refused, Moved) and router is not None:
            router.moved(self.prefix + activation.key, refused)
        uncalled = not activation.queue
        self.refuse(activation, refused)
        if isinstance(refused, Moved) and refused.owner and uncalled and router is not None and not self.node.closing:
            router.start_there(self, activation.key)  # whoever has it needn't have it in memory
        if isinstance(refused, StoreUnavailable) and (uncalled or self.type.resident) and not self.node.closing:
            self.revive(activation.key, [], LOAD_AGAIN_S)
        if isinstance(refused, AgentFailed) and activation.need_extra().marks.pending:
            self.node.owed.send(self, activation.key)

    def _live_once(self, activation: Activation) -> None:
        """`on_start` asked for the end: what has waited for the start runs all the same, or the next activation would end like this one."""
        turn = Turn(activation, SYSTEM_READ, (), None)
        turn.kind = TIMER
        turn.reply = self.node.loop.create_future()
        if activation.queue is None:
            activation.queue = self.node.queues.take()
        activation.queue.turns.append(turn)  # behind those, in a full mailbox too
        self.node.own(self._stop_after(activation, turn.reply))
        activation.begin_life()

    async def _stop_after(self, activation: Activation, last: asyncio.Future[Any]) -> None:
        try:
            await last
        except JidoError:  # it crashed, or its platform closes: it has ended already
            return
        self.stop_soon(activation)

    async def run_hook(self, activation: Activation, spec: ActionSpec, *args: Any) -> None:
        """Run a hook as a turn, ahead of everything that waits; returns when it is committed."""
        turn = Turn(activation, spec, args, None)
        turn.kind = HOOK
        reply = turn.reply = self.node.loop.create_future()
        if activation.status == Status.LOADING:  # calls may wait already; the hook comes first
            activation.run(turn, spec.function(activation.instance, *args))
        else:
            activation.hook(turn)
        await reply

    def refuse(self, activation: Activation, error: BaseException) -> None:
        """The activation can't live: tell everybody who waits, and forget it."""
        waiting = self.drop(activation)
        for turn in waiting:
            if isinstance(error, Moved) and turn.kind == CAST and turn.key is None and self.node.router is not None:
                self.node.router.send_on(turn)
            else:
                turn.fail(error)

    # -- going -----------------------------------------------------------------------------------------------

    def drop(self, activation: Activation) -> list[Turn]:
        """Forget an activation at once; its waiting turns are the caller's."""
        activation.status = Status.GONE
        activation.idle = False
        if activation.writer is not None or activation.readers:
            self.node.outliving.add(activation)
        if self.live.get(activation.key) is activation:
            del self.live[activation.key]
            self.node.count_out()
        if activation.instance is not None:
            activation.instance._jido = None  # no cycle is left behind: memory goes with the last reference
        if activation.reader is not None:
            activation.reader._jido = None
            activation.reader = None
        if activation.extra is not None:
            activation.extra.cancel_timers()
            if activation.extra.sensing:
                self.node.sensors.end(activation)
            if activation.extra.outbox is not None:
                activation.extra.outbox.close()
        queue, activation.queue = activation.queue, None
        return queue.drain() if queue is not None else []

    def drop_and_requeue(self, activation: Activation) -> None:
        """Forget an activation and hand what waits to its successor, which reads the record again and goes on with effects that aren't taken."""
        self.requeue(activation.key, self.drop(activation))
        outbox = activation.extra.outbox if activation.extra is not None else None
        if outbox is not None and not outbox.settled and not self.node.closing:
            self.find(activation.key)

    def renew(self, activation: Activation) -> None:
        """The same for one whose memory can't be trusted any more. An agent that is to live uncalled has a successor at once."""
        live = activation.status in (Status.LIVE, Status.HELD, Status.PAUSED)
        self.drop_and_requeue(activation)
        if live and self.type.resident and not self.node.closing:
            self.find(activation.key)

    def requeue(self, key: str, waiting: list[Turn]) -> None:
        """Give turns that haven't begun to the agent's next activation."""
        for turn in waiting:
            if turn.withdrawn or turn.answered:  # while the list was kept: its caller has been told
                continue
            try:
                successor = turn.activation = self.find(key)
                if turn.kind == HOOK and successor.status is not Status.LOADING:
                    successor.hook(turn)  # ahead of calls, which may have to wait for it: on a paused agent for ever
                else:
                    successor.submit(turn)
            except Exception as error:  # whatever refuses it is the caller's answer
                turn.fail(error)

    def repeat_after(self, wait_s: float, turn: Turn) -> None:
        """Run a turn after a while, on whatever activation lives then."""
        self.repeating.add(turn)
        self.node.later(wait_s, partial(self._repeat, turn))

    def _repeat(self, turn: Turn) -> None:
        self.repeating.discard(turn)
        self.requeue(turn.activation.key, [turn])

    def passivate(self, activation: Activation) -> bool:
        """Let an idle agent go from memory; False if it can't go just now. Its state is in its record."""
        extra = activation.extra
        if not self.may_passivate(activation):
            return False
        self.meter.passivations += 1
        unnoted = extra is not None and extra.outbox is not None and extra.outbox.unnoted
        if self.type.hook_terminate is None and not unnoted and not self.is_bare_claim(activation):
            self.drop(activation)
            activation.instance, activation.state = None, b""  # a reference that somebody keeps holds on to the activation
            return True
        activation.leave()
        self.node.own(self.go(activation))
        return True

    def may_passivate(self, activation: Activation) -> bool:
        """Whether it is idle, and nothing of it would be lost or late."""
        extra = activation.extra
        if not activation.idle or extra is None:
            return activation.idle
        return not (extra.timers or extra.reading or extra.sensing or (extra.outbox is not None and not extra.outbox.settled))

    async def go(self, activation: Activation, *, away: bool = False) -> None:
        """The slow way out: `on_terminate` as a last turn, then what is still to be noted. `away`: to another node."""
        if self.type.hook_terminate is not None and activation.status == Status.LEAVING:
            try:
                await self.run_hook(activation, self.type.hook_terminate)
            except Exception as error:  # the agent goes in any case; its author reads why the hook failed
                self.node.log.error("on_terminate failed", agent=activation.address, error=describe(error))
        if activation.status == Status.LEAVING:
            outbox = activation.extra.outbox if activation.extra is not None else None
            if outbox is not None:
                if not self.node.closing:
                    await outbox.drain(DRAIN_S)
                if outbox.unnoted:
                    try:
                        await activation.system_turn(nothing)
                    except StoreError as error:  # the effects come again, and their receivers know them
                        self.node.log.warning("that effects were taken couldn't be noted", agent=activation.address, error=describe(error))
            await activation.at_rest()  # a hook that came meanwhile may still be committed: whoever reads the record next must see it
            if self.node.ownership is not None and (away or self.is_bare_claim(activation)):
                await self.node.ownership.give_back(activation)
            if away:
                self._send_after(activation)
            else:
                self._let_go(activation)

    def _send_after(self, activation: Activation) -> None:
        """The agent is nobody's now: what waits for it goes where it belongs, and it is started there if it is to live uncalled."""
        outbox = activation.extra.outbox if activation.extra is not None else None
        wanted = self.type.resident or (outbox is not None and not outbox.settled)
        self.refuse(activation, Moved(f"{activation.address} is on its way to another node", agent=activation.address, owner="", incarnation=0))
        activation.instance, activation.state = None, b""
        if wanted and self.node.router is not None:
            self.node.router.start_there(self, activation.key)

    def is_bare_claim(self, activation: Activation) -> bool:
        """Whether nothing but the claim stands in the agent's record: it never committed anything."""
        return self.node.ownership is not None and activation.turns == 0 and activation.extra is None and activation.batch is None

    def stop_soon(self, activation: Activation) -> None:
        """The agent asked to be stopped: `on_terminate`, then passive. Timers go, waiting calls activate it again."""
        if activation.status is Status.LOADING:
            activation.need_extra().stops = True  # once it has started
        elif activation.status in (Status.LIVE, Status.PAUSED):
            activation.leave()
            if activation.extra is not None:
                activation.extra.cancel_timers()
            self.node.own(self.stop(activation))

    async def stop(self, activation: Activation) -> None:
        """Wait for what runs, run `on_terminate`, and let the activation go, its children with it."""
        if activation.extra is not None:
            await self.node.family.stop_all(tuple(activation.extra.children))
        if self.type.sensors:
            await self.node.sensors.ended(activation)
        await activation.at_rest()
        await self.go(activation)

    def deleted(self, activation: Activation) -> None:
        """The record is a tombstone: the next call begins from defaults."""
        self.node.sensors.forget(activation)
        outbox = activation.extra.outbox if activation.extra is not None else None
        if outbox is None or outbox.settled:
            self.drop_and_requeue(activation)
        else:
            gone = activation.need_extra().gone = asyncio.Event()
            self.node.own(self._last_words(activation, outbox, gone))

    async def _last_words(self, activation: Activation, outbox: Outbox, gone: asyncio.Event) -> None:
        """A deleted agent's effects go out, then nothing is left of it but the tombstone."""
        if activation.instance is not None:
            activation.instance._jido = None
            activation.instance = None  # nobody looks at what it was
        await outbox.drain(DRAIN_S)
        if outbox.settled:
            try:
                await self.node.records.commit(activation.address, activation.revision, None)
            except StoreError as error:  # its effects come again with the next start, and their receivers know them
                self.node.log.warning("the effects of a deleted agent are still noted", agent=activation.address, error=describe(error))
        self._let_go(activation)
        gone.set()

    def _let_go(self, activation: Activation) -> None:
        """Drop an activation, and what it holds."""
        self.drop_and_requeue(activation)
        activation.instance, activation.state = None, b""

    def start_timer(self, activation: Activation, timer: Timer) -> None:
        """A turn that set a timer is committed: let it run."""
        if activation.status not in (Status.LOADING, Status.LIVE, Status.PAUSED):  # loading: `on_start` sets it
            return
        extra = activation.need_extra()
        handle: asyncio.TimerHandle

        def fire() -> None:
            extra.timers.discard(handle)
            spec = self.type.actions[timer.action]
            turn = Turn(activation, spec, (), None)
            turn.kind, turn.kwargs = TIMER, spec.signature.from_plain(timer.args)
            turn.follow(timer)
            try:
                activation.submit(turn)
            except RefusedError as error:
                self.node.log.error("a timer found no room", agent=activation.address, action=timer.action, error=describe(error))

        handle = self.node.loop.call_later(timer.after_s, fire)
        extra.timers.add(handle)

    # -- guards and crashes ----------------------------------------------------------------------------------

    def crashed(self, activation: Activation, cause: BaseException) -> None:
        """An activation couldn't be made or go on: start a new one after a growing delay, or fail for good."""
        if activation.status == Status.GONE:
            return
        waiting = self.drop(activation)
        self.node.family.crashed(self, activation.key, cause, waiting)

    def told_crash(self, key: str, cause: BaseException) -> AgentCrashed:
        """The error for calls that meet a crash."""
        address = f"{self.type.name}/{key}"
        return AgentCrashed(f"{address} crashed: {describe(cause)}. The next call starts it again", agent=address, cause=describe(cause))
