"""From what a turn asked for to what its commit writes: rows, events, and what is released afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.codec import encode
from ..core.errors import IdempotencyFull, OutboxFull, TooLarge
from ..core.events import Event, encode_event
from ..core.records import Row
from .definition import DELETE
from .effects import CastEffect, Effects, EmitEffect, Reminder, emit_row, is_emit_row
from .head import Batch
from .outbox import Effect, Outbox
from .turn import DueOrigin, Origin, SensorOrigin, Turn

if TYPE_CHECKING:
    from .activation import Activation
    from .extra import Extra


class KeyRow(msgspec.Struct, frozen=True, array_like=True):
    """What an idempotency key remembers: what was asked, and the answer."""

    hash: bytes
    reply: bytes


def stage(activation: Activation, turn: Turn, value: Any, batch: Batch) -> None:
    """Add a turn's rows, events and releases to a batch; raises, before it changed anything, what makes the turn fail."""
    extra = activation.need_extra()
    agents = activation.host.node.limits
    effects = turn.effects
    reply = b""
    if turn.key is not None:
        if extra.marks.keys >= agents.idempotency_max_keys:
            raise IdempotencyFull(
                f"{activation.address} remembers {extra.marks.keys} idempotency keys, the limit (agents.idempotency_max_keys);"
                " it takes keyed calls again as old keys expire",
                agent=activation.address,
            )
        reply = turn.spec.signature.encode_result(value)
    if effects is not None and effects.casts:
        pending = (0 if extra.outbox is None else extra.outbox.count) + len(effects.casts)
        if pending > agents.max_pending_effects:
            raise OutboxFull(
                f"{activation.address} has {pending} effects that nobody has taken yet, over agents.max_pending_effects={agents.max_pending_effects};"
                " look at their receivers, or send less",
                agent=activation.address,
            )
    if turn.origin is not None and not (effects is not None and turn.origin.name in effects.reminders and turn.origin.kind == "due"):
        _stage_origin(activation, extra, turn.origin, batch)
    if turn.key is not None:
        expires = activation.host.node.clock.time_s() + agents.idempotency_retention
        batch.stage().rows["key", turn.key] = Row("key", turn.key, encode(KeyRow(turn.key_hash, reply)), expires, create=True)
        batch.size_bytes += len(reply)
        extra.marks.keys += 1
    if turn.new_status is not None:
        extra.marks.status = turn.new_status
    if effects is not None:
        _stage_effects(activation, extra, effects, batch)


def _stage_origin(activation: Activation, extra: Extra, origin: Origin, batch: Batch) -> None:
    node = activation.host.node
    if isinstance(origin, SensorOrigin):
        if origin.kept is not None:
            batch.stage().rows["sensor", origin.name] = Row("sensor", origin.name, origin.kept)
            batch.size_bytes += len(origin.kept)
        return
    if origin.kind == "due":
        if isinstance(origin, DueOrigin):
            stage_reminder(activation, extra, origin.name, origin.following, batch, origin.zero_s)
        return
    expires = None if origin.kind == "sub" else node.clock.time_s() + node.limits.idempotency_retention
    batch.stage().rows[origin.kind, origin.name] = Row(origin.kind, origin.name, encode(origin.number), expires)
    extra.remember(origin.kind, origin.name, origin.number)


def _stage_effects(activation: Activation, extra: Extra, effects: Effects, batch: Batch) -> None:
    if effects.events:
        if activation.host.node.log_apart is None:
            batch.stage().events.extend(effects.events)
        else:
            _stage_events(activation, extra, effects.events, batch)
        activation.host.meter.events += len(effects.events)
    if effects.casts:
        _stage_casts(activation, extra, effects.casts, batch)
    for name, reminder in effects.reminders.items():
        stage_reminder(activation, extra, name, reminder, batch)
    for child in effects.children:
        if child not in extra.children:
            extra.children.append(child)
            extra.marks.children += 1
            batch.stage().rows["child", f"{extra.marks.children:09d}"] = Row("child", f"{extra.marks.children:09d}", child.encode())
    for timer in effects.timers:
        batch.stage().after.append(partial(activation.host.start_timer, activation, timer))
    for child in effects.restarts:
        batch.stage().after.append(partial(activation.host.node.family.restart_soon, child))
    if effects.deleted:
        _stage_deletion(activation, extra, batch)
    elif effects.stopped:
        batch.stage().after.append(partial(activation.host.stop_soon, activation))


def _stage_deletion(activation: Activation, extra: Extra, batch: Batch) -> None:
    """Nothing stays but a tombstone, effects that are still to be taken, and what was had from senders just now."""
    if extra.children:
        nothing = encode({})
        _stage_casts(activation, extra, [CastEffect(0, child, DELETE, nothing) for child in reversed(extra.children)], batch)
    staged = batch.stage()
    kept = {name: row for name, row in staged.rows.items() if row.kind in ("pending", "from") and row.value is not None}
    if extra.outbox is not None:
        kept.update({("pending", row.name): row for row in extra.outbox.rows()})
    batch.deleted, staged.rows = True, kept
    staged.after.append(partial(activation.host.deleted, activation))
    activation.begin_deletion()


def _stage_casts(activation: Activation, extra: Extra, casts: list[CastEffect], batch: Batch) -> None:
    marks = extra.marks
    numbered = []
    for cast in casts:
        marks.effects += 1
        numbered.append(msgspec.structs.replace(cast, number=marks.effects))
    _stage_pending(activation, extra, numbered, f"{marks.effects:016d}", batch)


def _stage_pending(activation: Activation, extra: Extra, effects: Sequence[Effect], row: str, batch: Batch) -> None:
    blob = encode(effects)
    if extra.outbox is None:
        extra.outbox = Outbox(activation)
    row = extra.outbox.free_row(of_events=is_emit_row(row)) or row
    batch.stage().rows["pending", row] = Row("pending", row, blob)
    batch.size_bytes += len(blob)
    extra.marks.pending += 1
    extra.outbox.expect(len(effects))
    batch.stage().after.append(partial(extra.outbox.release, row, effects))


def _stage_events(activation: Activation, extra: Extra, events: list[Event], batch: Batch) -> None:
    """Events for a log that doesn't commit with the record wait beside it."""
    log, marks = activation.host.node.log_apart, extra.marks
    assert log is not None
    blobs = tuple(map(encode_event, events))
    for event, blob in zip(events, blobs, strict=True):
        if len(blob) > log.max_event_bytes:
            told = f"the event {event.type!r} of {activation.address} has {len(blob)} bytes, over {log.max_event_bytes}; the turn was rolled back"
            raise TooLarge(told, agent=activation.address, limit=log.max_event_bytes)
    marks.effects += 1
    _stage_pending(activation, extra, [EmitEffect(marks.effects, blobs)], emit_row(marks.effects), batch)


def stage_reminder(activation: Activation, extra: Extra, name: str, reminder: Reminder | None, batch: Batch, zero_s: float | None = None) -> None:
    """Set, replace or (None) remove a reminder."""
    old = extra.reminders.pop(name, None)
    if old is not None:
        extra.marks.due -= 1
        batch.stage().rows["due", old.row] = Row("due", old.row, None)
    if reminder is not None:
        extra.reminders[name] = reminder
        extra.marks.due += 1
        blob = encode(reminder)
        batch.stage().rows["due", reminder.row] = Row("due", reminder.row, blob)
        batch.size_bytes += len(blob)
        batch.stage().after.append(partial(activation.host.node.reminders.add, activation.address, reminder, zero_s))
