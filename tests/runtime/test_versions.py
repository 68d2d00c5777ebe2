"""State that outlives the class that wrote it: migrations, versions, and failing closed."""

from __future__ import annotations

from typing import Any

import pytest

from jidosystem import Agent, Platform, StateMismatch, action, field, migrate_state
from jidosystem.backends.memory import MemoryRecords
from jidosystem.core.errors import NoHost, RecordUnreadable
from jidosystem.core.records import Row
from jidosystem.runtime.head import decode_head, encode_head
from tests.runtime.harness import PlatformOn, Store


class V1(Agent, name="order"):
    total: int = 0
    note: str = ""

    @action
    async def set(self, total: int) -> None:
        self.total = total

    @action
    async def cast_to(self, key: str) -> None:
        self.cast(self.agent(V1, key).set, 5)


class V2(Agent, name="order", version=2):
    cents: int = 0
    note: str = ""

    @staticmethod
    @migrate_state(from_version=1)
    def to_cents(state: dict[str, Any]) -> dict[str, Any]:
        state["cents"] = state.pop("total") * 100
        return state

    @action(readonly=True)
    async def get(self) -> int:
        return self.cents

    @action
    async def add(self, cents: int) -> int:
        self.cents += cents
        return self.cents


class V3(Agent, name="order", version=3):
    amounts: list[int] = field(default_factory=list)
    note: str = ""

    @staticmethod
    @migrate_state(from_version=1)
    def to_cents(state: dict[str, Any]) -> dict[str, Any]:
        return V2.to_cents(state)

    @staticmethod
    @migrate_state(from_version=2)
    def to_list(state: dict[str, Any]) -> dict[str, Any]:
        return {"amounts": [state["cents"]], "note": state["note"]}

    @action(readonly=True)
    async def get(self) -> list[int]:
        return self.amounts

    @action
    async def add(self, cents: int) -> None:
        self.amounts.append(cents)


class Renamed(Agent, name="order"):
    """Lost a field without a migration."""

    note: str = ""

    @action
    async def write(self, note: str) -> None:
        self.note = note


class Retyped(Agent, name="order"):
    total: list[int] = field(default_factory=list)
    note: str = ""

    @action
    async def add(self) -> None:
        self.total.append(1)


async def write_v1(url: str, total: int = 7) -> None:
    async with Platform(url) as platform:
        await platform.agent(V1, "a").set(total)


async def stored_of(url: str) -> Any:
    async with Platform(url) as platform:
        return await platform._records.read("order/a")


async def test_a_migration_runs_when_the_record_is_read_and_is_stored_with_the_next_change(file_url: str) -> None:
    await write_v1(file_url)
    before = await stored_of(file_url)
    async with Platform(file_url) as platform:
        assert await platform.agent(V2, "a").get() == 700
    assert await stored_of(file_url) == before
    async with Platform(file_url) as platform:
        assert await platform.agent(V2, "a").add(1) == 701
        assert (await platform.agents.describe(platform.agent(V2, "a"))).version == 2
    async with Platform(file_url) as platform:
        assert await platform.agent(V2, "a").get() == 701


async def test_migrations_chain(file_url: str) -> None:
    await write_v1(file_url)
    async with Platform(file_url) as platform:
        ref = platform.agent(V3, "a")
        assert await ref.get() == [700]
        await ref.add(5)
    async with Platform(file_url) as platform:
        assert await platform.agent(V3, "a").get() == [700, 5]


async def test_a_record_of_a_newer_version_is_never_opened_by_older_code(file_url: str) -> None:
    async with Platform(file_url) as platform:
        await platform.agent(V2, "a").add(5)
    before = await stored_of(file_url)
    async with Platform(file_url) as platform:
        with pytest.raises(NoHost, match=r"order/a is of version 2.*version 1") as caught:
            await platform.agent(V1, "a").set(1)
        assert caught.value.fields["needed"] == 2
        with pytest.raises(NoHost):
            await platform.agents.describe(platform.agent(V1, "a"))
    assert await stored_of(file_url) == before


