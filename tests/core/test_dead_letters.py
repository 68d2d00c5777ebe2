from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from jidosystem.backends.memory import MemoryRecords
from jidosystem.backends.sqlite import open_store
from jidosystem.core.clock import SystemClock
from jidosystem.core.dead_letters import DeadLetter, DeadLetters, Source
from jidosystem.core.errors import CommitUnknown, DeadLettersFull, InvalidArguments, RecordUnreadable, RedriveFailed, StoreUnavailable
from tests.core.bench import Bench, Store


class Clock(SystemClock):
    """A clock that says what it is told."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def time_s(self) -> float:  # type: ignore[override]
        return self.now_s


async def bury(letters: DeadLetters, number: int = 1, source: Source = "cast", name: str = "Bank/1", **rest: Any) -> str:
    return await letters.bury(
        source, name, name, {"number": number}, series="Shop/1", number=number, attempts=3, error=rest.get("error", ValueError("no"))
    )


@pytest.fixture
def letters() -> DeadLetters:
    return DeadLetters(MemoryRecords(), clock=SystemClock())


async def test_a_letter_says_what_failed_how_often_when_and_why() -> None:
    clock = Clock()
    letters = DeadLetters(MemoryRecords(), clock=clock)
    letter_id = await bury(letters, 7)
    [letter] = await letters.list()
    assert letter == DeadLetter(letter_id, "cast", "Bank/1", "Bank/1", "ValueError: no", 3, 1000.0, "Shop/1", 7, {"number": 7})
    assert letter.event is None


async def test_moving_the_same_thing_twice_stores_it_once(letters: DeadLetters) -> None:
    first = await bury(letters, error=ValueError("first"))
    assert await bury(letters, error=ValueError("second")) == first
    assert [letter.error for letter in await letters.list()] == ["ValueError: first"]
    assert len({first, await bury(letters, 2), await bury(letters, name="Bank/2"), await bury(letters, source="reminder")}) == 4


async def test_many_that_move_the_same_thing_at_once_store_it_once(letters: DeadLetters) -> None:
    assert len(set(await asyncio.gather(*(bury(letters) for _ in range(50))))) == 1
    assert len(await letters.list()) == 1


async def test_the_list_is_oldest_first_and_can_be_narrowed() -> None:
    clock = Clock()
    letters = DeadLetters(MemoryRecords(), clock=clock)
    for number in (3, 1, 2):
        clock.now_s += 1
        await bury(letters, number)
    clock.now_s += 1
    await bury(letters, 9, source="reminder", name="close")
    assert [letter.number for letter in await letters.list()] == [3, 1, 2, 9]
    assert [letter.number for letter in await letters.list("cast", limit=2)] == [3, 1]
    assert [letter.number for letter in await letters.list(name="close")] == [9]
    assert await letters.list("event") == []
    with pytest.raises(InvalidArguments, match="'event', 'cast', 'reminder'"):
        await letters.list("nothing")  # type: ignore[arg-type]


async def test_clearing_removes_a_source_or_all_and_says_how_many(letters: DeadLetters) -> None:
    for number in range(5):
        await bury(letters, number)
    await bury(letters, source="reminder")
    with pytest.raises(InvalidArguments):
        await letters.clear("nothing")  # type: ignore[arg-type]
    assert await letters.clear("cast") == 5
    assert await letters.clear() == 1
    assert await letters.clear() == 0
    assert await letters.list() == []


async def test_what_was_cleared_can_come_again(letters: DeadLetters) -> None:
    await bury(letters)
    await letters.clear()
    await bury(letters)
    assert len(await letters.list()) == 1


# -- the limit -----------------------------------------------------------------------------------------------------


async def test_at_the_limit_a_new_letter_is_refused_and_an_old_one_isnt() -> None:
    letters = DeadLetters(MemoryRecords(), clock=SystemClock(), limit=3)
    ids = [await bury(letters, number) for number in range(3)]
    with pytest.raises(DeadLettersFull, match=r"events\.max_dead_letters") as full:
        await bury(letters, 3)
    assert full.value.fields["limit"] == 3
    assert await bury(letters, 1) == ids[1]
    await letters.clear()
    await bury(letters, 3)


async def test_the_limit_holds_however_many_come_at_once_and_after_a_restart() -> None:
    records = MemoryRecords()
    outcomes = await asyncio.gather(
        *(bury(DeadLetters(records, clock=SystemClock(), limit=10), number) for number in range(5)), return_exceptions=True
    )
    assert all(isinstance(outcome, str) for outcome in outcomes)
    letters = DeadLetters(records, clock=SystemClock(), limit=10)
    outcomes = await asyncio.gather(*(bury(letters, number) for number in range(100, 200)), return_exceptions=True)
    assert sum(isinstance(outcome, DeadLettersFull) for outcome in outcomes) == 95
    assert len(await letters.list()) == 10


async def test_a_limit_that_changes_is_asked_each_time() -> None:
    limit = {"is": 1}
    letters = DeadLetters(MemoryRecords(), clock=SystemClock(), limit=lambda: limit["is"])
    await bury(letters, 1)
    with pytest.raises(DeadLettersFull):
        await bury(letters, 2)
    limit["is"] = 2
    await bury(letters, 2)


@pytest.mark.parametrize("how", ["failing", "lying"])
async def test_the_count_is_right_after_a_store_that_failed_or_didnt_know(how: str) -> None:
    records = Store()
    letters = DeadLetters(records, clock=SystemClock(), limit=2)
    setattr(records, how, CommitUnknown("who knows") if how == "lying" else StoreUnavailable("gone"))
    for _ in range(5):
        with pytest.raises((CommitUnknown, StoreUnavailable)):
            await letters.bury("cast", "x", None, {}, series="s", number=len(records.commits), attempts=1, error=ValueError())
        if how == "lying" and len(await letters.list()) == 2:
            break
    setattr(records, how, None)
    room = 2 - len(await letters.list())
    for number in range(room):
        await bury(letters, number)
    with pytest.raises(DeadLettersFull):
        await bury(letters, 99)


# -- running again -------------------------------------------------------------------------------------------------


async def test_the_redriver_of_the_name_goes_before_that_of_the_source(letters: DeadLetters) -> None:
    ran: list[str] = []

    async def by_name(letter: DeadLetter) -> None:
        ran.append(f"name {letter.number}")

    async def by_source(letter: DeadLetter) -> None:
        ran.append(f"source {letter.number}")

    one, other = await bury(letters, 1, name="Bank/1"), await bury(letters, 2, name="Bank/2")
    with pytest.raises(InvalidArguments, match="nobody takes letters of cast 'Bank/1'"):
        await letters.redrive(one)
    letters.register("cast", "", by_source)
    letters.register("cast", "Bank/1", by_name)
    await letters.redrive(one)
    await letters.redrive(other)
    assert ran == ["name 1", "source 2"]
    letters.forget("cast", "")
    letters.forget("cast", "")
    with pytest.raises(InvalidArguments, match="nobody"):
        await letters.redrive(await bury(letters, 3, name="Bank/3"))


async def test_a_redrive_that_fails_can_be_tried_again(letters: DeadLetters) -> None:
    broken = True

    async def redriver(_letter: DeadLetter) -> None:
        if broken:
            raise ValueError("still")

    letters.register("cast", "", redriver)
    letter = await bury(letters)
    for _ in range(2):
        with pytest.raises(ValueError, match="still"):
            await letters.redrive(letter)
    broken = False
    await letters.redrive(letter)
    assert await letters.list() == []


async def test_of_several_letters_one_that_fails_and_one_that_is_not_there_hold_up_no_other(letters: DeadLetters) -> None:
    ran: list[int] = []

    async def redriver(letter: DeadLetter) -> None:
        ran.append(letter.number)
        if letter.number == 2:
            raise ValueError("still")

    letters.register("cast", "", redriver)
    ids = [await bury(letters, number) for number in (3, 2, 1)]
    with pytest.raises(RedriveFailed, match=r"^2 of 4 dead letters weren't redriven: .*; the others were\n") as told:
        await letters.redrive(ids[0], "nothing", *ids[1:], ids[0])
    assert ran == [3, 2, 1]
    assert told.value.failed == {"nothing": "InvalidArguments: there is no dead letter 'nothing'", ids[1]: "ValueError: still"}
    assert [letter.id for letter in await letters.list()] == [ids[1]]


async def test_of_many_letters_that_fail_the_message_tells_the_first(letters: DeadLetters) -> None:
    with pytest.raises(RedriveFailed, match=r"^9 of 9 .* and 4 more\n") as told:
        await letters.redrive(*"abcdefghi")
    assert list(told.value.failed) == list("abcdefghi")


@pytest.mark.parametrize("wrong", [None, 7, ["a", "b"]])
async def test_what_is_no_id_is_told_at_once(letters: DeadLetters, wrong: Any) -> None:
    with pytest.raises(InvalidArguments, match=r"give letter\.id"):
        await letters.redrive(wrong)
    await bury(letters)
    [letter] = await letters.list()
    with pytest.raises(InvalidArguments, match=r"give letter\.id"):
        await letters.redrive("a", letter)  # type: ignore[arg-type]


async def test_a_letter_that_is_cleared_while_it_runs_is_gone(letters: DeadLetters) -> None:
    began, go = asyncio.Event(), asyncio.Event()

    async def redriver(_letter: DeadLetter) -> None:
        began.set()
        await go.wait()

    letters.register("cast", "", redriver)
    running = asyncio.create_task(letters.redrive(await bury(letters)))
    await began.wait()
    assert await letters.clear() == 1
    go.set()
    await running
    assert await letters.list() == []


@pytest.mark.parametrize("letter_id", ["", "nothing", "../x", "x/y", "\u0000"])
async def test_an_unknown_letter_is_said_to_be_unknown(letters: DeadLetters, letter_id: str) -> None:
    with pytest.raises(InvalidArguments, match="there is no dead letter"):
        await letters.redrive(letter_id)


async def test_a_letter_that_cant_be_read_is_named_and_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    records = MemoryRecords()
    letters = DeadLetters(records, clock=SystemClock())
    await records.commit("jido.dead_letter/bad", 0, b"\xc1")
    letter = await bury(letters)
    assert [one.id for one in await letters.list()] == [letter]
    assert "jido.dead_letter/bad" in caplog.text
    with pytest.raises(RecordUnreadable, match=r"jido\.dead_letter/bad"):
        await letters.redrive("bad")
    assert await letters.clear("cast") == 1
    assert await records.read("jido.dead_letter/bad") is not None
    assert await letters.clear() == 1


async def test_letters_survive_in_a_file(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    async with AsyncExitStack() as stack:
        store = await open_store(path)
        stack.push_async_callback(store.close)
        letter = await bury(DeadLetters(store, clock=SystemClock()), 5)
    async with AsyncExitStack() as stack:
        store = await open_store(path)
        stack.push_async_callback(store.close)
        again = DeadLetters(store, clock=SystemClock())
        assert [(one.id, one.number) for one in await again.list()] == [(letter, 5)]
        assert await again.clear() == 1


async def test_a_thousand_letters_are_listed_and_cleared() -> None:
    async with AsyncExitStack() as stack:
        bench = Bench(stack)
        for number in range(1_500):
            await bury(bench.letters, number)
        assert len(await bench.letters.list()) == 1_500
        assert await bench.letters.clear() == 1_500
