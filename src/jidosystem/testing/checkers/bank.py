"""A bank: whatever is moved between its accounts, what they hold together stays the same at every look.

Operations: `transfer` (key: the bank; argument: {"from": …, "to": …, "amount": …}) and `snapshot` (key: the bank; result: what each account
holds, by name).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..histories import History, Operation
from .verdict import Contradiction, Verdict, contradiction

MOST = 10
"""How many transfers a contradiction names at most."""


def check_bank(history: History, *, total: float, overdraft: bool = False) -> Verdict:
    """Whether every snapshot of every bank adds up to `total`, and, unless there is `overdraft`, no account is below zero."""
    wrong: list[Contradiction] = []
    checked = 0
    for operations in history.of_kinds("transfer", "snapshot").values():
        checked += len(operations)
        wrong += _of_bank(operations, total, overdraft)
    return Verdict("bank", checked, tuple(wrong))


def _of_bank(operations: Sequence[Operation], total: float, overdraft: bool) -> Iterator[Contradiction]:
    transfers = [operation for operation in operations if operation.kind == "transfer"]
    snapshots = [operation for operation in operations if operation.kind == "snapshot" and operation.outcome == "ok"]
    good: Operation | None = None
    before = 0.0
    for snapshot in sorted(snapshots, key=lambda operation: operation.end):
        difference = sum(snapshot.result.values()) - total
        if not overdraft:
            yield from _below_zero(snapshot)
        if not difference:
            good = snapshot
        elif difference != before:  # the same sum is missing still: said already
            what = "money made" if difference > 0 else "money lost"
            why = f"the accounts hold {total + difference:g} together, not {total:g}"
            yield contradiction(what, why, [*([good] if good is not None else []), *_suspects(transfers, good, snapshot, abs(difference)), snapshot])
        before = difference


def _below_zero(snapshot: Operation) -> Iterator[Contradiction]:
    for account, balance in snapshot.result.items():
        if balance < 0:
            yield contradiction("overdrawn", f"{account} holds {balance:g}", [snapshot])


def _suspects(transfers: Sequence[Operation], good: Operation | None, bad: Operation, amount: float) -> list[Operation]:
    """The transfers that may have come in between; those of the very amount if there are any."""
    between = [one for one in transfers if one.start <= bad.end and (good is None or one.end >= good.start or one.outcome == "unknown")]
    fitting = [one for one in between if one.argument["amount"] == amount]
    return (fitting or between)[-MOST:]
