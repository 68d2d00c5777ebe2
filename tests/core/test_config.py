from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from jidosystem.backends.memory import MemoryRecords
from jidosystem.backends.sqlite import open_store
from jidosystem.core.clock import SystemClock
from jidosystem.core.codec import encode
from jidosystem.core.config import ADDRESS, MAX_HISTORY, Config
from jidosystem.core.config_schema import FIXED, SECTIONS
from jidosystem.core.errors import InvalidConfig, InvalidPattern, RecordUnreadable
from tests.core.bench import Store, until


def plain(given: dict[str, Any] | None = None, **environ: str) -> Config:
    return Config(given, environ=environ, file=None)


async def loaded(records: MemoryRecords, given: dict[str, Any] | None = None, **rest: Any) -> Config:
    config = Config(given, environ={}, file=None, **rest)
    await config.load(records, SystemClock())
    return config


@pytest.fixture
async def records() -> AsyncIterator[MemoryRecords]:
    store = MemoryRecords()
    yield store
    await store.close()


class Database(BaseModel):
    host: str = "localhost"
    port: int = Field(default=5432, gt=0)


class Shop(BaseModel):
    model_config = ConfigDict(extra="forbid")

    currency: str = "EUR"
    markets: list[str] = []
    db: Database = Database()


# -- sources -------------------------------------------------------------------------------------------------------


def test_defaults_are_those_of_the_contract() -> None:
    config = plain()
    assert config.agents.default_timeout == 30
    assert config.agents.max_queue_size == 10_000
    assert config.agents.supervision_strategy == "one_for_one"
    assert config.agents.idempotency_retention == 86_400
    assert config.agents.idempotency_max_keys == 100_000
    assert config.agents.max_pending_effects == 1_000
    assert config.agents.max_live == 1_000_000
    assert config.agents.idle_timeout == 600
    assert config.platform.deployment_type == "local"
    assert config.platform.shutdown_timeout == 20
    assert config.infrastructure.circuit_breaker_threshold == 5
    assert config.infrastructure.metrics_port is None
    assert config.infrastructure.durability == "full"


def test_the_store_is_what_the_url_says() -> None:
    assert Config(url="sqlite:///x.db", environ={}, file=None).get("infrastructure.event_store_backend") == "sqlite"
    assert plain().get("infrastructure.event_store_backend") == "memory"


def test_a_store_that_contradicts_the_url_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="as the platform's URL is"):
        plain({"infrastructure.event_store_backend": "sqlite"})


def test_keyword_arguments_beat_variables_beat_the_file(tmp_path: Path) -> None:
    file = tmp_path / "jido.toml"
    file.write_text("[agents]\ndefault_timeout = 1\nidle_timeout = 1\nmax_live = 1\n")
    environ = {"JIDO_AGENTS__IDLE_TIMEOUT": "2", "JIDO_AGENTS__MAX_LIVE": "2"}
    config = Config({"agents.max_live": 3}, environ=environ, file=file)
    assert (config.agents.default_timeout, config.agents.idle_timeout, config.agents.max_live) == (1, 2, 3)


def test_text_is_parsed_where_it_comes_from_a_variable_and_nowhere_else() -> None:
    config = plain(None, JIDO_AGENTS__CHECKING_MODE="true", JIDO_INFRASTRUCTURE__METRICS_PORT="0", JIDO_AGENTS__DEFAULT_TIMEOUT="1.5")
    assert config.agents.checking_mode is True
    assert config.infrastructure.metrics_port == 0
    assert config.agents.default_timeout == 1.5
    with pytest.raises(InvalidConfig):
        plain({"agents.default_timeout": "1.5"})


def test_other_variables_are_none_of_our_business() -> None:
    assert plain(None, HOME="/", JIDO_HOME="x", JIDOSYSTEM__X="y").agents == plain().agents


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("agents.default_timeout", 0), ("agents.default_timeout", -1), ("agents.default_timeout", float("nan")),
        ("agents.default_timeout", float("inf")), ("agents.default_timeout", True), ("agents.default_timeout", None), ("agents.max_live", 0),
        ("agents.max_live", 1.5), ("agents.supervision_strategy", "one_for_none"), ("agents.checking_mode", 1), ("platform.cluster_name", ""),
        ("infrastructure.metrics_port", 65_536), ("infrastructure.durability", "none"), ("platform.deployment_type", "moon"),
        ("agents.max_live", {"x": 1}), ("agents.max_live", 10**30),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_path_value_and_what_is_allowed(path: str, value: Any) -> None:
    with pytest.raises(InvalidConfig) as refused:
        plain({path: value})
    error = refused.value
    assert error.path == path
    assert error.value is value
    assert error.allowed
    assert path in str(error)
    assert repr(value) in str(error)


