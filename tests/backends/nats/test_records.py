"""The records on NATS keep the contract."""

from contextlib import asynccontextmanager

import pytest

from jidosystem.backends.nats.connection import Connection
from jidosystem.backends.nats.partitions import RecordsSettings
from jidosystem.backends.nats.records import open_records
from jidosystem.testing.conformance import RecordsConformance

MAX_BYTES = 256 * 1024 * 1024  # a server reserves it for as long as it lives


class TestNatsRecords(RecordsConformance):
    partitions = 3

    @pytest.fixture(autouse=True)
    def _settings(self, settings):
        self.settings = settings

    @asynccontextmanager
    async def open(self, clock):
        connection = await Connection.open(self.settings)
        try:
            records = await open_records(connection, RecordsSettings(partitions=self.partitions, max_bytes=MAX_BYTES), clock=clock)
            try:
                yield records
            finally:
                await records.close()
        finally:
            await connection.close()

    async def test_a_submitted_commit_is_told_once_and_in_order(self):
        self.partitions = 1  # each partition has its own order of what became durable
        await super().test_a_submitted_commit_is_told_once_and_in_order()
