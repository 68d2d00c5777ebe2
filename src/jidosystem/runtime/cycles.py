"""Calls that could never be answered: a chain that comes back to its own agent, or agents that wait for each other.

Asked before a call waits for a busy agent, so that the last one to join a cycle is told instead of all of them hanging.
"""

from __future__ import annotations

from ..core.errors import CallCycle
from .activation import Activation
from .definition import ActionSpec
from .status import Status
from .turn import Turn


def check_cycle(target: Activation, caller: Turn, spec: ActionSpec) -> None:
    """Raise `CallCycle` if a call to `target` could never be answered: its own chain, or agents that wait for each other.

    Followed along the edges "whose turn waits for whom" on this node; called only when the target is busy.
    """
    chain: dict[Activation, Turn] = {}
    turn: Turn | None = caller
    while turn is not None:
        if turn is caller or turn.open or turn.afar:  # who has ended no longer waits
            chain.setdefault(turn.activation, turn)
        turn = turn.caller
    if target in chain:
        raise _cycle([*caller.chain(), target.address])
    if spec.readonly and target.writer is None and not target.queue and target.status == Status.LIVE:
        return  # it runs beside those who read
    seen: set[Activation] = {target}
    paths: list[tuple[Activation, list[str]]] = [(target, [target.address])]
    while paths:
        activation, path = paths.pop()
        for running in activation.running():
            for waited in (running.waits or {}).values():
                if waited in chain:
                    raise _cycle([*caller.chain(), *path, waited.address])
                if waited not in seen:
                    seen.add(waited)
                    paths.append((waited, [*path, waited.address]))


def _cycle(chain: list[str]) -> CallCycle:
    return CallCycle(f"a cycle of calls would wait for ever: {' → '.join(chain)}; emit an event or cast instead of calling back", chain=chain)
