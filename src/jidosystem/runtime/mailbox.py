"""What waits for a busy agent: first come, first served, bounded, with three ways to answer one message too many."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from ..core.errors import CallCycle, MailboxFull
from .turn import CALL, CAST, Turn

if TYPE_CHECKING:
    from .activation import Activation


class Queue:
    """The waiting turns of one agent; made when the first one has to wait."""

    __slots__ = ("_turns", "_withdrawn", "room")

    def __init__(self) -> None:
        self._turns: deque[Turn] = deque()
        self._withdrawn = 0
        self.room: deque[asyncio.Future[None]] | None = None  # senders that wait for room

    def __len__(self) -> int:
        return len(self._turns) - self._withdrawn

    def put(self, turn: Turn) -> None:
        """Add at the end."""
        self._turns.append(turn)

    def put_first(self, turn: Turn) -> None:
        """Add before everything that waits: hooks overtake messages."""
        self._turns.appendleft(turn)

    def first(self) -> Turn | None:
        """The turn that is next, left in place."""
        turns = self._turns
        while turns:
            if not turns[0].withdrawn:
                return turns[0]
            turns.popleft()
            self._withdrawn -= 1
        return None

    def take(self) -> None:
        """Remove the turn that `first` returned, and let one waiting sender in."""
        self._turns.popleft()
        self._let_in()

    def withdraw(self) -> None:
        """Note that a waiting turn was marked `withdrawn`; it is skipped when it comes to the front."""
        self._withdrawn += 1
        if self._withdrawn * 2 > len(self._turns) + 16:
            self._turns = deque(turn for turn in self._turns if not turn.withdrawn)
            self._withdrawn = 0
        self._let_in()

    def wait_for_room(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """A future that is done when one message has left."""
        if self.room is None:
            self.room = deque()
        future: asyncio.Future[None] = loop.create_future()
        self.room.append(future)
        return future

    def drop_oldest(self) -> Turn | None:
        """Withdraw and return the oldest call or cast from outside; None if only deliveries wait."""
        for turn in self._turns:
            if turn.kind in (CALL, CAST) and not turn.withdrawn:
                turn.withdrawn = True
                self.withdraw()
                return turn
        return None

    def drain(self) -> list[Turn]:
        """Take everything out."""
        turns = [turn for turn in self._turns if not turn.withdrawn]
        self._turns.clear()
        self._withdrawn = 0
        while self.room:
            self._let_in()
        return turns

    def _let_in(self) -> None:
        room = self.room
        while room:
            waiter = room.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


def full(activation: Activation, turn: Turn) -> MailboxFull:
    """The error of a message that finds no room."""
    who, limit = activation.address, activation.host.mailbox_limit
    return MailboxFull(
        f"{who} has {limit} messages waiting, its limit; {turn.spec.name} was not accepted."
        " Slow down, raise Mailbox(max_size=…), or use overflow='block'",
        agent=who,
        limit=limit,
    )


def make_room(activation: Activation, queue: Queue, turn: Turn) -> None:
    """Accept one more message, drop an older one for it, or raise `MailboxFull`. Hooks are always accepted."""
    if turn.kind not in (CALL, CAST) or activation.host.type.mailbox.overflow != "drop_oldest":
        raise full(activation, turn)
    dropped = queue.drop_oldest()
    if dropped is None:
        raise full(activation, turn)
    activation.host.meter.dropped += 1
    dropped.fail(full(activation, dropped))


def check_cycle(target: Activation, caller: Turn) -> None:
    """Raise `CallCycle` if a call to `target` could never be answered: its own chain, or agents that wait for each other.

    Followed along the edges "whose turn waits for whom" on this node; called only when the target is busy.
    """
    chain: dict[Activation, Turn] = {}
    turn: Turn | None = caller
    while turn is not None:
        chain.setdefault(turn.activation, turn)
        turn = turn.caller
    if target in chain:
        raise _cycle([*caller.chain(), target.address])
    seen: set[Activation] = {target}
    paths: list[tuple[Activation, list[str]]] = [(target, [target.address])]
    while paths:
        activation, path = paths.pop()
        for running in activation.running():
            for waited in (running.waits or {}).values():
                if waited in chain:
                    raise _cycle([*caller.chain(), *path, waited.address])
                if waited not in seen:
                    seen.add(waited)
                    paths.append((waited, [*path, waited.address]))


def _cycle(chain: list[str]) -> CallCycle:
    return CallCycle(f"a cycle of calls would wait for ever: {' → '.join(chain)}; emit an event or cast instead of calling back", chain=chain)
