"""What stands between a call and a turn when the agent type asks for it: a breaker per agent, a bulkhead per type."""

from __future__ import annotations

from asyncio import CancelledError
from collections import deque
from typing import TYPE_CHECKING

from ..core.errors import BulkheadFull
from ..infrastructure.breaker import BreakerState
from .activation import Activation
from .status import Status
from .turn import CALL, CAST, HOOK, Turn

if TYPE_CHECKING:
    from ..infrastructure.bulkhead import Bulkhead
    from .host import Host


class Guards:
    """The guards of one agent type on one node; `watches` is False for types without any."""

    __slots__ = ("_arriving", "_breaker", "_host", "_running", "_waiting", "bulkhead", "watches")

    def __init__(self, host: Host) -> None:
        resilience = host.type.resilience
        self._host = host
        self._breaker = resilience.circuit_breaker
        self.bulkhead = resilience.bulkhead
        self._running = 0
        self._waiting: deque[Activation] = deque()
        self._arriving: set[Activation] = set()  # called while they are loaded: they will ask for a place
        self.watches = resilience.circuit_breaker is not None or resilience.bulkhead is not None or resilience.retry is not None

    def check(self, activation: Activation, turn: Turn) -> None:
        """Refuse a call or cast at the door: `CircuitOpen` or `BulkheadFull`."""
        if self.bulkhead is not None:
            self._check_room(self.bulkhead, activation)
        breaker = activation.extra.breaker if activation.extra is not None else None
        if breaker is not None and turn.permit is None:
            turn.permit = breaker.admit(self._host.node.loop.time())

    def _check_room(self, bulkhead: Bulkhead, activation: Activation) -> None:
        room = bulkhead.max_concurrent + bulkhead.max_waiting - self._running - len(self._waiting)
        if room <= len(self._arriving):
            self._arriving = {each for each in self._arriving if each.status is Status.LOADING}  # some couldn't be loaded
            if room <= len(self._arriving):
                waiting = len(self._waiting) + len(self._arriving)
                raise BulkheadFull(
                    f"{self._host.type.name}: {self._running} turns run and {waiting} agents wait on this node, the limits of its bulkhead; "
                    "try again later, or raise Bulkhead(max_concurrent=…, max_waiting=…)",
                    agent=activation.address,
                )
        if activation.status is Status.LOADING:
            self._arriving.add(activation)

    def admit(self, activation: Activation, turn: Turn) -> bool:
        """Whether a turn may begin now; if not, its agent goes on when another turn of the type ends."""
        if turn.slot_taken or turn.kind == HOOK:
            return True
        assert self.bulkhead is not None
        self._arriving.discard(activation)
        if self._running < self.bulkhead.max_concurrent:
            self._running += 1
            turn.slot_taken = True
            return True
        if activation not in self._waiting:
            self._waiting.append(activation)
        return False

    def after_turn(self, activation: Activation, turn: Turn, error: BaseException | None) -> None:
        """A turn has ended: give its place to the next, tell the breaker."""
        self.release(turn)
        probing = turn.permit is not None and turn.permit.probe  # a delivery counts when it is the one that finds out
        if self._breaker is None or not (turn.kind in (CALL, CAST) or probing) or turn.successor is not None:
            return
        extra = activation.extra
        if extra is None or extra.breaker is None:
            if error is None or not BreakerState.counts(error):
                return
            extra = activation.need_extra()
            extra.breaker = BreakerState(self._breaker, activation.address, self._host.node.breaker_threshold())
        now = self._host.node.loop.time()
        extra.breaker.settle(turn.permit, error, now)  # no permit: it began before there was a breaker

    def untold(self, activation: Activation, turn: Turn) -> None:
        """A turn that was let in needn't run: its place goes to the next, and if it was to find out whether the agent works, so does that."""
        self.release(turn)
        if turn.permit is not None and activation.extra is not None and activation.extra.breaker is not None:
            activation.extra.breaker.settle(turn.permit, CancelledError(), self._host.node.loop.time())

    def release(self, turn: Turn) -> None:
        """Give a bulkhead place back."""
        if turn.slot_taken:
            turn.slot_taken = False
            self._running -= 1
            if self._waiting:
                self._host.node.loop.call_soon(self._fill_places)

    def _fill_places(self) -> None:
        """Let those who wait go on, in order, until all places are taken: the first may have nothing to run any more."""
        assert self.bulkhead is not None
        while self._waiting and self._running < self.bulkhead.max_concurrent:
            self._waiting.popleft().proceed()
