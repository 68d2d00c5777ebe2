"""Clients of a cluster that is in trouble: each asks one thing after another of some node, and writes down what it was told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from jidosystem import errors
from jidosystem.testing import Asked, ClusterNode, Recording, TestCluster
from tests.simulation.world import ACCOUNTS, Account, Bell, Counter, Emitter, Register, is_known

PATIENCE_S = 6.0
NODE_GONE_S = 20.0
"""So long a client waits for a node that may be dead or stand still."""
Ask = Callable[[ClusterNode], Coroutine[Any, Any, Any]]


class Clients:
    """See the module. `stop` ends them after what they are at."""

    def __init__(self, there: TestCluster, seed: int, recording: Recording) -> None:
        self.there, self.recording = there, recording
        self._random = Random(f"clients {seed}")
        self._stopped = False
        self._numbers = 0
        kinds = [self.register, self.register, self.counter, self.bank, self.emitter, self.bells]
        self._tasks = [asyncio.ensure_future(self._go_on(f"client {n}", kind)) for n, kind in enumerate(kinds)]

    async def end(self) -> None:
        """No more questions; returns when the last was answered, or given up. What goes wrong in a client fails the run."""
        self._stopped = True
        await asyncio.gather(*self._tasks)

    def cancel(self) -> None:
        """Likewise at once, when the run has failed already."""
        for task in self._tasks:
            task.cancel()

    async def _go_on(self, name: str, kind: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        while not self._stopped:
            await asyncio.sleep(self._random.expovariate(2.5))
            await kind(name)

    def unique(self) -> str:
        """A value that nobody has had."""
        self._numbers += 1
        return f"v{self._numbers}"

    def _some_node(self) -> ClusterNode | None:
        nodes = [node for node in self.there.now.values() if node.ready.is_set() and not node.leaving.is_set()]
        return self._random.choice(nodes) if nodes else None

    async def _ask(self, asked: Asked | None, ask: Ask) -> Any:
        """What some node answers; None, and that is noted, if it doesn't."""
        node = self._some_node()
        if node is None:
            if asked is not None:
                asked.failed("no node")
            return None
        task = self.there.at(node, ask(node))
        task.add_done_callback(lambda done: None if done.cancelled() else done.exception())  # perhaps long after its client has given up
        await asyncio.wait([task], timeout=NODE_GONE_S)
        if not task.done():
            if not node.dead:
                task.cancel()
            return None  # unknown for ever
        error = task.exception()
        if error is None:
            if asked is not None:
                asked.ok(task.result())
            return task.result()
        if not isinstance(error, errors.JidoError):
            raise error
        if asked is not None:
            (asked.failed if is_known(error) else asked.unknown)(type(error).__name__)
        return None

    # -- what they do ----------------------------------------------------------------------------------------

    async def register(self, name: str) -> None:
        key = self._random.choice(["r0", "r1", "r2"])
        draw = self._random.random()
        if draw < 0.5:
            await self._ask(self.recording.ask(name, "read", key), lambda node: node.agent(Register, key).read())
        elif draw < 0.8:
            value = self.unique()
            await self._ask(
                self.recording.ask(name, "write", key, value),
                lambda node: node.call(node.agent(Register, key).write, value, timeout=PATIENCE_S),
            )
        else:
            expected = await self._ask(None, lambda node: node.agent(Register, key).read())
            if expected is not None:
                value = self.unique()
                await self._ask(
                    self.recording.ask(name, "cas", key, [expected, value]),
                    lambda node: node.call(node.agent(Register, key).exchange, expected, value, timeout=PATIENCE_S),
                )

    async def counter(self, name: str) -> None:
        """The same call again, with its key, until it is answered: it counts once."""
        key = self._random.choice(["c0", "c1"])
        if self._random.random() < 0.3:
            await self._ask(self.recording.ask(name, "read", key), lambda node: node.agent(Counter, key).read())
            return
        amount, once = self._random.randint(1, 9), self.unique()
        asked = self.recording.ask(name, "increment", key, amount)
        for _ in range(4):
            answer = await self._ask(None, lambda node: node.call(node.agent(Counter, key).add, amount, timeout=PATIENCE_S, idempotency_key=once))
            if answer is not None:
                asked.ok(answer)
                return

    async def bank(self, name: str) -> None:
        one, other = self._random.sample([f"a{n}" for n in range(ACCOUNTS)], 2)
        amount = self._random.randint(1, 40)
        asked = self.recording.ask(name, "transfer", "bank", {"from": one, "to": other, "amount": amount})
        await self._ask(asked, lambda node: node.call(node.agent(Account, one).send, other, amount, timeout=PATIENCE_S))

    async def emitter(self, name: str) -> None:
        key, word = self._random.choice(["e0", "e1"]), self.unique()
        await self._ask(self.recording.ask(name, "say", key, word), lambda node: node.call(node.agent(Emitter, key).say, word, timeout=PATIENCE_S))

    async def bells(self, name: str) -> None:
        key, word, after = self._random.choice(["b0", "b1"]), self.unique(), self._random.uniform(0.5, 8)
        await self._ask(
            self.recording.ask(name, "ring", key, word), lambda node: node.call(node.agent(Bell, key).ring, word, after, timeout=PATIENCE_S)
        )
