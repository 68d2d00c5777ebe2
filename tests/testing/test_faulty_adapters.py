"""With faults off the adapters with faults keep the contracts, around every adapter that there is."""

from contextlib import asynccontextmanager

import pytest

from jidosystem.backends.memory import MemoryRecords, MemoryWire
from jidosystem.backends.sqlite import open_store
from jidosystem.core.clock import SystemClock
from jidosystem.testing import Faults, FaultyRecords, FaultyWire
from jidosystem.testing.conformance import EventLogConformance, RecordsConformance, WireConformance


class TestFaultyMemory(RecordsConformance):
    @asynccontextmanager
    async def open(self, clock):
        records = FaultyRecords(MemoryRecords(clock=clock), Faults())
        yield records
        await records.close()


class TestFaultySqlite(RecordsConformance):
    @asynccontextmanager
    async def open(self, clock):
        records = FaultyRecords(await open_store(str(self.path), clock=clock), Faults())
        yield records
        await records.close()

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path):
        self.path = tmp_path / "store.db"


class TestFaultyLog(EventLogConformance):
    @asynccontextmanager
    async def open_log(self):
        self.records = FaultyRecords(MemoryRecords(clock=SystemClock()), Faults())
        yield self.records.log
        await self.records.close()

    async def close_log(self, log):
        await self.records.close()


class TestFaultyWire(WireConformance):
    @asynccontextmanager
    async def open(self):
        wire = FaultyWire(MemoryWire(), Faults())
        yield wire
        await wire.close()
