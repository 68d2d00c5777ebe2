"""Closing a platform: what is refused, what is finished, what is cancelled and named, and in which order things end."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jidosystem import Agent, Lifecycle, Platform, ShuttingDown, action, on_start, on_terminate
from tests.runtime.harness import Crashable, PlatformOn, Store, settle, until, until_async

PATIENCE_S = 20.0


class Inside:
    """What the agents of these tests tell; set afresh for each test."""

    events: list[str]
    gate: asyncio.Event


@pytest.fixture(autouse=True)
async def inside() -> AsyncIterator[type[Inside]]:
    Inside.events, Inside.gate = [], asyncio.Event()
    yield Inside
    Inside.gate.set()


class Desk(Agent):
    lifecycle = Lifecycle(shutdown_grace_period=5)
    value: int = 0

    @on_terminate
    async def end(self) -> None:
        self.value += 100
        Inside.events.append(f"end {self.key}")

    @action
    async def add(self) -> int:
        self.value += 1
        return self.value

    @action
    async def wait(self) -> int:
        Inside.events.append("inside")
        await Inside.gate.wait()
        self.value += 1
        return self.value

    @action(readonly=True)
    async def get(self) -> int:
        return self.value


class Hasty(Desk):
    lifecycle = Lifecycle(shutdown_grace_period=0.05)

    @action
    async def refuse_to_stop(self) -> None:
        self.value = 999
        Inside.events.append("inside")
        while not Inside.gate.is_set():
            try:
                await Inside.gate.wait()
            except asyncio.CancelledError:
                continue


async def close(platform: Platform) -> None:
    await asyncio.wait_for(platform.__aexit__(None, None, None), PATIENCE_S)


async def test_no_new_work_is_taken_and_everything_says_so(world: Crashable) -> None:
    platform = await world.start()
    ref = platform.agent(Desk, "a")
    await ref.add()
    await world.close()
    attempts: list[Any] = [
        ref.add(), ref.get(), platform.call(ref.add), platform.call(ref.add, idempotency_key="k"), platform.cast(ref.add),
        platform.agent(Desk, "new").add(), platform.cast(ref.add, durable=True), platform.agents.start(Desk, "new"),
    ]  # fmt: skip
    for attempt in attempts:
        with pytest.raises(ShuttingDown) as caught:
            await attempt
        assert caught.value.outcome_known
    with pytest.raises(ShuttingDown, match=r"^Desk/a: the platform is closed; take the reference from the platform that runs now"):
        await ref.add()


async def test_a_running_turn_is_finished_and_durable_and_what_waits_is_refused(world: Crashable) -> None:
    platform = await world.start()
    ref = platform.agent(Desk, "a")
    running = asyncio.ensure_future(ref.wait())
    await until(lambda: Inside.events)
    waiting = [asyncio.ensure_future(ref.add()) for _ in range(3)]
    await settle()
    closing = asyncio.ensure_future(world.close())
    for call in waiting:
        with pytest.raises(ShuttingDown):
            await call
    with pytest.raises(ShuttingDown, match="is closing"):
        await ref.add()
    assert not closing.done()
    Inside.gate.set()
    assert await running == 1
    await closing
    assert Inside.events == ["inside", "end a"]
    platform = await world.start()
    assert await platform.agent(Desk, "a").get() == 101


async def test_after_the_grace_period_it_is_cancelled_and_rolled_back(world: Crashable) -> None:
    platform = await world.start()
    ref = platform.agent(Hasty, "a")
    await ref.add()
    running = asyncio.ensure_future(ref.wait())
    await until(lambda: Inside.events)
    await world.close()
    with pytest.raises(ShuttingDown, match="rolled back"):
        await running
    assert Inside.events == ["inside", "end a"]
    platform = await world.start()
    assert await platform.agent(Hasty, "a").get() == 101


async def test_the_largest_grace_period_counts_but_not_beyond_the_configured_limit() -> None:
    async with Platform(config={"platform.shutdown_timeout": 0.05}) as platform:
        running = asyncio.ensure_future(platform.agent(Desk, "a").wait())
        await until(lambda: Inside.events)
    with pytest.raises(ShuttingDown):
        await running


async def test_an_action_that_wont_stop_is_named_and_left_behind(world: Crashable, caplog: pytest.LogCaptureFixture) -> None:
    platform = await world.start()
    ref = platform.agent(Hasty, "a")
    await ref.add()
    running = asyncio.ensure_future(ref.refuse_to_stop())
    await until(lambda: Inside.events)
    await world.close()
    with pytest.raises(ShuttingDown):
        await running
    (line,) = [record.getMessage() for record in caplog.records if "didn't stop" in record.getMessage()]
    assert "Hasty/a" in line
    assert "refuse_to_stop" in line
    platform = await world.start()
    assert await platform.agent(Hasty, "a").get() == 1


class Stuck(Agent):
    lifecycle = Lifecycle(shutdown_grace_period=0.05)

    @on_terminate
    async def end(self) -> None:
        Inside.events.append(self.key)
        await Inside.gate.wait()

    @action
    async def ping(self) -> None: ...


async def test_an_on_terminate_that_hangs_is_cancelled_and_named(caplog: pytest.LogCaptureFixture) -> None:
    platform = await Platform().__aenter__()
    for key in "abc":
        await platform.agent(Stuck, key).ping()
    await close(platform)
    assert sorted(Inside.events) == ["a", "b", "c"]
    for key in "abc":
        assert f"Stuck/{key}" in caplog.text


class Sleepless(Agent):
    lifecycle = Lifecycle(shutdown_grace_period=0.05)

    @on_start
    async def begin(self) -> None:
        Inside.events.append("starting")
        await Inside.gate.wait()

    @action
    async def ping(self) -> None: ...


async def test_an_agent_that_is_still_starting_doesnt_hold_it_up() -> None:
    platform = await Platform().__aenter__()
    call = asyncio.ensure_future(platform.agent(Sleepless, "a").ping())
    await until(lambda: Inside.events)
    await close(platform)
    with pytest.raises(ShuttingDown):
        await call


class Chain(Agent):
    lifecycle = Lifecycle(shutdown_grace_period=5)

    @action
    async def call_later(self) -> str:
        Inside.events.append("inside")
        await Inside.gate.wait()
        try:
            return str(await self.agent(Desk, "b").add())
        except ShuttingDown:
            self.emit("chain.refused")
            return "refused"


async def test_a_turn_that_is_finishing_can_begin_nothing_elsewhere_but_what_it_emits_is_kept(world: Crashable) -> None:
    platform = await world.start()
    running = asyncio.ensure_future(platform.agent(Chain, "a").call_later())
    await until(lambda: Inside.events)
    closing = asyncio.ensure_future(world.close())
    await settle()
    Inside.gate.set()
    assert await running == "refused"
    await closing
    platform = await world.start()
    assert [event.type async for event in platform.events.read_all("chain.*")] == ["chain.refused"]


class Sending(Agent):
    @action
    async def send(self) -> None:
        self.cast(self.agent(Desk, "a").add)
        self.remind("soon", action=self.later, after=0.01)

    @action
    async def later(self) -> None:
        Inside.events.append("reminded")


async def test_effects_stay_for_the_next_start(world: Crashable) -> None:
    platform = await world.start()
    busy = asyncio.ensure_future(platform.agent(Desk, "a").wait())
    await until(lambda: Inside.events)
    await platform.agent(Sending, "s").send()  # its cast waits for the busy one
    closing = asyncio.ensure_future(world.close())
    await settle()
    Inside.gate.set()
    assert await busy == 1
    await closing
    platform = await world.start([Desk, Sending])
    await until_async(lambda: counts(platform, 102))  # nobody calls the sender
    await until(lambda: "reminded" in Inside.events)
    assert await platform.dead_letters.list() == []


async def counts(platform: Platform, value: int) -> bool:
    return await platform.agent(Desk, "a").get() == value


async def test_the_store_is_closed_last() -> None:
    class Watched(Store):
        async def close(self) -> None:
            Inside.events.append("store")

    async with PlatformOn(Watched()) as platform:
        await platform.agent(Desk, "a").add()
        await platform.events.subscribe("**", lambda event: None)
    assert Inside.events == ["end a", "store"]


async def test_closing_twice_is_closing_once() -> None:
    platform = await Platform().__aenter__()
    await platform.agent(Desk, "a").add()
    await asyncio.gather(close(platform), close(platform))
    await close(platform)
    assert Inside.events == ["end a"]


async def test_whoever_closes_second_waits_for_the_first() -> None:
    platform = await Platform().__aenter__()
    running = asyncio.ensure_future(platform.agent(Desk, "a").wait())
    await until(lambda: Inside.events)
    first, second = asyncio.ensure_future(close(platform)), asyncio.ensure_future(close(platform))
    await settle()
    assert not second.done()
    Inside.gate.set()
    await asyncio.gather(first, second)
    assert await running == 1


async def test_many_agents_end_side_by_side(file_url: str) -> None:
    platform = await Platform(file_url).__aenter__()
    await asyncio.gather(*(platform.agent(Desk, str(n)).add() for n in range(2_000)))
    await close(platform)
    assert len(Inside.events) == 2_000


# -- a real process ------------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, sys
from jidosystem import Agent, Lifecycle, Platform, action, on_terminate

class Worker(Agent):
    lifecycle = Lifecycle(shutdown_grace_period={grace})
    value: int = 0

    @action
    async def add(self) -> int:
        self.value += 1
        return self.value

    @action
    async def wait(self) -> None:
        print("waiting", flush=True)
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if not {stubborn}:
                    raise

    @on_terminate
    async def end(self) -> None:
        print("terminated", flush=True)

async def main():
    async with Platform({url!r}) as platform:
        print(await platform.agent(Worker, "a").add(), flush=True)
        await platform.agent(Worker, "b").wait()

asyncio.run(main())
"""


