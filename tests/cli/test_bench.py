"""`jido bench`: its figures are there with their limits, and whatever happens nothing of it is left on the disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from jidosystem.api.bench import Figure, measure
from jidosystem.cli.bench import rounded
from tests.cli.jido import JIDO, jido


@pytest.mark.blocking
async def test_every_figure_has_its_limit_and_nothing_is_left(tmp_path: Path) -> None:
    figures = [figure async for figure in measure(tmp_path, turn_s=0.02)]
    assert len(figures) == 6
    assert all(figure.rate > 0 for figure in figures)
    assert all(figure.limit_rate > 0 and figure.share for figure in figures[1:])
    assert os.listdir(tmp_path) == []


@pytest.mark.blocking
async def test_one_who_stops_listening_leaves_nothing(tmp_path: Path) -> None:
    figures = measure(tmp_path, turn_s=0.02)
    assert (await anext(figures)).share is None
    await anext(figures)
    await figures.aclose()  # type: ignore[attr-defined]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("rate", "told"), [(0, ""), (3.14159, "3.1"), (42, "42"), (1_234, "1,200"), (1_960_000.0, "2,000,000")])
def test_figures_have_two_digits(rate: float, told: str) -> None:
    assert rounded(rate) == told


def test_a_figure_without_a_limit_has_no_share() -> None:
    assert Figure("x", 1.0).share is None and Figure("x", 1.0, "y", 2.0).share == 0.5


def test_it_is_measured_as_it_is_typed_and_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen([JIDO, "bench"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None and "measuring" in process.stderr.readline()
    while not any(tmp_path.iterdir()) and process.poll() is None:
        os.sched_yield()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (130, "") and "Traceback" not in err
    assert os.listdir(tmp_path) == []
    told = json.loads(jido("bench", "--json", cwd=tmp_path).stdout)
    assert told["figures"][0]["name"] == "fsyncs of 4 KiB"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["--folder", "missing"], "no such folder"), (["--folder", ""], "no such folder"), (["x"], "unexpected extra"), (["--jsno"], "--json")],
)
def test_what_cannot_be_is_refused(tmp_path: Path, arguments: list[str], told: str) -> None:
    assert told in jido("bench", *arguments, cwd=tmp_path, check=2).stderr
