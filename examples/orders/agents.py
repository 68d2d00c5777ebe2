"""A desk that turns CSV files in a folder into orders, and the customers who placed them. Nothing is lost and nothing counted twice."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from jidosystem import Agent, action, field, sensor


@dataclass(frozen=True)
class Order:
    """One line of a file; `number` counts the file's lines from 1."""

    file: str
    number: int
    customer: str
    amount: Decimal


def orders_in(path: Path, behind: int) -> list[Order]:
    """The orders of a file behind its first so many."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [Order(path.name, number, row["customer"], Decimal(row["amount"])) for number, row in enumerate(rows, 1) if number > behind]


class Desk(Agent):
    """Takes the orders of one folder, `KEY/inbox`, and moves each file to `KEY/done` when its last order is durable."""

    orders: int = 0
    taken: dict[str, int] = field(default_factory=dict)  # how many of each file; the name of a file is used once

    @sensor(watch="{key}/inbox", action="place")
    async def read(self, files: list[Path]) -> AsyncIterator[Order]:
        """What the state says was taken is left out: it was written in the commit that took it."""
        for path in files:
            for order in orders_in(path, self.taken.get(path.name, 0)):
                yield order
            # Here every order of the file is durable. If the process dies before this line, the next one comes to it again.
            done = path.parent.parent / "done"
            done.mkdir(exist_ok=True)
            path.rename(done / path.name)

    @action
    async def place(self, order: Order) -> None:
        """One order, one turn: the count, and the cast to the customer, are committed together."""
        self.orders += 1
        self.taken[order.file] = order.number
        self.cast(self.agent(Customer, order.customer).ordered, order)

    @action(readonly=True)
    async def count(self) -> int:
        """How many orders there were."""
        return self.orders


class Customer(Agent):
    """What one customer has ordered."""

    orders: int = 0
    total: Decimal = Decimal(0)

    @action
    async def ordered(self, order: Order) -> None:
        """One more order."""
        self.orders += 1
        self.total += order.amount

    @action(readonly=True)
    async def book(self) -> tuple[int, Decimal]:
        """How many orders, and what they come to."""
        return self.orders, self.total
