"""What `jido new` and `jido generate` write: refused clearly or written whole, and fit to be used as it is."""

from __future__ import annotations

import ast
import errno
import keyword
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jidosystem import Agent
from jidosystem.api.scaffold import app_module, check_class, check_member, check_project, project_files, write_modules, write_project
from jidosystem.api.scaffold_agent import Project, agent_files, find_project, hosted
from jidosystem.api.scaffold_sensor import sensor_files
from jidosystem.api.scaffold_types import TYPES, parse_member
from jidosystem.core.errors import ScaffoldError

TOOLS = Path(sys.executable).parent


def new_project(parent: Path, name: str = "my-shop") -> Project:
    return find_project(write_project(parent, name, project_files(name)))


def generate(project: Project, name: str, *fields: str, actions: tuple[str, ...] = (), force: bool = False) -> list[str]:
    content = agent_files(project, name, fields, actions)
    return write_modules(project.root, content, replace=frozenset({f"{project.folder}/app.py"}), force=force)


def left_behind(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "without a path"),
        (".", "without a path"),
        ("..", "without a path"),
        ("a/b", "without a path"),
        ("/tmp/a", "without a path"),
        ("a\\b", "without a path"),
        ("class", "word of Python's"),
        ("match", "word of Python's"),
        ("None", "word of Python's"),
        ("json", "Python's own module"),
        ("Json", "Python's own module"),
        ("asyncio", "Python's own module"),
        ("test", "Python's own|something else"),
        ("tests", "something else"),
        ("src", "something else"),
        ("jido", "something else"),
        ("jidosystem", "something else"),
        ("pytest", "library"),
        ("msgspec", "library"),
        ("büro", "letter of a to z"),
        ("1st", "letter of a to z"),
        ("a b", "letter of a to z"),
        ("-x", "letter of a to z"),
        ("a-", "letter of a to z"),
        ("a\n", "letter of a to z"),
        ("a\0b", "letter of a to z"),
        ("a;rm -rf", "letter of a to z"),
        ("x" * 41, "at most 40"),
        ("\udc80", "letter of a to z"),
        ("\uff43lass", "letter of a to z"),
    ],
)
def test_impossible_projects_are_refused_with_a_reason(name: str, told: str) -> None:
    with pytest.raises(ScaffoldError, match=told):
        check_project(name)


@given(st.text(max_size=50) | st.from_regex(r"[a-zA-Z][a-zA-Z0-9_-]{0,45}", fullmatch=True))
def test_a_project_is_refused_or_its_package_can_be_imported_by_its_name(name: str) -> None:
    try:
        package = check_project(name)
    except ScaffoldError:
        return
    assert package.isidentifier() and package.isascii() and not keyword.iskeyword(package) and package not in sys.stdlib_module_names
    ast.parse(f"from {package}.app import x")


@given(st.text(max_size=50) | st.from_regex(r"[a-zA-Z][a-zA-Z0-9_-]{0,45}", fullmatch=True))
def test_an_agent_is_refused_or_has_a_class_and_a_module(name: str) -> None:
    try:
        title, module = check_class(name)
    except ScaffoldError:
        return
    ast.parse(f"from x.{module} import {title}")
    assert title[0].isupper() and module == module.lower()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("invoice", ("Invoice", "invoice")),
        ("invoice-line", ("InvoiceLine", "invoice_line")),
        ("invoice_line", ("InvoiceLine", "invoice_line")),
        ("InvoiceLine", ("InvoiceLine", "invoice_line")),
        ("HTTPDoor", ("HTTPDoor", "http_door")),
        ("v2", ("V2", "v2")),
    ],
)
def test_an_agents_name_is_told_in_any_way(name: str, expected: tuple[str, str]) -> None:
    assert check_class(name) == expected


@pytest.mark.parametrize("name", ["Exception", "Agent", "Decimal", "UUID", "conftest", "app", "ValueError", "class", "Ünit", "a.b", "../x"])
def test_impossible_agents_are_refused(name: str) -> None:
    with pytest.raises(ScaffoldError):
        check_class(name)


@pytest.mark.parametrize("name", ["", "2x", "class", "_hidden", "a b", "naïve", "x" * 41, "match"])
def test_impossible_members_are_refused(name: str) -> None:
    with pytest.raises(ScaffoldError):
        check_member(name, "a field")


