"""Frames: what goes in comes out, and whatever else arrives is refused in one way."""

from __future__ import annotations

import struct
from typing import Any
from zlib import crc32

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jidosystem.core import errors
from jidosystem.core.codec import encode, seal
from jidosystem.core.errors import ActionFailed, CallTimeout, InvalidFrame, JidoError, Rejected, TooLarge
from jidosystem.distribution.frames import (
    MAX_CHAIN,
    VERSION,
    BeatFrame,
    CallFrame,
    ErrorFrame,
    FamilyFrame,
    Frame,
    NodeFrame,
    PingFrame,
    PongFrame,
    ReplyFrame,
    decode_frame,
    encode_frame,
    error_of,
    frame_of,
)

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
maybe = st.none() | words
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | words | st.binary(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
node_names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
wholes = st.integers(0, 2**63)
calls = st.builds(
    CallFrame, to=words, action=words, args=st.binary(max_size=50), timeout_s=st.floats(0, 1e9), idempotency_key=maybe,
    chain=st.lists(words, max_size=4).map(tuple), correlation_id=maybe, causation_id=maybe, traceparent=maybe,
)  # fmt: skip
frames: st.SearchStrategy[Frame] = (
    calls
    | st.builds(ReplyFrame, result=st.binary(max_size=50))
    | st.builds(ErrorFrame, code=words, message=words, fields=st.dictionaries(words, plain_values, max_size=3))
    | st.builds(FamilyFrame, to=words, what=st.sampled_from(["failed", "crashed", "renew"]), child=words, cause=words)
    | st.builds(NodeFrame, ask=st.sampled_from(["live", "count", "redrive"]), about=words, after=words, limit=wholes)
    | st.builds(PingFrame)
    | st.builds(PongFrame, node=node_names, incarnation=wholes, serving=st.booleans())
    | st.builds(BeatFrame, node=node_names, incarnation=wholes, revision=wholes, end=st.sampled_from(["", "left", "void"]))
)
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, JidoError)]


@given(frames)
def test_a_frame_is_the_same_on_the_other_side(frame: Frame) -> None:
    assert decode_frame(encode_frame(frame)) == frame


