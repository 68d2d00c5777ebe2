"""The types that `jido generate` understands: how each is written, what it begins with and what a test puts there.

A specification is `name:type=default`, `total:Decimal`, `tags:list[str]`, `due:datetime?`. A type is one that the codec
carries and that needs no further definition: anything else is written into the module by hand.
"""

from __future__ import annotations

import ast
import datetime
import decimal
import uuid
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ..core.errors import ScaffoldError
from ..core.near import near
from .scaffold import check_member

MAX_TEXT = 80
MAX_DEPTH = 3
TYPES = ("bool", "bytes", "date", "datetime", "Decimal", "dict", "float", "int", "list", "set", "str", "timedelta", "UUID")
RESERVED = frozenset({*TYPES, "action", "field", "self", "sensor"})
"""Names that the generated class needs for what they stand for."""


class Kind(NamedTuple):
    """One type: `text` as it is annotated, `begins` with which expression, a `sample` for tests, the `names` that its text, its
    beginning and its sample need imported."""

    text: str
    begins: str
    sample: str
    names: frozenset[str] = frozenset()
    begins_names: frozenset[str] = frozenset()
    sample_names: frozenset[str] = frozenset()


class Member(NamedTuple):
    """A field, or an argument of an action."""

    name: str
    kind: Kind


def _kind(text: str, begins: str, sample: str) -> Kind:
    return Kind(text, begins, sample)


def _imported(text: str, begins: str, sample: str, *more: str) -> Kind:
    needed = frozenset({text})
    return Kind(text, begins, sample, needed, needed if text in begins else frozenset(), needed | set(more))


_SCALARS = {
    "bool": _kind("bool", "False", "True"),
    "bytes": _kind("bytes", 'b""', 'b"some"'),
    "float": _kind("float", "0.0", "1.5"),
    "int": _kind("int", "0", "7"),
    "str": _kind("str", '""', '"some"'),
    "date": _imported("date", "", "date(2026, 1, 2)"),
    "datetime": _imported("datetime", "", "datetime(2026, 1, 2, tzinfo=UTC)", "UTC"),
    "timedelta": _imported("timedelta", "timedelta()", "timedelta(hours=1)"),
    "Decimal": _imported("Decimal", "Decimal(0)", 'Decimal("1.50")'),
    "UUID": _imported("UUID", "", "UUID(int=7)"),
}
_MODULES = {
    "date": "datetime", "datetime": "datetime", "timedelta": "datetime", "UTC": "datetime", "Decimal": "decimal", "UUID": "uuid",
    "Path": "pathlib", "TypedDict": "typing", "AsyncIterator": "collections.abc",
}  # fmt: skip


def imports(names: Iterable[str]) -> str:
    """The import lines of names of the standard library, sorted as ruff sorts them."""
    by_module: dict[str, list[str]] = {}
    for name in names:
        by_module.setdefault(_MODULES[name], []).append(name)
    # Constants first, then classes, then the rest.
    order = {module: sorted(found, key=lambda name: (not name.isupper(), not name[0].isupper(), name)) for module, found in by_module.items()}
    return "".join(f"from {module} import {', '.join(order[module])}\n" for module in sorted(order))


# -- specifications ------------------------------------------------------------------------------------------------


def parse_member(text: str, what: str = "a field") -> Member:
    """`name:type=default`; without a type it is a `str`. `ScaffoldError` saying what can't be read, and what could."""
    name, colon, rest = text.partition(":")
    name = check_member(name.strip(), what)
    if name in RESERVED:
        raise ScaffoldError(f"{name!r} can't name {what}: the module needs that name for something else. Try {name}_")
    type_text, equals, default = rest.partition("=")
    if not colon:
        type_text = "str"
    kind = parse_kind(type_text.strip(), text)
    if equals:
        kind = _with_default(kind, default.strip(), text)
    elif what == "a field" and not kind.begins:  # nothing that it could begin with
        kind = _or_none(kind)
    return Member(name, kind)


def parse_kind(text: str, where: str) -> Kind:
    """A type's text: `list[str]`, `dict[str, int]`, `datetime?`, `Decimal | None`."""
    optional = text.endswith("?")
    try:
        if len(text) > MAX_TEXT:
            raise ValueError("too long")
        node = ast.parse(text.removesuffix("?").strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ScaffoldError(f"{where!r}: {text[:MAX_TEXT]!r} isn't a type; one of {', '.join(TYPES)}, for example total:Decimal") from None
    kind = _of_node(node, where, 0)
    return _or_none(kind) if optional else kind


def _of_node(node: ast.expr, where: str, depth: int) -> Kind:
    if depth > MAX_DEPTH:
        raise ScaffoldError(f"{where!r}: a type nested deeper than {MAX_DEPTH}; write a dataclass into the module instead")
    match node:
        case ast.Name(id="list" | "set" | "dict" as name):
            raise ScaffoldError(f"{where!r}: {name} of what? For example {'dict[str, int]' if name == 'dict' else f'{name}[str]'}")
        case ast.Name(id=name) if name in _SCALARS:
            return _SCALARS[name]
        case ast.Name(id=name):
            raise ScaffoldError(f"{where!r}: there is no type {name!r}{near(name, TYPES)}; one of {', '.join(TYPES)}")
        case ast.BinOp(left=inner, op=ast.BitOr(), right=ast.Constant(value=None)):
            return _or_none(_of_node(inner, where, depth + 1))
        case ast.Subscript(value=ast.Name(id="list" | "set" as name), slice=inner):
            return _collection(name, _of_node(inner, where, depth + 1), where)
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[key, inner])):
            return _mapping(_of_node(key, where, depth + 1), _of_node(inner, where, depth + 1), where)
        case _:
            pass
    raise ScaffoldError(f"{where!r}: {ast.unparse(node)[:MAX_TEXT]!r} isn't a type that can be generated; one of {', '.join(TYPES)}")


