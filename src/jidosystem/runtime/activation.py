"""An agent's live copy: it runs one writing turn at a time and commits what turns leave behind.

The life of a turn: `submit` runs it at once if the agent is free, else it waits in the mailbox. When its code ends,
`_wrote` encodes the durable fields; if bytes changed or there are effects they join a `Batch`, and the answer is
given when the batch's commit is durable. While a commit is in flight further turns may run on the state in memory;
they join the next batch. A turn that raises leaves the agent as it was at the end of the turn before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..core.codec import NOT_CARRIED
from ..core.errors import (
    AgentCrashed,
    InvalidArguments,
    InvalidResult,
    JidoError,
    ReadOnlyTurn,
    StateMismatch,
)
from . import commits, endings
from .boundary import IMMUTABLE, Signature
from .checking import changed_names, checked_result, lost, unchanged_between_turns
from .definition import ActionOptions, ActionSpec
from .deliveries import to_be_done
from .effects import Effects
from .extra import Extra
from .head import Batch
from .mailbox import Queue, make_room
from .plain import run_plainly
from .staging import stage
from .status import Status
from .turn import CALL, HOOK, Turn, TurnTask, ended_with, in_span

if TYPE_CHECKING:
    from .host import Host

LOADING, LIVE, HELD, PAUSED, LEAVING, CRASHING, DELETING, GONE = Status
TURNS_A_SLICE = 256
"""How many waiting turns run before the event loop gets to do something else."""


async def nothing(_agent: Any) -> None:
    """The action of a turn that is only there to be waited for."""


SYSTEM_READ = ActionSpec("ready", nothing, Signature("system", nothing, {"return": None}), ActionOptions(readonly=True))


class Waiter:
    """Somebody inside a turn who may go on only when what the turn has seen is durable."""

    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[None]) -> None:
        self._future = future

    def answer(self, _value: Any) -> None:
        """It is durable."""
        if not self._future.done():
            self._future.set_result(None)

    def fail(self, error: BaseException) -> None:
        """It never will be."""
        if not self._future.done():
            self._future.set_exception(error)


class Activation:
    """See the module. `idle` is True exactly when a call may take the short way: live, and nothing runs, waits or commits."""

    __slots__ = (
        "batch", "extra", "host", "idle", "inflight", "instance", "key", "last_used", "pumping", "queue", "reader", "readers", "revision", "state",
        "status", "turns", "writer",
    )  # fmt: skip

    def __init__(self, host: Host, key: str) -> None:
        self.host = host
        self.key = key
        self.instance: Any = None
        self.reader: Any = None
        self.state: bytes = b""
        self.revision = 0
        self.turns = 0
        self.status = LOADING
        self.idle = False
        self.pumping = False
        self.writer: Turn | None = None
        self.readers = 0
        self.queue: Queue | None = None
        self.batch: Batch | None = None
        self.inflight: Batch | None = None
        self.extra: Extra | None = None
        self.last_used = 0.0

    @property
    def address(self) -> str:
        """`type/key`."""
        return self.host.prefix + self.key

    # -- accepting -------------------------------------------------------------------------------------------

    def submit(self, turn: Turn) -> None:
        """Run a turn now or let it wait; raises what refuses it. The answer comes through the turn."""
        queue = self.queue
        if self.status is not LOADING and not queue and not self.pumping and self._may_begin(turn):
            if queue is not None and queue.room:
                queue.let_in()  # this one takes no place: it is for the next who waits for one
            self._begin(turn)
            if not self.idle:
                self.proceed()
            return
        self.enqueue(turn)

    def enqueue(self, turn: Turn) -> None:
        """Put a turn into the mailbox; raises `MailboxFull`."""
        queue = self.queue
        if queue is None:
            queue = self.queue = self.host.node.queues.take()
        self.idle = False
        if turn.kind == HOOK:
            queue.put_first(turn)
            return
        if len(queue.turns) >= self.host.mailbox_limit and len(queue) >= self.host.mailbox_limit:
            make_room(self, queue, turn)
        queue.turns.append(turn)

    def post(self, turn: Turn) -> None:
        """Put a message into the mailbox and let it run when the loop comes round: casts of one burst share commits."""
        host, queue = self.host, self.queue
        if queue is None:
            queue = self.queue = host.node.queues.take()
        turns = queue.turns
        first = self.idle or not turns
        if len(turns) < host.mailbox_limit:
            turns.append(turn)
            self.idle = False
        else:
            self.enqueue(turn)
        if first and not self.pumping:
            host.node.loop.call_soon(self.proceed)

    def hook(self, turn: Turn) -> None:
        """Run a hook before everything that waits; once the activation is gone, on the next one."""
        if self.status is GONE:
            self.host.requeue(self.key, [turn])
            return
        if self.queue is None:
            self.queue = self.host.node.queues.take()
        self.queue.put_first(turn)
        self.idle = False
        self.proceed()

    def withdraw(self, turn: Turn) -> None:
        """A waiting turn's caller has given up."""
        if self.queue is not None and not turn.begun:
            self.queue.withdraw()

    def running(self) -> Iterable[Turn]:
        """The turns whose code runs now."""
        if self.writer is not None:
            yield self.writer
        if self.extra is not None and self.extra.reading:
            yield from self.extra.reading

    def _may_begin(self, turn: Turn) -> bool:
        if self.status != LIVE and not (turn.kind == HOOK and self.status in (LEAVING, PAUSED)):
            return False
        if self.writer is not None:
            return False
        if self.host.node.ownership is not None and not self.host.node.ownership.may_serve():
            return False
        if not turn.spec.readonly and (self.readers or (self.batch is not None and self.batch.full)):
            return False
        return self.host.bulkhead is None or turn.kind == HOOK or self.host.guards.admit(self, turn)

    # -- running ---------------------------------------------------------------------------------------------

    def proceed(self) -> None:
        """Run what waits, as far as it may, and note whether the agent is idle."""
        if self.pumping:
            return
        queue = self.queue
        if queue:
            plain, loop, left = self.host.plain, self.host.node.loop, TURNS_A_SLICE
            self.pumping = True  # turns that end at once join one batch; it is committed after the loop
            try:
                while left > 0:
                    if plain:
                        left -= run_plainly(self, queue, left)
                    if self.batch is not None and self.batch.full and self.inflight is None:
                        commits.flush(self)
                        continue
                    turn = queue.first()
                    if turn is None:
                        break
                    if turn.deadline is not None and turn.deadline < loop.time():
                        queue.take()
                        turn.fail(turn.too_late())
                        continue
                    if not self._may_begin(turn):
                        break
                    queue.take()
                    self._begin(turn)
                    left -= 1
                else:
                    loop.call_soon(self.proceed)
            finally:
                self.pumping = False
            if not queue.turns and not queue.room and self.queue is queue:
                self.queue = None
                self.host.node.queues.give_back(queue)
            if self.batch is not None and self.inflight is None:
                commits.flush(self)
        if (not self.queue or self.status is not LIVE) and self.writer is None and self.inflight is None and self.batch is None and self.readers == 0:
            self._rest()

    def _rest(self) -> None:
        """Nothing runs, waits or commits."""
        if self.status == LIVE:
            self.idle = True
        elif self.status is GONE:
            self.host.node.outliving.discard(self)
        if self.extra is not None and self.extra.at_rest:
            waiting, self.extra.at_rest = self.extra.at_rest, []
            for call in waiting:
                call()

    def _begin(self, turn: Turn) -> None:
        host = self.host
        if turn.origin is not None and not to_be_done(self, turn):
            return
        turn.begun = True
        turn.started = self.last_used = host.node.monotonic()
        spec = turn.spec
        if spec is SYSTEM_READ and turn.kind == HOOK:  # there is nothing to run
            self.answer_when_durable(turn, None)
            return
        if host.node.checking and not unchanged_between_turns(self, turn):
            return
        instance = self.for_reading() if spec.readonly else self.instance
        try:
            coro = spec.function(instance, *turn.args, **turn.kwargs) if turn.kwargs else spec.function(instance, *turn.args)
        except TypeError as error:
            host.guards.release(turn)
            turn.fail(InvalidArguments(f"{self.address}.{spec.name}{spec.signature.signature}: {error}", path="$"))
            return
        if host.node.tracing.enabled:
            coro = in_span(endings.begin_span(self, turn), coro)
        if host.type.hook_change is not None and not spec.readonly:
            coro = endings.with_change_hook(self, turn, coro)
        self.run(turn, coro)

    def run(self, turn: Turn, coro: Any) -> None:
        """Start the code of a turn that may begin."""
        self.idle = False
        turn.open = True
        if turn.spec.readonly:
            self.readers += 1
        else:
            self.writer = turn
        outcome = self.host.node.step(coro, turn)
        if type(outcome) is TurnTask:
            self.run_on(turn, outcome)
        else:
            self.ended(turn, outcome, None)

    def run_on(self, turn: Turn, task: TurnTask) -> None:
        """A turn's first step left a task behind."""
        if task.done():
            self.task_ended(turn, task)
        else:
            turn.task = task
            endings.watch(self, turn, task)

    def for_reading(self) -> Any:
        """The agent as read-only turns see it: its fields can be read, durable ones not assigned."""
        reader = self.reader
        if reader is None:
            kind: Any = self.host.type.reader
            reader = self.reader = object.__new__(kind)
            object.__setattr__(reader, "__dict__", self.instance.__dict__)  # past the refusal of its own __setattr__
        return reader

    # -- ending ----------------------------------------------------------------------------------------------

    def task_ended(self, turn: Turn, task: asyncio.Future[Any]) -> None:
        """The task of a turn has ended."""
        turn.task = None  # its context knows the turn: a cycle that the garbage collector would have to find
        error = ended_with(turn, task)
        self.ended(turn, None if error is not None else task.result(), error)

    def ended(self, turn: Turn, value: Any, error: BaseException | None) -> None:
        """The code of a turn has ended, with a value or an error: sort out what becomes of it."""
        turn.open = False
        spec, host = turn.spec, self.host
        if spec.readonly:
            self.readers -= 1
        else:
            self.writer = None
        error = error or turn.doomed
        if error is None and self.status is GONE and not spec.readonly:
            error = AgentCrashed(f"{self.address}: its activation ended while {spec.name} ran, which was rolled back", agent=self.address, cause="")
        if error is None:
            if (type(value) not in IMMUTABLE or host.node.checking) and spec.copy and turn.kind == CALL:
                try:
                    value = checked_result(spec, value) if host.node.checking else spec.signature.copy_result(value)
                except InvalidResult as invalid:
                    error = invalid
            elif turn.caller is not None and turn.caller.afar:
                try:  # what can't travel is noticed while the turn can still be rolled back
                    spec.signature.encode_result(value)
                except InvalidResult as invalid:
                    error = invalid
        if error is None:
            error = self._read(turn, value) if spec.readonly else self._wrote(turn, value)
        host.meter.observe(host.node.monotonic() - turn.started)
        if turn.span is not None:
            turn.span.end(error)
        if error is not None:
            endings.failed(self, turn, error)
        if host.after_turn is not None:
            host.after_turn(self, turn, error)

    def _read(self, turn: Turn, value: Any) -> BaseException | None:
        """A read-only turn ended well: it is answered when what it has seen is durable."""
        if self.host.node.checking and (names := changed_names(self)):
            self.restore()
            return ReadOnlyTurn(
                f"{self.address}.{turn.spec.name} is read-only and changed {', '.join(names)} in place; drop readonly=True",
                agent=self.address,
                names=names,
            )
        self.answer_when_durable(turn, value)
        return None

    def answer_when_durable(self, turn: Turn | Waiter, value: Any) -> None:
        """Answer once everything that may have been seen is committed."""
        seen = self.batch or self.inflight
        if seen is None:
            ownership = self.host.node.ownership
            if ownership is None or ownership.may_serve():
                turn.answer(value)
            else:
                ownership.hold(self, turn, value)
        else:
            if seen.waiters is None:
                seen.waiters = []
            seen.waiters.append((turn, value))

    def _wrote(self, turn: Turn, value: Any) -> BaseException | None:
        """A writing turn ended well: what it changed and caused joins the batch. An error, if that can't be committed."""
        if self.host.node.checking and (error := lost(self, turn)) is not None:
            return error
        codec = self.host.type.codec
        before = self.state
        try:
            after = codec.encode_checked(self.instance, before)
        except StateMismatch as mismatch:
            return InvalidResult(f"{self.address}.{turn.spec.name} left state that doesn't fit its type hints: {mismatch}", agent=self.address)
        except (*NOT_CARRIED, AttributeError) as wrong:
            path = codec.culprit(self.instance)
            told = f"{self.address}.{turn.spec.name} left state that can't be carried: {path}: {wrong}"
            return InvalidResult(told, agent=self.address, path=path)
        if after is before and turn.effects is None and turn.origin is None and turn.key is None:
            self.answer_when_durable(turn, value)
            return None
        batch = self.batch
        if batch is None:
            batch = commits.new_batch(self)
        if turn.effects is not None or turn.origin is not None or turn.key is not None:
            try:
                stage(self, turn, value, batch)
            except JidoError as error:
                return error
        commits.join(self, batch, turn, value, after)
        if self.inflight is None and not self.pumping:
            commits.flush(self)
        return None

    # -- committing ------------------------------------------------------------------------------------------

    async def durable_so_far(self) -> None:
        """Wait until everything that the running turn could have seen is committed."""
        if self.inflight is None and self.batch is None:
            return
        future: asyncio.Future[None] = self.host.node.loop.create_future()
        self.answer_when_durable(Waiter(future), None)
        await future

    # -- coming and going ------------------------------------------------------------------------------------

    async def ready(self) -> Activation:
        """Wait until loading, or what follows a crash or a deletion, has ended; the activation that lives then. Raises what ended it badly."""
        if self.status not in (LOADING, CRASHING, DELETING):
            return self
        turn = Turn(self, SYSTEM_READ, (), None)
        turn.kind = HOOK
        turn.reply = self.host.node.loop.create_future()
        if self.queue is None:
            self.queue = self.host.node.queues.take()
        self.queue.put_first(turn)
        await turn.reply
        return turn.activation

    async def system_turn(self, function: Callable[[Any], Coroutine[Any, Any, Any]]) -> None:
        """Run a turn of the platform's own, ahead of what waits, that is committed whatever it changes."""
        spec = ActionSpec("system", function, SYSTEM_READ.signature, ActionOptions(copy=False))
        turn = Turn(self, spec, (), None)
        turn.kind, turn.effects = HOOK, Effects()
        turn.reply = self.host.node.loop.create_future()
        self.hook(turn)
        await turn.reply

    async def at_rest(self) -> None:
        """Wait until nothing runs, waits or commits, and still doesn't as this returns."""
        while self.writer is not None or self.readers or self.inflight is not None or self.batch is not None or (self.queue and self.status == LIVE):
            future: asyncio.Future[None] = self.host.node.loop.create_future()
            self.need_extra().at_rest.append(partial(_wake, future))
            await future

    def refuse_waiting(self, error: BaseException) -> None:
        """Tell everybody in the mailbox that it won't be; hooks stay."""
        if self.queue is None:
            return
        for turn in self.queue.drain():
            if turn.kind == HOOK:
                self.queue.turns.append(turn)
            else:
                turn.fail(error)

    def cancel_turns(self, reason: BaseException) -> None:
        """Cancel what runs; it is rolled back and told why."""
        for turn in tuple(self.running()):
            if turn.task is not None and not turn.task.done():
                turn.stop_reason = turn.stop_reason or reason
                turn.task.cancel()
        self.disown_turns()

    def disown_turns(self) -> None:
        """Let the process end without what runs: its code may ignore that it is cancelled."""
        for turn in self.running():
            if isinstance(turn.task, TurnTask):
                turn.task.disown()

    def abandon_turns(self) -> None:
        """What was cancelled and didn't stop is answered; nothing that it still does counts."""
        for turn in tuple(self.running()):
            turn.open = False
            if turn.stop_reason is not None:
                turn.fail(turn.stop_reason)

    def crash(self, cause: BaseException) -> None:
        """The agent can't go on."""
        endings.crash(self, cause)

    def leave(self, *, crashing: bool = False) -> None:
        """Begin no further turn but hooks; what ended well is still committed."""
        self.status = CRASHING if crashing else LEAVING
        self.idle = False
        if self.host.type.sensors:
            self.host.node.sensors.end(self)

    def begin_deletion(self) -> None:
        """Begin nothing more, no hook either: whatever it wrote would bring a deleted agent back."""
        self.status = DELETING
        self.idle = False

    def when_committed(self, call: Callable[[], None]) -> None:
        """Call when no commit is in flight or waiting to be; at once if so already."""
        if self.inflight is None and self.batch is None:
            call()
        else:
            future: asyncio.Future[None] = self.host.node.loop.create_future()
            future.add_done_callback(lambda done: _then(done, partial(self.when_committed, call)))  # what has ended since is another batch
            self.answer_when_durable(Waiter(future), None)

    def begin_life(self) -> None:
        """Loading is over: take the first call."""
        self.status = LIVE
        if self.inflight is None and self.batch is None and self.writer is None and not self.queue:
            self.idle = True
        else:
            self.proceed()
        if self.host.type.senses:
            self.host.node.sensors.begin(self)

    # -- state -----------------------------------------------------------------------------------------------

    def need_extra(self) -> Extra:
        """What most agents never have; made when it is first needed."""
        if self.extra is None:
            self.extra = Extra()
        return self.extra

    def restore(self) -> None:
        """Set the fields back to the end of the last turn that went well."""
        host = self.host
        try:
            host.type.codec.apply(self.instance, self.state)
            self.state = host.type.codec.encode(self.instance)  # a set that was decoded may have another order
            if host.type.hook_load is not None:
                host.type.hook_load(self.instance)
        except Exception as error:
            endings.crash(self, error)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _then(done: asyncio.Future[None], call: Callable[[], None]) -> None:
    done.exception()  # how it ended was told to those whose turns it was
    call()
