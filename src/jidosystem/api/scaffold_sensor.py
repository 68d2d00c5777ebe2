"""What `jido generate sensor` writes: an agent with a source of work, and its test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.errors import DefinitionError, JidoError, ScaffoldError
from ..core.hooks import KEY
from ..runtime.sensor import sensor
from .scaffold import check_class, template
from .scaffold_agent import Project, hosted
from .scaffold_types import MAX_TEXT, quoted


def sensor_files(
    project: Project, name: str, *, every: float | None = None, cron: str | None = None, watch: str | None = None, http: str | None = None
) -> dict[str, str]:
    """The files that a new sensor brings; `ScaffoldError` unless exactly one of the four says when it runs."""
    title, module = check_class(name)
    given: Mapping[str, Any] = {"every": every, "cron": cron, "watch": watch, "http": http}
    kinds = [kind for kind, value in given.items() if value is not None]
    if len(kinds) != 1:
        told = " and ".join(f"--{kind}" for kind in kinds) or "none of them"
        raise ScaffoldError(f"{told} given: exactly one of --every 60, --cron '0 7 * * *', --watch inbox and --http /hooks/{KEY} says when it runs")
    kind, value = kinds[0], given[kinds[0]]
    written = f"{value:g}" if kind == "every" else quoted(_text(kind, value))
    options: dict[str, Any] = {kind: value}
    when = f"{kind}={written}"
    if kind == "http" and KEY not in value:
        options["key"] = "main"
        when += ', key="main"'
    try:  # whoever reads the module refuses what can't be; so it is asked
        sensor(**options, action="take")
    except (DefinitionError, JidoError, ValueError) as error:
        raise ScaffoldError(f"--{kind} {value}: {str(error).removeprefix('@sensor: ').removeprefix('@sensor')}") from None
    values = {
        "title": title, "module": module, "package": project.package, "when": when, "path": value, "folder": value,
        "often": f"every {value:g} s" if kind == "every" else f"by the clock ({value})",
        "request_path": str(value).replace(KEY, "a"),
    }  # fmt: skip
    form = "time" if kind in ("every", "cron") else kind
    return {
        f"{project.folder}/{module}.py": template(f"sensor_{form}.py", values),
        f"tests/test_{module}.py": template(f"test_sensor_{form}.py", values),
        **hosted(project, module, title),
    }


def _text(kind: str, value: str) -> str:
    if not value or len(value) > MAX_TEXT or not value.isprintable() or '"' in value or "\\" in value:
        raise ScaffoldError(f"--{kind} {value[:MAX_TEXT]!r}: 1 to {MAX_TEXT} printable characters without quotes and backslashes")
    return value
