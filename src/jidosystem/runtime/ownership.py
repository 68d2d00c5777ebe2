"""Whose an agent is, on a cluster: claimed by compare-and-set on its record, kept while the node's lease lasts.

The claim is the fence: it changes the revision, so that whoever had the agent before can't commit any more, whatever the
clocks say. When to take an agent over is another question, and is decided by the view of the cluster: only from an owner
that is known to be void. A living owner is never claimed over. `decide` is pure; `Ownership` does what it says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from ..coordination.placement import Placement
from ..core.errors import CommitUnknown, Conflict, JidoError, Moved, NoHost, StoreError, StoreUnavailable, describe
from ..core.records import Committed, Record, Told
from ..distribution.frames import Frame
from ..distribution.members import Member, View
from .head import Head, Marks, Owner, Trial, decode_head, encode_head
from .loading import check_version, effects_after
from .status import Status
from .trials import MAX_DEATHS, Trials, failed_head

if TYPE_CHECKING:
    from .activation import Activation
    from .host import Host
    from .node import Node

ATTEMPTS = 20
"""How often a claim that others spoil is tried again before its callers are told."""
NEW_IN_A_ROW = 32
"""After so many agents of a type that nothing was stored of, the next ones are claimed without being read."""


class Cluster(Protocol):
    """What the runtime asks of the membership of its node."""

    @property
    def owner(self) -> Owner:
        """This node, and which life of it."""
        ...

    def wait_serving(self) -> Awaitable[None]:
        """Wait until it may serve."""
        ...

    @property
    def view(self) -> View:
        """The cluster as it is known here."""
        ...

    def may_serve(self) -> bool:
        """Whether the node's lease lasts: past it no turn starts and no answer that proves nothing leaves."""
        ...

    def find_out(self, owner: Owner) -> Awaitable[bool]:
        """Whether an owner that the view doesn't know is void, asked of the store; if nobody knows, it is made so, which takes a while."""
        ...

    def request(self, member: Member, frame: Frame, deadline: float) -> Awaitable[Frame]:
        """Ask another node. `NodeUnreachable`, `NodeBusy`: it hasn't heard; `OutcomeUnknown`: it may have, at the latest once that node is void."""
        ...


class Claim(Enum):
    """What to do about an agent that is asked for here."""

    TAKE = "take it"
    LEAVE = "its owner lives"
    ASK = "nobody here knows its owner"


def decide(owner: Owner | None, me: Owner, view: View) -> Claim:
    """What to do about an agent whose record names an owner."""
    if owner is None or owner == me or view.is_void(owner.node, owner.incarnation):
        return Claim.TAKE
    member = view.get(owner.node)
    return Claim.LEAVE if member is not None and member.incarnation == owner.incarnation else Claim.ASK


def claimed(host_version: int, record: Record | None, me: Owner | None, trial: Trial | None = None) -> bytes:
    """The head of a claim: what stood there under a new owner; a head without state where nothing did."""
    if record is None:
        return encode_head(host_version, 0, None, None, me)
    if record.head is None:
        return encode_head(host_version, 0, None, Marks(effects=effects_after(record.revision)), me)
    head = decode_head(record.head, record.agent)
    return encode_head(head.version, head.turns, head.state, head.marks, me, trial)


