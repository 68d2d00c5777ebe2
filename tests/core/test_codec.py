"""The codec: what goes in comes out, damage is found, and what can't be carried is refused in one of four ways."""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jidosystem.core.codec import NOT_CARRIED, ModelMismatch, decode, decoder_for, encode, is_pydantic_model, plain, seal, unseal

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(0, 9), inner, max_size=4), max_leaves=20
)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(msgspec.Struct):
    x: int
    y: float = 0.0


@dataclass
class Order:
    id: uuid.UUID
    total: Decimal
    placed: dt.datetime
    lines: list[Point] = field(default_factory=list)


class Address(pydantic.BaseModel):
    street: str
    zip_code: str = pydantic.Field(pattern=r"^\d{5}$")


class Person(pydantic.BaseModel):
    name: str
    addresses: list[Address] = []
    born: dt.date | None = None


# -- seals -------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_a_seal_gives_back_what_was_sealed(payload: bytes) -> None:
    assert unseal(seal(payload)) == payload


@given(st.binary(max_size=200), st.data())
def test_any_flipped_bit_is_found(payload: bytes, data: st.DataObject) -> None:
    blob = bytearray(seal(payload))
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ValueError, match="damaged"):
        unseal(bytes(blob))


def test_every_bit_and_every_pair_of_neighbours_counts() -> None:
    blob = seal(b"state of an agent")
    for bit in range(len(blob) * 8):
        for mask in (1, 3):
            damaged = (int.from_bytes(blob, "big") ^ (mask << bit)) & ((1 << len(blob) * 8) - 1)
            with pytest.raises(ValueError, match="damaged"):
                unseal(damaged.to_bytes(len(blob), "big"))


@given(st.binary(min_size=1, max_size=50), st.integers(0, 53))
def test_a_blob_cut_short_is_found(payload: bytes, keep: int) -> None:
    blob = seal(payload)
    if keep < len(blob):
        with pytest.raises(ValueError, match="damaged"):
            unseal(blob[:keep])


@given(st.binary(max_size=40))
def test_fuzzed_bytes_are_no_seal(blob: bytes) -> None:
    try:
        payload = unseal(blob)
    except ValueError:
        return
    assert seal(bytes(payload)) == blob


# -- values ------------------------------------------------------------------------------------------------------


@given(values)
def test_builtins_come_out_as_they_went_in(value: Any) -> None:
    assert decode(encode(value)) == value
    assert plain(value) == value


@given(st.builds(Point, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)))
def test_structs_come_out_as_they_went_in(point: Point) -> None:
    assert decoder_for(Point).decode(encode(point)) == point


@given(
    st.builds(
        Order,
        st.uuids(),
        st.decimals(allow_nan=False, allow_infinity=False),
        st.datetimes(timezones=st.just(dt.UTC)),
        st.lists(st.builds(Point, st.integers(0, 9)), max_size=3),
    )
)
def test_dataclasses_of_rich_values_come_out_as_they_went_in(order: Order) -> None:
    assert decoder_for(Order).decode(encode(order)) == order


@given(
    st.builds(
        Person,
        name=st.text(),
        addresses=st.lists(st.builds(Address, street=st.text(), zip_code=st.from_regex(r"\A[0-9]{5}\Z")), max_size=3),
        born=st.none() | st.dates(),
    )
)
def test_pydantic_models_come_out_as_they_went_in(person: Person) -> None:
    assert decoder_for(Person).decode(encode(person)) == person
    assert decoder_for(list[Person]).decode(encode([person])) == [person]


def test_a_models_own_rules_are_checked_when_it_is_read() -> None:
    with pytest.raises(msgspec.ValidationError, match="zip_code"):
        decoder_for(Address).decode(encode({"street": "x", "zip_code": "no"}))
    people = encode({"staff": [{"name": "Ada"}, {"name": "Bob", "addresses": [{"street": "x", "zip_code": "no"}, {}]}]})
    with pytest.raises(
        msgspec.ValidationError, match=r"^Person\.addresses\[0\]\.zip_code: [^\n]* \(and 2 more\) - at `\$\[\.\.\.\]\[1\]`$"
    ) as caught:
        decoder_for(dict[str, list[Person]]).decode(people)
    assert isinstance(caught.value.__cause__, ModelMismatch)
    assert caught.value.__cause__.path == ".addresses[0].zip_code"


def test_plain_is_what_another_node_would_see() -> None:
    person = Person(name="Ada", addresses=[Address(street="x", zip_code="12345")], born=dt.date(1815, 12, 10))
    assert plain({"who": person, "at": Point(1), "colour": Colour.RED, "pair": (1, 2)}) == {
        "who": {"name": "Ada", "addresses": [{"street": "x", "zip_code": "12345"}], "born": "1815-12-10"},
        "at": {"x": 1, "y": 0.0},
        "colour": "red",
        "pair": [1, 2],
    }


def itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "make", [object, lambda: 2**64, lambda: -(2**63) - 1, lambda: "\ud800", itself, deep, lambda: {1: object()}, lambda: print, lambda: int]
)
def test_what_cannot_be_carried_is_refused_in_a_known_way(make: Any) -> None:
    with pytest.raises(NOT_CARRIED):
        encode(make())


@given(st.binary(max_size=60))
def test_fuzzed_bytes_are_a_value_or_refused_in_a_known_way(blob: bytes) -> None:
    for decoder in (decode, decoder_for(Point).decode, decoder_for(Order).decode, decoder_for(Person).decode):
        with contextlib.suppress(msgspec.MsgspecError, ValueError):
            decoder(blob)


def test_nobody_who_has_no_pydantic_models_pays_for_them() -> None:
    code = (
        "import sys; from jidosystem.core.codec import is_pydantic_model, encode;"
        "print(is_pydantic_model(int), len(encode({})), 'pydantic' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert ran.stdout.split() == ["False", "1", "False"]
    assert is_pydantic_model(Person)
    assert not is_pydantic_model(Person(name="x"))