@pytest.mark.parametrize(
    ("path", "hint"), [("agents.default_timeot", "default_timeout"), ("agnets.default_timeout", "agents"), ("agents", ""), ("agents.", "")]
)
def test_an_unknown_key_is_refused_with_a_near_name(path: str, hint: str) -> None:
    with pytest.raises(InvalidConfig, match=f"there is no.*{hint}"):
        plain({path: 1})
    with pytest.raises(InvalidConfig, match="there is no"):
        plain().get(path)


@pytest.mark.parametrize("section", ["payments", "tenants", "clients", "nats"])
def test_a_section_of_the_applications_own_is_no_misspelling(section: str) -> None:
    assert plain({f"{section}.limit": 1}).agents.default_timeout == 30


def test_a_variable_with_one_underscore_is_a_mistake() -> None:
    with pytest.raises(InvalidConfig, match="JIDO_AGENTS__DEFAULT_TIMEOUT"):
        plain(None, JIDO_AGENTS_DEFAULT_TIMEOUT="1")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("# first\n[agents]\nmax_live = 1\n  default_timeout = -1\n", 4),
        ('[agents]\n"default_timeout" = "x"\n', 2),
        ("agents.default_timeout = -1\n", 1),
        ("[platform]\ndefault_timeout = 1\n[agents]\nmax_live = 3 # default_timeout = 5\ndefault_timeout = 0", 2),
    ],
)
def test_the_file_and_line_of_a_wrong_value_are_named(tmp_path: Path, text: str, line: int) -> None:
    file = tmp_path / "jido.toml"
    file.write_text(text)
    with pytest.raises(InvalidConfig, match=rf"jido\.toml:{line}\b"):
        Config(environ={}, file=file)


@pytest.mark.parametrize(
    "content", [b"[agents\n", b"\xff\xfe", b"x = 1\n", b"agents = 3\n", b"[agents]\nmax_live = 1\nmax_live = 2\n", b"a = " + b"[" * 5_000]
)
def test_a_file_that_cant_be_read_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "jido.toml"
    file.write_bytes(content)
    with pytest.raises(InvalidConfig, match=r"jido\.toml"):
        Config(environ={}, file=file)


def test_a_file_that_is_a_directory_or_missing_is_no_file(tmp_path: Path) -> None:
    assert Config(environ={}, file=tmp_path).agents == Config(environ={}, file=tmp_path / "none.toml").agents


def test_sections_cant_be_assigned() -> None:
    config = plain()
    with pytest.raises(InvalidConfig, match="update"):
        config.agents.default_timeout = 1
    assert config.agents.default_timeout == 30


# -- updates -------------------------------------------------------------------------------------------------------


async def test_an_update_is_seen_by_whoever_holds_the_section(records: MemoryRecords) -> None:
    config = await loaded(records)
    held = config.agents
    assert await config.update("agents.default_timeout", 5) == 1
    assert held.default_timeout == 5
    assert config.get("agents.default_timeout") == 5


async def test_an_update_is_there_after_a_restart_and_beats_every_other_source(records: MemoryRecords) -> None:
    config = await loaded(records)
    await config.update("agents.default_timeout", 5)
    again = await loaded(records, {"agents.default_timeout": 7})
    assert again.agents.default_timeout == 5
    assert [(version.version, version.path) for version in again.history()] == [(1, "agents.default_timeout")]


async def test_updates_survive_in_a_file(tmp_path: Path) -> None:
    for expected, value in ((30.0, 1.0), (1.0, 2.0), (2.0, 3.0)):
        store = await open_store(str(tmp_path / "x.db"))
        config = Config(environ={}, file=None)
        await config.load(store, SystemClock())
        assert config.agents.default_timeout == expected
        await config.update("agents.default_timeout", value)
        await store.close()


async def test_what_is_refused_changes_nothing(records: MemoryRecords) -> None:
    config = await loaded(records)
    told: list[Any] = []
    config.on_change("**", lambda *change: told.append(change))
    for path, value in (
        ("agents.default_timeout", "5"),
        ("agents.nothing", 1),
        ("nothing.at", 1),
        ("agents.max_live", object()),
        ("agents.max_live.x", 1),
    ):
        with pytest.raises(InvalidConfig):
            await config.update(path, value)
    assert config.agents == plain().agents
    assert config.history() == []
    assert told == []
    assert await records.read(ADDRESS) is None


