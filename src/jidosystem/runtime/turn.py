"""One turn: a request from the moment it is accepted until its answer is durable.

The turn belongs to the agent, not to its caller: a caller that gives up doesn't stop a turn that has begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from ..core.context import Causality, current
from ..core.eager import EagerTask, FirstSteps, first_steps_on
from ..core.errors import ActionCancelled, ActionFailed, CallTimeout, JidoError, OutsideTurn, ReadOnlyTurn
from ..core.tracing import Span
from .definition import ActionSpec
from .effects import CastEffect, Effects, Reminder, Timer

if TYPE_CHECKING:
    from .activation import Activation

CALL, CAST, DELIVERY, HOOK, TIMER = range(5)


class ActivationCrash(Exception):
    """The agent's code raised what no turn survives: the activation is dropped."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(repr(cause))
        self.cause = cause


class Origin:
    """Where a delivery of the platform comes from, and who wants to hear that it was handled.

    `kind` is "from", "sub", "due", "redrive" or "sensor"; `name` the sender, subscription, reminder, letter or sensor; `number` the
    delivery's place in that series. `settled(None)` is called when the turn is durable (or known to have been done
    before), `settled(error)` when it was rolled back.
    """

    __slots__ = ("kind", "name", "number", "settled")

    def __init__(self, kind: str, name: str, number: int, settled: Callable[[BaseException | None], None]) -> None:
        self.kind, self.name, self.number, self.settled = kind, name, number, settled


class DueOrigin(Origin):
    """A reminder being fired, and what takes its place in the same commit (None: nothing), counted by the clock of `zero_s`."""

    __slots__ = ("following", "reminder", "row", "zero_s")

    def __init__(self, reminder: Reminder, following: Reminder | None, zero_s: float, settled: Callable[[BaseException | None], None]) -> None:
        super().__init__("due", reminder.name, int(reminder.due_s * 1_000_000), settled)
        self.reminder = reminder
        self.following = following
        self.row = reminder.row
        self.zero_s = zero_s


class SensorOrigin(Origin):
    """An item of a sensor. Its turn counts on the activation that the sensor runs on and on no other; `kept` is what the commit
    writes down of the sensor, None: nothing."""

    __slots__ = ("activation", "kept")

    def __init__(self, activation: Activation, name: str, kept: bytes | None, settled: Callable[[BaseException | None], None]) -> None:
        super().__init__("sensor", name, 0, settled)
        self.activation = activation
        self.kept = kept


class Turn:
    """See the module. Most turns never need most of these: the defaults stand on the class."""

    kind = CALL
    kwargs: Mapping[str, Any] | None = None
    reply: asyncio.Future[Any] | None = None
    answered = False
    begun = False
    open = False
    afar = False  # its code runs on another node; see door.py
    arrived = False  # a delivery that came over the wire, and isn't sent on
    withdrawn = False
    special = True  # may be special: `is_special` knows
    doomed: BaseException | None = None
    stop_reason: BaseException | None = None
    value: Any = None
    error: BaseException | None = None
    effects: Effects | None = None
    new_status: int | None = None  # that the agent is to have in its record, of a turn of the platform's own
    task: asyncio.Future[Any] | None = None
    origin: Origin | None = None
    key: str | None = None
    key_hash = b""
    deadline: float | None = None
    slot: int | None = None
    started = 0.0
    attempt = 1
    waits: dict[Turn, Activation] | None = None  # calls of this turn that wait for an answer
    successor: Turn | None = None  # the repetition of a rolled-back turn
    slot_taken = False  # holds a place in its type's bulkhead
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None
    watchdog: Any = None
    instance: Any = None
    permit: Any = None
    span: Span | None = None

    def __init__(self, activation: Activation, spec: ActionSpec, args: tuple[Any, ...], caller: Turn | None) -> None:
        self.activation = activation
        self.spec = spec
        self.args = args
        self.caller = caller

    # -- the answer ------------------------------------------------------------------------------------------

    def answer(self, value: Any) -> None:
        """The turn is durable: its caller may know."""
        self.answered = True
        self.value = value
        if self.slot is not None:
            self.activation.host.node.deadlines.discard(self)
        reply = self.reply
        if reply is not None and not reply.done():
            reply.set_result(value)
        if self.origin is not None:
            self.origin.settled(None)

    def fail(self, error: BaseException) -> None:
        """The turn left nothing behind (or nobody knows: `OutcomeUnknown`): its caller is told why."""
        self.answered = True
        self.error = error
        if self.slot is not None:
            self.activation.host.node.deadlines.discard(self)
        reply = self.reply
        if reply is not None and not reply.done():
            reply.set_exception(error)
        if self.origin is not None:
            self.origin.settled(error)

    def expire(self, now: float) -> None:
        """The caller's patience has ended; a turn still in the mailbox is withdrawn, one that began goes on."""
        reply = self.reply
        if reply is None or reply.done():
            return
        self.withdraw()
        reply.set_exception(self.too_late())

    def withdraw(self) -> None:
        """Nobody waits any more: a turn still in the mailbox never begins."""
        if self.slot is not None:
            self.activation.host.node.deadlines.discard(self)
        if not self.begun and not self.withdrawn and not self.answered:
            self.withdrawn = True
            self.activation.withdraw(self)

    def too_late(self) -> CallTimeout:
        """The caller's patience ended before the answer."""
        who = self.activation.address
        if self.begun:
            how = "it had begun and goes on: whether it took effect is unknown here. Ask the agent, or repeat with an idempotency key"
        else:
            how = "it hadn't begun and was withdrawn; nothing has happened"
        return CallTimeout(f"no answer from {who}.{self.spec.name} in time; {how}", agent=who, uncertain=self.begun)

    def is_special(self) -> bool:
        """Whether it is anything but an action that writes, called or cast by position and without a key."""
        return bool(self.spec.readonly or self.kwargs or self.key is not None or self.origin is not None or self.effects is not None)

    def waiting_for(self, called: Turn) -> None:
        """This turn waits for another's answer: an edge for the search for cycles."""
        if self.waits is None:
            self.waits = {}
        self.waits[called] = called.activation

    def no_longer_waiting_for(self, called: Turn) -> None:
        """The answer came, or patience ended."""
        if self.waits is not None:
            self.waits.pop(called, None)

    # -- what the running code may do ------------------------------------------------------------------------

    def collect(self, what: str) -> Effects:
        """The turn's effects, to add to; refused once the turn is over, and in read-only turns."""
        if not self.open:
            told = f"{self.activation.address}: {what} after its turn had ended; await what the action starts before it returns"
            raise OutsideTurn(told, agent=self.activation.address)
        if self.spec.readonly:
            told = f"{self.activation.address}.{self.spec.name} is read-only and can't {what}; drop readonly=True"
            raise ReadOnlyTurn(told, agent=self.activation.address)
        effects = self.effects
        if effects is None:
            effects = self.effects = Effects()
        return effects

    def causality(self) -> Causality:
        """Ids for what this turn causes."""
        if self.correlation_id is None:
            caller = self.caller
            self.correlation_id = caller.causality().correlation_id if caller is not None else self.activation.host.node.ids()
            if caller is not None:
                self.causation_id, self.traceparent = caller.causation_id, self.traceparent or caller.traceparent
        return Causality(self.correlation_id, self.causation_id, self.traceparent, self.activation.address)

    def follow(self, cause: CastEffect | Reminder | Timer | Turn) -> None:
        """Go on under the ids of what caused this turn."""
        self.correlation_id, self.causation_id, self.traceparent = cause.correlation_id, cause.causation_id, cause.traceparent

    def chain(self) -> list[str]:
        """Addresses from the first caller down to this turn."""
        links: list[str] = []
        turn: Turn | None = self
        while turn is not None:
            if address := turn.activation.address:  # "": whoever called from outside, on another node
                links.append(address)
            turn = turn.caller
        return links[::-1]


