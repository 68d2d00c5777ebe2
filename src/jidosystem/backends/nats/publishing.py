"""Messages to subjects that others own: what a forwarder sends. A connection of its own, made when the first message goes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...core.errors import ForwardFailed, ForwardUnavailable, NodeUnreachable, TooLarge, Undeliverable, WireTimeout
from .connection import Connection
from .jetstream import NOT_NOW, Refused, acknowledged
from .protocol import headers_of
from .settings import NatsSettings

Outgoing = tuple[str, bytes, Mapping[str, str]]
"""Subject, payload and headers."""


class Publisher:
    """Sends messages in order. `stored`: each is acknowledged by the stream that takes its subject."""

    def __init__(self, settings: NatsSettings, *, stored: bool, timeout_s: float) -> None:
        self._settings, self._stored, self._timeout_s = settings, stored, timeout_s
        self._connection: Connection | None = None

    async def send(self, messages: Sequence[Outgoing]) -> None:
        """Returns when the server, or the stream, has them all. `ForwardUnavailable` while nobody takes them, `ForwardFailed` if a stream refuses
        one, `Undeliverable` if one is too large, `StoreUnavailable` while no server takes us.
        """
        if self._connection is None:
            self._connection = await Connection.open(self._settings, name="jido forwarder")
        connection = self._connection
        try:
            if self._stored:
                for message in messages:
                    await self._store(connection, message)
                return
            for subject, payload, headers in messages:
                connection.publish(subject, payload, headers=headers_of(headers))
            await connection.round_trip(self._timeout_s)
        except (NodeUnreachable, WireTimeout) as error:
            raise ForwardUnavailable(f"NATS doesn't take events just now: {error.args[0]}", retry_after_s=0.0) from error
        except TooLarge as error:
            raise Undeliverable(f"an event is too large for NATS: {error.args[0]}") from error

    async def _store(self, connection: Connection, message: Outgoing) -> None:
        subject, payload, headers = message
        answer = await connection.request(subject, payload, headers=headers_of(headers), timeout_s=self._timeout_s)
        try:
            acknowledged(answer.data)
        except Refused as refused:
            told = f"the stream of {subject} refused an event: {refused}"
            if refused.code in NOT_NOW:
                raise ForwardUnavailable(told, retry_after_s=0.0) from refused
            raise ForwardFailed(told) from refused
        except ValueError as error:  # whoever answered is no stream
            raise ForwardFailed(f"what answers at {subject} is no stream of JetStream") from error

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
