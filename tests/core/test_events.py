"""Events: their stored form, their CloudEvents form, and the patterns that choose among their types."""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jidosystem.core.codec import NOT_CARRIED, encode, seal
from jidosystem.core.errors import InvalidPattern, RecordUnreadable
from jidosystem.core.events import Event, check_event_type, decode_event, encode_event, matcher

words = st.text("abAB01_-", min_size=1, max_size=4)
types = st.lists(words, min_size=1, max_size=6).map(".".join)
few_words = st.sampled_from(["a", "b", "c"])
few_types = st.lists(few_words, min_size=1, max_size=7).map(".".join)
patterns = st.lists(few_words | st.sampled_from(["*", "**"]), min_size=1, max_size=6).map(".".join)

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=10)
data = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=10)
maybe = st.none() | st.text(max_size=20)
events = st.builds(
    Event,
    id=st.text(max_size=20),
    type=types,
    source=st.text(max_size=20),
    subject=st.text(max_size=20),
    time_s=st.floats(0, 4e9),
    data=data,
    stream=st.text(max_size=20),
    metadata=st.dictionaries(st.text(max_size=5), data, max_size=3),
    correlation_id=maybe,
    causation_id=maybe,
    traceparent=maybe,
)


def event(**changes: Any) -> Event:
    given_ = {"id": "e-1", "type": "orders.placed", "source": "Shop/eu", "subject": "eu", "time_s": 0.5, "data": {"total": 5}, "stream": "Shop/eu"}
    return Event(**{**given_, **changes})


# -- the stored form ---------------------------------------------------------------------------------------------


@given(events, st.integers(1, 2**63 - 1))
def test_an_event_is_read_as_it_was_written_with_its_position(written: Event, position: int) -> None:
    read = decode_event(encode_event(written), position)
    assert read == msgspec.structs.replace(written, position=position)


