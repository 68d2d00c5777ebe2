"""The mesh: what becomes of a request is told, and told at once when nobody will ever answer it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

import pytest

from jidosystem.core.eager import start_eagerly
from jidosystem.core.errors import (
    CallTimeout,
    InvalidFrame,
    JidoError,
    NodeBusy,
    NodeUnreachable,
    OutcomeUnknown,
    ProtocolMismatch,
    Rejected,
    ShuttingDown,
    TooLarge,
    WireTimeout,
)
from jidosystem.distribution.frames import (
    OLDEST_VERSION,
    VERSION,
    CallFrame,
    ErrorFrame,
    Frame,
    PingFrame,
    PongFrame,
    ReplyFrame,
    decode_frame,
    encode_frame,
    error_of,
)
from jidosystem.distribution.mesh import Mesh
from tests.distribution.cluster import TIMES, Cluster, Node, cluster

pytestmark = pytest.mark.jido
LONG_S = 60.0


class Meshed:
    """A cluster whose nodes have a mesh each. What a call's `action` names is done with it."""

    def __init__(self, there: Cluster, **options: Any) -> None:
        self.there, self.options = there, options
        self.meshes: dict[str, Mesh] = {}
        self.begun: list[str] = []

    async def add(self, name: str) -> Node:
        node = self.there.add(name)
        mesh = self.meshes[name] = Mesh(node.wire, node.membership, self.answer, **self.options)
        await node.join(listen=mesh.listen)
        await self.there.pass_time(0.01)
        return node

    async def answer(self, frame: Frame) -> Frame:
        assert isinstance(frame, CallFrame)
        self.begun.append(frame.to)
        if frame.action == "sleep":
            await asyncio.sleep(float(frame.args))
        elif frame.action == "reject":
            raise Rejected("sold_out")
        elif frame.action == "grow":
            return ReplyFrame(bytes(2_000_000))
        return ReplyFrame(frame.to.encode())

    def node(self, name: str) -> Node:
        return self.there.now[name]

    async def ask(self, asker: str, node: str, action: str = "echo", args: bytes = b"", *, timeout_s: float = LONG_S, **options: Any) -> Frame:
        deadline = self.there.loop.time() + timeout_s
        frame = CallFrame("Counter/x", action, args, timeout_s)
        return await self.node(asker).run(self.meshes[asker].request(node, frame, deadline, **options))

    async def timed(self, *args: Any, **options: Any) -> tuple[float, BaseException | Frame]:
        began = self.there.loop.time()
        ended = await asyncio.gather(self.ask(*args, **options), return_exceptions=True)
        return self.there.loop.time() - began, ended[0]


@asynccontextmanager
async def meshed(*names: str, **options: Any) -> AsyncIterator[Meshed]:
    async with cluster() as there:
        all_ = Meshed(there, **options)
        for name in names:
            await all_.add(name)
        yield all_


# -- what is answered --------------------------------------------------------------------------------------------


async def test_a_request_is_answered_by_the_node_that_it_names() -> None:
    async with meshed("a", "b") as all_:
        assert await all_.ask("a", "b") == ReplyFrame(b"Counter/x")
        assert await all_.ask("a", "a") == ReplyFrame(b"Counter/x"), "also by itself"
        b = all_.node("b").membership
        assert await all_.ask("a", "b", incarnation=b.incarnation) == ReplyFrame(b"Counter/x")


async def test_what_the_other_side_raises_is_an_error_frame() -> None:
    async with meshed("a", "b") as all_:
        frame = await all_.ask("a", "b", "reject")
        assert isinstance(frame, ErrorFrame)
        error = error_of(frame)
        assert (type(error), str(error), error.node) == (Rejected, "sold_out", "b")


async def test_an_answer_that_cant_be_sent_says_that_it_was_done() -> None:
    async with meshed("a", "b") as all_:
        frame = await all_.ask("a", "b", "grow")
        assert isinstance(frame, ErrorFrame)
        error = error_of(frame)
        assert isinstance(error, TooLarge)
        assert "it was done" in str(error)


