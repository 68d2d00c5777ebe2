"""Judges of histories: each is told what clients asked and were answered, and says which of it can't be.

Each is a pure function from a `History` to a `Verdict`, which is true only if nothing is wrong, all could be decided and the
run did what it was for.
"""

from .bank import check_bank
from .counters import check_counters
from .exercise import check_exercised
from .logs import check_events
from .registers import check_registers
from .sets import check_sets
from .verdict import Contradiction, Verdict
from .writers import check_writers

__all__ = [
    "Contradiction",
    "Verdict",
    "check_bank",
    "check_counters",
    "check_events",
    "check_exercised",
    "check_registers",
    "check_sets",
    "check_writers",
]
