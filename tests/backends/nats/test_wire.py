"""The wire on NATS keeps the contract, between nodes, within its limits, and whatever its subjects are called."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jidosystem.backends.nats.answering import HEAD_BYTES, MAX_KEPT_BYTES, MAX_TOGETHER, Asking, Verdict, answers_of, asking_of, cut
from jidosystem.backends.nats.connection import Notice
from jidosystem.backends.nats.gathering import AGAIN_S
from jidosystem.backends.nats.server import NatsCluster
from jidosystem.backends.nats.settings import NatsSettings
from jidosystem.backends.nats.subjects import MAX_TOKEN_CHARS, text_of, token
from jidosystem.backends.nats.wire import NatsWire
from jidosystem.core.codec import encode
from jidosystem.core.errors import NodeUnreachable, OutcomeUnknown, TooLarge, WireTimeout
from jidosystem.testing.conformance import WireConformance
from jidosystem.testing.conformance.wire import echo


class TestNatsWire(WireConformance):
    @pytest.fixture(autouse=True)
    def _where(self, settings: NatsSettings) -> None:
        self.settings = settings

    @asynccontextmanager
    async def open(self):
        wire = await NatsWire.open(self.settings)
        yield wire
        await wire.close()


@asynccontextmanager
async def two(settings: NatsSettings, **options):
    one, other = await NatsWire.open(settings, **options), await NatsWire.open(settings)
    yield one, other
    await one.close()
    await other.close()


async def test_two_nodes_reach_each_other(settings: NatsSettings) -> None:
    async with two(settings) as (one, other):
        await one.serve("here", echo)
        assert await other.request("here", b"hello", timeout_s=5) == b"hello"


async def test_clusters_of_other_names_never_meet(one_server: NatsCluster, settings: NatsSettings) -> None:
    async with two(settings) as (one, _):
        await one.serve("here", echo)
        stranger = await NatsWire.open(one_server.settings("stranger"))
        with pytest.raises(NodeUnreachable):
            await stranger.request("here", b"", timeout_s=5)
        await stranger.close()


async def test_a_request_reaches_one_server_of_all_groups(settings: NatsSettings) -> None:
    async with two(settings) as (one, other):
        got: list[bytes] = []

        async def note(payload: bytes) -> bytes:
            got.append(payload)
            return b""

        await one.serve("work", note, group="a")
        await one.serve("work", note, group="b")
        await asyncio.gather(*(other.request("work", b"%d" % i, timeout_s=5) for i in range(50)))
        await other.request("work", b"last", timeout_s=5)
        assert sorted(got) == sorted([*(b"%d" % i for i in range(50)), b"last"])


@pytest.mark.parametrize("subject", ["", ".", "a..b", "a b", "*", ">", "r.>", "ключ", "\r\n", "x" * 3_000, "=2E"])
async def test_any_subject_will_do(settings: NatsSettings, subject: str) -> None:
    async with two(settings) as (one, other):
        await one.serve(subject, echo, group=subject)
        assert await other.request(subject, b"1", timeout_s=5) == b"1"
        with pytest.raises(NodeUnreachable):
            await other.request(subject + "x", b"1", timeout_s=5)


@given(st.text(alphabet=st.characters(codec=None)), st.text(alphabet=st.characters(codec=None)))
def test_texts_and_tokens_are_one_to_one(text: str, other: str) -> None:
    assert set(token(text)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-=~")
    assert 0 < len(token(text)) <= MAX_TOKEN_CHARS
    assert (token(text) == token(other)) == (text == other)
    assert text_of(token(text)) in (text, None)


async def test_what_is_served_at_once_is_limited_and_one_too_many_is_told(settings: NatsSettings) -> None:
    notices: list[Notice] = []
    async with two(settings, max_serving=2, told=notices.append) as (one, other):
        go = asyncio.Event()

        async def slow(_payload: bytes) -> bytes:
            await go.wait()
            return b"done"

        await one.serve("slow", slow)
        first = [asyncio.ensure_future(other.request("slow", b"", timeout_s=10)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(NodeUnreachable, match="full"):
            await other.request("slow", b"", timeout_s=10)
        await other.send("slow", b"")
        await other._connection.round_trip(5)
        await one._connection.round_trip(5)
        assert [notice.kind for notice in notices] == ["slow-consumer", "slow-consumer"]
        go.set()
        assert await asyncio.gather(*first) == [b"done", b"done"]
        assert await other.request("slow", b"", timeout_s=10) == b"done"
        assert one.serving == 0


async def test_an_answer_that_is_too_large_is_an_unknown_outcome_at_once(settings: NatsSettings) -> None:
    async with two(settings) as (one, other):

        async def large(_payload: bytes) -> bytes:
            return bytes(one.max_payload_bytes + 1)

        await one.serve("large", large)
        with pytest.raises(OutcomeUnknown, match="larger"):
            await asyncio.wait_for(other.request("large", b"", timeout_s=60), 5)
        with pytest.raises(TooLarge):
            await other.send("large", bytes(other.max_payload_bytes + 1))


async def test_what_the_server_had_sent_before_a_handler_left_is_answered(settings: NatsSettings) -> None:
    async with two(settings) as (one, other):
        answered = 0
        served = await one.serve("here", echo)

        async def ask() -> None:
            nonlocal answered
            while True:
                try:
                    await other.request("here", b"x", timeout_s=5)
                except NodeUnreachable:
                    return
                answered += 1

        asking = [asyncio.ensure_future(ask()) for _ in range(16)]
        await asyncio.sleep(0.05)
        await served.close()
        await asyncio.gather(*asking)  # a request that was dropped would raise WireTimeout
        assert answered > 16


async def test_it_serves_again_after_its_server_was_killed(three_servers: NatsCluster, settings_of_three: NatsSettings) -> None:
    async with two(settings_of_three) as (one, other):
        await one.serve("here", echo)
        name = one._connection.server["server_name"]
        next(server for server in three_servers.servers if server.peer.name == name).kill()
        async with asyncio.timeout(20):
            while True:
                try:
                    assert await other.request("here", b"again", timeout_s=0.5) == b"again"
                except (NodeUnreachable, WireTimeout):
                    await asyncio.sleep(0.05)
                else:
                    break


async def test_cut_off_it_says_at_once_that_nothing_was_sent(settings: NatsSettings) -> None:
    async with two(settings) as (one, _):
        await one.close()
        for attempt in (one.request("x", b"", timeout_s=60), one.send("x", b"")):
            with pytest.raises(NodeUnreachable):
                await asyncio.wait_for(attempt, 5)


async def test_requests_that_go_together_keep_to_the_limits(settings: NatsSettings, caplog: pytest.LogCaptureFixture) -> None:
    async with two(settings, max_serving=3) as (one, other):
        go = asyncio.Event()

        async def slow(_payload: bytes) -> bytes:
            await go.wait()
            return b"done"

        await one.serve("slow", slow)
        asked = [asyncio.ensure_future(other.request("slow", b"", timeout_s=10, together=True)) for _ in range(2 * MAX_TOGETHER)]
        full, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_EXCEPTION)
        while len(full) < len(asked) - 3:
            await asyncio.sleep(0.01)
            full = {one for one in asked if one.done()}
        assert all("full" in str(one.exception()) for one in full)
        go.set()
        assert [await one for one in asked if one not in full] == [b"done"] * 3
        assert one.serving == 0
        assert other._gathering.waiting == 0
        assert not other._gathering.groups
        assert not caplog.records


async def test_nothing_is_kept_for_who_gave_up(settings: NatsSettings) -> None:
    async with two(settings) as (one, other):
        served = asyncio.Event()

        async def never(_payload: bytes) -> bytes:
            served.set()
            await asyncio.Event().wait()
            return b""

        await one.serve("never", never)
        asked = [asyncio.ensure_future(other.request("never", b"", timeout_s=3600, together=True)) for _ in range(2 * MAX_TOGETHER)]
        await served.wait()
        for request in asked:
            request.cancel()
        await asyncio.wait(asked)
        assert other._gathering.waiting == 0
        assert not other._gathering.groups


async def test_requests_and_answers_of_any_size_go_together(settings: NatsSettings) -> None:
    async with two(settings) as (one, other):
        most = other.max_payload_bytes
        sizes = [most, 1, most // 2, most // 2, most // 3, 0, most - 1, 7, most]
        await one.serve("here", echo)
        answers = await asyncio.gather(*(other.request("here", bytes(size), timeout_s=20, together=True) for size in sizes))
        assert [len(answer) for answer in answers] == sizes

        async def large(payload: bytes) -> bytes:
            return bytes(one.max_payload_bytes + 1) if payload else b"small"

        await one.serve("large", large)
        too_large, small = (other.request("large", payload, timeout_s=60, together=True) for payload in (b"1", b""))
        told = await asyncio.gather(too_large, small, return_exceptions=True)
        assert isinstance(told[0], OutcomeUnknown)
        assert told[1] == b"small"
        with pytest.raises(TooLarge):
            await other.request("here", bytes(most + 1), timeout_s=5, together=True)


async def test_requests_that_go_together_over_a_closed_wire_were_never_sent(settings: NatsSettings) -> None:
    async with two(settings) as (one, other):
        await one.serve("here", echo)
        await other.close()
        with pytest.raises(NodeUnreachable):
            await asyncio.wait_for(other.request("here", b"", timeout_s=60, together=True), 5)


# -- what is sent again --------------------------------------------------------------------------------------------


class Counting:
    """Answers with what was asked, after a while, and knows what came."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.came: list[bytes] = []
        self._delay_s = delay_s

    async def __call__(self, payload: bytes) -> bytes:
        self.came.append(payload)
        await asyncio.sleep(self._delay_s)
        return payload


