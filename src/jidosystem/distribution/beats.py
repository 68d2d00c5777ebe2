"""The word that goes round: nodes say to all that they live, and of others that their end can be read in the store.

Nothing hangs on it. What isn't heard is found in the store a second later, and what is heard is looked up there.
"""

from __future__ import annotations

from collections.abc import Callable

from ..core.errors import InvalidFrame, JidoError
from ..core.wire import Served, Wire
from .frames import BeatFrame, decode_frame, encode_frame


class Beats:
    """One node's mouth and ears on the subject that all share. `heard` is given every word, also its own."""

    def __init__(self, wire: Wire, subject: str, heard: Callable[[BeatFrame], None]) -> None:
        self._wire, self._subject, self._heard = wire, subject, heard
        self._ears: Served | None = None

    async def listen(self, instance: str) -> None:
        """Hear every word from now on. Each instance is a group of its own, so that all hear all."""
        await self.close()
        self._ears = await self._wire.serve(self._subject, self._hear, group=instance)

    async def say(self, frame: BeatFrame) -> None:
        """Say a word to all who listen, if the wire takes it."""
        try:
            await self._wire.send(self._subject, encode_frame(frame))
        except JidoError:
            return

    async def _hear(self, payload: bytes) -> None:
        try:
            frame = decode_frame(payload, self._wire.max_payload_bytes)
        except InvalidFrame:
            return  # a hint that can't be read is none
        if isinstance(frame, BeatFrame):
            self._heard(frame)

    async def close(self) -> None:
        """Listen no more."""
        if self._ears is not None:
            ears, self._ears = self._ears, None
            await ears.close()
