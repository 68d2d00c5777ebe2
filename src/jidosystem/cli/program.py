"""A user's program: importing it, finding its agent classes and its lifespan, and showing its author's own line if it can't be.

A program is a file (`counter.py`, `shop/app.py`) or the dotted name of a module. A file is imported as Python would import it
from its own folder, or from above the packages that it is in; its `if __name__ == "__main__":` isn't run.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.near import near, nearest
from .output import Failure, usage

if TYPE_CHECKING:
    from ..api.platform import Platform
    from ..runtime.agent import Agent

OURS = str(Path(__file__).parents[1])
PYTHONS = (importlib.__file__ or "importlib", contextlib.__file__, "<frozen")
LIFESPAN = "platform_lifespan"
"""Not `lifespan`: a program that has agents and a web application has one of those already, for the application."""

Lifespan = Callable[["Platform"], AbstractAsyncContextManager[Any]]


class Program(NamedTuple):
    """An imported program: `name` is the last word of its module's name, `agents` the classes to host, `lifespan` what runs
    beside them while the platform is open, `hint` what its author may have meant otherwise."""

    name: str
    module: ModuleType
    agents: tuple[type[Agent], ...]
    lifespan: Lifespan | None = None
    hint: str = ""


def place_of(target: str) -> tuple[str, Path]:
    """(module's name, folder to import it from) of what the command line names."""
    if not target.endswith(".py") and os.sep not in target:
        if os.path.isdir(target) and not os.path.isfile(os.path.join(target, "__init__.py")):
            raise usage(f"{target} is a folder: name the file that has the agents, for example {_file_in(target)}")
        if not all(part.isidentifier() for part in target.split(".")):
            raise usage(f"{target!r} is neither a file nor a module's name", "write a path such as counter.py, or a dotted name such as shop.agents")
        return target, Path.cwd()
    path = Path(target).absolute()
    if path.is_dir():
        raise usage(f"{target} is a folder: name the file that has the agents, for example {_file_in(target)}")
    if not path.is_file():
        there = [str(Path(target).with_name(other.name)) for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise usage(f"there is no file {target}{near(target, there)}", "name the file that has the agents")
    if not (path.suffix == ".py" and path.stem.isidentifier()):
        raise usage(f"{target} can't be imported: a file's name is a word of letters, digits and _, and ends in .py")
    parts, root = [path.stem], path.parent
    while (root / "__init__.py").is_file() and root.name.isidentifier():
        parts.insert(0, root.name)
        root = root.parent
    return ".".join(parts), root


def _file_in(folder: str) -> str:
    """The file in a folder that most likely has agents: app.py, or else the first that is there."""
    there = sorted(file.name for file in Path(folder).glob("*.py") if not file.name.startswith("_"))
    return os.path.join(folder, there[0] if there and "app.py" not in there else "app.py")


def load(target: str, only: str | None = None) -> Program:
    """Import a program; `only`: names of the agent types to host, divided by commas. `Failure` with the author's line."""
    name, root = place_of(target)
    module = _imported(name, root, target)
    agents, lifespan = _agents_of(module), _lifespan_of(module)
    missed = "" if lifespan is not None else _missed_lifespan(module)
    if not agents and lifespan is None:
        hint = f"name the file that has them, for example {_file_in(target)}" if os.path.isdir(target) else "derive one: class Counter(Agent): ..."
        raise Failure(f"{target} has no agent class to host", code="no-agents", hint=missed or hint)
    if only is not None:
        agents = _chosen(agents, only, target)
    return Program(name.rpartition(".")[2], module, tuple(agents.values()), lifespan, missed)


def _imported(name: str, root: Path, target: str) -> ModuleType:
    known = sys.modules.get(name)
    file = root.joinpath(*name.split(".")).with_suffix(".py")
    if known is not None and file.is_file() and getattr(known, "__file__", None) != str(file):
        raise usage(f"{target} has the name of a module that is in use already ({name}): rename the file")
    sys.path.insert(0, str(root))
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, ModuleNotFoundError) and error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise usage(f"there is no module {error.name!r} here", f"it was looked for in {root} and among what is installed") from None
        raise failed(f"{target} can't be imported", error) from error


def failed(what: str, error: BaseException) -> Failure:
    """What an author's code raised, with the author's lines."""
    code = getattr(error, "code", None)
    told = str(error) if isinstance(code, str) else traceback.format_exception_only(error)[-1].strip()
    return Failure(f"{what}: {told}", code=code if isinstance(code, str) else "program", lines=own_lines(error))


def own_lines(error: BaseException) -> str:
    """The traceback of an error without frames of the platform and of what Python calls it through: the author's lines."""
    whole = traceback.TracebackException.from_exception(error)
    waiting: list[traceback.TracebackException | None] = [whole]
    while waiting:
        part = waiting.pop()
        if part is not None:
            part.stack = traceback.StackSummary.from_list([frame for frame in part.stack if _is_authors(frame.filename)])
            waiting += [part.__cause__, part.__context__, *(part.exceptions or ())]
    text = "".join(whole.format())
    return text if whole.stack or isinstance(error, SyntaxError) else ""


def _is_authors(filename: str) -> bool:
    return not filename.startswith((OURS, *PYTHONS))


def _agents_of(module: ModuleType) -> dict[str, type[Agent]]:
    """The agent classes among a module's names, by type name; those of the platform itself aren't."""
    from ..runtime.agent import Agent

    found: dict[str, type[Agent]] = {}
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Agent) and not value.__module__.startswith("jidosystem."):
            name: str = value.__jido_type__.name
            other = found.setdefault(name, value)
            if other is not value:
                told = f"two agent classes are named {name!r}: {_where(other)} and {_where(value)}"
                raise Failure(told, code="definition", hint='give one of them another: class Counter(Agent, name="other")')
    return found


