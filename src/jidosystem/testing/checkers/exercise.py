"""Whether a run did what it was for: a history in which nothing went on, or nothing went wrong, shows nothing."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from math import inf

from ..histories import FaultSpan, History
from .verdict import Verdict


def check_exercised(history: History, *, operations: int = 1, faults: Mapping[str, int] | None = None) -> Verdict:
    """Whether at least so many operations succeeded, and at least so many faults of each kind took effect while operations were under way.
    `faults`: kind and least number; None: every fault of the history must have, and there must be one.
    """
    done = sum(operation.outcome == "ok" for operation in history.operations)
    missing = [f"only {done} operations succeeded, {operations} had to"] if done < operations else []
    busy = _Busy(history)
    reasons = {id(fault): busy.why_not(fault) for fault in history.faults}
    if faults is None:
        missing += [f"{fault}: {reason}" for fault in history.faults if (reason := reasons[id(fault)])]
        missing += ["there was no fault"] if not history.faults else []
    for kind, least in (faults or {}).items():
        of_kind = [fault for fault in history.faults if fault.kind == kind]
        count = sum(not reasons[id(fault)] for fault in of_kind)
        if count < least:
            told = [f"{fault}: {reasons[id(fault)]}" for fault in of_kind if reasons[id(fault)]]
            missing.append("; ".join([f"{count} faults of kind {kind} took effect, {least} had to", *told]))
    return Verdict("exercised", len(history), undecided=tuple(missing), exercised=not missing)


class _Busy:
    """When operations were under way; one that was never answered counts at its start only."""

    def __init__(self, history: History) -> None:
        self._starts = [operation.start for operation in history.operations]
        self._latest: list[float] = []  # the latest end among the first so many
        for operation in history.operations:
            end = operation.end if operation.end < inf else operation.start
            self._latest.append(max(end, self._latest[-1] if self._latest else end))

    def why_not(self, fault: FaultSpan) -> str:
        """Why a fault shows nothing; "": it does."""
        if not fault.effect:
            return "it took no effect"
        begun = bisect_right(self._starts, fault.end)
        if not begun or self._latest[begun - 1] < fault.start:
            return "no operation was under way meanwhile"
        return ""
