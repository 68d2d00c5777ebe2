"""A platform in a process of its own, told what to do line by line and answering line by line; for faults that need one."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from jidosystem import Agent, JidoError, Platform, action


class Tally(Agent):
    """Counts, and tells the log of it."""

    count: int = 0

    @action
    async def add(self) -> int:
        self.count += 1
        self.emit("tally.added", {"who": self.key, "count": self.count})
        return self.count

    @action(readonly=True)
    async def get(self) -> int:
        return self.count


async def answer(platform: Platform, asked: dict[str, Any]) -> Any:
    """Do one thing."""
    ref = platform.agent(Tally, asked["key"])
    if asked["do"] == "events":
        return [event.data["count"] async for event in platform.events.read_all("tally.added") if event.data["who"] == asked["key"]]
    if asked["do"] == "damage":
        return await platform.verify()
    try:
        return await platform.call(ref.add if asked["do"] == "add" else ref.get, timeout=asked["timeout"])
    except JidoError as error:
        return f"{type(error).__name__}: {error}"


async def main(path: str) -> None:
    """Answer what is asked until standard input ends; questions are answered side by side."""
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with Platform(f"sqlite:///{path}", agents=[Tally]) as platform, asyncio.TaskGroup() as group:

        async def tell(asked: dict[str, Any]) -> None:
            print(json.dumps([asked["number"], await answer(platform, asked)]), flush=True)

        while line := await reader.readline():
            group.create_task(tell(json.loads(line)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