def _lifespan_of(module: ModuleType) -> Lifespan | None:
    """An async generator function of one parameter under `@asynccontextmanager`; anything else of that name is told before a store is opened."""
    found = vars(module).get(LIFESPAN)
    if found is None:
        return None
    inner = inspect.unwrap(found)
    code = getattr(inner, "__code__", None)
    where = str(module.__file__) if code is None else f"{code.co_filename}, line {code.co_firstlineno}"
    if not inspect.isasyncgenfunction(inner):
        raise _unfit(f"{where}: {LIFESPAN} is no async generator function")
    if inner is found:
        raise _unfit(f"{where}: {LIFESPAN} has no @asynccontextmanager above it")
    try:
        inspect.signature(inner).bind(None)
    except TypeError:
        raise _unfit(f"{where}: {LIFESPAN}{inspect.signature(inner)} can't be called with the platform alone") from None
    lifespan: Lifespan = found
    return lifespan


def _missed_lifespan(module: ModuleType) -> str:
    """What to tell of a function that nearly has the name of a lifespan, or has a web application's and takes a platform."""
    for name, found in vars(module).items():
        inner = inspect.unwrap(found) if inspect.isfunction(found) else None
        if inner is None or inner.__module__ != module.__name__:
            continue
        first = next(iter(inspect.signature(inner).parameters.values()), None)
        takes_platform = first is not None and (first.name == "platform" or getattr(first.annotation, "__name__", first.annotation) == "Platform")
        if (takes_platform and "lifespan" in name.lower()) or nearest(name, (LIFESPAN,), cutoff=0.85):
            where = f"{inner.__code__.co_filename}, line {inner.__code__.co_firstlineno}"
            return f"{where}: {name} isn't run: what is to run beside the agents is named {LIFESPAN}"
    return ""


def _unfit(told: str) -> Failure:
    hint = f"write `@asynccontextmanager` and below it `async def {LIFESPAN}(platform: Platform) -> AsyncGenerator[None]:` with one `yield`"
    return Failure(told, code="definition", hint=hint)


def _where(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _chosen(agents: dict[str, type[Agent]], only: str, target: str) -> dict[str, type[Agent]]:
    chosen: dict[str, type[Agent]] = {}
    for name in filter(None, (part.strip() for part in only.split(","))):
        if name not in agents:
            raise usage(f"{target} has no agent type {name!r}{near(name, agents) or f'; it has {chr(44).join(agents)}'}")
        chosen[name] = agents[name]
    if not chosen:
        raise usage("--agents names no agent type")
    return chosen
