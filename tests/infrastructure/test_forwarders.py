from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from jidosystem.core.errors import ForwardFailed, ForwardUnavailable, InvalidArguments, InvalidPattern, RefusedError, StoreUnavailable, Undeliverable
from jidosystem.core.events import Event
from jidosystem.infrastructure.forwarders import LogFileForwarder, WebhookForwarder
from tests.core.bench import Bench, until


class Request(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body)


Answer = Callable[[Request], bytes | None]


def answer(status: int, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"HTTP/1.1 {status} x", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Server:
    """A real HTTP server on loopback. `answers`: what each request gets; None hangs, b"" breaks off; the last one stays."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answers: list[Answer] = [lambda _request: answer(204)]
        self.connections = 0
        self._server: asyncio.Server | None = None
        self.port = 0
        self._open: set[asyncio.StreamWriter] = set()

    def says(self, *answers: bytes | None) -> None:
        self.answers = [lambda _request, one=one: one for one in answers]  # type: ignore[misc]

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in tuple(self._open):
                writer.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
                request = Request(head[0].split()[1], headers, await reader.readexactly(int(headers["content-length"])))
                self.requests.append(request)
                chosen = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                said = chosen(request)
                if said is None:
                    await asyncio.Event().wait()
                if not said:
                    return
                writer.write(said)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            self._open.discard(writer)
            writer.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    running = Server()
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        bench = Bench(stack)
        stack.push_async_callback(bench.records.close)
        stack.push_async_callback(bench.bus.close, 0.01)
        yield bench


def event(number: int = 1, data: Any = None, **rest: Any) -> Event:
    return Event(f"e-{number}", "orders.placed", "Shop/1", "1", 0.0, data, "Shop/1", position=number, **rest)


async def forwarded(forwarder: WebhookForwarder, *events: Event) -> None:
    try:
        await forwarder.forward(events)
    finally:
        await forwarder.close()


# -- webhooks: what is sent ----------------------------------------------------------------------------------------


async def test_an_event_is_posted_as_cloudevents_json(server: Server) -> None:
    forwarder = WebhookForwarder(server.url, headers={"Authorization": "Bearer x"})
    await forwarded(forwarder, event(7, {"n": 1, "bytes": b"ab"}, correlation_id="c", causation_id="k"))
    [request] = server.requests
    assert request.path == "/hook"
    assert request.headers["content-type"] == "application/cloudevents+json"
    assert request.headers["authorization"] == "Bearer x"
    assert request.data == {
        "specversion": "1.0", "id": "e-7", "type": "orders.placed", "source": "Shop/1", "subject": "1", "time": "1970-01-01T00:00:00Z",
        "datacontenttype": "application/json", "data": {"n": 1, "bytes": "YWI="}, "stream": "Shop/1", "position": 7, "correlationid": "c",
        "causationid": "k",
    }  # fmt: skip


def verified(request: Request, key: bytes, which: int = 0) -> bool:
    """As a receiver does it by the text of Standard Webhooks, written without the forwarder's help."""
    signed = b".".join([request.headers["webhook-id"].encode(), request.headers["webhook-timestamp"].encode(), request.body])
    version, _, signature = request.headers["webhook-signature"].split(" ")[which].partition(",")
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return version == "v1" and hmac.compare_digest(signature, expected)


async def test_requests_are_signed_and_a_changed_byte_shows(server: Server) -> None:
    secret = "whsec_" + base64.b64encode(b"k" * 32).decode()
    await forwarded(WebhookForwarder(server.url, secret=secret), event(1, {"n": 1}))
    [request] = server.requests
    assert request.headers["webhook-id"] == "e-1"
    assert verified(request, b"k" * 32)
    assert not verified(request._replace(body=request.body + b" "), b"k" * 32)
    assert not verified(request, b"other")


async def test_while_a_secret_is_replaced_both_sign(server: Server) -> None:
    await forwarded(WebhookForwarder(server.url, secret=["new", "old"]), event())
    [request] = server.requests
    assert verified(request, b"new", 0)
    assert verified(request, b"old", 1)


async def test_without_a_secret_nothing_is_signed(server: Server) -> None:
    await forwarded(WebhookForwarder(server.url), event())
    assert "webhook-signature" not in server.requests[0].headers


async def test_events_go_one_by_one_in_order_over_one_connection(server: Server) -> None:
    await forwarded(WebhookForwarder(server.url), *(event(number) for number in range(20)))
    assert [request.data["position"] for request in server.requests] == list(range(20))
    assert server.connections == 1


async def test_a_batch_is_one_request(server: Server) -> None:
    forwarder = WebhookForwarder(server.url, batch=True, secret="k")
    events = [event(number) for number in range(5)]
    await forwarder.forward(events)
    await forwarder.forward(events)
    await forwarded(forwarder, event(9))
    first, again, single = server.requests
    assert first.headers["content-type"] == "application/cloudevents-batch+json"
    assert [one["id"] for one in first.data] == [f"e-{number}" for number in range(5)]
    assert first.headers["webhook-id"] == again.headers["webhook-id"]
    assert verified(first, b"k")
    assert single.headers["content-type"] == "application/cloudevents+json"


@pytest.mark.parametrize("data", [float("nan"), float("inf"), {1: 2}, "\u0000\u2028", datetime(2026, 1, 1, tzinfo=UTC)])
async def test_whatever_an_event_holds_is_json_that_others_can_read(server: Server, data: Any) -> None:
    await forwarded(WebhookForwarder(server.url), event(1, data))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    json.loads(server.requests[0].body, parse_constant=refuse)


async def test_what_cant_be_json_can_never_be_delivered(server: Server) -> None:
    with pytest.raises(Undeliverable, match="e-1"):
        await forwarded(WebhookForwarder(server.url), event(1, {(1, 2): 3}))
    assert server.requests == []


# -- webhooks: what is answered ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (200, None), (202, None), (204, None), (301, Undeliverable), (400, Undeliverable), (401, Undeliverable), (404, Undeliverable),
        (410, Undeliverable), (422, Undeliverable), (408, ForwardUnavailable), (425, ForwardUnavailable), (429, ForwardUnavailable),
        (500, ForwardFailed), (501, ForwardFailed), (502, ForwardUnavailable), (503, ForwardUnavailable), (504, ForwardUnavailable),
    ],
)  # fmt: skip
async def test_an_answer_decides_what_becomes_of_the_event(server: Server, status: int, error: type[Exception] | None) -> None:
    server.says(answer(status, "location: /elsewhere"))
    if error is None:
        await forwarded(WebhookForwarder(server.url), event())
    else:
        with pytest.raises(error, match=f"answered {status} to event e-1") as failed:
            await forwarded(WebhookForwarder(server.url), event())
        assert failed.type is error
    assert len(server.requests) == 1


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("soon", 0.0), ("-3", 0.0), (None, 0.0), ("date", 30.0)])
async def test_the_other_sides_word_for_when_is_passed_on(server: Server, header: str | None, seconds: float) -> None:
    if header == "date":
        header = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    server.says(answer(503, *([f"retry-after: {header}"] if header else [])))
    with pytest.raises(ForwardUnavailable) as failed:
        await forwarded(WebhookForwarder(server.url), event())
    assert failed.value.retry_after_s == pytest.approx(seconds, abs=3.0)


