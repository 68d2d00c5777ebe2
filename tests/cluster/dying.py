"""`jido` that dies at a point of its own code: the one that its file names, which it reads when it starts and at each SIGUSR1."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from jidosystem.__main__ import main
from tests.faults.points import armed, unsuspected


class Dying:
    """The file holds how often the point is passed, and its name; or nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.look()

    def look(self, *_signal: object) -> None:
        left, _, self._point = (self._path.read_text() if self._path.exists() else "").partition(" ")
        self._left = int(left or 0)

    def reached(self, point: str) -> None:
        if point != self._point:
            return
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


dying = Dying(Path(os.environ["CRASH_FILE"]))
signal.signal(signal.SIGUSR1, dying.look)
with unsuspected(), armed(dying.reached):
    main()