def _or_none(kind: Kind) -> Kind:
    if kind.text.endswith("| None"):
        return kind
    return kind._replace(text=f"{kind.text} | None", begins="None", begins_names=frozenset())


def _collection(name: str, inner: Kind, where: str) -> Kind:
    if name == "set":
        _hashable(inner, where)
    sample = f"[{inner.sample}]" if name == "list" else f"{{{inner.sample}}}"
    return Kind(f"{name}[{inner.text}]", f"field(default_factory={name})", sample, inner.names, frozenset(), inner.sample_names)


def _mapping(key: Kind, inner: Kind, where: str) -> Kind:
    _hashable(key, where)
    sample = f"{{{key.sample}: {inner.sample}}}"
    names, sample_names = key.names | inner.names, key.sample_names | inner.sample_names
    return Kind(f"dict[{key.text}, {inner.text}]", "field(default_factory=dict)", sample, names, frozenset(), sample_names)


def _hashable(kind: Kind, where: str) -> None:
    if "[" in kind.text:
        raise ScaffoldError(f"{where!r}: {kind.text} can't be in a set, or a dict's key")


# -- defaults ------------------------------------------------------------------------------------------------------


def quoted(text: str) -> str:
    """A string's literal, in double quotes where that needs no escape more."""
    literal = repr(text)
    if literal[0] == '"' or '"' in text:
        return literal
    return f'"{literal[1:-1]}"'


def _flag(text: str) -> str:
    return {"true": "True", "false": "False"}[text.lower()]


def _decimal(text: str) -> str:
    value = decimal.Decimal(text)
    if not value.is_finite():
        raise ValueError(text)
    return f'Decimal("{value}")'


def _whole(text: str) -> str:
    value = int(text)
    if not -(2**63) <= value < 2**64:
        raise ValueError(text)
    return str(value)


def _real(text: str) -> str:
    value = float(text)
    if value - value != 0:
        raise ValueError(text)
    return repr(value)


def _moment(text: str) -> str:
    value = datetime.datetime.fromisoformat(text)
    if value.tzinfo is None or value.utcoffset() or value.microsecond:
        raise ValueError(text)
    return f"datetime({', '.join(map(str, value.timetuple()[:6]))}, tzinfo=UTC)"


def _day(text: str) -> str:
    value = datetime.date.fromisoformat(text)
    return f"date({value.year}, {value.month}, {value.day})"


_DEFAULTS: dict[str, tuple[Callable[[str], str], str]] = {
    "bool": (_flag, "true or false"),
    "bytes": (lambda text: f"b{quoted(text.encode('ascii').decode())}", "ASCII"),
    "date": (_day, "2026-01-02"),
    "datetime": (_moment, "2026-01-02T03:04:05Z"),
    "Decimal": (_decimal, "1.50"),
    "float": (_real, "1.5"),
    "int": (_whole, "a whole number of at most 64 bits"),
    "str": (quoted, "text"),
    "UUID": (lambda text: f'UUID("{uuid.UUID(text)}")', "a UUID"),
}


def _with_default(kind: Kind, default: str, where: str) -> Kind:
    name = kind.text.removesuffix(" | None")
    if name != kind.text and default == "None":
        return kind
    if name not in _DEFAULTS:
        raise ScaffoldError(f"{where!r}: a {name} begins with {kind.begins}; leave the default out, or write another one into the module")
    write, wanted = _DEFAULTS[name]
    try:
        if len(default) > MAX_TEXT or not default.isprintable():
            raise ValueError(default)
        begins = write(default)
    except (ValueError, KeyError, ArithmeticError):
        raise ScaffoldError(
            f"{where!r}: {default[:MAX_TEXT]!r} can't be the default of {name}: {wanted}, at most {MAX_TEXT} printable characters"
        ) from None
    names = kind.sample_names if name in ("date", "datetime", "Decimal", "UUID") else frozenset[str]()
    return kind._replace(begins=begins, begins_names=names, sample="False" if begins == "True" else kind.sample)
