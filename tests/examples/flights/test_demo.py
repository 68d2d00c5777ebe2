"""The demonstration itself, as a user runs it: killed, started again, and honest about what it finds."""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path

import pytest

from examples.flights.books import reckon
from examples.flights.demo import ROOT, parse_plan, show_refused, show_verdict
from examples.flights.screen import Screen


async def demo(folder: Path, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "examples.flights", "--folder", str(folder), *arguments),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


@pytest.mark.parametrize("seed", [11, 12, 13, 14])
async def test_the_books_balance_although_the_node_is_killed_at_random_points(tmp_path: Path, seed: int) -> None:
    code, said = await demo(tmp_path, "--days", "3", "--kills", "3", "--seed", str(seed))
    assert code == 0, said
    assert said.count("kill -9") == 3
    assert "The books balance" in said
    assert "DIFFER" not in said


async def test_nonsense_rows_are_refused_one_by_one_and_the_rest_goes_on(tmp_path: Path) -> None:
    code, said = await demo(tmp_path, "--days", "2", "--corrupt", "16", "--seed", "5")
    assert code == 0, said
    assert "16 nonsense rows were put in, 16 were refused" in said
    assert said.count("  line ") == 16
    assert "The books balance" in said


async def test_one_caller_is_enough(tmp_path: Path) -> None:
    code, said = await demo(tmp_path, "--days", "1", "--callers", "1", "--kills", "1", "--seed", "3")
    assert code == 0, said


def screen() -> tuple[Screen, io.StringIO]:
    out = io.StringIO()
    return Screen(out), out


def test_a_single_wrong_total_is_said_plainly() -> None:
    expected = reckon({1}, days=1)
    found = {agent: dict(book) for agent, book in expected.items()}
    shown, out = screen()
    assert show_verdict(shown, expected, found)
    found["Airport/EWR"]["departures"] -= 1
    shown, out = screen()
    assert not show_verdict(shown, expected, found)
    assert "THE BOOKS DON'T BALANCE: 1 totals differ" in out.getvalue()
    assert "Airport/EWR: departures is " in out.getvalue()


def test_too_few_refused_rows_are_a_failure() -> None:
    plan = parse_plan(["--corrupt", "2"])
    shown, out = screen()
    assert not show_refused(shown, plan, [(7, "month '13'")])
    assert "2 nonsense rows were put in, 1 were refused" in out.getvalue()
    assert show_refused(shown, plan, [(7, "month '13'"), (9, "distance 'far'")])


@pytest.mark.parametrize("arguments", [["--months", "13"], ["--months", "x"], ["--callers", "0"], ["--kills", "-1"]])
def test_an_impossible_plan_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_plan(arguments)
    assert "error" in capsys.readouterr().err


def test_what_is_no_terminal_gets_plain_lines_without_escapes() -> None:
    shown, out = screen()
    shown.say("hello", "green")
    for done in range(101):
        shown.progress(done, 100, 1.0)
    assert "\x1b" not in out.getvalue()
    assert out.getvalue().count("flights") == 11
