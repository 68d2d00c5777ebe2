"""Two type checkers say of the files beside this one exactly what is marked in them, line by line: no less, no more."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from collections import defaultdict
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = [HERE / "good.py", HERE / "bad.py"]
Told = dict[tuple[str, int], set[str]]


def expected(pyright: bool) -> Told:
    marked: Told = {}
    for path in FILES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = re.search(r"# error: (.+)$", line)
            if match is not None:
                marked[path.name, number] = {rule for rule in match[1].split(", ") if rule.startswith("report") is pyright}
    assert marked
    return marked


def of_mypy(tmp_path: Path) -> Told:
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path), "--no-error-summary"]
    done = subprocess.run([*command, *map(str, FILES)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    told: Told = defaultdict(set)
    for line in done.stdout.splitlines():
        if match := re.fullmatch(r"(.+):(\d+): error: .* \[(.+)\]", line):
            told[Path(match[1]).name, int(match[2])].add(match[3])
    return told


def of_basedpyright(tmp_path: Path) -> Told:
    config = {
        "include": [str(path) for path in FILES],
        "extraPaths": [str(ROOT / "src"), sysconfig.get_path("purelib")],
        "pythonVersion": "3.11",
        "typeCheckingMode": "strict",
        **{f"reportUnknown{what}Type": False for what in ("Variable", "Member", "Argument", "Parameter", "Lambda")},  # what follows from an error
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    command = [str(Path(sys.executable).parent / "basedpyright"), "--outputjson", "--project", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ)
    answer = json.loads(done.stdout)
    assert answer["summary"]["filesAnalyzed"] == len(FILES), answer
    told: Told = defaultdict(set)
    for one in answer["generalDiagnostics"]:
        told[Path(one["file"]).name, one["range"]["start"]["line"] + 1].add(one.get("rule", one["message"]))
    return told


@pytest.mark.timeout(300)
@pytest.mark.parametrize("checker", ["mypy", "basedpyright"])
def test_a_type_checker_says_what_is_marked_and_nothing_else(checker: str, tmp_path: Path) -> None:
    told = of_mypy(tmp_path) if checker == "mypy" else of_basedpyright(tmp_path)
    wanted = expected(checker == "basedpyright")
    differing = sorted(place for place in {*told, *wanted} if told.get(place) != wanted.get(place))
    assert not differing, [(place, f"{checker} says", told.get(place), "marked", wanted.get(place)) for place in differing]
