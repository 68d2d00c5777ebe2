"""HTTP without a framework: what arrives, what is answered, and who takes which path.

The seam between whoever serves HTTP and whoever wants requests: the runtime mounts receivers, a gateway hands requests to
`Receivers.receive`. A path is fixed or has one segment `{key}`; a fixed one goes before one with a key.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from .errors import DefinitionError, InvalidArguments

KEY = "{key}"


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that came to a sensor with `http=`.

    Attributes:
        method: "POST" and the like
        path: as it was asked for, decoded
        headers: their names in lower case
        query: of a name given twice the last
        body: as it came
    """

    method: str
    path: str
    headers: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    body: bytes = b""

    def json(self) -> Any:
        """The body as JSON. `InvalidArguments` if it is none, which the sender is answered with 422."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.MsgspecError, ValueError) as error:
            raise InvalidArguments(f"the body of {self.method} {self.path} is no JSON: {error}", path="$") from error


class HttpResponse(msgspec.Struct, frozen=True):
    """What the sender is answered."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}


Receiver = Callable[[HttpRequest, str], Awaitable[HttpResponse]]
"""Takes a request and the key that its path names, "" if it names none; never raises but for being cancelled."""


class Receivers:
    """The paths of one node."""

    __slots__ = ("_fixed", "_keyed")

    def __init__(self) -> None:
        self._fixed: dict[str, tuple[Receiver, str]] = {}
        self._keyed: dict[tuple[str, str], tuple[Receiver, str]] = {}  # (before, behind the key)

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that are taken, as they were mounted."""
        return (*self._fixed, *(KEY.join(edges) for edges in self._keyed))

    def check(self, path: str, owner: str) -> None:
        """`DefinitionError` if somebody else has the path."""
        taken = self._keyed.get(_edges(path)) if KEY in path else self._fixed.get(path)
        if taken is not None and taken[1] != owner:
            raise DefinitionError(f"{owner}: http={path!r} is taken by {taken[1]}; give one of them another path")

    def mount(self, path: str, receiver: Receiver, owner: str) -> None:
        """Hand requests of a path to a receiver; `owner` is who that is, for people."""
        self.check(path, owner)
        if KEY in path:
            self._keyed[_edges(path)] = (receiver, owner)
        else:
            self._fixed[path] = (receiver, owner)

    def find(self, path: str) -> tuple[Receiver, str] | None:
        """Who takes a path, and the key in it, "" if it has none."""
        if (fixed := self._fixed.get(path)) is not None:
            return fixed[0], ""
        for (before, behind), (receiver, _owner) in self._keyed.items():
            key = path[len(before) : len(path) - len(behind)]
            if key and "/" not in key and path == before + key + behind:
                return receiver, key
        return None

    async def receive(self, request: HttpRequest) -> HttpResponse | None:
        """The answer to a request; None if nobody takes its path."""
        found = self.find(request.path)
        return None if found is None else await found[0](request, found[1])


def check_path(path: object) -> str:
    """The path itself; `ValueError` saying what a path is, if it is none."""
    if (
        not isinstance(path, str)
        or not path.startswith("/")
        or "//" in path
        or any(sign in path for sign in "?# ")
        or not path.isprintable()
        or path.count(KEY) > 1
        or any(part != KEY and ("{" in part or "}" in part) for part in path.split("/"))
    ):
        raise ValueError("a path that begins with '/', with at most one segment {key}, for example '/hooks/{key}'")
    return path


def _edges(path: str) -> tuple[str, str]:
    before, _key, behind = path.partition(KEY)
    return before, behind
