"""What can be learnt of a store without owning it: facts for `jido doctor`, gathered without changing a byte."""

from __future__ import annotations

from typing import NamedTuple


class StoreFacts(NamedTuple):
    """Of one store. `path` is "" for what is in memory. `owner`: the pid of the process that has it open, 0 if that isn't known.

    `version` of its format, `newest` the one that this release writes. `log_bytes`: commits that wait beside the file for whoever opens it
    next. `damage`: a sentence for each thing that is damaged; None: not looked at. `trouble`: why no more could be learnt.
    """

    engine: str
    path: str = ""
    exists: bool = False
    size_bytes: int = 0
    log_bytes: int = 0
    changed_s: float = 0.0
    owned: bool = False
    owner: int = 0
    version: int | None = None
    newest: int = 0
    damage: tuple[str, ...] | None = None
    trouble: str = ""
