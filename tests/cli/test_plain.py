"""Parameters that need no pydantic are read without it, and all others as typer reads them."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated, Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from jidosystem.cli.plain import read_plainly

from .conftest import NodeThread


def _taken(arguments: list[str], *, plainly: bool) -> Any:
    """What a command is given of these arguments, or the words of its error."""
    taken: list[Any] = []
    app = typer.Typer(rich_markup_mode=None, add_completion=False)

    @app.command()
    def command(
        text: str,
        number: Annotated[int, typer.Option("--number", min=1, max=1_000)] = 20,
        seconds: Annotated[float | None, typer.Option("--seconds")] = None,
        many: Annotated[list[str] | None, typer.Option("--many")] = None,
        flag: Annotated[bool, typer.Option("--flag")] = False,
    ) -> None:
        taken.extend((text, number, seconds, many, flag))

    made = typer.main.get_command(app)
    if plainly:
        read_plainly(made)
    try:
        made.main(arguments, prog_name="command", standalone_mode=False)
    except Exception as error:  # whatever typer raises is what is compared
        return type(error), str(error)
    return taken


_NUMBERS = st.one_of(
    st.integers().map(str), st.floats().map(repr), st.text(max_size=6), st.sampled_from(["1_0", " 7", "07", "+3", "1.", ".5", "٣", "0"])
)


@given(
    text=st.text(max_size=5).filter(lambda text: not text.startswith("-")),
    number=st.none() | _NUMBERS,
    seconds=st.none() | _NUMBERS,
    many=st.lists(st.text(max_size=3), max_size=2),
    flag=st.booleans(),
)
def test_a_command_is_given_what_typer_would_give_it(text: str, number: str | None, seconds: str | None, many: list[str], flag: bool) -> None:
    arguments = [text, *(f"--many={each}" for each in many), *(["--flag"] if flag else [])]
    arguments += [f"--{name}={value}" for name, value in (("number", number), ("seconds", seconds)) if value is not None]
    told = repr(_taken(arguments, plainly=True))  # the text tells 1 from 1.0 and True, and nan from nothing
    assert told == repr(_taken(arguments, plainly=False))


def test_help_is_the_same() -> None:
    assert _taken(["--help"], plainly=True) == _taken(["--help"], plainly=False)


@pytest.mark.parametrize("arguments", [("call", "Counter/a", "add", "amount=2", "--timeout", "2.5"), ("ps", "--limit", "3"), ("events", "list")])
def test_a_command_needs_no_pydantic(arguments: tuple[str, ...], running: NodeThread) -> None:
    code = f"import sys; from jidosystem.cli import main; code = main({arguments!r}); assert 'pydantic' not in sys.modules; sys.exit(code)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