class RunningTurn(Turn):
    """A turn that begins as it is made."""

    begun = True
    open = True


class CastTurn(Turn):
    """A message from outside whose answer is nobody's: an action that writes, its arguments by position, no key."""

    kind = CAST
    special = False


def _lay_out(kind: type[Turn], *names: str) -> None:
    """CPython gives the attributes that the first object of a class has a place in every later one; what comes after costs each a dictionary."""
    first = kind(None, None, (), None)  # type: ignore[arg-type]
    for name in names:
        setattr(first, name, None)


_USUAL = ("begun", "open", "answered", "started", "value", "reply", "deadline", "slot", "kwargs", "task", "effects", "origin")
_lay_out(Turn, *_USUAL)
_lay_out(RunningTurn, *_USUAL)
_lay_out(CastTurn, "begun", "open", "started")


def current_turn() -> Turn | None:
    """The turn that the running code belongs to, if it is still open."""
    turn = current.get()
    return turn if isinstance(turn, Turn) and turn.open else None


class TurnTask(EagerTask[Any]):
    """The task of an action that waits. What would tear down the event loop (`SystemExit`, `KeyboardInterrupt`) is a crash of the agent."""

    def _finish(self, end: BaseException) -> None:
        if not isinstance(end, Exception | asyncio.CancelledError):
            crash = ActivationCrash(end)
            crash.__cause__, end = end, crash
        super()._finish(end)


def steps_on(loop: asyncio.AbstractEventLoop) -> FirstSteps:
    """What begins actions on one loop, `step(coro, turn)`: what runs in its context knows its turn."""
    return first_steps_on(loop, TurnTask, current)


async def in_span(span: Span, coro: Coroutine[Any, Any, Any]) -> Any:
    """Run an action as the parent of the spans that other libraries make in it."""
    span.make_current()
    return await coro


def ended_with(turn: Turn, task: asyncio.Future[Any]) -> BaseException | None:
    """The error that a finished task stands for; None if it has a result."""
    if task.cancelled():
        return turn.stop_reason or ActionCancelled(
            f"{turn.activation.address}.{turn.spec.name} cancelled itself; it was rolled back. Catch the cancellation of what it awaits",
            agent=turn.activation.address,
        )
    error = task.exception()
    if error is not None and turn.stop_reason is not None and isinstance(error, asyncio.CancelledError | TimeoutError):
        return turn.stop_reason
    return error


def is_failure(error: BaseException) -> bool:
    """Whether meters and breakers count an error as the agent's failure."""
    return not isinstance(error, JidoError) or isinstance(error, ActionFailed | ActionCancelled)
