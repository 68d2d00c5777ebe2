"""Whose event it is: the keys that a subscription sorts events by, checked where the application's function gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

from .errors import InvalidArguments, describe
from .events import Event
from .near import near_or_all

MAX_KEYS = 10_000
"""The most keys that one event may have."""

LaneOf = Callable[[Event], str | Iterable[str] | None]
"""The key or the keys that an event belongs to; None or none: nobody's."""


def keys_of(lane_of: LaneOf, event: Event) -> tuple[str, ...]:
    """The keys of an event; `InvalidArguments` saying why if the function raises or gives something else than text."""
    try:
        found = lane_of(event)
        if found is None:
            return ()
        if isinstance(found, str):
            return (found,)
        keys = tuple(islice(found, MAX_KEYS + 1))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the application's own function: whatever it raises means that there is no key
        raise InvalidArguments(f"the key of the event at {event.position} can't be found: {describe(error)}", path="$.key") from error
    if len(keys) > MAX_KEYS:
        raise InvalidArguments(f"the event at {event.position} has more than {MAX_KEYS:,} keys", path="$.key")
    for key in keys:
        if not isinstance(key, str):
            raise InvalidArguments(f"a key of the event at {event.position} is {key!r}; keys are strings", path="$.key")
    return tuple(dict.fromkeys(keys))


def lane_path(path: str) -> Callable[[Event], str | None]:
    """A function that follows a path into an event: `data.region`, `source`, `metadata.tenant`, `subject`.

    What isn't there, or is None, is nobody's. Anything else that isn't text is an error of that event.
    """
    first, *rest = path.split(".")
    if first not in (*Event.__struct_fields__, "time") or not all(rest):
        fields = (*Event.__struct_fields__, "time")
        raise InvalidArguments(f"{path!r} is no path into an event{near_or_all(first, fields, 'it starts with one of')}", path="$.key")

    def follow(event: Event) -> str | None:
        value: Any = getattr(event, first)
        for step in rest:
            if not isinstance(value, Mapping) or step not in value:
                return None
            value = value[step]
        if value is None or isinstance(value, str):
            return value
        raise InvalidArguments(f"{path} is {value!r}; a key is a string", path=f"$.{path}")

    return follow
