"""What an activation is up to."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """Only a LIVE activation begins turns; LEAVING begins hooks; HELD waits for the outcome of a commit; after DELETING begins nothing."""

    LOADING = 0
    LIVE = 1
    HELD = 2
    PAUSED = 3
    LEAVING = 4
    CRASHING = 5
    DELETING = 6
    GONE = 7
