"""One life of a process under load, ended from outside; and the books that it leaves. Run by test_kill.py."""

import asyncio
import json
import sys

from jidosystem import Agent, Platform, action

SENDERS, RECEIVERS = 20, 7


class Worker(Agent):
    """Counts what it does, and causes as much as it does."""

    hits: int = 0
    received: int = 0
    fired: int = 0
    keyed: int = 0

    @action
    async def hit(self) -> int:
        self.hits += 1
        self.cast(self.agent(Worker, f"r{self.hits % RECEIVERS}").receive)
        self.emit("worker.hit", {"who": self.key, "number": self.hits})
        if self.hits % 5 == 0:
            self.remind(f"after {self.hits}", after=0.05, action=self.fire)
        return self.hits

    @action
    async def hit_once(self) -> int:
        self.keyed += 1
        return self.keyed

    @action
    async def receive(self) -> None:
        self.received += 1

    @action
    async def fire(self) -> None:
        self.fired += 1

    @action(readonly=True)
    async def book(self) -> dict[str, int]:
        return {"hits": self.hits, "received": self.received, "fired": self.fired, "keyed": self.keyed, "reminders": len(self.reminders)}


async def load(platform: Platform) -> None:
    """Call for ever; each answer is told on standard output once it came."""

    async def caller(number: int) -> None:
        ref = platform.agent(Worker, f"s{number}")
        while True:
            hits = await ref.hit()
            keyed = await platform.call(ref.hit_once, idempotency_key=f"{hits // 2}")
            sys.stdout.write(f"s{number} {hits} {keyed}\n")
            sys.stdout.flush()

    await asyncio.gather(*(caller(number) for number in range(SENDERS)))


async def settle(platform: Platform) -> dict[str, object]:
    """Nobody calls anybody: what was pending is done within two seconds, or isn't."""
    await asyncio.sleep(1.8)
    books = {}
    for key in [*(f"s{i}" for i in range(SENDERS)), *(f"r{i}" for i in range(RECEIVERS))]:
        books[key] = await platform.agent(Worker, key).book()
    events = [(e.data["who"], e.data["number"]) async for e in platform.events.read_all("worker.hit")]
    return {
        "books": books,
        "events": len(events),
        "different": len(set(events)),
        "letters": len(await platform.dead_letters.list()),
        "damage": await platform.verify(),
    }


async def main(path: str, what: str) -> None:
    """`load` or `settle` on a store."""
    async with Platform(f"sqlite:///{path}", agents=[Worker]) as platform:
        if what == "load":
            await load(platform)
        else:
            print(json.dumps(await settle(platform)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
