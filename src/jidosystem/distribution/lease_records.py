"""Leases in the store: read, listed and written, each within a time after which no answer is an answer.

A write that isn't answered in time may still arrive, however late; that is what the compare-and-set is for.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, TypeVar, cast

from ..core.errors import CommitUnknown, StoreError, StoreUnavailable
from ..core.ids import address_of, split_address
from ..core.records import Records
from .leases import LEASE_TYPE, Fact, Lease, encode_lease, fact_of

T = TypeVar("T")


class LeaseRecords:
    """The leases of one store."""

    def __init__(self, records: Records, answer_s: float) -> None:
        self._records, self._answer_s = records, answer_s

    async def read(self, name: str) -> Fact:
        """What the store says of one lease; it may be out of date. `StoreError` if it says nothing in time or can't be read."""
        address = address_of(LEASE_TYPE, name)
        return fact_of(await self._answer(self._records.read(address), StoreUnavailable(f"no answer to a read of {address}")))

    async def scan(self) -> dict[str, Fact]:
        """The leases that there are, by name, without tombstones; it may be out of date, and one may be missing."""
        try:
            async with asyncio.timeout(self._answer_s):
                pages = cast("AsyncGenerator[Any]", self._records.scan_agents(LEASE_TYPE))
                async with aclosing(pages):
                    return {split_address(record.agent)[1]: fact_of(record) async for page in pages for record in page}
        except TimeoutError:
            raise StoreUnavailable(f"no answer to a scan of leases within {self._answer_s:g} s") from None

    async def write(self, name: str, expected: int, lease: Lease | None) -> int:
        """Replace a lease, or void it (None), if it is at a revision; the new one. `Conflict`, `CommitUnknown`, or another `StoreError`."""
        address = address_of(LEASE_TYPE, name)
        head = None if lease is None else encode_lease(lease)
        unknown = CommitUnknown(f"no answer to a commit of {address} within {self._answer_s:g} s; it may still happen")
        return (await self._answer(self._records.commit(address, expected, head), unknown)).revision

    async def _answer(self, future: Future[T], instead: StoreError) -> T:
        future.add_done_callback(_heard)
        await asyncio.wait((future,), timeout=self._answer_s)
        if not future.done():
            raise instead
        return future.result()


def _heard(future: Future[Any]) -> None:
    """What it ended with has been looked at, also if nobody waited so long."""
    if not future.cancelled():
        future.exception()
