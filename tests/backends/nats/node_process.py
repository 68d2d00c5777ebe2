"""A node as a process of its own, for those who stop and kill it: settings on standard input, what happens to it as lines of JSON.

It looks a thousand times a second whether it may serve, and says when that changes, by the clock that all processes of the machine share.
"""

from __future__ import annotations

import asyncio
import json
import sys

import msgspec

from jidosystem.backends.nats.connection import Connection
from jidosystem.backends.nats.records import open_records
from jidosystem.backends.nats.settings import NatsSettings
from jidosystem.backends.nats.wire import NatsWire
from jidosystem.core.clock import boot_s
from jidosystem.distribution.membership import Membership


def tell(what: str, **fields: object) -> None:
    print(json.dumps({"what": what, "at": boot_s(), **fields}), flush=True)


async def main(name: str, settings: NatsSettings) -> None:
    connection = await Connection.open(settings)
    records, wire = await open_records(connection), await NatsWire.open(settings)
    lost: asyncio.Queue[int] = asyncio.Queue()
    membership = Membership(records, wire, name=name, on_lost=lost.put_nowait)
    tell("joined", incarnation=await membership.join())
    served, serves, again = 0.0, False, None
    while True:
        now = boot_s()  # before the question: a stop between the two is the question's to notice
        if membership.may_serve() != serves:
            tell("stopped", served=served) if serves else tell("serves")
            serves = not serves
        if serves:
            served = now
        if not lost.empty():
            tell("lost", incarnation=lost.get_nowait())
            again = asyncio.ensure_future(membership.join())
        if again is not None and again.done():
            tell("joined", incarnation=again.result())
            again = None
        await asyncio.sleep(0.001)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], msgspec.json.decode(sys.stdin.readline(), type=NatsSettings)))
