"""`Wire`: requests and messages between nodes. Bytes in, bytes out; what they mean is the mesh's business."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")


class Answered(Generic[T]):
    """An awaitable whose result is there already: whoever looks for that needs neither a coroutine nor a task."""

    __slots__ = ("answer",)

    def __init__(self, answer: T) -> None:
        self.answer = answer

    def __await__(self) -> Generator[Any, None, T]:
        yield from ()
        return self.answer


Serve = Callable[[bytes], Awaitable[bytes | None]]


class Served(Protocol):
    """A subject being served, as `serve` returns it."""

    async def close(self) -> None:
        """Take no further requests; those being served are finished first."""
        ...


class Wire(Protocol):
    """Requests and messages between nodes: bytes in, bytes out. `max_payload_bytes` is the largest payload that it takes. What every adapter
    promises:

    - A request reaches at most one server of its subject, at most once.
    - Nobody serves the subject: `NodeUnreachable` at once. No answer in time: `WireTimeout`, the outcome is unknown. A payload that is too
      large: `TooLarge`, nothing sent.
    - Servers of one subject and group share its requests; each message of `send` reaches one server of every group.
    - A handler that raises answers nothing: its requester times out. Handlers translate errors themselves.
    """

    max_payload_bytes: int

    async def request(self, subject: str, payload: bytes, *, timeout_s: float, together: bool = False) -> bytes:
        """Send and wait for the answer, so many seconds. `together`: it may go with others of the same moment, and again if nothing is heard, to
        the one server that the subject has."""
        ...

    async def send(self, subject: str, payload: bytes) -> None:
        """Send without an answer; returns when the wire has taken it. No server is no error."""
        ...

    async def serve(self, subject: str, handler: Serve, *, group: str = "") -> Served:
        """Answer requests and take messages of a subject, many at once. A handler takes bytes and returns bytes, or None for a message; one
        that has nothing to wait for may return an `Answered`."""
        ...

    async def close(self) -> None:
        """Stop serving; requests in flight fail with `OutcomeUnknown`."""
        ...
