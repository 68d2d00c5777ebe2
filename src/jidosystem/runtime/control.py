"""What operators and programs do to agents from outside: start, stop, delete, restart, pause, resume, look."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.clock import utc_from
from ..core.errors import AgentFailed, JidoError, NoHost, RecordUnreadable
from ..core.ids import split_address
from ..core.near import nearest
from ..core.records import Record
from ..core.schedule import next_due
from ..core.shown import one_line, short, table
from ..distribution.frames import Order
from .deliveries import give_back
from .effects import Reminder
from .head import ACTIVE, FAILED, PAUSED, decode_head
from .loading import check_version, current_state, stored_rows
from .outbox import Outbox
from .status import Status
from .turn import Turn, current_turn

if TYPE_CHECKING:
    from .activation import Activation
    from .host import Host
    from .node import Node

NEAR_KEYS = 500
"""Of how many keys those like one that isn't there are looked for, at each of two places."""
_STATES = {
    Status.LOADING: "loading",
    Status.LIVE: "live",
    Status.HELD: "held",
    Status.PAUSED: "paused",
    Status.LEAVING: "stopping",
    Status.CRASHING: "restarting",
    Status.DELETING: "stopping",
}


class AgentInfo(msgspec.Struct, frozen=True):
    """What `describe` and `list` give.

    Attributes:
        type: name of the agent type
        key: the agent's key
        state: "live", "passive" (not in memory), "paused", "failed" (until `restart`), "loading", "held" (a commit's outcome is being
            looked up), "stopping", "restarting" (after a crash), "unreadable"
        node: name of the node it is live on, on a cluster the one that has claimed it; None: none
        version: state version of the class, or of the record if it is passive
        turns: turns that were committed
        revision: of its record; 0: it has none
        queued: messages in its mailbox
        reminders: names of its reminders; of agents that aren't live only by `describe`
        due: when each of them is due next, by name, in UTC; only by `describe`
        children: addresses of its children, the oldest first; likewise
        pending_effects: casts that their receivers haven't committed yet; likewise
        cause: why it is failed or unreadable
        fields: its durable fields; None in a list
        near: keys like this one, if nothing is stored of it; only by `describe`
    """

    type: str
    key: str
    state: str
    node: str | None
    version: int
    turns: int
    revision: int
    queued: int = 0
    reminders: tuple[str, ...] = ()
    due: dict[str, datetime] = {}
    children: tuple[str, ...] = ()
    pending_effects: int = 0
    cause: str = ""
    fields: dict[str, Any] | None = None
    near: tuple[str, ...] = ()

    def __repr__(self) -> str:
        told = [f"{self.type}/{self.key} {self.state}", f"version {self.version}", f"revision {self.revision}", f"{self.turns} turns"]
        told += [f"{self.queued} queued"] if self.queued else []
        told += [f"node {self.node}"] if self.node else []
        told += [short(self.cause)] if self.cause else []
        told += [f"like {', '.join(self.near)}"] if self.near else []
        return one_line(f"<AgentInfo {', '.join(told)}>")

    def _repr_html_(self) -> str:
        rows = [(name, value) for name in self.__struct_fields__[2:-2] if (value := getattr(self, name))]
        return table(f"{self.type}/{self.key}", [*rows, *(self.fields or {}).items()])


def _due_of(reminders: Iterable[Reminder]) -> dict[str, datetime]:
    return {reminder.name: utc_from(reminder.due_s) for reminder in reminders}


def _acting() -> Turn:
    """The turn that runs. Its agent's activation may be a successor of the one that the turn was meant for."""
    turn = current_turn()
    assert turn is not None
    return turn


