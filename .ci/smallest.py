"""The smallest program, run against the installed wheel: state outlives the platform that made it, with core libraries only."""

import asyncio
from importlib.util import find_spec

from jidosystem import Agent, Platform, action


class Counter(Agent):
    """Counts visits."""

    value: int = 0

    @action
    async def add(self, amount: int = 1) -> int:
        """Count, and say how many it were so far."""
        self.value += amount
        return self.value


async def main() -> None:
    """Count once in each of two platforms on one file."""
    for expected in (2, 4):
        async with Platform("sqlite:///counter.db") as platform:
            assert await platform.agent(Counter, "home").add(2) == expected
    for extra in ("uvloop", "httpx2"):
        assert find_spec(extra) is None, f"{extra} is an extra and was installed with the core"


if __name__ == "__main__":
    asyncio.run(main())
    print("the wheel installs and runs")