# -- fields and actions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("total:decimal", "did you mean 'Decimal'"),
        ("total:Decimla", "did you mean 'Decimal'"),
        ("x:list", r"list\[str\]"),
        ("x:dict[str]", "can't be|isn't a type"),
        ("x:", "isn't a type"),
        ("x:int=abc", "whole number"),
        ("x:int=99999999999999999999999", "64 bits"),
        ("x:float=nan", "1.5"),
        ("x:float=inf", "1.5"),
        ("x:Decimal=NaN", "1.50"),
        ("x:bool=maybe", "true or false"),
        ("x:datetime=2026-01-02T03:04:05", "Z"),
        ("x:UUID=1", "a UUID"),
        ("x:list[str]=[1]", "leave the default out"),
        ("x:set[list[int]]", "can't be in a set"),
        ("x:dict[list[int], str]", "dict's key"),
        ("x:__import__('os')", "isn't a type"),
        ("x:int; import os", "isn't a type"),
        ("x:int\nimport os", "isn't a type"),
        ("x:str=a\nb", "printable"),
        ("x:list[list[list[list[list[int]]]]]", "nested"),
        ("x:" + "list[" * 500 + "int" + "]" * 500, "isn't a type"),
        ("int:int", "something else"),
        ("key:str", "every agent has"),
        ("emit:str", "every agent has"),
        ("action:str", "something else"),
        ("x:str=" + "a" * 100, "at most"),
        ("x:bytes=ü", "ASCII"),
        ("x:int|str", "can't be|isn't a type"),
    ],
)
def test_fields_that_cannot_be_are_refused_with_what_could(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ScaffoldError, match=told):
        agent_files(Project(tmp_path, "shop", "shop"), "Invoice", [text])


@pytest.mark.parametrize(
    ("action", "told"),
    [
        ("total(x:int)", "of that name"),
        ("read(x:int)", "of that name"),
        ("pay(x:int", "a name and its arguments"),
        ("pay(total:str)", "is a Decimal already"),
        ("pay(total, total)", "twice"),
        ("emit()", "every agent has"),
        ("class()", "word of Python's"),
        ("pay(x:inr)", "did you mean 'int'"),
        ("", "a name and"),
        ("pay()): import os", "word|a name|isn't|can't"),
        ("pay(self)", "something else"),
        ("pay(key)", "every agent has"),
    ],
)
def test_actions_that_cannot_be_are_refused_with_what_could(action: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ScaffoldError, match=told):
        agent_files(Project(tmp_path, "shop", "shop"), "Invoice", ["total:Decimal"], [action])


def test_there_is_a_limit_to_how_much_is_generated(tmp_path: Path) -> None:
    project = Project(tmp_path, "shop", "shop")
    with pytest.raises(ScaffoldError, match="at most 50"):
        agent_files(project, "Invoice", [f"a{number}:int" for number in range(51)])
    with pytest.raises(ScaffoldError, match="twice"):
        agent_files(project, "Invoice", ["a:int", "a:int"])
    with pytest.raises(ScaffoldError, match="leaves no name"):
        agent_files(project, "Invoice", ["read:int"])


scalars = st.sampled_from([name for name in TYPES if name not in ("list", "set", "dict")])
containers = st.one_of(
    scalars.map("list[{}]".format),
    scalars.map("set[{}]".format),
    st.tuples(scalars, scalars).map("dict[{0[0]}, {0[1]}]".format),
    scalars.map("{} | None".format),
)
types = scalars | containers | containers.map("list[{}]".format) | containers.map("{}?".format)
names = st.from_regex(r"[a-z][a-z_0-9]{0,8}", fullmatch=True)
defaults = st.sampled_from(["", "=1", "=true", "=1.5", "=2026-01-02", '=it\'s "x" \\', "=None", "=2026-01-02T00:00:00Z"])
fields = st.tuples(names, types, defaults).map(lambda parts: f"{parts[0]}:{parts[1]}{parts[2]}") | st.text(max_size=20)