class Control:
    """See the module. Every method takes the agent's host and a good key."""

    __slots__ = ("_node", "orders")

    def __init__(self, node: Node) -> None:
        self._node = node
        self.orders: Mapping[str, Callable[[Host, str], Coroutine[Any, Any, AgentInfo | None]]] = {
            "start": self.start, "stop": self.stop, "delete": self.delete, "restart": self.restart, "pause": self.pause, "resume": self.resume,
            "describe": self.describe,
        }  # fmt: skip

    def order(self, order: Order, host: Host, key: str) -> Coroutine[Any, Any, AgentInfo | None]:
        """Have one of them done where the agent is: here or on another node."""
        router = self._node.router
        return self.orders[order](host, key) if router is None else router.order(host, key, order)

    def order_at(self, address: str, order: Order) -> Coroutine[Any, Any, AgentInfo | None]:
        """The same for an address, whose type another node may host; `NoHost`, naming it, if none does."""
        type_name, key = split_address(address)
        host, router = self._node.known(type_name), self._node.router
        if host is not None:
            return self.order(order, host, key)
        if router is None:
            raise NoHost(f"node {self._node.name} hosts no agent type {type_name!r}", agent=address)
        return router.order_by_name(address, order)

    async def start(self, host: Host, key: str) -> None:
        """Activate an agent now."""
        await host.find(key).ready()

    async def stop(self, host: Host, key: str) -> None:
        """Let what was accepted run, then `on_terminate`, then passive; children first. No error if it isn't live."""
        activation = await self._decided(host, key)
        if activation is not None and activation.status is Status.DELETING:
            return
        if activation is None:
            await self.record_of(host, key)
            rows = await self._node.records.read_rows(host.prefix + key, "child")
            await self._node.family.stop_all([row.value.decode() for row in rows])
            return
        activation = await activation.ready()
        if activation.status in (Status.LIVE, Status.PAUSED):
            activation.leave()
            if activation.extra is not None:
                activation.extra.cancel_timers()
            await host.stop(activation)

    async def delete(self, host: Host, key: str) -> None:
        """Delete an agent with everything that is stored of it; a tombstone keeps its revision. Its children are told durably."""
        try:
            activation = await self._present(host, key)
        except AgentFailed:
            await self._node.family.delete_failed(host.prefix + key)
            self._node.tell_takes(host, key)
            return

        async def forget(_agent: Any) -> None:
            nonlocal activation
            turn = _acting()
            assert turn.effects is not None
            turn.effects.deleted = True
            activation = turn.activation

        await activation.system_turn(forget)
        if activation.extra is not None and activation.extra.gone is not None:
            await activation.extra.gone.wait()
        self._node.tell_takes(host, key)  # it may have been paused

    async def restart(self, host: Host, key: str) -> None:
        """Drop the activation, forgive its crashes, end the state "failed", and activate again."""
        activation = await self._decided(host, key)
        if activation is not None and activation.status in (Status.CRASHING, Status.DELETING):
            with suppress(JidoError):  # whatever becomes of it ends here
                await activation.ready()
            activation = await self._decided(host, key)
        if activation is not None:
            activation.leave()
            await activation.at_rest()
            waiting = host.drop(activation)
        else:
            waiting = []
        try:
            address = host.prefix + key
            self._node.family.forgive(address)
            record = await self._node.records.read(address)
            if record is not None and record.head is not None:
                marks = decode_head(record.head, address).marks
                if marks is not None and marks.status == FAILED:
                    await self._node.family.write_status(host, key, ACTIVE, "")
        finally:  # whatever the store says: nobody else knows them any more
            host.requeue(key, waiting)
        await host.find(key).ready()

    async def pause(self, host: Host, key: str) -> None:
        """Durably let calls wait until `resume` or their deadline; reminders and deliveries stay where they are."""
        activation = await self._present(host, key)
        if activation.status == Status.PAUSED:
            return
        activation = await self._mark(activation, PAUSED)
        if activation.status == Status.LIVE:
            activation.status = Status.PAUSED
            activation.idle = False
            give_back(activation)
            self._node.sensors.end(activation)
            await self._node.sensors.ended(activation)

    async def resume(self, host: Host, key: str) -> None:
        """Let a paused agent go on."""
        activation = await self._present(host, key)
        if activation.status != Status.PAUSED:
            return
        activation = await self._mark(activation, ACTIVE)
        if activation.status == Status.PAUSED:
            activation.begin_life()
            for reminder in tuple(activation.need_extra().reminders.values()):  # what was due meanwhile rings now
                self._node.reminders.add(activation.address, reminder)
        self._node.tell_takes(host, key)

    async def _mark(self, activation: Activation, status: int) -> Activation:
        """Write a status in a turn; the activation in which that turn ran, which may be a successor of the one given."""

        async def mark(_agent: Any) -> None:
            nonlocal activation
            turn = _acting()
            turn.new_status = status
            activation = turn.activation

        await activation.system_turn(mark)
        return activation

    async def skip_reminder(self, address: str, reminder: Reminder, now_s: float) -> None:
        """Put the next occurrence in the place of one that went to the dead letters."""
        type_name, key = split_address(address)
        host = self._node.hosts[type_name]
        activation = await self._present(host, key)
        _missed, next_s = next_due(reminder.schedule, reminder.due_s, now_s)

        async def skip(_agent: Any) -> None:
            turn = _acting()
            present = turn.activation.need_extra().reminders.get(reminder.name)
            if turn.effects is not None and present == reminder:
                turn.effects.reminders[reminder.name] = None if next_s is None else msgspec.structs.replace(reminder, due_s=next_s)

        await activation.system_turn(skip)

    async def _decided(self, host: Host, key: str) -> Activation | None:
        """The agent's activation, if there is one, once it is known whether its last commit happened."""
        while (activation := host.live.get(key)) is not None and activation.status is Status.HELD:
            with suppress(JidoError):  # whose turn it was is told; here it only matters that it is known
                await activation.durable_so_far()
        return activation

    async def _present(self, host: Host, key: str) -> Activation:
        """The agent's activation, made if there is none. One that goes in the very moment in which it is found has a successor."""
        while True:
            activation = await host.find(key).ready()
            if activation.status is not Status.GONE:
                return activation

    # -- looking ---------------------------------------------------------------------------------------------

    async def describe(self, host: Host, key: str) -> AgentInfo:
        """One agent, live or not, with its durable fields. `RecordUnreadable` if its record can't be read."""
        activation = host.live.get(key)
        if activation is not None and activation.instance is not None and activation.status != Status.GONE:
            return self.of_live(host, activation, fields=True)
        return await self._of_record(host, key)

    def of_live(self, host: Host, activation: Activation, *, fields: bool = False) -> AgentInfo:
        """What is known of an agent that is in memory here."""
        extra = activation.extra
        outbox: Outbox | None = extra.outbox if extra is not None else None
        return AgentInfo(
            type=host.type.name, key=activation.key, state=_STATES.get(activation.status, "passive"), node=self._node.name,
            version=host.type.version, turns=activation.turns, revision=activation.revision,
            queued=len(activation.queue) if activation.queue is not None else 0,
            reminders=tuple(extra.reminders) if extra is not None else (),
            due=_due_of(extra.reminders.values()) if fields and extra is not None else {},
            children=tuple(extra.children) if extra is not None else (),
            pending_effects=outbox.count if outbox is not None else 0,
            fields=host.type.codec.mapping(activation.state) if fields and activation.state else None,
        )  # fmt: skip

    async def _of_record(self, host: Host, key: str) -> AgentInfo:
        record = await self.record_of(host, key)
        if record is None or record.head is None:
            revision = 0 if record is None else record.revision
            fields, near = host.type.codec.mapping(host.default_state), await self._near_keys(host, key)
            return AgentInfo(host.type.name, key, "passive", None, host.type.version, 0, revision, fields=fields, near=near)
        info = self.of_head(host, key, record.revision, record.head)
        head = decode_head(record.head, record.agent)
        check_version(host.type, head, record.agent)
        state = current_state(host.type, head, record.agent) if head.state is not None else host.default_state
        reminders, children, pending = await stored_rows(self._node.records, record.agent)
        fields = host.type.codec.mapping(state, record.agent)
        names, due = tuple(reminder.name for reminder in reminders), _due_of(reminders)
        return msgspec.structs.replace(info, fields=fields, reminders=names, due=due, children=children, pending_effects=pending)

    async def record_of(self, host: Host, key: str) -> Record | None:
        """The record of an agent that isn't in memory here; `Moved` if another node has it."""
        record = await self._node.records.read(host.prefix + key)
        if self._node.ownership is not None:
            self._node.ownership.refuse_others(host.prefix + key, record)
        return record

    async def _near_keys(self, host: Host, key: str) -> tuple[str, ...]:
        """Keys like one that nothing is stored of, from one page of those that begin as it does and one of the first of all."""
        keys: list[str] = []
        for begin in (key[: len(key) // 2], ""):
            pages = self._node.records.scan_agents(host.type.name, host.prefix + begin)
            async for page in pages:
                keys += [record.agent.removeprefix(host.prefix) for record in page[:NEAR_KEYS]]
                break
            if isinstance(pages, AsyncGenerator):
                await pages.aclose()
        return tuple(nearest(key, dict.fromkeys(keys), cutoff=0.7, most=3))

    def of_head(self, host: Host, key: str, revision: int, blob: bytes, damage: str | None = None) -> AgentInfo:
        """What an agent's head tells."""
        try:
            head = decode_head(blob, host.prefix + key)
        except RecordUnreadable as error:
            return AgentInfo(host.type.name, key, "unreadable", None, 0, 0, revision, cause=damage or str(error))
        marks = head.marks
        state = "passive" if marks is None or marks.status == ACTIVE else "failed" if marks.status == FAILED else "paused"
        cause = marks.cause if marks is not None else ""
        view = None if self._node.router is None else self._node.router.cluster.view
        there = view is not None and head.owner is not None and not view.is_void(*head.owner)
        node = head.owner.node if there and head.owner is not None else None
        return AgentInfo(host.type.name, key, state, node, head.version, head.turns, revision, cause=cause)

    async def watch(self, host: Host, key: str) -> AsyncIterator[tuple[dict[str, Any] | None, int]]:
        """(durable fields, revision) after each commit, the present ones first; None for a deleted agent."""
        async for record in self._node.records.watch(host.prefix + key):
            if record.head is None:
                yield None, record.revision
                continue
            head = decode_head(record.head, record.agent)
            check_version(host.type, head, record.agent)
            state = current_state(host.type, head, record.agent) if head.state is not None else host.default_state
            yield host.type.codec.mapping(state, record.agent), record.revision
