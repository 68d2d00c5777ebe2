"""Tracebacks that show users their own code: our frames in between are left out.

An error passes through here where it leaves the platform (`leave`), or where a definition is refused (`blamed`). Frames of ours are
dropped up to the first that isn't; an error of ours, whose message says it all, keeps none. What else goes wrong within our code
keeps its frames: that is a bug, and they are wanted.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from traceback import StackSummary, TracebackException
from types import FrameType, TracebackType
from typing import Any, TypeVar, cast

from .errors import JidoError

F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any]])
P = TypeVar("P", bound=Callable[..., Any])

_FOLDER = str(Path(__file__).parents[1])


def is_ours(frame: FrameType) -> bool:
    """Whether a frame runs code of this package."""
    name = frame.f_globals.get("__name__", "")
    return isinstance(name, str) and (name == "jidosystem" or name.startswith("jidosystem."))


def leave(error: BaseException, node: str) -> None:
    """An error goes out to its caller: it says where it comes from, and shows the frames of its user. Follow it with a bare `raise`."""
    if isinstance(error, JidoError):
        if not error.node:
            error.node = node
        _hide_all(error)
    else:
        trace = error.__traceback__
        while trace is not None and is_ours(trace.tb_frame):
            trace = trace.tb_next
        if trace is not None:  # else the bug is ours
            error.with_traceback(trace)  # an assignment fails on exceptions that are frozen dataclasses


def for_log(error: BaseException) -> BaseException:
    """The error of a delivery that is given up, to be logged with the frames of its user: nobody else gets it any more."""
    leave(error, "")
    return error


class Leaving:
    """`with Leaving(node):` errors of the block `leave`. For the bodies of async generators: a decorator would cost each of their values."""

    __slots__ = ("_node",)

    def __init__(self, node: str) -> None:
        self._node = node

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Exception):
            leave(error, self._node)


def leaves(method: F) -> F:
    """Decorate a coroutine method that users call on a part of the platform, which has a `_node_name`: its errors `leave`."""

    @functools.wraps(method)
    async def leaving(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await method(self, *args, **kwargs)
        except Exception as error:
            leave(error, self._node_name)
            raise

    return cast("F", leaving)


def leaves_at_once(method: P) -> P:
    """The same for a method that isn't awaited."""

    @functools.wraps(method)
    def leaving(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            leave(error, self._node_name)
            raise

    return cast("P", leaving)


def _hide_all(error: BaseException) -> None:
    frames = [trace for trace in _each(error.__traceback__) if not is_ours(trace.tb_frame)]
    for i, trace in enumerate(frames):
        trace.tb_next = frames[i + 1] if i + 1 < len(frames) else None
    error.with_traceback(frames[0] if frames else None)
    cause = error.__cause__
    if cause is not None and all(is_ours(trace.tb_frame) for trace in _each(cause.__traceback__)):
        cause.with_traceback(None)


def _each(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def users_frame() -> FrameType | None:
    """The innermost running frame that isn't ours."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_ours(frame):
        frame = frame.f_back
    return frame


def remote_text(error: BaseException) -> str:
    """A traceback as another node tells it: the frames of its users. Its message travels apart, and stands here if others led to it."""
    shown = TracebackException.from_exception(error)
    _without_ours(shown)
    if shown.__cause__ is not None or shown.exceptions or (shown.__context__ is not None and not shown.__suppress_context__):
        return "".join(shown.format())
    return "".join(shown.stack.format())


def _without_ours(shown: TracebackException | None) -> None:
    seen: set[int] = set()
    waiting: list[Any] = [shown]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        users = [frame for frame in one.stack if not frame.filename.startswith(_FOLDER)]
        if users:  # else the bug is ours
            one.stack = StackSummary.from_list(users)
        waiting += [one.__cause__, one.__context__, *(one.exceptions or ())]
