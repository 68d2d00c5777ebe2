"""An agent's durable fields: how they are found, encoded, checked and decoded.

The stored form of a state is a MessagePack map from field name to value. It is decoded with the fields' own types:
a field that the class lacks, or a value that doesn't fit, is `StateMismatch` naming it, never dropped; a field that
the class has gained takes its default. A value is checked against its type before it is committed, so that what was written can be read again.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import inspect
import re
import types
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, get_origin

import msgspec

from ..core.blame import about
from ..core.carried import culprit
from ..core.codec import NOT_CARRIED, decoder_for, encode, from_builtins, is_pydantic_model, to_builtins
from ..core.errors import DefinitionError, StateMismatch
from ..core.near import near
from .boundary import is_immutable, is_immutable_type

_MISSING: Any = object()
_EMPTY = (list, dict, set, frozenset, tuple, bytearray)
_SCALARS: frozenset[type] = frozenset(
    {int, str, float, bool, bytes, types.NoneType, datetime.datetime, datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID}
)


_DATA: tuple[type, ...] = (*_SCALARS, *_EMPTY, enum.Enum, dataclasses.Field)
"""What a class attribute without a type hint must not be: its author means a field."""
_EXACT = frozenset({int, str, float, bool, bytes})


class Field:
    """One annotated class attribute of an agent: durable, or transient if its name starts with `_`."""

    __slots__ = ("default", "factory", "hint", "name")

    def __init__(self, name: str, hint: Any, default: Any, factory: Callable[[], Any] | None) -> None:
        self.name: str = name
        self.hint: Any = hint
        self.default: Any = default
        self.factory: Callable[[], Any] | None = factory

    def fresh(self) -> Any:
        """A new default value."""
        return self.factory() if self.factory is not None else self.default

    @property
    def has_default(self) -> bool:
        """Whether a new agent knows what to put here."""
        return self.factory is not None or self.default is not _MISSING


def collect_fields(cls: type, hints: Mapping[str, Any], inherited: Mapping[str, Field]) -> dict[str, Field]:
    """The fields of a class, its bases' first, by dataclass rules; `DefinitionError` naming what is wrong."""
    fields = dict(inherited)
    annotated = inspect.get_annotations(cls)
    for name, value in cls.__dict__.items():
        replaces = name not in inherited and any(name in vars(base) for base in cls.__mro__[1:])  # `poll = None` switches a sensor off
        if name not in annotated and not replaces and not name.startswith("_") and not name.isupper() and isinstance(value, _DATA):
            kind = "…" if value is None or isinstance(value, dataclasses.Field) else type(value).__name__
            with about(name):
                raise DefinitionError(
                    f"{cls.__name__}.{name} has no type hint and would not be stored: write `{name}: {kind} = …` for a durable field,"
                    f" `{name}: ClassVar[{kind}] = …` or a name in capitals for a constant"
                )
    for name in annotated:
        hint = hints[name]
        if hint is ClassVar or get_origin(hint) is ClassVar or name.startswith("__"):
            continue
        default, factory = cls.__dict__.get(name, _MISSING), None
        if isinstance(default, types.MemberDescriptorType):
            default = _MISSING
        if isinstance(default, dataclasses.Field):
            factory = None if default.default_factory is dataclasses.MISSING else default.default_factory
            default = _MISSING if default.default is dataclasses.MISSING else default.default
            if default is _MISSING:
                delattr(cls, name)
            else:
                setattr(cls, name, default)
        if factory is None and isinstance(default, list | dict | set | bytearray):
            with about(name):
                raise DefinitionError(
                    f"{cls.__name__}.{name}: a mutable default would be shared by all agents; write `field(default_factory={type(default).__name__})`"
                )
        fields[name] = Field(name, hint, default, factory)
    for name, field in fields.items():
        if not name.startswith("_") and not field.has_default:
            with about(name):
                raise DefinitionError(
                    f"{cls.__name__}.{name}: a durable field needs a default, for example `{name}: … = …`: agents begin to exist by being called"
                )
    return fields


def setter_of_defaults(fields: Sequence[Field]) -> Callable[[Any], None]:
    """What gives an agent the default of each field: written out and compiled once, as it runs for every new agent."""
    used: dict[str, Any] = {f"f{i}": field.default if field.factory is None else field.factory for i, field in enumerate(fields)}
    lines = [f"    agent.{field.name} = f{i}" + ("" if field.factory is None else "()") for i, field in enumerate(fields)]
    exec("\n".join(["def reset(agent):", *lines, "    return"]), used)
    reset: Callable[[Any], None] = used["reset"]
    return reset


