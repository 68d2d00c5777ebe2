"""Histories: recorded as they happen, written and read as JSON lines, also what a killed process left."""

from __future__ import annotations

import asyncio
import io
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jidosystem.testing import FaultSpan, History, Operation, Recording, run

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


def operations() -> st.SearchStrategy[Operation]:
    times = st.floats(0, 1e9)
    return st.builds(
        Operation, process=st.text(), number=st.integers(0, 2**53), kind=st.text(), key=st.text(), start=times, end=times | st.just(inf),
        argument=json_values, outcome=st.sampled_from(["ok", "failed", "unknown"]), result=json_values,
    )  # fmt: skip


@given(st.lists(operations(), unique_by=lambda one: (one.process, one.number)), st.lists(st.builds(FaultSpan, kind=st.text(), start=st.floats(0, 9))))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, some: list[Operation], faults: list[FaultSpan]) -> None:
    path = tmp_path_factory.mktemp("history") / "h.jsonl"
    history = History(some, faults)
    history.write(path)
    again = History.read(path)
    assert again.operations == history.operations
    assert again.faults == history.faults


def test_operations_come_in_the_order_of_their_starts_from_all_files(tmp_path: Path) -> None:
    for name, starts in (("a", (3.0, 1.0)), ("b", (2.0, 4.0))):
        History(Operation(process=name, number=int(start), kind="read", start=start, end=9) for start in starts).write(tmp_path / name)
    assert [one.start for one in History.read(tmp_path / "a", tmp_path / "b").operations] == [1, 2, 3, 4]


def test_what_a_killed_process_had_begun_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    with path.open("wb") as file:
        recording = Recording(stream=file)
        recording.ask("p", "write", "x", 1).ok()
        recording.ask("p", "write", "x", 2)
    path.write_bytes(path.read_bytes() + b'{"of":"operation","process":"p","numb')  # killed while it wrote
    first, second = History.read(path).operations
    assert (first.outcome, second.outcome, second.end) == ("ok", "unknown", inf)


def test_any_other_line_that_is_none_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_bytes(b'{"of":"operation"}\n')
    with pytest.raises(ValueError, match=r"h\.jsonl, line 1"):
        History.read(path)


def test_a_recording_keeps_the_order_of_what_happens_at_one_instant() -> None:
    recording = Recording(clock=lambda: 5.0)
    first = recording.ask("p", "write", "x", 1)
    first.ok()
    recording.ask("q", "read", "x").ok(1)
    write, read = recording.history().operations
    assert write.start < write.end < read.start < read.end


def test_a_recording_takes_its_time_from_the_loop() -> None:
    async def main() -> History:
        recording = Recording()
        asked = recording.ask("p", "write", "x", 1)
        began = recording.now()
        await asyncio.sleep(100)
        recording.fault("kill", "n1", start=began, effect="seen")
        asked.unknown("timed out")
        return recording.history()

    history = run(main())
    (operation,) = history.operations
    assert operation.end - operation.start == pytest.approx(100)
    assert (operation.outcome, operation.result) == ("unknown", "timed out")
    assert history.faults[0].end - history.faults[0].start == pytest.approx(100)


def test_an_operation_ends_once() -> None:
    asked = Recording(clock=lambda: 5.0).ask("p", "write", "x", 1)
    asked.failed("no room")
    with pytest.raises(ValueError, match="ended already"):
        asked.ok()


def test_a_recording_streams_faults_too() -> None:
    stream = io.BytesIO()
    Recording(stream=stream, clock=lambda: 5.0).fault("kill", start=1, end=2, effect="seen")
    assert b'"kind":"kill"' in stream.getvalue()


def test_a_part_of_a_history_keeps_its_faults() -> None:
    some = [Operation(process="p", number=n, kind="read", key=key, start=n, end=n) for n, key in enumerate("abab")]
    history = History(some, [FaultSpan(kind="kill", start=1)])
    part = history.where(lambda one: one.key == "a")
    assert [one.number for one in part.operations] == [0, 2]
    assert part.faults == history.faults
