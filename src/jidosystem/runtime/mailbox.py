"""What waits for a busy agent: first come, first served, bounded, with three ways to answer one message too many."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from ..core.errors import CallTimeout, MailboxFull
from .turn import CALL, CAST, Turn

if TYPE_CHECKING:
    from .activation import Activation

SPARED = 1_000
"""Empty queues that a node keeps, at most."""


class Queue:
    """The waiting turns of one agent; made, or taken from those that are to spare, when the first one has to wait."""

    __slots__ = ("_withdrawn", "room", "turns")

    def __init__(self) -> None:
        self.turns: deque[Turn] = deque()  # some of them withdrawn; new ones are appended
        self._withdrawn = 0
        self.room: deque[asyncio.Future[None]] | None = None  # senders that wait for room

    def __len__(self) -> int:
        return len(self.turns) - self._withdrawn

    def put_first(self, turn: Turn) -> None:
        """Add before everything that waits: hooks overtake messages."""
        self.turns.appendleft(turn)

    def first(self) -> Turn | None:
        """The turn that is next, left in place."""
        turns = self.turns
        while turns:
            if not turns[0].withdrawn:
                return turns[0]
            turns.popleft()
            self._withdrawn -= 1
        return None

    def take(self) -> None:
        """Remove the turn that `first` returned, and let one waiting sender in."""
        self.turns.popleft()
        if self.room:
            self.let_in()

    def withdraw(self) -> None:
        """Note that a waiting turn was marked `withdrawn`; it is skipped when it comes to the front."""
        self._withdrawn += 1
        if self._withdrawn * 2 > len(self.turns) + 16:
            kept = [turn for turn in self.turns if not turn.withdrawn]
            self.turns.clear()
            self.turns.extend(kept)
            self._withdrawn = 0
        self.let_in()

    def ask_for_room(self, future: asyncio.Future[None], *, again: bool) -> None:
        """Let the future be done when a message has left and nobody has waited longer. `again`: it was its turn already."""
        if self.room is None:
            self.room = deque()
        if again:
            self.room.appendleft(future)
        else:
            self.room.append(future)

    def no_longer_ask(self, future: asyncio.Future[None]) -> None:
        """Its sender has given up; room that it was given goes to the next."""
        if future.done() and not future.cancelled():
            self.let_in()
        elif self.room is not None and future in self.room:
            self.room.remove(future)

    def drop_oldest(self) -> Turn | None:
        """Withdraw and return the oldest call or cast from outside; None if only deliveries wait."""
        for turn in self.turns:
            if turn.kind in (CALL, CAST) and not turn.withdrawn:
                turn.withdrawn = True
                self.withdraw()
                return turn
        return None

    def drain(self) -> list[Turn]:
        """Take everything out."""
        turns = [turn for turn in self.turns if not turn.withdrawn]
        self.turns.clear()
        self._withdrawn = 0
        while self.room:
            self.let_in()
        return turns

    def let_in(self) -> None:
        """There is room: for the sender that has waited longest."""
        room = self.room
        while room:
            waiter = room.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


class Queues:
    """A node's empty queues, to be used again: a deque takes longer to be made than a turn to run, and weighs as much as an idle agent."""

    __slots__ = ("_spare",)

    def __init__(self) -> None:
        self._spare: list[Queue] = []

    def take(self) -> Queue:
        """An empty queue."""
        return self._spare.pop() if self._spare else Queue()

    def give_back(self, queue: Queue) -> None:
        """Nobody uses this queue any more, and nobody waits in it."""
        if len(self._spare) < SPARED:
            self._spare.append(queue)


async def wait_for_room(turn: Turn) -> None:
    """`overflow="block"`: wait for room in the mailbox, in the order of coming, at most until the turn's deadline."""
    host, key, caller = turn.activation.host, turn.activation.key, turn.caller
    loop, again = host.node.loop, False
    while True:
        activation = turn.activation = host.find(key)
        queue = activation.queue
        if queue is None or (len(queue) < host.mailbox_limit and (again or not queue.room)):
            return
        room: asyncio.Future[None] = loop.create_future()
        queue.ask_for_room(room, again=again)
        if caller is not None:
            caller.waiting_for(turn)
        try:
            async with asyncio.timeout_at(turn.deadline):
                await room
        except TimeoutError:
            queue.no_longer_ask(room)
            who = activation.address
            raise CallTimeout(f"{who} had no room for {turn.spec.name} in time; it was never accepted", agent=who, uncertain=False) from None
        except BaseException:
            queue.no_longer_ask(room)
            raise
        finally:
            if caller is not None:
                caller.no_longer_waiting_for(turn)
        again = True


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
