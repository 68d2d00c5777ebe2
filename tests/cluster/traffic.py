"""Clients of a cluster: each asks one thing after another of whichever node, and writes down what it was told.

What can't hurt is asked again until it is answered, as a careful caller does: reads, and increments with an idempotency key. A write without
one is asked for once; it may end unknown, and then the next value is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from jidosystem.testing.checkers import Verdict, check_counters, check_exercised, check_registers, check_sets
from jidosystem.testing.histories import History, Recording

from .asking import Line, Told, owner_of
from .nodes import NodeCluster, NodeProcess

PATIENCE_S = 120.0
"""How long something is asked again before the run has failed."""
AGAIN_S = 0.05
READERS = 8
"""Who read everything in the end, side by side."""
LEAST = 200
"""Operations that were answered: with fewer a run shows nothing."""


class Traffic:
    """Clients, and what they were told.

    Attributes:
        failed: what writers were told that had no effect; a caller without patience would have seen it
        unknown: of how many writes the outcome is unknown
        changed: answers to what changes something
        held_s: how long who waited longest had waited when it was answered
        took_s: by what it was, the longest that something else took which a run measures
    """

    def __init__(self, cluster: NodeCluster, seed: int, keys: int = 12, prefix: str = "k") -> None:
        self.cluster, self.seed = cluster, seed
        self.recording = Recording()
        self.keys = [f"{prefix}{number}" for number in range(keys)]
        self.failed: list[str] = []
        self.unknown: list[str] = []
        self.changed = 0
        self.answered = 0
        self.held_s = 0.0
        self.took_s: dict[str, float] = {}
        self._ending = False

    # -- asking ----------------------------------------------------------------------------------------------

    async def client(self, name: str, pause_s: float) -> None:
        """One client."""
        random, line, number = Random(f"{self.seed} {name}"), Line(), 0
        try:
            while not self._ending:
                number += 1
                key, chosen = random.choice(self.keys), random.random()
                if chosen < 0.35:
                    await self.read(line, random, name, "Register", key)
                elif chosen < 0.65:
                    await self.write(line, random, name, key, f"{name}.{number}")
                elif chosen < 0.9:
                    await self.add(line, random, name, key, f"{name}.{number}")
                else:
                    await self.read(line, random, name, "Counter", key)
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
        finally:
            line.close()

    async def read(self, line: Line, random: Random, name: str, agent: str, key: str) -> Any:
        asked = self.recording.ask(name, "read", f"{agent}/{key}")
        told = await self._until_told(line, random, f"{agent}/{key}/read", {})
        asked.ok(told)
        return told

    async def add(self, line: Line, random: Random, name: str, key: str, op: str) -> None:
        asked, noted = self.recording.ask(name, "increment", f"Counter/{key}"), self.recording.ask(f"{name} to", "add", f"Ledger/{key}", op)
        told = await self._until_told(line, random, f"Counter/{key}/add", {"op": op}, key=f"op-{op}")
        self.changed += 1
        asked.ok(told)
        noted.ok()

    async def write(self, line: Line, random: Random, name: str, key: str, value: str) -> None:
        began = self.recording.now()
        asked = self.recording.ask(name, "write", f"Register/{key}", value)
        told = await line.ask(self._node(random), f"/v1/agents/Register/{key}/write", {"value": value})
        if told.outcome == "ok":
            self.changed += 1
            self._held(began)
            asked.ok()
        elif told.outcome == "failed":
            self.failed.append(str(told.value))
            asked.failed(told.value)
        else:
            self.unknown.append(str(told.value))
            asked.unknown(told.value)

    async def _until_told(self, line: Line, random: Random, path: str, arguments: dict[str, Any], *, key: str = "") -> Any:
        began = self.recording.now()
        last = Told("failed", "nothing was asked")
        while self.recording.now() - began < PATIENCE_S:
            last = await line.ask(self._node(random), f"/v1/agents/{path}", arguments, key=key)
            if last.outcome == "ok":
                self._held(began)
                return last.value
            await asyncio.sleep(AGAIN_S)
        raise AssertionError(f"{path} wasn't answered in {PATIENCE_S:g} s: {last}")

    def _node(self, random: Random) -> NodeProcess:
        return random.choice(self.cluster.taking() or [*self.cluster.nodes.values()])

    def _held(self, began: float) -> None:
        self.answered += 1
        self.held_s = max(self.held_s, self.recording.now() - began)

    # -- faults ----------------------------------------------------------------------------------------------

    def measured(self, what: str, since: float) -> str:
        """How long something took that is over now; in words."""
        took_s = self.recording.now() - since
        self.took_s[what] = round(max(took_s, self.took_s.get(what, 0.0)), 2)
        return f"{what} {took_s:.2f} s"

    async def owned_by(self, node: NodeProcess, asked: NodeProcess, kind: str = "Register") -> list[str]:
        """The keys whose agents a node has claimed, as another node knows it."""
        owners = await asyncio.gather(*(owner_of(asked, f"{kind}/{key}") for key in self.keys))
        return [key for key, owner in zip(self.keys, owners, strict=True) if owner == node.name]

    # -- the end ---------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Everything is read once more, when what counters said has come to the ledgers: nothing is on its way any longer."""
        async with asyncio.TaskGroup() as group:
            for number in range(READERS):
                group.create_task(self._settle(f"last{number}", self.keys[number::READERS]))

    async def _settle(self, name: str, keys: Sequence[str]) -> None:
        line, random = Line(), Random(f"{self.seed} {name}")
        for key in keys:
            await self.read(line, random, name, "Register", key)
            count = await self.read(line, random, name, "Counter", key)
            async with asyncio.timeout(PATIENCE_S):
                while len(await self._until_told(line, random, f"Ledger/{key}/read", {})) < count:
                    await asyncio.sleep(AGAIN_S)
            await self.read(line, random, name, "Ledger", key)
        line.close()

    def verdicts(self, *, operations: int) -> list[Verdict]:
        """What the checkers say of all of it."""
        history = self.recording.history()

        def of(kind: str) -> History:
            return history.where(lambda operation: operation.key.startswith(f"{kind}/"))

        return [
            check_registers(of("Register"), initial=""),
            check_counters(of("Counter")),
            check_sets(of("Ledger")),
            check_exercised(history, operations=operations),
        ]

    def judge(self, *, operations: int = LEAST) -> None:
        """Fail with what is wrong."""
        bad = [str(verdict) for verdict in self.verdicts(operations=operations) if not verdict]
        assert not bad, f"seed {self.seed}\n" + "\n".join(bad)

    async def end(self, least: int) -> None:
        """The clients ask for nothing more, once so much was answered that a verdict says something: a slow machine takes longer for that."""
        deadline = self.recording.now() + PATIENCE_S
        while self.answered < least and self.recording.now() < deadline:
            await asyncio.sleep(AGAIN_S)
        self._ending = True


@asynccontextmanager
async def traffic(
    cluster: NodeCluster, *, seed: int, clients: int = 8, keys: int = 12, pause_s: float = 0.03, least: int = LEAST, prefix: str = "k"
) -> AsyncIterator[Traffic]:
    """Traffic under which a test hurts the cluster; at the end everything is read once more."""
    there = Traffic(cluster, seed, keys, prefix)
    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(there.client(f"c{number}", pause_s))
        yield there
        await there.end(least)
    await there.settle()
