"""Configuration: typed sections, several sources, validated before anything changes, hot where it can be.

Strength, weakest first: defaults, `jido.toml` in the working directory, `JIDO_*` variables, keyword arguments, stored
updates. A wrong value is refused and what runs keeps the old one. Stored updates are versions in one record, written by
compare-and-set: a node that is told of a newer record takes it as it takes its own.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from .clock import Clock
from .codec import NOT_CARRIED, decode, encode, plain
from .config_schema import (
    FIXED,
    SECTIONS,
    AgentsSection,
    EventsSection,
    InfrastructureSection,
    PlatformSection,
    Setting,
    built,
    keys_of_model,
    refused,
    split,
    value_at,
)
from .config_sources import from_environment, from_file, from_keywords
from .errors import Conflict, InvalidConfig, RecordUnreadable, StoreError, describe
from .events import matcher, set_field
from .near import near
from .observability import logger
from .records import Record, Records
from .shown import short
from .traces import leaves, leaves_at_once

if TYPE_CHECKING:
    from pathlib import Path

ADDRESS = "jido.config/cluster"
MAX_HISTORY = 200
CLOSE_GRACE_S = 5.0
LOOK_EVERY_S = 0.8
"""How often a node of a cluster reads the stored updates again: what another has changed is to be here within a second, and a watch may be silent."""
MISSPELT = 0.8
"""How like one of the platform's own sections a name is to be a misspelling of it: `agent` is, `payments` isn't."""
T = TypeVar("T")
OnChange = Callable[[str, Any, Any], Awaitable[None] | None]
Change = tuple[str, Any, Any]


class ConfigVersion(msgspec.Struct, frozen=True):
    """One stored update, as `history` gives it.

    Attributes:
        version: its number, from 1
        time_s: when, seconds since the epoch
        path: what was changed
        values: all stored updates from then on, by path
    """

    version: int
    time_s: float
    path: str
    values: dict[str, Any]


class ConfigWatch:
    """What `on_change` returns: a callback being called."""

    __slots__ = ("_callbacks", "_entry")

    def __init__(self, callbacks: list[Any], entry: Any) -> None:
        self._callbacks, self._entry = callbacks, entry

    def close(self) -> None:
        """Call no more. Closing twice is no error."""
        if self._entry in self._callbacks:
            self._callbacks.remove(self._entry)


class Config:
    """What `platform.config` is. The platform's sections are attributes, `config.agents.default_timeout`; they can be read, and change through
    `update` alone.
    """

    platform: PlatformSection
    agents: AgentsSection
    infrastructure: InfrastructureSection
    events: EventsSection

    def __init__(
        self,
        given: Mapping[str, Any] | None = None,
        *,
        url: str = "memory://",
        models: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        file: str | Path | None = "jido.toml",
        node: str = "",
    ) -> None:
        """Read everything but stored updates; `InvalidConfig` naming path, value and source. `models`: sections of the application's own."""
        self._node_name = node
        self._models: dict[str, Any] = dict(SECTIONS)
        self._given = [*from_file(file), *from_environment(os.environ if environ is None else environ), *from_keywords(given or {})]
        self._stored: dict[str, Any] = {}
        self._history: list[ConfigVersion] = []
        self._revision = 0
        self._callbacks: list[tuple[Callable[[str], bool], OnChange]] = []
        self._records: Records | None = None
        self._clock: Clock | None = None
        self._lock = asyncio.Lock()
        self._changing: set[asyncio.Task[Any]] = set()
        self._lines = logger("jidosystem.config")
        self._live: dict[str, Any] = {}
        for setting in self._given:
            self._check_given(setting, models or {})
        self._take_engine(url)
        for name in SECTIONS:
            self._live[name] = section = self._built(name, {})
            setattr(self, name, section)
        for name, model in (models or {}).items():
            self.register(name, model)

    def __repr__(self) -> str:
        # Values of an application's own sections may be secrets.
        version = self._history[-1].version if self._history else 0
        changed = (f"{path}={short(value)}" for path, value in self._changed())
        return f"<Config version {version}, sections {', '.join(self._live)}; not at their default: {', '.join(changed) or 'none'}>"

    def _changed(self) -> Iterator[tuple[str, Any]]:
        for name, model in SECTIONS.items():
            usual = model()
            for key in model.__struct_fields__:
                if getattr(self._live[name], key) != getattr(usual, key):
                    yield f"{name}.{key}", getattr(self._live[name], key)

    # -- reading ---------------------------------------------------------------------------------------------------

    @leaves_at_once
    def get(self, path: str) -> Any:
        """The value of `section.key` (in sections of your own also below it). `InvalidConfig` suggesting a near name if there is none."""
        section, key, rest = self._known(path)
        return self._found(path, self._live[section], key, rest)

    def names(self) -> list[str]:
        """The sections, the application's own among them."""
        return list(self._models)

    @leaves_at_once
    def section(self, name: str) -> Any:
        """A whole section as it is now; your own come as their pydantic model."""
        self._known_section(name, name, "")
        return self._live[name]

    def history(self) -> list[ConfigVersion]:
        """Stored updates, the oldest first; at most the last 200."""
        return [msgspec.structs.replace(version, values=dict(version.values)) for version in self._history]

    @leaves_at_once
    def register(self, name: str, model: type[Any]) -> Any:
        """Add a section of your own, a pydantic model, and return it as it is now: it takes what all the sources say of it. `InvalidConfig` naming
        path and source if that doesn't fit, if the name is taken, or if it isn't a word in lower case.
        """
        if not isinstance(name, str) or not name.isidentifier() or name != name.lower():
            raise InvalidConfig(f"{name!r} can't name a section: a word in lower case", path=str(name), value=name, allowed="a word in lower case")
        if name in SECTIONS or self._models.get(name, model) is not model:
            raise InvalidConfig(f"there is a section {name!r} already", path=name, value=model, allowed="another name")
        if not (isinstance(model, type) and (hasattr(model, "model_fields") or issubclass(model, msgspec.Struct))):
            raise InvalidConfig(
                f"section {name!r}: {model!r} isn't derived from pydantic's BaseModel",
                path=name,
                value=model,
                allowed="a class derived from BaseModel",
            )
        self._models[name] = model
        try:
            self._built(name, {})
            section = self._built(name, self._fitting(name))
        except InvalidConfig:
            del self._models[name]
            raise
        self._live[name] = section
        return section

    # -- changing --------------------------------------------------------------------------------------------------

    @leaves
    async def update(self, path: str, value: Any) -> int:
        """Check, store, apply, tell; returns the version's number, after the callbacks of `on_change`. It outlives a restart. `InvalidConfig` with
        path, value and what is allowed: nothing has changed then.
        """
        self._known(path)
        if path in FIXED:
            told = f"{path} can't change while the platform runs: set it in jido.toml, JIDO_* or Platform(config=…)"
            raise InvalidConfig(told, path=path, value=value, allowed="a value set before the start")
        try:
            value = plain(value)
        except NOT_CARRIED as error:
            raise InvalidConfig(f"{path}: {value!r} can't be stored: {error}", path=path, value=value, allowed="what can be stored") from None
        return await self._change(path, lambda stored: {**_without_below(stored, path), path: value})

    @leaves
    async def rollback(self, version: int) -> int:
        """Make the stored updates what they were at a version (0: none); that is a new version, whose number is returned. `InvalidConfig` if there
        is no such version.
        """

        def back(_stored: dict[str, Any]) -> dict[str, Any]:
            found = {} if version == 0 else next((v.values for v in self._history if v.version == version), None)
            if found is None:
                raise InvalidConfig(f"there is no version {version}", path="version", value=version, allowed="0 or one of history()")
            return dict(found)

        return await self._change(f"rollback to {version}", back)

    @leaves_at_once
    def on_change(self, pattern: str, callback: OnChange) -> ConfigWatch:
        """Call `callback(path, old, new)`, a function or coroutine function, after a change of a path that fits the pattern (`agents.*`, `**`),
        on a cluster also of one that another node has made. What it raises is logged and undoes nothing.
        """
        entry = (matcher(pattern), callback)
        self._callbacks.append(entry)
        return ConfigWatch(self._callbacks, entry)

    # -- the store -------------------------------------------------------------------------------------------------

    async def load(self, records: Records, clock: Clock) -> None:
        """Read stored updates and apply them. One that doesn't fit any longer is named in the log and left aside."""
        self._records, self._clock = records, clock
        record = await records.read(ADDRESS)
        if record is not None:
            self.take(record)
        for name in sorted({split(setting.path)[0] for setting in self._given} - set(self._models)):
            self._lines.warning("a section of the configuration belongs to nobody until it is registered", section=name)

    async def close(self, grace_s: float = CLOSE_GRACE_S) -> None:
        """See changes through that are under way, and forget the callbacks; one that doesn't end is cancelled after a while."""
        if self._changing:
            _done, late = await asyncio.wait(self._changing, timeout=grace_s)
            for change in late:
                self._lines.error("a change of the configuration, or a callback of it, didn't end when the platform closed")
                change.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._callbacks.clear()

    def take(self, record: Record) -> list[Change]:
        """Apply a record that was read or watched, if it is newer than what is known; what has changed by it."""
        if record.revision <= self._revision:
            return []
        try:
            history = msgspec.convert(decode(record.head), list[ConfigVersion]) if record.head is not None else []
        except (msgspec.MsgspecError, ValueError) as error:
            raise RecordUnreadable(f"the stored configuration can't be read: {error}; nothing was changed", agent=ADDRESS) from error
        self._revision, self._history = record.revision, history
        self._stored = dict(history[-1].values) if history else {}
        return self._apply({name: self._built(name, self._fitting(name)) for name in self._models})

    async def follow(self, every_s: float = LOOK_EVERY_S) -> None:
        """Apply and tell what other nodes store, without end. A read that is late is given up for a new one: the store may just be back."""
        told = ""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self._look(every_s)
            except (StoreError, RecordUnreadable, TimeoutError) as error:
                if describe(error) != told:
                    told = describe(error)
                    self._lines.warning("what other nodes have changed of the configuration can't be read just now", error=told)
            else:
                told = ""

    async def _look(self, patience_s: float) -> None:
        assert self._records is not None
        async with asyncio.timeout(patience_s):
            record = await self._records.read(ADDRESS)
        if record is not None and record.revision > self._revision:
            async with self._lock:  # a change of this node's own tells what it has changed
                changes = self.take(record)
            self._see_through(self._tell(changes))

    def _see_through(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._changing.add(task)
        task.add_done_callback(self._changing.discard)
        return task

    async def _change(self, path: str, decide: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
        """Seen through even if whoever asks gives up: what is stored is applied and told."""
        return await asyncio.shield(self._see_through(self._store_and_tell(path, decide)))

    async def _store_and_tell(self, path: str, decide: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
        async with self._lock:
            number, changes = await self._store(path, decide)
        await self._tell(changes)
        return number

    async def _store(self, path: str, decide: Callable[[dict[str, Any]], dict[str, Any]]) -> tuple[int, list[Change]]:
        records, clock = self._records, self._clock
        if records is None or clock is None:
            raise InvalidConfig("the configuration can be changed once its platform runs", path=path, value=None, allowed="")
        changes: list[Change] = []
        for _ in range(10):
            values = decide(self._stored)
            sections = {name: self._built(name, _of(name, values)) for name in self._models}
            self._check_found(path, values, sections)
            number = self._history[-1].version + 1 if self._history else 1
            history = [*self._history, ConfigVersion(number, clock.time_s(), path, values)][-MAX_HISTORY:]
            try:
                committed = await records.commit(ADDRESS, self._revision, encode(history))
            except Conflict:  # another node was first: decide again on what it wrote
                record = await records.read(ADDRESS)
                if record is not None:
                    changes += self.take(record)
                continue
            self._revision, self._history, self._stored = committed.revision, history, values
            return number, changes + self._apply(sections)
        raise Conflict(f"{ADDRESS} keeps changing", agent=ADDRESS, expected=self._revision, actual=0)

    def _apply(self, sections: Mapping[str, Any]) -> list[Change]:
        """Put new values into the live sections. The platform's own change in place: whoever holds one sees them."""
        changes: list[Change] = []
        for name, fresh in sections.items():
            live: Any = self._live.get(name)
            for key in keys_of_model(type(fresh)):
                old, new = getattr(live, key, None), getattr(fresh, key)
                if old != new:
                    changes.append((f"{name}.{key}", old, new))
                    if name in SECTIONS:
                        set_field(live, key, new)
            if name not in SECTIONS:
                self._live[name] = fresh
        return changes

    async def _tell(self, changes: Sequence[Change]) -> None:
        for path, old, new in changes:
            for fits, callback in tuple(self._callbacks):
                if not fits(path):
                    continue
                try:
                    result = callback(path, old, new)
                    if inspect.isawaitable(result):
                        await result
                except Exception as error:  # the change stands, and the others are told all the same
                    self._lines.error("a callback of a change failed", path=path, callback=repr(callback), error=describe(error))

    # -- checking --------------------------------------------------------------------------------------------------

    def _check_given(self, setting: Setting, models: Mapping[str, Any]) -> None:
        """An unknown key of the platform's own, or a section that is nearly one of them, is a mistake; others may be registered later."""
        section, key, _rest = split(setting.path)
        if section in SECTIONS:
            self._known(setting.path, setting.source)
        elif section not in models and (not key or near(section, SECTIONS, MISSPELT)):
            self._known_section(section, setting.path, setting.source)

    def _take_engine(self, url: str) -> None:
        path = "infrastructure.event_store_backend"
        engine = "sqlite" if str(url).startswith("sqlite") else "memory"
        for setting in self._given:
            if setting.path == path and setting.value != engine:
                raise refused(path, setting, f"{engine!r}, as the platform's URL is {url!r}")
        self._given.insert(0, Setting(path, engine, "the URL"))

    def _known_section(self, section: str, path: str, source: str) -> None:
        if section not in self._models:
            told = f"there is no section {section!r}{near(section, self._models)}{f' ({source})' if source else ''}"
            raise InvalidConfig(told, path=path, value=None, allowed=", ".join(self._models))

    def _known(self, path: str, source: str = "") -> tuple[str, str, list[str]]:
        section, key, rest = split(path)
        self._known_section(section, path, source)
        keys = keys_of_model(self._models[section])
        if not key:
            where = f" ({source})" if source else ""
            told = f"there is no value {section!r}: it is a section; write {section}.{keys[0] if keys else 'key'} and so on{where}"
            raise InvalidConfig(told, path=path, value=None, allowed=", ".join(f"{section}.{k}" for k in keys))
        if key not in keys:
            told = f"there is no {path!r}{near(key, keys, prefix=f'{section}.')}{f' ({source})' if source else ''}"
            raise InvalidConfig(told, path=path, value=None, allowed=", ".join(f"{section}.{k}" for k in keys))
        if rest and section in SECTIONS:
            told = f"there is no {path!r}: {section}.{key} has nothing below it{f' ({source})' if source else ''}"
            raise InvalidConfig(told, path=path, value=None, allowed=f"{section}.{key}")
        return section, key, rest

    def _found(self, path: str, section: Any, key: str, rest: list[str]) -> Any:
        try:
            return value_at(section, key, rest)
        except (KeyError, TypeError):
            raise InvalidConfig(f"there is no {path!r}", path=path, value=None, allowed="a path that is there") from None

    def _check_found(self, path: str, values: Mapping[str, Any], sections: Mapping[str, Any]) -> None:
        """What was stored is where it can be read: a model may ignore what it doesn't know."""
        if path in values:
            section, key, rest = split(path)
            self._found(path, sections[section], key, rest)

    def _built(self, name: str, stored: Mapping[str, Any]) -> Any:
        """A section from all its sources."""
        model = self._models[name]
        given = [setting for setting in self._given if split(setting.path)[0] == name]
        for setting in given:
            self._known(setting.path, setting.source)
        return built(name, model, [*given, *(Setting(path, value, "stored update") for path, value in stored.items())])

    def _fitting(self, name: str) -> dict[str, Any]:
        """The stored updates of a section that fit what it is today."""
        fitting: dict[str, Any] = {}
        for path, value in _of(name, self._stored).items():
            try:
                self._known(path)
                self._built(name, {**fitting, path: value})
            except InvalidConfig as error:
                self._lines.error("a stored update of the configuration doesn't fit any longer and is left aside", path=path, error=str(error))
            else:
                fitting[path] = value
        return fitting


def _of(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {path: value for path, value in values.items() if split(path)[0] == section}


def _without_below(stored: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Updates below a path that is set as a whole are history; the path itself moves to the end."""
    return {other: value for other, value in stored.items() if other != path and not other.startswith(f"{path}.")}
