"""From the end of a turn to its answer: turns gather in a batch, a batch is one commit, and when that is durable its turns are answered.

At most one commit of an agent is in flight. If it fails, every turn in it and after it fails, and the state falls back to
what was durable before it.
"""

from __future__ import annotations

import asyncio
from copy import copy
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any

from ..core.codec import encode
from ..core.errors import CommitUnknown, Conflict, StoreError, TooLarge, describe
from ..core.records import Committed, Record
from ..core.reply import Reply
from .head import FORMAT, MAX_BYTES_A_COMMIT, MAX_TURNS_A_COMMIT, Batch, Marks, encode_array, encode_head
from .status import Status
from .turn import Turn

if TYPE_CHECKING:
    from .activation import Activation


def new_batch(activation: Activation) -> Batch:
    """A batch that begins with the state as it is."""
    return Batch(activation.state, activation.turns, copy(activation.extra.marks) if activation.extra is not None else None, [])


def join(activation: Activation, batch: Batch, turn: Turn, value: Any, after: bytes) -> None:
    """A turn that ended well, leaving the state `after`, goes into the batch."""
    activation.batch = batch
    activation.state = after
    activation.turns = turns = activation.turns + 1
    batch.size_bytes = size_bytes = batch.size_bytes + len(after)
    if size_bytes >= MAX_BYTES_A_COMMIT or turns - batch.before_turns >= MAX_TURNS_A_COMMIT:
        batch.full = True
    if turn.special:  # else a cast: nobody is told
        batch.turns.append((turn, value))


def commit_at_once(activation: Activation, after: bytes) -> bool:
    """The short way's end for a turn without effects that changed state, nothing else being under way, where the store never
    waits. False: not committed, the long way decides."""
    host, extra = activation.host, activation.extra
    if extra is not None and extra.outbox is not None and extra.outbox.unnoted:
        return False
    marks = extra.marks if extra is not None else None
    head = encode_array((FORMAT, host.type.version, activation.turns + 1, after, marks))
    try:
        committed = host.node.records.submit(host.prefix + activation.key, activation.revision, head, (), (), _never_later)
    except StoreError:
        return False
    assert committed is not None
    activation.state = after
    activation.turns += 1
    activation.revision = committed.revision
    host.meter.commits += 1
    return True


def commit_soon(activation: Activation, turn: Turn, value: Any, after: bytes) -> bool:
    """The same where the store has a thread of its own. True: the commit is on the way and the turn will be answered.

    The store is told last: its thread then mostly wakes to an interpreter that is free.
    """
    host, extra = activation.host, activation.extra
    if extra is not None and extra.outbox is not None and extra.outbox.unnoted:
        return False
    marks = extra.marks if extra is not None else None
    before, turns = activation.state, activation.turns
    batch = activation.inflight = Batch(before, turns, None if marks is None else copy(marks), [(turn, value)])
    head = batch.head = encode_array((FORMAT, host.type.version, turns + 1, after, marks))
    activation.state = after
    activation.turns = turns + 1
    activation.writer = None
    turn.open = False
    settled = MethodType(_settled_alone, activation)  # a `partial` takes twice as long to make
    try:
        committed = host.node.records.submit(host.prefix + activation.key, activation.revision, head, (), (), settled)
    except StoreError:
        activation.inflight, activation.state, activation.turns = None, before, turns
        activation.writer, turn.open = turn, True
        return False
    if committed is not None:
        settled(committed, None)
    return True


def _never_later(_committed: Committed | None, _error: BaseException | None) -> None:
    """The store has returned what it committed."""


def flush(activation: Activation) -> None:
    """Hand the batch to the store."""
    batch = activation.batch
    assert batch is not None
    activation.batch, activation.inflight = None, batch
    host = activation.host
    activation.idle = False
    try:
        marks = activation.extra.marks if activation.extra is not None else None
        if activation.extra is not None and activation.extra.outbox is not None:
            activation.extra.outbox.note(batch)
        if host.node.tracing.enabled:
            batch.span = host.node.tracing.start(
                "jido.commit", {"jido.agent": activation.address, "jido.turns": activation.turns - batch.before_turns}, batch.traceparent
            )
        batch.head = None if batch.deleted else encode_head(host.type.version, activation.turns, activation.state, marks, host.node.owner)
        staged = batch.staged
        rows, events = ((), ()) if staged is None else (tuple(staged.rows.values()), staged.events)
        committed = host.node.records.submit(activation.address, activation.revision, batch.head, rows, events, partial(settled, activation))
    except (StoreError, TypeError, ValueError, OverflowError) as error:
        _failed(
            activation,
            batch,
            error
            if isinstance(error, StoreError)
            else StoreError(f"what a turn of {activation.address} wrote can't be stored: {error}; it was rolled back", agent=activation.address),
        )
        return
    if committed is not None:
        durable(activation, batch, committed.revision)


def _settled_alone(activation: Activation, committed: Committed | None, error: BaseException | None) -> None:
    """`settled` for a turn that `commit_one` took: mostly nothing else has happened to its agent meanwhile."""
    batch = activation.inflight
    assert batch is not None
    if (
        committed is None
        or activation.batch is not None
        or activation.queue
        or activation.extra is not None
        or batch.waiters is not None
        or activation.writer is not None
        or activation.readers
    ):
        settled(activation, committed, error)
        return
    activation.inflight = None
    activation.revision = committed.revision
    activation.host.meter.commits += 1
    ((turn, value),) = batch.turns
    if activation.status is Status.LIVE:
        activation.idle = True
    turn.answered = True  # as in `Turn.answer`, for a turn that nothing else waits for
    turn.value = value
    if turn.slot is not None:
        activation.host.node.deadlines.discard(turn)
    reply = turn.reply
    if reply is None or reply.done():
        return
    if type(reply) is Reply:
        reply.tell(value)  # nothing of this agent's is half done: its caller may go on, and call it again, within this step
    else:
        reply.set_result(value)


