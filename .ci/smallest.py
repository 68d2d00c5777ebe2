"""The smallest program, run against the installed wheel: state outlives the platform that made it, with core libraries only."""

import asyncio
from importlib.util import find_spec

from jidosystem import Agent, Platform, action


class Counter(Agent):
    """Counts visits."""

    value: int = 0

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value


async def main() -> None:
    """Count once in each of two platforms on one file."""
    for expected in (2, 4):
        async with Platform("sqlite:///counter.db") as platform:
            assert await platform.agent(Counter, "home").add(2) == expected
    assert find_spec("uvloop") is None and find_spec("httpx2") is None, "extras were installed with the core"


if __name__ == "__main__":
    asyncio.run(main())
    print("the wheel installs and runs")
