"""What clients asked of a system and were told, and what was done to it meanwhile: what the checkers judge.

A history says nothing of how the system works, only what could be seen from outside: who asked for what, from when to
when, and how it ended. It is written as JSON lines, so that several processes can each write their own and one judge reads all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from math import inf, nextafter
from pathlib import Path
from typing import IO, Any, Literal

import msgspec

Outcome = Literal["ok", "failed", "unknown"]


class Operation(msgspec.Struct, frozen=True, kw_only=True, tag="operation", tag_field="of", omit_defaults=True):
    """What one process asked for, once.

    Attributes:
        process: who asked
        number: the process's own, each once: a later line of the same number replaces an earlier one
        kind: what: `write`, `read`, `add`, whatever the checker knows
        key: of whom: a register, a set, an agent, a stream
        start: when it was asked for, in seconds of a clock that all processes of the history share
        end: when it was answered; infinity: never
        argument: what it was asked with
        outcome: `ok`: it happened; `failed`: it is known not to have happened; `unknown`: it may have happened at any time from its start on,
            perhaps never
        result: what was answered
    """

    process: str
    number: int
    kind: str
    key: str = ""
    start: float
    end: float = inf
    argument: Any = None
    outcome: Outcome = "unknown"
    result: Any = None

    def __str__(self) -> str:
        ended = f"{self.end:.6f}" if self.end < inf else "…"
        asked = f" {self.argument!r}" if self.argument is not None else ""
        told = f" → {self.result!r}" if self.result is not None else ""
        of = f" of {self.key}" if self.key else ""
        return f"{self.process}#{self.number} [{self.start:.6f}, {ended}] {self.kind}{of}{asked}{told} ({self.outcome})"


class FaultSpan(msgspec.Struct, frozen=True, kw_only=True, tag="fault", tag_field="of", omit_defaults=True):
    """What was done to the system, and whether it was felt.

    Attributes:
        kind: what: `kill`, `pause`, `partition`, whatever the run calls it
        target: to whom
        start: when it began
        end: when it was over; infinity: it lasted to the end
        effect: what shows that it took effect (a new leader, a refused commit); "": nothing does
    """

    kind: str
    target: str = ""
    start: float
    end: float = inf
    effect: str = ""

    def __str__(self) -> str:
        return f"{self.kind} of {self.target or 'all'} from {self.start:.6f} to {self.end:.6f}: {self.effect or 'no effect was seen'}"


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Operation | FaultSpan).decode


class History:
    """Operations in the order of their starts, and the faults of the run. What was never answered is `unknown`."""

    def __init__(self, operations: Iterable[Operation] = (), faults: Iterable[FaultSpan] = ()) -> None:
        self.operations: list[Operation] = sorted(operations, key=lambda operation: operation.start)
        self.faults: list[FaultSpan] = sorted(faults, key=lambda fault: fault.start)

    def __len__(self) -> int:
        return len(self.operations)

    def of_kinds(self, *kinds: str) -> dict[str, list[Operation]]:
        """The operations of these kinds by their key, each list in the order of starts."""
        found: dict[str, list[Operation]] = {}
        for operation in self.operations:
            if operation.kind in kinds:
                found.setdefault(operation.key, []).append(operation)
        return found

    def where(self, chosen: Callable[[Operation], bool]) -> History:
        """The history of some of its operations, with all its faults: for a checker that is to judge those only."""
        return History(filter(chosen, self.operations), self.faults)

    def write(self, path: str | Path) -> None:
        """Write all of it to a file, a line each."""
        with Path(path).open("wb") as file:
            file.writelines(map(_line, self.operations))
            file.writelines(map(_line, self.faults))

    @classmethod
    def read(cls, *paths: str | Path) -> History:
        """The history that is in these files together. A last line that was cut off, as a killed process leaves it, is left out; any other line
        that is none raises `ValueError`, naming it.
        """
        operations: dict[tuple[str, int], Operation] = {}
        faults: list[FaultSpan] = []
        for path in paths:
            for entry in _lines(Path(path)):
                if isinstance(entry, FaultSpan):
                    faults.append(entry)
                else:
                    operations[entry.process, entry.number] = entry
        return cls(operations.values(), faults)


def _line(entry: Operation | FaultSpan) -> bytes:
    """A line of JSON, which has no infinity: an end that never came is left out."""
    return _encode(entry) + b"\n"


def _lines(path: Path) -> Iterable[Operation | FaultSpan]:
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        if number == len(lines) and not line.endswith(b"\n"):
            return
        try:
            yield _decode(line)
        except msgspec.MsgspecError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error


class Asked:
    """An operation under way, as `Recording.ask` returns it. One that is never told how it ended is `unknown`."""

    __slots__ = ("_recording", "operation")

    def __init__(self, recording: Recording, operation: Operation) -> None:
        self._recording, self.operation = recording, operation

    def ok(self, result: Any = None) -> None:
        """It happened, and this was the answer."""
        self._recording._end(self.operation, "ok", result)

    def failed(self, why: Any = None) -> None:
        """It is known not to have happened."""
        self._recording._end(self.operation, "failed", why)

    def unknown(self, why: Any = None) -> None:
        """It may have happened, or may yet."""
        self._recording._end(self.operation, "unknown", why)


class Recording:
    """Writes a history as it happens. `clock` is the loop's time where a loop runs, else the machine's monotonic one, which all processes of a
    machine share. `stream`: each operation is also written there when it begins and when it ends, so that what a killed process had begun
    is known.
    """

    def __init__(self, *, clock: Callable[[], float] | None = None, stream: IO[bytes] | None = None) -> None:
        self._clock = clock or _loop_time
        self._stream = stream
        self._last = -inf
        self._operations: dict[tuple[str, int], Operation] = {}
        self._numbers: dict[str, int] = {}
        self._faults: list[FaultSpan] = []

    def now(self) -> float:
        """The time; never the same twice, so that what happens one after the other at one instant of virtual time stays in order."""
        self._last = max(self._clock(), nextafter(self._last, inf))
        return self._last

    def ask(self, process: str, kind: str, key: str = "", argument: Any = None) -> Asked:
        """Something is asked for now."""
        number = self._numbers[process] = self._numbers.get(process, 0) + 1
        operation = Operation(process=process, number=number, kind=kind, key=key, start=self.now(), argument=argument)
        self._note(operation)
        return Asked(self, operation)

    def fault(self, kind: str, target: str = "", *, start: float, end: float | None = None, effect: str = "") -> FaultSpan:
        """A fault that began at `start` is over now, or at `end`; `effect`: what shows that it was felt."""
        fault = FaultSpan(kind=kind, target=target, start=start, end=self.now() if end is None else end, effect=effect)
        self._faults.append(fault)
        if self._stream is not None:
            self._stream.write(_line(fault))
        return fault

    def history(self) -> History:
        """All of it so far."""
        return History(self._operations.values(), self._faults)

    def _end(self, operation: Operation, outcome: Outcome, result: Any) -> None:
        if self._operations[operation.process, operation.number].end < inf:
            raise ValueError(f"{operation} has ended already")
        self._note(msgspec.structs.replace(operation, end=self.now(), outcome=outcome, result=result))

    def _note(self, operation: Operation) -> None:
        self._operations[operation.process, operation.number] = operation
        if self._stream is not None:
            self._stream.write(_line(operation))


def _loop_time() -> float:
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()
