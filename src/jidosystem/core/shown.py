"""How values are shown to people: on one line, bounded, whatever they hold; and as a small table in a notebook.

What is shown was often written by strangers: every text is cut, nothing that a terminal obeys gets through, and HTML is escaped.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import Any

import msgspec

from .codec import NOT_CARRIED, plain

MAX_CHARS = 200
MAX_TEXT_CHARS = 16_000


def text_of(value: object) -> str:
    """What a value says of itself, as Unicode that can be encoded; its own `__str__` may fail."""
    try:
        told = str(value)
    except Exception as error:
        return f"<{type(value).__qualname__} that can't be printed: {type(error).__qualname__}>"
    return cut(told.encode(errors="backslashreplace").decode(), MAX_TEXT_CHARS)


def plain_or_text(value: Any) -> Any:
    """A value as every other node would see it, or what it says of itself."""
    try:
        return plain(value)
    except (*NOT_CARRIED, msgspec.MsgspecError):
        return text_of(value)


def json_or_text(value: Any) -> Any:
    """A value as JSON carries it, or what it says of itself."""
    try:
        return msgspec.to_builtins(plain_or_text(value), str_keys=True)
    except (*NOT_CARRIED, msgspec.MsgspecError):
        return text_of(value)


def cut(text: str, chars: int) -> str:
    """A text, or its beginning and how long it is."""
    return text if len(text) <= chars else f"{text[:chars]}… ({len(text)} characters)"


def one_line(text: str) -> str:
    """A text without line breaks and whatever else a terminal obeys."""
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def short(value: object, chars: int = MAX_CHARS) -> str:
    """The repr of a value on one line, of about so many characters at most: containers are cut before they are written out."""
    shower = reprlib.Repr()
    shower.maxlevel, shower.maxdict, shower.maxlist, shower.maxtuple, shower.maxset, shower.maxfrozenset = 4, 10, 10, 10, 10, 10
    shower.maxstring = shower.maxother = shower.maxlong = chars
    return one_line(cut(shower.repr(value), chars))


def table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """A small HTML table for notebooks; texts stand as they are, anything else as its repr, all of it escaped."""
    from html import escape  # nobody but a notebook asks

    cells = "".join(
        f'<tr><th style="text-align:left">{escape(one_line(name))}</th>'
        f'<td style="text-align:left">{escape(one_line(cut(value, MAX_CHARS)) if isinstance(value, str) else short(value))}</td></tr>'
        for name, value in rows
    )
    return f"<table><caption>{escape(one_line(cut(title, MAX_CHARS)))}</caption>{cells}</table>"
