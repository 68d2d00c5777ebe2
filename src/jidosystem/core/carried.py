"""What enters the log can be read again: data is encoded once, read back, and what can't be carried is named by its path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import msgspec

from .codec import NOT_CARRIED, decode, encode, to_builtins
from .errors import InvalidArguments, describe

_DEEP_BYTES = 500
_SPARE_FRAMES = 100
_NOT_READ = (*NOT_CARRIED, msgspec.MsgspecError)


def carried(data: Any, event_type: str) -> tuple[bytes, Any]:
    """Data as bytes, and as every reader sees it; `InvalidArguments` naming the path of what can't be carried."""
    try:
        blob = encode(data)
        # Before Python 3.12 the depth that can be read depends on the reader's stack: only what leaves room is let in.
        plain = decode(blob) if len(blob) < _DEEP_BYTES else _decode_deeper(blob, _SPARE_FRAMES)
    except _NOT_READ as error:
        path = culprit(data, "$.data", 0)
        raise InvalidArguments(f"the data of event {event_type!r} can't be carried at {path}: {describe(error)}", path=path) from error
    return blob, plain


def carried_metadata(metadata: Mapping[str, Any], event_type: str) -> dict[str, Any]:
    """Metadata in plain builtins; it is a mapping with text as its keys."""
    try:
        plain = decode(encode(dict(metadata)))
        if all(isinstance(key, str) for key in plain):
            return dict(plain)
        wrong = "its keys are text"
    except _NOT_READ as error:
        wrong = describe(error)
    path = culprit(metadata, "$.metadata", 0)
    raise InvalidArguments(f"the metadata of event {event_type!r} can't be carried at {path}: {wrong}", path=path)


def _decode_deeper(blob: bytes, frames: int) -> Any:
    return decode(blob) if frames == 0 else _decode_deeper(blob, frames - 1)


def _is_carried(value: Any) -> bool:
    try:
        decode(encode(value))
    except _NOT_READ:
        return False
    return True


def culprit(value: Any, path: str, depth: int) -> str:
    """The path of the smallest part that can't be carried; only asked for when something can't."""
    if depth >= 20:
        return path
    for name, part in _parts(value):
        if not _is_carried(part):
            return culprit(part, f"{path}{name}", depth + 1)
    return path


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(f".{key}", part) for key, part in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return [(f"[{index}]", part) for index, part in enumerate(value)]
    if isinstance(value, msgspec.Struct):
        return [(f".{name}", getattr(value, name)) for name in value.__struct_fields__]
    if is_dataclass(value) and not isinstance(value, type):
        return [(f".{field.name}", getattr(value, field.name, None)) for field in fields(value)]
    try:
        found = to_builtins(value)
    except TypeError:
        return []
    return [(f".{key}", part) for key, part in found.items()] if isinstance(found, Mapping) else []