@pytest.mark.parametrize(
    ("cls", "field_name", "method", "advice"),
    [(Renamed, "total", "write", "Add the field, or raise"), (Retyped, "total", "add", "Give the field its old type back, or raise")],
)
async def test_state_that_doesnt_fit_the_class_stops_the_agent_and_is_left_alone(
    file_url: str, cls: Any, field_name: str, method: str, advice: str
) -> None:
    await write_v1(file_url)
    before = await stored_of(file_url)
    async with Platform(file_url) as platform:
        ref: Any = platform.agent(cls, "a")
        arguments = ("x",) if method == "write" else ()
        for _ in range(2):
            with pytest.raises(StateMismatch, match=advice) as caught:
                await getattr(ref, method)(*arguments)
            assert caught.value.field == field_name
        fresh: Any = platform.agent(cls, "b")
        await getattr(fresh, method)(*arguments)  # the others go on
    assert await stored_of(file_url) == before


class Broken(Agent, name="order", version=2):
    cents: int = 0
    note: str = ""

    @staticmethod
    @migrate_state(from_version=1)
    def move(state: dict[str, Any]) -> dict[str, Any]:
        if state["total"] == 7:
            raise KeyError("euros")
        if state["total"] == 8:
            return None  # type: ignore[return-value]
        if state["total"] == 9:
            return {"cents": object(), "note": ""}
        return {"cents": "many", "note": ""}

    @action(readonly=True)
    async def get(self) -> int:
        return self.cents


@pytest.mark.parametrize(("total", "says"), [(7, "KeyError"), (8, "NoneType"), (9, "object"), (10, "cents")])
async def test_a_migration_that_fails_leaves_the_record_alone(file_url: str, total: int, says: str) -> None:
    await write_v1(file_url, total)
    before = await stored_of(file_url)
    async with Platform(file_url) as platform:
        with pytest.raises(StateMismatch, match=says):
            await platform.agent(Broken, "a").get()
    assert await stored_of(file_url) == before


@pytest.mark.parametrize("blob", [b"", b"\xc1", b"nonsense", b"\x95\x63\x01\x01\xc0\xc0", b"\x95\x01\x01\x01\xc4\x02\x81\xc1\xc0"])
async def test_a_record_that_cant_be_read_names_its_agent_and_is_never_written_over(blob: bytes) -> None:
    store = Store()
    await store.commit("order/a", 0, blob)
    async with PlatformOn(store) as platform:
        with pytest.raises(RecordUnreadable, match="order"):
            await platform.agent(V1, "a").set(1)
        with pytest.raises(RecordUnreadable):
            await platform.agents.restart(platform.agent(V1, "a"))
        await platform.agent(V1, "b").set(1)
        assert [info.key for info in await platform.agents.list(type=V1)] == ["a", "b"]
    record = await store.read("order/a")
    assert record is not None
    assert record.head == blob


async def test_a_damaged_row_stops_its_agent_too() -> None:
    inner = MemoryRecords()
    store = Store(inner)
    async with PlatformOn(store) as platform:
        await platform.agent(V1, "a").cast_to("b")
        await platform.agents.stop(platform.agent(V1, "b"))
        await platform.agent(V1, "a").set(3)
    record = await store.read("order/a")
    assert record is not None
    head = decode_head(record.head or b"", "order/a")
    assert head.marks is not None
    head.marks.pending = 1
    damaged = encode_head(head.version, head.turns, head.state, head.marks, None)
    await inner.commit("order/a", record.revision, damaged, [Row("pending", "0000000000000009", b"\xc1")])
    async with PlatformOn(store) as platform:
        with pytest.raises(RecordUnreadable, match="order/a"):
            await platform.agent(V1, "a").set(1)
    again = await store.read("order/a")
    assert again is not None
    assert again.head == damaged
