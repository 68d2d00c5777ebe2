"""Named points in our own code at which a node can die: just before something, or just after it and before whatever was to follow.

The product knows nothing of them: while a test is `armed`, the functions are wrapped wherever they are bound.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from jidosystem.runtime import ownership

When = Literal["before", "after"]
MANY = 1_000_000


class Point(NamedTuple):
    """Where a node can die: a function as `module:name` or `module:Class.name`, and on which side of it."""

    function: str
    when: When


POINTS: dict[str, Point] = {
    # a turn's commit
    "commit, before it is sent": Point("runtime.commits:flush", "before"),
    "commit, sent": Point("runtime.commits:flush", "after"),
    "commit, durable and nobody told": Point("runtime.commits:durable", "before"),
    "commit, all told": Point("runtime.commits:durable", "after"),
    "commit of unknown outcome, before it is read back": Point("runtime.commits:_read_back", "before"),
    "commit of unknown outcome, read back": Point("runtime.commits:_read_back", "after"),
    # the outbox
    "outbox, before it is released": Point("runtime.outbox:Outbox.release", "before"),
    "outbox, released": Point("runtime.outbox:Outbox.release", "after"),
    "outbox, before an effect is sent": Point("runtime.outbox:Outbox._send", "before"),
    "outbox, an effect sent": Point("runtime.outbox:Outbox._send", "after"),
    "outbox, before an event is appended": Point("runtime.outbox:Outbox._append", "before"),
    "outbox, an event appended": Point("runtime.outbox:Outbox._append", "after"),
    "outbox, an effect taken and not noted": Point("runtime.outbox:Outbox._taken", "before"),
    "outbox, what was taken is noted": Point("runtime.outbox:Outbox.note", "after"),
    # deliveries
    "delivery to another node, before it is sent": Point("runtime.router:Router.deliver", "before"),
    "delivery to another node, answered": Point("runtime.router:Router._deliver", "after"),
    "delivery, looked up before it begins": Point("runtime.deliveries:_look", "after"),
    "subscription, before it delivers": Point("runtime.subscriptions:Subscriptions._deliver", "before"),
    "subscription, delivered": Point("runtime.subscriptions:Subscriptions._deliver", "after"),
    "subscription, before its position is kept": Point("core.subscriptions:DurableSubscription._keep_position", "before"),
    "subscription, a page taken in": Point("core.subscriptions:DurableSubscription._take_in", "after"),
    # reminders
    "reminder, before it rings": Point("runtime.reminders:Reminders._fire", "before"),
    "reminder, rung and not settled": Point("runtime.reminders:Reminders._settled", "before"),
    # claims
    "claim, before it is read": Point("runtime.ownership:Ownership._claim", "before"),
    "claim, read and not written": Point("runtime.ownership:claimed", "after"),
    "claim, written": Point("runtime.ownership:Ownership._claim", "after"),
    "claim, told to its agent": Point("runtime.ownership:Ownership._load", "after"),
    # hand-over
    "hand-over, before it begins": Point("runtime.ownership:Ownership.give_away", "before"),
    "hand-over, its agent at rest": Point("runtime.host:Host.go", "before"),
    "hand-over, before its record is nobody's": Point("runtime.ownership:Ownership.give_back", "before"),
    "hand-over, its record is nobody's": Point("runtime.ownership:Ownership.give_back", "after"),
    "hand-over, over": Point("runtime.ownership:Ownership.give_away", "after"),
    # leases
    "lease, before it is taken": Point("distribution.holding:_Taking.step", "before"),
    "lease, taken": Point("distribution.holding:_Taking.step", "after"),
    "lease, before it is renewed": Point("distribution.holding:Holder._renew", "before"),
    "lease, renewed": Point("distribution.holding:Holder._renew", "after"),
    "lease of another node, before it is voided": Point("distribution.observing:Observer._void_one", "before"),
    "lease of another node, voided": Point("distribution.observing:Observer._void_one", "after"),
    # after a death
    "recovery, before an agent is woken": Point("runtime.recovery:Recovery._wake", "before"),
    "recovery, an agent woken": Point("runtime.recovery:Recovery._wake", "after"),
}


@contextmanager
def unsuspected() -> Iterator[None]:
    """No agent is held to be what its nodes died of."""
    before = ownership.MAX_DEATHS
    ownership.MAX_DEATHS = MANY  # type: ignore[misc]
    try:
        yield
    finally:
        ownership.MAX_DEATHS = before  # type: ignore[misc]


@contextmanager
def armed(reached: Callable[[str], object]) -> Iterator[None]:
    """`reached` is told whenever code gets to a point; what it does there is done there."""
    bound: list[tuple[Any, str, Any]] = []
    by_function: dict[str, dict[When, str]] = {}
    for name, point in POINTS.items():
        by_function.setdefault(point.function, {})[point.when] = name
    try:
        for function, names in by_function.items():
            bound += _bind(function, names, reached)
        yield
    finally:
        for owner, attribute, original in reversed(bound):
            setattr(owner, attribute, original)


def _bind(function: str, names: dict[When, str], reached: Callable[[str], object]) -> Iterator[tuple[Any, str, Any]]:
    """Wrap a function; where it was bound, and what stood there."""
    module_name, _, path = function.partition(":")
    module = importlib.import_module(f"jidosystem.{module_name}")
    *classes, attribute = path.split(".")
    owner = functools.reduce(getattr, classes, module)
    original = vars(owner)[attribute]
    wrapped = _wrapped(original, names, reached)
    others = [other for name, other in list(sys.modules.items()) if name.startswith("jidosystem.") and vars(other).get(attribute) is original]
    for place in [owner] if classes else others:
        yield place, attribute, original
        setattr(place, attribute, wrapped)


def _wrapped(function: Callable[..., Any], names: dict[When, str], reached: Callable[[str], object]) -> Callable[..., Any]:
    def tell(when: When) -> None:
        if when in names:
            reached(names[when])

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        tell("before")
        result = function(*args, **kwargs)
        tell("after")
        return result

    @functools.wraps(function)
    async def call_and_wait(*args: Any, **kwargs: Any) -> Any:
        tell("before")
        result = await function(*args, **kwargs)
        tell("after")
        return result

    return call_and_wait if inspect.iscoroutinefunction(function) else call
