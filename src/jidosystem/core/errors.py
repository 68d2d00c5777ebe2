"""Every error of the platform: one tree, sorted by whose fault it is.

An error says what happened, to which agent, where, and what to do next. Its facts are fields, and the
message is built from them, so that programs branch on types and fields and people read sentences.

    JidoError
      UsageError         the program asks for what can't be: mend the program
      RefusedError       the platform declines for now, nothing has happened: wait or shed load
      ActionError        the agent's own code said no or failed
      OutcomeError       time ran out: what happened may be unknown
      StoreError         the store can't do what was asked, or a record can't be trusted
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from .shown import json_or_text, short, text_of


class JidoError(Exception):
    """The root of every error that the platform raises.

    `code` is stable across releases and names the error's page, `docs/errors/<code>.md`; `outcome_known` says whether the
    caller may take it that nothing happened; `node` is the node that raised it, "" where none was concerned.
    """

    code: ClassVar[str] = "jido"
    outcome_known: ClassVar[bool] = True
    node: str = ""

    def __init__(self, message: str, /, **fields: Any) -> None:
        super().__init__(message)
        self.fields: dict[str, Any] = fields
        for name, value in fields.items():
            setattr(self, name, value)

    def details(self) -> dict[str, Any]:
        """The error as a dictionary of what JSON carries: code, type, message, node, page, whether the outcome is known, and its fields."""
        return {
            "code": self.code,
            "type": type(self).__name__,
            "message": text_of(self.args[0] if self.args else ""),
            "node": self.node,
            "page": page_of(type(self)),
            "outcome_known": self.outcome_known,
            "fields": {text_of(name): json_or_text(value) for name, value in self.fields.items()},
        }

    def note(self) -> str:
        """What a traceback says below the message: the code, the node, and the page to read."""
        return f"{self.code}{f' on node {self.node}' if self.node else ''}: see {page_of(type(self))}"

    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        # Whoever prints the error asks for it, so that making one costs nothing more. The list is kept, for `add_note`.
        notes: list[str] = self.__dict__.setdefault("_notes", [""])
        notes[0] = self.note()
        return notes

    def __repr__(self) -> str:
        told = [short(self.args[0])] if self.args else []
        told += [f"{name}={short(value)}" for name, value in self.fields.items()]
        return f"{type(self).__name__}({', '.join(told)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args[0], self.fields, self.node)


def _rebuild(cls: type[JidoError], message: str, fields: dict[str, Any], node: str = "") -> JidoError:
    error = cls.__new__(cls)
    JidoError.__init__(error, message, **fields)
    if node:
        error.node = node
    return error


def page_of(kind: type[JidoError]) -> str:
    """Where the documentation of an error stands in the repository."""
    return f"docs/errors/{kind.code}.md"


# -- the program's fault ---------------------------------------------------------------------------------------


class UsageError(JidoError):
    """The call can never succeed as it is written."""

    code = "usage"


class DefinitionError(UsageError):
    """An agent class that can't be: the message names the class, the member and what to write instead."""

    code = "definition"


class InvalidKey(UsageError, ValueError):
    """A key is 1 to 512 bytes of UTF-8 without control characters."""

    code = "invalid-key"


class InvalidArguments(UsageError, TypeError):
    """An argument doesn't fit its type hint, or can't be carried; `path` says which one (`$.data.region`)."""

    code = "invalid-arguments"
    path: str


class InvalidResult(UsageError, TypeError):
    """An action returned what can't be carried; the turn is rolled back."""

    code = "invalid-result"


class NotAnAction(UsageError, AttributeError):
    """A reference has actions only: fields and other methods live in the agent."""

    code = "not-an-action"


class NoPlatform(UsageError):
    """The agent was made by hand, without a platform, and has nobody to call."""

    code = "no-platform"


class NotYetAvailable(UsageError):
    """A part of the contract that a later release brings; nothing is accepted and ignored."""

    code = "not-yet-available"


class NoHost(UsageError):
    """No node hosts the agent's type, or none a version new enough for its record."""

    code = "no-host"


class ReadOnlyTurn(UsageError):
    """A read-only action tried to change durable state or to cause an effect."""

    code = "read-only-turn"


class OutsideTurn(UsageError):
    """An effect was asked for by code that no running turn of this agent stands behind."""

    code = "outside-turn"


class StateChangedOutsideTurn(UsageError):
    """Checking mode: durable fields changed between two turns; `names` lists them."""

    code = "state-changed-outside-turn"
    names: Sequence[str]


