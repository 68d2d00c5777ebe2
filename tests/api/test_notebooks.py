"""A notebook or a prompt: `await` at the top level, and what is shown of what comes back. Real ones: IPython's shell, and Python's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DEFINED = '''
from jidosystem import Agent, Platform, action

class Counter(Agent):
    """Counts."""

    value: int = 0

    @action
    async def add(self, amount: int = 1) -> int:
        self.value += amount
        self.emit("counter.added", {"value": self.value})
        return self.value

    @action
    async def fail(self) -> None:
        raise ValueError("no luck")
'''
OPENED = "platform = await Platform(name='n-1').__aenter__()"
CELLS = {
    "defined": DEFINED,
    "opened": OPENED,
    "reference": "counter = platform.agent(Counter, 'home'); counter",
    "called": "await counter.add(2)",
    "with": "async with Platform() as other:\n    print(await other.agent(Counter, 'a').add(7))",
    "iterated": "[event async for event in platform.events.read_all()][0]",
    "described": "await platform.agents.describe(counter)",
    "agent": "Counter(value=3)",
    "events": "platform.events",
    "failed": "await counter.fail()",
    "misused": "await counter.ad()",
    "mistaken": "class Wrong(Agent):\n    value: int",
    "closed": "await platform.__aexit__(None, None, None)",
    "late": "await counter.add()",
}
SHELL = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

config = Config()
config.HistoryManager.enabled = False
config.InteractiveShell.colors = "nocolor"
shell = InteractiveShell.instance(config=config)
shell.loop_runner, shell.autoawait = "asyncio", True
answers = {}
for name, cell in json.load(sys.stdin).items():
    with capture_output() as shown:
        ran = shell.run_cell(cell, store_history=False)
    error = ran.error_before_exec or ran.error_in_exec
    formats = {} if ran.result is None else shell.display_formatter.format(ran.result)[0]
    answers[name] = {"formats": formats, "error": type(error).__name__ if error else "", "shown": shown.stdout + shown.stderr}
json.dump(answers, sys.stdout)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What IPython makes of the cells, one after another in one shell."""
    home = tmp_path_factory.mktemp("ipython")
    ended = subprocess.run(
        [sys.executable, "-c", SHELL], input=json.dumps(CELLS), capture_output=True, text=True, check=False, timeout=90, cwd=home,
        env={**os.environ, "IPYTHONDIR": str(home)},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


@pytest.mark.parametrize(
    ("cell", "told"),
    [("reference", "<Counter/home>"), ("called", "2"), ("agent", "Counter(value=3)"), ("events", "<events of node n-1>"),
     ("described", "<AgentInfo Counter/home live, version 1, revision 1, 1 turns, node n-1>")],
)  # fmt: skip
def test_what_a_cell_gives_is_shown(answers: dict[str, Any], cell: str, told: str) -> None:
    assert answers[cell]["error"] == "", answers[cell]["shown"]
    assert answers[cell]["formats"]["text/plain"] == told


@pytest.mark.parametrize(
    ("cell", "parts"),
    [("reference", ["Counter/home", "add"]), ("described", ["Counter/home", "live", "value"]), ("agent", ["value", "3"]),
     ("iterated", ["counter.added", "Counter/home"])],
)  # fmt: skip
def test_a_notebook_gets_a_table(answers: dict[str, Any], cell: str, parts: list[str]) -> None:
    table = answers[cell]["formats"]["text/html"]
    assert table.startswith("<table>")
    for part in parts:
        assert part in table


def test_a_platform_lives_within_a_cell_too(answers: dict[str, Any]) -> None:
    assert answers["with"]["shown"] == "7\n"


@pytest.mark.parametrize(
    ("cell", "error", "told"),
    [("failed", "ValueError", ["no luck", "await counter.fail()"]),
     ("misused", "NotAnAction", ["did you mean 'add'?", "not-an-action on node n-1: see docs/errors/not-an-action.md"]),
     ("mistaken", "DefinitionError", ["Wrong.value", "needs a default", "definition: see docs/errors/definition.md"]),
     ("late", "ShuttingDown", ["the platform is closed", "shutting-down on node n-1"])],
)  # fmt: skip
def test_an_error_is_shown_with_the_users_lines_its_page_and_none_of_ours(answers: dict[str, Any], cell: str, error: str, told: list[str]) -> None:
    assert answers[cell]["error"] == error
    for part in told:
        assert part in answers[cell]["shown"]
    assert "jidosystem/" not in answers[cell]["shown"]


def test_closing_in_a_cell_is_quiet(answers: dict[str, Any]) -> None:
    assert (answers["closed"]["error"], answers["closed"]["shown"]) == ("", "")


def test_pythons_own_prompt_awaits_at_the_top_level(tmp_path: Path) -> None:
    lines = [*DEFINED.replace("\n\n    ", "\n    ").splitlines(), "", OPENED, "counter = platform.agent(Counter, 'home')", "counter",
             "await counter.add(2)", "await platform.agents.describe(counter)", "await counter.ad()", CELLS["closed"]]  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-m", "asyncio"], input="\n".join(lines) + "\n", capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path,
        env={**os.environ, "PYTHONSTARTUP": "", "NO_COLOR": "1", "PYTHON_BASIC_REPL": "1"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    told = ended.stdout + ended.stderr
    for part in ("<Counter/home>", ">>> 2\n", "<AgentInfo Counter/home live", "did you mean 'add'?", "not-an-action on node n-1"):
        assert part in told, told
    assert told.count("Traceback") == 1
