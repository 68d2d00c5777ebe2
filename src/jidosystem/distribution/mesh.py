"""Node to node: requests whose end says what became of them.

A request that isn't answered ends in one of three ways. It was never sent, or reached nobody: `NodeUnreachable`, `NodeBusy`,
`ProtocolMismatch`, `TooLarge`, or `CallTimeout` that is certain; it may go elsewhere. Time ran out, or the connection was lost: an
`OutcomeUnknown`. Or the node was declared dead meanwhile: `OutcomeUnknown` at once, since it will never answer, and what it committed
stands in the store.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, Task
from collections.abc import Awaitable, Callable
from typing import Any

from ..core.errors import (
    CallTimeout,
    InvalidFrame,
    JidoError,
    NodeBusy,
    NodeUnreachable,
    OutcomeUnknown,
    ProtocolMismatch,
    ShuttingDown,
    TooLarge,
)
from ..core.wire import Answered, Served, Wire
from .frames import OLDEST_VERSION, VERSION, ErrorFrame, Frame, PingFrame, PongFrame, ReplyFrame, decode_frame, encode_frame, error_of, frame_of
from .members import Member, View
from .membership import Membership

Answer = Callable[[Frame], Awaitable[Frame]]
LAST_ANSWERS_S = 0.25
"""How long the last answers of a node that has left may be on their way, and the last requests to it."""
MAX_UNDER_WAY = 10_000
"""Requests that wait for one node, and requests of others that one node is at."""


class Mesh:
    """This node's requests to the others, and theirs to it.

    Args:
        wire: what carries them
        membership: says where the others are, and when one is dead
        answer: answers a frame of another node; what it raises is told as an error
        max_under_way: so many requests may wait for one node, and so many of others may be under way here
    """

    def __init__(self, wire: Wire, membership: Membership, answer: Answer, *, max_under_way: int = MAX_UNDER_WAY) -> None:
        self._wire, self._membership, self._answer, self._max = wire, membership, answer, max_under_way
        self._loop = asyncio.get_running_loop()
        # Node -> who waits for it: whether it is dead, and the task was cancelled to say so.
        self._under_way: dict[tuple[str, int], dict[Task[Any], bool]] = {}
        self._answering = 0
        self._answered: asyncio.Future[None] | None = None  # somebody waits until nothing is being answered
        self._leaves = False
        self._served: Served | None = None
        membership.listeners.append(self._view_changed)

    # -- asking ----------------------------------------------------------------------------------------------

    async def request(self, node: str, frame: Frame, deadline: float, *, incarnation: int | None = None) -> Frame:
        """Ask a node, by its name, until the loop's clock shows `deadline`; what it answers, an `ErrorFrame` perhaps. `incarnation`: that life of it
        and no other. Raises what the module names.
        """
        member = self._find(node, incarnation)
        payload = encode_frame(frame, self._wire.max_payload_bytes)
        left_s = deadline - self._loop.time()
        if left_s <= 0:
            raise CallTimeout(f"time ran out before a request to node {node} was sent", node=node, uncertain=False)
        key = (member.name, member.incarnation)
        line = self._under_way.get(key)
        if line is None:
            line = self._under_way[key] = {}
        elif len(line) >= self._max:
            raise NodeBusy(f"{self._max} requests to node {node} are under way; this one wasn't sent", node=node, limit=self._max)
        task = asyncio.current_task()
        assert task is not None
        cancelling = task.cancelling()
        line[task] = False
        try:
            return self._read(member, await self._wire.request(member.subject, payload, timeout_s=left_s, together=True))
        except NodeUnreachable:
            self._membership.unreachable(*key)
            raise
        except CancelledError:
            if line[task] and task.uncancel() <= cancelling:
                raise _died(member) from None
            raise
        finally:
            del line[task]
            if not line and self._under_way.get(key) is line:
                del self._under_way[key]

    async def ping(self, node: str, timeout_s: float = 1.0) -> PongFrame:
        """Whether a node is there, and which life of it. Raises what `request` does."""
        frame = await self.request(node, PingFrame(), asyncio.get_running_loop().time() + timeout_s)
        if isinstance(frame, ErrorFrame):
            raise error_of(frame)
        if not isinstance(frame, PongFrame):
            raise OutcomeUnknown(f"node {node} answered a ping with a {type(frame).__name__}", node=node)
        return frame

    def _find(self, node: str, incarnation: int | None) -> Member:
        member = self._membership.view.nodes.get(node)
        if member is None or member.void or (incarnation is not None and incarnation != member.incarnation):
            which = "" if incarnation is None else f" as incarnation {incarnation}"
            raise NodeUnreachable(f"no node {node!r} is in the cluster{which}; nothing was sent", node=node)
        if member.oldest_protocol > VERSION or member.protocol < OLDEST_VERSION:
            raise ProtocolMismatch(
                f"node {node} speaks versions {member.oldest_protocol} to {member.protocol} of the protocol, this one"
                f" {OLDEST_VERSION} to {VERSION}; nothing was sent",
                node=node,
                newer=member.oldest_protocol > VERSION,
            )
        return member

    def _read(self, member: Member, answer: bytes) -> Frame:
        try:
            return decode_frame(answer)
        except InvalidFrame as error:
            raise OutcomeUnknown(f"what node {member.name} answered can't be read: {error}", node=member.name) from error

    def _view_changed(self, view: View) -> None:
        """Whoever waits for a dead node is told, a moment later: one that left in order has answered everything before."""
        if any(view.is_void(*key) for key in self._under_way):
            asyncio.get_running_loop().call_later(LAST_ANSWERS_S, self._end_those_of_the_dead)

    def _end_those_of_the_dead(self) -> None:
        view = self._membership.view
        for (name, incarnation), line in self._under_way.items():
            if view.is_void(name, incarnation):
                for task in [task for task, dead in line.items() if not dead]:
                    line[task] = True
                    task.cancel()

    # -- answering -------------------------------------------------------------------------------------------

    async def listen(self, subject: str) -> None:
        """Answer the requests to a subject, and no longer those to an earlier one: for `Membership.join(mesh.listen)`."""
        await self.close()
        self._served = await self._wire.serve(subject, self._serve)

    async def leave(self) -> None:
        """Leave the cluster: answer what has come, give up the lease so that nobody waits for its end, and send away for a while those who don't
        know that yet. On a wire of several servers a request to one who has just stopped listening is lost without a word.
        """
        self._leaves = True
        if self._answering:
            self._answered = self._loop.create_future()
            await asyncio.wait((self._answered,), timeout=LAST_ANSWERS_S)  # all of it has ended by now, or never will
        try:
            await self._membership.leave()
            if any(member.name != self._membership.name for member in self._membership.view.living()):
                await asyncio.sleep(LAST_ANSWERS_S)
        finally:
            await self.close()

    async def close(self) -> None:
        """Take no further requests; those under way are answered first."""
        if self._served is not None:
            served, self._served = self._served, None
            await served.close()

    def _serve(self, payload: bytes) -> Awaitable[bytes]:
        try:
            frame = decode_frame(payload, self._wire.max_payload_bytes)
            if isinstance(frame, PingFrame):
                answer: Frame = PongFrame(self._membership.name, self._membership.incarnation, self._membership.may_serve())
            elif self._leaves:
                answer = frame_of(self._leaving(), self._membership.name)
            elif self._answering >= self._max:
                answer = frame_of(self._too_many(), self._membership.name)
            else:
                answering = self._answer(frame)
                if not isinstance(answering, Answered):
                    return self._later(answering)
                answer = answering.answer
        except Exception as error:  # whatever it is, it is the asker's answer
            answer = frame_of(error, self._membership.name)
        return Answered(self._encoded(answer))

    async def _later(self, answering: Awaitable[Frame]) -> bytes:
        self._answering += 1
        try:
            answer = await answering
        except Exception as error:  # likewise
            answer = frame_of(error, self._membership.name)
        finally:
            self._answering -= 1
            if self._answered is not None and not self._answering and not self._answered.done():
                self._answered.set_result(None)
        return self._encoded(answer)

    def _encoded(self, answer: Frame) -> bytes:
        try:
            return encode_frame(answer, self._wire.max_payload_bytes)
        except JidoError as error:  # too large for the wire: what became of the request is told nevertheless
            known = "it was done" if isinstance(answer, ReplyFrame) else "it failed"
            return encode_frame(frame_of(TooLarge(f"the answer to a request can't be sent: {error}; {known}"), self._membership.name))

    def _leaving(self) -> ShuttingDown:
        name = self._membership.name
        return ShuttingDown(f"node {name} leaves the cluster; nothing was done", node=name)

    def _too_many(self) -> NodeBusy:
        name = self._membership.name
        return NodeBusy(f"node {name} is at {self._max} requests of other nodes; this one wasn't taken", node=name, limit=self._max)


def _died(member: Member) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"node {member.name} (incarnation {member.incarnation}) was declared dead while a request to it was under way; whether it took effect"
        " is unknown",
        node=member.name,
    )
