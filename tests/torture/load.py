"""The process that is killed: a platform under load, which tells its parent what it asks for and what was answered.

One line of JSON each, written before the next thing happens: ["?", operation, kind, agent, keyed] before it is asked for,
["!", operation, reply] when it is answered, ["x", operation, error] when it was refused. The parent reads to the last
byte that was written, whenever the process died.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import Iterator
from itertools import count
from typing import Any

from jidosystem import JidoError, Platform
from tests.torture.books import RELAYS
from tests.torture.program import ACCOUNTS, AGENTS, CONFIG, Account, Ticker, account

CALLERS = 24
WEIGHTS = {"deposit": 4, "transfer": 5, "relay": 3, "promise": 2, "nest": 2, "post": 1, "toss": 1, "publish": 2, "refuse": 1}
KEYED = {"deposit", "transfer", "relay", "promise", "nest"}
LIFE = 1_000_000
"""Operations of one life have numbers of their own."""


def tell(*line: object) -> None:
    """Write a line to the parent, whole or, if death comes first, in part."""
    os.write(1, json.dumps(line, separators=(",", ":")).encode() + b"\n")


class Load:
    """The callers of one life."""

    def __init__(self, platform: Platform, life: int, seed: int) -> None:
        self.platform = platform
        self.random = random.Random(seed)
        self.numbers: Iterator[int] = count(life * LIFE + 1)

    async def run(self, again: list[tuple[int, str, str]]) -> None:
        """First what the last life left open, with the same keys; then whatever comes, until death."""
        ready = self.platform.agent(Ticker, "t")
        await ready.begin()
        async with asyncio.TaskGroup() as callers:
            for number, kind, agent in again:
                callers.create_task(self._once(number, kind, agent, keyed=True))
            for _ in range(CALLERS):
                callers.create_task(self._caller())

    async def _caller(self) -> None:
        kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
        while True:
            [kind] = self.random.choices(kinds, weights)
            keyed = kind in KEYED and self.random.random() < 0.5
            # Nested calls go upwards only, so that no two agents wait for each other; the last one has nobody above it.
            agent = account(self.random.randrange(ACCOUNTS - (kind == "nest")))
            await self._once(next(self.numbers), kind, agent, keyed=keyed)

    async def _once(self, number: int, kind: str, agent: str, *, keyed: bool) -> None:
        tell("?", number, kind, agent, keyed)
        try:
            reply = await getattr(self, f"_{kind}")(number, agent, f"k{number}" if keyed else None)
        except JidoError as error:
            tell("x", number, f"{type(error).__name__}: {error}")
        else:
            tell("!", number, reply)

    # -- one operation of each kind; everything follows from its number, so that a repetition is the same -----------------

    def _other(self, number: int, agent: str, least: int = 0) -> str:
        others = [account(n) for n in range(least, ACCOUNTS) if account(n) != agent]
        return others[number * 7919 % len(others)]

    async def _deposit(self, number: int, agent: str, key: str | None) -> int:
        return await self.platform.call(self.platform.agent(Account, agent).deposit, number, number % 100, idempotency_key=key)

    async def _transfer(self, number: int, agent: str, key: str | None) -> int:
        to = self._other(number, agent)
        return await self.platform.call(self.platform.agent(Account, agent).transfer, number, to, number % 100, idempotency_key=key)

    async def _relay(self, number: int, agent: str, key: str | None) -> int:
        path = [self._other(number + hop, agent) for hop in range(RELAYS)]
        return await self.platform.call(self.platform.agent(Account, agent).relay, number, path, idempotency_key=key)

    async def _promise(self, number: int, agent: str, key: str | None) -> int:
        return await self.platform.call(self.platform.agent(Account, agent).promise, number, number % 10 / 20, idempotency_key=key)

    async def _nest(self, number: int, agent: str, key: str | None) -> int:
        other = self._other(number, agent, int(agent[1:]) + 1)
        return await self.platform.call(self.platform.agent(Account, agent).nest, number, other, idempotency_key=key)

    async def _post(self, number: int, agent: str, _key: str | None) -> None:
        await self.platform.cast(self.platform.agent(Account, agent).receive, number, number % 100, durable=True)

    async def _toss(self, number: int, agent: str, _key: str | None) -> None:
        await self.platform.cast(self.platform.agent(Account, agent).receive, number, number % 100)
        await asyncio.sleep(0)

    async def _publish(self, number: int, _agent: str, _key: str | None) -> int:
        event = await self.platform.events.publish("t.published", {"op": number}, stream="outside")
        return event.position

    async def _refuse(self, number: int, agent: str, _key: str | None) -> int:
        return await self.platform.agent(Account, agent).refuse(number, self._other(number, agent))


async def main(path: str, life: int, seed: int, again: list[Any]) -> None:
    """Be killed, sooner or later."""
    async with Platform(f"sqlite:///{path}", agents=AGENTS, config=CONFIG) as platform:
        tell("ready")
        await Load(platform, life, seed).run(again)


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    if told["uvloop"]:
        import uvloop

        uvloop.run(main(told["path"], told["life"], told["seed"], told["again"]))
    else:
        asyncio.run(main(told["path"], told["life"], told["seed"], told["again"]))
