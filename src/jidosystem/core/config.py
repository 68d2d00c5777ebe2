"""Configuration: typed sections, several sources, validated before anything changes, hot where it can be.

Strength, weakest first: defaults, `jido.toml` in the working directory, `JIDO_*` variables, keyword arguments, stored
updates. The platform's own sections are msgspec Structs, since pydantic costs 70 ms to import; an application
registers sections of its own as pydantic models. A wrong value is refused and what runs keeps the old one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from .codec import decode, encode
from .errors import Conflict, InvalidConfig, RecordUnreadable
from .events import matcher
from .records import Records

if TYPE_CHECKING:
    from pathlib import Path

ADDRESS = "jido.config/cluster"
MAX_HISTORY = 1_000
_Positive = Annotated[float, msgspec.Meta(gt=0)]
_NotNegative = Annotated[float, msgspec.Meta(ge=0)]
_Count = Annotated[int, msgspec.Meta(ge=1)]


class PlatformSection(msgspec.Struct, forbid_unknown_fields=True):
    """Where this runs."""

    cluster_name: Annotated[str, msgspec.Meta(min_length=1)] = "jido"
    environment: Literal["production", "staging", "development", "test"] = "production"
    deployment_type: Literal["local"] = "local"
    shutdown_timeout: _NotNegative = 20.0


class AgentsSection(msgspec.Struct, forbid_unknown_fields=True):
    """Limits and defaults of all agents; times in seconds."""

    default_timeout: _Positive = 30.0
    max_queue_size: _Count = 10_000
    supervision_strategy: Literal["one_for_one", "one_for_all", "rest_for_one"] = "one_for_one"
    idempotency_retention: _Positive = 86_400.0
    idempotency_max_keys: _Count = 100_000
    max_pending_effects: _Count = 1_000
    max_live: _Count = 1_000_000
    idle_timeout: _Positive = 600.0
    checking_mode: bool = False


class InfrastructureSection(msgspec.Struct, forbid_unknown_fields=True):
    """What the platform stands on."""

    event_store_backend: Literal["memory", "sqlite"] = "memory"
    circuit_breaker_threshold: _Count = 5
    durability: Literal["full", "relaxed"] = "full"
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] | None = None


class EventsSection(msgspec.Struct, forbid_unknown_fields=True):
    """Limits of the event bus."""

    max_dead_letters: _Count = 100_000


SECTIONS: dict[str, type[msgspec.Struct]] = {
    "platform": PlatformSection, "agents": AgentsSection, "infrastructure": InfrastructureSection, "events": EventsSection,
}  # fmt: skip
FIXED = frozenset(
    {
        "platform.cluster_name", "platform.deployment_type", "infrastructure.event_store_backend", "infrastructure.durability",
        "infrastructure.metrics_port", "agents.checking_mode", "agents.max_queue_size",
    }
)  # fmt: skip
"""Keys that can't change while a platform runs."""


class ConfigVersion(msgspec.Struct, frozen=True):
    """One stored update: its number, when (seconds since the epoch), and all stored updates as they were then."""

    version: int
    time_s: float
    path: str
    values: dict[str, Any]


class _Watch:
    __slots__ = ("_callbacks", "_entry")

    def __init__(self, callbacks: list[Any], entry: Any) -> None:
        self._callbacks, self._entry = callbacks, entry

    def close(self) -> None:
        """Call no more."""
        if self._entry in self._callbacks:
            self._callbacks.remove(self._entry)


