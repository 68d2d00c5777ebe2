"""Membership: who is there, who is out, and when a node may serve; under virtual time, on one store, with what can happen to nodes."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from jidosystem.core.codec import seal
from jidosystem.core.errors import InvalidArguments, NodeNameTaken, ShuttingDown, StoreUnavailable
from jidosystem.distribution.frames import BeatFrame, encode_frame
from jidosystem.distribution.leases import Lease, encode_lease
from jidosystem.distribution.members import MAX_VOID, NodeDown, NodeDraining, NodeRecovered, NodeSuspect, NodeUp, View
from jidosystem.distribution.membership import Membership
from jidosystem.distribution.observing import MAX_LOOKS
from tests.distribution.cluster import TIMES, Cluster, Node, cluster

pytestmark = pytest.mark.jido
DETECTED_S = TIMES.lease_s + TIMES.renew_s + 0.1
"""By then a death is known: its last renewal is seen at the next look at the latest, and T passes."""


def downs(node: Node) -> list[tuple[str, int]]:
    return [(event.name, event.incarnation) for event in node.events if isinstance(event, NodeDown)]


def all_void(there: Cluster, name: str) -> bool:
    return all(node.state_of(name) == "void" for node in there.living() if node.name != name)


def nobody_declared_dead(there: Cluster) -> bool:
    return not any(downs(node) or node.lost for node in there.ever)


# -- coming and going --------------------------------------------------------------------------------------------


async def test_nodes_find_each_other_with_what_they_host() -> None:
    async with cluster() as there:
        a, b = there.add("a", types={"Counter": 3}), there.add("b")
        assert await a.join() == a.membership.incarnation > 0
        await b.join()
        assert set(b.membership.view.nodes) == {"a", "b"}, "whoever has joined knows the others"
        await there.pass_time(0.01)
        seen = a.membership.view.nodes
        assert dict(b.membership.view.nodes["a"].types) == {"Counter": 3}
        assert (seen["b"].incarnation, seen["b"].subject) == (b.membership.incarnation, b.membership.subject)
        assert [type(event) for event in a.events] == [NodeUp, NodeUp]
        assert a.serves and b.serves


async def test_a_node_listens_before_others_can_find_it() -> None:
    async with cluster("a") as there:
        b, heard = there.add("b"), []

        async def listen(subject: str) -> None:
            heard.append((subject, await there.records.read("jido.node/b")))

        await b.join(listen=listen)
        assert heard == [(b.membership.subject, None)]


async def test_a_dead_node_is_void_everywhere_and_that_is_told_once() -> None:
    async with cluster("a", "b", "c") as there:
        await there.pass_time(5)
        dead = there.now["b"]
        dead.kill()
        took = await there.until(lambda: all_void(there, "b"), DETECTED_S)
        assert took > TIMES.lease_s - TIMES.renew_s
        await there.pass_time(10)
        for node in there.living():
            assert downs(node) == [("b", dead.membership.incarnation)]
            assert node.membership.view.is_void("b", dead.membership.incarnation)
            assert not next(event for event in node.events if isinstance(event, NodeDown)).planned


async def test_deaths_and_joins_are_seen_without_a_word_on_the_wire() -> None:
    async with cluster("a", "b", "c") as there:
        there.nodes.cut |= {(one, other) for one in "abcd" for other in "abcd"}
        there.now["b"].kill()
        await there.until(lambda: all_void(there, "b"), DETECTED_S + TIMES.renew_s)
        await there.add("d").join()
        await there.until(lambda: there.now["a"].state_of("d") != "unknown", TIMES.list_s + TIMES.renew_s + 0.1)


async def test_a_node_that_leaves_is_out_at_once() -> None:
    async with cluster("a", "b") as there:
        a, b = there.now["a"], there.now["b"]
        await there.pass_time(3)
        assert await b.run(b.membership.leave())
        assert not b.serves
        await there.pass_time(0.01)
        assert a.events[-1]._replace(at_s=0) == NodeDown("b", b.membership.incarnation, 0, planned=True)


async def test_a_node_that_is_back_before_its_leaving_was_read_has_left_in_order() -> None:
    async with cluster("a", "b") as there:
        a, b = there.now["a"], there.now["b"]
        await a.records.freeze()
        assert await b.run(b.membership.leave())
        await there.add("b").join()
        a.records.stale = None
        await there.until(lambda: a.events[-1]._replace(at_s=0) == NodeUp("b", there.now["b"].membership.incarnation, 0), 2)
        (down,) = (event for event in a.events if isinstance(event, NodeDown))
        assert (down.incarnation, down.planned) == (b.membership.incarnation, True)


async def test_a_node_that_leaves_while_the_store_is_away_is_declared_dead_later() -> None:
    async with cluster("a", "b") as there:
        a, b = there.now["a"], there.now["b"]
        b.records.silent = True
        assert not await b.run(b.membership.leave(timeout_s=2.0))
        await there.until(lambda: all_void(there, "b"), DETECTED_S)
        assert downs(a) == [("b", b.membership.incarnation)]


async def test_leaving_comes_after_a_renewal_that_arrives_late() -> None:
    async with cluster("a", "b") as there:
        b = there.now["b"]
        b.faults.schedule("slow", agent="jido.node/b", seconds=0.6)
        await there.until(lambda: not b.faults.pending, 2)
        assert await b.run(b.membership.leave())
        await there.pass_time(1)
        assert all_void(there, "b")
        record = await there.records.read("jido.node/b")
        assert record is not None and record.head is None


# -- names -------------------------------------------------------------------------------------------------------


async def test_the_name_of_a_living_node_is_refused() -> None:
    async with cluster("a", "b") as there:
        twin = there.add("a")
        with pytest.raises(NodeNameTaken, match="a living node is named 'a'") as caught:
            await twin.join()
        assert caught.value.fields["name"] == "a"
        first = there.ever[0]
        await there.pass_time(10)
        assert first.serves and nobody_declared_dead(there)


async def test_a_node_that_was_killed_starts_again_under_its_name_when_its_lease_has_run_out() -> None:
    async with cluster("a", "b") as there:
        first = there.now["a"]
        first.kill()
        began = there.loop.time()
        again = there.add("a")
        assert await again.join() > first.membership.incarnation
        assert TIMES.lease_s - TIMES.renew_s < there.loop.time() - began < DETECTED_S + TIMES.renew_s
        await there.pass_time(0.1)
        b = there.now["b"]
        assert downs(b) == [("a", first.membership.incarnation)]
        assert b.state_of("a") == "alive"


@pytest.mark.parametrize("name", ["", "a b", "a..b", ".a", "a/b", "a*", "x" * 129, 5])
def test_a_name_that_cant_be_part_of_a_subject_is_refused(name: Any) -> None:
    with pytest.raises(InvalidArguments, match="name a node"):
        Membership(None, None, name=name)  # type: ignore[arg-type]


async def test_a_store_that_doesnt_answer_ends_the_joining() -> None:
    async with cluster("a") as there:
        b = there.add("b")
        b.records.silent = True
        with pytest.raises(StoreUnavailable):
            await b.join(timeout_s=5.0)
        b.records.silent = False
        await b.join()
        await there.pass_time(0.1)
        assert there.now["a"].state_of("b") == "alive"


async def test_who_gives_up_joining_leaves_nothing_behind_that_renews() -> None:
    async with cluster("a") as there:
        b = there.add("b")

        async def listen(_subject: str) -> None:
            b.faults.schedule("slow", agent="jido.node/b", seconds=0.5)

        joining = asyncio.ensure_future(b.join(listen=listen))
        await there.pass_time(0.3)
        b.records.silent = True  # the lease is on its way, and the first look at the others isn't answered
        await there.pass_time(0.4)
        assert there.now["a"].state_of("b") == "alive" and not joining.done()
        joining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await joining
        b.records.silent = False
        await there.until(lambda: all_void(there, "b"), DETECTED_S)
        assert not b.serves
        await b.join()
        assert b.serves


async def test_a_node_joins_once() -> None:
    async with cluster("a") as there:
        with pytest.raises(RuntimeError, match="has joined already"):
            await there.now["a"].join()
        b = there.add("b")
        ended = await asyncio.gather(b.join(), b.join(), return_exceptions=True)
        assert sorted(type(one).__name__ for one in ended) == ["RuntimeError", "int"]
        assert b.serves


@pytest.mark.parametrize("after_s", [0.1, 1.0, 3.2])
async def test_who_leaves_before_it_has_joined_doesnt_join(after_s: float) -> None:
    async with cluster("a") as there:
        there.add("b").kill()
        await there.records.commit("jido.node/b", 0, encode_lease(Lease("b", "old")))
        b = there.add("b")
        b.faults.schedule("slow", agent="jido.node/b", seconds=0.5)
        joining = asyncio.ensure_future(b.join())
        await there.pass_time(after_s)
        assert await b.run(b.membership.leave())
        with pytest.raises(ShuttingDown):
            await joining
        await there.pass_time(TIMES.list_s + DETECTED_S)
        lease = await there.records.read("jido.node/b")
        assert lease is not None and lease.head is None
        assert there.now["a"].state_of("b") in ("void", "unknown") and not b.serves


@pytest.mark.parametrize("kind", ["done", "lost", "fail"])
async def test_a_creation_of_which_nobody_knows_is_found_or_done_again(kind: Any) -> None:
    async with cluster("a") as there:
        b = there.add("b")
        b.faults.schedule(kind, agent="jido.node/b")
        await b.join()
        record = await there.records.read("jido.node/b")
        assert record is not None and b.membership.incarnation <= record.revision
        await there.pass_time(10)
        assert b.serves and nobody_declared_dead(there)
        assert there.now["a"].membership.view.nodes["b"].incarnation == b.membership.incarnation


async def test_two_of_one_name_that_start_at_once_become_one() -> None:
    async with cluster("x") as there:
        twins = [there.add("a"), there.add("a")]
        there.now["a"] = twins[0]
        ended = await asyncio.gather(*(twin.join() for twin in twins), return_exceptions=True)
        assert sorted(type(one).__name__ for one in ended) == ["NodeNameTaken", "int"]


# -- pauses ------------------------------------------------------------------------------------------------------


async def test_a_node_that_stood_still_for_long_knows_at_once_that_it_is_void_and_joins_again() -> None:
    async with cluster("a", "b") as there:
        a, b = there.now["a"], there.now["b"]
        first = a.membership.incarnation
        await there.pass_time(2.3)
        a.pause()
        await there.pass_time(30)
        assert b.state_of("a") == "void"
        assert not a.serves, "whatever it would run first"
        a.resume()
        await there.loop.idle()
        assert a.lost == [first], "no time has passed"
        assert not a.serves and a.state_of("a") == "void"
        assert await a.run(a.membership.is_void("a", first))
        assert await a.join() > first
        await there.pass_time(0.1)
        assert a.serves and b.state_of("a") == "alive"
        assert a.lost == [first]


async def test_after_a_stop_longer_than_the_margin_it_renews_before_it_serves() -> None:
    async with cluster("a", "b") as there:
        a = there.now["a"]
        await there.pass_time(2.0)
        a.pause()
        await there.pass_time(0.8)
        assert not a.serves, "whatever it would run first"
        a.records.silent = True
        a.resume()
        await there.loop.idle()
        assert not a.serves, "the lease itself would have lasted"
        a.records.silent = False
        waiting = asyncio.ensure_future(a.run(a.membership.wait_serving()))
        await there.pass_time(1.5)
        assert waiting.done() and a.serves
        assert nobody_declared_dead(there)


# -- the store ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("away_s", [0.5, 2.5, 4.0, 7.0, 30.0])
@pytest.mark.parametrize("how", ["refuses", "silent", "late", "stale"])
@pytest.mark.parametrize("after_s", [2.05, 2.5, 2.95])
async def test_an_outage_of_the_store_voids_nobody(away_s: float, how: str, after_s: float) -> None:
    async with cluster("a", "b", "c", rates=(1.0, 0.99, 1.01)) as there:
        first = [node.membership.incarnation for node in there.living()]
        await there.pass_time(after_s)
        for node in there.living():
            if how == "refuses":
                node.faults.go_away(away_s)
            elif how == "silent":
                node.records.silent = True
            elif how == "late":
                node.records.held = []
            else:
                await node.records.freeze()
        await there.pass_time(away_s)
        if away_s > TIMES.lease_s:
            assert not any(node.serves for node in there.living())
        for node in there.living():
            node.records.silent, node.records.stale = False, None
            node.records.let_go(Random(1))
        await there.pass_time(TIMES.answer_s + 2 * TIMES.retry_s)
        assert all(node.serves for node in there.living()), "owners renew first"
        await there.pass_time(10)
        assert nobody_declared_dead(there)
        assert [node.membership.incarnation for node in there.living()] == first


@pytest.mark.parametrize("how", ["silent", "stale"])
async def test_a_node_that_is_cut_off_from_the_store_is_void_and_voids_nobody(how: str) -> None:
    async with cluster("a", "b", "c") as there:
        a = there.now["a"]
        if how == "silent":
            a.records.silent = True
        else:
            await a.records.freeze()
        await there.until(lambda: there.now["b"].state_of("a") == there.now["c"].state_of("a") == "void", DETECTED_S)
        assert not a.serves
        await there.pass_time(20)
        a.records.silent, a.records.stale = False, None
        await there.until(lambda: a.lost != [], TIMES.answer_s + TIMES.retry_s + 0.1)
        assert downs(there.now["b"]) == [("a", a.lost[0])]
        assert not {name for name, _ in downs(a)} & {"b", "c"}


@pytest.mark.parametrize("kind", ["done", "lost", "fail"])
async def test_renewals_of_which_nobody_knows_dont_end_a_lease(kind: Any) -> None:
    async with cluster("a", "b") as there:
        a = there.now["a"]
        for commit in range(1, 20, 2):
            a.faults.schedule(kind, commit=commit, agent="jido.node/a")
        for _ in range(80):
            await there.pass_time(0.25)
            assert a.serves
        assert nobody_declared_dead(there)


async def test_a_renewal_that_arrives_after_its_time_is_found() -> None:
    async with cluster("a", "b") as there:
        a = there.now["a"]
        a.faults.schedule("slow", agent="jido.node/a", seconds=1.4)
        for _ in range(40):
            await there.pass_time(0.25)
            assert a.serves
        assert not a.faults.pending and nobody_declared_dead(there)


async def test_what_the_store_cant_do_ends_the_membership_and_is_raised_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster("a", "b") as there:
        a = there.now["a"]
        monkeypatch.setattr(there.records, "commit", _breaks)
        await there.pass_time(2)
        monkeypatch.undo()
        assert isinstance(a.membership.error, ZeroDivisionError)
        assert not a.serves and a.lost == [a.membership.incarnation]
        for node in there.living():
            with pytest.raises(ZeroDivisionError):
                await node.run(node.membership.close())
            node.dead = True


def _breaks(*_args: object) -> None:
    raise ZeroDivisionError


# -- void, absent, damaged ---------------------------------------------------------------------------------------


async def test_absence_is_no_proof_until_a_vacant_lease_has_run_out() -> None:
    async with cluster("a", "b") as there:
        a, b = there.now["a"], there.now["b"]
        assert not await a.run(a.membership.is_void("gone", 1))
        assert not await b.run(b.membership.is_void("gone", 1))
        await there.pass_time(TIMES.lease_s - 0.2)
        assert not await a.run(a.membership.is_void("gone", 1))
        await there.until(lambda: a.membership.view.is_void("gone", 1) and b.membership.view.is_void("gone", 1), 0.5)
        assert a.state_of("gone") == "unknown", "nobody was ever there"


async def test_a_vacant_lease_in_the_place_of_one_that_vanished_voids_nobody_before_its_time() -> None:
    async with cluster("a", "b") as there:
        a, b = there.now["a"], there.now["b"]
        await there.pass_time(5)
        b.pause()
        present = await there.records.read("jido.node/b")
        assert present is not None
        await there.records.commit("jido.node/b", present.revision, encode_lease(Lease("b", vacant=True)))
        incarnation = b.membership.incarnation
        await there.pass_time(TIMES.lease_s - 0.1)
        assert not a.membership.view.is_void("b", incarnation)
        await there.until(lambda: a.membership.view.is_void("b", incarnation), TIMES.renew_s + 0.2)
        assert downs(a) == [("b", incarnation)]


async def test_what_isnt_known_here_is_asked_of_the_store() -> None:
    async with cluster("a", "b") as there:
        a, b = there.now["a"], there.now["b"]
        assert not await a.run(a.membership.is_void("b", b.membership.incarnation))
        assert not await a.run(a.membership.is_void("a", a.membership.incarnation))
        await there.records.commit("jido.node/old", 0, None)
        assert await a.run(a.membership.is_void("old", 0))
        a.records.silent = True
        with pytest.raises(StoreUnavailable):
            await a.run(a.membership.is_void("new", 1))


async def test_a_damaged_lease_disturbs_nobody_and_runs_out() -> None:
    async with cluster("a", "b") as there:
        await there.records.commit("jido.node/broken", 0, seal(b"nonsense"))
        await there.pass_time(2)
        assert nobody_declared_dead(there)
        await there.until(lambda: there.now["a"].membership.view.is_void("broken", 0), TIMES.list_s + TIMES.lease_s)
        assert all(node.serves for node in there.living())


async def test_a_view_remembers_so_many_of_the_dead() -> None:
    async with cluster() as there:
        for number in range(MAX_VOID + 5):
            await there.records.commit(f"jido.node/n{number:04}", 0, encode_lease(Lease(f"n{number:04}", "i")))
        a = there.add("a")
        await a.join()
        assert len(a.membership.view.nodes) == MAX_VOID + 6
        await there.until(lambda: len(downs(a)) == MAX_VOID + 5, DETECTED_S)
        assert len(a.membership.view.nodes) == MAX_VOID + 1
        assert len(a.membership.view.voided) == MAX_VOID


# -- draining, types ---------------------------------------------------------------------------------------------


async def test_draining_and_types_are_seen_by_all_when_they_are_stored() -> None:
    async with cluster("a", "b") as there:
        a, b = there.now["a"], there.now["b"]
        await a.run(a.membership.set_draining())
        await a.run(a.membership.set_types({"Other": 2}))
        await there.pass_time(TIMES.renew_s)
        assert b.state_of("a") == "draining"
        assert dict(b.membership.view.nodes["a"].types) == {"Other": 2}
        assert [type(event) for event in b.events if event.name == "a"] == [NodeUp, NodeDraining]
        a.kill()
        await there.until(lambda: all_void(there, "a"), DETECTED_S)
        assert b.events[-1].planned  # type: ignore[union-attr]


async def test_without_a_lease_there_is_nothing_to_change() -> None:
    async with cluster("a", "b") as there:
        a = there.now["a"]
        a.records.silent = True
        changing = asyncio.ensure_future(a.run(a.membership.set_draining()))
        await there.pass_time(10)
        assert not changing.done()
        a.records.silent = False
        with pytest.raises(StoreUnavailable, match="lost its lease"):
            await changing
        with pytest.raises(StoreUnavailable, match="no lease"):
            await a.run(a.membership.set_draining())


# -- suspicion ---------------------------------------------------------------------------------------------------


async def test_silence_on_the_wire_raises_suspicion_and_nothing_more() -> None:
    async with cluster("a", "b", "c") as there:
        a = there.now["a"]
        await there.pass_time(3)
        there.nodes.cut.add(("b", "a"))
        await there.until(lambda: a.state_of("b") == "suspect", TIMES.suspect_s + 2 * TIMES.renew_s)
        await there.pass_time(20)
        assert there.now["c"].state_of("b") == "alive"
        there.nodes.cut.clear()
        await there.until(lambda: a.state_of("b") == "alive", TIMES.renew_s + 0.1)
        assert [type(event) for event in a.events if event.name == "b"] == [NodeUp, NodeSuspect, NodeRecovered]
        assert nobody_declared_dead(there) and all(node.serves for node in there.living())


async def test_a_node_whose_own_wire_is_broken_suspects_nobody() -> None:
    async with cluster("a", "b", "c") as there:
        there.nodes.cut |= {("a", "a"), ("b", "a"), ("c", "a")}
        await there.pass_time(20)
        assert [there.now["a"].state_of(name) for name in "bc"] == ["alive", "alive"]


async def test_a_message_that_reached_nobody_raises_suspicion_until_the_next_beat() -> None:
    async with cluster("a", "b") as there:
        a, b = there.now["a"], there.now["b"]
        a.membership.unreachable("b", b.membership.incarnation + 1)
        await there.loop.idle()
        assert a.state_of("b") == "alive", "it was about another life"
        a.membership.unreachable("b", b.membership.incarnation)
        await there.loop.idle()
        assert a.state_of("b") == "suspect"
        await there.pass_time(TIMES.renew_s + 0.1)
        assert a.state_of("b") == "alive"


async def test_words_that_are_untrue_change_nothing() -> None:
    async with cluster("a", "b") as there:
        a, b = there.now["a"], there.now["b"]
        incarnation = b.membership.incarnation
        lies = [BeatFrame("b", incarnation, 10**9), BeatFrame("b", incarnation, 0, "void"), BeatFrame("b", incarnation + 50, 1), BeatFrame("z", 5, 1)]
        for payload in (*map(encode_frame, lies), b"", b"nonsense", b"\x02" + encode_frame(lies[0])[1:]):
            await there.wire.send("jido.beats", payload)
        for number in range(MAX_LOOKS + 50):
            await there.wire.send("jido.beats", encode_frame(BeatFrame(f"x{number}", 1, 1)))
        await there.pass_time(10)
        assert nobody_declared_dead(there)
        assert list(a.membership.view.nodes) == ["a", "b"]
        assert [record.agent async for page in there.records.scan_agents("jido.node") for record in page] == ["jido.node/a", "jido.node/b"]
        b.kill()
        await there.until(lambda: all_void(there, "b"), DETECTED_S)


async def test_no_more_names_wait_to_be_looked_at_than_may() -> None:
    async with cluster("a") as there:
        observer = there.now["a"].membership._observer
        for number in range(MAX_LOOKS + 50):
            observer.heard(f"x{number}", 1, 1)
        assert len(observer._to_look_at) == MAX_LOOKS


# -- waiting -----------------------------------------------------------------------------------------------------


async def test_changes_of_the_view_can_be_waited_for() -> None:
    async with cluster("a") as there:
        a = there.now["a"]
        seen = a.membership.view
        assert await a.membership.wait_changed(View()) is seen, "it differs already"
        waiting = asyncio.ensure_future(a.run(a.membership.wait_changed(seen)))
        await there.pass_time(5)
        assert not waiting.done(), "renewals change nothing"
        assert a.membership.view is seen
        await there.add("b").join()
        assert "b" in (await waiting).nodes


async def test_whoever_is_told_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    async with cluster("a") as there:
        told: list[str] = []
        there.loop.set_exception_handler(lambda _loop, context: told.append(type(context["exception"]).__name__))
        there.now["a"].membership._on_event = _breaks
        await there.add("b").join()
        await there.pass_time(0.1)
        assert told == ["ZeroDivisionError"]
        assert there.now["a"].state_of("b") == "alive"
