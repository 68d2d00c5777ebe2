"""`@sensor`, sources of work: what users write, and how it is checked when their class is made.

A sensor is an async generator of an agent: each value that it yields is one turn's input. Here is what it is; `sensing.py`
runs it. Outside of a platform the method is an ordinary async generator.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from ..core.blame import called
from ..core.checks import check_number
from ..core.codec import NOT_CARRIED, decoder_for, encode
from ..core.errors import DefinitionError, InvalidArguments, InvalidPattern, OutsideTurn, StateMismatch
from ..core.events import check_event_type
from ..core.hooks import KEY, check_path
from ..core.ids import check_key
from ..core.near import near, near_or_all
from ..core.schedule import MAX_TIME_S, MIN_EVERY_S, Cron, make_schedule
from .state import check_carried

if TYPE_CHECKING:
    from .activation import Activation
    from .definition import ActionSpec, AgentType

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., AsyncIterator[Any]])

_WHEN = ("every", "cron", "watch", "http")
_GIVEN = {"every": ("position",), "cron": ("position",), "watch": ("position", "files"), "http": ("position", "request")}
"""What a sensor of each kind may have as parameters."""
_SCALARS = (int, float, str, bytes, bool)


@dataclass(frozen=True, slots=True)
class Item(Generic[T]):
    """What a sensor yields when its source has positions: `data` is the turn's input, `position`, anything that the codec carries, is stored
    in the commit of that turn. None: no position. Frozen.
    """

    data: T
    position: Any = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class SensorOptions:
    """What `@sensor` was given; `kind` is the one of every, cron, watch and http that says when."""

    kind: str
    every: float | None
    cron: Cron | None
    watch: str | None
    http: str | None
    key: str | None
    action: str | None
    event: str | None


@called('@sensor(every=5.0, action="take")')
def sensor(
    *,
    every: float | None = None,
    cron: str | None = None,
    tz: str = "UTC",
    watch: str | None = None,
    http: str | None = None,
    key: str | None = None,
    action: str | None = None,
    event: str | None = None,
) -> Callable[[F], F]:
    """`async def f(self)` with `yield`: a source of work. Each value that it yields is one turn of its agent, durable before the next is asked
    for.

    - `every`: it runs when the agent comes to life, then so many seconds (at least 0.001) after the end of each run
    - `cron`, `tz`: it runs by a cron expression of five fields (six: with seconds first) in an IANA time zone; what was missed comes as one
      run
    - `watch`: it runs when files directly in a folder are new or have changed; relative to the working directory, `{key}` is the agent's.
      Needs the extra `server`
    - `http`: it runs for each request to a path; its segment `{key}`, or else `key`, says whose agent it is
    - `action`: the name of an action of the class that takes one argument: what is yielded, converted to its type hint
    - `event`: the type of the event that is emitted, what is yielded being its data

    One of `every`, `cron`, `watch`, `http`, and one of `action`, `event`. Parameters, all optional and given by name: `position`, what was
    stored with the last turn that had one (None at first, or the parameter's default); with `watch` also `files: list[Path]`; with `http`
    also `request: HttpRequest`. Raises `DefinitionError` for whatever can't be, in the line where it stands or in the `class` statement. A
    path of another sensor is one when the type is hosted; a missing extra is `UsageError` then.
    """
    given = [name for name, value in zip(_WHEN, (every, cron, watch, http), strict=True) if value is not None]
    if len(given) != 1:
        raise DefinitionError(f"@sensor: exactly one of every=, cron=, watch=, http= says when it runs; given: {', '.join(given) or 'none'}")
    if (action is None) == (event is None):
        raise DefinitionError(f"@sensor({given[0]}=…): exactly one of action= and event= says what becomes of an item")
    if tz != "UTC" and cron is None:
        raise DefinitionError(f"@sensor(tz={tz!r}): a time zone is for cron=")
    options = SensorOptions(
        given[0], _checked_every(every), _checked_cron(cron, tz), _checked_watch(watch), _checked_http(http, key), key, action, event
    )
    _check_target(options)

    def mark(function: F) -> F:
        where = getattr(function, "__qualname__", repr(function))
        plain: object = function
        if not inspect.isasyncgenfunction(plain):
            told = "it is no async generator: write `async def` and `yield` each item"
            raise DefinitionError(f"@sensor decorates async generator methods; {where}: {told}")
        if hasattr(plain, "__jido_sensor__"):
            raise DefinitionError(f"{where}: a second @sensor; write a method for each, they may share a third one")
        plain.__jido_sensor__ = options  # type: ignore[attr-defined]
        return function

    return mark


# -- options -----------------------------------------------------------------------------------------------------


def _checked_every(every: object) -> float | None:
    if every is None:
        return None
    check_number("@sensor", "every", every, MIN_EVERY_S, MAX_TIME_S)
    return float(typing.cast("float", every))


def _checked_cron(cron: str | None, tz: str) -> Cron | None:
    if cron is None:
        return None
    try:
        schedule = make_schedule(cron=cron, tz=tz, now_s=0.0)
    except InvalidArguments as error:
        raise DefinitionError(f"@sensor: {error}") from None
    assert isinstance(schedule, Cron)
    return schedule


def _checked_watch(watch: object) -> str | None:
    if watch is not None and (not isinstance(watch, str) or not watch or "\0" in watch):
        raise DefinitionError(f"@sensor(watch={watch!r}): the path of a folder, relative to the working directory; its {KEY} is the agent's")
    return watch


def _checked_http(http: object, key: object) -> str | None:
    if http is None:
        if key is not None:
            raise DefinitionError(f"@sensor(key={key!r}): a key is for http= without {KEY}; other sensors run for every agent of their type")
        return None
    try:
        path = check_path(http)
    except ValueError as error:
        raise DefinitionError(f"@sensor(http={http!r}): {error}") from None
    if (key is None) != (KEY in path):
        how = f'say whose agent it is with {KEY} in the path, or with key="…"' if key is None else f"both {KEY} and key= say whose agent it is"
        raise DefinitionError(f"@sensor(http={http!r}): {how}")
    if key is not None:
        check_key(key)
    return path


def _check_target(options: SensorOptions) -> None:
    if options.event is not None:
        try:
            check_event_type(options.event)
        except InvalidPattern as error:
            raise DefinitionError(f"@sensor(event={options.event!r}): {error}") from None
    elif not isinstance(options.action, str):
        raise DefinitionError(f'@sensor(action={options.action!r}): the name of an action of the same class, for example action="take"')


# -- compiled ----------------------------------------------------------------------------------------------------


class SensorSpec:
    """One sensor of an agent type, compiled. `action` is the turn of each item."""

    __slots__ = ("_position", "action", "function", "name", "options", "parameter", "position_optional", "takes", "view")

    def __init__(self, kind: AgentType, name: str, function: Callable[..., Any], options: SensorOptions, hints: dict[str, Any]) -> None:
        self.name = name
        self.function = function
        self.options = options
        where = f"{kind.cls.__name__}.{name}"
        parameters = inspect.signature(function).parameters
        self.takes = _checked_parameters(where, list(parameters.values())[1:], options.kind)
        self.position_optional = "position" in parameters and parameters["position"].default is not inspect.Parameter.empty
        self._position = _position_decoder(where, hints.get("position", Any))
        self.action = _emitter(kind, name, options.event) if options.event is not None else _target(kind, where, options.action or "")
        self.parameter = self.action.signature.names[0]
        if options.action is not None:
            _check_fits(where, hints, self.action)
        self.view = _view_class(kind.cls, kind.codec.names, name)

    def position_from(self, blob: bytes | msgspec.Raw) -> Any:
        """A stored position as the generator's parameter has it; `StateMismatch` if it doesn't fit."""
        try:
            return self._position.decode(blob)
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            raise StateMismatch(f"the position stored for the sensor {self.name} doesn't fit its parameter: {error}", field="position") from error

    def pack(self, yielded: Any) -> tuple[bytes, bytes | None]:
        """What was yielded as it is stored: the turn's arguments by name, and the position. `InvalidArguments` if it can't be."""
        item = yielded if isinstance(yielded, Item) else Item(yielded)
        arguments = self.action.signature.to_plain((item.data,), {})
        if item.position is None:
            return arguments, None
        try:
            position = encode(item.position)
            self._position.decode(position)
        except (*NOT_CARRIED, msgspec.MsgspecError) as error:
            told = f"the position {item.position!r} of what {self.name} yielded can't be stored as its parameter `position`: {error}"
            raise InvalidArguments(told, path="$.position") from error
        return arguments, position

    def look(self, activation: Activation) -> Any:
        """The agent as the generator sees it: its fields can be read, durable ones not assigned."""
        view: Any = object.__new__(self.view)
        object.__setattr__(view, "__dict__", activation.instance.__dict__)
        object.__setattr__(view, "_jido_sensing", activation)
        return view


def _checked_parameters(where: str, parameters: list[inspect.Parameter], kind: str) -> frozenset[str]:
    given = _GIVEN[kind]
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) or parameter.name not in given:
            told = f"a sensor with {kind}= is given {' and '.join(map(repr, given))} by name, as far as it asks for them"
            raise DefinitionError(f"{where}: parameter {parameter.name!r}: {told}{near(parameter.name, given)}")
    return frozenset(parameter.name for parameter in parameters)


def _position_decoder(where: str, hint: Any) -> msgspec.msgpack.Decoder[Any]:
    check_carried(f"{where}: parameter 'position'", hint)
    return decoder_for(hint)


def _target(kind: AgentType, where: str, name: str) -> ActionSpec:
    spec = kind.actions.get(name)
    if spec is None:
        has = near_or_all(name, kind.actions, "its actions are")
        raise DefinitionError(f"{where}: @sensor(action={name!r}): {kind.cls.__name__} has no such action{has}")
    if spec.readonly or not spec.copy:
        told = "readonly" if spec.readonly else "copy=False"
        raise DefinitionError(f"{where}: {name} is {told}; a sensor's items need an action that writes, of what can be stored")
    if 1 not in spec.signature.arities:
        raise DefinitionError(f"{where}: {name}{spec.signature.signature} can't be called with one item, `self.{name}(item)`")
    return spec


def _check_fits(where: str, hints: dict[str, Any], spec: ActionSpec) -> None:
    """`DefinitionError` where what is yielded never fits: scalars of another type. All else is checked item by item."""
    (yields,) = typing.get_args(hints.get("return"))[:1] or (Any,)
    if typing.get_origin(yields) is Item:
        (yields,) = typing.get_args(yields)
    takes = spec.signature.hint(spec.signature.names[0])
    if yields in _SCALARS and takes in _SCALARS and yields is not takes and (yields, takes) != (int, float):
        raise DefinitionError(f"{where} yields {yields.__name__}, and {spec.name}{spec.signature.signature} takes {takes.__name__}")


def _emitter(kind: AgentType, name: str, event_type: str) -> ActionSpec:
    async def emit(agent: Any, data: Any) -> None:
        agent.emit(event_type, data)

    return kind._internal(name, emit)


def _view_class(cls: type, durable: tuple[str, ...], sensor_name: str) -> type:
    """The class that a generator sees: it runs outside of turns, so nothing may be changed or caused through it."""

    def refuse(self: Any, name: str) -> None:
        if name in durable:
            told = f"yield an item, and set {name} in the action that takes it"
            raise OutsideTurn(f"{cls.__name__}.{name} was changed in the sensor {sensor_name}, which runs outside of turns: {told}")

    def __setattr__(self: Any, name: str, value: Any) -> None:
        refuse(self, name)
        object.__setattr__(self, name, value)

    def __delattr__(self: Any, name: str) -> None:
        refuse(self, name)
        object.__delattr__(self, name)

    def _collect(self: Any, what: str) -> Any:
        told = f"yield an item, and {what} in the action that takes it"
        raise OutsideTurn(f"{self._link().address}: {what} in the sensor {sensor_name}, which runs outside of turns: {told}")

    # Its link stands in a slot: the agent's own is taken away when the activation ends, and a generator still tidies up then.
    namespace = {
        "__slots__": ("_jido_sensing",),
        "__setattr__": __setattr__,
        "__delattr__": __delattr__,
        "_collect": _collect,
        "_link": lambda self: self._jido_sensing,
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__jido_reader__": True,
    }
    make: Callable[..., type] = type(cls)
    return make(cls.__name__, (cls,), namespace)