class Config:
    """The configuration of one platform. Sections are attributes: `config.agents.default_timeout`."""

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
    ) -> None:
        """Read everything but stored updates; `InvalidConfig` naming path, value and source. `models`: sections of the application's own."""
        self._models: dict[str, Any] = dict(SECTIONS)
        for name, model in (models or {}).items():
            if name in SECTIONS:
                raise InvalidConfig(f"section {name!r} is the platform's own", path=name, value=model, allowed="another name")
            self._models[name] = model
        engine = "sqlite" if str(url).startswith("sqlite") else "memory"
        self._base: dict[str, Any] = {"infrastructure.event_store_backend": engine}
        self._sources: dict[str, str] = {}
        self._take(_from_file(file), f"{file}")
        self._take(self._from_environment(os.environ if environ is None else environ), "the environment")
        self._take(dict(given or {}), "keyword arguments")
        self._stored: dict[str, Any] = {}
        self._history: list[ConfigVersion] = []
        self._revision = 0
        self._callbacks: list[tuple[Callable[[str], bool], Callable[[str, Any, Any], Any]]] = []
        self._records: Records | None = None
        self._clock: Any = None
        self._lock = asyncio.Lock()
        self._live: dict[str, Any] = {}
        for name, section in self._validated({}).items():
            self._live[name] = section
            if name in SECTIONS:
                setattr(self, name, section)

    # -- reading -----------------------------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        """The value of `section.key`; `InvalidConfig` suggesting a near name if there is none."""
        section, key = self._split(path)
        return getattr(self._live[section], key)

    def section(self, name: str) -> Any:
        """A whole section; the application's own come as their pydantic model."""
        if name not in self._live:
            raise InvalidConfig(f"there is no section {name!r}{_near(name, self._live)}", path=name, value=None, allowed=", ".join(self._live))
        return self._live[name]

    def history(self) -> list[ConfigVersion]:
        """Stored updates, the oldest first; at most the last 1,000."""
        return list(self._history)

    # -- changing ----------------------------------------------------------------------------------------------

    async def update(self, path: str, value: Any) -> int:
        """Validate, store, apply and tell; the version's number. What is refused changes nothing."""
        self._split(path)
        async with self._lock:
            return await self._store({**self._stored, path: value}, path)

    async def rollback(self, version: int) -> int:
        """Make the stored updates what they were at a version (0: none); that is a new version."""
        async with self._lock:
            found = {} if version == 0 else next((v.values for v in self._history if v.version == version), None)
            if found is None:
                raise InvalidConfig(f"there is no version {version}", path="version", value=version, allowed="0 or one of history()")
            return await self._store(dict(found), f"rollback to {version}")

    def on_change(self, pattern: str, callback: Callable[[str, Any, Any], Any]) -> _Watch:
        """Call `callback(path, old, new)` after a change of a path that fits (`agents.*`, `**`); `close()` the result to stop."""
        entry = (matcher(pattern), callback)
        self._callbacks.append(entry)
        return _Watch(self._callbacks, entry)

    # -- the store ---------------------------------------------------------------------------------------------

    async def load(self, records: Records, clock: Any) -> None:
        """Read stored updates and apply them."""
        self._records, self._clock = records, clock
        await self._reload()
        self._apply(self._validated(self._stored), tell=False)

    async def close(self) -> None:
        """Forget the callbacks."""
        self._callbacks.clear()

    async def _reload(self) -> None:
        assert self._records is not None
        record = await self._records.read(ADDRESS)
        if record is None or record.head is None:
            return
        try:
            self._history = msgspec.convert(decode(record.head), list[ConfigVersion])
        except (msgspec.MsgspecError, ValueError) as error:
            raise RecordUnreadable(f"the stored configuration can't be read: {error}; nothing was changed", agent=ADDRESS) from error
        self._revision = record.revision
        self._stored = dict(self._history[-1].values) if self._history else {}

    async def _store(self, values: dict[str, Any], path: str) -> int:
        if self._records is None:
            raise InvalidConfig("the configuration can be changed once its platform runs", path=path, value=None, allowed="")
        for _ in range(10):
            for changed in {p for p in {*values, *self._stored} if values.get(p, _NONE) != self._stored.get(p, _NONE)} & FIXED:
                raise InvalidConfig(f"{changed} can't change while the platform runs; set it in jido.toml, JIDO_* or Platform(config=…)",
                                    path=changed, value=values.get(changed), allowed="a value set before the start")  # fmt: skip
            sections = self._validated(values)
            number = self._history[-1].version + 1 if self._history else 1
            history = [*self._history, ConfigVersion(number, self._clock.time_s(), path, values)][-MAX_HISTORY:]
            try:
                committed = await self._records.commit(ADDRESS, self._revision, encode(history))
            except Conflict:
                before = dict(self._stored)
                await self._reload()
                values = {**self._stored, **{p: v for p, v in values.items() if before.get(p, _NONE) != v}}
                continue
            self._revision, self._history, self._stored = committed.revision, history, values
            self._apply(sections, tell=True)
            return number
        raise Conflict(f"{ADDRESS} keeps changing", expected=self._revision, actual=0)

    def _apply(self, sections: Mapping[str, Any], *, tell: bool) -> None:
        """Put new values into the live sections, in place: whoever holds a section sees them."""
        changes: list[tuple[str, Any, Any]] = []
        for name, fresh in sections.items():
            live = self._live[name]
            for key in _keys(live):
                old, new = getattr(live, key), getattr(fresh, key)
                if old != new:
                    setattr(live, key, new)
                    changes.append((f"{name}.{key}", old, new))
        if tell:
            for path, old, new in changes:
                for fits, callback in tuple(self._callbacks):
                    if fits(path):
                        callback(path, old, new)

    # -- sources -----------------------------------------------------------------------------------------------

    def _take(self, values: Mapping[str, Any], source: str) -> None:
        for path, value in values.items():
            self._split(path, source)
            self._base[path] = value
            self._sources[path] = source

    def _from_environment(self, environ: Mapping[str, str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, text in environ.items():
            if name.startswith("JIDO_") and "__" in name:
                section, _, key = name.removeprefix("JIDO_").lower().partition("__")
                found[f"{section}.{key}"] = text
        return found

    def _split(self, path: str, source: str = "") -> tuple[str, str]:
        section, _, key = str(path).partition(".")
        where = f" (in {source})" if source else ""
        if section not in self._models:
            raise InvalidConfig(
                f"there is no section {section!r}{_near(section, self._models)}{where}", path=path, value=None, allowed=", ".join(self._models)
            )
        keys = _model_keys(self._models[section])
        if key not in keys:
            raise InvalidConfig(
                f"there is no {path!r}{_near(key, keys)}{where}", path=path, value=None, allowed=", ".join(f"{section}.{k}" for k in keys)
            )
        return section, key

    def _validated(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """All sections from all sources; `InvalidConfig` for the first value that doesn't fit."""
        by_section: dict[str, dict[str, Any]] = {name: {} for name in self._models}
        for path, value in {**self._base, **stored}.items():
            section, _, key = path.partition(".")
            by_section[section][key] = value
        return {name: self._one_section(name, values) for name, values in by_section.items()}

    def _one_section(self, name: str, values: dict[str, Any]) -> Any:
        model = self._models[name]
        if not (isinstance(model, type) and issubclass(model, msgspec.Struct)):
            return _pydantic_section(name, model, values)
        for key, value in values.items():
            path = f"{name}.{key}"
            hint = next(f.type for f in msgspec.structs.fields(model) if f.name == key)
            try:  # text is parsed only where it comes from the environment
                values[key] = msgspec.convert(value, hint, strict=self._sources.get(path) != "the environment" or value != self._base.get(path))
            except msgspec.ValidationError as error:
                source = f" (from {self._sources[path]})" if path in self._sources else ""
                raise InvalidConfig(f"{path} = {value!r}{source}: {error}", path=path, value=value, allowed=str(error)) from None
        return model(**values)


_NONE: Any = object()


def _keys(section: Any) -> list[str]:
    return list(section.__struct_fields__) if isinstance(section, msgspec.Struct) else list(type(section).model_fields)


def _model_keys(model: Any) -> list[str]:
    return list(model.__struct_fields__) if isinstance(model, type) and issubclass(model, msgspec.Struct) else list(model.model_fields)


def _near(name: str, names: Any) -> str:
    import difflib  # a mistake may take its time, a start may not

    close = difflib.get_close_matches(name, list(names), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _pydantic_section(name: str, model: Any, values: dict[str, Any]) -> Any:
    from pydantic import ValidationError

    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join([name, *(str(part) for part in first["loc"])])
        raise InvalidConfig(f"{path} = {first.get('input')!r}: {first['msg']}", path=path, value=first.get("input"), allowed=first["msg"]) from None


def _from_file(file: str | Path | None) -> dict[str, Any]:
    if file is None or not os.path.isfile(file):
        return {}
    import tomllib
    from pathlib import Path

    try:
        tables = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InvalidConfig(f"{file} can't be read: {error}", path=str(file), value=None, allowed="TOML in UTF-8") from error
    found: dict[str, Any] = {}
    for section, table in tables.items():
        if not isinstance(table, dict):
            raise InvalidConfig(
                f"{file}: {section!r} stands outside a section; write it under [agents] or another", path=section, value=table, allowed="a section"
            )
        found.update({f"{section}.{key}": value for key, value in table.items()})
    return found
