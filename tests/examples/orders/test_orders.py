"""The example as a user runs it, and its parts without a platform."""

from __future__ import annotations

import asyncio
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from examples.orders.__main__ import ROOT
from examples.orders.agents import Customer, Desk, Order, orders_in

pytest.importorskip("watchfiles", reason="the extra `server` isn't installed")


@pytest.mark.timeout(180)
async def test_the_books_balance_although_the_node_is_killed(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "examples.orders", "--folder", str(tmp_path), "--files", "3", "--orders", "60", "--kills", "2"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    assert said.count("kill -9") == 2 and "The books balance" in said
    assert sorted(path.name for path in (tmp_path / "shop" / "done").iterdir()) == ["orders-0.csv", "orders-1.csv", "orders-2.csv"]


async def test_the_sensor_is_a_generator_that_a_test_can_run(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    path = inbox / "a.csv"
    path.write_text("customer,amount\nada,1.50\nbob,2\n")
    ada, bob = Order("a.csv", 1, "ada", Decimal("1.50")), Order("a.csv", 2, "bob", Decimal(2))
    assert orders_in(path, 0) == [ada, bob]
    assert [order async for order in Desk(taken={"a.csv": 1}).read([path])] == [bob]
    assert not path.exists() and (tmp_path / "done" / "a.csv").exists()
    customer = Customer()
    await customer.ordered(ada)
    assert await customer.book() == (1, Decimal("1.50"))
