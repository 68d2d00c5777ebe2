"""`Agent`: the class that users derive from. A plain Python class that also works without any platform."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import field
from datetime import datetime
from typing import Any, ClassVar, TypeVar, TypeVarTuple, Unpack, dataclass_transform, overload

from ..core.blame import blame, place_of
from ..core.carried import culprit
from ..core.clock import utc_from
from ..core.codec import NOT_CARRIED, plain
from ..core.errors import DefinitionError, InvalidArguments, NoPlatform, NotYetAvailable, OutsideTurn, UsageError
from ..core.events import MAX_STREAM_CHARS, Event, check_event_type
from ..core.ids import Ids, check_key, is_unicode
from ..core.logs import logger
from ..core.near import near_or_all
from ..core.schedule import first_due, make_schedule
from ..core.shown import short, table
from ..core.traces import leave
from . import calls
from .boundary import is_immutable
from .definition import AgentType, define
from .effects import CastEffect, Effects, Reminder, Timer, bound_action_name, encode_named
from .reference import Ref, by_name, target_of
from .turn import Turn, current_turn

A = TypeVar("A", bound="Agent")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")

_loose_ids = Ids("loose")


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
class Agent:
    """The class to derive from: a long-lived, stateful, addressable object. In the `class` statement, `class Counter(Agent, name="counter")`:

    - `name=`: the agent type's name, by default the class's: letters, digits, `_`, `.`, `-`, at most 128. It is part of every address:
      renaming the class without it makes other agents
    - `version=1`: of the state; see `migrate_state`
    - `resident=False`: True: activated when the platform starts, and not passivated. So is every type with a `sensor` that doesn't wait for
      requests

    Annotated class attributes are *durable fields*, by the rules of dataclasses; each needs a default. Names that begin with `_` are
    *transient*: never stored, at their defaults in a new activation. A field, parameter or result may be of any type that the codec
    carries: None, bool, int (64 bits), float, str, bytes, list, tuple, set, frozenset, dict, `datetime` and its kin, `Decimal`, `UUID`,
    enums, dataclasses, `TypedDict`, `NamedTuple`, `msgspec.Struct`, pydantic models, unions and `Any` of these.

    The `class` statement raises `DefinitionError`, naming class and member, for whatever can't be: a field without a default, with a shared
    mutable default, of a type that can't be stored, or named like a member of `Agent`; an overridden `__init__`; an action without type
    hints; a wrong block. `NotYetAvailable`: the blocks `capabilities`, `resources`, `scaling`, `observability`, and `isolation=`.

    Made by hand, `Counter(value=3)` is a plain object for tests: keyword arguments set fields, actions run as they are, and `effects` holds
    what they asked for.
    """

    # No slots: an instance with them has a dictionary of its own on Python 3.13, 230 bytes more for each agent.
    __jido_type__: ClassVar[AgentType]
    _jido: Any

    def __init_subclass__(cls, *, name: str | None = None, version: int = 1, resident: bool = False, **kwargs: Any) -> None:
        if "__jido_reader__" in cls.__dict__:
            return
        super().__init_subclass__()
        try:
            if "isolation" in kwargs:
                raise NotYetAvailable(f"class {cls.__name__}(isolation=…) comes with worker processes; leave it out for now")
            for option in kwargs:
                given = near_or_all(option, ("name", "version", "resident"), "an agent class takes")
                raise DefinitionError(f"class {cls.__name__}({option}=…): there is no such option{given}")
            cls.__jido_type__ = define(cls, name, version, resident, _MEMBERS)
        except UsageError as error:
            blame(error, place_of(cls, error.fields.pop("member", None)))
            raise

    def __init__(self, **fields: Any) -> None:
        kind = type(self).__jido_type__
        kind.codec.reset(self)
        kind.reset_transients(self)
        for name, value in fields.items():
            if name not in kind.codec.names and name not in (f.name for f in kind.transients):
                told = f"{kind.name} has no field {name!r}{near_or_all(name, kind.codec.names, 'it has')}"
                raise InvalidArguments(told, path=f"$.{name}", agent_type=kind.name)
            setattr(self, name, value)
        self._jido = _Loose()
        if kind.hook_load is not None:
            kind.hook_load(self)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={short(value)}" for name, value in self._shown())
        return f"{self._title()}({fields})"

    def _repr_html_(self) -> str:
        return table(self._title(), self._shown())

    def _title(self) -> str:
        link = getattr(self, "_jido", None)
        name = type(self).__jido_type__.name
        return name if link is None or isinstance(link, _Loose) else f"{name}/{link.key}"

    def _shown(self) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in type(self).__jido_type__.codec.names if hasattr(self, name)]

    # -- who am I --------------------------------------------------------------------------------------------

    @property
    def key(self) -> str:
        """The agent's key; "" without a platform. References have it too."""
        return str(self._link().key)

    @property
    def ref(self: A) -> A:
        """A reference to this agent, to hand to others. `NoPlatform` without one."""
        activation = self._activation("ref")
        ref: A = activation.host.ref(activation.key)
        return ref

    @property
    def log(self) -> Any:
        """A structured logger that knows node and agent (without a platform the type alone): `self.log.info("what happened", cents=5)`, also
        `debug`, `warning`, `error`, `exception`, `bind`.
        """
        link = self._link()
        if isinstance(link, _Loose):
            return logger("jidosystem").bind(agent=type(self).__jido_type__.name)
        return link.host.node.log.bind(agent=link.address)

    @property
    def effects(self) -> Effects:
        """Without a platform: what the actions called so far have asked for. With one: `OutsideTurn`.

        - `events`: list of `Event`
        - `casts`: list with `to` (an address) and `action` of each
        - `reminders`: dictionary of name to reminder (`action`, `schedule`, `due_s`), None if it was forgotten
        - `timers`: list with `after_s` and `action` of each
        - `children`: list of addresses
        - `restarts`: the children that are to be started again
        - `stopped`, `deleted`: whether `stop` or `delete` was asked for
        """
        link = self._link()
        if isinstance(link, _Loose):
            return link.effects
        raise OutsideTurn(
            f"{link.address}: effects is for agents without a platform; here they are released when the turn commits", agent=link.address
        )

    @property
    def children(self) -> tuple[str, ...]:
        """The addresses (`type/key`) of this agent's children, the oldest first."""
        link = self._link()
        if isinstance(link, _Loose):
            return tuple(link.effects.children)
        stored = tuple(link.extra.children) if link.extra is not None else ()
        turn = current_turn()
        added = turn.effects.children if turn is not None and turn.activation is link and turn.effects is not None else ()
        return stored + tuple(child for child in added if child not in stored)

    @property
    def reminders(self) -> Mapping[str, datetime]:
        """Name and due time (UTC) of this agent's reminders, as they will be once this turn is committed."""
        link = self._link()
        present: dict[str, Reminder | None] = dict(link.extra.reminders) if not isinstance(link, _Loose) and link.extra is not None else {}
        effects = self._pending_effects()
        if effects is not None:
            present.update(effects.reminders)
        return {name: utc_from(reminder.due_s) for name, reminder in present.items() if reminder is not None}

    # -- others ----------------------------------------------------------------------------------------------

    def agent(self, cls: type[A], key: str) -> A:
        """A reference to another agent; no I/O. Raises `InvalidKey`, `NoPlatform`, `NoHost`."""
        node = self._activation("agent").host.node
        ref: A = node.ref_to(cls, key)
        return ref

    @overload
    async def call(
        self,
        action: Callable[[Unpack[Ts]], Coroutine[Any, Any, R]],
        /,
        *arguments: *Ts,
        args: None = None,
        timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> R: ...
    @overload
    async def call(
        self,
        action: Callable[..., Coroutine[Any, Any, R]],
        /,
        *,
        args: Mapping[str, Any],
        timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> R: ...
    async def call(  # type: ignore[misc]  # by name nothing is known of the parameters
        self,
        action: Callable[[Unpack[Ts]], Coroutine[Any, Any, R]],
        /,
        *arguments: *Ts,
        args: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> R:
        """As `Platform.call`, from within a turn: waits until what this agent's earlier turns did is durable, then calls. The other agent's turn
        is its own; it isn't undone if this one fails. `OutsideTurn` in a `def` action, which runs in a thread and can't call.
        """
        node = self._activation("call").host.node
        try:
            ref, spec = target_of(action)
            result: R = await calls.call(ref._host, ref._key, spec, arguments, by_name(spec, arguments, args), timeout, idempotency_key)
        except Exception as error:
            leave(error, node.name)
            raise
        return result

    @overload
    def cast(self, action: Callable[[Unpack[Ts]], Coroutine[Any, Any, Any]], /, *arguments: *Ts, args: None = None) -> None: ...
    @overload
    def cast(self, action: Callable[..., Coroutine[Any, Any, Any]], /, *, args: Mapping[str, Any]) -> None: ...
    def cast(self, action: Callable[[Unpack[Ts]], Coroutine[Any, Any, Any]], /, *arguments: *Ts, args: Mapping[str, Any] | None = None) -> None:  # type: ignore[misc]
        """Send a message with this turn's commit: durable, delivered at least once, applied once, in the order of turns. `OutboxFull` if
        `agents.max_pending_effects` are still on their way.
        """
        ref, spec = target_of(action)
        blob = spec.signature.to_plain(arguments, by_name(spec, arguments, args))
        effects, turn = self._collect("cast")
        effects.casts.append(CastEffect(0, f"{ref._host.type.name}/{ref._key}", spec.name, blob, *_cause(turn)))

    def child(self, cls: type[A], name: str) -> A:
        """A reference to this agent's child of that name; it becomes one with this turn's commit. Its key is `type/key/name` of this agent, so
        `name` holds no "/". Asking again gives the same child. Children stop and are deleted with their parent; a crash of one is the business
        of this agent's `Supervision.strategy`.
        """
        activation = self._activation("child")
        if "/" in name:
            raise InvalidArguments(f"a child's name holds no '/': {name!r}", path="$.name")
        node = activation.host.node
        host = node.host_of(cls)
        key = check_key(f"{activation.host.type.name}/{activation.key}/{check_key(name)}")
        address = host.prefix + key
        if activation.extra is None or address not in activation.extra.children:
            effects, _turn = self._collect("child")
            if address not in effects.children:
                effects.children.append(address)
        ref: A = host.ref(key)
        return ref

    def restart_child(self, child: Agent) -> None:
        """Start a child again once this turn is committed: its crashes are forgiven, and the state "failed" ends. `child` is the reference that
        `child()` or `@on_child_failed` gave. `InvalidArguments` for anybody else.
        """
        given: object = child
        address = f"{given._host.type.name}/{given._key}" if isinstance(given, Ref) else repr(given)
        if address not in self.children:
            raise InvalidArguments(f"{address} is no child of {self._link().address}", path="$.child")
        self._collect("restart_child")[0].restarts.append(address)

    # -- effects ---------------------------------------------------------------------------------------------

    def emit(self, type: str, data: Any = None, *, stream: str | None = None, metadata: Mapping[str, Any] | None = None) -> None:  # noqa: A002 - the contract's name
        """Emit an event with this turn's commit: it is in the log exactly once. `type`: dotted words, else `InvalidPattern`. `data`: what the
        codec carries, taken as it is at this moment, else `InvalidArguments`. `stream`: 1 to 1,000 characters, by default `type/key` of this
        agent.
        """
        check_event_type(type)
        if stream is not None and (not isinstance(stream, str) or not 0 < len(stream) <= MAX_STREAM_CHARS or not is_unicode(stream)):
            raise InvalidArguments(f"stream={stream!r}: a string of valid Unicode, 1 to {MAX_STREAM_CHARS:,} characters", path="$.stream")
        effects, turn = self._collect("emit")
        try:
            taken = data is None or (is_immutable(data) and not hasattr(data, "__dict__") and not isinstance(data, str | tuple))
            carried = data if taken else plain(data)
            carried_metadata = plain(dict(metadata)) if metadata else {}
        except NOT_CARRIED as error:
            path = culprit(data, "$.data", 0)
            raise InvalidArguments(f"the data of event {type!r} can't be carried at {path}: {error}", path=path) from error
        link = self._link()
        if turn is None:
            event = Event(_loose_ids(), type, link.address, link.key, 0.0, carried, stream or link.address, carried_metadata)
        else:
            node, why, address = link.host.node, turn.causality(), link.address
            event = Event(
                node.ids(), type, address, link.key, node.clock.time_s(), carried, stream or address, carried_metadata,
                why.correlation_id, why.causation_id, why.traceparent,
            )  # fmt: skip
        effects.events.append(event)

    def remind(
        self,
        name: str,
        *,
        action: Callable[..., Coroutine[Any, Any, Any]],
        after: float | None = None,
        at: datetime | float | None = None,
        every: float | None = None,
        cron: str | None = None,
        tz: str = "UTC",
        args: Mapping[str, Any] | None = None,
    ) -> None:
        """Set a durable reminder: survives restarts of everything and wakes a passive agent. The same `name` (1 to 200 characters) replaces it.

        - `action`: one of this agent's own, `self.close_day`; if it has a parameter `missed` it is told how many further occurrences went by
        - `after`: once, in so many seconds
        - `at`: once, at an aware `datetime` or at seconds since the epoch; in the past means at once
        - `every`: again and again, each so many seconds (at least 0.001), on a fixed grid; with `after` or `at`: beginning then
        - `cron`, `tz`: by a cron expression of five fields (six: with seconds first) in an IANA time zone
        - `args`: the action's arguments by name

        Exactly one of `after`, `at`, `every`, `cron`, but for those combinations; else `InvalidArguments`, as for `args` that don't fit the
        action's type hints.
        """
        if not isinstance(name, str) or not name or len(name) > 200:
            raise InvalidArguments(f"a reminder's name is a string of 1 to 200 characters: {name!r}", path="$.name")
        if not is_unicode(name):
            raise InvalidArguments(f"a reminder's name must be valid Unicode: {name!r}", path="$.name")
        action_name = bound_action_name(self, action)
        link = self._link()
        now_s, series = (0.0, "") if isinstance(link, _Loose) else (link.host.node.clock.time_s(), link.host.node.ids())
        schedule = make_schedule(after=after, at=at, every=every, cron=cron, tz=tz, now_s=now_s)
        blob = encode_named(type(self).__jido_type__.actions[action_name].signature, args)
        effects, turn = self._collect("remind")
        correlation_id, causation_id, traceparent = _cause(turn)
        effects.reminders[name] = Reminder(
            name, action_name, blob, schedule, first_due(schedule, now_s), 0, correlation_id, traceparent, causation_id, series
        )

    def forget(self, name: str) -> None:
        """Remove a reminder with this turn's commit. No error if there is none of that name."""
        effects, _turn = self._collect("forget")
        effects.reminders[name] = None

    def after(self, seconds: float, action: Callable[..., Coroutine[Any, Any, Any]], /, *, args: Mapping[str, Any] | None = None) -> None:
        """Set a timer: the action runs so many seconds after the commit, in a turn of its own, if the activation still lives. It survives nothing;
        an agent that has one isn't passivated for idleness. `action` is one of this agent's own, `self.flush`; `args` its arguments by name.
        What it raises is told in the log.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
            raise InvalidArguments(f"after({seconds!r}): seconds, 0 or more and less than 1,000,000,000", path="$.seconds")
        name = bound_action_name(self, action)
        blob = encode_named(type(self).__jido_type__.actions[name].signature, args)
        effects, turn = self._collect("after")
        effects.timers.append(Timer(float(seconds), name, blob, *_cause(turn)))

    def stop(self) -> None:
        """Become passive when this turn is committed, after `@on_terminate`. The next call activates it again. In `@on_start`: after the calls
        that have waited for the start.
        """
        self._collect("stop")[0].stopped = True

    def delete(self) -> None:
        """Delete this agent with this turn's commit: state, rows and reminders go, its children are told durably. What the turn casts and emits is
        still delivered. The next call begins from defaults.
        """
        self._collect("delete")[0].deleted = True

    # -- inside ----------------------------------------------------------------------------------------------

    def _link(self) -> Any:
        link = getattr(self, "_jido", None)
        if link is None:
            raise OutsideTurn(f"this {type(self).__jido_type__.name} is no longer live: its activation has ended, nothing that it does counts")
        return link

    def _activation(self, what: str) -> Any:
        link = self._link()
        if isinstance(link, _Loose):
            raise NoPlatform(f"{type(self).__jido_type__.name}().{what} needs a platform: `async with Platform() as platform: platform.agent(...)`")
        return link

    def _collect(self, what: str) -> tuple[Effects, Turn | None]:
        link = self._link()
        if isinstance(link, _Loose):
            return link.effects, None
        turn = current_turn()
        if turn is None or turn.activation is not link:
            raise OutsideTurn(
                f"{link.address}: {what} outside a turn of this agent; do it in an action, before the action returns", agent=link.address
            )
        return turn.collect(what), turn

    def _pending_effects(self) -> Effects | None:
        link = self._link()
        if isinstance(link, _Loose):
            return link.effects
        turn = current_turn()
        return turn.effects if turn is not None and turn.activation is link else None

    async def _run_in_thread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        link = self._link()
        if isinstance(link, _Loose):
            return function(*args, **kwargs)
        return await link.host.node.threads.run(function, *args, **kwargs)


def _cause(turn: Turn | None) -> tuple[str | None, str | None, str | None]:
    """The ids for what a turn causes: correlation, causation, trace."""
    return turn.causality()[:3] if turn is not None else (None, None, None)


class _Loose:
    """What stands behind an agent without a platform."""

    __slots__ = ("effects",)
    key = ""
    address = "loose"

    def __init__(self) -> None:
        self.effects = Effects()


_MEMBERS = frozenset(name for name, _value in inspect.getmembers_static(Agent) if not name.startswith("_")) | {
    "lifecycle", "mailbox", "resilience", "supervision", "capabilities", "resources", "scaling", "observability",
}  # fmt: skip
