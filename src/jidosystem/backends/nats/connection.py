"""`Connection`: one connection to a NATS cluster that stays, whatever becomes of clients and servers behind it.

The client library reconnects by itself, but closes for good after most errors that a server tells it, and a task of it
may end unseen. A watchdog therefore makes a round trip each second and puts a new client in the place of a dead one;
subscriptions and requests under way outlive that, for the inbox is ours. Errors of the library end here: what leaves is
`NodeUnreachable` (nothing was sent), `WireTimeout` (unknown), `TooLarge`, and `StoreUnavailable` from `open`.

Leases and claims have a connection of their own, so that no bulk stands before them (`Connection.open` twice).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

from nats import errors as nats_errors
from nats.nuid import NUID

from ...core.deadlines import Deadlines
from ...core.errors import InvalidConfig, NodeUnreachable, OutcomeUnknown, StoreUnavailable, TooLarge, WireTimeout
from .client import DirectClient, Headers, Take
from .protocol import NO_RESPONDERS, publication
from .settings import NatsSettings

LOOK_S = 1.0
MISSED_LOOKS = 3
CLOSE_S = 2.0
LEAST_VERSION = (2, 12)


class Notice(NamedTuple):
    """Something that operators may want to know of a connection.

    Attributes:
        kind: `disconnected`, `reconnected`, `replaced`, `slow-consumer`, `lame-duck`, `error`
        text: a sentence
    """

    kind: str
    text: str


class Message(NamedTuple):
    """An answer."""

    data: bytes
    headers: Headers


class Asked:
    """A request that waits for its answer."""

    __slots__ = ("answer", "connection", "number", "slot", "subject")

    def __init__(self, connection: Connection, number: int, subject: str, answer: asyncio.Future[Message]) -> None:
        self.connection, self.number, self.subject, self.answer = connection, number, subject, answer
        self.slot: int | None = None

    def expire(self, now: float) -> None:
        """Its time is up."""
        self.connection.forget(self)
        if not self.answer.done():
            error = WireTimeout(f"no answer from {self.subject!r} in time; whether it was handled is unknown", subject=self.subject)
            self.answer.set_exception(error)


class Subscription:
    """A subscription that is made again on every new client."""

    __slots__ = ("_connection", "group", "number", "subject", "take")

    def __init__(self, connection: Connection, subject: str, group: str, take: Take) -> None:
        self._connection, self.subject, self.group, self.take = connection, subject, group, take
        self.number = 0  # of the present client

    async def close(self) -> None:
        """Take no more messages; those that the server has sent before it knew are taken first."""
        await self._connection.leave(self)


class Connection:
    """See the module. Made by `Connection.open`; only for the loop that opened it."""

    def __init__(self, settings: NatsSettings, name: str, told: Callable[[Notice], None] | None) -> None:
        self.settings = settings
        self.name = name
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._inbox = f"{settings.inbox_prefix}.{NUID().next().decode()}.".encode()
        self._asked: dict[int, Asked] = {}
        self._takers: dict[int, Take] = {}
        self._count = 0
        self._deadlines = Deadlines(self._loop)
        self._subscriptions: dict[Subscription, None] = {}
        self._client: DirectClient
        self._refused: asyncio.Future[str] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        self._tls: Any = None
        self.closed = False

    @classmethod
    async def open(
        cls, settings: NatsSettings, *, name: str = "jido", told: Callable[[Notice], None] | None = None, timeout_s: float = 10.0
    ) -> Connection:
        """Connect. `StoreUnavailable` if no server takes us in time, `InvalidConfig` if one does that is too old for us."""
        self = cls(settings, name, told)
        self._tls = await asyncio.to_thread(settings.tls)
        self._client = await self._connect(timeout_s)
        try:
            self._check_server()
        except InvalidConfig:
            await self._drop(self._client)
            raise
        await self.subscribe(self._inbox.decode() + "*", self._take_answer)
        self._watch = self._loop.create_task(self._look_after(), name=f"watchdog of the NATS connection {name}")
        return self

    # -- what it is ------------------------------------------------------------------------------------------------

    @property
    def max_payload_bytes(self) -> int:
        """What the server takes in one message, headers and all; the last server that we were connected to."""
        return self._client._max_payload

    @property
    def is_up(self) -> bool:
        """Whether a message would go out now."""
        return not self.closed and self._client.is_connected

    @property
    def server(self) -> dict[str, Any]:
        """What the server that we are, or were last, connected to says of itself: `server_name`, `version`, `cluster`, `jetstream`."""
        return dict(self._client._server_info)

    async def wait_up(self) -> None:
        """Until a message would go out; `NodeUnreachable` if the connection is closed meanwhile."""
        while not self.is_up:
            self._check_open()
            self._up.clear()
            await self._up.wait()

    # -- messages --------------------------------------------------------------------------------------------------

    def publish(self, subject: str, payload: bytes = b"", *, headers: bytes = b"", reply: bytes = b"") -> None:
        """Send. `NodeUnreachable` or `TooLarge`: nothing was sent. What is sent may be lost."""
        client = self._client
        if not client.is_connected or self.closed:
            raise NodeUnreachable(f"there is no connection to NATS{' any more' if self.closed else ''}; nothing was sent", subject=subject)
        size_bytes = len(headers) + len(payload)
        if size_bytes > client._max_payload:
            raise TooLarge(
                f"{size_bytes} bytes to {subject!r} are over the {client._max_payload} that the NATS server takes; nothing was sent",
                limit=client._max_payload,
            )
        if client._pending_data_size > self.settings.max_pending_bytes:
            raise NodeUnreachable("more is waiting to be sent than `max_pending_bytes` allows; nothing was sent", subject=subject)
        client.put(publication(subject.encode(), reply, headers, payload))

    def hurry(self) -> None:
        """What was sent leaves now, not with the next step of the loop."""
        self._client.hurry()

    def ask(self, subject: str, payload: bytes = b"", *, headers: bytes = b"", timeout_s: float) -> asyncio.Future[Message]:
        """Send a request; its answer comes as a future that is `NodeUnreachable` if nobody serves the subject, `WireTimeout` if no answer comes,
        `OutcomeUnknown` if the connection is closed. Raises as `publish` does."""
        if len(self._asked) >= self.settings.max_requests:
            raise NodeUnreachable(f"{len(self._asked)} requests wait for an answer (`max_requests`); nothing was sent", subject=subject)
        self._count = number = self._count + 1
        self.publish(subject, payload, headers=headers, reply=b"%b%d" % (self._inbox, number))
        asked = self._asked[number] = Asked(self, number, subject, self._loop.create_future())
        self._deadlines.add(self._loop.time() + timeout_s, asked)
        return asked.answer

    async def request(self, subject: str, payload: bytes = b"", *, headers: bytes = b"", timeout_s: float) -> Message:
        """`ask`, and wait."""
        return await self.ask(subject, payload, headers=headers, timeout_s=timeout_s)

    def listen(self, take: Take) -> tuple[int, bytes]:
        """An inbox for any number of answers, and its number; until `deafen`."""
        self._count = number = self._count + 1
        self._takers[number] = take
        return number, b"%b%d" % (self._inbox, number)

    def deafen(self, number: int) -> None:
        """Close an inbox."""
        self._takers.pop(number, None)

    async def subscribe(self, subject: str, take: Take, *, group: str = "") -> Subscription:
        """Have `take` called with each message to a subject, in the step that reads it: it must not block, wait or raise. When this returns
        the server knows of it, or will before it hears anything else from us."""
        self._check_open()
        subscription = Subscription(self, subject, group, take)
        self._subscriptions[subscription] = None
        await self._subscribe(self._client, subscription)
        return subscription

    async def leave(self, subscription: Subscription) -> None:
        """What `Subscription.close` does."""
        if subscription in self._subscriptions and not self.closed:
            del self._subscriptions[subscription]
            await self._client.leave(subscription.number, CLOSE_S)

    async def round_trip(self, timeout_s: float) -> None:
        """Until the server has taken all that was sent before; `NodeUnreachable` if it doesn't say so in time."""
        if not self.is_up or not await self._client.round_trip(timeout_s):
            raise NodeUnreachable(f"the NATS server didn't answer within {timeout_s:g} s")

    def forget(self, asked: Asked) -> None:
        """A request isn't waited for any more."""
        if self._asked.pop(asked.number, None) is not None:
            self._deadlines.discard(asked)

    def tell(self, kind: str, text: str) -> None:
        """Pass a notice on; whoever is told can't harm us."""
        if self._told is None:
            return
        try:
            self._told(Notice(kind, text))
        except Exception as error:  # a callback of the client must never raise: it would stop reconnecting
            self._loop.call_exception_handler({"message": f"nobody took the notice of {self.name}: {text}", "exception": error})

    async def close(self) -> None:
        """Close; requests under way fail with `OutcomeUnknown`."""
        if self.closed:
            return
        self.closed = True
        self._up.set()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait({self._watch})
        for asked in list(self._asked.values()):
            self.forget(asked)
            if not asked.answer.done():
                asked.answer.set_exception(OutcomeUnknown("the connection was closed while a request was under way"))
        self._takers.clear()
        self._deadlines.clear()
        if self._client.is_connected:
            await self._client.round_trip(CLOSE_S)  # what was sent goes out
        await self._drop(self._client)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self.closed:
            raise NodeUnreachable("the connection is closed; nothing was sent")

    def _take_answer(self, subject: bytes, reply: bytes, data: bytes, headers: Headers) -> None:
        number = int(subject[len(self._inbox) :])
        asked = self._asked.pop(number, None)
        if asked is None:
            take = self._takers.get(number)
            if take is not None:
                take(subject, reply, data, headers)
            return  # an answer that came too late, or twice
        self._deadlines.discard(asked)
        if asked.answer.done():
            return
        if headers is not None and not data and headers.get("Status") == NO_RESPONDERS:
            asked.answer.set_exception(NodeUnreachable(f"nobody serves {asked.subject!r}; nothing was done", subject=asked.subject))
        else:
            asked.answer.set_result(Message(data, headers))

    async def _subscribe(self, client: DirectClient, subscription: Subscription) -> None:
        with contextlib.suppress(nats_errors.ConnectionClosedError):  # it is subscribed when the client has been replaced
            subscription.number = await client.take(subscription.subject, subscription.group, subscription.take)

    def _check_server(self) -> None:
        info = self.server
        version = str(info.get("version", ""))
        numbers = tuple(int(part) for part in version.split("-", maxsplit=1)[0].split(".")[:2] if part.isdigit())
        where = f"the NATS server {info.get('server_name', '')!r}"
        if numbers < LEAST_VERSION:
            raise InvalidConfig(f"{where} is version {version or 'unknown'}", path="servers", value=version, allowed="2.12 or later")
        if not info.get("jetstream"):
            raise InvalidConfig(f"{where} runs without JetStream", path="servers", value=False, allowed="a server with JetStream")

    async def _connect(self, timeout_s: float) -> DirectClient:
        client = DirectClient()
        self._refused = self._loop.create_future()
        connecting = asyncio.ensure_future(client.connect(**self._options()))
        try:
            waiting: set[asyncio.Future[Any]] = {connecting, self._refused}
            await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if connecting.done():
                connecting.result()
                return client
        except (nats_errors.Error, OSError, ValueError, ImportError) as error:
            await self._drop(client)
            raise StoreUnavailable(f"can't connect to NATS at {self._where()}: {error}") from error
        finally:
            refused, self._refused = self._refused, None
            if not connecting.done():
                connecting.cancel()
                await asyncio.wait({connecting})
        why = f": {refused.result()}" if refused.done() else f" within {timeout_s:g} s ({client.last_error or 'no answer'})"
        await self._drop(client)
        raise StoreUnavailable(f"no NATS server at {self._where()} takes us{why}")

    def _where(self) -> str:
        return ", ".join(server.rpartition("@")[2] for server in self.settings.servers)

    def _options(self) -> dict[str, Any]:
        s = self.settings
        return {
            "servers": list(s.servers), "name": self.name, "allow_reconnect": True, "connect_timeout": s.connect_timeout_s,
            "reconnect_time_wait": s.reconnect_wait_s, "max_reconnect_attempts": -1, "ping_interval": s.ping_interval_s,
            "max_outstanding_pings": s.max_outstanding_pings, "user": s.user or None, "password": s.password or None, "token": s.token or None,
            "user_credentials": s.credentials_path or None, "tls": self._tls, "inbox_prefix": s.inbox_prefix,
            "pending_size": 0,  # nothing is buffered while there is no connection: it would be sent later, whatever we told its sender
            "skip_subject_validation": True, "error_cb": self._on_error, "disconnected_cb": self._on_disconnected,
            "reconnected_cb": self._on_reconnected, "lame_duck_mode_cb": self._on_lame_duck,
        }  # fmt: skip

    async def _drop(self, client: DirectClient) -> None:
        """Be done with a client, whatever state it is in."""
        client._disconnected_cb = client._closed_cb = None
        client.forget_pending()
        client.abort()
        with contextlib.suppress(Exception):  # it is being thrown away: how it complains of that is nobody's concern
            await asyncio.wait_for(client.close(), CLOSE_S)

    async def _look_after(self) -> None:
        missed = 0
        while True:
            await asyncio.sleep(LOOK_S)
            client = self._client
            if client.is_connected and not client.is_stuck:
                missed = 0 if await self._answers(client) else missed + 1
            if client.is_closed or client.is_stuck or missed >= MISSED_LOOKS:
                missed = 0
                await self._replace(client)

    async def _answers(self, client: DirectClient) -> bool:
        with contextlib.suppress(OSError, AttributeError, RuntimeError, nats_errors.Error):  # its socket goes away at this moment
            return await client.round_trip(LOOK_S)
        return False

    async def _replace(self, old: DirectClient) -> None:
        why = old.last_error or "it doesn't answer"
        await self._drop(old)
        try:
            client = await self._connect(self.settings.connect_timeout_s * 2)
            for subscription in list(self._subscriptions):
                await self._subscribe(client, subscription)
        except (StoreUnavailable, nats_errors.Error, OSError) as error:
            self.tell("error", f"the client of {self.name} is dead ({why}) and can't be replaced yet: {error}")
            return  # the next look tries again
        self._client = client
        self.tell("replaced", f"the client of {self.name} was dead ({why}) and was replaced")
        self._up.set()

    async def _on_error(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        lowered = text.lower()
        if self._refused is not None and not self._refused.done() and "authorization violation" in lowered:
            self._refused.set_result("it refuses our credentials")
        self.tell("slow-consumer" if "slow consumer" in lowered else "error", f"{self.name}: {text}")

    async def _on_disconnected(self) -> None:
        self._client.forget_pending()
        if not self.closed:
            self.tell("disconnected", f"{self.name} lost its NATS server")

    async def _on_reconnected(self) -> None:
        self._up.set()
        self.tell("reconnected", f"{self.name} is connected to {self.server.get('server_name', 'a NATS server')} again")
        try:
            self._check_server()
        except InvalidConfig as error:
            self.tell("error", f"{self.name}: {error}")

    async def _on_lame_duck(self) -> None:
        self.tell("lame-duck", f"{self.name}: the server {self.server.get('server_name', '')} is going to stop")