class Way:
    """Stands before whoever serves a subject, as a NATS server that is about to end does, and does with what comes what `fate` says."""

    def __init__(self, wire: NatsWire, subject: str, fate: Callable[[bytes], None]) -> None:
        self._wire, self._fate = wire, fate
        self.subject = f"{wire._connection.settings.cluster}.t.{token(subject)}"
        self.came = asyncio.Event()
        """All three requests of a test have."""
        self._requests = 0

    async def __aenter__(self) -> Way:
        self._subscription = await self._wire._connection.subscribe(self.subject, self._take)
        await self._wire._connection.round_trip(5)
        return self

    def _take(self, _subject: bytes, _reply: bytes, data: bytes, _headers: object) -> None:
        self._fate(data)
        self._requests += len(asking_of(data).payloads)
        if self._requests == 3:
            self.came.set()

    async def __aexit__(self, *_: object) -> None:
        await self._subscription.close()


async def test_a_request_that_was_lost_is_sent_again(settings: NatsSettings) -> None:
    async with two(settings) as (one, other):
        async with Way(one, "here", lambda data: None) as way:
            asked = [asyncio.ensure_future(other.request("here", b"%d" % number, timeout_s=30, together=True)) for number in range(3)]
            await way.came.wait()
        await asyncio.sleep(AGAIN_S + 0.2)  # nobody is there when it is sent again: that is no end either, for it may have arrived before
        assert not any(request.done() for request in asked)
        counted = Counting()
        await one.serve("here", counted)
        assert await asyncio.gather(*asked) == [b"0", b"1", b"2"]
        assert counted.came == [b"0", b"1", b"2"]


