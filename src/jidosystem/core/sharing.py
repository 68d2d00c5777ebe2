"""A durable subscription that several nodes of a cluster have and one at a time runs, so that order per stream is kept and nothing is done twice.

All nodes work out alone which of them that is, and that one claims the subscription's position, waiting until whoever had it has let go
or is void. When another is to run it, what is under way ends first. An event may come twice only when a node is lost in mid-handling.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from .errors import RecordUnreadable, StoreError, describe
from .observability import logger
from .position import KeptPosition, Sharing
from .records import Records
from .subscriptions import CLOSE_GRACE_S, DurableSubscription

CLAIM_AGAIN_S = 0.2
"""How often a subscription is claimed that its last node hasn't let go yet, or whose position can't be read just now."""
WITHDRAW_S = 1.0
STORE_S = 2.0
"""How long the last position may take to be stored."""


class SharedSubscription:
    """See the module. `make` makes the subscription that runs while this node has the position."""

    __slots__ = ("_changed", "_closing", "_first", "_kept", "_lines", "_make", "_name", "_sharing", "_stop_listening", "_task", "running")

    def __init__(
        self,
        name: str,
        sharing: Sharing,
        records: Records,
        *,
        first: Callable[[], Awaitable[int]],
        make: Callable[[KeptPosition], DurableSubscription],
    ) -> None:
        self._name, self._sharing, self._first, self._make = name, sharing, first, make
        self._lines = logger("jidosystem.events").bind(subscription=name)
        self._kept = KeptPosition(name, records, self._lines)
        self._changed = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._stop_listening: Callable[[], None] = _nothing
        self.running: DurableSubscription | None = None

    async def start(self) -> None:
        """Find or store the starting position, tell the others that this node has the subscription, and run it when it is this node's turn."""
        await self._kept.find(self._first)
        await self._sharing.announce(self._name)
        self._stop_listening = self._sharing.on_change(self._changed.set)
        self._task = asyncio.create_task(self._take_turns())
        self._task.add_done_callback(self._died)

    def _died(self, task: asyncio.Task[None]) -> None:
        """A defect of ours, or a position that can't be read: the subscription stands still, and says so."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._lines.error("a subscription stands still on this node until it is started again", error=describe(error))

    async def close(self, grace_s: float = CLOSE_GRACE_S) -> None:
        """Run it no more. Another node that has it goes on."""
        if self._closing:
            return
        self._closing = True
        self._changed.set()
        self._stop_listening()
        if self._task is not None:
            _done, late = await asyncio.wait({self._task}, timeout=2 * grace_s + 1.0)
            for task in late:  # the store doesn't answer; the claim ends with this life of the node
                task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with suppress(StoreError, TimeoutError):  # without a lease there is nothing to be withdrawn
            async with asyncio.timeout(WITHDRAW_S):
                await self._sharing.withdraw(self._name)

    async def _take_turns(self) -> None:
        while not self._closing or self._kept.unreleased:
            self._changed.clear()
            if self._kept.unreleased and not await self._try("let go of", self._release):
                await asyncio.sleep(CLAIM_AGAIN_S)
            elif self._closing:
                return
            elif not self._sharing.is_mine(self._name):
                await self._changed.wait()
            elif self._sharing.may_serve() and await self._try("claimed", self._claim):
                await self._run()
            else:
                await asyncio.sleep(CLAIM_AGAIN_S)

    async def _try(self, what: str, step: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await step()
        except RecordUnreadable:
            raise
        except StoreError as error:
            self._lines.warning(f"a subscription can't be {what} just now", error=describe(error))
            return False

    async def _claim(self) -> bool:
        return await self._kept.claim(self._sharing)

    async def _release(self) -> bool:
        position = self._kept.stored
        await self._kept.store(lambda: position)
        return True

    async def _run(self) -> None:
        """Run it as long as it is this node's; what is under way when it isn't any more gets a while to end, unless the lease is gone."""
        mine = self._sharing.runner
        subscription = self.running = self._make(self._kept)
        try:
            await subscription.start()
            await self._until_over(mine)
        finally:
            self.running = None
            self._kept.let_go()
            lost = self._kept.lost.is_set() or self._sharing.runner != mine
            grace_s = 0.0 if lost else CLOSE_GRACE_S
            with suppress(TimeoutError):  # the store doesn't answer: what is to be let go of is let go of later
                async with asyncio.timeout(2 * grace_s + STORE_S):
                    await subscription.close(grace_s)

    async def _until_over(self, mine: object) -> None:
        lost = asyncio.ensure_future(self._kept.lost.wait())
        lost.add_done_callback(lambda _lost: self._changed.set())
        try:
            while not (self._closing or lost.done()) and self._sharing.runner == mine and self._sharing.is_mine(self._name):
                self._changed.clear()
                await self._changed.wait()
        finally:
            lost.cancel()


def _nothing() -> None:
    """Nobody listens yet."""
