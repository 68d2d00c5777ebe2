"""N nodes on one loop of virtual time: each can be paused, continued and killed, as a process can.

What runs on behalf of a node runs in a context that names it. Of a node that stands still the loop puts aside whatever is due, in order;
when it goes on, all of that is due at once, and its clock shows what has passed meanwhile. What is on its way, to a store or over a
wire, belongs to no node: it arrives all the same.
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import Task
from collections import Counter
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from functools import partial
from typing import Any, ParamSpec, TypeVar

from ..core.eager import start_eagerly
from ..core.wire import Serve, Served, Wire
from .faults import Faults
from .loop import VirtualLoop

T = TypeVar("T")
P = ParamSpec("P")
UNTOLD_S = 0.02
"""How long some still send to whoever has stopped listening; between real servers it is milliseconds."""
NODE: ContextVar[str] = ContextVar("node", default="")
"""On whose behalf code runs; "": nobody's, as tests and what is on its way."""
_SENDER: ContextVar[str] = ContextVar("sender", default="")
"""Who has sent what is on its way."""


class Nodes:
    """The nodes of a loop, by name. `cut` holds pairs (from, to) between which no message arrives, neither a request nor an answer;
    `between` what becomes of those from one to the other that do; `missed` counts those that were cut off, and what nodes that stood still would have
    run. Leave with `end`.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._aside: dict[str, list[asyncio.Handle]] = {}
        """Of each node that stands still: what it would run."""
        self._killed: set[str] = set()
        self.missed: Counter[tuple[str, str] | str] = Counter()
        self.cut: set[tuple[str, str]] = set()
        self.between: dict[tuple[str, str], Faults] = {}

    def start(self, name: str, work: Coroutine[Any, Any, T]) -> Task[T]:
        """Run something on behalf of a node, with all that comes of it."""
        context = contextvars.copy_context()
        context.run(NODE.set, name)
        return self._loop.create_task(work, context=context)

    def begin(self, name: str, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Likewise, and its first step now, if the node doesn't stand still: what came over a wire has waited a turn already."""
        if name in self._aside:
            return self.start(name, work)
        context = contextvars.copy_context()
        context.run(NODE.set, name)
        return context.run(start_eagerly, work, self._loop)

    def pause(self, name: str) -> None:
        """Let a node stand still, as SIGSTOP does."""
        self._aside.setdefault(name, [])
        self._loop.put_aside = self._put_aside

    def kill(self, name: str) -> None:
        """Nothing of a node runs any more, until the end of the test, where its tasks are cancelled. Let its wire and its store `die` too. A new
        process of the same node needs a name of its own.
        """
        self.pause(name)
        self._killed.add(name)

    def resume(self, name: str) -> None:
        """Let a node that was paused go on. One that was killed doesn't."""
        if name not in self._killed:
            self._loop.run_next(self._aside.pop(name, ()))
            if not self._aside:
                self._loop.put_aside = None

    def is_cut(self, sender: str, receiver: str) -> bool:
        """Whether a message doesn't arrive, which is counted."""
        if (sender, receiver) not in self.cut:
            return False
        self.missed[sender, receiver] += 1
        return True

    def paused(self, name: str) -> bool:
        """Whether it stands still."""
        return name in self._aside

    def end(self) -> None:
        """Let all go on, so that their tasks can be cancelled."""
        self._killed.clear()
        for name in list(self._aside):
            self.resume(name)

    def _put_aside(self, handle: Any) -> bool:
        name = handle._context.get(NODE)
        of_node = self._aside.get(name)
        if of_node is None:
            return False
        of_node.append(handle)
        self.missed[name] += 1
        return True


def on_its_way(what: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call something whose timers belong to no node."""
    return Context().run(partial(what, *args, **kwargs))


class NodeWire(Wire):
    """A node's end of a wire that all share: what it serves runs on its behalf, and what is cut off doesn't arrive."""

    def __init__(self, inner: Wire, nodes: Nodes, name: str) -> None:
        self.inner, self.name = inner, name
        self.max_payload_bytes = inner.max_payload_bytes
        self._nodes = nodes
        self._served: list[_Taking] = []
        self._closing: list[Task[None]] = []
        self._dead = False

    async def request(self, subject: str, payload: bytes, *, timeout_s: float, together: bool = False) -> bytes:
        """See `Wire.request`."""
        return await self._on_its_way(self.inner.request(subject, payload, timeout_s=timeout_s, together=together))

    async def send(self, subject: str, payload: bytes) -> None:
        """See `Wire.send`."""
        await self._on_its_way(self.inner.send(subject, payload))

    def _on_its_way(self, sending: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        if self._dead:  # what its code comes to within the step in which it died
            sending.close()
            return asyncio.get_running_loop().create_future()
        context = Context()
        context.run(_SENDER.set, self.name)
        return self._nodes._loop.create_task(sending, context=context)

    async def serve(self, subject: str, handler: Serve, *, group: str = "") -> Served:
        """See `Wire.serve`."""

        async def handle(payload: bytes) -> bytes | None:
            if taking.closed:
                raise ConnectionError("it doesn't listen any more, and the sender's server didn't know that")
            sender = _SENDER.get()
            lost, answer_lost, delay_s, times = self._fate(sender, subject)
            if delay_s:
                await asyncio.sleep(delay_s)
            if lost or self._nodes.is_cut(sender, self.name):
                raise ConnectionError("cut off")  # which answers nothing
            for _ in range(times - 1):
                await self._nodes.begin(self.name, _call(handler, payload))
            answer = await self._nodes.begin(self.name, _call(handler, payload))
            if answer_lost or self._nodes.is_cut(self.name, sender):
                raise ConnectionError("the answer is lost")
            return answer

        taking = _Taking(await self.inner.serve(subject, handle, group=group))
        self._served.append(taking)
        return taking

    def _fate(self, sender: str, subject: str) -> tuple[bool, bool, float, int]:
        faults = self._nodes.between.get((sender, self.name))
        return faults.of_message(subject) if faults is not None else (False, False, 0.0, 1)

    def die(self) -> None:
        """Serve and send nothing any more, as when the process is gone and its connections with it."""
        self._dead = True
        self._closing += [self._nodes.start("", _close(taking.inner)) for taking in self._served]
        self._served.clear()

    async def close(self) -> None:
        """Nothing: the wire is everybody's."""


class _Taking:
    """A subject being served. For a while after it is closed what is sent to it is lost, not refused: servers tell each other a moment later."""

    def __init__(self, inner: Served) -> None:
        self.inner = inner
        self.closed = False

    async def close(self) -> None:
        """See `Served.close`."""
        self.closed = True
        await asyncio.sleep(UNTOLD_S)
        await self.inner.close()


async def _call(handler: Serve, payload: bytes) -> bytes | None:
    return await handler(payload)


async def _close(served: Served) -> None:
    await served.close()
