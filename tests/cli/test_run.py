"""`jido run` as a process: what it says, how it ends, and what it does with programs and stores that can't be."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jidosystem.cli import node
from tests.cli.conftest import Jido

JIDO = [sys.executable, "-m", "jidosystem"]
PROGRAM = """
import asyncio
from jidosystem import Agent, action


class Counter(Agent):
    value: int = 0

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    @action
    async def slow(self) -> str:
        print("slow begins", flush=True)
        await asyncio.sleep(1)
        return "done"


class Other(Agent):
    pass
"""
LIFESPAN = """
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from jidosystem import Agent, Event, LogFileForwarder, Platform, action


class Shop(Agent):
    sold: int = 0

    @action
    async def sell(self) -> int:
        self.sold += 1
        self.emit("sold", self.sold)
        return self.sold


async def heard(event: Event) -> None:
    print("heard", event.data, flush=True)


@asynccontextmanager
async def platform_lifespan(platform: Platform) -> AsyncGenerator[None]:
    await platform.events.subscribe("sold", heard, durable="heard", group="w")
    await platform.events.forward(LogFileForwarder("sold.jsonl", pattern="sold"))
    print("opened", flush=True)
    yield
    print("sold at the end:", await platform.agent(Shop, "a").sell(), flush=True)
"""
BARE = """from contextlib import asynccontextmanager
from jidosystem import Agent

class Shop(Agent): pass

