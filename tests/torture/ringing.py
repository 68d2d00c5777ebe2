"""One life of a process that sets reminders without end, ended from outside; or (`settle`) what they came to. Run by test_reminder_kills.py."""

from __future__ import annotations

import asyncio
import json
import sys

from jidosystem import Agent, Platform, action

BELLS = 8
DELAY_S = 0.15


class Bell(Agent):
    """Is set to ring, again and again."""

    was_set: int = 0
    rung: int = 0

    @action
    async def set_once_more(self) -> int:
        self.was_set += 1
        self.remind(f"ring {self.was_set}", after=DELAY_S, action=self.ring, args={"number": self.was_set})
        return self.was_set

    @action
    async def ring(self, number: int) -> None:
        self.rung += 1
        self.emit("bell.rung", {"who": self.key, "number": number})

    @action(readonly=True)
    async def books(self) -> tuple[int, int, int]:
        return self.was_set, self.rung, len(self.reminders)


async def load(platform: Platform) -> None:
    """Set reminders for ever, a few of them waiting at any time; each that was acknowledged is told."""

    async def caller(key: str) -> None:
        while True:
            number = await platform.agent(Bell, key).set_once_more()
            sys.stdout.write(f"{key} {number}\n")
            sys.stdout.flush()
            await asyncio.sleep(0.005)

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.gather(*(caller(f"b{number}") for number in range(BELLS)))


async def settle(platform: Platform) -> dict[str, object]:
    """Nobody sets anything: what was set rings within two seconds, or never."""
    async with asyncio.timeout(20):
        rung: dict[str, list[int]] = {f"b{number}": [] for number in range(BELLS)}
        await asyncio.sleep(DELAY_S + 1.8)
        async for event in platform.events.read_all("bell.rung"):
            rung[event.data["who"]].append(event.data["number"])
        books = {key: await platform.agent(Bell, key).books() for key in rung}
        return {"books": books, "rung": rung, "damage": await platform.verify(), "letters": len(await platform.dead_letters.list())}


async def main(path: str, what: str) -> None:
    """`load` or `settle` on a store."""
    async with Platform(f"sqlite:///{path}", agents=[Bell]) as platform:
        if what == "load":
            await load(platform)
        else:
            print(json.dumps(await settle(platform)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
