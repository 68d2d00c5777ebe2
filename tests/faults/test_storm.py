"""Ten thousand reminders are due at once, after a night without a platform: each rings once, and not all at the same time."""

from __future__ import annotations

from pathlib import Path

from jidosystem import Agent, Platform, action
from tests.runtime.harness import until

COUNT = 10_000


class Sleeper(Agent):
    """Wakes once, and tells the log."""

    rung: int = 0

    @action
    async def sleep(self, after_s: float) -> None:
        self.remind("wake", after=after_s, action=self.wake)

    @action
    async def wake(self) -> None:
        self.rung += 1
        self.emit("woke", {"who": self.key, "rung": self.rung})


async def test_a_storm_takes_its_turn_and_calls_go_on_meanwhile(tmp_path: Path) -> None:
    import asyncio

    url, config = f"sqlite:///{tmp_path}/storm.db", {"infrastructure.durability": "relaxed", "agents.max_live": 2_000}
    async with Platform(url, agents=[Sleeper], config=config) as platform:
        platform._node.reminders.close()  # none rings before all are set: the night begins here
        for start in range(0, COUNT, 2_000):
            await asyncio.gather(*(platform.agent(Sleeper, f"s{i}").sleep(0.001) for i in range(start, start + 2_000)))
    woken: set[str] = set()
    doubled: list[str] = []
    most = 0
    async with Platform(url, agents=[Sleeper], config=config) as platform:

        async def note(event: object) -> None:
            who = event.data["who"]  # type: ignore[attr-defined]
            if who in woken or event.data["rung"] != 1:  # type: ignore[attr-defined]
                doubled.append(who)
            woken.add(who)

        await platform.events.subscribe("woke", note, durable="night", start="beginning")

        def looked() -> bool:
            nonlocal most
            most = max(most, platform._node.reminders._firing)
            return len(woken) == COUNT

        await platform.agent(Sleeper, "other").sleep(60.0)
        for _ in range(6):
            try:
                await until(looked, "the storm")
                break
            except AssertionError:
                continue
        assert len(woken) == COUNT
        assert doubled == []
        assert 1 < most <= 1_000