@asynccontextmanager
async def platform_lifespan(platform):
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Start `jido` in the user's folder; what still runs at the end is killed."""
    processes: list[subprocess.Popen[str]] = []

    def started(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen([*JIDO, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home)
        processes.append(process)
        return process

    yield started
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def program(home: Path) -> Path:
    path = home / "counter.py"
    path.write_text(PROGRAM)
    return path


def ready(process: subprocess.Popen[str]) -> dict[str, object]:
    """What a node says once it serves."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    found: dict[str, object] = json.loads(line)
    return found


def stands(process: subprocess.Popen[str]) -> None:
    """Wait until a node without `--json` says that it serves."""
    assert process.stderr is not None
    while "Ctrl-C ends" not in (line := process.stderr.readline()):
        assert line, process.poll()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """(exit code, what it wrote to standard error)."""
    _out, err = process.communicate(timeout=60)
    return process.returncode, err


def test_a_program_is_hosted_called_and_comes_back_with_its_state(start: Start, program: Path, jido: Jido, home: Path) -> None:
    for expected in ("2\n", "4\n"):
        process = start("run", "counter.py", "--json", "--port", "0")
        said = ready(process)
        assert (said["name"], said["store"], said["agents"]) == ("counter", "sqlite:///counter.db", ["Counter", "Other"])
        assert jido("call", "Counter/home", "add", "amount=2").out == expected
        process.send_signal(signal.SIGTERM)
        assert ended(process) == (0, "")
        assert node.running() == ([], [])
    assert (home / "counter.db").exists()


def test_ctrl_c_lets_a_running_turn_end_and_its_caller_have_the_answer(start: Start, program: Path) -> None:
    process = start("run", "counter.py", "--json", "--port", "0")
    ready(process)
    calling = start("call", "Counter/home", "slow")
    assert process.stdout is not None
    assert process.stdout.readline() == "slow begins\n"
    process.send_signal(signal.SIGINT)
    assert calling.communicate(timeout=60) == ("done\n", "")
    assert ended(process)[0] == 130


def test_a_second_signal_ends_at_once_and_nothing_acknowledged_is_lost(start: Start, program: Path, jido: Jido) -> None:
    process = start("run", "counter.py", "--json", "--port", "0")
    ready(process)
    assert jido("call", "Counter/home", "add", "amount=5").out == "5\n"
    calling = start("call", "Counter/home", "slow")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 130
    assert calling.wait(60) == 3
    ready(start("run", "counter.py", "--json", "--port", "0"))
    assert jido("call", "Counter/home", "add").out == "6\n"


@pytest.mark.parametrize("wait_s", [0, 0.1, 0.3, 0.6, 1.2])
def test_ctrl_c_while_it_starts_leaves_nothing_behind(start: Start, program: Path, wait_s: float) -> None:
    process = start("run", "counter.py", "--json", "--port", "0")
    time.sleep(wait_s)
    process.send_signal(signal.SIGINT)
    code, err = ended(process)
    assert code in (130, -signal.SIGINT, 1)
    if code == 130:
        assert "Traceback" not in err
    assert node.running() == ([], [])


def test_a_store_that_is_locked_names_its_owner(start: Start, program: Path) -> None:
    first = start("run", "counter.py", "--json", "--port", "0")
    ready(first)
    code, err = ended(start("run", "counter.py", "--port", "0"))
    assert (code, f"process {first.pid}" in err, "store-locked" in err, "Traceback" in err) == (1, True, True, False)


def test_two_nodes_of_one_program_have_two_names(start: Start, program: Path, jido: Jido) -> None:
    ready(start("run", "counter.py", "--json", "--port", "0"))
    second = start("run", "counter.py", "--json", "--port", "0", "--store", "memory://")
    assert ready(second)["name"] == f"counter-{second.pid}"
    assert ended(start("run", "counter.py", "--name", "counter", "--store", "memory://"))[0] == 2
    assert jido("ps").code == 3
    assert jido("ps", "--node", "counter").code == 0


def test_only_some_types_are_hosted_if_they_are_named(start: Start, program: Path) -> None:
    process = start("run", "counter.py", "--json", "--port", "0", "--agents", "Other")
    assert ready(process)["agents"] == ["Other"]
    code, err = ended(start("run", "counter.py", "--agents", "Othr"))
    assert (code, "did you mean 'Other'" in err) == (2, True)
    assert ended(start("run", "counter.py", "--agents", ","))[0] == 2


@pytest.mark.parametrize(
    ("text", "told", "code"),
    [
        ("from jidosystem import Agent\n\nx = undefined\n", ["counter.py", "line 3", "x = undefined", "NameError"], 1),
        ("import os\n\ndef f(:\n", ["counter.py", "line 3", "SyntaxError"], 1),
        ("import nothing_of_that_name\n", ["counter.py", "line 1", "nothing_of_that_name"], 1),
        ("import sys\nsys.exit(4)\n", ["line 2", "SystemExit"], 1),
        ("x = 1\n", ["no agent class"], 1),
        ("from jidosystem import Agent\n\nclass C(Agent):\n    x: int\n", ["counter.py", "line 3", "C.x", "definition"], 1),
        ("from jidosystem import Agent\nclass A(Agent, name='T'): pass\nclass B(Agent, name='T'): pass\n", ["'T'", "counter.A", "counter.B"], 1),
        ("raise KeyboardInterrupt\n", [], 130),
        ("\x00", ["null bytes"], 1),
    ],
)
def test_a_program_that_can_not_be_imported_shows_its_authors_line(start: Start, home: Path, text: str, told: list[str], code: int) -> None:
    (home / "counter.py").write_text(text)
    found, err = ended(start("run", "counter.py", "--port", "0"))
    assert found == code
    for part in told:
        assert part in err
    assert "jidosystem/" not in err
    assert "importlib" not in err


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("countr.py",), 2, "did you mean 'counter.py'"),
        (("nowhere/app.py",), 2, "there is no file"),
        ((".",), 2, "folder"),
        (("no-module",), 2, "neither"),
        (("nothing.here",), 2, "no module"),
        (("a.txt",), 2, ""),
        ((), 2, "missing argument"),
        (("counter.py", "--store", "mysql://x"), 1, "invalid-config"),
        (("counter.py", "--store", "nats://x?repplicas=3"), 1, "replicas"),
        (("counter.py", "--store", "nats://127.0.0.1:1"), 1, "127.0.0.1:1"),
        (("counter.py", "--host", "0.0.0.0"), 1, "security layer"),
        (("counter.py", "--host", "example.org"), 1, "security layer"),
        (("counter.py", "--port", "70000"), 2, "--port"),
        (("counter.py", "--port", "1x"), 2, "--port"),
        (("counter.py", "--workers", "0"), 2, "--workers"),
        (("counter.py", "--workers", "2", "--port", "7000"), 2, "--port"),
        (("counter.py", "--workers", "2", "--store", "memory://"), 2, "--store"),
        (("counter.py", "--cluster", "nats://x", "--store", "memory://"), 2, "one of them"),
        (("counter.py", "--name", ""), 2, "--name"),
        (("counter.py", "--name", "x" * 101), 2, "--name"),
        (("counter.py", "--stor", "memory://"), 2, "--store"),
    ],
)
def test_what_can_not_be_run_is_one_clear_error(jido: Jido, program: Path, arguments: tuple[str, ...], code: int, told: str) -> None:
    for command in ("run", "dev"):
        if command == "dev" and (
            arguments[1:2] in (("--workers",), ("--cluster",)) or "nats://127.0.0.1:1" in arguments or arguments in (("nothing.here",), ("a.txt",))
        ):  # it waits for a save
            continue
        ran = jido(command, *arguments)
        assert (ran.code, told in ran.err, "Traceback" in ran.err) == (code, True, False), ran.err


def test_a_store_that_can_not_be_opened_is_told(start: Start, program: Path) -> None:
    code, err = ended(start("run", "counter.py", "--store", "sqlite:///no/such/folder.db"))
    assert (code, "store-unavailable" in err, "Traceback" in err) == (1, True, False)


def test_a_broken_configuration_names_line_and_path(start: Start, program: Path, home: Path) -> None:
    (home / "jido.toml").write_text("[agents]\n\ndefault_timeout = 'soon'\n")
    code, err = ended(start("run", "counter.py"))
    assert (code, "jido.toml:3" in err, "agents.default_timeout" in err) == (1, True, True)
    (home / "jido.toml").write_text("[agents\n")
    code, err = ended(start("run", "counter.py"))
    assert (code, "line 1" in err, "Traceback" in err) == (1, True, False)


def test_a_store_of_another_program_is_left_alone(start: Start, program: Path, home: Path) -> None:
    with sqlite3.connect(home / "counter.db") as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    code, err = ended(start("run", "counter.py"))
    assert (code, "store-version" in err) == (1, True)


def test_a_file_in_a_package_and_a_dotted_name_are_the_same_module(start: Start, home: Path) -> None:
    package = home / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "agents.py").write_text(PROGRAM)
    (package / "app.py").write_text("from .agents import Counter\n")
    for target in ("shop/app.py", "shop.app"):
        process = start("run", target, "--json", "--port", "0")
        said = ready(process)
        assert (said["name"], said["agents"]) == ("app", ["Counter"])
        process.send_signal(signal.SIGTERM)
        assert ended(process)[0] == 0


def test_a_folder_is_answered_with_a_file_in_it(jido: Jido, home: Path) -> None:
    for name, files, told in (
        ("parcels", ("__init__.py", "app.py", "a.py"), "app.py"),
        ("plain", ("agents.py",), "agents.py"),
        ("bare", (), "app.py"),
    ):
        (home / name).mkdir()
        for file in files:
            (home / name / file).touch()
        assert f"for example {os.path.join(name, told)}" in jido("run", name, "--port", "0").err


def test_a_program_named_like_a_module_in_use_is_refused(start: Start, home: Path) -> None:
    (home / "json.py").write_text(PROGRAM)
    code, err = ended(subprocess.Popen([sys.executable, "-P", *JIDO[1:], "run", "json.py"], stderr=subprocess.PIPE, text=True, cwd=home))
    assert (code, "rename the file" in err) == (2, True)


def test_a_killed_node_is_forgotten_and_its_store_opens_again(start: Start, program: Path, jido: Jido) -> None:
    process = start("run", "counter.py", "--json", "--port", "0")
    ready(process)
    assert jido("call", "Counter/home", "add").out == "1\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    assert jido("ps").code == 3
    ready(start("run", "counter.py", "--json", "--port", "0"))
    assert jido("call", "Counter/home", "add").out == "2\n"


def test_a_lifespan_subscribes_before_the_first_call_and_ends_while_the_platform_is_open(start: Start, home: Path, jido: Jido) -> None:
    (home / "shop.py").write_text(LIFESPAN)
    process = start("run", "shop.py", "--json", "--port", "0")
    assert process.stdout is not None
    assert process.stdout.readline() == "opened\n"
    ready(process)
    assert jido("call", "Shop/a", "sell").out == "1\n"
    assert process.stdout.readline() == "heard 1\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "sold at the end: 2\n" in out
    process = start("run", "shop.py", "--json", "--port", "0")  # what is durable goes on where it was
    assert process.stdout is not None
    if "heard 2" not in out:
        assert "heard 2\n" in {process.stdout.readline() for _ in range(3)}
    while len((home / "sold.jsonl").read_text().splitlines()) < 2:
        time.sleep(0.05)


def test_a_program_may_have_a_lifespan_and_no_agents(start: Start, home: Path) -> None:
    (home / "shop.py").write_text(
        LIFESPAN.replace("class Shop(Agent)", "class Shop").replace("    @action\n", "").partition('    print("opened"')[0]
        + '    await platform.events.publish("sold", 7)\n    yield\n'
    )
    process = start("run", "shop.py", "--json", "--port", "0")
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(2)]
    assert "heard 7\n" in said
    assert any('"agents": []' in line for line in said)


@pytest.mark.parametrize(
    ("lifespan", "told"),
    [
        ("async def platform_lifespan(platform):\n    await platform.nothing\n", "line 5: platform_lifespan is no async generator function"),
        ("def platform_lifespan(platform):\n    yield\n", "line 5: platform_lifespan is no async generator function"),
        ("async def platform_lifespan(platform):\n    yield\n", "line 5: platform_lifespan has no @asynccontextmanager"),
        ("@asynccontextmanager\nasync def platform_lifespan():\n    yield\n", "line 5: platform_lifespan() can't be called"),
        ("@asynccontextmanager\nasync def platform_lifespan(platform, more):\n    yield\n", "(platform, more) can't be called"),
        ("platform_lifespan = 3\n", "shop.py: platform_lifespan is no async generator function"),
    ],
)
def test_a_lifespan_of_another_form_names_its_line_and_opens_no_store(start: Start, home: Path, lifespan: str, told: str) -> None:
    (home / "shop.py").write_text(f"from contextlib import asynccontextmanager\nfrom jidosystem import Agent\n\nclass Shop(Agent): pass\n{lifespan}")
    code, err = ended(start("run", "shop.py", "--port", "0"))
    assert (code, told in err, "@asynccontextmanager" in err, "[definition]" in err) == (1, True, True, True), err
    assert not (home / "shop.db").exists()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("    undefined\n    yield\n", ["line 8, in platform_lifespan", "    undefined\n", "NameError"]),
        ("    await platform.events.subscribe('a..b', print)\n    yield\n", ["line 8, in platform_lifespan", "a..b"]),
        ("    import sys; sys.exit(4)\n    yield\n", ["line 8", "SystemExit: 4"]),
        ("    if platform is None:\n        yield\n", ["didn't yield"]),
    ],
)
def test_what_a_lifespan_raises_at_the_start_stops_it_with_the_authors_line(start: Start, home: Path, body: str, told: list[str]) -> None:
    (home / "shop.py").write_text(BARE + body)
    process = start("run", "shop.py", "--port", "0")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    for part in ("platform_lifespan of shop.py failed", *told):
        assert part in err
    assert "jidosystem/" not in err
    assert "contextlib.py" not in err


def test_what_a_lifespan_raises_at_the_end_is_told_after_the_store_is_closed(start: Start, home: Path) -> None:
    (home / "shop.py").write_text(BARE + "    yield\n    undefined\n")
    for _ in range(2):
        process = start("run", "shop.py", "--port", "0")
        stands(process)
        process.send_signal(signal.SIGTERM)
        code, err = ended(process)
        assert (code, "line 9, in platform_lifespan" in err, node.running()) == (1, True, ([], []))


@pytest.mark.parametrize("first", ["await asyncio.to_thread(input)", "pass"])
def test_a_task_of_a_lifespan_that_fails_ends_the_node(home: Path, first: str) -> None:
    work = f"import asyncio\nasync def work():\n    {first}\n    undefined\n\n"
    (home / "shop.py").write_text(work + BARE + "    async with asyncio.TaskGroup() as group:\n        group.create_task(work())\n        yield\n")
    process = subprocess.Popen(
        [*JIDO, "run", "shop.py", "--port", "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home
    )
    if first != "pass":
        stands(process)
    _out, err = process.communicate("\n", timeout=60)
    assert (process.returncode, "line 4, in work" in err, "NameError" in err, node.running()) == (1, True, True, ([], [])), err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_lifespan_that_waits_for_ever_at_the_start_is_ended_by_the_first_signal(
    start: Start, home: Path, number: signal.Signals, code: int
) -> None:
    body = (
        "    try:\n        print('waits', flush=True)\n        await asyncio.Event().wait()\n        yield\n    finally:\n        print('cleared')\n"
    )
    (home / "shop.py").write_text("import asyncio\n" + BARE + body)
    process = start("run", "shop.py", "--json", "--port", "0")
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (code, "cleared\n", "")


GENERATOR = "@asynccontextmanager\nasync def {}:\n    yield\n"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (GENERATOR.format("lifespan(platform)"), "lifespan"),
        (GENERATOR.format("lifespan(p: Platform)"), "lifespan"),
        (GENERATOR.format('lifespan(p: "Platform")'), "lifespan"),
        (GENERATOR.format("my_lifespan(platform: Platform)"), "my_lifespan"),
        (GENERATOR.format("platform_life_span(p)"), "platform_life_span"),
        ("def lifespan(platform):\n    pass\n", "lifespan"),
        ("async def lifespan(platform):\n    yield\n", "lifespan"),
        (GENERATOR.format("lifespan(app)"), ""),
        ("from shop_parts import lifespan\n", ""),
        ("def setup(platform):\n    pass\n", ""),
        (GENERATOR.format("lifespan(platform)") + GENERATOR.format("platform_lifespan(platform)"), ""),
        ("lifespan = None\n", ""),
    ],
)
def test_a_lifespan_of_nearly_the_right_name_is_told(home: Path, source: str, name: str) -> None:
    head = "from contextlib import asynccontextmanager\nfrom jidosystem import Agent, Platform\nclass Shop(Agent): pass\n"
    (home / "shop_parts.py").write_text("def lifespan(platform): pass\n")
    (home / "shop.py").write_text(head + source)
    run = "import sys; from jidosystem.cli.program import load; sys.stdout.write(load('shop.py').hint)"
    hint = subprocess.run([sys.executable, "-c", run], cwd=home, capture_output=True, text=True, check=True).stdout
    told = f"{home / 'shop.py'}, line 4: {name} isn't run: what is to run beside the agents is named platform_lifespan"
    assert hint == (told if name else "")


def test_the_hint_stands_below_what_the_node_says_of_itself(start: Start, home: Path) -> None:
    (home / "shop.py").write_text("from jidosystem import Agent\nclass Shop(Agent): pass\ndef lifespan(platform): pass\n")
    process = start("run", "shop.py", "--port", "0")
    assert process.stderr is not None
    lines = [process.stderr.readline() for _ in range(3)]
    assert lines[1].endswith("(Ctrl-C ends)\n")
    assert "line 3: lifespan isn't run" in lines[2]


def test_without_agents_the_hint_says_what_was_probably_meant(start: Start, home: Path) -> None:
    (home / "shop.py").write_text("def lifespan(platform): pass\n")
    process = start("run", "shop.py", "--port", "0")
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "no agent class to host" in err and "is named platform_lifespan" in err
