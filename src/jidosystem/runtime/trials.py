"""Agents that may have taken their node along: a turn that ends its process is claimed by the next node, and would end that one too.

An agent that is claimed from a node that died, because something is to be done, is on trial: its claim says so, and the first commit, or a
second without anything to do, ends that. If its node dies before, that was its doing as far as anybody can know, and it is written into the
next claim. Then it is claimed only after a pause, and no two such agents begin side by side on one node: the next death names one of them.
One that has done it too often is failed, as one that crashes too often is. `judged` is pure; `Trials` does what it says.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..core.errors import JidoError
from ..distribution.members import View
from .activation import nothing
from .head import FAILED, Head, Marks, Owner, Trial, encode_head
from .status import Status

if TYPE_CHECKING:
    from .activation import Activation
    from .host import Host
    from .node import Node
    from .ownership import Cluster

MAX_DEATHS = 2
"""So many nodes in a row that died while an agent was on trial, and it is failed; the first one, where it wasn't yet, not counted."""
WINDOW_S = 600.0
"""Deaths that are further apart have nothing to do with each other."""
PAUSE_S = 3.0
"""Before an agent is claimed, or failed, whose last node died with it on trial: long enough for a node to start or to join again; with jitter,
a half of it to the whole."""
QUIET_S = 1.0
"""An agent that has done nothing for so long, and nothing is to be done, is on trial no more."""
LOOK_ALONE_S = 0.05
"""How often it is looked whether it has done something."""
ALONE_S = 5.0
"""So long the others wait at most for one that is on trial again."""


def judged(before: Trial | None, owner: Owner | None, me: Owner, now_s: float, view: View, *, runs: bool) -> Trial | None:
    """What the claim of an agent says of it: `before`, what the last one said, `owner`, whose it was, who is void if it isn't `me`; `runs`:
    something is to be done at once. A node that lost its lease and has joined again since didn't die.
    """
    if owner is None:  # given away in order
        return None
    if owner == me:
        return before and before._replace(on=runs)
    dead = before.dead if before is not None and now_s - before.at_s <= WINDOW_S else ()
    if before is not None and before.on:
        dead = (*dead, owner)
    dead = tuple(one for one in dead if not view.outlived(one.node, one.incarnation))
    return Trial(now_s, dead, on=runs) if runs or dead else None


class Trials:
    """Those of one node."""

    __slots__ = ("_alone", "_node")

    def __init__(self, node: Node) -> None:
        self._node = node
        self._alone = asyncio.Lock()

    def judge(self, host: Host, key: str, head: Head | None, owner: Owner, cluster: Cluster) -> Trial | None:
        """What a claim is to say of an agent."""
        activation, kind = host.live.get(key), host.type
        runs = kind.hook_start is not None or bool(kind.sensors) or (activation is not None and bool(activation.queue))
        return judged(None if head is None else head.trial, owner, cluster.owner, self._node.clock.time_s(), cluster.view, runs=runs)

    async def wait_turn(self) -> None:
        """Pause before an agent is claimed that is on trial again, until no other begins; `begun` lets the next one."""
        await asyncio.sleep(PAUSE_S * (0.5 + self._node.random() / 2))
        await self._alone.acquire()

    def begun(self, host: Host, key: str, revision: int, *, alone: bool) -> None:
        """An agent on trial is claimed: see to the end of that."""
        self._node.own(self._see_through(host, key, revision, alone=alone))

    def not_begun(self) -> None:
        """It wasn't claimed after all."""
        self._alone.release()

    async def _see_through(self, host: Host, key: str, revision: int, *, alone: bool) -> None:
        """Wait until an agent has committed something, or has nothing to do any more, and have that written."""
        step_s, quiet_s, waited_s = LOOK_ALONE_S if alone else QUIET_S / 2, 0.0, 0.0
        try:
            while (activation := host.live.get(key)) is not None and activation.revision in (0, revision):
                at_rest = activation.status in (Status.LIVE, Status.PAUSED) and not (activation.writer or activation.readers)
                quiet_s = quiet_s + step_s if at_rest else 0.0
                if quiet_s > QUIET_S:
                    await self._acquit(host, activation)
                    return
                if alone and waited_s >= ALONE_S:
                    alone = False
                    self._alone.release()
                await asyncio.sleep(step_s)
                waited_s += step_s
        finally:
            if alone:
                self._alone.release()

    async def _acquit(self, host: Host, activation: Activation) -> None:
        if host.is_bare_claim(activation):
            if not host.type.resident:  # nothing is stored of it, and nothing is to stay
                host.passivate(activation)
            return
        try:
            await activation.system_turn(nothing)
        except JidoError:  # whoever claims it next sees to it
            return


def failed_head(head: Head, me: Owner, trial: Trial) -> tuple[bytes, str]:
    """The head of an agent that has taken too many nodes along, and why."""
    cause = f"the nodes {', '.join(one.node for one in trial.dead)} died one after another, each in a turn of it"
    marks = head.marks or Marks()
    marks.status, marks.cause = FAILED, cause
    return encode_head(head.version, head.turns, head.state, marks, me), cause
