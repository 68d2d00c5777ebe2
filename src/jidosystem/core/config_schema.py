"""The sections of the configuration: what can be set, what is allowed, what it is if nobody sets it.

The platform's own sections are msgspec Structs, since pydantic costs 70 ms to import; an application registers sections
of its own as pydantic models. A key stands here only if something reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from .errors import InvalidConfig
from .near import near

_Seconds = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
_MaybeSeconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=2**53)]


class Section(msgspec.Struct):
    """A section of the platform's own. Values are read as attributes, and change through `Config.update` alone."""

    def __setattr__(self, name: str, value: object) -> None:
        raise InvalidConfig(f"{name} can't be assigned: use `await platform.config.update(path, value)`", path=name, value=value, allowed="update")


class PlatformSection(Section):
    """Where this runs."""

    cluster_name: Annotated[str, msgspec.Meta(min_length=1, max_length=100)] = "jido"
    environment: Literal["production", "staging", "development", "test"] = "production"
    deployment_type: Literal["local"] = "local"
    shutdown_timeout: _MaybeSeconds = 20.0


class AgentsSection(Section):
    """Limits and defaults of all agents; times in seconds."""

    default_timeout: _Seconds = 30.0
    max_queue_size: _Count = 10_000
    supervision_strategy: Literal["one_for_one", "one_for_all", "rest_for_one"] = "one_for_one"
    idempotency_retention: _Seconds = 86_400.0
    idempotency_max_keys: _Count = 100_000
    max_pending_effects: _Count = 1_000
    max_live: _Count = 1_000_000
    idle_timeout: _Seconds = 600.0
    watchdog_timeout: _MaybeSeconds = 1.0
    checking_mode: bool = False


class InfrastructureSection(Section):
    """What the platform stands on. `event_store_backend` is what the URL says."""

    event_store_backend: Literal["memory", "sqlite"] = "memory"
    circuit_breaker_threshold: _Count = 5
    durability: Literal["full", "relaxed"] = "full"
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] | None = None


class EventsSection(Section):
    """Limits of the event bus."""

    max_dead_letters: _Count = 100_000


SECTIONS: dict[str, type[Section]] = {
    "platform": PlatformSection, "agents": AgentsSection, "infrastructure": InfrastructureSection, "events": EventsSection,
}  # fmt: skip
FIXED = frozenset(
    {
        "platform.cluster_name", "platform.environment", "platform.deployment_type", "infrastructure.event_store_backend",
        "infrastructure.durability", "infrastructure.metrics_port", "agents.checking_mode", "agents.max_queue_size",
        "events.max_dead_letters",
    }
)  # fmt: skip
"""Keys that can't change while a platform runs."""


class Setting(msgspec.Struct, frozen=True):
    """One value from outside: `path` as it was written, `source` as errors name it. `is_text`: to be parsed as its key's type."""

    path: str
    value: Any
    source: str
    is_text: bool = False


def split(path: object) -> tuple[str, str, list[str]]:
    """(section, key, the rest) of `section.key` or, in an application's own section, `section.key.below.it`."""
    section, _, below = str(path).partition(".")
    key, *rest = below.split(".")
    return section, key, rest


def keys_of_model(model: Any) -> list[str]:
    """The keys of a section: a Struct's fields, or a pydantic model's; none of anything else."""
    return list(model.__struct_fields__) if _is_struct(model) else list(getattr(model, "model_fields", ()))


def built(section: str, model: Any, settings: Iterable[Setting]) -> Any:
    """A section from its settings, later ones stronger; `InvalidConfig` for what doesn't fit."""
    values: dict[str, Any] = {}
    sources: dict[str, Setting] = {}
    for setting in settings:
        _section, key, rest = split(setting.path)
        sources[key] = setting
        if _is_struct(model) and not rest:
            values[key] = _converted(model, key, setting)
        else:
            _put(values, [key, *rest], _parsed(setting) if setting.is_text else setting.value, setting)
    if _is_struct(model):
        return model(**values)
    return _pydantic_section(section, model, values, sources)


def value_at(section: Any, key: str, rest: list[str]) -> Any:
    """The value of a path within a section; KeyError if there is none."""
    value = section
    for step in (key, *rest):
        if isinstance(value, Mapping):
            value = value[step]
        elif step in keys_of_model(type(value)):
            value = getattr(value, step)
        else:
            raise KeyError(step)
    return value


def _is_struct(model: Any) -> bool:
    return isinstance(model, type) and issubclass(model, msgspec.Struct)


def _converted(model: Any, key: str, setting: Setting) -> Any:
    hint = next(field.type for field in msgspec.structs.fields(model) if field.name == key)
    try:
        return msgspec.convert(setting.value, hint, strict=not setting.is_text)
    except msgspec.ValidationError as error:
        words = get_args(hint) if get_origin(hint) is Literal else ()
        if words:
            raise refused(setting.path, setting, f"one of {', '.join(map(repr, words))}", near(setting.value, words)) from None
        raise refused(setting.path, setting, str(error)) from None


def refused(path: str, setting: Setting, allowed: str, meant: str = "") -> InvalidConfig:
    """The error for a value that isn't allowed; it says where the value came from, and what was probably meant."""
    source = f" ({setting.source})" if setting.source else ""
    return InvalidConfig(f"{path} = {setting.value!r}{source}: {allowed}{meant}", path=path, value=setting.value, allowed=allowed)


def _put(values: dict[str, Any], steps: list[str], value: Any, setting: Setting) -> None:
    for step in steps[:-1]:
        below = values.get(step)
        if below is None:
            below = values[step] = {}
        elif not isinstance(below, dict):
            raise refused(setting.path, setting, f"{step!r} is a value, there is nothing below it")
        else:
            below = values[step] = dict(below)  # what it was made from stays as it is
        values = below
    values[steps[-1]] = value


def _parsed(setting: Setting) -> Any:
    """Text of a variable: lists and tables are written as JSON, everything else is the model's to parse."""
    text = setting.value
    if isinstance(text, str) and text[:1] in ("[", "{"):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise refused(setting.path, setting, f"JSON, as it begins with {text[0]!r}: {error}") from None
    return text


def _pydantic_section(section: str, model: Any, values: dict[str, Any], sources: Mapping[str, Setting]) -> Any:
    from pydantic import ValidationError

    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        steps = [str(part) for part in first["loc"]]
        path = ".".join([section, *steps])
        setting = sources.get(steps[0]) if steps else None
        missing = first["type"] == "missing"
        raise refused(path, Setting(path, None if missing else first.get("input"), setting.source if setting else ""), str(first["msg"])) from None
