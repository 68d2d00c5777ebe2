"""A replay is awaited, its siblings are iterated: whoever takes one for the other is told so, instead of what Python says of coroutines."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, NoReturn, TypeVar, cast

from .errors import InvalidArguments
from .traces import Leaving

F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, int]])

_TOLD = "replay(stream, to=handler) hands the events to a handler, and is awaited; to iterate write `async for event in platform.events.read(stream)`"


def awaited(method: F) -> F:
    """Decorate the coroutine method `replay`: `InvalidArguments` if it has no handler, or if what it returns is iterated."""

    @functools.wraps(method)
    def asked(self: Any, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, int]:
        if "to" not in kwargs:
            with Leaving(self._node_name):
                raise InvalidArguments(_TOLD, path="$.to")
        return Replaying(method(self, *args, **kwargs), self._node_name)

    return cast("F", asked)


class Replaying(Coroutine[Any, Any, int]):
    """A coroutine that says more if it is iterated."""

    __slots__ = ("_coro", "_node")

    def __init__(self, coro: Coroutine[Any, Any, int], node: str) -> None:
        self._coro, self._node = coro, node

    def __await__(self) -> Generator[Any, None, int]:
        return self._coro.__await__()

    def send(self, value: Any, /) -> Any:
        """As a coroutine's."""
        return self._coro.send(value)

    def throw(self, kind: Any, value: BaseException | object = None, trace: TracebackType | None = None, /) -> Any:
        """As a coroutine's."""
        return self._coro.throw(kind) if value is None and trace is None else self._coro.throw(kind, value, trace)

    def close(self) -> None:
        """As a coroutine's."""
        self._coro.close()

    def __aiter__(self) -> NoReturn:
        self._coro.close()
        with Leaving(self._node):
            raise InvalidArguments(_TOLD, path="$")