def check_default(where: str, field: Field) -> None:
    """`DefinitionError` if a default isn't of its field's type: no turn of such an agent could be committed."""
    if field.factory is None:
        try:
            decoder_for(field.hint).decode(encode(field.default))
        except (*NOT_CARRIED, msgspec.MsgspecError) as error:
            raise DefinitionError(f"{where} = {field.default!r} doesn't fit its type hint: {error}") from error


def check_carried(where: str, hint: Any) -> None:
    """`DefinitionError` if the codec can't carry a type: `where` names the field or parameter."""
    try:
        kind = msgspec.inspect.type_info(hint)
        decoder_for(hint)
    except Exception as error:
        raise DefinitionError(f"{where}: the type {_told(hint)} can't be carried: {error}") from error
    _refuse_custom(where, hint, kind, set())


def _refuse_custom(where: str, hint: Any, kind: Any, seen: set[int]) -> None:
    if id(kind) in seen:
        return
    seen.add(id(kind))
    if isinstance(kind, msgspec.inspect.CustomType) and not is_pydantic_model(kind.cls):
        if any(base.__module__ == _AGENT[0] and base.__name__ == _AGENT[1] for base in kind.cls.__mro__):
            raise DefinitionError(
                f"{where}: an agent can't be carried, its key can: use str, and self.agent({_told(kind.cls)}, key) where it is called"
            )
        raise DefinitionError(
            f"{where}: {_told(kind.cls)} can't be carried to disk or another node; use builtins, dataclasses, msgspec.Struct, enums or"
            " pydantic models, or a name that starts with '_' for what needn't be stored"
        )
    for part in getattr(kind, "__struct_fields__", ()):
        value = getattr(kind, part)
        for inner in value if isinstance(value, tuple) else (value,):
            if isinstance(inner, msgspec.inspect.Type):
                _refuse_custom(where, hint, inner, seen)
            elif isinstance(inner, msgspec.inspect.Field):
                _refuse_custom(where, hint, inner.type, seen)


_AGENT = ("jidosystem.runtime.agent", "Agent")  # which stands on this module


def _told(hint: Any) -> str:
    return hint.__qualname__ if isinstance(hint, type) else str(hint)


_PATH = re.compile(r"`\$\.(\w+)")
_WRONG_VALUE = ". The turn was rolled back; give the field a value of its type"


