"""What crosses from one agent to another: arguments and results travel as copies unless they can't be changed.

Numbers, strings, bytes, None, enums and frozen values cross as they are, at the cost of a look at their class;
everything else is encoded and decoded, exactly as it would be on the way to another node.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import inspect
import types
import typing
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ..core.carried import culprit
from ..core.codec import NOT_CARRIED, ModelMismatch, decoder_for, encode, from_builtins, is_pydantic_model, to_builtins
from ..core.errors import InvalidArguments, InvalidResult
from ..core.near import near, near_or_all
from ..core.shown import short

IMMUTABLE: frozenset[type] = frozenset(
    {int, str, float, bool, bytes, complex, types.NoneType, datetime.datetime, datetime.date, datetime.time, datetime.timedelta,
     datetime.timezone, decimal.Decimal, uuid.UUID}
)  # fmt: skip

_NOTHING = encode({})
_named_raw = msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode
_frozen_classes: dict[type, bool] = {}
_MAX_CACHED_CLASSES = 10_000


def is_immutable(value: Any) -> bool:
    """Whether nobody can change a value, or anything that it holds."""
    cls = type(value)
    if cls in IMMUTABLE:
        return True
    if cls is tuple or cls is frozenset:
        return all(map(is_immutable, value))
    return _is_frozen_class(cls)


def is_immutable_type(hint: Any) -> bool:
    """Whether every value of a type is immutable, judged by its annotations; unsure is no."""
    return _judge(hint, frozenset())


def _is_frozen_class(cls: type) -> bool:
    known = _frozen_classes.get(cls)
    if known is None:
        if len(_frozen_classes) >= _MAX_CACHED_CLASSES:
            _frozen_classes.clear()
        _frozen_classes[cls] = known = _judge(cls, frozenset())
    return known


def _judge(hint: Any, above: frozenset[Any]) -> bool:
    """Whether every value of a type is immutable, judged by annotations alone; unsure is no."""
    if hint in IMMUTABLE or hint is None or hint in above:
        return True
    origin = typing.get_origin(hint)
    if origin is not None or isinstance(hint, types.UnionType):
        if origin in (tuple, frozenset, typing.Union, typing.Literal, types.UnionType) or isinstance(hint, types.UnionType):
            return origin is typing.Literal or all(part is Ellipsis or _judge(part, above) for part in typing.get_args(hint))
        return origin is typing.Annotated and _judge(typing.get_args(hint)[0], above)
    if not isinstance(hint, type):
        return False
    if issubclass(hint, enum.Enum):
        return True
    frozen = getattr(getattr(hint, "__dataclass_params__", None), "frozen", False) or (
        issubclass(hint, msgspec.Struct) and hint.__struct_config__.frozen
    )
    if not frozen:
        return False
    names = [f.name for f in dataclasses.fields(hint)] if dataclasses.is_dataclass(hint) else list(hint.__struct_fields__)  # type: ignore[attr-defined]
    try:
        hints = typing.get_type_hints(hint, include_extras=True)
    except Exception:  # a hint that can't be resolved is one that can't be trusted
        return False
    return all(_judge(hints.get(name), above | {hint}) for name in names)


class Signature:
    """The parameters and the result of one action: checks and copies what crosses."""

    __slots__ = ("_by_name", "_decoders", "_defaults", "_hints", "_required", "_result", "_result_hint", "_where", "arities", "names", "signature")

    def __init__(self, where: str, function: Callable[..., Any], hints: Mapping[str, Any]) -> None:
        parameters = list(inspect.signature(function).parameters.values())[1:]
        self.signature: inspect.Signature = inspect.Signature(parameters)
        self.names: tuple[str, ...] = tuple(p.name for p in parameters)
        self._defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        keyword_required = any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)
        least = sum(p.default is p.empty for p in positional)
        self.arities: frozenset[int] = frozenset[int]() if keyword_required else frozenset(range(least, len(positional) + 1))
        """How many arguments by position suffice when nothing is given by name."""
        self._by_name = all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters)
        self._required: frozenset[str] = frozenset(self.names) - self._defaults.keys()
        self._where = where
        self._hints = {p.name: hints[p.name] for p in parameters}
        self._decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {}
        self._result_hint = hints["return"]
        self._result: msgspec.msgpack.Decoder[Any] | None = None

    def hint(self, name: str) -> Any:
        """The type hint of a parameter."""
        return self._hints[name]

    def check_arity(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """`InvalidArguments` if arguments don't match parameters."""
        if len(args) not in self.arities if not kwargs else args or not self._all_by_name(kwargs):
            self._bind(args, kwargs)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by name, in the order of the parameters, without defaults; `InvalidArguments` if they don't match."""
        if not kwargs and len(args) in self.arities:
            return dict(zip(self.names, args, strict=False))
        if not args and self._all_by_name(kwargs):
            return {name: kwargs[name] for name in self.names if name in kwargs}
        return self._bind(args, kwargs)

    def _all_by_name(self, kwargs: Mapping[str, Any]) -> bool:
        """Whether these suffice, and none is unknown."""
        return self._by_name and self._required <= kwargs.keys() <= self._hints.keys()

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self.signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            unknown = next((name for name in kwargs if name not in self.names), None)
            raise InvalidArguments(f"{self._where}{self.signature}: {error}{near(unknown, self.names)}", path="$") from None

    def with_defaults(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments by name, defaults filled in."""
        return {name: arguments[name] if name in arguments else self._defaults[name] for name in self.names}

    def copy_args(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name with everything mutable copied; `InvalidArguments` naming what can't be carried."""
        bound = self.bind(args, kwargs)
        for name, value in bound.items():
            if not is_immutable(value):
                bound[name] = self._carry(name, value)
        return bound

    def to_plain(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """The arguments by name, encoded, as they are stored and sent; `InvalidArguments` if one can't be carried."""
        if not args and not kwargs and 0 in self.arities:
            return _NOTHING
        bound = self.bind(args, kwargs)
        try:
            return encode(bound)
        except NOT_CARRIED as error:
            for name, value in bound.items():
                self._encoded(name, value)
            raise InvalidArguments(f"{self._where}: {error}", path="$") from error

    def encode_by_name(self, named: Mapping[str, Any]) -> bytes:
        """Arguments given by name, encoded as they are."""
        if not isinstance(named, Mapping):
            raise InvalidArguments(f"args={named!r}: a mapping from parameter names to values", path="$.args")
        try:
            return encode(dict(named))
        except NOT_CARRIED as error:
            for name, value in named.items():
                self._encoded(str(name), value)
            raise InvalidArguments(f"{self._where}: {error}", path="$") from error

    def from_plain(self, blob: bytes) -> dict[str, Any]:
        """Arguments by name from their encoded form, checked against the hints."""
        if blob == _NOTHING and 0 in self.arities:
            return {}
        try:
            plain = _named_raw(blob)
        except (msgspec.MsgspecError, ValueError) as error:
            raise InvalidArguments(f"{self._where}: the arguments can't be read: {error}", path="$") from error
        self._check_names(plain)
        values = {name: self._decode(name, bytes(raw)) for name, raw in plain.items()}
        self.check_arity((), values)
        return values

    def from_json(self, body: bytes) -> dict[str, Any]:
        """Arguments by name from a JSON object, checked against the hints as those in `from_plain`. An empty body is no arguments."""
        try:
            plain = msgspec.json.decode(body or b"{}", type=dict[str, msgspec.Raw])
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise InvalidArguments(f"{self._where}: the arguments are no JSON object: {error}", path="$") from error
        self._check_names(plain)
        values = {
            name: self._fitting(name, msgspec.json.decode, bytes(raw), type=self._hints[name], dec_hook=from_builtins) for name, raw in plain.items()
        }
        self.check_arity((), values)
        return values

    def result_to_json(self, value: Any) -> bytes:
        """The result as JSON; `InvalidResult` if there is none of it."""
        try:
            return msgspec.json.encode(value, enc_hook=to_builtins)
        except NOT_CARRIED as error:
            raise InvalidResult(f"{self._where} returned what JSON can't carry: {error}; the call was made all the same") from error

    def json_schema(self) -> dict[str, Any]:
        """The JSON schema of the arguments by name; a parameter whose type has none may be anything."""
        properties = {name: _schema_of(hint) for name, hint in self._hints.items()}
        required = [name for name in self.names if name not in self._defaults]
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

    def told(self) -> str:
        """The parameters and the result as a `def` says them."""
        typed = [p.replace(annotation=self._hints[p.name]) for p in self.signature.parameters.values()]
        result = None if self._result_hint is type(None) else self._result_hint
        return str(self.signature.replace(parameters=typed, return_annotation=result))

    def copy_result(self, value: Any) -> Any:
        """The result as the caller gets it; `InvalidResult` if it can't be carried."""
        return value if is_immutable(value) else self.check_result(value)

    def check_result(self, value: Any) -> Any:
        """The result as one who reads it again gets it; `InvalidResult` if it isn't of the type that the action promises."""
        if self._result is None:
            self._result = decoder_for(self._result_hint)
        try:
            return self._result.decode(encode(value))
        except (*NOT_CARRIED, msgspec.MsgspecError) as error:
            promised = inspect.formatannotation(self._result_hint) if self._result_hint is not type(None) else "None"
            told = f"{self._where} returned {short(value)}, which doesn't fit its `-> {promised}`: {error}"
            raise InvalidResult(told, expected=promised, given=type(value).__name__) from error

    def encode_result(self, value: Any) -> bytes:
        """The result as it is stored and sent; `InvalidResult` if it can't be carried."""
        try:
            return encode(value)
        except NOT_CARRIED as error:
            path = culprit(value, "$", 0)
            raise InvalidResult(f"{self._where} returned what can't be carried at {path}: {error}", path=path) from error

    def decode_result(self, blob: bytes) -> Any:
        """A stored result as its type says."""
        if self._result is None:
            self._result = decoder_for(self._result_hint)
        return self._result.decode(blob)

    def _carry(self, name: str, value: Any) -> Any:
        return self._decode(name, self._encoded(name, value))

    def _encoded(self, name: str, value: Any) -> bytes:
        try:
            return encode(value)
        except NOT_CARRIED as error:
            path = culprit(value, f"$.{name}", 0)
            raise InvalidArguments(f"{self._where}: argument {name!r} can't be carried at {path}: {error}", path=path) from error

    def _check_names(self, named: Mapping[str, Any]) -> None:
        for name in named:
            if name not in self._hints:
                raise InvalidArguments(f"{self._where} has no parameter {name!r}{near_or_all(name, self.names, 'it has')}", path=f"$.{name}")

    def _decode(self, name: str, blob: bytes) -> Any:
        decoder = self._decoders.get(name)
        if decoder is None:
            decoder = self._decoders[name] = decoder_for(self._hints[name])
        return self._fitting(name, decoder.decode, blob)

    def _fitting(self, name: str, decode: Callable[..., Any], blob: bytes, **how: Any) -> Any:
        """What `decode` makes of the bytes of an argument; `InvalidArguments` naming the path that doesn't fit."""
        try:
            return decode(blob, **how)
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
            path = str(error).rpartition("at `$")[2].rstrip("`") if "at `$" in str(error) else ""
            within = error.__cause__.path if isinstance(error.__cause__, ModelMismatch) else ""
            raise InvalidArguments(f"{self._where}: argument {name!r} doesn't fit: {error}", path=f"$.{name}{path}{within}") from error


def _schema_of(hint: Any) -> dict[str, Any]:
    try:
        return msgspec.json.schema(hint, schema_hook=_model_schema)
    except (TypeError, NotImplementedError):
        return {}


def _model_schema(hint: type) -> dict[str, Any]:
    if is_pydantic_model(hint):
        schema: dict[str, Any] = hint.model_json_schema()  # type: ignore[attr-defined]
        return schema
    raise NotImplementedError