async def test_a_server_that_is_away_is_a_passing_trouble(server: Server) -> None:
    await server.stop()
    with pytest.raises(RefusedError, match="can't be reached"):
        await forwarded(WebhookForwarder(server.url), event())


async def test_a_server_that_hangs_is_given_up_after_the_timeout(server: Server) -> None:
    server.says(None)
    with pytest.raises(ForwardFailed, match=r"within 0\.05 s"):
        await forwarded(WebhookForwarder(server.url, timeout=0.05), event())


async def test_a_server_that_trickles_is_given_up_too(server: Server) -> None:
    server.says(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nx")
    with pytest.raises(ForwardFailed, match="within"):
        await forwarded(WebhookForwarder(server.url, timeout=0.05), event())


@pytest.mark.parametrize("said", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-le", b"\x00" * 100 + b"\r\n\r\n"])
async def test_a_server_that_breaks_off_or_talks_nonsense_is_a_failure(server: Server, said: bytes) -> None:
    server.answers = [lambda _request: said]
    forwarder = WebhookForwarder(server.url, timeout=0.2)
    with pytest.raises(ForwardFailed):
        await forwarded(forwarder, event())


async def test_an_endless_answer_isnt_kept(server: Server) -> None:
    server.says(answer(200, body=b"x" * 1_000_000))
    await forwarded(WebhookForwarder(server.url), event(1), event(2))
    assert len(server.requests) == 2


async def test_what_was_taken_before_a_failure_isnt_sent_again(server: Server) -> None:
    server.says(answer(204), answer(204), answer(500), answer(204))
    forwarder = WebhookForwarder(server.url)
    events = [event(number) for number in range(4)]
    with pytest.raises(ForwardFailed):
        await forwarder.forward(events)
    for one in events:  # as a subscription does it, to find the culprit
        await forwarder.forward([one])
    await forwarded(forwarder, event(0))  # but redriven it is
    assert [request.data["position"] for request in server.requests] == [0, 1, 2, 2, 3, 0]


async def test_no_message_shows_a_secret_of_the_url(server: Server) -> None:
    server.says(answer(500))
    with pytest.raises(ForwardFailed) as failed:
        await forwarded(WebhookForwarder(f"http://user:pass@127.0.0.1:{server.port}/hook?token=hidden"), event())
    assert "hidden" not in str(failed.value)
    assert "pass" not in str(failed.value)
    assert f"http://127.0.0.1:{server.port}/hook" in str(failed.value)


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "x", "http://a b", "http://x:y", "http://[", "http://x\r\nevil: 1", 3])
def test_what_is_no_url_is_refused(url: Any) -> None:
    with pytest.raises(InvalidArguments) as refused:
        WebhookForwarder(url)
    assert refused.value.path == "$.url"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("timeout", 0), ("timeout", -1), ("timeout", float("nan")), ("timeout", True), ("timeout", "1"), ("secret", ""), ("secret", "whsec_"),
        ("secret", "whsec_!"), ("headers", {"a b": "c"}), ("headers", {"a": "b\r\nc: d"}), ("headers", {"Webhook-Id": "x"}), ("headers", {"a": 1}),
    ],
)  # fmt: skip
def test_options_that_cant_be_are_refused(option: str, value: Any) -> None:
    with pytest.raises(InvalidArguments) as refused:
        WebhookForwarder("http://x", **{option: value})
    assert refused.value.path == f"$.{option}"


