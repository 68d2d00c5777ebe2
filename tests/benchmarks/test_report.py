"""The table says what was measured and what wasn't, and never passes what wasn't."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.__main__ import chosen
from benchmarks.bars import Bar
from benchmarks.measure import Figure, decode_result, encode_result
from benchmarks.results import Results, place
from benchmarks.table import GROWTH, PEERS, Row, Source, rows

OURS_SOURCE = Source("JidoSystem", "m", "ours", loops=("asyncio",))
LIMIT = Source("limit", "m", "limit", loops=("asyncio",))
PEER = Source("peer", "p", "peer", environment=PEERS, loops=("asyncio",))
ROW = Row("row", "a row", "/s", OURS_SOURCE, (LIMIT,), (PEER,), (Bar(0.5, of="limit"),), (Bar(1, of="peer"),))


def _results(**values: list[float]) -> Results:
    results = Results("3.11")
    for source in (OURS_SOURCE, LIMIT, PEER):
        if source.function in values:
            results.measured[place(source, "asyncio")] = {"values": {"": values[source.function]}, "notes": []}
    return results


def test_a_figure_is_the_median_with_its_extremes() -> None:
    assert Figure.of([3.0, 1.0, 2.0]) == Figure(2.0, 1.0, 3.0, 3)
    assert Figure.of([3.0, 1.0, 2.0]).spread == 1.0


def test_a_row_is_judged_against_limit_and_peer_of_its_run() -> None:
    line = report.Line(ROW, "asyncio", _results(ours=[60.0], limit=[100.0], peer=[50.0]))
    assert line.verdict() == "pass, aim reached"
    assert dict(line.beside()) == {"limit": "100 (x0.6)", "peer": "50 (x1.2)"}


def test_a_row_that_holds_and_misses_its_aim_passes() -> None:
    assert report.Line(ROW, "asyncio", _results(ours=[60.0], limit=[100.0], peer=[70.0])).verdict() == "pass"


def test_a_row_below_its_bar_fails() -> None:
    assert report.Line(ROW, "asyncio", _results(ours=[40.0], limit=[100.0], peer=[10.0])).verdict() == "FAIL"


@pytest.mark.parametrize("measured", [{"limit": [100.0]}, {"ours": [60.0]}, {}])
def test_a_row_without_its_figure_or_its_limit_is_not_run(measured: dict[str, list[float]]) -> None:
    assert report.Line(ROW, "asyncio", _results(**measured)).verdict() == "not run"


def test_a_peer_that_is_missing_is_named_with_the_reason() -> None:
    results = _results(ours=[60.0], limit=[100.0])
    results.measured[place(PEER, "asyncio")] = {"absent": "peer isn't installed"}
    assert "peer not run (peer isn't installed)" in report.terminal_row(ROW, results)


def test_an_interpreter_without_figures_is_not_run() -> None:
    assert "Not run" in report.markdown({"3.13": Results("3.13")})


def test_less_is_better_where_the_row_says_so() -> None:
    row = ROW._replace(lower=True, must=(Bar(100, lower=True),), aim=())
    line = report.Line(row, "asyncio", _results(ours=[50.0], limit=[100.0]))
    assert line.verdict() == "pass"
    assert dict(line.beside())["limit"] == "100 (x2)"


def test_results_are_kept(tmp_path: Path) -> None:
    results = _results(ours=[1.0, 2.0, 3.0])
    results.about["Machine"] = "one"
    results.save(tmp_path)
    kept = Results.load("3.11", tmp_path)
    assert (kept.about, kept.measured) == (results.about, results.measured)
    assert Results.load("3.13", tmp_path).measured == {}


def test_a_child_may_print_what_it_likes_beside_its_result() -> None:
    assert decode_result(f"noise\n{encode_result({'values': {}})}\nmore noise\n") == {"values": {}}
    assert decode_result("nothing") is None


def test_rows_are_chosen_by_name_and_an_unknown_name_is_refused() -> None:
    assert chosen(["durable-1", "durable-64", "add"], ["durable-*"]) == ["durable-1", "durable-64"]
    assert chosen(["a", "b", "c"], ["a,c"]) == ["a", "c"]
    with pytest.raises(SystemExit, match="nobody"):
        chosen(["a"], ["nobody"])


@pytest.mark.parametrize("python", [(3, 11), (3, 13)])
def test_what_a_bar_refers_to_stands_in_its_row(python: tuple[int, int]) -> None:
    for row in rows(python):
        names = {source.name for source in (*row.limits, *row.peers)}
        assert {bar.of for bar in (*row.must, *row.aim) if bar.of} <= names, row.name


def test_every_row_and_series_has_a_name_of_its_own() -> None:
    names = [row.name for row in rows((3, 13))] + [growth.name for growth in GROWTH]
    assert len(names) == len(set(names))
