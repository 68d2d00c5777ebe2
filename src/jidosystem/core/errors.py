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

from collections.abc import Sequence
from typing import Any, ClassVar


class JidoError(Exception):
    """The root of every error that the platform raises.

    `code` is stable across releases; `outcome_known` says whether the caller may take it that nothing happened.
    """

    code: ClassVar[str] = "JIDO"
    outcome_known: ClassVar[bool] = True

    def __init__(self, message: str, /, **fields: Any) -> None:
        super().__init__(message)
        self.fields: dict[str, Any] = fields
        for name, value in fields.items():
            setattr(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args[0], self.fields)


def _rebuild(cls: type[JidoError], message: str, fields: dict[str, Any]) -> JidoError:
    error = cls.__new__(cls)
    JidoError.__init__(error, message, **fields)
    return error


# -- the program's fault ---------------------------------------------------------------------------------------


class UsageError(JidoError):
    """The call can never succeed as it is written."""

    code = "USAGE"


class DefinitionError(UsageError):
    """An agent class that can't be: the message names the class, the member and what to write instead."""

    code = "DEFINITION"


class InvalidKey(UsageError, ValueError):
    """A key is 1 to 512 bytes of UTF-8 without control characters."""

    code = "INVALID_KEY"


class InvalidArguments(UsageError, TypeError):
    """An argument doesn't fit its type hint, or can't be carried; `path` says which one (`$.data.region`)."""

    code = "INVALID_ARGUMENTS"
    path: str


class InvalidResult(UsageError, TypeError):
    """An action returned what can't be carried; the turn is rolled back."""

    code = "INVALID_RESULT"


class NotAnAction(UsageError, AttributeError):
    """A reference has actions only: fields and other methods live in the agent."""

    code = "NOT_AN_ACTION"


class NoPlatform(UsageError):
    """The agent was made by hand, without a platform, and has nobody to call."""

    code = "NO_PLATFORM"


class NotYetAvailable(UsageError):
    """A part of the contract that a later release brings; nothing is accepted and ignored."""

    code = "NOT_YET_AVAILABLE"


class NoHost(UsageError):
    """No node hosts the agent's type, or none a version new enough for its record."""

    code = "NO_HOST"


class ReadOnlyTurn(UsageError):
    """A read-only action tried to change durable state or to cause an effect."""

    code = "READ_ONLY_TURN"


class OutsideTurn(UsageError):
    """An effect was asked for by code that no running turn of this agent stands behind."""

    code = "OUTSIDE_TURN"


class StateChangedOutsideTurn(UsageError):
    """Checking mode: durable fields changed between two turns; `names` lists them."""

    code = "STATE_CHANGED_OUTSIDE_TURN"
    names: Sequence[str]


class CallCycle(UsageError):
    """A chain of calls came back to an agent in mid-turn; `chain` names it, first caller first."""

    code = "CALL_CYCLE"
    chain: Sequence[str]


class IdempotencyConflict(UsageError):
    """The key was used before with another action or other arguments."""

    code = "IDEMPOTENCY_CONFLICT"


class InvalidConfig(UsageError, ValueError):
    """A config value is refused; `path`, `value` and `allowed` say which, what and why. What ran keeps running."""

    code = "INVALID_CONFIG"
    path: str
    value: Any
    allowed: str


class InvalidPattern(UsageError, ValueError):
    """An event type or a pattern of event types that can't be."""

    code = "INVALID_PATTERN"


class ScaffoldError(UsageError):
    """`jido new` or `jido generate` can't make what it was asked for; nothing was left behind."""

    code = "scaffold"


# -- refused for now, nothing has happened ---------------------------------------------------------------------


class RefusedError(JidoError):
    """The platform declines for now; the request had no effect and may be repeated later."""

    code = "REFUSED"


class MailboxFull(RefusedError):
    """The agent has `limit` messages waiting, or this one was dropped in favour of a newer one."""

    code = "MAILBOX_FULL"


class OutboxFull(RefusedError):
    """The agent has `agents.max_pending_effects` effects that nobody has taken yet."""

    code = "OUTBOX_FULL"


class BulkheadFull(RefusedError):
    """Too many turns of this agent type run and wait on this node."""

    code = "BULKHEAD_FULL"


class CircuitOpen(RefusedError):
    """The agent's circuit breaker is open; `retry_after_s` says for how long."""

    code = "CIRCUIT_OPEN"
    retry_after_s: float


class IdempotencyFull(RefusedError):
    """The agent remembers `agents.idempotency_max_keys` keys; a new keyed call would have to forget one."""

    code = "IDEMPOTENCY_FULL"


class ShuttingDown(RefusedError):
    """The platform is closing and takes no new work."""

    code = "SHUTTING_DOWN"


class AgentFailed(RefusedError):
    """The agent crashed more often than its supervision allows; `cause` says how. `agents.restart` ends that."""

    code = "AGENT_FAILED"
    cause: str


class AgentCrashed(RefusedError):
    """The agent's activation couldn't be made or go on; the next call tries again."""

    code = "AGENT_CRASHED"
    cause: str


class DeadLettersFull(RefusedError):
    """There are `limit` (`events.max_dead_letters`) dead letters; what fails stays where it is until some are redriven or cleared."""

    code = "DEAD_LETTERS_FULL"
    limit: int