async def test_an_answer_that_was_lost_is_sent_again_and_nothing_is_done_twice(settings: NatsSettings) -> None:
    async with two(settings) as (one, other):
        counted, taken = Counting(), []
        async with Way(one, "here", taken.append) as way:
            asked = [asyncio.ensure_future(other.request("here", b"%d" % number, timeout_s=30, together=True)) for number in range(3)]
            await way.came.wait()
        serving = await one.serve("here", counted)
        for data in taken:
            serving.take_some(b"", b"nobody", data, None)
        assert await asyncio.gather(*asked) == [b"0", b"1", b"2"]
        assert counted.came == [b"0", b"1", b"2"]


async def test_what_is_sent_again_while_it_is_at_work_is_answered_when_that_is_done(settings: NatsSettings) -> None:
    async with two(settings) as (one, other):
        counted = Counting(AGAIN_S * 2)
        await one.serve("here", counted)
        assert await other.request("here", b"x", timeout_s=30, together=True) == b"x"
        assert counted.came == [b"x"]


async def raw(settings: NatsSettings, one: NatsWire, *asking: Asking) -> list[list[tuple[int, int, bytes]]]:
    """Send what was encoded by hand, one after another, and take what is answered."""
    told: list[list[tuple[int, int, bytes]]] = []
    number, inbox = one._connection.listen(lambda _subject, _reply, data, _headers: told.append(answers_of(data)))
    for one_asking in asking:
        one._connection.publish(f"{settings.cluster}.t.{token('here')}", encode(one_asking), reply=inbox)
        await one._connection.round_trip(5)
        await one._connection.round_trip(5)
    one._connection.deafen(number)
    return told