def settled(activation: Activation, committed: Committed | None, error: BaseException | None) -> None:
    """The store tells what became of the commit in flight."""
    batch = activation.inflight
    assert batch is not None
    if committed is not None:
        durable(activation, batch, committed.revision)
    else:
        if batch.span is not None:
            batch.span.end(error)
        _failed(activation, batch, error or CommitUnknown(f"the outcome of a commit of {activation.address} wasn't told", agent=activation.address))
    if activation.batch is not None and activation.inflight is None and not activation.pumping:
        flush(activation)
    if activation.queue:
        activation.proceed()
    elif activation.writer is None and activation.inflight is None and activation.batch is None and activation.readers == 0:
        activation._rest()


def durable(activation: Activation, batch: Batch, revision: int) -> None:
    """The batch in flight is committed: answer its turns and release what they caused."""
    activation.inflight = None
    activation.revision = revision
    if batch.span is not None:
        batch.span.end(None)
    activation.host.meter.commits += 1
    for turn, value in batch.turns:
        turn.answer(value)
    if batch.waiters:
        for waiter, value in batch.waiters:
            waiter.answer(value)
    if batch.staged is not None:
        for release in batch.staged.after:
            release()


def _failed(activation: Activation, batch: Batch, error: BaseException) -> None:
    if isinstance(error, CommitUnknown):
        if activation.host.node.closing and activation.status is Status.GONE:  # nobody is left to read it back
            leave_in_doubt(activation)
            return
        before, activation.status = activation.status, Status.HELD
        activation.idle = False
        activation.inflight = batch
        activation.host.node.own(_resolve_unknown(activation, batch, error, before))
        return
    undo(activation, batch, _what_grew(activation, error) if isinstance(error, TooLarge) else error)


def undo(activation: Activation, batch: Batch, error: BaseException, told: BaseException | None = None) -> None:
    """The batch in flight is known not to be committed: it and everything after it fails. `told`: what its callers hear instead, since it isn't known
    of all of it.
    """
    failing = [batch] if activation.batch is None else [batch, activation.batch]
    if untold := activation.turns - batch.before_turns - sum(len(failed.turns) for failed in failing):
        activation.host.node.log.warning("casts failed", agent=activation.address, casts=untold, error=describe(error))
    activation.inflight = activation.batch = None
    activation.state = batch.before or b""
    activation.turns = batch.before_turns
    extra = activation.need_extra()
    extra.marks = batch.marks_before or Marks()
    for turn in activation.running():
        turn.doomed = error
    if isinstance(error, Conflict):
        activation.host.node.log.error("an agent's record was written by somebody else", agent=activation.address, error=describe(error))
    if activation.status is Status.CRASHING:
        pass  # whatever follows the crash reads the record again; that there was one must be counted
    elif isinstance(error, Conflict):  # this copy is worthless, the next call reads the new one
        activation.host.renew(activation)
    elif extra.has_rows or batch.staged is not None or activation.writer is not None or activation.readers:
        # What is in memory of its rows may be wrong now, or is still being used by those who have seen too much: read it again.
        activation.host.renew(activation)
    else:
        activation.restore()
    for failed in failing:
        for turn, _value in (*failed.turns, *(failed.waiters or ())):
            turn.fail(told or error)


def leave_in_doubt(activation: Activation) -> None:
    """The platform has closed: whoever still waits for a commit is told that its outcome is unknown."""
    for batch in (activation.inflight, activation.batch):
        if batch is not None:
            error = CommitUnknown(f"the platform closed before the outcome of a commit of {activation.address} was known", agent=activation.address)
            for turn, _value in (*batch.turns, *(batch.waiters or ())):
                turn.fail(error)


def _what_grew(activation: Activation, error: TooLarge) -> TooLarge:
    """The error for a record that is too large, naming the field that makes it so."""
    if len(activation.state) <= activation.host.node.records.max_head_bytes:
        return error  # it was something else: an event, say
    sizes = {name: len(encode(value)) for name, value in activation.host.type.codec.mapping(activation.state).items()}
    name = max(sizes, key=sizes.__getitem__)
    told = f"{error}; its largest field is {name!r} with {sizes[name]:,} bytes. The turn was rolled back; spread it over several agents"
    return TooLarge(told, agent=activation.address, field=name)


async def _read_back(activation: Activation) -> Record | None:
    """The record, as soon as the store answers again."""
    wait_s = 0.05
    while True:
        try:
            return await activation.host.node.records.read(activation.address)
        except StoreError:
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, 2.0)


async def _resolve_unknown(activation: Activation, batch: Batch, error: CommitUnknown, before: Status) -> None:
    """Hold the agent until reading back says whether its commit happened."""
    node = activation.host.node
    node.log.error("the outcome of a commit is unknown; the agent is held", agent=activation.address, error=describe(error))
    record = await _read_back(activation)
    if activation.status is Status.HELD:
        activation.status = before
    if record is not None and record.revision != activation.revision and record.head == batch.head:
        durable(activation, batch, record.revision)
    elif record is None or record.revision == activation.revision:
        undo(activation, batch, error)
    else:
        told = f"{activation.address} was written by somebody else; the turn was rolled back"
        conflict = Conflict(told, agent=activation.address, expected=activation.revision, actual=record.revision)
        # On a cluster whoever has it now may have built on this commit.
        undo(activation, batch, conflict, error if node.ownership is not None else None)
    if activation.batch is not None and activation.inflight is None and not activation.pumping:  # what ended while nobody knew
        flush(activation)
    activation.proceed()
