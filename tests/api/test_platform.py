"""`Platform(…)`: what it refuses, and how clearly; configuration that is applied while it runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from jidosystem import Agent, CallTimeout, DefinitionError, InvalidConfig, JidoError, MailboxFull, OutboxFull, Platform, ShuttingDown, action
from jidosystem.core.errors import NoHost
from tests.runtime.harness import settle


class Slow(Agent):
    value: int = 0

    @action
    async def wait(self, seconds: float = 60) -> None:
        await asyncio.sleep(seconds)

    @action
    async def cast_many(self, count: int) -> None:
        for _ in range(count):
            self.cast(self.agent(Slow, "other").add)

    @action
    async def add(self) -> int:
        self.value += 1
        return self.value


def namesake() -> type[Agent]:
    class Slow(Agent):
        pass

    return Slow


@pytest.mark.parametrize("url", ["", "counter.db", "sqlite:counter.db", "sqlite://counter.db", "sqlite:///", "mysql://x/y", "memory", "memory://x"])
def test_a_url_that_is_none_is_refused_with_those_that_are(url: str) -> None:
    with pytest.raises(InvalidConfig, match=r"isn't a store's URL: use \"memory://\"") as caught:
        Platform(url)
    assert (caught.value.path, caught.value.value) == ("url", url)


async def test_a_directory_that_isnt_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(JidoError, match="nowhere"):
        async with Platform(f"sqlite:///{tmp_path}/nowhere/agents.db"):
            pass


async def test_two_classes_of_one_name_are_both_named() -> None:
    with pytest.raises(DefinitionError, match=r"two agent classes are named 'Slow'.*test_platform\.Slow and .*namesake"):
        async with Platform(agents=[Slow, namesake()]):
            pass


async def test_what_is_no_agent_class_is_refused() -> None:
    with pytest.raises(NoHost, match="isn't an agent class"):
        async with Platform(agents=[dict]):  # type: ignore[list-item]
            pass


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"agents.default_timeout": -1}, r"agents\.default_timeout = -1"),
        ({"agents.default_timeout": "soon"}, r"agents\.default_timeout = 'soon'"),
        ({"agents.defualt_timeout": 1}, "did you mean 'agents.default_timeout'"),
        ({"agnets.default_timeout": 1}, "did you mean 'agents'"),
        ({"infrastructure.durability": "perhaps"}, r"infrastructure\.durability = 'perhaps'"),
    ],
)
async def test_a_wrong_value_stops_the_start_naming_path_and_value(config: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidConfig, match=says):
        async with Platform(config=config):
            pass


async def test_a_start_that_fails_leaves_nothing_open(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/agents.db"
    with pytest.raises(DefinitionError):
        async with Platform(url, agents=[Slow, namesake()]):
            pass
    async with Platform(url) as platform:
        assert await platform.agent(Slow, "a").add() == 1


async def test_a_platform_is_entered_first_and_once() -> None:
    platform = Platform()
    for use in (lambda: platform.agent(Slow, "a"), lambda: platform.agents, lambda: platform.events, lambda: platform.config):
        with pytest.raises(ShuttingDown, match="hasn't been entered"):
            use()
    async with platform:
        with pytest.raises(InvalidConfig, match="entered once"):
            await platform.__aenter__()
    with pytest.raises(InvalidConfig, match="entered once"):
        await platform.__aenter__()


# -- hot -----------------------------------------------------------------------------------------------------------


async def test_the_default_timeout_is_applied_to_the_next_call() -> None:
    async with Platform() as platform:
        await platform.config.update("agents.default_timeout", 0.02)
        with pytest.raises(CallTimeout):
            await asyncio.wait_for(platform.agent(Slow, "a").wait(0.2), 5)


async def test_idle_timeout_and_max_live_are_applied_at_the_next_look() -> None:
    async with Platform() as platform:
        for n in range(10):
            await platform.agent(Slow, str(n)).add()
        platform._node._sweep()
        assert platform._node.live_count == 10
        await platform.config.update("agents.idle_timeout", 1e-6)
        platform._node._sweep()
        assert platform._node.live_count == 0
        await platform.config.update("agents.idle_timeout", 600)
        await platform.config.update("agents.max_live", 2)
        for n in range(10):
            await platform.agent(Slow, str(n)).add()
        assert platform._node.live_count <= 3


async def test_max_pending_effects_is_applied() -> None:
    async with Platform() as platform:
        await platform.config.update("agents.max_pending_effects", 2)
        with pytest.raises(OutboxFull):
            await platform.agent(Slow, "a").cast_many(3)
        await platform.config.update("agents.max_pending_effects", 3)
        await platform.agent(Slow, "a").cast_many(3)


async def test_the_shutdown_timeout_is_applied() -> None:
    async with Platform() as platform:
        running = asyncio.ensure_future(platform.agent(Slow, "a").wait())
        await settle()
        await platform.config.update("platform.shutdown_timeout", 0.02)
    with pytest.raises(ShuttingDown):
        await running


async def test_what_is_fixed_is_taken_at_the_start_and_refused_later() -> None:
    async with Platform(config={"agents.max_queue_size": 1}) as platform:
        ref = platform.agent(Slow, "a")
        calls = [asyncio.ensure_future(ref.wait(0.05)) for _ in range(2)]
        await settle()
        with pytest.raises(MailboxFull):
            await ref.wait()
        with pytest.raises(InvalidConfig, match="can't change while the platform runs"):
            await platform.config.update("agents.max_queue_size", 10)
        await asyncio.gather(*calls)


async def test_a_refused_update_changes_nothing() -> None:
    async with Platform() as platform:
        with pytest.raises(InvalidConfig) as caught:
            await platform.config.update("agents.default_timeout", -1)
        assert (caught.value.path, caught.value.value) == ("agents.default_timeout", -1)
        assert platform.config.get("agents.default_timeout") == 30.0
