"""What an agent that has failed still owes: effects that its turns committed and nobody has taken yet.

Its turns were answered, so what they caused must happen, now and after every start of the node, although the agent itself
lives no more. They go out in their order as from a live agent, through an outbox of their own; that they were taken is
written beside the status "failed". If the agent is restarted meanwhile it sends them too, and their receivers know them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from ..core.errors import Conflict, describe
from ..core.records import Row, StoredRow
from .activation import Activation
from .head import FAILED, decode_head, encode_head
from .host import Host
from .loading import in_order
from .outbox import Outbox

if TYPE_CHECKING:
    from .node import Node


class Owed:
    """The effects of failed agents that are on their way from one node."""

    __slots__ = ("_node", "_sending")

    def __init__(self, node: Node) -> None:
        self._node = node
        self._sending: set[str] = set()

    def send(self, host: Host, key: str) -> None:
        """Send what an agent that has failed owes, unless that is being done."""
        address = host.prefix + key
        if address not in self._sending and not self._node.closing:
            self._sending.add(address)
            self._node.own(self._send(host, key, address))

    async def _send(self, host: Host, key: str, address: str) -> None:
        try:
            while await self._send_rows(host, key, address):
                pass  # restarted meanwhile and failed again, it owes more
        except (msgspec.MsgspecError, ValueError) as error:
            self._node.log.error("what a failed agent owes can't be read", agent=address, error=describe(error))
        finally:
            self._sending.discard(address)

    async def _send_rows(self, host: Host, key: str, address: str) -> bool:
        """Send what is owed now; whether there is more of it."""
        rows: list[StoredRow] = []
        more = False

        async def read() -> None:
            rows[:] = await self._node.records.read_rows(address, "pending")

        async def note() -> None:
            nonlocal more
            more = await self._note(address, {row.name: row.value for row in rows})

        await self._node.recovery.read_until_told(read)
        if not rows:
            return False
        outbox = Outbox(Activation(host, key))
        try:
            outbox.take_up(in_order(rows))
            await outbox.drain(None)
        finally:
            outbox.close()
        await self._node.recovery.read_until_told(note)
        return more

    async def _note(self, address: str, taken: Mapping[str, bytes]) -> bool:
        """Remove rows whose effects were taken (one with other effects under the same name is another), unless the agent is failed no longer and
        sees to them itself; whether it owes others."""
        records = self._node.records
        while True:
            record = await records.read(address)
            if record is None or record.head is None:
                return False
            head = decode_head(record.head, address)
            if head.marks is None or head.marks.status != FAILED:
                return False
            present = await records.read_rows(address, "pending")
            gone = [row.name for row in present if taken.get(row.name) == row.value]
            head.marks.pending = len(present) - len(gone)
            blob = encode_head(head.version, head.turns, head.state, head.marks, head.owner)
            try:
                await records.commit(address, record.revision, blob, [Row("pending", name, None) for name in gone])
            except Conflict:
                continue
            return len(gone) < len(present)
