"""A new project's folder, and new modules in one: written whole or not at all.

What is written is meant to be kept: typed, documented, tested and small. Everything is worked out before the first byte is
written; a folder is made under another name beside its place and renamed, so that a full disk, a missing permission
or Ctrl-C leaves what was there before.
"""

from __future__ import annotations

import builtins
import keyword
import os
import re
import secrets
import shutil
import sys
from collections.abc import Mapping
from importlib.machinery import PathFinder
from importlib.resources import files
from pathlib import Path
from string import Template

from ..core.errors import ScaffoldError

MAX_NAME = 40
TAKEN_FOLDERS = frozenset({"jido", "jidosystem", "test", "tests", "src", "dist", "build", "docs"})

TAKEN_CLASSES = frozenset({"Agent", "AsyncIterator", "Decimal", "Item", "Path", "Platform", "TypedDict", "UTC", "UUID"})


# -- names ---------------------------------------------------------------------------------------------------------


def check_project(name: str) -> str:
    """The package of a project of that name: `my-shop` is the package `my_shop`. `ScaffoldError` if it can't be one."""
    if "/" in name or "\\" in name or name in ("", ".", ".."):
        raise ScaffoldError(f"{name!r} isn't a project's name: a name without a path; the project is made in the folder that you are in")
    package = _plain(name, "a project", "my-shop")
    if package in sys.stdlib_module_names:
        raise ScaffoldError(f"{name!r} can't name a project: Python's own module {package!r} would be hidden by it. Try {name}-app")
    if package in TAKEN_FOLDERS:
        raise ScaffoldError(f"{name!r} can't name a project: {package!r} means something else here. Try my-{name}")
    if PathFinder.find_spec(package, [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]) is not None:
        raise ScaffoldError(f"{name!r} can't name a project: the installed library {package!r} would be hidden by it. Try {name}-app")
    return package


def check_class(name: str) -> tuple[str, str]:
    """(class, module) of an agent: `invoice-line`, `invoice_line` and `InvoiceLine` are `InvoiceLine` in `invoice_line.py`."""
    _plain(name, "an agent", "Invoice")
    if name[0].isupper() and "_" not in name and "-" not in name:
        title = name
    else:
        title = "".join(part[:1].upper() + part[1:] for part in re.split("[-_]+", name))
    module = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", title).lower()
    if hasattr(builtins, title) or title in TAKEN_CLASSES:
        raise ScaffoldError(f"{name!r} can't name an agent: its module needs {title!r} for something else. Try My{title}")
    if module in ("app", "main", "conftest") or keyword.iskeyword(module):
        raise ScaffoldError(f"{name!r} can't name an agent: {module}.py means something else. Try My{title}")
    return title, module


def check_member(name: str, what: str) -> str:
    """A field's, action's or argument's name; `ScaffoldError` if it can't be one."""
    if not name.isascii() or not name.isidentifier() or len(name) > MAX_NAME:
        raise ScaffoldError(f"{name!r} can't name {what}: a letter, then letters, digits and _, at most {MAX_NAME}, for example total")
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise ScaffoldError(f"{name!r} can't name {what}: it is a word of Python's. Try {name.strip('_') or 'value'}_")
    if name.startswith("_"):
        raise ScaffoldError(f"{name!r} can't name {what}: names that begin with _ are never stored. Try {name.strip('_') or 'value'}")
    return name


def _plain(name: str, what: str, example: str) -> str:
    if len(name) > MAX_NAME:
        raise ScaffoldError(f"a name of {len(name)} characters can't name {what}: at most {MAX_NAME}")
    if not re.fullmatch(r"[A-Za-z](?:[A-Za-z0-9_-]*[A-Za-z0-9])?", name):
        raise ScaffoldError(
            f"{name!r} can't name {what}: a letter of a to z first, then letters, digits, - and _, a letter or digit last, for example {example}"
        )
    module = re.sub("[-_]+", "_", name).lower()
    if keyword.iskeyword(module) or keyword.iskeyword(name) or keyword.issoftkeyword(module):
        raise ScaffoldError(f"{name!r} can't name {what}: it is a word of Python's. Try my-{name.lower()}")
    return module


# -- a project -----------------------------------------------------------------------------------------------------


def project_files(name: str, source: str | None = None) -> dict[str, str]:
    """The files of a new project, by their paths; `source`: a wheel or a checkout of JidoSystem to depend on."""
    package = check_project(name)
    origin = "" if source is None else f" @ {check_source(source)}"
    values = {"name": name, "package": package, "origin": origin}
    direct = "" if source is None else "\n[tool.hatch.metadata]\nallow-direct-references = true\n"
    return {
        "README.md": template("README.md", values),
        "pyproject.toml": template("pyproject.toml", {**values, "direct": direct}),
        "jido.toml": template("jido.toml", values),
        ".gitignore": template("gitignore", values),
        f"{package}/__init__.py": f'"""Agents of {name}."""\n',
        f"{package}/app.py": app_module(package, {"account": "Account"}),
        f"{package}/account.py": template("account.py", values),
        "tests/test_account.py": template("test_account.py", values),
    }


