"""Mistakes in definitions are reported at the line that made them: real modules on disk, imported by a process of their own."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

import pytest

import jidosystem
from jidosystem import errors

OURS = str(Path(jidosystem.__file__).parent)
HEAD = "from dataclasses import dataclass\nfrom jidosystem import *\nfrom jidosystem import field\n\n"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[path.stem]
    return module


def refused(path: Path, source: str) -> errors.UsageError:
    """The error of a module whose source marks the guilty line with `# here`."""
    path.write_text(HEAD + source)
    with pytest.raises(errors.UsageError) as raised:
        load(path)
    error = raised.value
    guilty = next(i for i, line in enumerate((HEAD + source).splitlines(), 1) if "# here" in line)
    assert str(error).endswith(f"({path}:{guilty})"), str(error)
    assert (error.file, error.line) == (str(path), guilty)  # type: ignore[attr-defined]
    frames = traceback.extract_tb(error.__traceback__)
    assert frames[-1].filename == str(path), "the traceback ends at the user's code"
    assert [frame for frame in frames if frame.filename.startswith(OURS)] == []
    assert "".join(traceback.format_exception(error)).count("Traceback") == 1
    return error


MISTAKES = {
    "on_event bare": "class C(Agent):\n    @on_event  # here\n    async def a(self, e): ...\n",
    "on_event without key": "class C(Agent):\n    @on_event('a')  # here\n    async def a(self, e): ...\n",
    "on_event with an option that it doesn't have": "class C(Agent):\n    @on_event('a', keys='subject')  # here\n    async def a(self, e): ...\n",
    "sensor bare": "class C(Agent):\n    @sensor  # here\n    async def a(self): yield 1\n",
    "sensor without options": "class C(Agent):\n    @sensor()  # here\n    async def a(self): yield 1\n",
    "migrate_state bare": "class C(Agent):\n    @staticmethod\n    @migrate_state  # here\n    def a(state): ...\n",
    "migrate_state above staticmethod, bare": "class C(Agent):\n    @migrate_state  # here\n    @staticmethod\n    def a(state): ...\n",
    "migrate_state by position": "class C(Agent):\n    @staticmethod\n    @migrate_state(1)  # here\n    def a(state): ...\n",
    "a field without default": "class C(Agent):\n    ok: int = 0\n    count: int  # here\n",
    "a value without a type hint, which wouldn't be stored": "class C(Agent):\n    LIMIT = 3\n    _cache = None\n    count = 0  # here\n",
    "a field's default without its hint": "class B(Agent):\n    count: int = 0\n\nclass C(B):\n    count = 5  # here\n",
    "a mutable default": "class C(Agent):\n    things: list[int] = []  # here\n",
    "a type that can't be carried": "class C(Agent):\n    x: int = 0\n    thing: type = int  # here\n",
    "a default of another type": "class C(Agent):\n    x: int = 0\n\n    count: int = 'a'  # here\n",
    "a hint that can't be resolved": "class C(Agent):\n    x: int = 0\n    price: 'Decimal' = 0  # here\n",
    "a field named like a member": "class C(Agent):\n    x: int = 0\n    key: str = ''  # here\n",
    "a parameter without hint": "class C(Agent):\n    @action\n    async def add(self, amount) -> None:  # here\n        pass\n",
    "a result without hint": "class C(Agent):\n    @action(readonly=True)\n    async def add(self):  # here\n        pass\n",
    "an action with *args": "class C(Agent):\n    @action\n    def add(self, *args: int) -> None:  # here\n        pass\n",
    "an action named like a member": "class C(Agent):\n    @action\n    async def stop(self) -> None:  # here\n        pass\n",
    "a second hook": "class C(Agent):\n    @on_start\n    async def a(self): ...\n    @on_start\n    async def b(self): ...  # here\n",
    "a hook with parameters": "class C(Agent):\n    @on_start\n    async def a(self, x): ...  # here\n",
    "an action that yields": "class C(Agent):\n    @action  # here\n    async def a(self) -> int:\n        yield 1\n",
    "an action that is none": "class C(Agent):\n    a = action(3)  # here\n",
    "an action with options that is none": "class C(Agent):\n    a = action(readonly=True)(3)  # here\n",
    "on_load that waits": "class C(Agent):\n    @on_load  # here\n    async def a(self): ...\n",
    "a key that is no path": "class C(Agent):\n    @on_event('a', key='dta.x')  # here\n    async def a(self, e): ...\n",
    "a pattern that is none": "class C(Agent):\n    @on_event('a..b', key='subject')  # here\n    async def a(self, e): ...\n",
    "a hook on something else": "class C(Agent):\n    a = on_start(3)  # here\n",
    "on_event on something else": "class C(Agent):\n    a = on_event('a', key='subject')(3)  # here\n",
    "a block that refuses": "class C(Agent):\n    x: int = 0\n    mailbox = Mailbox(overflow='blok')  # here\n",
    "an option that a block lacks": "class C(Agent):\n    mailbox = Mailbox(maxsize=3)  # here\n",
    "a retry that refuses": "class C(Agent):\n    resilience = Resilience(retry=Retry.exponential(max_attempts=0))  # here\n",
    "a strategy that is none": "policy = Supervision(strategy='one_for_al')  # here\n",
    "a block of another type": "class C(Agent):\n    x: int = 0\n    mailbox = 3  # here\n",
    "a block under another name": "class C(Agent):\n    x: int = 0\n    mialbox = Mailbox()  # here\n",
    "a block that comes later": "class C(Agent):\n    x: int = 0\n    scaling = 3  # here\n",
    "an __init__": "class C(Agent):\n    x: int = 0\n    def __init__(self):  # here\n        pass\n",
    "a class keyword": "class C(Agent, versoin=2):  # here\n    x: int = 0\n",
    "a version that is none": "class C(Agent, version=0):  # here\n    x: int = 0\n",
    "a name that is none": "class C(Agent, name='a/b'):  # here\n    x: int = 0\n",
    "a migration that leads nowhere": "class C(Agent):\n    @staticmethod\n    @migrate_state(from_version=3)\n    def up(state): ...  # here\n",
    "a migration that isn't static": "class C(Agent, version=2):\n    @migrate_state(from_version=1)\n    def up(self): ...  # here\n",
    "the second class of the name": "class C(Agent):\n    x: int = 0\nclass C(Agent):\n    x: int  # here\n",
    "a class in a function": "def make():\n    class C(Agent):\n        x: int  # here\nmake()\n",
    "a class made by hand": "C = type('C', (Agent,), {'__annotations__': {'x': int}, 'y': 1})  # here\n",
    "a field of a mixin": "class Mixin:\n    x: int = 0\n    mailbox = 3  # here\n\nclass C(Mixin, Agent):\n    y: int = 0\n",
    "a decorated class": "def keep(cls): return cls\n\n@keep\nclass C(Agent):\n    x: int  # here\n",
    "a field below a condition": "class C(Agent):\n    if True:\n        x: int  # here\n",
}


@pytest.mark.parametrize("what", MISTAKES)
def test_it_is_reported_at_its_line(what: str, tmp_path: Path) -> None:
    refused(tmp_path / "mistake.py", MISTAKES[what])


@pytest.mark.parametrize(
    ("what", "near"),
    [
        ("a key that is no path", "'data'"), ("a block that refuses", "'block'"), ("an option that a block lacks", "'max_size'"),
        ("a strategy that is none", "'one_for_all'"), ("a class keyword", "'version'"), ("on_event with an option that it doesn't have", "'key'"),
    ],
)  # fmt: skip
def test_the_near_name_is_said(what: str, near: str, tmp_path: Path) -> None:
    assert f"did you mean {near}?" in str(refused(tmp_path / "mistake.py", MISTAKES[what]))


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("on_event bare", '@on_event needs its options; write for example @on_event("order.*", key="data.customer")'),
        ("on_event without key", "'key'; write for example @on_event("),
        ("sensor bare", '@sensor needs its options; write for example @sensor(every=5.0, action="take")'),
        ("migrate_state bare", "@migrate_state needs its options; write for example @migrate_state(from_version=1)"),
        ("migrate_state above staticmethod, bare", "@migrate_state needs its options"),
    ],
)
def test_a_decorator_without_its_options_shows_an_example(what: str, told: str, tmp_path: Path) -> None:
    error = refused(tmp_path / "mistake.py", MISTAKES[what])
    assert isinstance(error, errors.DefinitionError)
    assert told in str(error)


def test_a_mixin_of_another_file_is_blamed_there(tmp_path: Path) -> None:
    (tmp_path / "other_mixin.py").write_text("class Mixin:\n    things: list[int] = []\n    mailbox = 3\n")
    sys.path.insert(0, str(tmp_path))
    try:
        (tmp_path / "user.py").write_text(HEAD + "from other_mixin import Mixin\nclass C(Mixin, Agent):\n    y: int = 0\n")
        with pytest.raises(errors.DefinitionError) as raised:
            load(tmp_path / "user.py")
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("other_mixin", None)
    assert f"({tmp_path / 'other_mixin.py'}:3)" in str(raised.value)
    assert traceback.extract_tb(raised.value.__traceback__)[-1].filename == str(tmp_path / "user.py")


def test_without_a_source_the_code_knows_its_line() -> None:
    source = HEAD + "class C(Agent):\n    @action\n    async def add(self, amount) -> None: ...\n"
    with pytest.raises(errors.DefinitionError) as raised:
        exec(compile(source, "<typed>", "exec"), {"__name__": "typed"})
    assert "(<typed>:" in str(raised.value)


def test_a_source_that_changed_since_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "changed.py"
    path.write_text("this is no python (\n")
    with pytest.raises(errors.DefinitionError) as raised:
        exec(compile(HEAD + "class C(Agent):\n    x: int\n", str(path), "exec"), {"__name__": "changed"})
    assert f"({path}:5)" in str(raised.value)
