"""The long runs: servers of a cluster die and stop at random while two nodes write."""

import asyncio
import random
from contextlib import asynccontextmanager

import pytest

from jidosystem.backends.nats.connection import Connection
from jidosystem.backends.nats.partitions import RecordsSettings
from jidosystem.backends.nats.records import open_records

from .history import History

pytestmark = [pytest.mark.torture, pytest.mark.blocking, pytest.mark.timeout(1_800)]
ROUNDS = 20


@asynccontextmanager
async def node(settings):
    connection = await Connection.open(settings)
    records = await open_records(connection, RecordsSettings(max_bytes=64 * 1024 * 1024))
    try:
        yield records
    finally:
        await records.close()
        await connection.close()


@pytest.mark.parametrize("seed", range(3))
async def test_every_acknowledged_revision_is_there_whatever_dies(three_servers, settings_of_three, seed):
    chance, history, ended, waits = random.Random(seed), History(), asyncio.Event(), []
    async with node(settings_of_three) as one, node(settings_of_three) as other:

        async def write(writer):
            while not ended.is_set():
                await history.append(one if writer % 2 else other, f"A/{writer % 40}", writer)

        writers = [asyncio.create_task(write(writer)) for writer in range(60)]
        for _ in range(ROUNDS):
            await history.reached(200)
            history.longest_s = 0.0
            server = chance.choice(three_servers.servers)
            if chance.random() < 0.5:
                server.kill()
            else:
                server.pause()
            await asyncio.sleep(chance.uniform(0.0, 8.0))
            if server.pid:
                server.resume()
            else:
                server.start()
            await asyncio.to_thread(server.wait_ready, 60)
            waits.append(history.longest_s)
        await history.reached(200)
        ended.set()
        await asyncio.gather(*writers)
        print(f"seed {seed}: {history.attempts} attempts, {history.won} won, {sum(map(len, history.unknown.values()))} unknown, waits {waits}")
        assert max(waits) > 2.0, "no leader was hit: nothing was tried"
        assert await history.wrong(one) == []
        assert list(await other.verify()) == []