async def test_a_ping_tells_which_life_is_there_and_whether_it_serves() -> None:
    async with meshed("a", "b") as all_:
        a, b = all_.node("a"), all_.node("b")
        assert await a.run(all_.meshes["a"].ping("b")) == PongFrame("b", b.membership.incarnation, serving=True)
        b.records.silent = True
        await all_.there.pass_time(TIMES.lease_s - 0.3)
        assert await a.run(all_.meshes["a"].ping("b")) == PongFrame("b", b.membership.incarnation, serving=False)


# -- what wasn't sent --------------------------------------------------------------------------------------------


async def test_a_node_that_isnt_there_is_unreachable_at_once() -> None:
    async with meshed("a", "b") as all_:
        took, error = await all_.timed("a", "z")
        assert (took, type(error)) == (0.0, NodeUnreachable)
        b = all_.node("b").membership
        with pytest.raises(NodeUnreachable, match=f"as incarnation {b.incarnation + 1}"):
            await all_.ask("a", "b", incarnation=b.incarnation + 1)
        all_.node("b").kill()
        await all_.there.pass_time(10)
        with pytest.raises(NodeUnreachable, match="no node 'b' is in the cluster"):
            await all_.ask("a", "b")
        assert all_.begun == []


async def test_a_process_that_is_gone_is_unreachable_and_suspect_before_it_is_void() -> None:
    async with meshed("a", "b") as all_:
        all_.node("b").kill()
        await all_.there.loop.idle()
        took, error = await all_.timed("a", "b")
        assert (took, type(error)) == (0.0, NodeUnreachable)
        await all_.there.loop.idle()
        assert all_.node("a").state_of("b") == "suspect"


async def test_time_that_has_run_out_is_told_before_anything_is_sent() -> None:
    async with meshed("a", "b") as all_:
        with pytest.raises(CallTimeout) as caught:
            await all_.ask("a", "b", timeout_s=0.0)
        assert caught.value.uncertain is False
        assert all_.begun == []


async def test_what_is_too_large_isnt_sent() -> None:
    async with meshed("a", "b") as all_:
        with pytest.raises(TooLarge):
            await all_.ask("a", "b", args=bytes(2_000_000))
        assert all_.begun == []


@pytest.mark.parametrize(("protocol", "oldest", "newer"), [(OLDEST_VERSION - 1, 0, False), (VERSION + 2, VERSION + 1, True)])
async def test_a_node_of_another_protocol_is_named(protocol: int, oldest: int, newer: bool) -> None:
    async with meshed("a", "b") as all_:
        membership = all_.node("a").membership
        view = membership.view
        other = view.nodes["b"]._replace(protocol=protocol, oldest_protocol=oldest)
        membership._observer.view = view._replace(nodes=MappingProxyType({**view.nodes, "b": other}))
        with pytest.raises(ProtocolMismatch, match=f"speaks versions {oldest} to {protocol}") as caught:
            await all_.ask("a", "b")
        assert caught.value.newer is newer
        assert all_.begun == []


async def test_a_frame_of_another_version_is_answered_with_what_is_wrong() -> None:
    async with meshed("a", "b") as all_:
        payload = bytes((VERSION + 1,)) + encode_frame(PingFrame())[1:]
        for bad, told in ((payload, f"version {VERSION + 1}"), (b"", "no bytes"), (b"\x01nonsense", "checksum")):
            frame = decode_frame(await all_.there.wire.request(all_.node("b").membership.subject, bad, timeout_s=1))
            assert isinstance(frame, ErrorFrame)
            assert isinstance(error_of(frame), InvalidFrame)
            assert told in frame.message


async def test_no_more_requests_wait_for_one_node_than_may() -> None:
    async with meshed("a", "b", "c", max_under_way=3) as all_:
        waiting = [asyncio.ensure_future(all_.ask("a", "b", "sleep", b"1")) for _ in range(3)]
        await all_.there.loop.idle()
        with pytest.raises(NodeBusy) as caught:
            await all_.ask("a", "b")
        assert caught.value.limit == 3
        assert await all_.ask("a", "c") == ReplyFrame(b"Counter/x"), "others have room"
        await asyncio.gather(*waiting)
        assert await all_.ask("a", "b") == ReplyFrame(b"Counter/x")
        assert all_.meshes["a"]._under_way == {}


