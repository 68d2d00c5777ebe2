"""One life of a process whose agents read files of numbered lines, ended from outside. Run by test_sensor_kills.py."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from jidosystem import Agent, Item, Platform, action, field, sensor

READERS = 3
BLOCK = 16


def lines_after(path: Path, offset: int) -> list[tuple[int, int]]:
    """Up to a block of whole lines behind an offset, each with the offset of its end."""
    with path.open("rb") as file:
        file.seek(offset)
        found = []
        for line in file.readlines(BLOCK * 8):
            offset += len(line)
            if line.endswith(b"\n"):
                found.append((int(line), offset))
    return found


class Reader(Agent):
    """Takes each line of its file once, in order."""

    last: int = 0
    wrong: list[str] = field(default_factory=list)
    told: int = 0

    @sensor(every=0.005, action="take")
    async def tail(self, position: int = 0) -> AsyncIterator[Item[int]]:
        while lines := lines_after(Path(f"{self.key}.txt"), position):
            for number, position in lines:
                yield Item(number, position=position)

    @sensor(every=0.005, event="line.read")
    async def tell(self, position: int = 0) -> AsyncIterator[Item[int]]:
        while lines := lines_after(Path(f"{self.key}.txt"), position):
            for number, position in lines:
                yield Item(number, position=position)

    @action
    async def take(self, number: int) -> None:
        if number != self.last + 1:
            self.wrong.append(f"{number} after {self.last}")
        self.last = number
        if number % 7 == 0:
            self.cast(self.agent(Reader, "total").count)

    @action
    async def count(self) -> None:
        self.told += 1

    @action(readonly=True)
    async def book(self) -> tuple[int, list[str], int]:
        return self.last, self.wrong, self.told


async def main(path: str, how: str) -> None:
    """`begin` calls every reader; otherwise nobody calls anybody."""
    async with Platform(f"sqlite:///{path}", agents=[Reader]) as platform:
        if how == "begin":
            for number in range(READERS):
                await platform.agents.start(Reader, f"r{number}")
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
