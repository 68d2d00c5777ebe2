"""What the demonstration shows: a progress bar and colours on a terminal, plain lines everywhere else."""

from __future__ import annotations

import os
import sys
from time import monotonic
from typing import TextIO

BAR_WIDTH = 32
REDRAW_S = 0.1


class Screen:
    """Prints sentences, and under them the progress of what goes on."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._live = out.isatty() and os.environ.get("TERM") != "dumb"
        self._colours = self._live and "NO_COLOR" not in os.environ
        self._fine = (out.encoding or "").lower().startswith("utf")
        self._drawn_s = 0.0
        self._tenth = -1
        self._pending = False

    def say(self, text: str = "", colour: str = "") -> None:
        """A line of its own."""
        self._clear()
        self._out.write(self.paint(text, colour) + "\n")
        self._out.flush()

    def paint(self, text: str, colour: str) -> str:
        """The text in a colour ("red", "green", "bold", "dim"), where there are colours."""
        codes = {"red": "31;1", "green": "32;1", "bold": "1", "dim": "2"}
        return f"\x1b[{codes[colour]}m{text}\x1b[0m" if self._colours and colour else text

    def begin(self) -> None:
        """A new bar."""
        self._tenth, self._drawn_s = -1, 0.0

    def progress(self, done: int, total: int, per_s: float) -> None:
        """How far it is: redrawn in place on a terminal, a line each tenth elsewhere."""
        share = done / total if total else 1.0
        text = f"{share:4.0%}  {done:>9,} of {total:,} flights  {per_s:>7,.0f}/s"
        if not self._live:
            if int(share * 10) > self._tenth:
                self._tenth = int(share * 10)
                self.say(f"  {text}")
            return
        now_s = monotonic()
        if now_s - self._drawn_s < REDRAW_S and done < total:
            return
        self._drawn_s = now_s
        full, empty = ("━", "─") if self._fine else ("#", ".")
        filled = int(share * BAR_WIDTH)
        self._out.write(f"\r\x1b[2K  {self.paint(full * filled, 'green')}{self.paint(empty * (BAR_WIDTH - filled), 'dim')} {text}")
        self._out.flush()
        self._pending = True

    def leave(self) -> None:
        """Let the bar stand as it is; what follows begins under it."""
        if self._pending:
            self._out.write("\n")
            self._pending = False

    def _clear(self) -> None:
        if self._pending:
            self._out.write("\r\x1b[2K")
            self._pending = False