class Ownership:
    """The claims of one node."""

    __slots__ = ("_claiming", "_held", "_new", "_node", "_room", "_trials", "_view", "_waiting", "cluster", "draining", "placement")

    def __init__(self, node: Node, cluster: Cluster) -> None:
        self._node, self.cluster = node, cluster
        self.placement = Placement()
        self._held: list[tuple[Activation, Any, Any]] = []
        self._waiting = False
        self._new: dict[Host, int] = {}  # so many new agents were claimed since one was found that was stored, or since the view changed
        self._view: View | None = None
        self._trials = Trials(node)
        self._claiming = 0
        self._room: list[asyncio.Future[None]] = []  # who waits until fewer are being claimed
        self.draining = False  # takes no new agents, and gives away those that it has

    # -- claiming --------------------------------------------------------------------------------------------

    def claim(self, host: Host, key: str, told: Told) -> None:
        """Claim an agent and tell its record as it is now: nobody but this node commits to it from here on. Tells `Moved` if it lives elsewhere."""
        self._claiming += 1
        if not self._is_surely_new(host) or not self._claim_unread(host, key, told):
            self._node.own(self._load(host, key, told))

    async def _load(self, host: Host, key: str, told: Told) -> None:
        try:
            record = await self._claim(host, host.prefix + key)
        except JidoError as error:
            told(None, error)
        else:
            told(record, None)
        finally:
            self._claim_ended()

    def _claim_ended(self) -> None:
        self._claiming -= 1
        room, self._room = self._room, []
        for waiter in room:
            if not waiter.done():
                waiter.set_result(None)

    def _is_surely_new(self, host: Host) -> bool:
        """Whether to claim an agent as if nothing were stored of it, which saves reading and is refused if it isn't so. Where agents come from
        that were another node's, the view has changed before."""
        if self.cluster.view is not self._view:
            self._view = self.cluster.view
            self._new.clear()
        return self._new.get(host, 0) >= NEW_IN_A_ROW and not self.draining and self.cluster.may_serve()

    def _claim_unread(self, host: Host, key: str, told: Told) -> bool:
        """Claim an agent that nothing is stored of, in all likelihood; whether that is under way."""
        address, head = host.prefix + key, claimed(host.type.version, None, self.cluster.owner)

        def settled(committed: Committed | None, error: BaseException | None) -> None:
            if isinstance(error, Conflict | CommitUnknown) or self.draining:  # as if it hadn't been tried; the record tells
                self._new[host] = 0
                self._node.own(self._load(host, key, told))
                return
            self._claim_ended()
            told(None if committed is None else Record(address, committed.revision, head), error)

        try:
            self._check_place(host, address, None, None)
            committed = self._node.records.submit(address, 0, head, (), (), settled)
        except JidoError:  # it is told once the agent has been read
            self._new[host] = 0
            return False
        if committed is not None:  # at once
            settled(committed, None)
        return True

    async def wait_room(self, at_most: int) -> None:
        """Wait until fewer than so many agents are being claimed."""
        while self._claiming >= at_most:
            waiter: asyncio.Future[None] = self._node.loop.create_future()
            self._room.append(waiter)
            await waiter

    async def _claim(self, host: Host, address: str) -> Record:
        alone = False  # it has waited for its turn, since its last node died with it
        try:
            for _ in range(ATTEMPTS):
                record = await self._node.records.read(address)
                if not self.cluster.may_serve():
                    await self.cluster.wait_serving()
                    continue
                trial = self._on_trial(host, address, record, await self._may_take(host, address, record))
                if trial is not None and trial.deaths and not alone and (trial.on or trial.deaths >= MAX_DEATHS):
                    self._claim_ended()  # who waits for its turn doesn't keep others from being woken
                    try:
                        await self._trials.wait_turn()
                        alone = True
                    finally:
                        self._claiming += 1
                    continue
                if (claim := await self._take(host, address, record, trial)) is not None:
                    if trial is not None and trial.on and trial.deaths < MAX_DEATHS:
                        self._trials.begun(host, address[len(host.prefix) :], claim.revision, alone=alone)
                        alone = False
                    return claim
        finally:
            if alone:
                self._trials.not_begun()
        raise StoreUnavailable(f"{address} couldn't be claimed: others write its record all the time", agent=address)

    async def _may_take(self, host: Host, address: str, record: Record | None) -> Owner | None:
        """Whose an agent is that this node may claim; `Moved` if it may not."""
        owner = owner_of(record)
        claim = decide(owner, self.cluster.owner, self.cluster.view)
        if owner is not None and claim is Claim.ASK:
            claim = Claim.TAKE if await self.cluster.find_out(owner) else Claim.LEAVE
        if owner is not None and claim is Claim.LEAVE:
            raise _lives_on(owner, address)
        self._check_place(host, address, owner, record)
        return owner

    def _on_trial(self, host: Host, address: str, record: Record | None, owner: Owner | None) -> Trial | None:
        if owner is None or record is None or record.head is None or self.draining:
            return None
        return self._trials.judge(host, address[len(host.prefix) :], decode_head(record.head, address), owner, self.cluster)

    async def _take(self, host: Host, address: str, record: Record | None, trial: Trial | None) -> Record | None:
        """Write a claim; None: look again."""
        me, failed = self.cluster.owner, ""
        if trial is not None and trial.deaths >= MAX_DEATHS and record is not None and record.head is not None:
            head, failed = failed_head(decode_head(record.head, address), me, trial)
        else:
            head = claimed(host.type.version, record, None if self.draining else me, trial)
        try:
            committed = await self._node.records.commit(address, 0 if record is None else record.revision, head)
        except (Conflict, CommitUnknown):
            return None  # somebody else was here, or it was we: the record tells
        self._new[host] = 0 if record is not None else self._new.get(host, 0) + 1
        if self.draining:  # it was this node's, or a void one's, and is nobody's now
            return None
        if failed:
            self._node.family.gave_up(address, failed)
        return Record(address, committed.revision, head)

    def refuse_others(self, address: str, record: Record | None) -> None:
        """Raise `Moved` for an agent that isn't in memory here, and whose record says that another living node has it."""
        owner = owner_of(record)
        if owner is not None and decide(owner, self.cluster.owner, self.cluster.view) is Claim.LEAVE:
            raise _lives_on(owner, address)

    def _check_place(self, host: Host, address: str, owner: Owner | None, record: Record | None) -> None:
        """Raise `Moved` for an agent that is nobody's, or a void node's, and belongs elsewhere: whoever asked here didn't know better. One whose
        record newer code has written belongs where that code is; if it is nowhere, `NoHost` says what is needed and nothing is claimed.
        """
        head = None if record is None or record.head is None else decode_head(record.head, address)
        if owner is not None and owner == self.cluster.owner:
            return
        try:
            member = self.placement.place(address, self.cluster.view, max(host.type.version, head.version if head is not None else 0))
        except NoHost as nobody:
            if head is not None:
                check_version(host.type, head, address)
            if self.draining:
                raise Moved(str(nobody), agent=address, owner="", incarnation=0) from nobody
            return
        if member.name != self.cluster.owner.node:
            raise Moved(f"{address} belongs on node {member.name}", agent=address, owner=member.name, incarnation=member.incarnation)

    # -- giving away -----------------------------------------------------------------------------------------

    async def give_away(self, activation: Activation) -> bool:
        """Let a live agent go to another node: what runs ends, `on_terminate` runs, its record is nobody's, and what waits goes after it. Whether
        it has gone; it doesn't go while it is paused by a crash, or while a commit's outcome is being looked up.
        """
        host, key = activation.host, activation.key
        if activation.status not in (Status.LIVE, Status.PAUSED) or host.live.get(key) is not activation:
            return False
        activation.leave()
        if activation.extra is not None:
            activation.extra.cancel_timers()
        if host.type.sensors:
            await self._node.sensors.ended(activation)
        await activation.at_rest()
        try:
            await host.go(activation, away=True)
        except Moved:  # the lease was lost meanwhile, and the agent with it
            return False
        return True

    async def give_back(self, activation: Activation) -> None:
        """Write that an agent, whose turns have ended, is nobody's. If that can't be written it is claimed once this node is void."""
        host = activation.host
        marks = activation.extra.marks if activation.extra is not None else None
        bare = host.is_bare_claim(activation)
        head = None if bare else encode_head(host.type.version, activation.turns, activation.state, marks, None)
        try:
            committed = await self._node.records.commit(activation.address, activation.revision, head)
        except StoreError as error:
            self._node.log.warning("an agent couldn't be given back", agent=activation.address, error=describe(error))
        else:
            activation.revision = committed.revision

    # -- what a lapsed lease holds back ----------------------------------------------------------------------

    def may_serve(self) -> bool:
        """Whether a turn may start and an answer leave. If not, what waits goes on as soon as the lease is renewed."""
        if self.cluster.may_serve():
            return True
        if not self._waiting:
            self._waiting = True
            self._send_back()
            self._node.own(self._resume_later())
        return False

    def refuse_arrivals(self, address: str) -> None:
        """Raise `Moved` for what comes over the wire while the lease may be over: whoever sent it then knows that it didn't begin."""
        if not self.may_serve():
            raise _lost(address)

    def _send_back(self) -> None:
        """Likewise what has come and waits."""
        for host in tuple(self._node.hosts.values()):
            for activation in tuple(host.live.values()):
                queue = activation.queue
                for turn in queue.drain() if queue is not None else ():
                    if turn.arrived or (turn.caller is not None and turn.caller.afar):
                        turn.fail(_lost(activation.address))
                    else:
                        activation.enqueue(turn)

    async def _resume_later(self) -> None:
        try:
            await self.cluster.wait_serving()
        finally:
            self._waiting = False
        self._resume()

    def hold(self, activation: Activation, turn: Any, value: Any) -> None:
        """An answer that proves nothing, from a node whose lease may be over: it waits until that is known."""
        self._held.append((activation, turn, value))

    def _resume(self) -> None:
        """The lease was renewed: what was held back goes on."""
        held, self._held = self._held, []
        for activation, turn, value in held:
            activation.answer_when_durable(turn, value)
        for host in tuple(self._node.hosts.values()):
            for activation in tuple(host.live.values()):
                if activation.queue is not None:  # also if nobody waits in it any more
                    activation.proceed()

    def lose(self) -> None:
        """The lease is void: every agent of this node may be somebody else's by now. Their mailboxes go where they are."""
        held, self._held = self._held, []
        for activation, turn, _value in held:
            turn.fail(_lost(activation.address))
        for host in tuple(self._node.hosts.values()):
            for activation in tuple(host.live.values()):
                host.refuse(activation, _lost(activation.address))


def owner_of(record: Record | None) -> Owner | None:
    """The owner that a record names."""
    if record is None or record.head is None:
        return None
    head: Head = decode_head(record.head, record.agent)
    return head.owner


def _lives_on(owner: Owner, address: str) -> Moved:
    return Moved(f"{address} lives on node {owner.node}", agent=address, owner=owner.node, incarnation=owner.incarnation)


def _lost(address: str) -> Moved:
    return Moved(f"{address}: its node has lost its lease", agent=address, owner="", incarnation=0)
