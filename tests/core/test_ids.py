"""Names: which keys and type names there can be, how addresses divide, and identifiers that never repeat."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jidosystem.core.errors import DefinitionError, InvalidKey
from jidosystem.core.ids import MAX_KEY_BYTES, Ids, address_of, check_key, check_type_name, split_address

type_names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.\-]{0,127}", fullmatch=True)
keys = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=128)


def is_key(text: str) -> bool:
    """The rule, said in another way."""
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        return False
    return 1 <= size <= 512 and not any(unicodedata.category(character) == "Cc" for character in text)


@given(st.text(max_size=600) | st.text(st.characters(max_codepoint=0xA0), max_size=30))
def test_a_key_is_taken_as_it_is_or_refused(text: str) -> None:
    if is_key(text):
        assert check_key(text) == text
    else:
        with pytest.raises(InvalidKey):
            check_key(text)


@pytest.mark.parametrize("key", ["a" * 512, "ü" * 256, "😀" * 128, " ", "a/b/c", "../..", "\u2028", "'; --", "%", "*.>"])
def test_odd_keys_that_are_allowed(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("key", ["", "a" * 513, "ü" * 257, "😀" * 129, "\n", "a\n", "\x00", "a\x7f", "\x85", "\ud800", 5, None, b"a", True, ["a"]])
def test_impossible_keys(key: object) -> None:
    with pytest.raises(InvalidKey) as refused:
        check_key(key)
    assert refused.value.fields["key"] == key


def test_a_string_of_another_class_becomes_a_plain_one() -> None:
    class Key(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "another"

    checked = check_key(Key("home"))
    assert (type(checked), checked) == (str, "home")
    with pytest.raises(InvalidKey):
        check_key(Key("\n"))


@pytest.mark.parametrize("name", ["A", "_x", "app.Orders", "a-b", "A" * 128])
def test_type_names(name: str) -> None:
    assert check_type_name(name) == name


@pytest.mark.parametrize("name", ["", "1a", "-a", ".a", "a/b", "a b", "A\n", "Ä", "A" * 129, "a\x00", None, 5])
def test_impossible_type_names(name: object) -> None:
    with pytest.raises(DefinitionError, match="can't name an agent type"):
        check_type_name(name)


@given(type_names, keys)
def test_an_address_divides_into_what_it_was_made_of(type_name: str, key: str) -> None:
    assert split_address(address_of(check_type_name(type_name), key)) == (type_name, key)


def test_identifiers_never_repeat_also_across_processes() -> None:
    sources = [Ids() for _ in range(50)]
    seen = {source() for source in sources for _ in range(200)}
    assert len(seen) == 10_000
    assert MAX_KEY_BYTES == 512


def test_identifiers_of_a_given_prefix_can_be_foretold() -> None:
    ids = Ids("run")
    assert [ids() for _ in range(17)][-1] == "run-11"
