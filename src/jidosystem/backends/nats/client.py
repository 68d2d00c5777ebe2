"""nats-py's client with two doors of our own: messages are taken where they are parsed, commands are sent without a coroutine.

The library hands every message to a queue and a task of its subscription, and every command to three coroutines. A
request then costs more in the client than on the wire, and a queue that is full drops messages. Here a subscription
that has a taker gets its messages within the step that parsed them, and nothing is queued: what isn't read yet stays
with the server, which slows its publishers down. Everything else (connecting, reconnecting, parsing, TLS) is the
library's. What is used of its inside is pinned by tests, and by the version range of the extra `cluster`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from nats.aio.client import Client, Srv
from nats.protocol.parser import AWAITING_MSG_PAYLOAD, Parser

from .protocol import CRLF, message_line, parse_headers

Headers = dict[str, str] | None
Take = Callable[[bytes, bytes, bytes, Headers], None]
"""Called with subject, subject for the answer (b"": none), data, headers."""


class DirectParser(Parser):
    """The library's parser, past which messages go that were read whole: they are cut out where they stand, and handed on without a coroutine."""

    def __init__(self, client: DirectClient) -> None:
        super().__init__(client)
        self._client = client

    async def parse(self, data: bytes = b"") -> None:
        if self.state == AWAITING_MSG_PAYLOAD:  # the library has its beginning
            missing = self.needed + len(CRLF) - len(self.buf)
            await super().parse(data[:missing])
            data = data[missing:]
        elif self.buf:  # the beginning of a line
            data = bytes(self.buf) + data
            self.buf.clear()
        start, size_bytes, take = 0, len(data), self._client.hand_over
        while (end := data.find(CRLF, start)) > 0 and (line := message_line(data[start:end])) is not None:
            subject, number, reply, headers_bytes, message_bytes = line
            first = end + 2
            content, after = first + headers_bytes, first + message_bytes
            if not first <= content <= after <= size_bytes - 2:
                break
            headers = data[first:content] if headers_bytes else None
            if not take(number, subject, reply, data[content:after], headers):
                await self._client._process_msg(number, subject, reply, data[content:after], headers or b"")
            start = after + 2
        if start < size_bytes:
            await super().parse(data[start:])


class DirectClient(Client):
    """See the module. Only for the loop that it was connected on."""

    def __init__(self) -> None:
        super().__init__()
        self._ps = DirectParser(self)
        self._takers: dict[int, Take] = {}
        self._kick: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._kick.set_result(None)

    async def take(self, subject: str, group: str, take: Take) -> int:
        """Subscribe; `take` is called for each message as it is parsed. The number of the subscription."""
        self._takers[self._sid + 1] = take  # before a message can come
        subscription = await self.subscribe(subject, queue=group)
        return int(subscription._id)

    async def leave(self, number: int, timeout_s: float) -> None:
        """End a subscription, once all that the server has sent to it is taken."""
        if self.is_connected and number in self._subs:
            await self._send_unsubscribe(number)
            await self.round_trip(timeout_s)
        self._takers.pop(number, None)
        self._subs.pop(number, None)

    def put(self, command: bytes) -> None:
        """Send a command with all others of this turn of the loop. Whoever calls has seen that we are connected."""
        self._pending.append(command)
        self._pending_data_size += len(command)
        queue = self._flush_queue
        if queue is not None and queue.empty():
            queue.put_nowait(self._kick)

    def hurry(self) -> None:
        """Write what was put at once, if the socket has taken all that was written before; else it is written as ever."""
        writer = getattr(self._transport, "_io_writer", None)
        if not self._pending or writer is None or not self.is_connected or writer.transport.is_closing():
            return
        if writer.transport.get_write_buffer_size() == 0:
            writer.writelines(self._pending)
            self.forget_pending()

    def forget_pending(self) -> None:
        """Send nothing later: whoever wanted it sent has been, or will be, told that its fate is unknown. Subscriptions are made anew anyway."""
        self._pending.clear()
        self._pending_data_size = 0

    async def round_trip(self, timeout_s: float) -> bool:
        """Whether the server answers in time a ping that comes after all that was put. The library's own `flush` sends its ping ahead of what
        is pending, and gives its future up, so that an answer that comes after all ends the task that reads."""
        pong: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._pending and self._transport is not None:
            self._transport.writelines(self._pending[:])
            self.forget_pending()
        await self._send_ping(pong)
        done, _ = await asyncio.wait({pong}, timeout=timeout_s)
        return bool(done)

    @property
    def is_stuck(self) -> bool:
        """Whether nothing will happen any more by itself: a task that reads or reconnects has ended although it shouldn't."""
        if self.is_reconnecting:
            return self._reconnection_task is None or self._reconnection_task.done()
        return self.is_connected and (self._reading_task is None or self._reading_task.done())

    def abort(self) -> None:
        """Hang up at once. Closing would wait until a server that doesn't read any more has read what was sent."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    async def _attempt_reconnect(self) -> None:
        self.abort()
        await super()._attempt_reconnect()

    async def _select_next_server(self) -> None:
        if (lost := self._current_server) in self._server_pool:  # the one that went silent takes connections still, if it only stands still
            self._server_pool.remove(lost)
            self._server_pool.append(lost)
        await super()._select_next_server()

    async def _connect_to_server(self, s: Srv) -> None:
        self.abort()  # of an attempt that came to nothing: the library would leave its socket open
        await super()._connect_to_server(s)

    def hand_over(self, number: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> bool:
        """Give a message to the taker of its subscription; whether there is one."""
        take = self._takers.get(number)
        if take is None:
            return False
        try:
            take(subject, reply, data, parse_headers(headers) if headers else None)
        except Exception as error:  # here it would end the task that reads; the loop's own handler hears of it
            asyncio.get_running_loop().call_exception_handler({"message": f"a message to {subject!r} couldn't be taken", "exception": error})
        return True

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if not self.hand_over(sid, subject, reply, data, headers):
            await super()._process_msg(sid, subject, reply, data, headers)
