"""What users write: decorators for actions and hooks, and how a class becomes an `AgentType`, checked when it is made.

A mistake in a definition is a `DefinitionError` raised by the `class` statement itself, naming the class and the member.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import typing
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from ..core.blame import about, called, member_with, users_line
from ..core.checks import refuses_one
from ..core.errors import DefinitionError, InvalidArguments, InvalidPattern, NoHost, NotYetAvailable
from ..core.events import Event, matcher
from ..core.ids import check_type_name
from ..core.keys import lane_path
from ..core.near import near
from ..core.restarts import Supervision
from .blocks import LATER, Lifecycle, Mailbox, Resilience
from .boundary import Signature
from .effects import refuse_assignment
from .sensor import SensorSpec
from .state import Field, StateCodec, check_carried, check_default, collect_fields, setter_of_defaults

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

_BLOCKS: dict[str, type] = {"lifecycle": Lifecycle, "mailbox": Mailbox, "resilience": Resilience, "supervision": Supervision}


@dataclass(frozen=True, slots=True)
class ActionOptions:
    """What `@action` was given."""

    readonly: bool = False
    copy: bool = True


@dataclass(frozen=True, slots=True)
class EventOptions:
    """What `@on_event` was given."""

    pattern: str
    key: str | Callable[[Event], str | Iterable[str] | None]
    batch: int | None
    start: str | int
    max_attempts: int


@overload
def action(function: Callable[Concatenate[S, P], Coroutine[Any, Any, R]], /) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]: ...
@overload
def action(function: Callable[Concatenate[S, P], R], /) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]: ...
@overload
def action(*, readonly: bool = False, copy: bool = True, requires: str | None = None) -> _ActionDecorator: ...
def action(function: Callable[..., Any] | None = None, /, *, readonly: bool = False, copy: bool = True, requires: str | None = None) -> Any:
    """Make a method an action: one request that runs as one turn. `@action` or `@action(…)`. `async def` runs on the event loop, `def` in a
    worker thread; both are awaited by whoever calls them. Every parameter and the result need a type hint.

    - `readonly=True`: runs beside other read-only actions of its agent; changing a field or causing an effect is `ReadOnlyTurn`
    - `copy=False`: arguments and results cross within this process as they are, of any type; the author answers for nobody changing them
    - `requires=`: comes with the security layer: `NotYetAvailable`

    Raises `DefinitionError` for generators, `*args`, `**kwargs`, positional-only parameters, and a name that `Agent` itself has.
    """
    options = ActionOptions(readonly=readonly, copy=copy)

    def decorate(method: Any) -> Any:
        with users_line:
            return _mark_action(method, options)

    with users_line:
        if requires is not None:
            raise NotYetAvailable("@action(requires=…) comes with the security layer; leave it out for now")
        return decorate if function is None else _mark_action(function, options)


class _ActionDecorator(typing.Protocol):
    @overload
    def __call__(self, function: Callable[Concatenate[S, P], Coroutine[Any, Any, R]], /) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[S, P], R], /) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]: ...


def _mark_action(function: Any, options: ActionOptions) -> Any:
    if not inspect.isfunction(function):
        raise DefinitionError(f"@action decorates methods, not {function!r}")
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise DefinitionError(f"{function.__qualname__}: an action returns one result, it can't yield; emit events for more")
    function = _awaited(function)
    function.__jido_action__ = options
    return function


def _awaited(function: Any) -> Any:
    """An `async def` as it is; a `def` as a coroutine function that runs it in a worker thread."""
    if inspect.iscoroutinefunction(function):
        return function

    @functools.wraps(function)
    async def in_thread(self: Any, *args: Any, **kwargs: Any) -> Any:
        run = getattr(self, "_run_in_thread", None) or asyncio.to_thread
        return await run(function, self, *args, **kwargs)

    in_thread.__jido_sync__ = function  # type: ignore[attr-defined]
    return in_thread


def _mark(name: str, function: Any, value: Any = True) -> Any:
    if not inspect.isfunction(function):
        raise DefinitionError(f"@{name.removeprefix('__jido_').removesuffix('__')} decorates methods, not {function!r}")
    function = function if name == "__jido_on_load__" else _awaited(function)
    setattr(function, name, value)
    return function


def on_start(function: F) -> F:
    """`async def f(self)` or `def`: runs when an activation begins, as a turn: what it changes is committed. What it raises is a crash."""
    with users_line:
        marked: F = _mark("__jido_on_start__", function)
        return marked


def on_terminate(function: F) -> F:
    """`async def f(self)` or `def`: runs as a last turn when the agent stops, is passivated or its platform closes; not after a crash, so
    nothing may depend on it.
    """
    with users_line:
        marked: F = _mark("__jido_on_terminate__", function)
        return marked


def on_load(function: F) -> F:
    """`def f(self)`, not async: runs whenever the fields were decoded (activation and roll-back) and for a new agent before `@on_start`.
    Rebuilds transient fields that derive from durable ones.
    """
    with users_line:
        if inspect.iscoroutinefunction(function):
            raise DefinitionError(
                f"{function.__qualname__}: @on_load is a plain def: it rebuilds transient fields and does no I/O; use @on_start for that"
            )
        marked: F = _mark("__jido_on_load__", function)
        return marked


def on_state_change(function: F) -> F:
    """`async def f(self, old, new)` or `def`: runs inside a turn that changed durable fields, after the action and before the commit, with
    both states as dictionaries. It may emit, and may raise, which rolls the turn back. What it changes is committed too; it isn't called
    again.
    """
    with users_line:
        marked: F = _mark("__jido_on_state_change__", function)
        return marked


def on_child_failed(function: F) -> F:
    """`async def f(self, child, error)` or `def`: a turn of the parent when a child has failed for good; `child` is a reference, `error` the
    `AgentFailed`. Without it the parent crashes too (escalation).
    """
    with users_line:
        marked: F = _mark("__jido_on_child_failed__", function)
        return marked


@called("@migrate_state(from_version=1)")
def migrate_state(*, from_version: int) -> Callable[[F], F]:
    """`@staticmethod` above it; `def f(state: dict) -> dict`: turns the stored fields of `from_version`, as plain builtins, into the next
    version's. Migrations chain, run when an agent is activated, and are stored with its next change. What one raises, or returns that
    doesn't fit, is `StateMismatch`.
    """

    def mark(function: F) -> F:
        target: Any = getattr(function, "__func__", function)
        target.__jido_migrates__ = from_version
        return function

    return mark


@called('@on_event("order.*", key="data.customer")')
def on_event(
    pattern: str,
    *,
    key: str | Callable[[Event], str | Iterable[str] | None],
    batch: int | None = None,
    start: str | int = "beginning",
    max_attempts: int = 5,
) -> Callable[[F], F]:
    """A durable subscription of the agent type, named `type.method`: `async def f(self, event)` handles each event whose type fits the
    pattern, once per agent, in log order per key.

    - `key`: whose event it is: a path into the event (`"data.region"`, `"subject"`, `"metadata.tenant"`) or a function of the event that
      returns a key, several, or None. What the path doesn't find is nobody's; a value that is no text, or a function that raises, makes the
      event a dead letter
    - `batch=100`: the method takes `list[Event]`, up to so many at a time: one turn, one commit. Under load lists fill up: while 16
      deliveries of a subscription are younger than 0.1 s, keys with less than a whole batch wait for one of them
    - `start`: where the subscription begins when it is first registered: "beginning", "new" or a position
    - `max_attempts`: failures after which the event is a dead letter and the key goes on

    Raises `InvalidPattern`, `DefinitionError`.
    """
    _check_event_options(pattern, key, batch, start, max_attempts)
    options = EventOptions(pattern, key, batch, start, max_attempts)

    def decorate(function: F) -> F:
        with users_line:
            marked: F = _mark("__jido_on_event__", function, options)
            return marked

    return decorate


def _check_event_options(pattern: object, key: object, batch: object, start: object, max_attempts: object) -> None:
    try:
        matcher(pattern)  # type: ignore[arg-type]
    except InvalidPattern as error:
        raise InvalidPattern(f"@on_event: {error}") from None
    if batch is not None and (isinstance(batch, bool) or not isinstance(batch, int) or batch < 1):
        raise DefinitionError(f"@on_event(batch={batch!r}): a whole number, at least 1")
    if isinstance(max_attempts, bool) or not isinstance(max_attempts, int) or max_attempts < 1:
        raise DefinitionError(f"@on_event(max_attempts={max_attempts!r}): a whole number, at least 1")
    if not (start in ("beginning", "new") or (isinstance(start, int) and not isinstance(start, bool) and start >= 0)):
        raise DefinitionError(f'@on_event(start={start!r}): "beginning", "new" or a position{near(start, ("beginning", "new"))}')
    if not (isinstance(key, str) and key) and not callable(key):
        raise DefinitionError(f"@on_event(key={key!r}): a path into the event or a function of it")
    if isinstance(key, str):
        try:
            lane_path(key)
        except InvalidArguments as error:
            raise DefinitionError(f"@on_event(key={key!r}): {error}") from None
    elif inspect.iscoroutinefunction(key):
        raise DefinitionError(f"@on_event(key={key!r}): a plain function of the event, no coroutine function")
    elif refusal := refuses_one(key):
        raise DefinitionError(f"@on_event(key={key!r}): it is called with the event alone: {refusal}")


DELETE = "delete"
"""What a deleted agent casts to its children. No action can have the name: every agent has a member `Agent.delete`."""


async def _delete(agent: Any) -> None:
    agent.delete()


class ActionSpec:
    """One action of an agent type, compiled."""

    __slots__ = ("agent_type", "copy", "function", "internal", "name", "readonly", "signature", "threaded", "wants_missed")

    def __init__(self, name: str, function: Callable[..., Coroutine[Any, Any, Any]], signature: Signature, options: ActionOptions) -> None:
        self.name: str = name
        self.function: Callable[..., Coroutine[Any, Any, Any]] = function
        self.signature: Signature = signature
        self.readonly: bool = options.readonly
        self.copy: bool = options.copy
        self.threaded: bool = hasattr(function, "__jido_sync__")  # its code runs in a worker thread
        self.wants_missed: bool = "missed" in signature.names
        self.internal: bool = False
        self.agent_type: AgentType


class AgentType:
    """Everything the platform knows of an agent class."""

    __slots__ = (
        "actions", "cls", "codec", "deletion", "description", "events", "hook_change", "hook_child_failed", "hook_load", "hook_start",
        "hook_terminate", "lifecycle", "mailbox", "migrations", "name", "reader", "reset_transients", "resident", "resilience",
        "senses", "sensors", "supervision", "transients", "version",
    )  # fmt: skip

    def __init__(self, cls: type, name: str, version: int, resident: bool, members: frozenset[str], fields: Mapping[str, Field]) -> None:
        self.cls: type = cls
        self.name: str = name
        self.version: int = version
        self.description: str = inspect.cleandoc(cls.__doc__ or "")
        self.codec: StateCodec = StateCodec(name, version, fields)
        self.transients: tuple[Field, ...] = tuple(f for f in fields.values() if f.name.startswith("_") and f.has_default)
        self.reset_transients: Callable[[Any], None] = setter_of_defaults(self.transients)
        self.lifecycle: Lifecycle = getattr(cls, "lifecycle", None) or Lifecycle()
        self.mailbox: Mailbox = getattr(cls, "mailbox", None) or Mailbox()
        self.resilience: Resilience = getattr(cls, "resilience", None) or Resilience()
        self.supervision: Supervision | None = getattr(cls, "supervision", None)
        self.actions: dict[str, ActionSpec] = {}
        self.events: dict[str, tuple[ActionSpec, EventOptions]] = {}
        self.sensors: dict[str, SensorSpec] = {}
        self.migrations: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
        self.deletion: ActionSpec = self._internal(DELETE, _delete)
        self.hook_start: ActionSpec | None = None
        self.hook_terminate: ActionSpec | None = None
        self.hook_load: Callable[[Any], None] | None = None
        self.hook_change: Callable[..., Coroutine[Any, Any, None]] | None = None
        self.hook_child_failed: ActionSpec | None = None
        self._collect_members(members)
        self._collect_sensors(members)
        self.senses: bool = any(sensor.options.http is None for sensor in self.sensors.values())
        """Whether its agents have work that nobody brings them: they live uncalled. A request finds its agent by itself."""
        self.resident: bool = resident or self.senses
        self._check_migrations()
        self.reader: type = _make_reader(cls, self.codec.names)

    def _collect_members(self, members: frozenset[str]) -> None:
        for name in dir(self.cls):
            member = inspect.getattr_static(self.cls, name)
            function = member.__func__ if isinstance(member, staticmethod) else member
            if inspect.isfunction(function):
                with about(name):
                    self._collect_member(name, member, function, members)

    def _collect_member(self, name: str, member: Any, function: Any, members: frozenset[str]) -> None:
        where = f"{self.cls.__name__}.{name}"
        if (options := getattr(function, "__jido_action__", None)) is not None:
            if name in members:
                raise DefinitionError(f"{where}: an action can't be named {name!r}: every agent has a member `Agent.{name}`")
            self.actions[name] = self._spec(name, function, where, options)
        if (event := getattr(function, "__jido_on_event__", None)) is not None:
            _check_takes(where, function, 1)
            _check_batch(where, function, self.cls, event.batch)
            self.events[name] = (self._internal(name, function), event)
        if (from_version := getattr(function, "__jido_migrates__", None)) is not None:
            if not isinstance(member, staticmethod):
                raise DefinitionError(f"{where}: a migration is a @staticmethod of a dict: there is no agent yet")
            if from_version in self.migrations:
                raise DefinitionError(f"{where}: a second @migrate_state(from_version={from_version})")
            self.migrations[from_version] = function
        self._collect_hook(name, function)

    def _collect_sensors(self, members: frozenset[str]) -> None:
        for name in dir(self.cls):
            function = inspect.getattr_static(self.cls, name)
            if inspect.isfunction(function) and (options := getattr(function, "__jido_sensor__", None)) is not None:
                where = f"{self.cls.__name__}.{name}"
                with about(name):
                    if name in members:
                        raise DefinitionError(f"{where}: a sensor can't be named {name!r}: every agent has a member `Agent.{name}`")
                    self.sensors[name] = SensorSpec(self, name, function, options, _hints_of(function, where, self.cls))

    def _collect_hook(self, name: str, function: Any) -> None:
        for mark, attribute, takes in (
            ("__jido_on_start__", "hook_start", 0),
            ("__jido_on_terminate__", "hook_terminate", 0),
            ("__jido_on_load__", "hook_load", 0),
            ("__jido_on_state_change__", "hook_change", 2),
            ("__jido_on_child_failed__", "hook_child_failed", 2),
        ):
            if hasattr(function, mark):
                _check_takes(f"{self.cls.__name__}.{name}", function, takes)
                if getattr(self, attribute) is not None:
                    raise DefinitionError(
                        f"{self.cls.__name__}.{name}: a second @{mark.removeprefix('__jido_').removesuffix('__')}; an agent has one"
                    )
                turn = attribute in ("hook_start", "hook_terminate", "hook_child_failed")
                setattr(self, attribute, self._internal(name, function) if turn else function)

    def _spec(self, name: str, function: Any, where: str, options: ActionOptions) -> ActionSpec:
        hints = _hints_of(function, where, self.cls)
        for parameter in list(inspect.signature(function).parameters.values())[1:]:
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise DefinitionError(f"{where}: parameter {parameter.name!r}: actions have named parameters only, no *args, **kwargs or '/'")
            if parameter.name not in hints:
                raise DefinitionError(f"{where}: parameter {parameter.name!r} needs a type hint")
            if options.copy:
                check_carried(f"{where}: parameter {parameter.name!r}", hints[parameter.name])
        if "return" not in hints:
            raise DefinitionError(f"{where}: the result needs a type hint, `-> None` if there is none")
        if options.copy:
            check_carried(f"{where}: the result", hints["return"])
        spec = ActionSpec(name, function, Signature(f"{self.name}.{name}", function, hints), options)
        spec.agent_type = self
        return spec

    def _internal(self, name: str, function: Any) -> ActionSpec:
        """A turn that the platform starts itself, with arguments of its own: no hints are asked for."""
        hints: dict[str, Any] = dict.fromkeys(inspect.signature(function).parameters, Any)
        spec = ActionSpec(name, function, Signature(f"{self.name}.{name}", function, {**hints, "return": Any}), ActionOptions(copy=False))
        spec.agent_type = self
        spec.internal = True
        return spec

    def _check_migrations(self) -> None:
        for version, function in self.migrations.items():
            if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version < self.version:
                with about(function.__name__):
                    raise DefinitionError(
                        f"{self.cls.__name__}: @migrate_state(from_version={version!r}) leads nowhere: the class is version {self.version}"
                    )

    def no_action(self, name: str, agent: str, so: str) -> NoHost:
        """The error for an action that something stored asks for and the class lacks, perhaps because it was renamed."""
        return NoHost(f"{self.name} has no action {name!r} (any more){near(name, self.actions)}; {so}", agent=agent)

    def receiving(self, name: str) -> ActionSpec | None:
        """What takes deliveries of a name: an action, an `@on_event` method, or what takes the items of a sensor."""
        if name in self.events:
            return self.events[name][0]
        found = self.actions.get(name)
        return found or next((sensor.action for sensor in self.sensors.values() if sensor.action.name == name), None)

    def new_instance(self) -> Any:
        """An agent with every field at its default."""
        instance: Any = object.__new__(self.cls)
        self.codec.reset(instance)
        if self.transients:
            self.reset_transients(instance)
        return instance

    def blank_instance(self) -> Any:
        """An agent whose durable fields are yet to be decoded."""
        instance: Any = object.__new__(self.cls)
        self.reset_transients(instance)
        return instance


def _check_takes(where: str, function: Any, count: int) -> None:
    """`DefinitionError` unless a hook can be called with so many arguments beside self."""
    try:
        inspect.signature(function).bind(None, *(None,) * count)
    except TypeError as error:
        taken = f"{count} argument{'s' * (count != 1)} beside self"
        raise DefinitionError(f"{where}{inspect.signature(function)}: the platform calls it with {taken}: {error}") from None


def _check_batch(where: str, function: Any, cls: type, batch: int | None) -> None:
    """`DefinitionError` if the hint of a handler of events contradicts `batch=`; one that can't be resolved is left alone."""
    try:
        hints = _hints_of(function, where, cls)
    except DefinitionError:
        return
    _, *parameters = inspect.signature(function).parameters
    hint = hints.get(parameters[0]) if parameters else None
    if batch is not None and hint is Event:
        raise DefinitionError(f"{where}: with batch={batch} it is given a list[Event], not an Event")
    if batch is None and (hint is list or typing.get_origin(hint) is list):
        raise DefinitionError(f"{where}: it is given one Event at a time; for a list of them say @on_event(…, batch=100)")


