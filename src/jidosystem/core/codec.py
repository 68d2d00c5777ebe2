"""The codec: MessagePack through msgspec, pydantic models through an adapter, never pickle.

Everything durable is *sealed*: a CRC-32 in front of the bytes, checked whenever they are read. It finds damage,
not malice.
"""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any
from zlib import crc32

import msgspec

if TYPE_CHECKING:
    from pydantic import ValidationError

_CRC_BYTES = 4
from_bytes = int.from_bytes


def seal(payload: bytes) -> bytes:
    """The payload with its checksum in front."""
    return crc32(payload).to_bytes(_CRC_BYTES, "big") + payload


def unseal(blob: bytes | bytearray) -> memoryview:
    """The payload of a sealed blob; `ValueError` if its checksum doesn't fit."""
    payload = memoryview(blob)[_CRC_BYTES:]
    if len(blob) < _CRC_BYTES or crc32(payload) != from_bytes(blob[:_CRC_BYTES], "big"):
        raise ValueError("the checksum doesn't fit the bytes: they were damaged after they were written")
    return payload


def is_pydantic_model(tp: Any) -> bool:
    """Whether a type is a pydantic model; never imports pydantic."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(tp, type) and issubclass(tp, pydantic.BaseModel)


class ModelMismatch(ValueError):
    """A value that a pydantic model refuses, told in one line; `path` leads to it from the model: `.lines[2].amount`."""

    def __init__(self, message: str, path: str) -> None:
        super().__init__(message)
        self.path = path


def _mismatch(error: ValidationError) -> ModelMismatch:
    first, *others = error.errors(include_url=False, include_context=False, include_input=False)
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
    more = f" (and {len(others)} more)" if others else ""
    return ModelMismatch(f"{error.title}{path}: {first['msg']}{more}", path)


def to_builtins(value: Any) -> Any:
    """Hook for encoding what msgspec doesn't know: pydantic models become dictionaries."""
    if is_pydantic_model(type(value)):
        return value.model_dump(mode="python")
    instead = "; is an `await` missing?" if isinstance(value, Coroutine) else getattr(type(value), "_carried_instead", "")
    raise TypeError(f"{type(value).__module__}.{type(value).__qualname__} can't be carried{instead}")


def from_builtins(tp: type, value: Any) -> Any:
    """Hook for decoding what msgspec doesn't know; the inverse of `to_builtins`."""
    if is_pydantic_model(tp):
        from pydantic import ValidationError  # loaded already: the model is derived from it

        try:
            return tp.model_validate(value)  # type: ignore[attr-defined]
        except ValidationError as error:
            raise _mismatch(error) from error
    raise TypeError(f"{tp!r} can't be carried")


encode = msgspec.msgpack.Encoder(enc_hook=to_builtins).encode
"""Any value the codec carries, as bytes. Fails with one of `NOT_CARRIED` if it can't be carried."""

NOT_CARRIED = (TypeError, OverflowError, ValueError, RecursionError)
"""How encoding fails: a type that the codec doesn't know, an integer over 64 bits, text that is no Unicode, a value that contains itself."""

decode = msgspec.msgpack.Decoder().decode
"""Bytes as plain builtins. `msgspec.MsgspecError` if they aren't MessagePack."""


def decoder_for(tp: Any) -> msgspec.msgpack.Decoder[Any]:
    """A decoder of one type, with the platform's hooks. `TypeError` at once if the type can't be carried."""
    return msgspec.msgpack.Decoder(tp, dec_hook=from_builtins)


def plain(value: Any) -> Any:
    """The value as every other node would see it: encoded and decoded as builtins."""
    return decode(encode(value))
