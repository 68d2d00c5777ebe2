"""The pytest plugin, in projects of its own: both modes of pytest-asyncio, seeds, failures, and projects that don't use it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.blocking  # each test runs pytest in a process of its own

AGENT = """
import asyncio, time
import pytest
from jidosystem import Agent, action

class Meter(Agent):
    ticks: int = 0
    @action
    async def begin(self) -> None:
        self.remind("tick", every=60.0, action=self.tick)
    @action
    async def tick(self) -> None:
        self.ticks += 1
"""

INI = "[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function"


class Project:
    """A folder with one test file."""

    def __init__(self, folder: Path, tests: str, ini: str = "") -> None:
        self.folder = folder
        (folder / "test_it.py").write_text(AGENT + tests)
        (folder / "pytest.ini").write_text(f"{INI}\naddopts = --strict-markers -p no:cacheprovider\n{ini}\n")

    def run(self, *arguments: str) -> tuple[dict[str, int], str]:
        """How many passed, failed, …, and all that was said."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        told = subprocess.run(
            [sys.executable, "-m", "pytest", *arguments], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        counts = {
            word: int(number)
            for number, word in re.findall(r"(\d+) (passed|failed|skipped|errors?|warnings?)", (told.stdout.splitlines() or [""])[-1])
        }
        return counts, told.stdout + told.stderr


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_a_test_that_takes_the_platform_runs_under_virtual_time(tmp_path: Path, mode: str) -> None:
    project = Project(
        tmp_path,
        """
async def test_by_fixture(jido_platform):
    meter = jido_platform.agent(Meter, "m")
    await meter.begin()
    await jido_platform.advance(days=1)
    assert (await jido_platform.state(meter))["ticks"] == 1440

@pytest.mark.jido(agents=[Meter], start="2030-05-01T00:00Z", url="sqlite://")
class TestMarked:
    async def test_options(self, jido_platform):
        assert jido_platform.now.year == 2030
        await jido_platform.crash()
        await jido_platform.restart()

    async def test_no_platform(self):
        began = time.monotonic()
        await asyncio.sleep(3600)
        assert time.monotonic() - began < 60

def test_plain():
    pass
""",
        f"asyncio_mode = {mode}",
    )
    counts, told = project.run()
    assert counts == {"passed": 4}, told


def test_fixtures_of_the_projects_own_share_the_loop(tmp_path: Path) -> None:
    project = Project(
        tmp_path,
        """
@pytest.fixture
async def meter(jido_platform):
    ref = jido_platform.agent(Meter, "m")
    await ref.begin()
    yield ref
    await asyncio.sleep(3600)

async def test_it(meter, jido_platform):
    await jido_platform.advance(minutes=5)
    assert (await jido_platform.state(meter))["ticks"] == 5

@pytest.fixture
async def broken(jido_platform):
    yield
    raise ZeroDivisionError

async def test_error_in_a_fixture(broken):
    pass
""",
        "asyncio_mode = auto",
    )
    counts, told = project.run()
    assert counts == {"passed": 2, "error": 1}, told
    assert "ZeroDivisionError" in told


FLAKY = """
@pytest.mark.jido(agents=[Meter])
@pytest.mark.parametrize("kind", ["a"])
async def test_unlucky(jido_platform, jido_seed, kind):
    jido_platform.faults.schedule("slow", agent="Meter/*")
    await jido_platform.agent(Meter, "m").tick()
    assert jido_seed != 3

async def test_other():
    pass
"""


def test_seeds_are_run_and_the_failing_one_is_told_with_how_to_see_it_again(tmp_path: Path) -> None:
    project = Project(tmp_path, FLAKY, "asyncio_mode = auto")
    assert project.run()[0] == {"passed": 2}
    counts, told = project.run("--jido-seeds=5")
    assert counts == {"passed": 5, "failed": 1}, told
    assert "run it again: pytest 'test_it.py::test_unlucky' --jido-seed=3" in told
    assert "of Meter/m: slow" in told
    counts, told = project.run("test_it.py::test_unlucky", "--jido-seed=3")
    assert counts == {"failed": 1}, told


def test_a_marker_can_ask_for_seeds_and_patience(tmp_path: Path) -> None:
    project = Project(
        tmp_path,
        """
@pytest.mark.jido(seed=10, seeds=3, patience_s=0.2)
async def test_it(jido_platform, jido_seed):
    assert jido_seed in (10, 11, 12)

@pytest.mark.jido(patience_s=0.2)
async def test_stuck(jido_platform):
    await jido_platform.agent(Meter, "m").begin()
    await asyncio.Event().wait()
""",
        "asyncio_mode = auto",
    )
    counts, told = project.run()
    assert counts == {"passed": 3, "failed": 1}, told
    assert "Stuck: what the test waits for hasn't happened for 0.2 s" in told


def test_a_marker_with_options_that_have_no_names_is_refused_when_tests_are_collected(tmp_path: Path) -> None:
    counts, told = Project(tmp_path, "\n@pytest.mark.jido([Meter])\nasync def test_it(jido_platform):\n    pass\n", "asyncio_mode = auto").run()
    assert counts == {"error": 1}, told
    assert "takes options by name" in told


def test_a_cancelled_test_and_a_failing_one_leave_nothing_behind(tmp_path: Path) -> None:
    project = Project(
        tmp_path,
        """
async def test_cancelled(jido_platform):
    task = asyncio.current_task()
    asyncio.get_running_loop().call_later(5, task.cancel)
    await asyncio.sleep(10)

async def test_left(jido_platform):
    asyncio.create_task(asyncio.sleep(1e9))
    await jido_platform.agent(Meter, "m").begin()
    await jido_platform.crash()

async def test_after(jido_platform):
    await jido_platform.agent(Meter, "m").begin()
""",
        "asyncio_mode = auto",
    )
    counts, told = project.run()
    assert counts == {"passed": 2, "failed": 1}, told
    assert "CancelledError" in told


def test_who_doesnt_use_it_loads_nothing_and_has_the_loop_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("""
import asyncio, sys, time

async def test_real_time():
    assert "jidosystem" not in sys.modules
    began = time.monotonic()
    await asyncio.sleep(0.05)
    assert time.monotonic() - began >= 0.04

def test_plain(request):
    assert "jido" not in request.node.keywords
""")
    (tmp_path / "pytest.ini").write_text(f"{INI}\nasyncio_mode = auto\n")
    told = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "2 passed" in told.stdout, told.stdout


def test_the_page_about_testing_is_a_file_of_tests_that_pass(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "test-an-agent.md").read_text()
    blocks = [block for block in re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE) if "assert await stock" not in block]
    first = re.search(r"^```python\n(.*?)^stock =", page, re.DOTALL | re.MULTILINE)
    assert first is not None
    tests = "\n".join([first[1], *(block for block in blocks if "stock.effects" not in block)])
    counts, told = Project(tmp_path, tests, "asyncio_mode = auto").run()
    assert counts == {"passed": 22}, told


def test_without_pytest_asyncio_the_fixture_says_what_is_missing(tmp_path: Path) -> None:
    project = Project(tmp_path, "\ndef test_it(jido_platform):\n    pass\n\ndef test_plain():\n    pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (tmp_path / "pytest_asyncio.py").write_text("raise ImportError('not installed')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "pytest_jidosystem"], cwd=project.folder, env=environment, capture_output=True, text=True, check=False
    )
    assert "1 passed, 1 error" in told.stdout, told.stdout
    assert "pip install 'jidosystem[testing]'" in told.stdout