class CallCycle(UsageError):
    """A chain of calls came back to an agent in mid-turn; `chain` names it, first caller first."""

    code = "call-cycle"
    chain: Sequence[str]


class IdempotencyConflict(UsageError):
    """The key was used before with another action or other arguments."""

    code = "idempotency-conflict"


class InvalidConfig(UsageError, ValueError):
    """A config value is refused; `path`, `value` and `allowed` say which, what and why. What ran keeps running."""

    code = "invalid-config"
    path: str
    value: Any
    allowed: str


class InvalidPattern(UsageError, ValueError):
    """An event type or a pattern of event types that can't be."""

    code = "invalid-pattern"


class ScaffoldError(UsageError):
    """`jido new` or `jido generate` can't make what it was asked for; nothing was left behind."""

    code = "scaffold"


# -- refused for now, nothing has happened ---------------------------------------------------------------------


class RefusedError(JidoError):
    """The platform declines for now; the request had no effect and may be repeated later."""

    code = "refused"


class MailboxFull(RefusedError):
    """The agent has `limit` messages waiting, or this one was dropped in favour of a newer one."""

    code = "mailbox-full"


class OutboxFull(RefusedError):
    """The agent has `agents.max_pending_effects` effects that nobody has taken yet."""

    code = "outbox-full"


class BulkheadFull(RefusedError):
    """Too many turns of this agent type run and wait on this node."""

    code = "bulkhead-full"


class CircuitOpen(RefusedError):
    """The agent's circuit breaker is open; `retry_after_s` says for how long."""

    code = "circuit-open"
    retry_after_s: float


class IdempotencyFull(RefusedError):
    """The agent remembers `agents.idempotency_max_keys` keys; a new keyed call would have to forget one."""

    code = "idempotency-full"


class ShuttingDown(RefusedError):
    """The platform is closing and takes no new work."""

    code = "shutting-down"


class AgentFailed(RefusedError):
    """The agent crashed more often than its supervision allows, or took its nodes along; `cause` says how. `agents.restart` ends that."""

    code = "agent-failed"
    cause: str


class AgentCrashed(RefusedError):
    """The agent's activation couldn't be made or go on; the next call tries again."""

    code = "agent-crashed"
    cause: str


class DeadLettersFull(RefusedError):
    """There are `limit` (`events.max_dead_letters`) dead letters; what fails stays where it is until some are redriven or cleared."""

    code = "dead-letters-full"
    limit: int


class ForwardUnavailable(RefusedError):
    """A forwarder's other side is away or busy. Retried without end; `retry_after_s` is its own word for when, 0 if it gave none."""

    code = "forward-unavailable"
    retry_after_s: float


class NodeUnreachable(RefusedError):
    """Nobody serves the address; nothing was sent."""

    code = "node-unreachable"


class NodeBusy(RefusedError):
    """So many requests to that node are under way that no other is sent (`limit`)."""

    code = "node-busy"
    limit: int


class NodeNameTaken(RefusedError):
    """A living node has the name (`name`): two can't."""

    code = "node-name-taken"
    name: str


class ProtocolMismatch(RefusedError):
    """The other node speaks no version of the protocol between nodes that this one speaks; nothing was sent. `newer`: it is the newer one."""

    code = "protocol-mismatch"
    newer: bool


class Moved(RefusedError):
    """The agent lives on another node, or isn't there any more; nothing has happened. Calls go after it by themselves, so that callers see this
    only if it moved again and again until their patience ended. `owner` is the node that has it, "" if nobody knows, `incarnation` which life
    of that node.
    """

    code = "moved"
    agent: str
    owner: str
    incarnation: int


class InvalidFrame(RefusedError, ValueError):
    """Bytes that came over a wire are no frame of ours: damaged, of another version, or none at all. Nothing was done."""

    code = "invalid-frame"


# -- the agent's own code --------------------------------------------------------------------------------------


class ActionError(JidoError):
    """The agent's own code refused or failed; its turn was rolled back."""

    code = "action"


class Rejected(ActionError):
    """An expected refusal, raised by actions: `raise Rejected("payment_failed")`. No breaker or supervisor counts it."""

    code = "rejected"

    def __init__(self, reason: str, /, **fields: Any) -> None:
        super().__init__(reason, **fields)

    @property
    def reason(self) -> str:
        """The word that it was raised with."""
        return str(self.args[0])

    def note(self) -> str:
        """The fields too: the word alone often doesn't say enough, and is what programs compare."""
        told = ", ".join(f"{name}={short(value)}" for name, value in self.fields.items())
        return f"{told}\n{super().note()}" if told else super().note()


