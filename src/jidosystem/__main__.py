"""Where `jido` begins, and `python -m jidosystem`: before anything else, Ctrl-C is made quiet.

Until the command line stands, and once it has said what there is to say, an interrupt ends the process at once with the exit
code 130: there is nothing to clear up, and Python would show a traceback of whatever is just being imported. In between it is a
`KeyboardInterrupt`, as always.
"""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130

try:
    import signal

    def _quiet() -> None:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else somebody wants it otherwise, a shell's `&` say
            signal.signal(signal.SIGINT, _end)

    def _loud() -> None:
        if signal.getsignal(signal.SIGINT) is _end:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _end(_number: int, _frame: object) -> None:
        os._exit(INTERRUPTED)

    _quiet()
except KeyboardInterrupt:
    os._exit(INTERRUPTED)


def main() -> int:
    """Run `jido` with the process's arguments; the exit code."""
    try:
        from .cli import main as jido

        code = jido(begins=_loud)
        _quiet()
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)
    return code


if __name__ == "__main__":
    sys.exit(main())