async def test_what_comes_late_when_nobody_waits_for_it_isnt_done(settings: NatsSettings) -> None:
    async with two(settings) as (one, other):
        counted = Counting()
        await one.serve("here", counted)
        told = await raw(
            settings,
            other,
            Asking(7, 5, 4, [], [b"five"]),
            Asking(7, 5, 4, [], [b"five"]),
            Asking(8, 5, 4, [], [b"another's five"]),
            Asking(7, 9, 4, [-5, -6, 7], [b"nine"]),
            Asking(7, 5, 4, [], [b"five"]),  # it was asked twice, and is over
            Asking(7, 6, 4, [], [b"six"]),  # it never came while somebody waited
            Asking(7, 3, 4, [], [b"three"]),  # all before the fourth are over
            Asking(7, 8, 4, [], [b"eight"]),  # overtaken
            Asking(7, 9, 4, [], [b"nine"]),
        )
        assert counted.came == [b"five", b"another's five", b"nine", b"eight"]
        done = [[(0, 0, answer)] for answer in (b"five", b"five", b"another's five", b"nine")]
        assert told == [*done, *[[(0, Verdict.FORGOTTEN, b"")]] * 3, [(0, 0, b"eight")], [(0, 0, b"nine")]]


async def test_answers_are_kept_as_long_as_somebody_may_ask_for_them(settings: NatsSettings) -> None:
    async with two(settings) as (one, other):
        served = await one.serve("here", echo)
        for _ in range(50):
            await asyncio.gather(*(other.request("here", bytes(1_000), timeout_s=5, together=True) for _ in range(40)))
        await other.request("here", b"", timeout_s=5, together=True)
        (heard,) = served._heard.values()
        assert heard.kept_bytes < 200 * 1_000
        for at in range(40):
            await raw(settings, other, *(Asking(7, number, 1, [], [bytes(500_000)]) for number in range(3 * at + 1, 3 * at + 4)))
        assert served._heard[7].kept_bytes <= MAX_KEPT_BYTES + 1_000_000
        (told,) = await raw(settings, other, Asking(7, 1, 1, [], [b"one"]))
        assert told == [(0, Verdict.FORGOTTEN, b"")]


async def test_nothing_is_counted_as_kept_that_isnt(settings: NatsSettings) -> None:
    async with two(settings) as (one, other):
        go = asyncio.Event()

        async def slow(_payload: bytes) -> bytes:
            await go.wait()
            return bytes(1_000)

        served = await one.serve("here", slow)
        asking = [Asking(7, 1, 1, [], [b"", b""]), Asking(7, 2, 2, [], [b""]), Asking(7, 3, 3, [2], []), Asking(7, 2, 2, [], [b""])]
        told = await raw(settings, other, *asking)
        assert told == [[(0, Verdict.FORGOTTEN, b"")]]
        go.set()
        while one.serving:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert served._heard[7].kept_bytes == 0


async def test_nobody_there_is_told_to_all_who_still_wait(settings: NatsSettings) -> None:
    async with two(settings) as (one, other):
        async with Way(one, "here", lambda data: None) as way:
            asked = [asyncio.ensure_future(other.request("here", b"", timeout_s=30, together=True)) for _ in range(3)]
            await way.came.wait()
        asked += [asyncio.ensure_future(other.request("here", b"", timeout_s=30, together=True)) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asked[-1].cancel()
        with pytest.raises(NodeUnreachable):
            await asked[-2]
        for request in asked:
            request.cancel()
        await asyncio.wait(asked)


@given(st.lists(st.integers(0, 300), max_size=80))
def test_a_line_is_cut_where_messages_are_full(sizes: list[int]) -> None:
    parts = cut(sizes, HEAD_BYTES + 300)
    assert [at for first, last in parts for at in range(first, last)] == list(range(len(sizes)))
    for first, last in parts:
        assert 0 < last - first <= MAX_TOGETHER
        assert last - first == 1 or sum(sizes[first:last]) <= 300


async def test_what_cant_be_read_among_what_goes_together_harms_nobody(settings: NatsSettings) -> None:
    notices: list[Notice] = []
    async with two(settings, told=notices.append) as (one, other):
        await one.serve("here", echo)
        for garbage in (b"", b"\xff\xff", b"\x91\x01", b"\xdd\xff\xff\xff\xff"):
            other._connection.publish(f"{settings.cluster}.t.{token('here')}", garbage, reply=b"nobody")
        assert await other.request("here", b"1", timeout_s=5, together=True) == b"1"
        assert [notice.kind for notice in notices] == ["error"] * 4
        subscription = await one._connection.subscribe(
            f"{settings.cluster}.t.{token('odd')}", lambda _subject, reply, _data, _headers: one._connection.publish(reply.decode(), b"\xff")
        )
        await one._connection.round_trip(5)
        with pytest.raises(OutcomeUnknown, match="can't be read"):
            await other.request("odd", b"1", timeout_s=5, together=True)
        await subscription.close()
        assert not other._gathering.groups