def _make_reader(cls: type, names: tuple[str, ...]) -> type:
    """The class that read-only turns see: the same object's attributes, but durable ones can't be assigned."""
    durable = frozenset(names)

    def __setattr__(self: Any, name: str, value: Any) -> None:
        if name in durable:
            refuse_assignment(self, name)
        object.__setattr__(self, name, value)

    def __delattr__(self: Any, name: str) -> None:
        if name in durable:
            refuse_assignment(self, name)
        object.__delattr__(self, name)

    # type() directly: the reader is no agent class of its own, __init_subclass__ must not see it.
    namespace = {
        "__setattr__": __setattr__,
        "__delattr__": __delattr__,
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__jido_reader__": True,
    }
    make: Callable[..., type] = type(cls)
    return make(cls.__name__, (cls,), namespace)


def _hints_of(function: Any, where: str, cls: type) -> dict[str, Any]:
    target = getattr(function, "__jido_sync__", function)
    try:
        return typing.get_type_hints(target, localns={cls.__name__: cls, **_caller_locals()}, include_extras=True)
    except NameError as error:
        raise DefinitionError(f"{where}: a type hint can't be resolved: {error}; import the name at module level, not under TYPE_CHECKING") from error


def _caller_locals() -> dict[str, Any]:
    """The names visible where the class statement stands, so that hints may name local classes."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("jidosystem.runtime"):
        frame = frame.f_back  # type: ignore[assignment]
    return dict(frame.f_locals) if frame is not None else {}


def define(cls: type, name: str | None, version: int, resident: bool, members: frozenset[str]) -> AgentType:
    """Compile an agent class; `members` are the names that `Agent` itself has."""
    if "__init__" in cls.__dict__:
        with about("__init__"):
            raise DefinitionError(f"{cls.__name__}: don't override __init__: fields have defaults, and @on_start runs when an activation begins")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise DefinitionError(f"{cls.__name__}: version={version!r}: a whole number, at least 1")
    if not isinstance(resident, bool):
        raise DefinitionError(f"{cls.__name__}: resident={resident!r}: True or False")
    try:
        hints = typing.get_type_hints(cls, localns={cls.__name__: cls, **_caller_locals()}, include_extras=True)
    except (NameError, TypeError) as error:
        with about(member_with(cls, getattr(error, "name", None)) or ""):
            raise DefinitionError(f"{cls.__name__}: a type hint of a field can't be resolved: {error}; import the name at module level") from error
    _check_blocks(cls)
    inherited: dict[str, Field] = {}
    for base in reversed(cls.__mro__[1:]):
        definition = base.__dict__.get("__jido_fields__")
        if definition:
            inherited.update(definition)
    fields = collect_fields(cls, hints, inherited)
    cls.__jido_fields__ = fields  # type: ignore[attr-defined]
    for field in fields.values():
        with about(field.name):
            if field.name in members:
                raise DefinitionError(
                    f"{cls.__name__}.{field.name}: a field can't be named {field.name!r}: every agent has a member `Agent.{field.name}`"
                )
            if not field.name.startswith("_"):
                check_carried(f"{cls.__name__}.{field.name}", field.hint)
                check_default(f"{cls.__name__}.{field.name}", field)
    type_name = check_type_name(cls.__name__ if name is None else name)
    if type_name.startswith("jido.") and not cls.__module__.startswith("jidosystem."):
        raise DefinitionError(f"{cls.__name__}: names that begin with 'jido.' are the platform's own; choose another than {type_name!r}")
    return AgentType(cls, type_name, version, resident, members, fields)


def _check_blocks(cls: type) -> None:
    given = {name: value for base in reversed(cls.__mro__) for name, value in base.__dict__.items()}  # a mixin may bring one
    for name, value in given.items():
        with about(name):
            if name in LATER and not inspect.isfunction(value):
                raise NotYetAvailable(f"{cls.__name__}.{name}: the `{name}` block comes with {LATER[name]}; leave it out for now")
            if name in _BLOCKS and not isinstance(value, _BLOCKS[name]):
                raise DefinitionError(f"{cls.__name__}.{name} must be a {_BLOCKS[name].__name__}, not {value!r}")
            for block, kind in _BLOCKS.items():
                if isinstance(value, kind) and name != block and not name.startswith("_"):
                    raise DefinitionError(f"{cls.__name__}.{name}: a {kind.__name__} has an effect only as `{block} = {kind.__name__}(…)`")
