"""How turns and activations end badly: roll-back, retry, time-outs and crashes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from ..core.errors import AgentCrashed, TurnTimeout, describe
from ..core.tracing import Span
from ..infrastructure.retry import delay_s, should_retry
from .status import Status
from .turn import CALL, CAST, TIMER, ActivationCrash, Turn, TurnTask, is_failure

if TYPE_CHECKING:
    from .activation import Activation

GIVE_UP_AFTER_S = 5.0
"""How long an action may ignore its cancellation before its instance is left to it."""


async def with_change_hook(activation: Activation, turn: Turn, coro: Coroutine[Any, Any, Any]) -> Any:
    """Run an action and then, if it changed durable fields, `on_state_change`, in the same turn."""
    result = await coro
    kind = activation.host.type
    instance = activation.instance
    after = kind.codec.encode(instance)
    if after != activation.state and turn.stop_reason is None:
        assert kind.hook_change is not None
        await kind.hook_change(instance, kind.codec.mapping(activation.state), kind.codec.mapping(after))
    return result


def begin_span(activation: Activation, turn: Turn) -> Span:
    """A turn begins: its span is the child of whatever caused it."""
    caller = turn.caller
    cause = turn.traceparent or (caller.traceparent if caller is not None else None)
    kind = activation.host.type.name
    turn.span = activation.host.node.tracing.start(
        f"{kind}.{turn.spec.name}", {"jido.agent": activation.address, "jido.action": turn.spec.name}, cause
    )
    turn.traceparent = turn.span.traceparent
    return turn.span


# -- turns that take their time ----------------------------------------------------------------------------------


class TurnClock:
    """Stops a turn that runs past its limit, and gives it up if it won't stop. An entry of the timer wheel."""

    __slots__ = ("activation", "limit_s", "slot", "turn")

    def __init__(self, activation: Activation, turn: Turn, limit_s: float) -> None:
        self.activation, self.turn, self.limit_s = activation, turn, limit_s
        self.slot: int | None = None

    def expire(self, now: float) -> None:
        """First the limit, then the end of patience."""
        turn, activation = self.turn, self.activation
        task = turn.task
        if task is None or task.done():
            return
        where = f"{activation.address}.{turn.spec.name}"
        if turn.stop_reason is None:
            turn.stop_reason = TurnTimeout(
                f"{where} ran longer than its turn_timeout of {self.limit_s:g} s; it was cancelled and rolled back, nothing was committed",
                agent=activation.address,
            )
            task.cancel()
            activation.host.node.deadlines.add(now + GIVE_UP_AFTER_S, self)
        else:
            give_up(
                activation,
                turn,
                TurnTimeout(f"{where} ignored its cancellation for {GIVE_UP_AFTER_S:g} s and was given up", agent=activation.address),
            )


def watch(activation: Activation, turn: Turn, task: asyncio.Future[Any]) -> None:
    """A turn didn't end at once: count its time and come back when it ends."""
    host = activation.host
    if turn.spec.readonly:
        activation.need_extra().reading.add(turn)
    limit_s = host.type.lifecycle.turn_timeout
    if limit_s:
        clock = turn.watchdog = TurnClock(activation, turn, limit_s)
        host.node.deadlines.add(host.node.loop.time() + limit_s, clock)
    task.add_done_callback(partial(_ended_later, activation, turn))


def _ended_later(activation: Activation, turn: Turn, task: asyncio.Future[Any]) -> None:
    if turn.watchdog is not None:
        activation.host.node.deadlines.discard(turn.watchdog)
        turn.watchdog = None  # the clock knows the turn: leave no cycle
    if activation.extra is not None:
        activation.extra.reading.discard(turn)
    if turn.answered and not turn.open:  # given up long ago: nothing that it did counts
        if not task.cancelled():
            task.exception()
        return
    activation.task_ended(turn, task)
    activation.proceed()


def give_up(activation: Activation, turn: Turn, error: BaseException) -> None:
    """Leave the instance to code that doesn't stop; the agent goes on with a new one."""
    node = activation.host.node
    turn.open = False
    if isinstance(turn.task, TurnTask):
        turn.task.disown()
    node.log.error("a turn was given up", agent=activation.address, action=turn.spec.name, error=describe(error))
    if turn.spec.threaded:
        node.threads.lose_one()
    if turn.spec.readonly:
        activation.readers -= 1
    else:
        activation.writer = None
    turn.fail(turn.stop_reason or error)
    if activation.host.after_turn is not None:
        activation.host.after_turn(activation, turn, error)
    crash(activation, error)
    activation.proceed()


# -- turns that fail ---------------------------------------------------------------------------------------------


def failed(activation: Activation, turn: Turn, error: BaseException) -> None:
    """A turn ended with an error: roll back, then repeat it, crash, or tell the caller."""
    host = activation.host
    if is_failure(error):
        host.meter.failures += 1
    if isinstance(error, ActivationCrash):
        turn.fail(
            AgentCrashed(
                f"{activation.address} crashed in {turn.spec.name}: {describe(error.cause)}", agent=activation.address, cause=describe(error.cause)
            )
        )
        crash(activation, error.cause)
        return
    if host.type.supervision is not None and host.type.supervision.is_crash(error):
        turn.fail(error)
        crash(activation, error)
        return
    if not turn.spec.readonly and activation.status != Status.GONE:
        activation.restore()
    retry = host.type.resilience.retry
    if retry is not None and turn.kind in (CALL, CAST) and not host.node.closing and should_retry(retry, error, turn.attempt):
        wait_s = delay_s(retry, turn.attempt, host.node.random())
        if turn.deadline is None or host.node.loop.time() + wait_s < turn.deadline:
            _again(activation, turn, wait_s)
            return
    if turn.kind in (CAST, TIMER):  # nobody else is told
        what = "a cast failed" if turn.kind == CAST else "a timer's action failed"
        host.node.log.warning(what, agent=activation.address, action=turn.spec.name, error=describe(error))
    turn.fail(error)


def _again(activation: Activation, turn: Turn, wait_s: float) -> None:
    """Repeat a rolled-back turn as a new one."""
    if turn.reply is None and turn.kind == CALL:
        turn.reply = activation.host.node.loop.create_future()
    again = Turn(activation, turn.spec, turn.args, turn.caller)
    again.kwargs, again.kind, again.reply, again.deadline = turn.kwargs, turn.kind, turn.reply, turn.deadline
    again.key, again.key_hash, again.attempt, again.permit = turn.key, turn.key_hash, turn.attempt + 1, turn.permit
    again.follow(turn)
    turn.successor = again
    activation.host.repeat_after(wait_s, again)


def crash(activation: Activation, cause: BaseException) -> None:
    """The activation can't go on: what ended well is still committed, then it is dropped and a new one follows."""
    if activation.status in (Status.GONE, Status.CRASHING, Status.DELETING):
        return
    activation.leave(crashing=True)
    activation.host.meter.crashes += 1
    activation.host.node.log.error("an agent crashed", agent=activation.address, error=describe(cause))
    activation.when_committed(partial(activation.host.crashed, activation, cause))