class ForwardUnavailable(RefusedError):
    """A forwarder's other side is away or busy. Retried without end; `retry_after_s` is its own word for when, 0 if it gave none."""

    code = "FORWARD_UNAVAILABLE"
    retry_after_s: float


class NodeUnreachable(RefusedError):
    """Nobody serves the address; nothing was sent."""

    code = "NODE_UNREACHABLE"


class InvalidFrame(RefusedError, ValueError):
    """Bytes that came over a wire are no frame of ours: damaged, of another version, or none at all. Nothing was done."""

    code = "INVALID_FRAME"


# -- the agent's own code --------------------------------------------------------------------------------------


class ActionError(JidoError):
    """The agent's own code refused or failed; its turn was rolled back."""

    code = "ACTION"


class Rejected(ActionError):
    """An expected refusal, raised by actions: `raise Rejected("payment_failed")`. No breaker or supervisor counts it."""

    code = "REJECTED"

    def __init__(self, reason: str, /, **fields: Any) -> None:
        super().__init__(reason, **fields)

    @property
    def reason(self) -> str:
        """The word that it was raised with."""
        return str(self.args[0])


class Transient(ActionError):
    """Raised by actions for what may work the next time: `Retry` repeats it by default."""

    code = "TRANSIENT"

    def __init__(self, message: str = "a passing fault", /, **fields: Any) -> None:
        super().__init__(message, **fields)


class ActionCancelled(ActionError):
    """An action ended by a cancellation that came from nowhere but itself."""

    code = "ACTION_CANCELLED"


class ActionFailed(ActionError):
    """An action failed on the far side of a wire; carries the original's type, message and traceback."""

    code = "ACTION_FAILED"
    type: str
    message: str
    remote_traceback: str


class ForwardFailed(ActionError):
    """A forwarder's other side failed on the event. Retried; after ten attempts the event is a dead letter."""

    code = "FORWARD_FAILED"


class Undeliverable(ActionError):
    """Raised by a forwarder for an event that the other side will never take: it goes to the dead letters at once."""

    code = "UNDELIVERABLE"


# -- time ran out ----------------------------------------------------------------------------------------------


class OutcomeError(JidoError):
    """Time ran out before an answer came."""

    code = "OUTCOME"


class CallTimeout(OutcomeError, TimeoutError):
    """The caller's patience ended. `uncertain` is False if the call was withdrawn before it began."""

    code = "CALL_TIMEOUT"
    uncertain: bool


class TurnTimeout(OutcomeError, TimeoutError):
    """The action ran longer than `Lifecycle(turn_timeout=…)`: it was cancelled, nothing was committed."""

    code = "TURN_TIMEOUT"


class OutcomeUnknown(OutcomeError):
    """The call may or may not have taken effect. Repeat it with an idempotency key, or read and decide."""

    code = "OUTCOME_UNKNOWN"
    outcome_known = False


# -- the store -------------------------------------------------------------------------------------------------


class StoreError(JidoError):
    """The store can't do what was asked. Nothing was changed unless the type says otherwise."""

    code = "STORE"


class StoreUnavailable(StoreError):
    """The store doesn't work just now (an I/O error, a lost connection, closed); nothing was written."""

    code = "STORE_UNAVAILABLE"


class StoreFull(StoreUnavailable):
    """The disk or the configured size is full; nothing was written."""

    code = "STORE_FULL"


class StoreLocked(StoreError):
    """Another process owns the store's file; `pid` says which."""

    code = "STORE_LOCKED"
    pid: int | None


class StoreVersion(StoreError):
    """The store was written by a newer release, or isn't ours at all."""

    code = "STORE_VERSION"


class StoreCorrupt(StoreError):
    """The store's file is damaged; nothing was touched."""

    code = "STORE_CORRUPT"


class CommitUnknown(StoreError):
    """The commit may have happened: read the record back and look, never guess."""

    code = "COMMIT_UNKNOWN"
    outcome_known = False


class Conflict(StoreError):
    """The record's revision isn't the expected one: somebody else wrote it; `actual` is what it is."""

    code = "CONFLICT"
    expected: int
    actual: int


class RowExists(StoreError):
    """A row that had to be new exists already."""

    code = "ROW_EXISTS"


class StreamConflict(StoreError):
    """The stream's last position isn't the expected one; `actual` is what it is."""

    code = "STREAM_CONFLICT"
    stream: str
    expected: int
    actual: int


class TooLarge(StoreError, ValueError):
    """A value is larger than a limit; the message names the limit and what grew."""

    code = "TOO_LARGE"


class RecordUnreadable(StoreError):
    """A stored record or event can't be read (checksum, format, newer version). Its agent stops; nothing is overwritten."""

    code = "RECORD_UNREADABLE"


class StateMismatch(RecordUnreadable):
    """Stored state doesn't fit the class: a field that it lacks, or a type that differs; `field` names it."""

    code = "STATE_MISMATCH"
    field: str


class WireTimeout(OutcomeUnknown):
    """No answer came over the wire in time."""

    code = "WIRE_TIMEOUT"


def describe(error: BaseException) -> str:
    """`Type: message`, or the type alone: how an error is told in logs, records and dead letters."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