@pytest.mark.parametrize("path", sorted(FIXED))
async def test_what_is_fixed_while_running_is_refused(records: MemoryRecords, path: str) -> None:
    config = await loaded(records)
    with pytest.raises(InvalidConfig, match="can't change while the platform runs"):
        await config.update(path, config.get(path))


async def test_an_update_before_the_platform_runs_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="once its platform runs"):
        await plain().update("agents.default_timeout", 5)


async def test_rollback_is_a_new_version_and_to_nothing_is_possible(records: MemoryRecords) -> None:
    config = await loaded(records)
    await config.update("agents.default_timeout", 5)
    await config.update("agents.max_live", 7)
    assert await config.rollback(1) == 3
    assert (config.agents.default_timeout, config.agents.max_live) == (5, 1_000_000)
    assert await config.rollback(0) == 4
    assert config.agents == plain().agents
    assert await config.rollback(2) == 5
    assert (config.agents.default_timeout, config.agents.max_live) == (5, 7)
    with pytest.raises(InvalidConfig, match="no version 99"):
        await config.rollback(99)


async def test_history_is_bounded_and_a_copy(records: MemoryRecords) -> None:
    config = await loaded(records)
    for number in range(MAX_HISTORY + 5):
        await config.update("agents.max_live", number + 1)
    history = config.history()
    assert [version.version for version in history] == list(range(6, MAX_HISTORY + 6))
    history[-1].values["agents.max_live"] = 0
    assert config.history()[-1].values["agents.max_live"] == MAX_HISTORY + 5
    with pytest.raises(InvalidConfig, match="no version 5"):
        await config.rollback(5)


async def test_many_updates_at_once_all_happen(records: MemoryRecords) -> None:
    config = await loaded(records)
    numbers = await asyncio.gather(*(config.update("agents.max_live", n) for n in range(1, 51)))
    assert sorted(numbers) == list(range(1, 51))
    assert config.agents.max_live == config.history()[-1].values["agents.max_live"]


# -- another node --------------------------------------------------------------------------------------------------


async def test_an_update_that_meets_another_nodes_keeps_both(records: MemoryRecords) -> None:
    here, there = await loaded(records), await loaded(records)
    told: list[Any] = []
    here.on_change("**", lambda *change: told.append(change))
    await there.update("agents.default_timeout", 5)
    assert await here.update("agents.max_live", 7) == 2
    assert (here.agents.default_timeout, here.agents.max_live) == (5, 7)
    assert sorted(told) == [("agents.default_timeout", 30.0, 5.0), ("agents.max_live", 1_000_000, 7)]


async def test_a_newer_record_is_taken_and_an_older_one_isnt(records: MemoryRecords) -> None:
    here, there = await loaded(records), await loaded(records)
    await there.update("agents.default_timeout", 5)
    first = await records.read(ADDRESS)
    await there.update("agents.default_timeout", 6)
    second = await records.read(ADDRESS)
    assert first is not None
    assert second is not None
    assert here.take(second) == [("agents.default_timeout", 30.0, 6.0)]
    assert here.take(first) == []
    assert here.agents.default_timeout == 6


async def test_rollback_across_a_conflict_takes_back_what_it_should(records: MemoryRecords) -> None:
    here, there = await loaded(records), await loaded(records)
    await here.update("agents.default_timeout", 5)
    await there.update("agents.max_live", 7)
    await here.rollback(0)
    assert here.agents == plain().agents


# -- callbacks -----------------------------------------------------------------------------------------------------


async def test_callbacks_hear_of_what_fits_until_they_are_closed(records: MemoryRecords) -> None:
    config = await loaded(records)
    heard: list[Any] = []
    watch = config.on_change("agents.*", lambda *change: heard.append(change))
    await config.update("agents.max_live", 7)
    await config.update("platform.shutdown_timeout", 1)
    await config.update("agents.max_live", 7)
    watch.close()
    watch.close()
    await config.update("agents.max_live", 8)
    assert heard == [("agents.max_live", 1_000_000, 7)]


async def test_a_callback_that_waits_is_waited_for(records: MemoryRecords) -> None:
    config = await loaded(records)
    heard: list[Any] = []

    async def slow(path: str, old: Any, new: Any) -> None:
        await asyncio.sleep(0)
        heard.append((path, new, config.agents.max_live))

    config.on_change("agents.max_live", slow)
    await config.update("agents.max_live", 7)
    assert heard == [("agents.max_live", 7, 7)]


