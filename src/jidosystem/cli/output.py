"""How every command speaks: results on standard output, everything else on standard error; `--json` for programs.

An error has one shape: what happened, what to do, its code. Terminals may be 40 columns wide, without colour and without UTF-8; a
closed pipe and Ctrl-C end a command without a traceback.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TextIO

import typer
from typer.exceptions import TyperException

OK, FAILED, USAGE, NO_NODE, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes: done; the operation failed; the command line is wrong; no node was reached; Ctrl-C."""

Json = Annotated[bool, typer.Option("--json", help="Write JSON: one value, or one a line.")]

_PLAIN = {"…": "...", "→": "->", "·": "-", "\u2013": "-", "—": "-", "\u00d7": "x", "✓": "ok", "\u2019": "'", "│": "|", "─": "-", "“": '"', "”": '"'}
_COLOURS = {"red": "31", "cyan": "36", "dim": "2", "bold": "1"}
_OURS = re.compile(f"(\x1b\\[(?:0|{'|'.join(_COLOURS.values())})m)")


class Failure(Exception):
    """What ends a command: told in one shape, and its exit code returned.

    `hint`: what to do. `code`: stable, for programs. `details`: its facts, for `--json`. `lines`: what stands below it as it is.
    """

    def __init__(
        self, message: str, *, code: str, hint: str = "", exit_code: int = FAILED, details: Mapping[str, Any] | None = None, lines: str = ""
    ) -> None:
        super().__init__(message)
        self.code, self.hint, self.exit_code, self.details, self.lines = code, hint, exit_code, dict(details or {}), lines


class Quiet(BaseException):
    """Ends a command that has said what there was to say."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def usage(message: str, hint: str = "") -> Failure:
    """A command line that can't be."""
    return Failure(message, code="usage", hint=hint, exit_code=USAGE)


# -- streams -----------------------------------------------------------------------------------------------------


def prepare() -> None:
    """What a stream can't encode is written in other words instead of ending the command."""
    codecs.register_error("jido", _in_other_words)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="jido")


def _in_other_words(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(char) or char.encode("ascii", "backslashreplace").decode() for char in error.object[error.start : error.end]), error.end


def colour(text: str, name: str, stream: TextIO | None = None) -> str:
    """The text in a colour, if the stream (by default standard output) is a terminal that wants any."""
    written_to: TextIO = sys.stdout if stream is None else stream
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not written_to.isatty():
        return text
    return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m"


def printable(text: str) -> str:
    """Without control characters, which could make a terminal do things, but for our own colours."""
    return "".join(
        part if _OURS.fullmatch(part) else "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in part)
        for part in _OURS.split(text)
    )


def tell(text: str) -> None:
    """Write a line of the result."""
    sys.stdout.write(f"{printable(text) if sys.stdout.isatty() else text}\n")
    sys.stdout.flush()


def tell_json(value: Any, *, indent: int | None = None) -> None:
    """Write a value of the result."""
    utf8 = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
    sys.stdout.write(json.dumps(value, ensure_ascii=not utf8, indent=indent, default=str) + "\n")
    sys.stdout.flush()


def say(text: str, style: str = "") -> None:
    """Write a message for people."""
    sys.stderr.write(f"{colour(printable(text), style, sys.stderr) if style else printable(text)}\n")
    sys.stderr.flush()


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table; where the terminal is too narrow for it, one block a row."""
    cells = [[printable(str(cell)).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(head), *cells]) for i in range(len(head))]
    room = shutil.get_terminal_size().columns
    if sys.stdout.isatty() and sum(widths) + 2 * (len(head) - 1) > room:
        for row in cells:
            tell(colour(row[0], "bold"))
            for name, cell in zip(head[1:], row[1:], strict=True):
                tell(f"  {name.lower()}: {cell}")
        return
    tell(colour("  ".join(name.ljust(width) for name, width in zip(head, widths, strict=True)).rstrip(), "dim"))
    for row in cells:
        tell("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


# -- errors ------------------------------------------------------------------------------------------------------


def shape(error: BaseException) -> Failure:
    """Any error in the one shape."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, TyperException):
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "jido"
        message = error.format_message()
        return usage(message[:1].lower() + message[1:].rstrip("."), f"`{path} --help` shows what there is")
    from ..core.errors import JidoError

    if isinstance(error, JidoError):
        return Failure(str(error), code=error.code, details={name: str(value) for name, value in error.fields.items()})
    return Failure(f"{type(error).__name__}: {error}", code="failed", hint="this is a mistake in jido: `JIDO_DEBUG=1` shows where")


def told(error: BaseException, *, as_json: bool = False) -> int:
    """Tell an error and return its exit code."""
    if os.environ.get("JIDO_DEBUG"):
        import traceback

        traceback.print_exception(error)
    failure = shape(error)
    if as_json:
        value = {"code": failure.code, "message": str(failure), "hint": failure.hint, "details": failure.details}
        sys.stderr.write(json.dumps({"error": {name: part for name, part in value.items() if part}}, default=str) + "\n")
        return failure.exit_code
    room = shutil.get_terminal_size().columns if sys.stderr.isatty() else 100_000
    if failure.lines:
        say(failure.lines.rstrip())
    for number, line in enumerate(str(failure).splitlines() or [""]):
        for part in textwrap.wrap(line, max(20, room - 7), break_on_hyphens=False) or [""]:
            say(f"{colour('error:', 'red', sys.stderr) if number == 0 else '      '} {part}" if number == 0 else f"       {part}")
            number = 1  # noqa: PLW2901 - further parts of the first line stand below it
    if failure.code == "rejected" and (details := [f"{name}={value}" for name, value in failure.details.items() if name != "outcome_known"]):
        say(f"  {', '.join(details)}")
    if failure.hint:
        say(f"  {failure.hint}")
    say(f"  [{failure.code}]", "dim")
    return failure.exit_code
