"""What the pages call by name is there: in the code, or in an example on the same page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import jidosystem
from jidosystem import Agents, EventBus, Platform
from jidosystem.core.config_schema import SECTIONS

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CHANGELOG.md"]
ELSEWHERE = {"SIGKILL", "executemany", "other_action", "run_coroutine_threadsafe", "JIDO_SECTION__KEY", "TypedDict", "_s", "llms"}
"""What others call so, or what stands for any name."""
NEIGHBOURS = {
    "InstanceManager", "PostgresSaver", "SpawnAgent", "WorkflowEnvironment", "__ray_terminate__", "crontab", "eta", "get_state_history", "hibernate",
    "jido_ai", "max_concurrency", "patched", "start_time_skipping", "thaw", "whereis", "workflow",
}  # fmt: skip
"""What the systems call so that the pages under `coming-from` speak of."""
CODE = set(re.findall(r"\w+", " ".join(path.read_text() for path in Path(jidosystem.__file__).parents[1].glob("*jidosystem/**/*.py"))))
CODE |= set(re.findall(r"\w+", (ROOT / "pyproject.toml").read_text() + (ROOT / "Makefile").read_text()))
ROOMS = {"platform": Platform, "agents": Agents, "events": EventBus, "infrastructure": object}


def prose_and_code(page: Path) -> tuple[str, str]:
    text = page.read_text()
    blocks = r"^```.*?^```"
    return re.sub(blocks, "", text, flags=re.DOTALL | re.MULTILINE), " ".join(re.findall(blocks, text, flags=re.DOTALL | re.MULTILINE))


def names_in(prose: str) -> set[str]:
    """What stands in backticks and looks like a name, without arguments."""
    found = (re.fullmatch(r"@?([A-Za-z_][\w.]*)(?:\(.*\))?", token) for token in re.findall(r"`([^`]+)`", prose))
    return {match[1] for match in found if match is not None}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_in_the_prose_are_those_of_the_code_or_of_an_example(page: Path) -> None:
    prose, code = prose_and_code(page)
    known = CODE | ELSEWHERE | set(re.findall(r"\w+", code)) | (NEIGHBOURS if page.parent.name == "coming-from" else set())
    known |= {f"{name}_total" for name in CODE} | {f"jido_{name}" for name in CODE}  # metrics, which a test of their own compares
    assert {name for name in names_in(prose) if not set(re.findall(r"\w+", name)) <= known} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_are_config_keys_or_what_the_platform_offers(page: Path) -> None:
    wrong: set[str] = set()
    for name in names_in(prose_and_code(page)[0]):
        room, _, rest = name.partition(".")
        if room in ROOMS and rest and "." not in rest and rest != "py":
            keys = SECTIONS[room]().__struct_fields__
            if rest not in keys and not hasattr(ROOMS[room], rest):
                wrong.add(name)
    assert wrong == set()
