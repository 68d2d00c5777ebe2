"""Where settings come from before a platform runs: `jido.toml`, `JIDO_*` variables, keyword arguments; weakest first."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .config_schema import SECTIONS, Setting
from .errors import InvalidConfig

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILE_BYTES = 1024 * 1024
PREFIX = "JIDO_"


def from_file(file: str | Path | None) -> list[Setting]:
    """The settings of a TOML file, each with its line; none if there is no such file."""
    if file is None or not os.path.isfile(file):
        return []
    import tomllib

    try:
        with open(file, "rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"it is larger than {MAX_FILE_BYTES:,} bytes")
        text = content.decode("utf-8")
        tables = tomllib.loads(text)
    except (ValueError, OSError, RecursionError) as error:  # decoding and TOML errors are ValueErrors
        raise InvalidConfig(f"{file} can't be read: {error}", path=str(file), value=None, allowed="TOML in UTF-8") from error
    found: list[Setting] = []
    for section, table in tables.items():
        if not isinstance(table, dict):
            where = _where(file, text, "", section)
            told = f"{section!r} stands outside a section ({where}); write it under [agents] or another"
            raise InvalidConfig(told, path=section, value=table, allowed="a section")
        found += [Setting(f"{section}.{key}", value, _where(file, text, section, key)) for key, value in table.items()]
    return found


def from_environment(environ: Mapping[str, str]) -> list[Setting]:
    """The settings of variables: `JIDO_AGENTS__DEFAULT_TIMEOUT`; further `__` lead further down in an application's section."""
    found: list[Setting] = []
    for name, text in environ.items():
        if not name.startswith(PREFIX):
            continue
        path = name.removeprefix(PREFIX).lower()
        if "__" in path:
            found.append(Setting(path.replace("__", "."), text, name, is_text=True))
            continue
        section, _, key = path.partition("_")
        if section in SECTIONS and key:
            told = f"{name}: two underscores divide the section from the key; did you mean {PREFIX}{section.upper()}__{key.upper()}?"
            raise InvalidConfig(told, path=name, value=text, allowed=f"{PREFIX}SECTION__KEY")
    found.sort(key=lambda setting: setting.path)  # what is above comes before what is below it
    return found


def from_keywords(given: Mapping[str, Any]) -> list[Setting]:
    """The settings of `Platform(config={…})`."""
    return [Setting(str(path), value, "keyword argument") for path, value in given.items()]


def _where(file: str | Path, text: str, section: str, key: str) -> str:
    """`jido.toml:12`: the line that sets a key, if it is written the usual way; else the file."""
    return next((f"{file}:{number}" for number in _lines(text, section, key)), str(file))


def _lines(text: str, section: str, key: str) -> Iterable[int]:
    header = re.compile(rf"\s*\[\s*{_quoted(section)}\s*(?:\.\s*{_quoted(key)}\s*(?:\..*)?)?\]")
    plain = re.compile(rf"\s*{_quoted(key)}\s*[=.]")
    dotted = re.compile(rf"\s*{_quoted(section)}\s*\.\s*{_quoted(key)}\s*[=.]")
    inside = section == ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("["):
            match = header.match(line)
            if match is not None and "." in match.group():
                yield number
            inside = match is not None
        elif (inside and plain.match(line)) or dotted.match(line):
            yield number


def _quoted(name: str) -> str:
    return rf"""(?:{re.escape(name)}|"{re.escape(name)}"|'{re.escape(name)}')"""