async def test_a_node_takes_no_more_requests_of_others_than_it_may() -> None:
    async with meshed("a", "b", "c", max_under_way=3) as all_:
        waiting = [asyncio.ensure_future(all_.ask(asker, "c", "sleep", b"1")) for asker in ("a", "a", "b")]
        await all_.there.loop.idle()
        frame = await all_.ask("b", "c")
        assert isinstance(frame, ErrorFrame) and isinstance(error_of(frame), NodeBusy)
        assert isinstance(await all_.node("a").run(all_.meshes["a"].ping("b")), PongFrame)
        await asyncio.gather(*waiting)


# -- what nobody knows -------------------------------------------------------------------------------------------


async def test_no_answer_in_time_is_unknown() -> None:
    async with meshed("a", "b") as all_:
        took, error = await all_.timed("a", "b", "sleep", b"5", timeout_s=2.0)
        assert (took, type(error)) == (2.0, WireTimeout)


@pytest.mark.parametrize("how", ["killed", "paused", "cut off"])
async def test_requests_under_way_to_a_node_that_is_declared_dead_end_then_and_not_at_their_deadline(how: str) -> None:
    async with meshed("a", "b", "c") as all_:
        waiting = [asyncio.ensure_future(all_.timed(asker, "b", "sleep", b"50")) for asker in ("a", "a", "c")]
        others = asyncio.ensure_future(all_.timed("a", "c", "sleep", b"20"))
        await all_.there.pass_time(1)
        b = all_.node("b")
        if how == "killed":
            b.kill()
        elif how == "paused":
            b.pause()
        else:
            b.records.silent = True
        for took, error in await asyncio.gather(*waiting):
            assert type(error) is OutcomeUnknown
            assert "was declared dead" in str(error)
            assert TIMES.lease_s < took < 1 + TIMES.lease_s + TIMES.renew_s + 0.2
        assert await others == (20.0, ReplyFrame(b"Counter/x")), "nobody else is disturbed"
        assert all_.meshes["a"]._under_way == {}


async def test_a_later_life_of_a_node_ends_the_requests_to_the_earlier_one() -> None:
    async with meshed("a", "b") as all_:
        waiting = asyncio.ensure_future(all_.timed("a", "b", "sleep", b"50"))
        await all_.there.pass_time(1)
        b = all_.node("b")
        await b.run(b.membership.leave())
        await all_.there.pass_time(0.01)
        assert isinstance((await waiting)[1], OutcomeUnknown)
        again = await all_.add("b")
        assert await all_.ask("a", "b", incarnation=again.membership.incarnation) == ReplyFrame(b"Counter/x")


async def test_an_answer_that_cant_be_read_is_unknown() -> None:
    async with meshed("a", "b") as all_:

        async def garbage(_payload: bytes) -> bytes:
            return b"garbage"

        await all_.meshes["b"].close()
        await all_.node("b").wire.serve(all_.node("b").membership.subject, garbage)
        with pytest.raises(OutcomeUnknown, match="can't be read"):
            await all_.ask("a", "b")


# -- cancellation ------------------------------------------------------------------------------------------------


def plain(work: Any, loop: asyncio.AbstractEventLoop) -> asyncio.Future[Any]:
    return loop.create_task(work)


@pytest.mark.parametrize("start", [plain, start_eagerly], ids=["task", "eager task"])
async def test_who_gives_up_is_cancelled_and_who_waits_on_can_still_be(start: Callable[..., asyncio.Future[Any]]) -> None:
    async with meshed("a", "b") as all_:
        told: list[object] = []

        async def patient() -> None:
            mesh, loop = all_.meshes["a"], all_.there.loop
            try:
                await mesh.request("b", CallFrame("Counter/x", "sleep", b"50", 50), loop.time() + 50)
            except OutcomeUnknown as error:
                told.append(type(error))
            try:
                async with asyncio.timeout(1.0):  # works only if the task isn't left as one that is being cancelled
                    await asyncio.sleep(10)
            except TimeoutError as error:
                told.append(type(error))

        gives_up = start(patient(), all_.there.loop)
        waits = start(patient(), all_.there.loop)
        await all_.there.pass_time(0.5)
        gives_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gives_up
        all_.node("b").kill()
        await waits
        assert told == [OutcomeUnknown, TimeoutError]
        assert all_.meshes["a"]._under_way == {}