@settings(max_examples=150)
@given(
    st.lists(fields, max_size=4),
    st.lists(st.tuples(names, st.lists(names | fields, max_size=3)).map(lambda a: f"{a[0]}({', '.join(a[1])})"), max_size=3),
)
def test_whatever_is_asked_for_is_refused_or_becomes_an_agent(field_texts: list[str], action_texts: list[str]) -> None:
    project = Project(Path("/nowhere"), "shop", "shop")
    try:
        content = agent_files(project, "invoice", field_texts, action_texts)
    except ScaffoldError:
        return
    made = ModuleType("shop.invoice")
    sys.modules[made.__name__] = made
    try:
        exec(compile(content["shop/invoice.py"], "invoice.py", "exec"), vars(made))
        ast.parse(content["tests/test_invoice.py"])
        assert issubclass(made.Invoice, Agent)
    finally:
        del sys.modules[made.__name__]


@given(st.text(max_size=30).map(lambda text: f"note:str={text}"))
def test_a_text_begins_as_it_was_given(text: str) -> None:
    try:
        member = parse_member(text)
    except ScaffoldError:
        return
    assert ast.literal_eval(member.kind.begins) == text.partition("=")[2].strip()


# -- writing -------------------------------------------------------------------------------------------------------


def test_a_project_says_what_it_is(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    assert project == Project(tmp_path / "my-shop", "my_shop", "my_shop")
    settings_ = tomllib.loads((project.root / "pyproject.toml").read_text())
    assert settings_["project"]["dependencies"] == ["jidosystem[standard]"]
    assert {"README.md", "jido.toml", ".gitignore", "my_shop/account.py", "my_shop/app.py", "tests/test_account.py"} <= set(left_behind(project.root))
    assert os.listdir(tmp_path) == ["my-shop"]
    mask = os.umask(0)
    os.umask(mask)
    assert project.root.stat().st_mode & 0o777 == 0o777 & ~mask


def test_a_source_is_a_wheel_or_a_checkout(tmp_path: Path) -> None:
    checkout = Path(__file__).parents[2]
    settings_ = tomllib.loads(project_files("shop", str(checkout))["pyproject.toml"])
    assert settings_["project"]["dependencies"] == [f"jidosystem[standard] @ {checkout.as_uri()}"]
    assert settings_["tool"]["hatch"]["metadata"]["allow-direct-references"]
    (tmp_path / "other-1.0.whl").touch()
    for source, told in (
        ("missing", "can't be read"),
        (str(tmp_path), "neither"),
        (str(tmp_path / "other-1.0.whl"), "neither"),
        ("a\0b", "can't be read"),
    ):
        with pytest.raises(ScaffoldError, match=told):
            project_files("shop", source)


def test_an_empty_folder_is_filled_and_any_other_left_alone(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    new_project(tmp_path, "shop")
    before = left_behind(tmp_path)
    with pytest.raises(ScaffoldError, match="isn't empty"):
        new_project(tmp_path, "shop")
    assert left_behind(tmp_path) == before
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "shop")
    (tmp_path / "dangling").symlink_to(tmp_path / "missing")
    for name in ("file", "link", "dangling"):
        with pytest.raises(ScaffoldError, match="no folder"):
            write_project(tmp_path, name, {"a": "b"})


def test_a_project_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for parent in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(ScaffoldError, match="nothing was left behind"):
            write_project(parent, "shop", project_files("shop"))
    assert os.listdir(tmp_path) == ["file"]


def in_a_child(code: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True, check=False)


FULL = """
import errno, resource, signal, sys
from pathlib import Path
from jidosystem.api.scaffold import project_files, write_project
from jidosystem.core.errors import ScaffoldError
content = project_files("shop")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
try:
    write_project(Path("."), "shop", content)
except ScaffoldError as error:
    print(error)
"""


@pytest.mark.parametrize("size_bytes", [0, 100, 800])
def test_a_disk_that_fills_up_in_the_middle_leaves_nothing_behind(tmp_path: Path, size_bytes: int) -> None:
    ended = in_a_child(FULL, tmp_path, str(size_bytes))
    assert os.strerror(errno.EFBIG) in ended.stdout and "nothing was left behind" in ended.stdout, ended.stderr
    assert os.listdir(tmp_path) == []


INTERRUPTED = """
import sys
from pathlib import Path
from jidosystem.api.scaffold import project_files, write_project
class Files(dict):
    def items(self):
        for number, item in enumerate(super().items()):
            if number == int(sys.argv[1]):
                raise KeyboardInterrupt
            yield item
try:
    write_project(Path("."), "shop", Files(project_files("shop")))
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("files", [0, 1, 5])
def test_an_interruption_leaves_nothing_behind(tmp_path: Path, files: int) -> None:
    ended = in_a_child(INTERRUPTED, tmp_path, str(files))
    assert ended.stdout == "interrupted\n", ended.stderr
    assert os.listdir(tmp_path) == []


def test_what_is_there_is_not_written_over_unless_that_is_asked_for(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    generate(project, "Invoice", "total:Decimal")
    (project.root / "tests/test_invoice.py").unlink()
    module = project.root / "my_shop/invoice.py"
    module.write_text("# mine\n")
    with pytest.raises(ScaffoldError, match=re.escape("my_shop/invoice.py is there already")):
        generate(project, "Invoice", "total:Decimal")
    assert module.read_text() == "# mine\n"
    assert not (project.root / "tests/test_invoice.py").exists()
    generate(project, "Invoice", "total:Decimal", force=True)
    assert "class Invoice(Agent)" in module.read_text()


def test_modules_are_written_all_or_none(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    app = project.root / "my_shop/app.py"
    before, files = app.read_text(), left_behind(project.root)
    (project.root / "tests" / "test_invoice.py").mkdir()
    with pytest.raises(ScaffoldError, match="nothing was changed"):
        generate(project, "Invoice", "total:Decimal", force=True)
    (project.root / "tests" / "test_invoice.py").rmdir()
    assert (app.read_text(), left_behind(project.root)) == (before, files)


def test_an_app_that_its_owner_changed_is_left_to_its_owner(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    app = project.root / "my_shop/app.py"
    assert hosted(project, "invoice", "Invoice") == {"my_shop/app.py": app_module("my_shop", {"account": "Account", "invoice": "Invoice"})}
    for changed in (app.read_text() + "\nx = 1\n", "def broken(", "", "\0"):
        app.write_text(changed)
        assert hosted(project, "invoice", "Invoice") == {}
    app.unlink()
    assert hosted(project, "invoice", "Invoice") == {}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "there is no project"),
        ("[project", "can't be read"),
        ("[tool]", "needs a .project."),
        ('project = "x"', "can't be read"),
        ('[project]\nname = "x"', "has no package x/"),
    ],
)
def test_a_folder_without_a_project_says_what_is_missing(tmp_path: Path, content: str | None, told: str) -> None:
    if content is not None:
        (tmp_path / "pyproject.toml").write_text(content)
    with pytest.raises(ScaffoldError, match=told):
        find_project(tmp_path)


RUNS = '''"""A generated sensor at work."""

from jidosystem import Platform

from my_shop.load import Load


async def test_it_looks_by_itself() -> None:
    """As soon as its agent lives."""
    async with Platform() as platform:
        await platform.agents.start(Load, "main")
        async for fields, _revision in platform.agents.watch(platform.agent(Load, "main")):
            if fields is not None and fields["taken"] == 1:
                break
'''


def test_what_is_written_passes_checkers_and_its_own_tests(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    generate(
        project,
        "Invoice",
        "total:Decimal=1.50",
        "paid:bool=true",
        "due:datetime",
        "tags:list[str]",
        "seen:set[UUID]",
        "by:dict[str, list[date]]",
        "note",
        "opt:int?",
        "wait:timedelta",
    )
    generate(project, "InvoiceLine", "total:Decimal", actions=("pay(total, note:str, at:datetime)", "close", "tag(tags:list[UUID])"))
    generate(project, "store")
    for name, kind, value in (
        ("Load", "every", 60.0),
        ("Daily", "cron", "0 7 * * *"),
        ("Inbox", "watch", "inbox"),
        ("Hook", "http", "/hooks/{key}"),
        ("Fixed", "http", "/hooks/fixed"),
    ):
        content = sensor_files(project, name, **{kind: value})  # type: ignore[arg-type]
        write_modules(project.root, content, replace=frozenset({"my_shop/app.py"}))
    (project.root / "tests" / "test_load_runs.py").write_text(RUNS)
    for command in (
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["mypy", "tests"],
        ["pytest", "-q", "-p", "no:cacheprovider"],
    ):
        ended = subprocess.run([TOOLS / command[0], *command[1:]], cwd=project.root, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, f"{' '.join(command)}\n{ended.stdout}\n{ended.stderr}"
