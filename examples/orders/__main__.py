"""`python -m examples.orders`: files are dropped into a folder, the node that reads them is killed, and the books balance.

`--node` is that node; `--folder` keeps everything in a place of yours.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import sys
import tempfile
from collections import Counter
from decimal import Decimal
from pathlib import Path

from examples.orders.agents import Customer, Desk
from jidosystem import Platform

ROOT = Path(__file__).resolve().parents[2]
CUSTOMERS = ("ada", "bob", "cleo", "dan")
PATIENCE_S = 60.0


async def serve() -> None:
    """A node, until it is killed."""
    async with Platform("sqlite:///orders.db", agents=[Desk, Customer]) as platform:
        await platform.agents.start(Desk, "shop")  # the first time; later it would come back by itself
        print("the node is up", flush=True)
        await asyncio.Event().wait()


def drop_file(folder: Path, name: str, orders: int, expected: Counter[str], amounts: dict[str, Decimal]) -> None:
    """Write a file beside the folder and move it in when it is whole: half a file would be read as one."""
    lines = ["customer,amount"]
    for number in range(orders):
        customer = random.choice(CUSTOMERS)
        amount = Decimal(number % 500) / 100
        expected[customer] += 1
        amounts[customer] = amounts.get(customer, Decimal(0)) + amount
        lines.append(f"{customer},{amount}")
    draft = folder / f".{name}"
    draft.write_text("\n".join(lines) + "\n")
    draft.rename(folder / name)


async def lives(folder: Path) -> None:
    """Start the node, let it work for a moment, and kill it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    node = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "examples.orders", "--node", cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert node.stdout is not None
    await node.stdout.readline()
    await asyncio.sleep(random.uniform(0.05, 0.3))
    print("kill -9")
    node.kill()
    await node.wait()


async def has_all(platform: Platform, customer: str, orders: int) -> None:
    """Wait until a customer's orders, which the desk has cast, have all come."""
    async for fields, _revision in platform.agents.watch(platform.agent(Customer, customer)):
        if fields is not None and fields["orders"] >= orders:
            return


async def demo(folder: Path, files: int, orders: int, kills: int) -> bool:
    """Whether the books balance."""
    inbox = folder / "shop" / "inbox"
    inbox.mkdir(parents=True, exist_ok=True)
    expected, amounts = Counter[str](), dict[str, Decimal]()
    for number in range(files):
        drop_file(inbox, f"orders-{number}.csv", orders, expected, amounts)
    for _ in range(kills):
        await lives(folder)
    with contextlib.chdir(folder):
        async with Platform("sqlite:///orders.db", agents=[Desk, Customer]) as platform:  # nobody calls the desk to work
            async with asyncio.timeout(PATIENCE_S):
                while list(inbox.glob("*.csv")):  # noqa: ASYNC110 - a folder tells nobody
                    await asyncio.sleep(0.05)
                for name in expected:
                    await has_all(platform, name, expected[name])
            books = {name: await platform.agent(Customer, name).book() for name in CUSTOMERS}
    for name, (count, total) in books.items():
        fits = (count, total) == (expected[name], amounts.get(name, Decimal(0)))
        print(f"{name:6} {count:5} orders {total:10} {'as in the files' if fits else 'DIFFER from the files'}")
    return all(book == (expected[name], amounts.get(name, Decimal(0))) for name, book in books.items())


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.orders", description=__doc__)
    parser.add_argument("--node", action="store_true", help="be the node, in the working directory")
    parser.add_argument("--folder", type=Path, help="where to keep files and store (default: a temporary folder)")
    parser.add_argument("--files", type=int, default=5)
    parser.add_argument("--orders", type=int, default=200, help="in each file")
    parser.add_argument("--kills", type=int, default=3)
    options = parser.parse_args()
    if options.node:
        asyncio.run(serve())
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        if asyncio.run(demo(folder, options.files, options.orders, options.kills)):
            print("The books balance: every order counts once.")
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