@given(frames, st.data())
def test_one_changed_bit_is_noticed(frame: Frame, data: st.DataObject) -> None:
    blob = bytearray(encode_frame(frame))
    bit = data.draw(st.integers(0, len(blob) * 8 - 1))
    blob[bit // 8] ^= 1 << bit % 8
    with pytest.raises(InvalidFrame):
        decode_frame(bytes(blob))


@given(frames, st.data())
def test_a_frame_cut_short_or_with_more_behind_it_is_refused(frame: Frame, data: st.DataObject) -> None:
    blob = encode_frame(frame)
    with pytest.raises(InvalidFrame):
        decode_frame(blob[: data.draw(st.integers(0, len(blob) - 1))])
    with pytest.raises(InvalidFrame):
        decode_frame(blob + data.draw(st.binary(min_size=1, max_size=5)))


@given(st.binary(max_size=200))
@example(b"")
@example(bytes((VERSION,)))
def test_bytes_from_anywhere_are_refused(blob: bytes) -> None:
    with pytest.raises(InvalidFrame):
        decode_frame(blob)


@given(
    st.binary(max_size=200)
    | plain_values.map(encode)
    | st.tuples(st.sampled_from(["call", "reply", "error", "ping", "pong", "beat"]), plain_values, plain_values).map(encode)
)
def test_with_a_checksum_that_fits_it_is_a_frame_or_refused(payload: bytes) -> None:
    blob = bytes((VERSION,)) + seal(payload)
    try:
        frame = decode_frame(blob)
    except InvalidFrame:
        return
    assert isinstance(frame, Frame)


def test_what_is_wrong_is_said() -> None:
    good = encode_frame(ReplyFrame(b"x"))
    with pytest.raises(InvalidFrame, match="version 9; this node speaks version 1"):
        decode_frame(b"\x09" + good[1:])
    with pytest.raises(InvalidFrame, match="checksum"):
        decode_frame(good[:-1] + b"y")
    with pytest.raises(InvalidFrame, match="no bytes"):
        decode_frame(b"")
    with pytest.raises(InvalidFrame, match=r"bytes are over the limit of 5"):
        decode_frame(good, max_bytes=5)
    with pytest.raises(InvalidFrame, match="Expected `bytes`"):
        decode_frame(bytes((VERSION,)) + seal(encode(["reply", 5])))
    with pytest.raises(InvalidFrame, match="timeout_s is nan"):
        decode_frame(bytes((VERSION,)) + seal(encode(["call", "Counter/a", "add", b"", float("nan")])))
    with pytest.raises(InvalidFrame, match="chain"):
        decode_frame(encode_frame(CallFrame("Counter/a", "add", b"", 1.0, chain=("Counter/b",) * (MAX_CHAIN + 1))))


@pytest.mark.parametrize(
    "payload",
    [["beat", "", 1, 2], ["beat", "a" * 200, 1, 2], ["beat", "a", -1, 2], ["beat", "a", 1, 2, "gone"], ["pong", "a", 1], ["ping", 1]],
)
def test_a_sign_of_life_that_cant_be_is_refused(payload: list[object]) -> None:
    with pytest.raises(InvalidFrame):
        decode_frame(bytes((VERSION,)) + seal(encode(payload)))


def test_nesting_without_end_is_refused() -> None:
    payload = b"\x93\xa5error\xa1x" + b"\x91" * 200_000 + b"\xc0"
    with pytest.raises(InvalidFrame):
        decode_frame(bytes((VERSION,)) + seal(payload))


def test_a_length_that_promises_more_than_there_is_is_refused() -> None:
    payload = b"\x92\xa5reply\xc6" + struct.pack(">I", 2**32 - 1)
    with pytest.raises(InvalidFrame):
        decode_frame(bytes((VERSION,)) + crc32(payload).to_bytes(4, "big") + payload)


def test_a_frame_over_the_limit_isnt_made() -> None:
    with pytest.raises(TooLarge, match="over the limit of 100"):
        encode_frame(ReplyFrame(bytes(100)), max_bytes=100)


def test_what_no_frame_can_carry_isnt_made() -> None:
    with pytest.raises(InvalidFrame, match="can't be carried"):
        encode_frame(ErrorFrame("X", "", {"x": object()}))


# -- errors ------------------------------------------------------------------------------------------------------


def journey(error: BaseException) -> JidoError:
    frame = decode_frame(encode_frame(frame_of(error)))
    assert isinstance(frame, ErrorFrame)
    return error_of(frame)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_our_errors_travel_by_code_and_fields(kind: type[JidoError]) -> None:
    arrived = journey(kind("what happened", agent="Counter/a", limit=5, message="also a field"))
    assert type(arrived) is kind
    assert str(arrived) == "what happened"
    assert arrived.fields == {"agent": "Counter/a", "limit": 5, "message": "also a field"}
    assert (arrived.agent, arrived.limit) == ("Counter/a", 5)  # type: ignore[attr-defined]


def test_what_users_derive_travels_as_what_it_derives_from() -> None:
    class NoStock(Rejected):
        def __init__(self, item: str) -> None:
            super().__init__("no_stock", item=item)

    arrived = journey(NoStock("chair"))
    assert type(arrived) is Rejected
    assert arrived.reason == "no_stock"
    assert arrived.fields == {"item": "chair"}


def test_other_errors_travel_with_type_message_and_traceback() -> None:
    def fails() -> None:
        raise KeyError("nothing here")

    with pytest.raises(KeyError) as caught:
        fails()
    arrived = journey(caught.value)
    assert isinstance(arrived, ActionFailed)
    assert (arrived.type, arrived.message) == ("KeyError", "'nothing here'")
    assert "in fails" in arrived.remote_traceback
    assert str(arrived) == "KeyError: 'nothing here'"


def test_fields_that_cant_be_carried_are_told_in_words() -> None:
    arrived = journey(CallTimeout("too late", uncertain=True, who=object, much=2**100, odd="\ud800"))
    assert isinstance(arrived, CallTimeout)
    assert arrived.uncertain is True
    assert arrived.fields == {"uncertain": True, "who": "<class 'object'>", "much": str(2**100), "odd": "\\ud800"}


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_error_that_cant_even_be_printed_travels() -> None:
    arrived = journey(Unprintable())
    assert isinstance(arrived, ActionFailed)
    assert "can't be printed" in arrived.message


def test_what_is_told_has_an_end() -> None:
    arrived = journey(ValueError("x" * 1_000_000))
    assert isinstance(arrived, ActionFailed)
    assert len(encode_frame(frame_of(ValueError("x" * 1_000_000)))) < 100_000
    assert "(1000000 characters)" in arrived.message


def test_an_unknown_code_is_named() -> None:
    arrived = error_of(ErrorFrame("FROM_THE_FUTURE", "what happened", {"message": "m", "type": "t", "seen": 1}))
    assert isinstance(arrived, ActionFailed)
    assert (arrived.type, arrived.message, str(arrived)) == ("FROM_THE_FUTURE", "what happened", "what happened")


@given(
    st.sampled_from(KINDS), words, st.dictionaries(words | st.sampled_from(["args", "__class__", "reason", "fields", "self", "code"]), plain_values)
)
@example(Rejected, "no", {"reason": 1, "args": (), "__class__": 2, "self": 3, "code": "X", "fields": 4, "with_traceback": 5, "__dict__": 6})
def test_hostile_fields_leave_an_error_an_error(kind: type[JidoError], message: str, fields: dict[str, Any]) -> None:
    error = error_of(ErrorFrame(kind.code, message, fields))
    assert type(error) is kind
    assert str(error) == message
    assert isinstance(error.fields, dict)
    assert (error.code, error.outcome_known) == (kind.code, kind.outcome_known)
