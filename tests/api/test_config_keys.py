"""Keys of the configuration do what they say on a running platform."""

from __future__ import annotations

import json
import logging

import pytest

from jidosystem import Agent, CircuitBreaker, CircuitOpen, Platform, Resilience, Transient, action


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
