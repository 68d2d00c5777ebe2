"""What `jido generate agent` writes: a module with an agent, its test, and its place in what the project hosts.

Fields are given as `name:type=default`; actions as `pay(total, note:str)`, where an argument named like a field has its type
and sets it. Every action tells of itself by an event. Without `--action` there is one, `change`, that sets every field.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..core.errors import ScaffoldError
from ..runtime.agent import Agent
from .scaffold import app_module, check_class, check_member
from .scaffold_types import RESERVED, Member, imports, parse_member

MAX_MEMBERS = 50
WIDTH = 120
_USED_IN_TESTS = RESERVED | {"event", "platform", "store", "tmp_path"}


class Action(NamedTuple):
    """One action of the class to be written."""

    name: str
    arguments: tuple[Member, ...]


class Project(NamedTuple):
    """The project in the working directory: its folder, and its package with the folder that it stands in."""

    root: Path
    package: str
    folder: str


# -- reading -------------------------------------------------------------------------------------------------------


def find_project(root: Path) -> Project:
    """The project whose `pyproject.toml` stands in a folder; `ScaffoldError` saying what is missing."""
    file = root / "pyproject.toml"
    try:
        name = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["name"]
    except FileNotFoundError:
        raise ScaffoldError(f"there is no project in {root}: go to the folder that `jido new` made (the one with pyproject.toml)") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ScaffoldError(f"{file} can't be read: {error}; it needs a [project] with a name") from error
    package = re.sub(r"[-_.]+", "_", str(name)).lower()
    for folder in (package, f"src/{package}"):
        if (root / folder / "__init__.py").is_file():
            return Project(root, package, folder)
    raise ScaffoldError(f"the project {name!r} in {root} has no package {package}/ (nor src/{package}/) with an __init__.py")


def parse_fields(texts: Sequence[str]) -> tuple[Member, ...]:
    """The fields; without any there is one, `value:int`."""
    fields = tuple(parse_member(text) for text in texts) or (parse_member("value:int"),)
    _limited(fields, "fields")
    for member in fields:
        _no_member_of_agents(member.name, "a field")
    return fields


def parse_actions(texts: Sequence[str], fields: Sequence[Member]) -> tuple[Action, ...]:
    """The actions; without any there is one, `change`, that takes every field."""
    if not texts:
        default = Action("change", tuple(fields))
        texts = ()
        if all(member.name not in ("change", "read") for member in fields):
            return (default,)
        raise ScaffoldError("a field named change or read leaves no name for the action: name one, for example --action 'put(value)'")
    actions = tuple(_parse_action(text, fields) for text in texts)
    _limited(actions, "actions")
    names = {member.name for member in fields} | {"read"}
    for action in actions:
        if action.name in names:
            raise ScaffoldError(f"--action {action.name}: there is a field or an action of that name; `read` is generated for every agent")
    return actions


def _parse_action(text: str, fields: Sequence[Member]) -> Action:
    match = re.fullmatch(r"\s*(\w+)\s*(?:\((.*)\))?\s*", text, flags=re.DOTALL)
    if match is None:
        raise ScaffoldError(f"--action {text!r}: a name and its arguments, for example 'pay(total, note:str)'")
    name = check_member(match[1], "an action")
    _no_member_of_agents(name, "an action")
    if name in RESERVED:
        raise ScaffoldError(f"{name!r} can't name an action: the module needs that name for something else. Try {name}_it")
    known = {member.name: member for member in fields}
    arguments: list[Member] = []
    for part in _split(match[2] or ""):
        given = part.strip()
        member = known[given] if given in known else parse_member(given, "an argument")
        if member.name in known and given not in known and member.kind.text != known[member.name].kind.text:
            raise ScaffoldError(
                f"--action {text!r}: {member.name} is a {known[member.name].kind.text} already; write {member.name} alone, or another name"
            )
        _no_member_of_agents(member.name, "an argument")
        arguments.append(member)
    _limited(arguments, "arguments")
    return Action(name, tuple(arguments))


def _split(text: str) -> list[str]:
    """At the commas outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts if text.strip() else []