class Process:
    """The program, and what it prints."""

    def __init__(self, url: str, *, grace: float, stubborn: bool) -> None:
        self._source = PROGRAM.format(url=url, grace=grace, stubborn=stubborn)

    async def __aenter__(self) -> Process:
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(sys.executable, "-c", self._source, stdout=pipe, stderr=pipe)
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), PATIENCE_S)).decode().strip()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    async def ended(self) -> tuple[int | None, str, str]:
        out, err = await asyncio.wait_for(self.process.communicate(), PATIENCE_S)
        return self.process.returncode, out.decode(), err.decode()


async def test_ctrl_c_closes_in_order(file_url: str) -> None:
    async with Process(file_url, grace=0.1, stubborn=False) as program:
        assert [await program.line(), await program.line()] == ["1", "waiting"]
        program.interrupt()
        _code, out, err = await program.ended()
    assert out.count("terminated") == 2
    assert "KeyboardInterrupt" in err
    async with Platform(file_url) as platform:
        assert (await platform.agents.list(type=make_worker()))[0].turns >= 1


async def test_an_action_that_wont_stop_doesnt_keep_the_process(file_url: str) -> None:
    async with Process(file_url, grace=0.1, stubborn=True) as program:
        assert [await program.line(), await program.line()] == ["1", "waiting"]
        program.interrupt()
        _code, out, err = await program.ended()
    assert out.count("terminated") == 1  # the other agent's; this one's code hadn't stopped
    assert "an action didn't stop when the platform closed" in err


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_second_ctrl_c_ends_at_once_and_nothing_acknowledged_is_lost(file_url: str, *, stubborn: bool) -> None:
    async with Process(file_url, grace=1_000, stubborn=stubborn) as program:
        assert [await program.line(), await program.line()] == ["1", "waiting"]
        program.interrupt()
        await asyncio.sleep(0.3)  # the second one is to find it closing
        program.interrupt()
        await program.ended()
    async with Platform(file_url) as platform:
        assert await platform.agent(make_worker(), "a").add() == 2


def make_worker() -> Any:
    """The program's agent class, as another process sees it."""

    class Worker(Agent):
        value: int = 0

        @action
        async def add(self) -> int:
            self.value += 1
            return self.value

    return Worker
