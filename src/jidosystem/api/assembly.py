"""Which adapters a URL stands for: the only module that imports backends."""

from __future__ import annotations

from typing import Any

from ..core.clock import Clock
from ..core.errors import InvalidConfig, NotYetAvailable
from ..core.inspection import StoreFacts
from ..core.records import Records

_LATER = {"nats": "the cluster", "postgresql": "the PostgreSQL adapter", "postgres": "the PostgreSQL adapter"}
_FORMS = '"memory://", "sqlite:///relative.db" or "sqlite:////absolute.db"'


def check_url(url: str) -> tuple[str, str]:
    """(engine, path) of a store's URL, or `InvalidConfig`."""
    scheme, separator, rest = str(url).partition("://")
    if scheme in _LATER and separator:
        raise NotYetAvailable(f"{url!r}: {scheme}:// comes with {_LATER[scheme]}; for now use {_FORMS}")
    if scheme == "memory" and separator and rest in ("", "/"):
        return "memory", ""
    if rest == "/:memory:":
        raise InvalidConfig(f'{url!r}: what is kept in memory needs no SQLite: use "memory://"', path="url", value=url, allowed=_FORMS)
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return "sqlite", rest[1:]
    raise InvalidConfig(f"{url!r} isn't a store's URL: use {_FORMS}", path="url", value=url, allowed=_FORMS)


async def open_records(url: str, config: Any, clock: Clock) -> Records:
    """Open the store that a URL names."""
    engine, path = check_url(url)
    if engine == "memory":
        from ..backends.memory import MemoryRecords

        return MemoryRecords(clock=clock)
    from ..backends.sqlite import open_store

    return await open_store(path, durability=config.infrastructure.durability, clock=clock)


def inspect_store(url: str, *, whole: bool = True) -> StoreFacts:
    """What can be learnt of a store without owning or changing it; `whole`: everything in it is read. Blocks."""
    engine, path = check_url(url)
    if engine == "memory":
        return StoreFacts("memory", exists=True)
    from ..backends.sqlite import inspect_file

    return inspect_file(path, whole=whole)