def _limited(members: Sequence[Member | Action], what: str) -> None:
    if len(members) > MAX_MEMBERS:
        raise ScaffoldError(f"{len(members)} {what}: at most {MAX_MEMBERS} can be generated")
    names = [member.name for member in members]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ScaffoldError(f"{twice!r} is named twice among the {what}")


def _no_member_of_agents(name: str, what: str) -> None:
    if hasattr(Agent, name):
        raise ScaffoldError(f"{name!r} can't name {what}: every agent has {name} already. Try {name}_ or another word")


# -- writing -------------------------------------------------------------------------------------------------------


def agent_files(project: Project, name: str, fields: Sequence[str] = (), actions: Sequence[str] = ()) -> dict[str, str]:
    """The files that a new agent brings: its module, its test, and, if it can be changed safely, what the project hosts."""
    title, module = check_class(name)
    members = parse_fields(fields)
    acts = parse_actions(actions, members)
    return {
        f"{project.folder}/{module}.py": agent_module(title, module, members, acts),
        f"tests/test_{module}.py": agent_test(project.package, title, module, members, acts),
        **hosted(project, module, title),
    }


def hosted(project: Project, module: str, title: str) -> dict[str, str]:
    """`app.py` with one class more; nothing if it isn't as `jido new` makes it, and so is its owner's to change."""
    path = f"{project.folder}/app.py"
    try:
        source = (project.root / path).read_text(encoding="utf-8")
        body = ast.parse(source).body
    except (OSError, ValueError, SyntaxError):
        return {}
    classes = {
        node.module.removeprefix(f"{project.package}."): node.names[0].name
        for node in body
        if isinstance(node, ast.ImportFrom) and node.module is not None and len(node.names) == 1
    }
    if source != app_module(project.package, classes):
        return {}
    return {path: app_module(project.package, {**classes, module: title})}


def agent_module(title: str, module: str, fields: Sequence[Member], actions: Sequence[Action]) -> str:
    """The module's source."""
    members = [*fields, *(argument for action in actions for argument in action.arguments)]
    names = {name for member in members for name in member.kind.names} | {"TypedDict"}
    names |= {name for member in members for name in member.kind.begins_names}
    needs_field = any("field(" in member.kind.begins for member in fields)
    words = module.replace("_", " ")
    return "".join(
        [
            f'"""{title}: each is an agent of its own, found by its key."""\n\n',
            imports(names),
            f"\nfrom jidosystem import Agent, action{', field' if needs_field else ''}\n\n\n",
            f'class {title}Fields(TypedDict):\n    """What is known of one {words}."""\n\n',
            *(f"    {member.name}: {member.kind.text}\n" for member in fields),
            f'\n\nclass {title}(Agent):\n    """One {words}."""\n\n',
            *(f"    {member.name}: {member.kind.text} = {member.kind.begins}\n" for member in fields),
            *(_action(action, module, {member.name for member in fields}) for action in actions),
            f'\n    @action(readonly=True)\n    async def read(self) -> {title}Fields:\n        """Everything that is known of it."""\n',
            _line("        return {", [f'"{member.name}": self.{member.name}' for member in fields], "}"),
        ]
    )


def _action(action: Action, module: str, fields: set[str]) -> str:
    setting = [argument for argument in action.arguments if argument.name in fields]
    words = action.name.replace("_", " ").capitalize()
    told = f"set {_listed([argument.name for argument in setting])}, and tell" if setting else "tell"
    arguments = ["self", *(f"{argument.name}: {argument.kind.text}" for argument in action.arguments)]
    return "".join(
        [
            "\n    @action\n",
            _line(f"    async def {action.name}(", arguments, ") -> None:"),
            f'        """{words}: {told} of it."""\n',
            *(f"        self.{argument.name} = {argument.name}\n" for argument in setting),
            _emit(f"{module}.{action.name}", ['"key": self.key', *(f'"{argument.name}": {argument.name}' for argument in action.arguments)]),
        ]
    )