@given(events, st.data())
def test_any_flipped_bit_is_found_and_the_position_named(written: Event, draw: st.DataObject) -> None:
    blob = bytearray(encode_event(written))
    blob[draw.draw(st.integers(0, len(blob) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    with pytest.raises(RecordUnreadable, match="position 7 ") as damaged:
        decode_event(bytes(blob), 7)
    assert damaged.value.fields["position"] == 7


@given(st.binary(max_size=80), st.booleans())
@example(b"\x91" * 50, True)
@example(b"", True)
def test_fuzzed_bytes_are_unreadable_and_nothing_else(blob: bytes, sealed: bool) -> None:
    with pytest.raises(RecordUnreadable):
        decode_event(seal(blob) if sealed else blob, 1)


@given(events, st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_an_event_that_was_written_wrong_is_read_or_unreadable(written: Event, changes: list[tuple[int, int]]) -> None:
    blob = bytearray(encode_event(written)[4:])
    for where, byte in changes:
        blob[where % len(blob)] = byte
    with contextlib.suppress(RecordUnreadable):
        assert isinstance(decode_event(seal(bytes(blob)), 1), Event)


def test_data_nested_without_end_is_unreadable() -> None:
    blob = encode_event(event(data="X")).partition(b"\xa1X")
    with pytest.raises(RecordUnreadable):
        decode_event(seal(blob[0][4:] + b"\x91" * 500_000 + b"\x01" + blob[2]), 1)


@pytest.mark.parametrize("wrong", [object(), 2**64, "\ud800", {1: {2: object()}}])
def test_data_that_cannot_be_carried_is_refused(wrong: object) -> None:
    with pytest.raises(NOT_CARRIED):
        encode_event(event(data=wrong))


# -- CloudEvents -------------------------------------------------------------------------------------------------


@given(events)
def test_the_cloudevent_holds_the_required_attributes_and_no_empty_ones(written: Event) -> None:
    cloud = written.to_cloudevent()
    assert cloud["specversion"] == "1.0"
    assert cloud["type"] == written.type
    assert None not in cloud.values()
    assert datetime.fromisoformat(cloud["time"]).timestamp() == pytest.approx(written.time_s, abs=1e-6)
    msgspec.json.encode(cloud)


def test_a_cloudevent_in_full() -> None:
    full = event(metadata={"a": 1}, correlation_id="c", causation_id="d", traceparent="00-x", position=9)
    assert full.to_cloudevent() == {
        "specversion": "1.0", "id": "e-1", "type": "orders.placed", "source": "Shop/eu", "subject": "eu", "time": "1970-01-01T00:00:00.500000Z",
        "datacontenttype": "application/json", "data": {"total": 5}, "stream": "Shop/eu", "position": 9, "correlationid": "c", "causationid": "d",
        "traceparent": "00-x", "metadata": {"a": 1},
    }  # fmt: skip


# -- types and patterns ------------------------------------------------------------------------------------------


@given(types)
def test_dotted_words_are_types(name: str) -> None:
    assert check_event_type(name) == name


WRONG = ["", ".", "a.", ".a", "a..b", "a b", "a\n", "a.*x", "x*", "ä", "a/b", "a" * 256, None, 5, b"a", ["a"]]


@pytest.mark.parametrize("name", [*WRONG, "*", "a.**", "***"])
def test_anything_else_is_no_type(name: Any) -> None:
    with pytest.raises(InvalidPattern, match="can't be an event type"):
        check_event_type(name)


@pytest.mark.parametrize("pattern", [*WRONG, "***", "a.***", "a.**b"])
def test_what_cannot_be_a_pattern(pattern: Any) -> None:
    with pytest.raises(InvalidPattern, match="can't be a pattern"):
        matcher(pattern)


@pytest.mark.parametrize(
    ("pattern", "taken", "left"),
    [
        ("orders.*.placed", ["orders.eu.placed"], ["orders.placed", "orders.eu.west.placed", "orders.eu.placed.x", "ordersXeu.placed"]),
        ("orders.**", ["orders", "orders.eu", "orders.eu.placed"], ["order", "ordersx", "x.orders"]),
        ("**.placed", ["placed", "a.placed", "a.b.placed"], ["placed.x", "xplaced"]),
        ("**", ["a", "a.b.c"], []),
        ("*", ["a"], ["a.b"]),
        ("a.**.b.**.c", ["a.b.c", "a.x.b.y.z.c", "a.b.b.c.c"], ["a.b", "a.c", "a.c.b"]),
        ("a.b", ["a.b"], ["a", "a.b.c", "aXb"]),
    ],
)
def test_patterns_by_example(pattern: str, taken: list[str], left: list[str]) -> None:
    matches = matcher(pattern)
    assert [name for name in taken if not matches(name)] == []
    assert [name for name in left if matches(name)] == []


def takes(pattern: list[str], name: list[str]) -> bool:
    """The rule in its simplest form."""
    if not pattern:
        return not name
    if pattern[0] == "**":
        return takes(pattern[1:], name) or (bool(name) and takes(pattern, name[1:]))
    return bool(name) and pattern[0] in ("*", name[0]) and takes(pattern[1:], name[1:])


@given(patterns, st.lists(few_types, min_size=1, max_size=8))
def test_a_pattern_takes_what_the_rule_says(pattern: str, names: list[str]) -> None:
    matches = matcher(pattern)
    for name in names:
        assert matches(name) == takes(pattern.split("."), name.split("."))


def test_many_double_stars_do_not_explode() -> None:
    matches = matcher(".".join(["**", "a"] * 50))
    assert not matches(".".join(["a"] * 126 + ["b"]))
    assert matches(".".join(["a"] * 127))


def test_what_a_pattern_remembers_is_bounded() -> None:
    matches = matcher("a.*")
    for number in range(20_000):
        assert matches(f"a.{number}")
    assert matches.cache_info().currsize <= 10_000  # type: ignore[attr-defined]


def test_an_event_with_a_struct_as_data_is_stored_as_builtins() -> None:
    class Placed(msgspec.Struct):
        total: int

    assert decode_event(encode_event(event(data=Placed(5))), 1).data == {"total": 5}
    assert encode({"total": 5}) == encode(Placed(5))