def check_source(source: str) -> str:
    """The address of a wheel or a checkout of JidoSystem; `ScaffoldError` if there is none."""
    try:
        place = Path(source).expanduser().resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise ScaffoldError(f"--source {source!r} can't be read: {_reason(error)}; name a wheel of JidoSystem or a checkout") from error
    is_wheel = place.is_file() and place.suffix == ".whl" and place.name.startswith("jidosystem-")
    if not is_wheel and not (place / "src" / "jidosystem" / "__init__.py").is_file():
        raise ScaffoldError(f"--source {source!r} is neither a wheel of JidoSystem (jidosystem-….whl) nor a checkout (a folder with src/jidosystem)")
    return place.as_uri()


def app_module(package: str, classes: Mapping[str, str]) -> str:
    """The module that `jido run` is given: all agent classes of the project, by the modules that they stand in."""
    imports = "\n".join(f"from {package}.{module} import {title}" for module, title in sorted(classes.items()))
    return f'"""What this project hosts: `jido run {package}/app.py`."""\n\n{imports}\n\n__all__ = {_names(classes.values())}\n'


def _names(titles: object) -> str:
    names = sorted(str(title) for title in titles)  # type: ignore[attr-defined]
    line = "[" + ", ".join(f'"{name}"' for name in names) + "]"
    return line if len(line) <= 100 else "[\n" + "".join(f'    "{name}",\n' for name in names) + "]"


def template(name: str, values: Mapping[str, str]) -> str:
    """A file of `templates/`, filled in."""
    return Template((files("jidosystem.api") / "templates" / f"{name}.tmpl").read_text(encoding="utf-8")).substitute(values)


# -- writing -------------------------------------------------------------------------------------------------------


def write_project(parent: Path, name: str, content: Mapping[str, str]) -> Path:
    """Make a folder with these files, which isn't there or empty. All or nothing: it is renamed into its place at the end."""
    place = parent / name
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise ScaffoldError(f"{name} is there already, and no folder: move it away, or take another name")
    growing = parent / f".{name}-{secrets.token_hex(4)}"
    try:
        if place.is_dir() and any(place.iterdir()):
            raise ScaffoldError(f"the folder {name} is there already and isn't empty: take another name, or empty it first")
        growing.mkdir()
        for path, text in content.items():
            file = growing / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        growing.rename(place)
    except OSError as error:
        raise ScaffoldError(f"{name} can't be made in {parent}: {_reason(error)}; nothing was left behind") from error
    finally:
        shutil.rmtree(growing, ignore_errors=True)
    return place


def write_modules(root: Path, content: Mapping[str, str], *, replace: frozenset[str] = frozenset(), force: bool = False) -> list[str]:
    """Write files into a project: none of them if one is there already and is neither in `replace` nor forced."""
    there = [path for path in content if path not in replace and os.path.lexists(root / path)]
    if there and not force:
        raise ScaffoldError(f"{' and '.join(there)} {'is' if len(there) == 1 else 'are'} there already; nothing was changed. --force writes over")
    mark = secrets.token_hex(4)
    before: dict[Path, bytes | None] = {}
    growing = {root / path: (root / path).with_name(f".{Path(path).name}-{mark}") for path in content}
    try:
        for (file, beside), text in zip(growing.items(), content.values(), strict=True):
            file.parent.mkdir(parents=True, exist_ok=True)
            before[file] = file.read_bytes() if file.is_file() else None
            beside.write_text(text, encoding="utf-8")
            if file.is_file():
                shutil.copymode(file, beside)
        for file, beside in growing.items():
            beside.replace(file)
    except BaseException as error:
        for file, bytes_before in before.items():
            _put_back(file, bytes_before, growing[file])
        if isinstance(error, OSError):
            raise ScaffoldError(f"{error.filename or root} can't be written: {_reason(error)}; nothing was changed") from error
        raise
    finally:
        for beside in growing.values():
            beside.unlink(missing_ok=True)
    return list(content)


def _put_back(file: Path, before: bytes | None, beside: Path) -> None:
    """A file as it was; the room for that is there: the new one's is given back first."""
    if beside.exists():  # it hasn't been moved yet
        return
    if before is None:
        file.unlink(missing_ok=True)
    else:
        file.write_bytes(before)


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
