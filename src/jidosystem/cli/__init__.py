"""`jido`: the command line. What it needs beyond the core is in the extra `standard`; without that it says how to get it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

INSTALL = "pip install 'jidosystem[standard]'"


def main(arguments: Sequence[str] | None = None, *, begins: Callable[[], None] = lambda: None) -> int:
    """Run `jido` with arguments (by default the process's own) and return the exit code. `begins` is called before a command is."""
    try:
        from .app import run

        begins()
        return run(sys.argv[1:] if arguments is None else list(arguments))
    except ModuleNotFoundError as missing:
        if missing.name != "typer":
            raise
        sys.stderr.write(f"jido needs more than the core: {INSTALL}\n")
        return 1
    except KeyboardInterrupt:
        return 130
