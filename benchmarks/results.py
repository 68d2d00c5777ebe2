"""What was measured, kept between runs: one JSON file for each interpreter, from which `RESULTS.md` is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .measure import Figure
from .table import Source

FOLDER = Path(__file__).parent / "results"


def place(source: Source, loop: str) -> str:
    """The key of a measurement: two rows may share it."""
    return f"{source.module}:{source.function}@{loop}"


class Results:
    """The measurements of one interpreter."""

    def __init__(self, python: str) -> None:
        self.python = python
        self.about: dict[str, str] = {}
        self.measured: dict[str, dict[str, Any]] = {}

    @classmethod
    def load(cls, python: str, folder: Path = FOLDER) -> Results:
        """What is kept; empty if there is nothing."""
        results = cls(python)
        path = folder / f"{python}.json"
        if path.exists():
            kept = json.loads(path.read_text())
            results.about, results.measured = kept["about"], kept["measured"]
        return results

    def save(self, folder: Path = FOLDER) -> None:
        """Keep it."""
        folder.mkdir(exist_ok=True)
        text = json.dumps({"about": self.about, "measured": dict(sorted(self.measured.items()))}, indent=1)
        (folder / f"{self.python}.json").write_text(text + "\n")

    def of(self, source: Source, loop: str) -> dict[str, Any]:
        """A measurement; a source that runs under one loop only has the same figure beside both."""
        wanted = loop if loop in source.loops else source.loops[0]
        return self.measured.get(place(source, wanted), {"absent": "not measured"})

    def figure(self, source: Source, loop: str) -> Figure | None:
        """The figure of a source, if it was measured."""
        values = self.of(source, loop).get("values", {}).get(source.figure)
        return Figure.of(values) if values else None

    def figures(self, source: Source, loop: str) -> dict[str, Figure]:
        """Every named figure of a source."""
        return {name: Figure.of(values) for name, values in self.of(source, loop).get("values", {}).items()}

    def why_not(self, source: Source, loop: str) -> str:
        """Why there is no figure."""
        measured = self.of(source, loop)
        if "failed" in measured:
            return f"failed: {measured['failed']}"
        return str(measured.get("absent", "no such figure"))

    def notes(self, source: Source, loop: str) -> list[str]:
        """What the workload said about itself."""
        return list(self.of(source, loop).get("notes", []))
