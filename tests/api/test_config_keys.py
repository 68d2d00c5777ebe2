"""Keys of the configuration do what they say on a running platform."""

from __future__ import annotations

import asyncio
import json
import logging
from functools import partial
from pathlib import Path

import pytest

from jidosystem import Agent, AgentCrashed, CircuitBreaker, CircuitOpen, Platform, ReadOnlyTurn, Resilience, Transient, action, field, on_start
from jidosystem.backends.sqlite.reader import resolve
from jidosystem.backends.sqlite.statements import Call
from tests.runtime.harness import until_async


class Bank(Agent):
    """Is away."""

    resilience = Resilience(circuit_breaker=CircuitBreaker())

    @action
    async def pay(self) -> None:
        raise Transient("no line")

    @action
    async def say(self) -> None:
        self.log.info("good morning")


async def failures_until_open(platform: Platform, key: str) -> int:
    bank = platform.agent(Bank, key)
    for count in range(20):
        try:
            await bank.pay()
        except Transient:
            continue
        except CircuitOpen:
            return count
    raise AssertionError("it never opened")


async def test_a_breaker_whose_class_says_nothing_opens_at_the_configured_threshold() -> None:
    async with Platform() as platform:
        assert await failures_until_open(platform, "a") == 5
        await platform.config.update("infrastructure.circuit_breaker_threshold", 2)
        assert await failures_until_open(platform, "b") == 2


async def test_a_breaker_whose_class_says_a_threshold_keeps_it() -> None:
    class Patient(Bank):
        """Says so itself."""

        resilience = Resilience(circuit_breaker=CircuitBreaker(threshold=3))

    async with Platform(config={"infrastructure.circuit_breaker_threshold": 1}) as platform:
        patient = platform.agent(Patient, "a")
        for _ in range(3):
            with pytest.raises(Transient):
                await patient.pay()
        with pytest.raises(CircuitOpen):
            await patient.pay()


async def test_log_lines_say_which_cluster_and_environment_they_come_from(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "jidosystem")
    async with Platform(name="n1", config={"platform.cluster_name": "north", "platform.environment": "test"}) as platform:
        await platform.agent(Bank, "a").say()
    line = next(json.loads(record.getMessage()) for record in caplog.records if "good morning" in record.getMessage())
    assert (line["node"], line["cluster"], line["environment"], line["agent"]) == ("n1", "north", "test", "Bank/a")


class Chick(Agent):
    """Counts how often it was started."""

    starts: int = 0
    seen: list[int] = field(default_factory=list)

    @on_start
    async def begin(self) -> None:
        self.starts += 1

    @action(readonly=True)
    async def started(self) -> int:
        return self.starts

    @action(readonly=True)
    async def look(self) -> None:
        self.seen.append(1)

    @action
    async def crash(self) -> None:
        raise GeneratorExit


class Nest(Agent):
    """Says nothing about supervision."""

    @action
    async def hatch(self) -> list[int]:
        return [await self.child(Chick, name).started() for name in ("a", "b")]


async def test_a_parent_whose_class_says_nothing_supervises_by_the_configured_strategy() -> None:
    async with Platform(config={"agents.supervision_strategy": "one_for_all"}) as platform:
        nest = platform.agent(Nest, "n")
        assert await nest.hatch() == [1, 1]
        with pytest.raises(AgentCrashed):
            await platform.agent(Chick, "Nest/n/a").crash()

        async def both_again() -> bool:
            return await nest.hatch() == [2, 2]

        await until_async(both_again)


async def test_checking_mode_is_on_if_the_configuration_says_so() -> None:
    async with Platform(config={"agents.checking_mode": True}) as platform:
        with pytest.raises(ReadOnlyTurn, match="changed seen in place"):
            await platform.agent(Chick, "a").look()
    async with Platform(config={"agents.checking_mode": True}, checking=False) as platform:
        await platform.agent(Chick, "a").look()


@pytest.mark.parametrize(("config", "synchronous"), [({}, 2), ({"infrastructure.durability": "relaxed"}, 1)], ids=["by default", "relaxed"])
async def test_every_commit_is_fsynced_unless_the_configuration_says_otherwise(tmp_path: Path, config: dict[str, str], synchronous: int) -> None:
    async with Platform(f"sqlite:///{tmp_path}/a.db", config=config) as platform:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        ask = Call(partial(resolve, answer), lambda connection: connection.execute("PRAGMA synchronous").fetchone()[0])
        platform._records._put(ask)
        assert await answer == synchronous
