"""The commonest turns in one loop: those of a plain type that write and have nothing special about them.

A burst of messages costs little more than the code of its actions here. One after another the turns do what
`Activation._begin`, `run`, `ended` and `_wrote` do, and must come to the same, which a test holds.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from . import commits
from .boundary import IMMUTABLE
from .mailbox import Queue
from .status import Status
from .turn import Turn, TurnTask

if TYPE_CHECKING:
    from .activation import Activation

LIVE = Status.LIVE


def run_plainly(activation: Activation, queue: Queue, limit: int) -> int:
    """Run such turns from the front of the mailbox; how many ran. Any other turn is left in front."""
    turns = queue.turns
    if not turns or turns[0].spec.readonly:
        return 0
    steps = activation.host.node.steps()
    next(steps)
    try:
        return _run(activation, queue, limit, steps)
    finally:
        steps.close()


def _run(activation: Activation, queue: Queue, limit: int, steps: Generator[Any, tuple[Any, Turn], None]) -> int:
    turns, instance, step, host = queue.turns, activation.instance, steps.send, activation.host
    encode_checked, buckets, join, new_batch = host.type.codec.encode_checked, host.meter.buckets, commits.join, commits.new_batch
    monotonic = activation.host.node.monotonic
    started = activation.last_used = monotonic()
    for ran in range(limit):
        if not turns or activation.writer is not None or activation.readers or activation.status is not LIVE:
            return ran
        turn, batch = turns[0], activation.batch
        if turn.withdrawn or (batch is not None and batch.full):
            return ran
        if turn.special and (turn.is_special() or (turn.deadline is not None and turn.deadline < activation.host.node.loop.time())):
            return ran
        try:
            coro = turn.spec.function(instance, *turn.args)
        except TypeError:  # the long way says what is wrong
            return ran
        turns.popleft()
        if queue.room:
            queue.let_in()
        turn.begun = turn.open = True
        activation.writer = turn
        value = step((coro, turn))
        if type(value) is TurnTask:
            turn.started = started
            activation.run_on(turn, value)
            return ran + 1
        after = None
        if turn.effects is None and turn.doomed is None and type(value) in IMMUTABLE:
            try:
                after = encode_checked(instance, activation.state)
            except Exception:  # sorted out by `ended`
                after = None
        if after is None:
            turn.started = started
            activation.ended(turn, value, None)
            started = monotonic()
            continue
        turn.open = False
        activation.writer = None
        if after is activation.state:
            activation.answer_when_durable(turn, value)
        else:
            join(activation, activation.batch or new_batch(activation), turn, value, after)
        now = monotonic()
        buckets[int((now - started) * 1e6).bit_length()] += 1
        started = now
    return limit