def test_a_pattern_that_cant_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidPattern):
        WebhookForwarder("http://x", pattern="a..b")
    with pytest.raises(InvalidPattern):
        LogFileForwarder(tmp_path / "x", pattern="a..b")


def test_without_the_extra_the_error_says_what_to_install() -> None:
    program = """
import sys
sys.modules["httpx2"] = None
from jidosystem.infrastructure.forwarders import WebhookForwarder
try:
    WebhookForwarder("http://x")
except Exception as error:
    print(type(error).__name__, error)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("UsageError")
    assert "pip install 'jidosystem[server]'" in ran.stdout


def test_httpx_is_loaded_by_the_first_event_only() -> None:
    program = """
import sys
from jidosystem.infrastructure.forwarders import WebhookForwarder
WebhookForwarder("http://x")
print("httpx2" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "False"


# -- on the bus ----------------------------------------------------------------------------------------------------


async def test_events_reach_the_other_side_through_outages_and_the_position_is_kept(server: Server, bench: Bench) -> None:
    subscription = await bench.bus.forward(WebhookForwarder(server.url, pattern="a.*", name="hook"))
    server.says(answer(503), answer(429), answer(500), answer(204))
    await bench.bus.publish("b.b", "not this")
    for number in range(3):
        await bench.bus.publish("a.b", number)
    await until(lambda: len(server.requests) == 6)
    await subscription.close()
    await bench.bus.publish("a.b", 3)
    await bench.bus.forward(WebhookForwarder(server.url, pattern="a.*", name="hook"))
    await until(lambda: len(server.requests) == 7)
    assert [request.data["data"] for request in server.requests[-4:]] == [0, 1, 2, 3]
    assert len({request.headers["webhook-id"] for request in server.requests}) == 4
    assert await bench.letters.list() == []


async def test_a_refused_event_is_a_dead_letter_at_once_and_the_others_go_on(server: Server, bench: Bench) -> None:
    server.answers = [lambda request: answer(410 if request.data["data"] == 1 else 204)]
    await bench.bus.forward(WebhookForwarder(server.url, name="hook"))
    await asyncio.gather(*(bench.bus.publish("a", number) for number in range(4)))
    await bench.until_letters(1)
    await until(lambda: server.requests[-1].data["data"] == 3)
    [letter] = await bench.letters.list("event", name="forward/hook")
    assert letter.attempts == 1
    assert letter.event is not None
    assert letter.event.data == 1
    server.says(answer(204))
    await bench.letters.redrive(letter.id)
    assert server.requests[-1].data["data"] == 1
    assert server.requests[-1].data["metadata"] == {"redrive_id": letter.id}


async def test_one_name_is_one_forwarder(server: Server, bench: Bench) -> None:
    await bench.bus.forward(WebhookForwarder(server.url, name="hook"))
    with pytest.raises(InvalidArguments, match="already"):
        await bench.bus.forward(WebhookForwarder(server.url, name="hook"))


async def test_closing_the_bus_closes_connections(server: Server, bench: Bench) -> None:
    forwarder = WebhookForwarder(server.url)
    await bench.bus.forward(forwarder)
    await bench.bus.publish("a")
    await until(lambda: len(server.requests) == 1)
    await bench.bus.close()
    await until(lambda: not server._open)


async def test_a_forwarder_of_ones_own_needs_a_name_a_pattern_and_forward(bench: Bench) -> None:
    class Mine:
        name = "mine"
        pattern = "a.*"

        def __init__(self) -> None:
            self.got: list[Any] = []

        async def forward(self, events: Sequence[Event]) -> None:
            self.got += [one.data for one in events]

    mine = Mine()
    subscription = await bench.bus.forward(mine)
    await bench.bus.publish("a.b", 1)
    await until(lambda: mine.got == [1])
    assert subscription.name == "forward/mine"


# -- log files -----------------------------------------------------------------------------------------------------


def lines(path: Path) -> list[Any]:
    return [json.loads(line)["position"] for line in path.read_text().splitlines()]


async def test_events_are_lines_of_json(tmp_path: Path) -> None:
    forwarder = LogFileForwarder(tmp_path / "events.log")
    await forwarder.forward([event(1, {"n": 1}), event(2)])
    await forwarder.forward([event(3)])
    assert lines(forwarder.path) == [1, 2, 3]
    assert json.loads(forwarder.path.read_text().splitlines()[0])["data"] == {"n": 1}


async def test_the_file_is_turned_over_before_it_grows_too_large_and_few_old_ones_stay(tmp_path: Path) -> None:
    size = len(json.dumps(event(1).to_cloudevent(), separators=(",", ":"))) + 1
    forwarder = LogFileForwarder(tmp_path / "events.log", max_bytes=3 * size, keep=2)
    for number in range(1, 10):
        await forwarder.forward([event(number)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.log", "events.log.1", "events.log.2"]
    assert [lines(tmp_path / name) for name in ("events.log.2", "events.log.1", "events.log")] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    await forwarder.forward([event(number) for number in range(1, 8)])
    assert [lines(tmp_path / name) for name in ("events.log.2", "events.log.1", "events.log")] == [[1, 2, 3], [4, 5, 6], [7]]
    assert all(path.stat().st_size <= 3 * size for path in tmp_path.iterdir())


async def test_with_no_old_ones_kept_the_file_begins_anew(tmp_path: Path) -> None:
    forwarder = LogFileForwarder(tmp_path / "events.log", max_bytes=1, keep=0)
    await forwarder.forward([event(1), event(2)])
    assert lines(forwarder.path) == [2]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("torn", [b'{"half', b"x" * 200_000, b"\x00" * 5])
@pytest.mark.parametrize("before", [b"", b'{"position":0}\n'])
async def test_a_line_that_a_crash_left_unfinished_is_removed(tmp_path: Path, before: bytes, torn: bytes) -> None:
    path = tmp_path / "events.log"
    path.write_bytes(before + torn)
    await LogFileForwarder(path).forward([event(1)])
    assert lines(path) == ([0, 1] if before else [1])


async def test_a_disk_that_doesnt_take_it_is_a_passing_trouble(tmp_path: Path, bench: Bench) -> None:
    forwarder = LogFileForwarder(tmp_path / "missing" / "events.log", name="file")
    with pytest.raises(StoreUnavailable, match=r"events\.log"):
        await forwarder.forward([event(1)])
    await bench.bus.forward(forwarder)
    await bench.bus.publish("a", 1)
    await asyncio.sleep(0.05)
    (tmp_path / "missing").mkdir()
    await until(forwarder.path.exists)
    assert lines(forwarder.path) == [1]


async def test_a_file_that_is_a_directory_is_refused_while_it_is_one(tmp_path: Path) -> None:
    (tmp_path / "events.log").mkdir()
    with pytest.raises(StoreUnavailable):
        await LogFileForwarder(tmp_path / "events.log").forward([event(1)])


@pytest.mark.parametrize(("option", "value"), [("max_bytes", 0), ("max_bytes", 1.5), ("keep", -1), ("keep", True)])
def test_limits_that_cant_be_are_refused(tmp_path: Path, option: str, value: Any) -> None:
    with pytest.raises(InvalidArguments) as refused:
        LogFileForwarder(tmp_path / "x", **{option: value})
    assert refused.value.path == f"$.{option}"