async def test_a_callback_that_raises_harms_nobody(records: MemoryRecords, caplog: pytest.LogCaptureFixture) -> None:
    config = await loaded(records)
    heard: list[Any] = []

    def broken(*_change: Any) -> None:
        raise RuntimeError("no")

    config.on_change("**", broken)
    config.on_change("**", lambda *change: heard.append(change))
    assert await config.update("agents.max_live", 7) == 1
    assert heard == [("agents.max_live", 1_000_000, 7)]
    assert "RuntimeError: no" in caplog.text


async def test_a_callback_may_update(records: MemoryRecords) -> None:
    config = await loaded(records)

    async def follow(_path: str, _old: Any, new: Any) -> None:
        await config.update("agents.idle_timeout", new * 2)

    config.on_change("agents.default_timeout", follow)
    await config.update("agents.default_timeout", 5)
    assert config.agents.idle_timeout == 10


def test_a_pattern_that_cant_be_is_refused() -> None:
    with pytest.raises(InvalidPattern):
        plain().on_change("agents..x", lambda *_change: None)


# -- sections of the application's own -----------------------------------------------------------------------------


async def test_a_registered_section_takes_all_sources(records: MemoryRecords, tmp_path: Path) -> None:
    file = tmp_path / "jido.toml"
    file.write_text('[shop]\ncurrency = "USD"\nmarkets = ["a"]\n[shop.db]\nhost = "file"\nport = 1\n')
    environ = {"JIDO_SHOP__DB__HOST": "variable", "JIDO_SHOP__MARKETS": '["b", "c"]'}
    config = await asyncio.to_thread(Config, {"shop.currency": "CHF"}, environ=environ, file=file)
    await config.load(records, SystemClock())
    shop = config.register("shop", Shop)
    assert shop == Shop(currency="CHF", markets=["b", "c"], db=Database(host="variable", port=1))
    assert config.section("shop") == shop
    assert config.get("shop.db.host") == "variable"


async def test_an_unregistered_section_is_named_in_the_log(records: MemoryRecords, caplog: pytest.LogCaptureFixture) -> None:
    await loaded(records, {"shop.currency": "CHF"})
    assert "belongs to nobody" in caplog.text
    assert "shop" in caplog.text


async def test_updates_of_an_own_section_are_validated_stored_and_found_when_it_is_registered_again(records: MemoryRecords) -> None:
    config = await loaded(records, models={"shop": Shop})
    heard: list[Any] = []
    config.on_change("shop.*", lambda *change: heard.append(change))
    await config.update("shop.db.port", 6)
    await config.update("shop.currency", "CHF")
    with pytest.raises(InvalidConfig, match="greater than 0"):
        await config.update("shop.db.port", -1)
    with pytest.raises(InvalidConfig, match=r"there is no 'shop\.db\.hots'"):
        await config.update("shop.db.hots", "x")
    assert heard == [("shop.db", Database(), Database(port=6)), ("shop.currency", "EUR", "CHF")]
    again = await loaded(records)
    await again.update("agents.max_live", 7)
    assert again.register("shop", Shop) == Shop(currency="CHF", db=Database(port=6))


async def test_an_update_of_the_whole_replaces_updates_of_its_parts(records: MemoryRecords) -> None:
    config = await loaded(records, models={"shop": Shop})
    await config.update("shop.db.port", 6)
    await config.update("shop.db", {"host": "x"})
    assert config.section("shop").db == Database(host="x")


async def test_a_section_that_doesnt_fit_isnt_registered(records: MemoryRecords) -> None:
    config = await loaded(records, {"shop.db": {"port": "none"}})
    with pytest.raises(InvalidConfig, match=r"shop\.db\.port.*keyword argument"):
        config.register("shop", Shop)
    with pytest.raises(InvalidConfig, match="there is no section"):
        config.section("shop")


@pytest.mark.parametrize("name", ["agents", "Shop", "my-shop", "", "a.b"])
def test_names_that_cant_be_a_section(name: str) -> None:
    with pytest.raises(InvalidConfig):
        plain().register(name, Shop)


def test_something_else_than_a_model_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="BaseModel"):
        plain().register("shop", dict)


def test_a_section_is_registered_once() -> None:
    config = plain(None)
    config.register("shop", Shop)
    config.register("shop", Shop)
    with pytest.raises(InvalidConfig, match="already"):
        config.register("shop", Database)


