"""From a stored record to a live agent: read, check versions, migrate, decode, rebuild, start.

Fails closed: a record that can't be read stops its agent with an error that names it; nothing is written over it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ..core.codec import decode
from ..core.errors import AgentFailed, NoHost, RecordUnreadable, StateMismatch, describe
from ..core.records import Record, Records, StoredRow
from .activation import Activation
from .definition import AgentType
from .effects import CastEffect, EmitEffect, Reminder, is_emit_row
from .head import FAILED, PAUSED, Head, Marks, decode_head
from .outbox import Effect, Outbox

MAX_EFFECTS_A_COMMIT = 1_000_000
_emitted = msgspec.msgpack.Decoder(list[EmitEffect])
_casts = msgspec.msgpack.Decoder(list[CastEffect])
_reminder = msgspec.msgpack.Decoder(Reminder)


def fill(activation: Activation, record: Record | None) -> bool:
    """Fill an activation from its head. False: rows stand behind it that `load_rows` must read. Raises what keeps it from living."""
    host = activation.host
    codec = host.type.codec
    activation.revision = record.revision if record is not None else 0
    marks: Marks | None = None
    if record is None or record.head is None:
        activation.instance = host.type.new_instance()
        activation.state = host.default_state if codec.constant else codec.encode(activation.instance)
        if record is not None:
            marks = Marks(effects=effects_after(record.revision))
    else:
        head = decode_head(record.head, record.agent)
        check_version(host.type, head, record.agent)
        activation.turns = head.turns
        marks = head.marks
        activation.instance = host.type.blank_instance()
        if head.state is not None:
            codec.apply(activation.instance, current_state(host.type, head, record.agent), record.agent)
        else:
            codec.reset(activation.instance)
        activation.state = codec.encode(activation.instance)  # with fields that the class has gained, and sets in the order of this process
    activation.instance._jido = activation
    if host.type.hook_load is not None:
        host.type.hook_load(activation.instance)
    if marks is None:
        return True
    activation.need_extra().marks = marks
    return False


async def load_rows(activation: Activation) -> None:
    """Read the rows that the head says exist."""
    assert activation.extra is not None
    marks = activation.extra.marks
    if activation.turns == 0 and marks == Marks(effects=marks.effects):  # deleted, and since then at most claimed
        await _load_last_words(activation)
    else:
        await _load_marks(activation, marks)


def check_version(kind: AgentType, head: Head, address: str) -> None:
    """Refuse a record that newer code has written."""
    if head.version > kind.version:
        raise NoHost(
            f"the record of {address} is of version {head.version}; this node hosts {kind.name} version {kind.version}."
            " Deploy the newer class, older code never opens it",
            agent=address,
            needed=head.version,
        )


def current_state(kind: AgentType, head: Head, address: str) -> bytes:
    """The state of a head in the form of the class's own version: migrations run on plain builtins, one version at a time."""
    assert head.state is not None
    if head.version == kind.version:
        return head.state
    state: Any = decode(head.state)
    for version in range(head.version, kind.version):
        migrate = kind.migrations.get(version)
        if migrate is None:
            continue
        try:
            state = migrate(state)
        except Exception as error:
            raise StateMismatch(
                f"the migration of {address} from version {version} failed: {describe(error)}; the record is as it was", field="", agent=address
            ) from error
        if not isinstance(state, dict):
            raise StateMismatch(
                f"the migration of {address} from version {version} returned {type(state).__name__}, not a dict; the record is as it was",
                field="",
                agent=address,
            )
    return kind.codec.from_plain(state, address)


def failed(address: str, cause: str) -> AgentFailed:
    """What calls get from an agent that has failed for good, and its parent."""
    return AgentFailed(f"{address} has failed: {cause}. Mend the cause, then `await platform.agents.restart(ref)`", agent=address, cause=cause)


async def _load_marks(activation: Activation, marks: Marks) -> None:
    """Read the rows that the head says exist."""
    address = activation.address
    if marks.status == FAILED:
        raise failed(address, marks.cause)
    extra = activation.need_extra()
    extra.marks = marks
    records = activation.host.node.records
    try:
        if marks.children:
            extra.children = [row.value.decode() for row in await records.read_rows(address, "child")]
        if marks.due:
            for row in await records.read_rows(address, "due"):
                reminder = _reminder.decode(row.value)
                extra.reminders[reminder.name] = reminder
                if reminder.row != row.name:
                    raise RecordUnreadable(
                        f"the reminder {reminder.name!r} of {address} doesn't fit its row {row.name!r}; nothing was changed", agent=address
                    )
        if marks.pending:
            extra.outbox = Outbox(activation)
            extra.outbox.take_up(in_order(await records.read_rows(address, "pending")))  # before what the first turn sends
    except (msgspec.MsgspecError, ValueError) as error:
        raise RecordUnreadable(f"a row of {address} can't be read: {error}; nothing was changed", agent=address) from error


def effects_of(row: StoredRow) -> Sequence[Effect]:
    """The effects of a `pending` row."""
    return _emitted.decode(row.value) if is_emit_row(row.name) else _casts.decode(row.value)


def in_order(rows: Iterable[StoredRow]) -> list[tuple[str, Sequence[Effect]]]:
    """`pending` rows and their effects, in the order in which turns caused them; the name of a row, which may be used again, says nothing of that."""
    return sorted(((row.name, effects_of(row)) for row in rows), key=lambda row: [effect.number for effect in row[1]])


async def stored_rows(records: Records, address: str) -> tuple[tuple[Reminder, ...], tuple[str, ...], int]:
    """What rows say of an agent that isn't live: its reminders, its children, how many effects are still to be taken."""
    try:
        reminders = tuple(_reminder.decode(row.value) for row in await records.read_rows(address, "due"))
        children = tuple(row.value.decode() for row in await records.read_rows(address, "child"))
        pending = sum(len(effects_of(row)) for row in await records.read_rows(address, "pending"))
    except (msgspec.MsgspecError, ValueError) as error:
        raise RecordUnreadable(f"a row of {address} can't be read: {error}; nothing was changed", agent=address) from error
    return reminders, children, pending


async def _load_last_words(activation: Activation) -> None:
    """A deleted agent may have left effects that nobody has taken yet: they still go out."""
    rows = await activation.host.node.records.read_rows(activation.address, "pending")
    if rows:
        await _load_marks(activation, Marks(effects=effects_after(activation.revision), pending=len(rows)))


def effects_after(revision: int) -> int:
    """Where an agent that was deleted goes on counting its effects: past every number that its receivers may remember."""
    return revision * MAX_EFFECTS_A_COMMIT


def is_paused(activation: Activation) -> bool:
    """Whether the record says that calls have to wait."""
    return activation.extra is not None and activation.extra.marks.status == PAUSED