async def test_who_is_cancelled_at_the_moment_of_the_death_is_cancelled() -> None:
    async with meshed("a", "b") as all_:
        waiting = asyncio.ensure_future(all_.meshes["a"].request("b", CallFrame("Counter/x", "sleep", b"50", 50), all_.there.loop.time() + 50))
        await all_.there.pass_time(0.5)
        view = all_.node("a").membership.view
        b = view.nodes["b"]
        all_.meshes["a"]._view_changed(view._replace(voided={"b": b.incarnation + 1}))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


# -- rejoining ---------------------------------------------------------------------------------------------------


async def test_what_was_sent_to_an_earlier_life_never_reaches_a_later_one() -> None:
    async with meshed("a", "b") as all_:
        b = all_.node("b")
        earlier = b.membership.subject
        b.pause()
        await all_.there.pass_time(10)
        b.resume()
        await all_.there.loop.idle()
        await b.join(listen=all_.meshes["b"].listen)
        assert b.membership.subject != earlier
        with pytest.raises(NodeUnreachable):
            await all_.there.wire.request(earlier, encode_frame(PingFrame()), timeout_s=1)
        await all_.there.pass_time(0.1)
        assert await all_.ask("a", "b") == ReplyFrame(b"Counter/x")


# -- leaving -----------------------------------------------------------------------------------------------------


async def test_what_is_under_way_when_a_node_leaves_is_answered_first() -> None:
    async with meshed("a", "b") as all_:
        asked = asyncio.ensure_future(all_.ask("a", "b", "sleep", b"0.6"))
        await all_.there.pass_time(0.5)
        leaving = asyncio.ensure_future(all_.node("b").run(all_.meshes["b"].leave()))
        assert await asked == ReplyFrame(b"Counter/x")
        assert all_.node("a").state_of("b") == "alive", "it has given nothing up before"
        await leaving
        assert all_.node("a").state_of("b") == "void"


async def test_nothing_is_lost_that_is_sent_to_a_node_while_it_leaves() -> None:
    """On a wire where some still send to it for a moment after it has stopped listening."""
    async with meshed("a", "b") as all_:
        ends: list[Frame] = []

        async def ask_on() -> None:
            while True:
                try:
                    ends.append(await all_.ask("a", "b"))
                except NodeUnreachable:
                    return
                await asyncio.sleep(0.001)

        asking = [asyncio.ensure_future(ask_on()) for _ in range(4)]
        await all_.there.pass_time(0.1)
        b = all_.node("b")
        b.faults.schedule("slow", agent="jido.node/b", seconds=0.1)
        await b.run(all_.meshes["b"].leave())
        await asyncio.gather(*asking)
        refused = [error_of(end) for end in ends if isinstance(end, ErrorFrame)]
        assert refused
        assert {type(error) for error in refused} == {ShuttingDown}


async def test_a_node_that_is_alone_leaves_at_once() -> None:
    async with meshed("a") as all_:
        began = all_.there.loop.time()
        await all_.node("a").run(all_.meshes["a"].leave())
        assert all_.there.loop.time() - began < 0.1


def test_every_way_to_end_is_an_error_of_ours() -> None:
    for kind in (NodeUnreachable, NodeBusy, ProtocolMismatch, TooLarge, CallTimeout, OutcomeUnknown, WireTimeout):
        assert issubclass(kind, JidoError)
    assert [kind.outcome_known for kind in (NodeUnreachable, NodeBusy, ProtocolMismatch, OutcomeUnknown, WireTimeout)] == [
        True,
        True,
        True,
        False,
        False,
    ]
