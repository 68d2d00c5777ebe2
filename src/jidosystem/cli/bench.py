"""`jido bench`: this machine in a small table, each figure beside its limit."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .output import FAILED, Failure, Json, Quiet, say, table, tell, tell_json, usage

if TYPE_CHECKING:
    from ..api.bench import Figure

app = typer.Typer(rich_markup_mode=None, add_completion=False)
NEEDED_BYTES = 200 * 1024**2


@app.command()
def bench(
    folder: Annotated[str, typer.Option("--folder", help="On the disk that is meant; by default the one that you are on.", metavar="PATH")] = ".",
    as_json: Json = False,
) -> None:
    """Measure this machine in less than half a minute: the disk, durable calls, calls in memory, waking agents, publishing events.

    Each figure stands beside the limit that was measured by turns with it. What is written is removed at the end, after Ctrl-C too.
    """
    place = Path(folder)
    if not folder or not place.is_dir():
        raise usage(f"--folder {folder!r}: there is no such folder")
    free = shutil.disk_usage(place).free
    if free < NEEDED_BYTES:
        raise Failure(
            f"{folder} has {free // 1024**2} MB free, and {NEEDED_BYTES // 1024**2} MB are needed",
            code="DISK_FULL",
            hint="name another with --folder",
        )
    from .serving import run_loop

    figures: list[Figure] = []
    code = run_loop(_measure(place, figures, progress=sys.stderr.isatty()))
    if code:
        raise Quiet(code)
    if as_json:
        tell_json({"figures": [{**figure._asdict(), "share": figure.share} for figure in figures]})
        return
    rows = [(figure.name, rounded(figure.rate), rounded(figure.limit_rate), figure.limit, _percent(figure.share)) for figure in figures]
    table(("what", "a second", "limit", "which is", "reached"), rows)
    tell("A busy machine, or a disk that others use, gives other figures each time.")


async def _measure(place: Path, figures: list[Figure], *, progress: bool) -> int:
    from ..api.bench import measure

    if not progress:
        say("measuring, about 15 s ...")
    try:
        async for figure in measure(place):
            figures.append(figure)
            if progress:
                say(f"{figure.name}: {rounded(figure.rate)} a second", "dim")
    except OSError as error:
        say(f"error: {place} can't be measured: {error.strerror or error}")
        return FAILED
    return 0


def rounded(rate: float) -> str:
    """Two digits that mean something; "" for nothing."""
    if rate <= 0:
        return ""
    digits = len(str(int(rate))) - 2
    return f"{round(rate, -digits):,.0f}" if digits > 0 else f"{rate:.2g}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"
