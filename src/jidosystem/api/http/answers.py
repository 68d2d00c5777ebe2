"""What goes back: values as JSON, and every error in one shape with the status that says whose fault it is.

4xx  the caller's: what was asked can't be (400, 404, 409, 413), or the agent refused it (422)
5xx  the node's, the store's or the agent's own code's: 503 for now, 504 in doubt or too late, 500 for good
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
from starlette.responses import Response

from ...core import errors
from ...core.codec import NOT_CARRIED, to_builtins
from ...core.errors import InvalidArguments, InvalidResult, JidoError
from ...distribution.frames import error_of, frame_of

_encode = msgspec.json.Encoder(enc_hook=to_builtins, decimal_format="string").encode

STATUS: tuple[tuple[type[JidoError], int], ...] = (
    (errors.NoHost, 404), (errors.NotAnAction, 404), (errors.NotYetAvailable, 501),
    (errors.IdempotencyConflict, 409), (errors.CallCycle, 409), (errors.StreamConflict, 409), (errors.Conflict, 409),
    (errors.InvalidArguments, 400), (errors.InvalidKey, 400), (errors.InvalidConfig, 400), (errors.InvalidPattern, 400),
    (errors.TooLarge, 413), (errors.Rejected, 422),
    (errors.RefusedError, 503), (errors.StoreUnavailable, 503), (errors.StoreLocked, 503), (errors.OutcomeError, 504),
)  # fmt: skip
"""The first that fits; 500 for any other error."""


def json_of(value: Any) -> bytes:
    """A value as JSON; `InvalidResult` if there is none of it."""
    try:
        return _encode(value)
    except NOT_CARRIED as error:
        raise InvalidResult(f"the answer holds what JSON can't carry: {error}") from error


def answer(value: Any, status: int = 200) -> Response:
    """A value as the answer to a request."""
    return Response(json_of(value), status, media_type="application/json")


def refusal(error: BaseException) -> Response:
    """An error as the answer to a request."""
    frame = frame_of(error)
    status = next((status for kind, status in STATUS if isinstance(error, kind)), 500)
    fields = dict(frame.fields)
    outcome_known = error.outcome_known if isinstance(error, JidoError) else True
    told = {"code": frame.code, "type": type(error).__name__, "message": frame.message, "outcome_known": outcome_known, "fields": fields}
    response = Response(_encode({"error": told}), status, media_type="application/json")
    retry_after_s = fields.get("retry_after_s")
    if status == 503 and isinstance(retry_after_s, int | float) and math.isfinite(retry_after_s):
        response.headers["Retry-After"] = str(math.ceil(retry_after_s))
    return response


@contextmanager
def as_from_afar() -> Generator[None]:
    """What an agent's own code raises is told as it is on the way from another node."""
    try:
        yield
    except JidoError:
        raise
    except Exception as error:
        raise error_of(frame_of(error)) from error


def plain_refusal(code: str, message: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """A refusal of the door itself, before the platform was asked."""
    told = {"code": code, "type": "", "message": message, "outcome_known": True, "fields": {}}
    return Response(_encode({"error": told}), status, dict(headers or {}), media_type="application/json")


def object_of(body: bytes, names: Mapping[str, Any], required: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The members of a JSON object of these names and types; `InvalidArguments` naming what is wrong."""
    try:
        found = msgspec.json.decode(body or b"{}")
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidArguments(f"the body is no JSON: {error}", path="$") from error
    if not isinstance(found, dict):
        raise InvalidArguments("the body is to be a JSON object", path="$")
    for name in found.keys() - names.keys():
        raise InvalidArguments(f"there is no {name!r} here; there are {', '.join(names)}", path=f"$.{name}")
    for name in required - found.keys():
        raise InvalidArguments(f"{name!r} is missing", path=f"$.{name}")
    for name, value in found.items():
        try:
            msgspec.convert(value, names[name])
        except msgspec.ValidationError as error:
            raise InvalidArguments(f"{name}: {error}", path=f"$.{name}") from error
    return found