def test_a_required_value_that_nobody_gives_is_named() -> None:
    class Needs(BaseModel):
        token: str

    with pytest.raises(InvalidConfig, match=r"needs\.token"):
        plain().register("needs", Needs)
    assert plain(None, JIDO_NEEDS__TOKEN="x").register("needs", Needs).token == "x"


# -- bad days ------------------------------------------------------------------------------------------------------


async def test_a_stored_update_that_fits_no_longer_is_left_aside_and_named(records: MemoryRecords, caplog: pytest.LogCaptureFixture) -> None:
    values = {"agents.gone": 1, "agents.max_live": "many", "agents.default_timeout": 5, "old.section": 1}
    head = encode([{"version": 3, "time_s": 0.0, "path": "x", "values": values}])
    await records.commit(ADDRESS, 0, head)
    config = await loaded(records)
    assert (config.agents.default_timeout, config.agents.max_live) == (5, 1_000_000)
    assert "agents.gone" in caplog.text
    assert "agents.max_live" in caplog.text
    assert await config.rollback(0) == 4


@pytest.mark.parametrize("head", [b"", b"\xc1", encode({"x": 1}), encode([1]), encode([{"version": "x"}])])
async def test_a_record_that_cant_be_read_stops_the_start_and_stays(records: MemoryRecords, head: bytes) -> None:
    await records.commit(ADDRESS, 0, head)
    with pytest.raises(RecordUnreadable, match="nothing was changed"):
        await loaded(records)
    record = await records.read(ADDRESS)
    assert record is not None
    assert record.head == head


@given(st.dictionaries(st.sampled_from(["agents.max_live", "agents.idempotency_max_keys", "events.max_dead_letters"]), st.integers(1, 2**53)))
def test_whatever_is_given_is_what_is_read(values: dict[str, int]) -> None:
    config = plain(dict(values))
    assert {path: config.get(path) for path in values} == values
    from_variables = plain(None, **{f"JIDO_{path.upper().replace('.', '__')}": str(value) for path, value in values.items()})
    assert {path: from_variables.get(path) for path in values} == values


@given(
    st.lists(
        st.tuples(st.sampled_from(["agents.max_live", "agents.default_timeout", "platform.shutdown_timeout"]), st.integers(1, 1_000)), max_size=12
    ),
    st.data(),
)
def test_a_rollback_to_any_version_reads_as_it_did_then(updates: list[tuple[str, int]], data: st.DataObject) -> None:
    async def run() -> None:
        store = MemoryRecords()
        config = await loaded(store)
        seen = {0: msgspec.to_builtins([config.agents, config.platform])}
        for path, value in updates:
            number = await config.update(path, value)
            seen[number] = msgspec.to_builtins([config.agents, config.platform])
        target = data.draw(st.sampled_from(sorted(seen)))
        await config.rollback(target)
        assert msgspec.to_builtins([config.agents, config.platform]) == seen[target]
        again = await loaded(store)
        assert msgspec.to_builtins([again.agents, again.platform]) == seen[target]

    asyncio.run(run())


def test_no_key_is_without_a_section() -> None:
    known = {f"{name}.{key}" for name, model in SECTIONS.items() for key in model.__struct_fields__}
    assert known >= FIXED


async def test_a_change_is_seen_through_although_whoever_asked_gives_up() -> None:
    store = Store()
    told: list[tuple[str, Any]] = []
    config = await loaded(store)
    config.on_change("**", lambda path, old, new: told.append((path, new)))
    store.gate = asyncio.Event()
    update = asyncio.create_task(config.update("agents.idle_timeout", 7))
    await until(lambda: store.commits)
    update.cancel()
    with pytest.raises(asyncio.CancelledError):
        await update
    store.gate.set()
    await config.close()
    assert config.agents.idle_timeout == 7
    assert told == [("agents.idle_timeout", 7)]
    assert [version.version for version in config.history()] == [1]


async def test_a_callback_that_never_ends_doesnt_keep_the_platform_from_closing(records: MemoryRecords) -> None:
    config = await loaded(records)
    called = asyncio.Event()

    async def hangs(*_change: Any) -> None:
        called.set()
        await asyncio.Event().wait()

    config.on_change("**", hangs)
    updating = asyncio.create_task(config.update("agents.default_timeout", 7))
    await called.wait()
    async with asyncio.timeout(10):
        await config.close(grace_s=0.01)
    with pytest.raises(asyncio.CancelledError):
        await updating
    assert (await loaded(records)).agents.default_timeout == 7