class StateCodec:
    """Encodes and decodes the durable fields of one agent class."""

    __slots__ = (
        "_checked",
        "_decode",
        "_encode_plain",
        "_kinds",
        "_mutable",
        "_struct",
        "_type_name",
        "constant",
        "encode",
        "encode_checked",
        "fields",
        "names",
        "reset",
        "version",
    )

    def __init__(self, type_name: str, version: int, fields: Mapping[str, Field]) -> None:
        self.fields: tuple[Field, ...] = tuple(f for f in fields.values() if not f.name.startswith("_"))
        self.names: tuple[str, ...] = tuple(f.name for f in self.fields)
        self.version: int = version
        self._type_name = type_name
        # A Struct of the same fields does the work; the names in it are positions, so that a field may be called anything.
        struct_fields = [(f"f{i}", f.hint, msgspec.field(default_factory=f.fresh)) for i, f in enumerate(self.fields)]
        names = {f"f{i}": name for i, name in enumerate(self.names)}
        self._struct = msgspec.defstruct(f"{type_name}State", struct_fields, rename=names, forbid_unknown_fields=True, gc=False)
        self._encode_plain = msgspec.msgpack.Encoder(enc_hook=to_builtins).encode
        self._decode = msgspec.msgpack.Decoder(self._struct, dec_hook=from_builtins).decode
        fields_told = ", ".join(f"{name!r}: agent.{name}" for name in self.names)
        kinds = "".join(f"type(agent.{name}), " for name in self.names)
        # A value of exactly its field's class, one of these, needs no proof. Without fields there is nothing to prove.
        exact = "False"
        if all(f.hint in _EXACT for f in self.fields):
            exact = " and ".join(f"type(agent.{f.name}) is {f.hint.__name__}" for f in self.fields) or "True"
        # Written out for these fields and compiled once, as dataclasses do it: this runs in every turn.
        used = {"encode": self._encode_plain, "prove": self._prove, "type": type} | {cls.__name__: cls for cls in _EXACT}
        self.encode: Callable[[Any], bytes] = eval(f"lambda agent: encode({{{fields_told}}})", used)
        """The durable fields of an agent as bytes. `TypeError` or `OverflowError` if one can't be carried."""
        self.encode_checked: Callable[[Any, bytes], bytes] = eval(
            f"lambda agent, before: before if (after := encode({{{fields_told}}})) == before else after if {exact} else prove(agent, after)", used
        )
        """`encode_checked(agent, before)`: `before` itself if nothing changed; else the new bytes, proved to be readable (`StateMismatch`)."""
        scalar = all(_is_scalar(f.hint) for f in self.fields)
        self._kinds: Callable[[Any], tuple[type, ...]] | None = eval(f"lambda agent: ({kinds})", used) if scalar else None
        self.reset: Callable[[Any], None] = setter_of_defaults(self.fields)
        """Sets an agent's durable fields to their defaults."""
        self._checked: set[tuple[type, ...]] = set()
        self._mutable = tuple((f"f{i}", f.name) for i, f in enumerate(self.fields) if not is_immutable_type(f.hint))
        self.constant: bool = all(f.factory in (None, *_EMPTY) for f in self.fields)  # every new agent begins with the same bytes

    def _prove(self, instance: object, after: bytes) -> bytes:
        """See to it that the fields, encoded as `after`, can be read again; `StateMismatch` naming the one that can't."""
        if self._kinds is None:
            readable = self._decode_or_mismatch(after, _WRONG_VALUE)
            if len(self._mutable) > 1:
                self._part(instance, readable)
        else:
            kinds = self._kinds(instance)
            if kinds not in self._checked:
                self._decode_or_mismatch(after, _WRONG_VALUE)
                self._checked.add(kinds)
        return after

    def _part(self, instance: object, readable: Any) -> None:
        """Two fields that hold the same object hold the same value, no more: the later one gets an object of its own."""
        seen: set[int] = set()
        for place, name in self._mutable:
            value = getattr(instance, name)
            if id(value) not in seen:
                seen.add(id(value))
            elif not is_immutable(value):
                setattr(instance, name, getattr(readable, place))

    def culprit(self, instance: object) -> str:
        """Where the state of an agent can't be carried: `Counter.items[3].x`. Only asked for when it can't."""
        return culprit({name: getattr(instance, name) for name in self.names if hasattr(instance, name)}, self._type_name, 0)

    def apply(self, instance: object, blob: bytes, whose: str = "") -> None:
        """Set an agent's durable fields from bytes; `whose` is the address that errors name."""
        struct = self._decode_or_mismatch(blob, whose=whose)
        for i, name in enumerate(self.names):
            setattr(instance, name, getattr(struct, f"f{i}"))

    def mapping(self, blob: bytes, whose: str = "") -> dict[str, Any]:
        """The durable fields as a dictionary, decoded afresh."""
        struct = self._decode_or_mismatch(blob, whose=whose)
        return {name: getattr(struct, f"f{i}") for i, name in enumerate(self.names)}

    def from_plain(self, state: Mapping[str, Any], whose: str = "") -> bytes:
        """Bytes from a dictionary of plain builtins, as migrations return it; checked."""
        try:
            blob = self._encode_plain(dict(state))
        except NOT_CARRIED as error:
            told = f"the migrated state of {whose or self._type_name} can't be carried: {error}"
            raise StateMismatch(told, field="", agent_type=self._type_name, agent=whose) from error
        struct = self._decode_or_mismatch(blob, whose=whose)
        return self._encode_plain(struct)

    def _decode_or_mismatch(self, blob: bytes, advice: str = "", whose: str = "") -> Any:
        try:
            return self._decode(blob)
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            field = self._blame(blob, error)
            named = f"; field {field!r}{near(field, self.names) if field not in self.names else ''}" if field else ""
            if not advice:
                mended = "Give the field its old type back" if field in self.names else "Add the field"
                advice = f". {mended}, or raise the version and write a @migrate_state"
            raise StateMismatch(
                f"the state of {whose or self._type_name} doesn't fit its class (version {self.version}): {error}{named}{advice}",
                field=field,
                agent_type=self._type_name,
                agent=whose,
            ) from error

    def _blame(self, blob: bytes, error: Exception) -> str:
        try:
            plain = msgspec.msgpack.decode(blob)
        except (msgspec.MsgspecError, ValueError):
            return ""
        if not isinstance(plain, dict):
            return ""
        told = _PATH.search(str(error))
        if told is not None and told[1] in self.names:
            return told[1]
        for name in plain:
            if name not in self.names:
                return str(name)
        for field in self.fields:
            if field.name not in plain:
                continue
            try:
                decoder_for(field.hint).decode(msgspec.msgpack.encode(plain[field.name]))
            except (msgspec.MsgspecError, ValueError, TypeError):
                return field.name
        return str(error).partition("$.")[2].partition("`")[0]


def _is_scalar(hint: Any) -> bool:
    """Whether a value's exact class alone decides if it fits: then a check need be made once per class."""
    if isinstance(hint, types.UnionType) or str(get_origin(hint)) == "typing.Union":
        return all(_is_scalar(part) for part in hint.__args__)
    return hint in _SCALARS or (isinstance(hint, type) and issubclass(hint, enum.Enum))