def _emit(event_type: str, data: Sequence[str]) -> str:
    line = f'        self.emit("{event_type}", {{{", ".join(data)}}})'
    if len(line) <= WIDTH:
        return f"{line}\n"
    return f'        self.emit(\n            "{event_type}",\n{_line("            {", data, "},", always=True)}        )\n'


def _listed(names: Sequence[str]) -> str:
    if len(names) > 3 or len(", ".join(names)) > 60:
        return "what is given"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _line(before: str, parts: Sequence[str], after: str, *, always: bool = False) -> str:
    """One line, or one for each part where it would get too long, as a formatter does it."""
    line = f"{before}{', '.join(parts)}{after}"
    if len(line) <= WIDTH and not always:
        return f"{line}\n"
    indent = " " * (len(before) - len(before.lstrip()))
    return f"{before}\n" + "".join(f"{indent}    {part},\n" for part in parts) + f"{indent}{after}\n"


def agent_test(package: str, title: str, module: str, fields: Sequence[Member], actions: Sequence[Action]) -> str:
    """The source of its test: each action alone, and all of them on a store that is opened again."""
    given = [argument for action in actions for argument in action.arguments]
    known, set_ = {member.name for member in fields}, {argument.name for argument in given}
    names = {"Path"}.union(*(member.kind.sample_names if member.name in set_ else member.kind.begins_names for member in fields))
    names |= {name for argument in given for name in argument.kind.sample_names}
    expected = [f'"{member.name}": {_value(member, set_=member.name in set_)}' for member in fields]
    words = module.replace("_", " ")
    one = "agent" if module in _USED_IN_TESTS or len(module) > 20 else module
    parts = [
        f'"""What {title} promises: alone, and on a store that is opened again."""\n\n',
        imports(names),
        f"\nfrom jidosystem import Platform\n\nfrom {package}.{module} import {title}\n",
    ]
    for action in actions:
        setting = [argument for argument in action.arguments if argument.name in known]
        promise = "It sets what it is given, and tells of it" if setting else "It tells of it"
        parts += [
            f'\n\nasync def test_{action.name}() -> None:\n    """{promise}. An agent without a platform is an ordinary object."""\n',
            f"    {one} = {title}()\n",
            _line(f"    await {one}.{action.name}(", [argument.kind.sample for argument in action.arguments], ")"),
            *(f"    assert {one}.{argument.name} {_equals(argument)} {argument.kind.sample}\n" for argument in setting),
            f'    assert [event.type for event in {one}.effects.events] == ["{module}.{action.name}"]\n',
        ]
    return "".join(
        [
            *parts,
            "\n\nasync def test_it_is_there_after_a_restart(tmp_path: Path) -> None:\n",
            '    """Two platforms, one after the other, on one file."""\n',
            f'    store = f"sqlite:///{{tmp_path}}/{module}.db"\n',
            "    async with Platform(store, checking=True) as platform:\n",
            f'        {one} = platform.agent({title}, "{words}")\n',
            *(_line(f"        await {one}.{action.name}(", [argument.kind.sample for argument in action.arguments], ")") for action in actions),
            "    async with Platform(store, checking=True) as platform:\n",
            _line(f'        assert await platform.agent({title}, "{words}").read() == {{', expected, "}"),
        ]
    )


def _equals(member: Member) -> str:
    return "is" if member.kind.sample in ("True", "False") else "=="


def _value(member: Member, *, set_: bool) -> str:
    if set_:
        return member.kind.sample
    factory = re.fullmatch(r"field\(default_factory=(\w+)\)", member.kind.begins)
    return {"list": "[]", "dict": "{}", "set": "set()"}[factory[1]] if factory is not None else member.kind.begins
