"""The table as text: for the terminal while it grows, and as `RESULTS.md`."""

from __future__ import annotations

from collections.abc import Iterator

from .bars import FAIL, NOT_RUN, PASS, Bar, judge_all
from .measure import Figure
from .results import Results
from .table import GROWTH, Row, rows

NOISY = 0.35
"""Extremes further apart than this part of the median are marked."""


def number(value: float, unit: str) -> str:
    """A value as people read it."""
    if unit in ("/s", "bytes") or unit.endswith("/s"):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread(figure: Figure) -> str:
    """How far the repetitions were apart."""
    return f"±{figure.spread * 50:.0f} %" + (" noisy" if figure.spread > NOISY else "")


def bar_text(bars: tuple[Bar, ...], unit: str) -> str:
    """A bar as the table says it."""
    texts = []
    for bar in bars:
        if not bar.of:
            texts.append(("≤ " if bar.lower else "") + number(bar.value, unit))
        else:
            texts.append(bar.of if bar.value == 1 else f"{bar.value:.0%} of {bar.of}")
    return ", ".join(texts) or "-"


class Line:
    """One row under one event loop, with everything that it is held against."""

    def __init__(self, row: Row, loop: str, results: Results) -> None:
        self.row, self.loop, self.results = row, loop, results
        self.figure = results.figure(row.ours, loop)
        self.others = {source.name: results.figure(source, loop) for source in (*row.limits, *row.peers)}
        known = {name: figure.median for name, figure in self.others.items() if figure is not None}
        median = self.figure.median if self.figure is not None else None
        self.must = judge_all(row.must, median, known) if row.must else ""
        self.aim = judge_all(row.aim, median, known) if row.aim else ""

    def ours_text(self) -> str:
        """Our figure, or why there is none."""
        if self.figure is None:
            return f"{NOT_RUN}: {self.results.why_not(self.row.ours, self.loop)}"
        return f"{number(self.figure.median, self.row.unit)} {self.row.unit} ({spread(self.figure)})"

    def ratio(self, other: Figure) -> float | None:
        """How much better we are: above 1 is better, whatever the unit."""
        if self.figure is None or not self.figure.median or not other.median:
            return None
        return other.median / self.figure.median if self.row.lower else self.figure.median / other.median

    def beside(self) -> Iterator[tuple[str, str]]:
        """Each limit and peer with its figure and our ratio to it."""
        for name, other in self.others.items():
            if other is None:
                source = next(source for source in (*self.row.limits, *self.row.peers) if source.name == name)
                yield name, f"{NOT_RUN} ({self.results.why_not(source, self.loop)})"
                continue
            ratio = self.ratio(other)
            yield name, number(other.median, self.row.unit) + ("" if ratio is None else f" (x{ratio:.2g})")

    def verdict(self) -> str:
        """Whether what must hold holds, and whether the aim is reached."""
        if self.figure is None:
            return NOT_RUN
        if self.must == PASS and self.aim == PASS:
            return "pass, aim reached"
        if not self.must:
            return "aim reached" if self.aim == PASS else "aim missed" if self.aim == FAIL else "-"
        return self.must


def lines_of(row: Row, results: Results) -> list[Line]:
    """A row once for each event loop that it runs under."""
    return [Line(row, loop, results) for loop in row.ours.loops]


def terminal_row(row: Row, results: Results) -> str:
    """One row for the terminal."""
    text = [f"{row.title}  [{row.name}]"]
    for line in lines_of(row, results):
        loop = f"{line.loop}: " if len(row.ours.loops) > 1 else ""
        text.append(f"  {loop}{line.ours_text()}   {line.verdict().upper() if line.verdict() == FAIL else line.verdict()}")
        text.append(f"     must hold: {bar_text(row.must, row.unit)}; aim for: {bar_text(row.aim, row.unit)}")
        beside = "; ".join(f"{name} {figure}" for name, figure in line.beside())
        if beside:
            text.append(f"     beside: {beside}")
        text.extend(f"     {note}" for note in results.notes(row.ours, line.loop))
    return "\n".join(text)


def terminal_growth(results: Results) -> str:
    """How the figures grow, for the terminal."""
    text = []
    for growth in GROWTH:
        series = growth_series(results, growth.name)
        text.append(f"{growth.title}  [{growth.name}], {growth.unit}\n  {series}")
    return "\n".join(text)


def growth_series(results: Results, name: str) -> str:
    """The figures of one growth series, by size."""
    growth = next(growth for growth in GROWTH if growth.name == name)
    prefix = f"{growth.ours.figure} " if growth.ours.figure else ""
    figures = results.figures(growth.ours, growth.ours.loops[0])
    found = [(size[len(prefix) :], figure) for size, figure in figures.items() if size.startswith(prefix)]
    if not found:
        return f"{NOT_RUN}: {results.why_not(growth.ours, growth.ours.loops[0])}"
    return "; ".join(f"{size}: {number(figure.median, growth.unit)} ({spread(figure)})" for size, figure in found)


HEAD = """# Results

Written by `make bench`, not by hand. Medians of at least five repetitions after one that warms up, each workload in a
process of its own; what is held against the bare writer takes turns with it, fifteen times, in one process. ± is half the
distance between the extremes. "x" says how many times better ours is than what stands beside it. Durable means SQLite
with `synchronous=FULL`. Figures of different rows may come from different days; read ratios, not absolutes. What isn't
measured is "not run".
"""


def markdown(by_python: dict[str, Results]) -> str:
    """The whole of `RESULTS.md`."""
    text = [HEAD]
    for python, results in by_python.items():
        text.append(f"## Python {python}\n")
        if not results.measured:
            text.append(f"Not run: `make bench PYTHON=python{python}` measures it.\n")
            continue
        text.extend(f"- {name}: {value}" for name, value in results.about.items())
        text.append("")
        text.append("| workload | loop | JidoSystem | must hold | aim for | verdict | beside it |")
        text.append("|---|---|---|---|---|---|---|")
        version = tuple(map(int, python.split(".")))
        for row in rows((version[0], version[1])):
            text.extend(_markdown_line(line) for line in lines_of(row, results))
        text.append("\nHow the figures grow:\n")
        text.append("| what grows | figure | by size |")
        text.append("|---|---|---|")
        text.extend(f"| {growth.title} | {growth.unit} | {growth_series(results, growth.name)} |" for growth in GROWTH)
        text.append("")
    return "\n".join(text)


def _markdown_line(line: Line) -> str:
    row = line.row
    beside = "; ".join([*(f"{name} {figure}" for name, figure in line.beside()), *line.results.notes(row.ours, line.loop)])
    loop = line.loop if len(row.ours.loops) > 1 else "either"
    cells = (row.title, loop, line.ours_text(), bar_text(row.must, row.unit), bar_text(row.aim, row.unit), line.verdict(), beside or "-")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
