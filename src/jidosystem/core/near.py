"""Near names: whoever mistypes a name is told the one that was probably meant, or what there is.

One place for all of them: fields, actions, agent types, keys, config paths, options, names of the package.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

MAX_CHARS = 100
"""A longer name is nobody's slip of the finger, and comparing takes time that grows with its square."""
MAX_NAMES = 1_000
MAX_TOLD = 30


def nearest(name: object, names: Iterable[str], *, cutoff: float = 0.6, most: int = 1) -> list[str]:
    """Those of the names that are like a name, the likest first; capitals don't count. `cutoff`: how like, up to 1."""
    if not isinstance(name, str) or not name or len(name) > MAX_CHARS:
        return []
    import difflib  # a mistake may take its time, a start may not

    folded: dict[str, str] = {}
    for known in islice(names, MAX_NAMES):
        folded.setdefault(known.casefold(), known)
    return [folded[close] for close in difflib.get_close_matches(name.casefold(), folded, most, cutoff)]


def near(name: object, names: Iterable[str], cutoff: float = 0.6, *, prefix: str = "") -> str:
    """`; did you mean …?` if there is a name like it, else nothing. `prefix` is what has to be written before it."""
    close = nearest(name, names, cutoff=cutoff)
    return f"; did you mean {prefix + close[0]!r}?" if close else ""


def near_or_all(name: object, names: Iterable[str], intro: str) -> str:
    """`; did you mean …?` if there is a name like it, else `; it has a, b` with `intro` instead of "it has"."""
    known = sorted(names)
    more = f" and {len(known) - MAX_TOLD} more" if len(known) > MAX_TOLD else ""
    return near(name, known) or f"; {intro} {', '.join(known[:MAX_TOLD]) or 'none'}{more}"


def one_of(value: object, words: Iterable[str]) -> str:
    """`one of 'a', 'b'`, and which of them was probably meant."""
    words = tuple(words)
    return f"one of {', '.join(map(repr, words))}{near(value, words)}"