class Transient(ActionError):
    """Raised by actions for what may work the next time: `Retry` repeats it by default."""

    code = "transient"

    def __init__(self, message: str = "a passing fault", /, **fields: Any) -> None:
        super().__init__(message, **fields)


class ActionCancelled(ActionError):
    """An action ended by a cancellation that came from nowhere but itself."""

    code = "action-cancelled"


class ActionFailed(ActionError):
    """An action failed on the far side of a wire; carries the original's type, message and traceback (the frames of its own code)."""

    code = "action-failed"
    type: str
    message: str
    remote_traceback: str

    def note(self) -> str:
        """The far side's frames too: they go on where those of the caller end."""
        trace = str(getattr(self, "remote_traceback", "")).rstrip()
        return f"on node {self.node or 'unknown'}:\n{trace}\n{super().note()}" if trace else super().note()


class ForwardFailed(ActionError):
    """A forwarder's other side failed on the event. Retried; after ten attempts the event is a dead letter."""

    code = "forward-failed"


class Undeliverable(ActionError):
    """Raised by a forwarder for an event that the other side will never take: it goes to the dead letters at once."""

    code = "undeliverable"


class RedriveFailed(ActionError):
    """Of several dead letters some couldn't be run again and stay; the others were. `failed`: what each of them raised, by id."""

    code = "redrive-failed"
    failed: Mapping[str, str]


# -- time ran out ----------------------------------------------------------------------------------------------


class OutcomeError(JidoError):
    """Time ran out before an answer came."""

    code = "outcome"


class CallTimeout(OutcomeError, TimeoutError):
    """The caller's patience ended. `uncertain` is False if the call was withdrawn before it began."""

    code = "call-timeout"
    uncertain: bool


class TurnTimeout(OutcomeError, TimeoutError):
    """The action ran longer than `Lifecycle(turn_timeout=…)`: it was cancelled, nothing was committed."""

    code = "turn-timeout"


class OutcomeUnknown(OutcomeError):
    """The call may or may not have taken effect. Repeat it with an idempotency key, or read and decide."""

    code = "outcome-unknown"
    outcome_known = False


# -- the store -------------------------------------------------------------------------------------------------


class StoreError(JidoError):
    """The store can't do what was asked. Nothing was changed unless the type says otherwise."""

    code = "store"


class StoreUnavailable(StoreError):
    """The store doesn't work just now (an I/O error, a lost connection, closed); nothing was written."""

    code = "store-unavailable"


class StoreFull(StoreUnavailable):
    """The disk or the configured size is full; nothing was written."""

    code = "store-full"


class StoreLocked(StoreError):
    """Another process owns the store's file; `pid` says which."""

    code = "store-locked"
    pid: int | None


class StoreVersion(StoreError):
    """The store was written by a newer release, or isn't ours at all."""

    code = "store-version"


class StoreCorrupt(StoreError):
    """The store's file is damaged; nothing was touched."""

    code = "store-corrupt"


class CommitUnknown(StoreError):
    """The commit may have happened: read the record back and look, never guess."""

    code = "commit-unknown"
    outcome_known = False


class Conflict(StoreError):
    """The record's revision isn't the expected one: somebody else wrote it; `actual` is what it is."""

    code = "conflict"
    expected: int
    actual: int


class RowExists(StoreError):
    """A row that had to be new exists already."""

    code = "row-exists"


class StreamConflict(StoreError):
    """The stream's last position isn't the expected one; `actual` is what it is."""

    code = "stream-conflict"
    stream: str
    expected: int
    actual: int


class TooLarge(StoreError, ValueError):
    """A value is larger than a limit; the message names the limit and what grew."""

    code = "too-large"


class RecordUnreadable(StoreError):
    """A stored record or event can't be read (checksum, format, newer version). Its agent stops; nothing is overwritten."""

    code = "record-unreadable"


class StateMismatch(RecordUnreadable):
    """Stored state doesn't fit the class: a field that it lacks, or a type that differs; `field` names it."""

    code = "state-mismatch"
    field: str


class WireTimeout(OutcomeUnknown):
    """No answer came over the wire in time."""

    code = "wire-timeout"


def describe(error: BaseException) -> str:
    """`Type: message`, or the type alone: how an error is told in logs, records and dead letters."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
